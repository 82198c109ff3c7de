//! After an adoption: the sessions that stay in the operator's `bird.conf`.

use super::{Built, DEVICE, GO_AGENT};
use crate::lab::cli::agent;
use crate::lab::{contains, wait_until};

impl Built {
    fn adopted() -> Self {
        let mut built = Self::new(&GO_AGENT);
        built.apply(&["--watch", "1s"]).ended(0);
        built.router.start_agent();
        built
    }

    fn described(&self) -> String {
        let name = format!("sessions/{DEVICE}");
        let described = agent(&self.router, &["describe", &name]).out;
        described.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn wait_described(&self, words: &[&str]) {
        wait_until(&format!("describe says {words:?}"), 30, || {
            let described = self.described();
            words.iter().try_for_each(|it| contains(&described, it))
        });
    }
}

#[test]
fn session_in_bird_conf_is_told_as_up() {
    let built = Built::adopted();
    let state = built.state();
    let place = built.router.path("bird/peers/peer.conf");
    built.wait_described(&[
        "runs the session as the operator's protocol dn42_4242421001",
        &format!("{}:1", place.display()),
        "remove protocol dn42_4242421001 there",
    ]);
    let got = agent(&built.router, &["get", "sessions"]).out;
    contains(&got, "Established").unwrap();
    let metric = |name: &str| {
        let series = format!("moenet_agent_session_{name}{{session=\"{DEVICE}\"}}");
        built.router.metric(&series)
    };
    assert_eq!(metric("established"), Some(1.0));
    assert_eq!(metric("routes_imported"), Some(4.0));
    let (_, page) = built.router.api("", "/status");
    contains(&page, "OperatorsProtocol").unwrap();
    // And down, when it is down.
    built.neighbour.ask_bird("disable moe_router");
    wait_until("the session is down", 60, || {
        match metric("established") == Some(0.0) {
            true => Ok(()),
            false => Err(built.described()),
        }
    });
    built.neighbour.ask_bird("enable moe_router");
    built.neighbour.wait_established(60);
    assert_eq!(built.state()[..3], state[..3]);
}

#[test]
fn moved_bird_conf_is_not_replaced_and_ends_no_session() {
    let mut built = Built::adopted();
    built.wait_described(&["operator's protocol"]);
    let (state, routes) = (built.state(), built.routes());
    let main = built.router.path("bird/bird.conf");
    let aside = built.router.path("bird/bird.conf.mine");
    std::fs::rename(&main, &aside).unwrap();
    built.wait_described(&[
        "bird.conf is missing",
        "bgp dn42_4242421001",
        "put it back, or stop BIRD",
    ]);
    wait_until("the node says that the file is missing", 30, || {
        let node = agent(&built.router, &["describe", "node"]).out;
        contains(&node, "is missing, and BIRD still runs protocols")
    });
    let got = agent(&built.router, &["get", "sessions"]).out;
    contains(&got, "Established").unwrap();
    let plan = agent(&built.router, &["plan"]).out;
    assert!(!plan.contains("bird.conf ("), "{plan}");
    // A start writes it no more than the running agent.
    built.router.stop_agent();
    built.router.start_agent();
    built.wait_described(&["bird.conf is missing"]);
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert!(!main.exists(), "the agent has written its own main file");
    std::fs::rename(&aside, &main).unwrap();
    built.router.bird.ask(&built.router.inside, "configure");
    built.wait_described(&["operator's protocol"]);
    assert_eq!(built.state()[2..], state[2..], "the session was disturbed");
    assert_eq!(built.routes(), routes);
}
