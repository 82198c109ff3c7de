//! A BIRD that hangs, and protocols that a command disabled.

use std::cell::RefCell;
use std::io;
use std::sync::Once;
use std::time::Duration;

use moenet_agent::controller::Hint;
use moenet_agent::document::{BgpSessionSpec, ConditionType, Document, Kind, OverrideSpec, Phase};
use moenet_agent::observed::bird::outline::protocols_in;
use tokio::time::{Instant, sleep};

use super::lab::{Agent, Machine, interface, name, session, session_key, uid, write};

/// Two sessions that are configured.
async fn settled() -> (Machine, Agent, tokio::sync::mpsc::UnboundedSender<Hint>) {
    let machine = Machine::new(2);
    let mut agent = machine.boot();
    let hints = agent.run();
    sleep(Duration::from_secs(30)).await;
    assert_eq!(agent.status(1).phase, Phase::Established);
    (machine, agent, hints)
}

fn spoil_mtu(machine: &Machine) {
    let mut model = machine.kernel.model.lock().unwrap();
    model.links.get_mut(&interface(1)).unwrap().mtu = 1300;
}

fn mtu(machine: &Machine) -> u32 {
    machine.kernel.links()[&interface(1)].mtu
}

/// The protocol of a session.
fn protocol(machine: &Machine, number: u8) -> String {
    let tree = machine.bird.tree.lock().unwrap();
    protocols_in(&tree.fragments[&name(number)])[0].clone()
}

#[tokio::test(start_paused = true)]
async fn pass_says_when_it_has_asked_for_all() {
    let (machine, agent, _hints) = settled().await;
    let asked = *machine.bird.asked.lock().unwrap();
    assert!(asked >= 3, "the shared files and two sessions: {asked}");
    let all = machine.bird.asked_all.lock().unwrap().clone();
    assert_eq!(all, [asked], "once, after the last");
    drop(agent);
}

#[tokio::test(start_paused = true)]
async fn hung_bird_delays_no_kernel_repair() {
    let (machine, agent, hints) = settled().await;
    let wanted = mtu(&machine);
    *machine.bird.hangs.lock().unwrap() = true;
    // At once, while its look is in progress, and once it is known to hang.
    for wait in [0, 4, 60] {
        sleep(Duration::from_secs(wait)).await;
        spoil_mtu(&machine);
        hints.send(Hint::key(session_key(1))).unwrap();
        sleep(Duration::from_secs(3)).await;
        assert_eq!(mtu(&machine), wanted, "after {wait} s");
    }
    *machine.bird.hangs.lock().unwrap() = false;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(agent.status(1).phase, Phase::Established);
}

#[tokio::test(start_paused = true)]
async fn tunnel_is_repaired_while_its_own_commit_hangs() {
    let (machine, agent, hints) = settled().await;
    *machine.bird.hangs.lock().unwrap() = true;
    let mut spec = session(1, "Enabled");
    spec["tunnel"]["mtu"] = 1380.into();
    spec["asn"] = 4_242_429_999_u32.into();
    write::<BgpSessionSpec>(agent.store(), &name(1), &uid(1), spec);
    agent.relist();
    hints.send(Hint::key(session_key(1))).unwrap();
    sleep(Duration::from_secs(4)).await;
    assert_eq!(mtu(&machine), 1380);
    spoil_mtu(&machine);
    hints.send(Hint::key(session_key(1))).unwrap();
    sleep(Duration::from_secs(8)).await;
    assert_eq!(mtu(&machine), 1380);
    assert_ne!(agent.status(1).phase, Phase::Error);
    assert!(agent.status(1).last_error.is_none());
}

#[tokio::test(start_paused = true)]
async fn removal_waits_until_birds_files_can_be_read() {
    let (machine, agent, hints) = settled().await;
    *machine.bird.unreadable.lock().unwrap() = true;
    write::<BgpSessionSpec>(agent.store(), &name(1), &uid(1), session(1, "Absent"));
    agent.relist();
    hints.send(Hint::key(session_key(1))).unwrap();
    sleep(Duration::from_secs(60)).await;
    assert!(
        machine.kernel.links().contains_key(&interface(1)),
        "BIRD's session runs in this tunnel"
    );
    *machine.bird.unreadable.lock().unwrap() = false;
    sleep(Duration::from_secs(60)).await;
    assert!(!machine.kernel.links().contains_key(&interface(1)));
    let tree = machine.bird.tree.lock().unwrap();
    assert!(!tree.fragments.contains_key(&name(1)));
}

/// Longer than a reconcile waits for a commit.
const COMMIT_WAIT: Duration = Duration::from_secs(6);

