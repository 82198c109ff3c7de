//! The prober, with echoes answered from memory and time that passes when nobody works.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use moenet_agent::sources::probe::{Ping, ProbeError, ProbeSettings, Prober, Target};
use tokio::time::{Instant, sleep};

#[derive(Default)]
struct Fake {
    /// When each probe began, in seconds after the first.
    began: Mutex<(Option<Instant>, Vec<u64>)>,
    probes: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

#[async_trait]
impl Ping for Fake {
    async fn ping(
        &self,
        target: &Target,
        s: &ProbeSettings,
    ) -> Result<Vec<Option<Duration>>, ProbeError> {
        self.probes.fetch_add(1, Ordering::Relaxed);
        {
            let mut began = self.began.lock().unwrap();
            let first = *began.0.get_or_insert_with(Instant::now);
            began.1.push(first.elapsed().as_secs());
        }
        let now = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(now, Ordering::Relaxed);
        let answers = target.address.is_ipv4();
        sleep(if answers {
            Duration::from_millis(20)
        } else {
            s.timeout
        })
        .await;
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        Ok(vec![
            answers.then_some(Duration::from_millis(20));
            usize::from(s.count)
        ])
    }
}

fn target(address: &str) -> Target {
    Target {
        address: address.parse().unwrap(),
        interface: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_is_probed_at_once_and_then_every_interval() {
    let fake = Arc::new(Fake::default());
    let prober = Prober::start(fake.clone(), ProbeSettings::default());
    let answers = target("192.0.2.1");
    assert!(prober.current(&answers).is_none());
    prober.watch(BTreeSet::from([answers.clone()]));
    sleep(Duration::from_secs(1)).await;
    let probe = prober.current(&answers).unwrap();
    assert_eq!((probe.rtt_ms, probe.loss), (Some(20.0), 0.0));
    sleep(Duration::from_secs(3600)).await;
    let probes = fake.probes.load(Ordering::Relaxed);
    // The second comes after any part of the interval.
    assert!((12..=16).contains(&probes), "{probes}");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_silent_targets_delay_no_other_beyond_the_interval() {
    let fake = Arc::new(Fake::default());
    let prober = Prober::start(fake.clone(), ProbeSettings::default());
    let mut all: BTreeSet<_> = (0..1000)
        .map(|n| target(&format!("2001:db8::{n:x}")))
        .collect();
    all.insert(target("192.0.2.1"));
    prober.watch(all);
    sleep(Duration::from_secs(200)).await;
    assert_eq!(
        prober
            .current(&target("2001:db8::1"))
            .map(|p| (p.rtt_ms, p.loss)),
        Some((None, 1.0))
    );
    assert!(prober.current(&target("192.0.2.1")).is_some());
    assert!(prober.current(&target("2001:db8::3e7")).is_some());
    assert_eq!(fake.most_at_once.load(Ordering::Relaxed), 32);
}

#[tokio::test(start_paused = true)]
async fn thousand_probes_are_spread_over_the_interval() {
    let fake = Arc::new(Fake::default());
    let prober = Prober::start(fake.clone(), ProbeSettings::default());
    prober.watch(
        (0..1000u32)
            .map(|n| target(&format!("10.0.{}.{}", n / 250, n % 250)))
            .collect(),
    );
    sleep(Duration::from_secs(1500)).await;
    let began = fake.began.lock().unwrap().1.clone();
    let within =
        |seconds: std::ops::Range<u64>| began.iter().filter(|at| seconds.contains(at)).count();
    for second in 0..1400 {
        let probes = within(second..second + 1);
        assert!(probes <= 35, "{probes} probes began in second {second}");
    }
    assert!(within(0..60) >= 1000, "all are probed in the first minute");
    for start in (360..1400).step_by(60) {
        let probes = within(start..start + 60);
        assert!(
            (120..=280).contains(&probes),
            "{probes} of 200 in the minute from {start}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_left_is_forgotten() {
    let prober = Prober::start(Arc::new(Fake::default()), ProbeSettings::default());
    prober.watch(BTreeSet::from([target("192.0.2.1")]));
    sleep(Duration::from_secs(1)).await;
    prober.watch(BTreeSet::new());
    assert!(prober.current(&target("192.0.2.1")).is_none());
}
