//! A network that the Control Plane derives from its description.

use crate::lab::backbone::{Backbone, Member, edge};
use crate::lab::router::{ASN, agent_program};
use crate::lab::watch::ifindex;
use crate::lab::{contains, wait_until};
use moenet_agent::fleet::network::TokenHash;
use moenet_agent::model::Secret;
use serde_json::{Value, json};
use std::path::Path;

pub(crate) const ADDRESS: &str = "198.51.100.254";

/// Writes a file as `git` does: whole.
pub(crate) fn write(dir: &Path, name: &str, value: &Value) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(dir.join(".new"), value.to_string()).unwrap();
    std::fs::rename(dir.join(".new"), path).unwrap();
}

pub(crate) fn add_router(dir: &Path, id: u16, name: &str) {
    let hash = TokenHash::of(&Secret::new("lab-token".to_owned())).to_string();
    let router = json!({"id": id, "address": format!("198.51.100.{id}"), "tokenHashes": [hash]});
    write(dir, &format!("routers/{name}.yaml"), &router);
}

pub(crate) fn start(member: &mut Member) {
    let mut config = member.router.config(&format!("http://{ADDRESS}:8080"), 1);
    config["node"]["name"] = json!(member.name);
    config["controlPlane"]["birdConfigInterval"] = json!(1);
    config["controlPlane"]["meshInterval"] = json!(1);
    config["controlPlane"]["configInterval"] = json!(1);
    member.router.write_config(&config);
    member.router.start_agent();
}

fn wait_route(member: &Member, prefix: &str) {
    wait_until(&format!("{} has {prefix}", member.name), 90, || {
        contains(&member.ask("show route")?, prefix)
    });
}

/// Links and internal sessions between the first three routers, with the time since when these are up.
fn state(member: &Member, others: &[&str]) -> Vec<String> {
    let protocols = member.ask("show protocols").unwrap();
    let line = |name: &str| {
        protocols
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned()
    };
    let of = |other: &&str| {
        let link = ifindex(&member.router, &format!("mesh_{other}"));
        format!("{link} {}", line(&format!("ibgp_{other} ")))
    };
    others.iter().map(of).collect()
}

#[test]
fn fourth_router_joins_and_leaves_a_network() {
    let sites = [
        edge(1, "jp1"),
        edge(2, "jp2"),
        edge(3, "jp3"),
        edge(4, "jp4"),
    ];
    let mut backbone = Backbone::new(&sites);
    backbone
        .underlay
        .shell(&format!("ip addr add {ADDRESS}/24 dev br0"));
    backbone.network(1, &[("jp1", 100)]);
    backbone.network(2, &[("jp4", 100)]);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let network = json!({"asn": ASN, "prefixes": {"ipv4": "172.23.105.176/28", "ipv6": "fd48:4242:420::/48"}});
    write(dir, "network.yaml", &network);
    for (id, name) in [(1, "jp1"), (2, "jp2"), (3, "jp3")] {
        add_router(dir, id, name);
    }
    for home in ["jp1", "jp4"] {
        write(
            dir,
            &format!("sessions/{home}/other.yaml"),
            &backbone.at(home).sessions[0],
        );
    }
    let listen = format!("{ADDRESS}:8080");
    let arguments = [
        "control-plane",
        "--fleet",
        dir.to_str().unwrap(),
        "--insecure-listen",
        "--listen",
        &listen,
    ];
    let _serving = backbone
        .underlay
        .spawn(&dir.join("log"), &agent_program(), &arguments);
    for name in ["jp1", "jp2", "jp3"] {
        start(backbone.at_mut(name));
    }
    let far = [&backbone.networks[0].prefix4, &backbone.networks[1].prefix4].map(Clone::clone);
    wait_route(backbone.at("jp2"), &far[0]);
    wait_route(backbone.at("jp3"), &far[0]);
    let states = |backbone: &Backbone| {
        [("jp1", ["jp2", "jp3"]), ("jp2", ["jp1", "jp3"])]
            .map(|(name, others)| state(backbone.at(name), &others))
    };
    wait_until("all internal sessions are up", 60, || {
        let all = states(&backbone).concat();
        if all.iter().all(|line| line.contains("Established")) {
            Ok(())
        } else {
            Err(format!("{all:#?}"))
        }
    });
    let before = states(&backbone);

    // One file and one token.
    add_router(dir, 4, "jp4");
    start(backbone.at_mut("jp4"));
    wait_route(backbone.at("jp4"), &far[0]);
    wait_route(backbone.at("jp2"), &far[1]);
    let ping = format!("ping -c 1 -W 1 {}", backbone.at("jp4").loopback6());
    wait_until("jp4 is reached over the backbone", 60, || {
        backbone.at("jp3").router.inside.try_shell(&ping).map(drop)
    });
    wait_until(
        "the networks at both ends have each other's routes",
        60,
        || {
            contains(&backbone.networks[1].ask("show route")?, &far[0])?;
            contains(&backbone.networks[0].ask("show route")?, &far[1])
        },
    );
    assert_eq!(
        states(&backbone),
        before,
        "another link or session was disturbed"
    );

    // And no file.
    std::fs::remove_dir_all(dir.join("sessions/jp4")).unwrap();
    std::fs::remove_file(dir.join("routers/jp4.yaml")).unwrap();
    for name in ["jp1", "jp2", "jp3"] {
        let member = backbone.at(name);
        wait_until(&format!("{name} has no trace of jp4"), 90, || {
            let links = member.router.inside.try_shell("ip -o link")?;
            let left = links + &member.ask("show protocols")?;
            if left.contains("jp4") {
                Err(left)
            } else {
                Ok(())
            }
        });
    }
    wait_until("the route to jp4's network is gone", 60, || {
        let routes = backbone.networks[0].ask("show route")?;
        if routes.contains(&far[1]) {
            Err(routes)
        } else {
            Ok(())
        }
    });
    assert_eq!(
        states(&backbone),
        before,
        "another link or session was disturbed"
    );
}
