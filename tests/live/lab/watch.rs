//! Proofs that nothing happened: netlink events, BIRD's reconfiguration time and sessions' ages.

use super::contains;
use super::namespace::Process;
use super::router::Router;
use super::wait_until;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Records every link and address event in the router's namespace.
pub(crate) struct NetlinkEvents {
    file: PathBuf,
    _monitor: Process,
}

impl NetlinkEvents {
    pub(crate) fn record(router: &Router) -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = router.path(&format!("events{n}"));
        let monitor =
            router
                .inside
                .spawn(&file, "ip".as_ref(), &["-o", "monitor", "link", "address"]);
        let events = Self {
            file,
            _monitor: monitor,
        };
        // Proves that the monitor listens, so that silence means something.
        let probe = format!("probe{n}");
        wait_until("the netlink monitor records", 10, || {
            router.inside.shell(&format!(
                "ip link add {probe} type bridge && ip link del {probe}"
            ));
            contains(&events.text(), &probe)
        });
        events
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap()
    }

    /// The events about tunnels, loopback and everything else but the probe. `ip` begins with a dump of
    /// the links, which the probe may interrupt: what it says of that is no event.
    pub(crate) fn seen(&self) -> Vec<String> {
        // So too what it says of a link whose other end goes with the namespace of another test.
        let noise = [
            "Dump was interrupted",
            "Error: Peer netns reference is invalid",
        ];
        let ours =
            |line: &&str| line.contains("probe") || noise.iter().any(|text| line.starts_with(text));
        self.text()
            .lines()
            .filter(|line| !ours(line))
            .map(Into::into)
            .collect()
    }
}

/// A moment that BIRD tells. BIRD derives it from a monotonic clock at each look, so that it moves by milliseconds, and
/// by a second where only seconds are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(i64);

impl Moment {
    /// Reads seconds since 1970, a time of day, or a date with a time.
    fn parse(text: &str) -> Self {
        let of_day = |time: jiff::civil::Time| {
            i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second())
        };
        let dated = |text: &str| {
            let time = format!("{}Z", text.replace(' ', "T"));
            let time: jiff::Timestamp = time.parse().ok()?;
            Some(time.as_second())
        };
        let seconds = text.parse().ok();
        let seconds = seconds.or_else(|| Some(of_day(text.parse().ok()?)));
        Self(seconds.or_else(|| dated(text)).expect(text))
    }
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        (self.0 - other.0).abs() <= 1
    }
}

/// State and last change of every BGP session, by name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SessionAges(BTreeMap<String, (String, Moment)>);

impl SessionAges {
    /// How many sessions are Established.
    pub(crate) fn established(&self) -> usize {
        let states = self.0.values();
        states
            .filter(|(state, _)| state.contains("Established"))
            .count()
    }

    /// The sessions whose names start like this.
    pub(crate) fn named(&self, start: &str) -> Self {
        let mut named = self.0.clone();
        named.retain(|name, _| name.starts_with(start));
        assert!(!named.is_empty(), "no session {start} in {self:?}");
        Self(named)
    }

    /// The sessions that the other list has too.
    pub(crate) fn also_in(&self, other: &Self) -> Self {
        let mut both = self.0.clone();
        both.retain(|name, _| other.0.contains_key(name));
        Self(both)
    }
}

/// What must stay the same when BIRD is left alone: its last reconfiguration, and when each session came up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BirdHistory {
    reconfigured: Moment,
    pub(crate) sessions: SessionAges,
}

pub(crate) fn bird_history(router: &Router) -> BirdHistory {
    let status = router.bird.ask(&router.inside, "show status");
    let reconfigured = status
        .lines()
        .find_map(|line| line.strip_prefix("Last reconfiguration on "))
        .expect("a time");
    BirdHistory {
        reconfigured: Moment::parse(reconfigured.trim()),
        sessions: session_ages(router),
    }
}

pub(crate) fn session_ages(router: &Router) -> SessionAges {
    let all = router.bird.ask(&router.inside, "show protocols");
    let session = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [name, "BGP", _table, state, since, details @ ..] = words.as_slice() else {
            return None;
        };
        let state = format!("{state} {}", details.join(" "));
        Some(((*name).to_owned(), (state, Moment::parse(since))))
    };
    let ages: BTreeMap<_, _> = all.lines().filter_map(session).collect();
    assert!(!ages.is_empty(), "no BGP session in:\n{all}");
    SessionAges(ages)
}

pub(crate) fn ifindex(router: &Router, interface: &str) -> String {
    router
        .inside
        .shell(&format!("cat /sys/class/net/{interface}/ifindex"))
}
