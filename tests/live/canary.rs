//! A bad policy reaches the canary only, and is rolled back.

use std::path::Path;

use serde_json::{Value, json};

use crate::lab::backbone::{Backbone, Member, edge};
use crate::lab::router::{ASN, agent_program};
use crate::lab::{contains, wait_until};
use crate::network::{ADDRESS, add_router, start, write};

/// How jp1's table shows that it has a route from the network itself.
const DIRECT: &str = "wg_4242421001";

fn describe(dir: &Path, policy: &Value) {
    let network = json!({
        "asn": ASN, "prefixes": {"ipv4": "172.23.105.176/28", "ipv6": "fd48:4242:420::/48"}, "policy": policy,
        "rollout": {"waves": [["jp1"]], "observe": "30s"}
    });
    write(dir, "network.yaml", &network);
}

fn routes(member: &Member, prefix: &str) -> Result<String, String> {
    member.ask(&format!("show route {prefix} all"))
}

/// The sessions of a network, with the time since when these are up.
fn sessions(backbone: &Backbone) -> Vec<String> {
    let all = backbone.networks.iter().flat_map(|network| {
        let protocols = network.ask("show protocols").unwrap();
        let lines: Vec<String> = protocols.lines().map(str::to_owned).collect();
        lines.into_iter().filter(|line| line.starts_with("to_"))
    });
    all.collect()
}

fn without_direct(member: &Member, prefix: &str) -> Result<(), String> {
    let table = routes(member, prefix)?;
    if table.contains(DIRECT) {
        Err(table)
    } else {
        Ok(())
    }
}

#[test]
fn bad_policy_reaches_the_canary_only_and_is_taken_back() {
    let sites = [edge(1, "jp1"), edge(2, "jp2"), edge(3, "jp3")];
    let mut backbone = Backbone::new(&sites);
    backbone
        .underlay
        .shell(&format!("ip addr add {ADDRESS}/24 dev br0"));
    backbone.network(1, &[("jp1", 100), ("jp2", 90)]);
    backbone.network(2, &[("jp3", 100)]);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    describe(dir, &json!({}));
    for (id, name) in [(1, "jp1"), (2, "jp2"), (3, "jp3")] {
        add_router(dir, id, name);
        for (at, session) in backbone.at(name).sessions.iter().enumerate() {
            write(dir, &format!("sessions/{name}/s{at}.yaml"), session);
        }
    }
    let listen = format!("{ADDRESS}:8080");
    let fleet = dir.to_str().unwrap();
    let arguments = [
        "control-plane",
        "--fleet",
        fleet,
        "--listen",
        &listen,
        "--insecure-listen",
    ];
    let log = dir.join("log");
    let _serving = backbone.underlay.spawn(&log, &agent_program(), &arguments);
    for name in ["jp1", "jp2", "jp3"] {
        start(backbone.at_mut(name));
    }
    let prefix = backbone.networks[0].prefix4.clone();
    let has = |name: &str| contains(&routes(backbone.at(name), &prefix)?, DIRECT);
    wait_until("jp1 and jp2 have the network's own route", 90, || {
        has("jp1")?;
        has("jp2")
    });
    let at_far_end = || contains(&backbone.networks[1].ask("show route")?, &prefix);
    wait_until("the far network has the route", 60, at_far_end);
    // The newest report of jp1, the measure of before, has the routes.
    let imported = || {
        let text = std::fs::read_to_string(dir.join("reported/jp1/report.json"))
            .map_err(|error| error.to_string())?;
        let report: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let sessions = report["body"]["sessions"].as_array().unwrap();
        let routes = sessions
            .iter()
            .filter(|it| it["uuid"] == "network-1-at-1")
            .filter_map(|it| it["routes_imported"].as_u64());
        match routes.sum() {
            0 | 1 => Err(text),
            _ => Ok(()),
        }
    };
    wait_until("jp1 reports both routes of the network", 60, imported);
    let before = sessions(&backbone);

    // BIRD accepts it; routes of the network count as own ones, which no peer may tell.
    describe(dir, &json!({"dn42Ipv4Prefix": prefix}));
    wait_until("jp1 refuses the network's own route", 60, || {
        without_direct(backbone.at("jp1"), &prefix)
    });
    // The prefix as the filters name an own one.
    let own = format!("{prefix}+");
    assert!(backbone.at("jp1").bird_files().contains(&own));
    assert_eq!(has("jp2"), Ok(()));
    assert_eq!(at_far_end(), Ok(()));
    let text = || std::fs::read_to_string(&log).map_err(|error| error.to_string());
    wait_until("the change is rolled back", 60, || {
        contains(&text()?, "change of the network rolled back")
    });
    wait_until("jp1 has the network's own route again", 60, || has("jp1"));
    for name in ["jp2", "jp3"] {
        let files = backbone.at(name).bird_files();
        assert!(!files.contains(&own), "{name}: {files}");
    }
    assert_eq!(at_far_end(), Ok(()));
    assert_eq!(sessions(&backbone), before, "a session was reset");
}