thread_local! {
    /// The log of the test on this thread, while it is recorded.
    static LOG: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Records the log of the test on this thread from now on. One subscriber serves all threads: with one of this thread
/// alone, a line that another test logs first is switched off for good.
fn record_log() {
    static SUBSCRIBER: Once = Once::new();
    SUBSCRIBER.call_once(|| {
        let lines = tracing_subscriber::fmt().with_writer(|| ThreadLog);
        tracing::subscriber::set_global_default(lines.with_ansi(false).finish()).unwrap();
    });
    LOG.set(Some(Vec::new()));
}

/// Returns the recorded lines with this text.
fn logged(text: &str) -> Vec<String> {
    let log = LOG.with_borrow(|log| String::from_utf8(log.clone().unwrap()).unwrap());
    let lines = log.lines().filter(|line| line.contains(text));
    lines.map(str::to_owned).collect()
}

struct ThreadLog;

impl io::Write for ThreadLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.iter_mut().for_each(|log| log.extend(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn slow_commit_is_logged_once_it_ends() {
    let (machine, agent, hints) = settled().await;
    record_log();
    *machine.bird.delay.lock().unwrap() = COMMIT_WAIT * 4;
    let mut spec = session(1, "Enabled");
    spec["tunnel"]["mtu"] = 1380.into();
    spec["asn"] = 4_242_429_999_u32.into();
    write::<BgpSessionSpec>(agent.store(), &name(1), &uid(1), spec);
    agent.relist();
    hints.send(Hint::key(session_key(1))).unwrap();
    sleep(COMMIT_WAIT * 2).await;
    assert_eq!(logged("session configured"), [""; 0]);
    sleep(COMMIT_WAIT * 12).await;
    let lines = logged("session configured");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for field in ["steps=2", "cause=\"sync\"", "tunnel.mtu: want 1380"] {
        assert!(lines[0].contains(field), "no {field} in {lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hung_bird_is_asked_by_one_look_at_a_time() {
    let (machine, _agent, hints) = settled().await;
    *machine.bird.hangs.lock().unwrap() = true;
    *machine.bird.looks.lock().unwrap() = 0;
    for _ in 0..600 {
        hints.send(Hint::Everything).unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    let looks = *machine.bird.looks.lock().unwrap();
    assert!((1..=8).contains(&looks), "{looks} looks in a minute");
}

#[tokio::test(start_paused = true)]
async fn hung_bird_at_start_counts_no_session_as_gone() {
    let machine = Machine::new(2);
    machine.boot().pass().await;
    let fragment = machine.bird.tree.lock().unwrap().fragments[&name(1)].clone();
    *machine.bird.hangs.lock().unwrap() = true;
    let mut agent = machine.boot();
    let spec = session(1, "Absent");
    write::<BgpSessionSpec>(agent.store(), &name(1), &uid(1), spec);
    agent.relist();
    let _hints = agent.run();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(agent.applied(), 2);
    assert_eq!(
        machine.bird.tree.lock().unwrap().fragments[&name(1)],
        fragment
    );
    *machine.bird.hangs.lock().unwrap() = false;
    sleep(Duration::from_secs(40)).await;
    assert_eq!(agent.applied(), 1);
}

#[tokio::test(start_paused = true)]
async fn disabled_protocol_is_enabled_at_most_once_a_minute() {
    let (machine, agent, _hints) = settled().await;
    let (ours, device) = (protocol(&machine, 1), "device1".to_owned());
    let start = Instant::now();
    let mut seen = 0;
    while start.elapsed() < Duration::from_secs(300) {
        let disabled = [ours.clone(), device.clone()];
        machine.bird.disabled.lock().unwrap().extend(disabled);
        sleep(Duration::from_secs(1)).await;
        seen = machine.bird.enables.lock().unwrap().len();
    }
    let enables = machine.bird.enables.lock().unwrap().clone();
    for protocol in [&ours, &device] {
        let times = enables.iter().filter(|name| name == &protocol).count();
        assert!(
            (2..=6).contains(&times),
            "{protocol}: {times} in five minutes"
        );
    }
    assert_eq!(seen, enables.len());
    sleep(Duration::from_secs(90)).await;
    assert!(machine.bird.disabled.lock().unwrap().is_empty());
    assert_eq!(agent.status(1).phase, Phase::Established);
}

#[tokio::test(start_paused = true)]
async fn enable_within_a_minute_waits_and_says_so() {
    let (machine, agent, hints) = settled().await;
    let ours = protocol(&machine, 1);
    let enables = || machine.bird.enables.lock().unwrap().len();
    for _ in 0..2 {
        machine.bird.disabled.lock().unwrap().insert(ours.clone());
        hints.send(Hint::key(session_key(1))).unwrap();
        sleep(Duration::from_secs(12)).await;
        assert_eq!(enables(), 1);
    }
    let status = agent.status(1);
    let mut conditions = status.conditions.iter();
    let configured = conditions.find(|one| one.condition_type == ConditionType::BirdConfigured);
    let message = &configured.unwrap().message;
    let wait = format!("{ours} was enabled less than a minute ago");
    assert!(message.contains(&wait), "{message}");
    // A wait is no failure of the session.
    assert!(status.last_error.is_none() && status.phase != Phase::Error);
    assert_eq!(agent.status(2).phase, Phase::Established);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(enables(), 2);
    assert_eq!(agent.status(1).phase, Phase::Established);
}

#[tokio::test(start_paused = true)]
async fn paused_session_and_foreign_protocol_stay_disabled() {
    let (machine, agent, hints) = settled().await;
    let spec: OverrideSpec =
        serde_json::from_value(serde_json::json!({"reason": "work", "paused": true})).unwrap();
    let target = name(1).parse().unwrap();
    let document = Document::new(target, None, 0, spec);
    agent
        .store()
        .write_override(Kind::BgpSession, &document)
        .unwrap();
    agent.relist();
    hints.send(Hint::Everything).unwrap();
    sleep(Duration::from_secs(5)).await;
    let disabled = [protocol(&machine, 1), "their_kernel".to_owned()];
    machine.bird.disabled.lock().unwrap().extend(disabled);
    sleep(Duration::from_secs(120)).await;
    assert!(machine.bird.enables.lock().unwrap().is_empty());
}
