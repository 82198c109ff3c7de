//! Proofs that nothing happened: netlink events, BIRD's reconfiguration time and sessions' ages.

use super::contains;
use super::namespace::Process;
use super::router::Router;
use super::wait_until;
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

/// What must stay the same when BIRD is left alone: last reconfiguration, and when each session came up. BIRD 2 tells
/// the time of a moment in the past a millisecond later or earlier each time, so it counts by seconds.
pub(crate) fn bird_history(router: &Router) -> String {
    let status = router.bird.ask(&router.inside, "show status");
    let reconfigured = status
        .lines()
        .find(|line| line.starts_with("Last reconfiguration"))
        .expect("a time");
    let reconfigured = reconfigured.split('.').next().unwrap_or_default();
    format!("{reconfigured}\n{}", session_ages(router))
}

/// Name, state and time of the last change of every BGP session, in the order of their names.
pub(crate) fn session_ages(router: &Router) -> String {
    let all = router.bird.ask(&router.inside, "show protocols");
    let mut ages: Vec<_> = all.lines().filter(|line| line.contains(" BGP ")).collect();
    assert!(!ages.is_empty(), "no BGP session in:\n{all}");
    ages.sort_unstable();
    ages.join("\n")
}

pub(crate) fn ifindex(router: &Router, interface: &str) -> String {
    router
        .inside
        .shell(&format!("cat /sys/class/net/{interface}/ifindex"))
}
