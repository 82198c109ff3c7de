//! Internal BGP between routers, each with an agent of its own.

use crate::lab::backbone::{Backbone, Member, Site, edge};
use crate::lab::cli::agent;
use crate::lab::traffic::Traffic;
use crate::lab::{contains, wait_until};
use serde_json::json;

/// Two clients that know of each other only what the router between them passes on.
fn line(middle: &'static str, kind: &'static str) -> Backbone {
    let client = |id, name| Site {
        id,
        name,
        kind: "client",
    };
    let mut backbone = Backbone::new(&[
        client(1, "jp1"),
        Site {
            id: 2,
            name: middle,
            kind,
        },
        client(3, "jp3"),
    ]);
    for end in ["jp1", "jp3"] {
        backbone.mesh(end, middle);
        backbone.ibgp(end, middle);
    }
    backbone.network(1, &[("jp1", 100)]);
    backbone.network(2, &[("jp3", 100)]);
    backbone.start();
    backbone.wait_established();
    backbone
}

#[test]
fn reflector_passes_routes_with_the_border_next_hop() {
    let backbone = line("mid", "rr");
    let (near, far) = (backbone.at("jp1"), backbone.at("jp3"));
    let network = &backbone.networks[1];
    // The border names itself as next hop, and the reflector leaves it at that.
    for prefix in [&network.prefix4, &network.prefix6] {
        wait_until(&format!("jp1 has {prefix}"), 30, || {
            let route = near.ask(&format!("show route {prefix} protocol ibgp_mid all"))?;
            contains(&route, prefix)?;
            let next_hop = route
                .lines()
                .find(|line| line.contains("next_hop"))
                .ok_or(route.clone())?;
            contains(next_hop, &far.loopback6()).or_else(|_| contains(next_hop, &far.loopback4()))
        });
    }
    // Not by way of the reflector's BGP, but over its links: packets go from one network to the other.
    let [one, two] = [0, 1].map(|index| &backbone.networks[index]);
    for (source, destination) in one.addresses().into_iter().zip(two.addresses()) {
        let traffic = Traffic::start(&one.inside, source, &two.inside, destination);
        std::thread::sleep(std::time::Duration::from_secs(1));
        traffic.stop_without_loss();
    }
}

#[test]
fn a_router_named_rr1_that_is_no_reflector_reflects_nothing() {
    let backbone = line("rr1", "edge");
    let (near, middle) = (backbone.at("jp1"), backbone.at("rr1"));
    let network = &backbone.networks[1];
    for prefix in [&network.prefix4, &network.prefix6] {
        wait_until(&format!("rr1 has {prefix}"), 30, || {
            contains(
                &middle.ask(&format!("show route {prefix} protocol ibgp_jp3"))?,
                prefix,
            )
        });
    }
    // What is exported is exported by now: jp1 has heard what rr1 has of its own.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let told = near.ask("show route protocol ibgp_rr1").unwrap();
    for prefix in [&network.prefix4, &network.prefix6] {
        assert!(!told.contains(prefix.as_str()), "reflected: {told}");
    }
    for member in [near, middle] {
        assert!(
            !member.bird_files().contains("rr client"),
            "{} has a client",
            member.name
        );
    }
}

/// The route of a prefix that an internal neighbour told, as BIRD shows it.
fn route_from(member: &Member, neighbour: &str, prefix: &str) -> Result<String, String> {
    let route = member.ask(&format!(
        "show route {prefix} protocol ibgp_{neighbour} all"
    ))?;
    contains(&route, prefix)?;
    Ok(route)
}

/// One network behind two routers, seen by a third: it prefers the nearer one, whichever that is.
#[test]
fn third_router_prefers_the_nearer_entry() {
    let mut backbone = Backbone::new(&[edge(1, "one"), edge(2, "two"), edge(3, "third")]);
    backbone.full_mesh();
    backbone.network(1, &[("one", 100), ("two", 100)]);
    let place = |backbone: &mut Backbone, name: &str, continent: &str, region: u32| {
        let node = backbone.at_mut(name).policy["node"]
            .as_object_mut()
            .unwrap();
        node.insert(
            "continentLc".into(),
            json!(format!("LC_ORIGIN_{continent}")),
        );
        node.insert("regionCode".into(), json!(region));
        node.remove("subregionLc");
        node.remove("regionCommunity");
    };
    place(&mut backbone, "third", "EU", 301);
    let network = &backbone.networks[0];
    let prefixes = [network.prefix4.clone(), network.prefix6.clone()];
    // A full peer's routes begin at 2000. Same region and same continent; neighbouring and far; and the other
    // way round.
    let steps = [
        ([("EU", 301), ("EU", 302)], [2100, 2050]),
        ([("NA", 201), ("OC", 401)], [1950, 1800]),
        ([("OC", 401), ("EU", 302)], [1800, 2050]),
    ];
    for (number, (places, wanted)) in steps.into_iter().enumerate() {
        for (name, (continent, region)) in ["one", "two"].into_iter().zip(places) {
            place(&mut backbone, name, continent, region);
            backbone.at(name).tell();
        }
        if number == 0 {
            backbone.start();
            backbone.wait_established();
        }
        let third = backbone.at("third");
        for prefix in &prefixes {
            for (name, preference) in ["one", "two"].into_iter().zip(wanted) {
                wait_until(
                    &format!("{prefix} by {name} is worth {preference}"),
                    60,
                    || {
                        let route = route_from(third, name, prefix)?;
                        let line = route
                            .lines()
                            .find(|line| line.contains("local_pref"))
                            .ok_or(route.clone())?;
                        if line.trim().ends_with(&format!(": {preference}")) {
                            Ok(())
                        } else {
                            Err(route)
                        }
                    },
                );
            }
            let nearer = if wanted[0] > wanted[1] { "one" } else { "two" };
            wait_until(&format!("{prefix} goes by {nearer}"), 30, || {
                contains(
                    &third.ask(&format!("show route {prefix} primary"))?,
                    &format!("ibgp_{nearer}"),
                )
            });
        }
        // Each of the two uses its own session, so that packets leave where they come in.
        for name in ["one", "two"] {
            let own = backbone
                .at(name)
                .ask(&format!("show route {} primary", prefixes[0]))
                .unwrap();
            contains(&own, "ebgp_").unwrap();
        }
    }
}

#[test]
fn last_ibgp_peer_is_removed_only_by_an_empty_list() {
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
            if asked > before + 2 {
                Ok(())
            } else {
                Err(asked.to_string())
            }
        });
    };
    backbone.at_mut("jp1").ibgp = None;
    backbone.at("jp1").tell();
    polls(&backbone);
    contains(
        &backbone.at("jp1").ask("show protocols ibgp_jp2").unwrap(),
        "Established",
    )
    .unwrap();
    backbone.at_mut("jp1").ibgp = Some(vec![]);
    backbone.at("jp1").tell();
    polls(&backbone);
    contains(
        &backbone.at("jp1").ask("show protocols ibgp_jp2").unwrap(),
        "Established",
    )
    .unwrap();
    agent(&backbone.at("jp1").router, &["approve", "--all"]).ended(0);
    wait_until("the last internal neighbour is gone", 30, || {
        let all = backbone.at("jp1").ask("show protocols")?;
        if all.contains("ibgp_jp2") {
            Err(all)
        } else {
            Ok(())
        }
    });
}
