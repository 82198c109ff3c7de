//! The way of a router of the earlier agent: `init --from`, `adopt`, the first start, and back.

use super::super::{Built, DEVICE, GO_AGENT};
use crate::lab::cli::{Answer, agent, answer};
use crate::lab::control_plane::ControlPlane;
use crate::lab::router::{Router, agent_program};
use crate::lab::wait_until;
use serde_json::{Value, json};

const CASE: &str = include_str!("../../../cases/go-agent-router/config.json");

/// `init --from` with the configuration of the case, for the places and the Control Plane of this router.
fn init(router: &Router, url: &str) -> Answer {
    let mut earlier: Value = serde_json::from_str(CASE).unwrap();
    earlier["controlPlane"]["url"] = url.into();
    earlier["bird"]["controlSocket"] = json!(router.bird.socket());
    earlier["bird"]["peerConfDir"] = json!(router.bird.folder.join("peers"));
    earlier["wireguard"]["privateKeyPath"] = json!(router.path("private.key"));
    let from = router.path("agent.earlier.json");
    std::fs::write(&from, earlier.to_string()).unwrap();
    std::fs::remove_file(router.path("config.yaml")).unwrap();
    let program = router.bird.program();
    let programs = program.parent().unwrap().display();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let mut command = router.inside.command(agent_program());
    command
        .arg("--config")
        .arg(router.path("config.yaml"))
        .arg("init")
        .arg("--from")
        .arg(from)
        .env("PATH", path)
        .env("MOENET_STATE_DIR", router.path("state"))
        .env("NO_COLOR", "1");
    answer(&mut command)
}

/// Sets keys of this router's namespace, which the earlier configuration does not have, as an operator does.
fn set_places(router: &Router) {
    let path = router.path("config.yaml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    let config = router.config("", 60);
    let places = [
        (
            "directory",
            "/var/lib/moenet-agent/state",
            &config["state"]["directory"],
        ),
        ("binary", "bird", &config["bird"]["binary"]),
        ("interface", "dummy0", &config["loopback"]["interface"]),
    ];
    for (key, default, value) in places {
        let line = format!("\n#  {key}: \"{default}\"\n");
        assert_eq!(text.matches(&line).count(), 1, "{key}: {text}");
        text = text.replace(&line, &format!("\n  {key}: {value}\n"));
    }
    let text = text.replace("\n#state:\n", "\nstate:\n");
    let text = text.replace("\n#loopback:\n", "\nloopback:\n");
    std::fs::write(path, text).unwrap();
}

#[test]
fn earlier_configuration_leads_to_an_adopted_router() {
    let mut built = Built::new(&GO_AGENT);
    let control_plane = ControlPlane::new(&built.router.inside);
    control_plane.sessions(&[json!({
        "uuid": "7d9f6a3e-0b1c-4c55-9a53-1f2f3a1c0001", "asn": 4_242_421_001_u32, "status": 4, "interface": DEVICE,
        "ipv6LinkLocal": "fe80::1:1", "mtu": 1420, "endpoint": "192.0.2.10:51820", "listenPort": 21_001,
        "credential": {"publicKey": built.neighbour.keys.public}
    })]);
    let (state, routes) = (built.state(), built.routes());

    let answer = init(&built.router, &control_plane.url).ended(0);
    answer.says("taken over   bird.peerConfDir: bird.directory (the directory above)");
    answer.says("control plane  ok");
    set_places(&built.router);
    agent(&built.router, &["validate"]).ended(0);
    assert_eq!(
        (built.state(), built.routes()),
        (state.clone(), routes.clone())
    );

    let counts =
        "0 documents, 1 override, 0 link re-creations, 0 other interruptions, 0 BGP resets.";
    built.apply(&["--plan"]).ended(0).says(counts);
    built.apply(&["--watch", "3s"]).ended(0).says(counts);
    built.is_adopted();
    built.router.start_agent();
    let name = format!("sessions/{DEVICE}");
    wait_until("the agent has nothing to do for the tunnel", 30, || {
        let plan = agent(&built.router, &["plan", &name]).out;
        match plan.contains("set WireGuard") || plan.contains("mark ") {
            true => Err(plan),
            false => Ok(()),
        }
    });
    // The values of the earlier configuration are in use.
    let config = agent(&built.router, &["status", "-o", "json"])
        .ended(0)
        .json();
    assert_eq!(config["node"]["region"], "ap-northeast");
    assert_eq!(
        (built.state(), built.routes()),
        (state.clone(), routes.clone())
    );

    built.router.stop_agent();
    built.apply(&["--undo"]).ended(0);
    assert_eq!((built.state(), built.routes()), (state, routes));
    assert!(built.router.path("state/node.yaml").exists());
}
