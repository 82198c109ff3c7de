//! `describe`, where the tunnel says why a session is not up.

use crate::describe::{described_by, expect, expect_by, expect_up, object, with};
use crate::lab::control_plane::Answer;
use crate::lab::wireguard::KeyPair;
use crate::lab::world::{World, interface};
use crate::lab::{contains, wait_until};
use serde_json::json;

const DOWN: (&str, &str) = ("NotEstablished", "BGP ebgp_wg_");

/// The neighbour listens on another port, and does not know where we are.
fn listen_elsewhere(world: &World, number: usize) {
    let inside = &world.neighbours[number - 1].inside;
    let ours = &world.router.keys.public;
    inside.shell(&format!(
        "wg set wg0 listen-port 51999 && wg set wg0 peer {ours} remove && \
         wg set wg0 peer {ours} allowed-ips 0.0.0.0/0,::/0 persistent-keepalive 1"
    ));
}

/// A firewall at the neighbour that takes and lets out nothing.
fn cut(world: &World, number: usize) {
    let chain = |hook: &str| {
        format!("add chain ip cut {hook} {{ type filter hook {hook} priority 0; policy drop; }}")
    };
    let ruleset = format!("add table ip cut; {}; {}", chain("input"), chain("output"));
    world.neighbours[number - 1]
        .inside
        .shell(&format!("nft '{ruleset}'"));
}

fn uncut(world: &World, number: usize) {
    world.neighbours[number - 1]
        .inside
        .shell("nft delete table ip cut");
}

#[test]
fn tunnel_that_never_came_up_shows_its_progress() {
    let mut world = World::new(6);
    let mut sessions = world.sessions();
    cut(&world, 1);
    sessions[0]["endpoint"] = "peer.invalid:51820".into();
    listen_elsewhere(&world, 2);
    sessions[2]["credential"]["publicKey"] = KeyPair::new().public.into();
    // Who calls first is heard by the other: here that is the neighbour, since we do not know where it is.
    sessions[3]["presharedKey"] = KeyPair::new().private.into();
    sessions[3].as_object_mut().unwrap().remove("endpoint");
    cut(&world, 5);
    sessions[4].as_object_mut().unwrap().remove("endpoint");
    sessions[5]["ipv6LinkLocal"] = "fe80::9:9".into();
    world.control_plane.sessions(&sessions);
    let backbone = json!({"nodeId": 2, "name": "hk1", "endpoint": "192.0.2.10:9", "publicKey": KeyPair::new().public});
    world
        .control_plane
        .answer("mesh", Answer::Json(json!({"peers": [backbone]})));
    world.router.start_agent();
    let never = |words| ("Never", words);
    let told = |number: u32, chain: &[(&str, &str)]| expect(&world, &object(number), false, chain);
    told(
        1,
        &[
            (
                "NotResolved",
                "`getent ahosts peer.invalid` asks the same resolver",
            ),
            never("the agent waits for the peer to connect"),
            DOWN,
        ],
    );
    told(
        2,
        &[
            (
                "PortClosed",
                "a datagram to 192.0.2.18:51820 came back as “port unreachable”",
            ),
            never(
                "packets were sent to 192.0.2.18:51820, and no valid WireGuard packet was received",
            ),
            DOWN,
        ],
    );
    told(
        3,
        &[
            never(
                "packets were sent to 192.0.2.26:51820, and no valid WireGuard packet was received",
            ),
            DOWN,
        ],
    );
    told(
        4,
        &[
            never("packets from the peer's key to this router's key were received"),
            DOWN,
        ],
    );
    told(
        5,
        &[
            never(
                "the agent waits for the peer to connect, and no packet was received on UDP port 21005",
            ),
            DOWN,
        ],
    );
    told(
        6,
        &[
            (
                "WrongAddress",
                "no ping reply from fe80::9:9 in the tunnel; the other end answers as fe80::1:6",
            ),
            DOWN,
        ],
    );
    expect(
        &world,
        "mesh/hk1",
        false,
        &[
            never("never a handshake: "),
            ("NoNeighbour", "no Babel neighbour"),
        ],
    );
    // Cured, every one of them.
    uncut(&world, 1);
    uncut(&world, 5);
    world.control_plane.sessions(&with(&world, 2, |session| {
        session["endpoint"] = "192.0.2.18:51999".into()
    }));
    (1..=6).for_each(|number| expect_up(&world, number));
}

#[test]
fn silent_tunnel_shows_its_age_with_and_without_agent() {
    let mut world = World::converged(1);
    // Ten minutes go by on the clock of whoever asks.
    cut(&world, 1);
    let protocol = format!("ebgp_{}", interface(1));
    world
        .router
        .bird
        .ask(&world.router.inside, &format!("restart {protocol}"));
    let later = "env FAKETIME_DONT_FAKE_MONOTONIC=1 faketime -f +10m";
    let stale = [
        ("Stale", "it worked before: ask the peer"),
        ("NotEstablished", "BGP ebgp_wg_4242421001 is "),
    ];
    let is_old = |world: &World| {
        expect_by(world, later, &object(1), false, &stale);
        let probes = described_by(world, later, &object(1)).unwrap()["probes"].to_string();
        contains(&probes, "10 minutes ago; ").unwrap();
    };
    is_old(&world);
    world.router.kill_agent();
    is_old(&world);
    uncut(&world, 1);
    expect_up(&world, 1);
    assert_eq!(
        described_by(&world, "", &object(1)).unwrap()["agentRunning"],
        false
    );
    // Nobody puts right what breaks now.
    world
        .router
        .inside
        .shell(&format!("ip addr del fe80::998:1/64 dev {}", interface(1)));
    world
        .router
        .inside
        .shell(&format!("wg set {} listen-port 9999", interface(1)));
    world
        .router
        .bird
        .ask(&world.router.inside, &format!("restart {protocol}"));
    wait_until(
        "describe blames the missing agent and names the drift",
        60,
        || {
            let why = described_by(&world, "", &object(1))?["why"].clone();
            let reasons: Vec<_> = why
                .as_array()
                .unwrap()
                .iter()
                .map(|cause| cause["reason"].clone())
                .collect();
            let drift = why[1]["message"].as_str().unwrap_or_default();
            let good = reasons.first() == Some(&"AgentNotRunning".into())
                && drift.contains("listenPort: want 21001, have 9999); and 1 more");
            if good { Ok(()) } else { Err(why.to_string()) }
        },
    );
    world.router.start_agent();
    expect_up(&world, 1);
}
