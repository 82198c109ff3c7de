//! The lab: namespaces, links, neighbours, the router under test and its Control Plane.

pub(crate) mod backbone;
pub(crate) mod bird;
pub(crate) mod cli;
pub(crate) mod control_plane;
pub(crate) mod dns;
pub(crate) mod frr;
pub(crate) mod gobgp;
pub(crate) mod hands;
pub(crate) mod namespace;
pub(crate) mod neighbour;
pub(crate) mod router;
pub(crate) mod rtr;
pub(crate) mod traffic;
pub(crate) mod watch;
pub(crate) mod wireguard;
pub(crate) mod world;

use std::time::{Duration, Instant};

/// Polls until `check` is `Ok`; the last reason is what the failure says.
#[track_caller]
pub(crate) fn wait_until(what: &str, seconds: u64, mut check: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let Err(reason) = check() else { return };
        assert!(
            Instant::now() < deadline,
            "not within {seconds} s: {what}\nlast seen: {reason}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// `Ok` when `found` contains `wanted`, else what was there instead.
pub(crate) fn contains(found: &str, wanted: &str) -> Result<(), String> {
    if found.contains(wanted) {
        Ok(())
    } else {
        Err(format!("no {wanted:?} in:\n{found}"))
    }
}
