//! Backbone tunnels between routers, each with an agent of its own.

use crate::lab::backbone::{Backbone, MESH_PORT_BASE, edge};
use crate::lab::watch::ifindex;
use crate::lab::wireguard::KeyPair;
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
fn tunnels_carry_loopbacks_alone_and_a_list_that_vanishes_takes_neither_links_nor_bird_s_sessions() {
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
    for (name, port) in
        [("jp2", 23457), ("frankfurt-core-1", 23467), ("frankfurt-core-2", 23468), ("hk1", 31999)]
    {
        wait_until(&format!("the tunnel to {name}"), 30, || {
            let link = hub.link_of(name)?;
            contains(&hub.router.inside.try_shell(&format!("wg show {link} listen-port"))?, &port.to_string())
        });
    }
    assert_eq!(hub.link_of("frankfurt-core-1").unwrap(), "mesh_frankfu-12");
    hub.link_of("jp1").expect_err("a tunnel to ourselves");

    // Babel has what the loopbacks have, whatever BGP has told the other router.
    let prefix = &backbone.networks[0].prefix4;
    wait_until("BGP has the other network's prefix", 30, || contains(&hub.ask("show route")?, prefix));
    let babel = hub.ask("show route protocol moe_babel").unwrap();
    contains(&babel, &backbone.at("jp2").loopback6()).unwrap();
    let others =
        babel.lines().filter(|line| line.contains('/') && !line.contains("/32") && !line.contains("/128"));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&str>::new(), "{babel}");

    // The tunnel is probed, and reported on under the name that the Control Plane has for it.
    wait_until("the tunnel is reported with its round trips", 60, || {
        let reports = hub.control_plane.posts("report");
        let sessions = reports.last().map(|report| report["sessions"].clone()).unwrap_or_default();
        let tunnel = sessions
            .as_array()
            .and_then(|all| all.iter().find(|one| one["uuid"] == "tunnel-to-jp2").cloned());
        match &tunnel {
            Some(tunnel) if tunnel["rtt_ms"].is_number() && tunnel["state"] == "established" => Ok(()),
            _ => Err(sessions.to_string()),
        }
    });
    let metrics = hub.router.api("", "/metrics").1;
    contains(&metrics, "moenet_agent_session_rtt_seconds{session=\"mesh/jp2\"}").unwrap();

    // A deleted tunnel comes back, and no other is touched.
    let before = ifindex(&hub.router, "mesh_jp2");
    hub.router.inside.shell("ip link del mesh_hk1");
    wait_until("the deleted tunnel is back", 30, || hub.link_of("hk1").map(|_| ()));
    assert_eq!(ifindex(&hub.router, "mesh_jp2"), before);

    // All peers are gone from the list: more than the guard lets pass.
    let polls = hub.control_plane.asked("mesh");
    hub.control_plane.answer("mesh", crate::lab::control_plane::Answer::Json(json!({"peers": []})));
    wait_until("the empty list was fetched", 30, || {
        let asked = hub.control_plane.asked("mesh");
        if asked > polls + 4 { Ok(()) } else { Err(asked.to_string()) }
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(ifindex(&hub.router, "mesh_jp2"), before);
    let babel = std::fs::read_to_string(hub.router.bird.folder.join("moenet/babel.conf")).unwrap();
    for interface in ["mesh_jp2", "mesh_frankfu-12", "mesh_frankfu-13", "mesh_hk1"] {
        contains(&babel, interface).unwrap();
    }
    assert_eq!(MESH_PORT_BASE + 2, 23457);
}

#[test]
fn the_last_internal_neighbour_goes_with_an_empty_list_and_stays_when_the_list_is_not_there() {
    let mut backbone = Backbone::new(&[edge(1, "jp1"), edge(2, "jp2")]);
    backbone.mesh("jp1", "jp2");
    backbone.ibgp("jp1", "jp2");
    backbone.start();
    backbone.wait_established();
    let polls = |backbone: &Backbone| {
        let hub = backbone.at("jp1");
        let before = hub.control_plane.asked("bird-config");
        wait_until("the policy is fetched again", 30, || {
            let asked = hub.control_plane.asked("bird-config");
            if asked > before + 2 { Ok(()) } else { Err(asked.to_string()) }
        });
    };
    backbone.at_mut("jp1").ibgp = None;
    backbone.at("jp1").tell();
    polls(&backbone);
    contains(&backbone.at("jp1").ask("show protocols ibgp_jp2").unwrap(), "Established").unwrap();
    backbone.at_mut("jp1").ibgp = Some(vec![]);
    backbone.at("jp1").tell();
    wait_until("the last internal neighbour is gone", 30, || {
        let all = backbone.at("jp1").ask("show protocols")?;
        if all.contains("ibgp_jp2") { Err(all) } else { Ok(()) }
    });
}
