//! Backbone tunnels between routers, each with an agent of its own.

use crate::lab::backbone::{Backbone, MESH_PORT_BASE, Member, edge};
use crate::lab::cli::agent;
use crate::lab::control_plane::Answer;
use crate::lab::hands::condition;
use crate::lab::watch::ifindex;
use crate::lab::wireguard::KeyPair;
use crate::lab::world::World;
use crate::lab::{contains, wait_until};
use serde_json::{Value, json};

/// A peer that nobody plays; its tunnel is there all the same.
fn absent_peer(id: u16, name: &str) -> Value {
    json!({
        "nodeId": id, "name": name, "endpoint": format!("198.51.100.{id}:1"), "publicKey": KeyPair::new().public,
        "loopbackIpv6": format!("fd48:4242:420::{id:x}")
    })
}

#[test]
fn vanished_mesh_list_keeps_links_and_sessions() {
    let mut backbone = Backbone::new(&[edge(1, "jp1"), edge(2, "jp2")]);
    backbone.mesh("jp1", "jp2");
    backbone.ibgp("jp1", "jp2");
    backbone.network(1, &[("jp2", 100)]);
    let hub = backbone.at_mut("jp1");
    hub.mesh[0]["uuid"] = json!("tunnel-to-jp2");
    hub.mesh.push(absent_peer(1, "jp1"));
    // Both names are the same in their first fifteen bytes with the prefix.
    hub.mesh.push(absent_peer(12, "frankfurt-core-1"));
    hub.mesh.push(absent_peer(13, "frankfurt-core-2"));
    hub.mesh.push(absent_peer(14, "hk1"));
    hub.mesh[4]["listenPort"] = json!(31999);
    backbone.start();
    backbone.wait_established();
    let hub = backbone.at("jp1");
    for (name, port) in [
        ("jp2", 23457),
        ("frankfurt-core-1", 23467),
        ("frankfurt-core-2", 23468),
        ("hk1", 31999),
    ] {
        wait_until(&format!("the tunnel to {name}"), 30, || {
            let link = hub.link_of(name)?;
            contains(
                &hub.router
                    .inside
                    .try_shell(&format!("wg show {link} listen-port"))?,
                &port.to_string(),
            )
        });
    }
    assert_eq!(hub.link_of("frankfurt-core-1").unwrap(), "mesh_frankfu-12");
    hub.link_of("jp1").expect_err("a tunnel to ourselves");

    // Babel has what the loopbacks have, whatever BGP has told the other router.
    let prefix = &backbone.networks[0].prefix4;
    wait_until("BGP has the other network's prefix", 30, || {
        contains(&hub.ask("show route")?, prefix)
    });
    let babel = hub.ask("show route protocol moe_babel").unwrap();
    contains(&babel, &backbone.at("jp2").loopback6()).unwrap();
    let others = babel
        .lines()
        .filter(|line| line.contains('/') && !line.contains("/32") && !line.contains("/128"));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&str>::new(), "{babel}");

    // The tunnel is probed, and reported on under the name that the Control Plane has for it.
    wait_until("the tunnel is reported with its round trips", 60, || {
        let reports = hub.control_plane.posts("report");
        let sessions = reports
            .last()
            .map(|report| report["sessions"].clone())
            .unwrap_or_default();
        let tunnel = sessions.as_array().and_then(|all| {
            all.iter()
                .find(|one| one["uuid"] == "tunnel-to-jp2")
                .cloned()
        });
        match &tunnel {
            Some(tunnel) if tunnel["rtt_ms"].is_number() && tunnel["state"] == "established" => {
                Ok(())
            }
            _ => Err(sessions.to_string()),
        }
    });
    let metrics = hub.router.api("", "/metrics").1;
    contains(
        &metrics,
        "moenet_agent_session_rtt_seconds{session=\"mesh/jp2\"}",
    )
    .unwrap();

    // A deleted tunnel comes back, and no other is touched.
    let before = ifindex(&hub.router, "mesh_jp2");
    hub.router.inside.shell("ip link del mesh_hk1");
    wait_until("the deleted tunnel is back", 30, || {
        hub.link_of("hk1").map(|_| ())
    });
    assert_eq!(ifindex(&hub.router, "mesh_jp2"), before);

    // All peers are gone from the list: more than the guard lets pass.
    let polls = hub.control_plane.asked("mesh");
    hub.control_plane.answer(
        "mesh",
        crate::lab::control_plane::Answer::Json(json!({"peers": []})),
    );
    wait_until("the empty list was fetched", 30, || {
        let asked = hub.control_plane.asked("mesh");
        if asked > polls + 4 {
            Ok(())
        } else {
            Err(asked.to_string())
        }
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(ifindex(&hub.router, "mesh_jp2"), before);
    let babel = std::fs::read_to_string(hub.router.bird.folder.join("moenet/babel.conf")).unwrap();
    for interface in ["mesh_jp2", "mesh_frankfu-12", "mesh_frankfu-13", "mesh_hk1"] {
        contains(&babel, interface).unwrap();
    }
    assert_eq!(MESH_PORT_BASE + 2, 23457);
}

/// When each internal session and Babel came up.
fn ages(member: &Member, others: &[&str]) -> Vec<String> {
    let all = member.ask("show protocols").unwrap();
    let line = |name: &str| {
        all.lines()
            .find(|line| line.starts_with(name))
            .expect(name)
            .to_owned()
    };
    others.iter().map(|name| line(name)).collect()
}

fn wait_shell(member: &Member, what: &str, line: &str, wanted: &str) {
    wait_until(what, 60, || {
        contains(&member.router.inside.try_shell(line)?, wanted)
    });
}

#[test]
fn mesh_changes_disturb_no_other_peer() {
    let mut backbone = Backbone::new(&[edge(1, "jp1"), edge(2, "jp2"), edge(3, "jp3")]);
    for spoke in ["jp2", "jp3"] {
        backbone.mesh("jp1", spoke);
        backbone.ibgp("jp1", spoke);
    }
    backbone.start();
    backbone.wait_established();
    let indices = |backbone: &Backbone| {
        ["mesh_jp2", "mesh_jp3"].map(|it| ifindex(&backbone.at("jp1").router, it))
    };
    let before = (
        indices(&backbone),
        ages(backbone.at("jp1"), &["ibgp_jp2", "ibgp_jp3", "moe_babel"]),
    );

    // A peer comes, and goes.
    backbone.at_mut("jp1").mesh.push(absent_peer(12, "hk1"));
    backbone.at("jp1").tell();
    wait_until("the new tunnel", 60, || {
        backbone.at("jp1").link_of("hk1").map(drop)
    });
    wait_shell(
        backbone.at("jp1"),
        "Babel speaks over it",
        "ss -uln",
        "%mesh_hk1",
    );
    backbone.at_mut("jp1").mesh.pop();
    backbone.at("jp1").tell();
    wait_until("the tunnel is gone", 60, || {
        let links = backbone.at("jp1").router.inside.try_shell("ip -o link")?;
        if links.contains("mesh_hk1") {
            Err(links)
        } else {
            Ok(())
        }
    });
    let babel = backbone
        .at("jp1")
        .router
        .bird
        .folder
        .join("moenet/babel.conf");
    wait_until("Babel does not speak of it", 60, || {
        let text = std::fs::read_to_string(&babel).unwrap();
        if text.contains("mesh_hk1") {
            Err(text)
        } else {
            Ok(())
        }
    });
    let now = (
        indices(&backbone),
        ages(backbone.at("jp1"), &["ibgp_jp2", "ibgp_jp3", "moe_babel"]),
    );
    assert_eq!(now, before, "another tunnel or session was disturbed");

    // jp2 gets another key; it and its neighbour learn of it.
    let keys = KeyPair::new();
    let spoke = &mut backbone.at_mut("jp2").router;
    spoke.kill_agent();
    std::fs::write(spoke.path("private.key"), format!("{}\n", keys.private)).unwrap();
    spoke.start_agent();
    backbone.at_mut("jp1").mesh[0]["publicKey"] = json!(keys.public);
    backbone.at("jp1").tell();
    let hub = backbone.at("jp1");
    wait_shell(
        hub,
        "the peer has its new key",
        "wg show mesh_jp2 peers",
        &keys.public,
    );
    assert_eq!(
        hub.router
            .inside
            .shell("wg show mesh_jp2 peers")
            .lines()
            .count(),
        1,
        "the old key stays"
    );
    wait_shell(
        backbone.at("jp2"),
        "jp2 has its new key",
        "wg show mesh_jp1 public-key",
        &keys.public,
    );
    wait_until("the tunnel with the new key works", 90, || {
        let ping = format!("ping -c 1 -W 1 {}", backbone.at("jp2").loopback6());
        hub.router.inside.try_shell(&ping).map(drop)
    });
    let now = (indices(&backbone), ages(hub, &["ibgp_jp3", "moe_babel"]));
    assert_eq!(
        now,
        (before.0, before.1[1..].to_vec()),
        "not in place, or another was disturbed"
    );
}

#[test]
fn approval_removes_held_mesh_tunnels() {
    let mut backbone = Backbone::new(&[edge(1, "jp1"), edge(2, "jp2")]);
    backbone.mesh("jp1", "jp2");
    backbone.network(1, &[("jp1", 100)]);
    for id in 12..=15 {
        backbone
            .at_mut("jp1")
            .mesh
            .push(absent_peer(id, &format!("far{id}")));
    }
    // An address and a route that an operator has made himself are nobody else's.
    let far = &backbone.at("jp1").router.inside;
    far.shell("ip link add own0 type bridge && ip link set own0 up && ip addr add 172.20.77.1/32 dev own0");
    far.shell("ip route add 172.20.78.1/32 dev own0");
    backbone.start();
    backbone.wait_established();
    let (hub, spoke) = (backbone.at("jp1"), backbone.at("jp2"));
    let prefix = &backbone.networks[0].prefix4;
    wait_until("the network's prefix is in jp1's kernel", 60, || {
        contains(&hub.router.inside.try_shell("ip route")?, prefix)
    });
    let from_babel = || {
        let routes = ["ip -4 route show proto bird", "ip -6 route show proto bird"]
            .map(|line| spoke.router.inside.shell(line));
        let first = |line: &str| {
            line.split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let routes = routes.iter().flat_map(|text| text.lines());
        routes
            .filter(|line| line.contains("mesh_jp1"))
            .map(first)
            .collect::<Vec<_>>()
    };
    let wanted = [hub.loopback4(), hub.loopback6()];
    let has_all = || {
        if from_babel() == wanted {
            Ok(())
        } else {
            Err(format!("{:?}", from_babel()))
        }
    };
    wait_until("jp1's loopbacks are in jp2's kernel", 60, has_all);
    // Two more of Babel's updates, which come every 16 seconds.
    std::thread::sleep(std::time::Duration::from_secs(20));
    has_all().unwrap();

    let links = || {
        hub.router
            .inside
            .shell("ip -o link")
            .matches(":mesh/")
            .count()
    };
    let wait_links = |wanted: usize| {
        wait_until(&format!("{wanted} tunnels"), 60, || {
            let applied = hub
                .router
                .path("state/applied/mesh")
                .read_dir()
                .unwrap()
                .count();
            let found = (links(), applied);
            if found == (wanted, wanted) {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        });
    };
    wait_links(5);
    hub.control_plane
        .answer("mesh", Answer::Json(json!({"peers": []})));
    wait_until("the removal is held and told", 60, || {
        contains(
            &hub.router.api("", "/status").1,
            "mesh/far12: removal held: it would remove every one of the mesh tunnels",
        )
    });
    agent(&hub.router, &["plan"])
        .ended(2)
        .says("mesh/jp2  removal held: it would remove every one of the mesh tunnels");
    assert_eq!(links(), 5, "removed without approval");
    agent(&hub.router, &["approve", "--all"])
        .ended(0)
        .says("approved");
    wait_links(0);
    wait_until(
        "no loopback of a router that is gone stays in the kernel",
        120,
        || {
            let found = from_babel();
            if found.is_empty() {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        },
    );
}

#[test]
fn silent_peers_new_endpoint_is_used_at_once() {
    let mut backbone = Backbone::new(&[edge(1, "jp1"), edge(2, "jp2")]);
    backbone.mesh("jp1", "jp2");
    backbone.at_mut("jp1").mesh[0]["uuid"] = json!("tunnel-to-jp2");
    backbone.start();
    let state = |backbone: &Backbone| {
        let text =
            std::fs::read_to_string(backbone.at("jp1").router.path("state/status/mesh/jp2.yaml"));
        moenet_agent::document::parse_value::<Value>(&text.unwrap_or_default()).unwrap_or_default()
            ["status"]
            .clone()
    };
    wait_until("the tunnel works and loses nothing", 90, || {
        let status = state(&backbone);
        if status["loss"] == 0.0 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    // Nothing comes from it any more, which would be where WireGuard sends to.
    backbone
        .at("jp2")
        .router
        .inside
        .shell("ip link set wan down");
    let age = |backbone: &Backbone| {
        let times = backbone
            .at("jp1")
            .router
            .inside
            .shell("wg show mesh_jp2 latest-handshakes; date +%s");
        let numbers: Vec<u64> = times
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        numbers[1] - numbers[0]
    };
    backbone.at_mut("jp1").mesh[0]["endpoint"] = json!("198.51.100.77:4242");
    backbone.at("jp1").tell();
    wait_shell(
        backbone.at("jp1"),
        "the new endpoint is used",
        "wg show mesh_jp2 endpoints",
        "198.51.100.77:4242",
    );
    let age = age(&backbone);
    assert!(
        age < 180,
        "the handshake was {age} s old, so that the endpoint would be pushed anyway"
    );

    let hub = backbone.at("jp1");
    wait_until("the loss is in the status", 90, || {
        let status = state(&backbone);
        if status["loss"].as_f64().is_some_and(|loss| loss > 0.0) {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    wait_until("the loss is reported", 60, || {
        let report = hub.control_plane.posts("report").pop().unwrap_or_default();
        let sessions = report["sessions"].as_array().cloned().unwrap_or_default();
        let tunnel = sessions.iter().find(|one| one["uuid"] == "tunnel-to-jp2");
        match tunnel.and_then(|tunnel| tunnel["loss"].as_f64()) {
            Some(loss) if loss > 0.0 => Ok(()),
            _ => Err(report.to_string()),
        }
    });
}

#[test]
fn error_of_a_listed_peer_is_logged_once() {
    let mut world = World::new(0);
    let mesh = |peers: &[&Value]| {
        world
            .control_plane
            .answer("mesh", Answer::Json(json!({"peers": peers})))
    };
    let ibgp = |peers: Value| {
        let mut policy = crate::lab::router::policy();
        policy["ibgpPeers"] = peers;
        world
            .control_plane
            .answer("bird-config", Answer::Json(policy));
    };
    let neighbour =
        json!({"nodeId": 12, "nodeName": "hk1", "loopbackIpv6": "fd48:4242:420::c", "isRr": false});
    let good = absent_peer(12, "hk1");
    mesh(&[&good]);
    ibgp(json!([neighbour]));
    world.router.start_agent();
    world.wait_condition("mesh/hk1", "Accepted", "True", "Valid");
    world.wait_condition("ibgp/hk1", "Accepted", "True", "Valid");
    let before = ifindex(&world.router, "mesh_hk1");

    // The one that is in force, and one that never was.
    let (mut broken, mut other) = (good.clone(), absent_peer(13, "hk2"));
    broken["publicKey"] = json!("hunter2");
    other["mtu"] = json!(7);
    mesh(&[&broken, &other]);
    ibgp(
        json!([{"nodeId": 12, "nodeName": "hk1", "loopbackIpv6": "nowhere"}, {"nodeId": 13, "nodeName": "hk2"}]),
    );
    let wrong = [
        ("mesh/hk1", "publicKey"),
        ("mesh/hk2", "mtu"),
        ("ibgp/hk1", "loopbackIpv6"),
        ("ibgp/hk2", "loopbackIpv6"),
    ];
    for (object, field) in wrong {
        wait_until(&format!("the status of {object} names {field}"), 60, || {
            let status = world.status(object);
            let accepted = condition(&status, "Accepted");
            contains(
                accepted["message"].as_str().unwrap_or_default(),
                &format!("{field}: "),
            )?;
            if accepted["status"] == "False" {
                Ok(())
            } else {
                Err(status.to_string())
            }
        });
        contains(
            &world.router.api("", "/status").1,
            &format!("{object}: {field}: "),
        )
        .unwrap();
    }
    world.wait_polls("mesh", 4);
    world.wait_polls("bird-config", 4);
    for (object, _) in wrong {
        let log = world.router.log();
        let told = log
            .lines()
            .filter(|line| line.contains(" level=ERROR ") || line.contains(" level=WARN "))
            .filter(|line| line.contains(&format!("object=\"{object}\"")))
            .filter(|line| line.contains("configuration rejected"));
        assert_eq!(told.count(), 1, "{object}:\n{log}");
    }
    assert_eq!(ifindex(&world.router, "mesh_hk1"), before);
    contains(
        &world
            .router
            .bird
            .ask(&world.router.inside, "show protocols"),
        "ibgp_hk1",
    )
    .unwrap();

    // Mended, or listed no more.
    mesh(&[&good]);
    ibgp(json!([neighbour]));
    world.wait_condition("mesh/hk1", "Accepted", "True", "Valid");
    world.wait_condition("ibgp/hk1", "Accepted", "True", "Valid");
    for object in ["mesh/hk2", "ibgp/hk2"] {
        wait_until(&format!("{object} is forgotten"), 60, || {
            let there = world
                .router
                .path(&format!("state/status/{object}.yaml"))
                .exists();
            if there {
                Err("its status is there".into())
            } else {
                Ok(())
            }
        });
    }
    assert_eq!(ifindex(&world.router, "mesh_hk1"), before);
}
