//! RPKI servers that have names: BIRD, which stands still while it looks one up, never gets one, and whatever
//! the name server does, its sessions notice nothing.

use crate::lab::control_plane::Answer;
use crate::lab::dns::{Dns, Record};
use crate::lab::router::policy_with;
use crate::lab::rtr::{Roa, Rtr};
use crate::lab::watch::{bird_history, session_ages};
use crate::lab::world::World;
use crate::lab::{contains, wait_until};
use serde_json::json;

const GOOD: &str = "rpki.good.dn42";
const SILENT: &str = "rpki.silent.dn42";

fn roas() -> Vec<Roa> {
    let roa = |prefix: &str, length, asn| (prefix.to_owned(), length, asn);
    vec![
        roa("172.20.1.0/24", 24, 4_242_421_001),
        roa("fd42:1::/48", 48, 4_242_421_001),
        roa("172.20.2.0/24", 24, 4_242_421_002),
        roa("fd42:2::/48", 48, 4_242_421_002),
    ]
}

fn servers(port: u16) -> serde_json::Value {
    let server = |host: &str| json!({"host": host, "port": port});
    policy_with(&json!({"rpkiServers": [server(SILENT), server(GOOD)], "rejectUnknownRoa": null}))
}

/// What BIRD has of RPKI servers: one `remote` each.
fn remotes(world: &World) -> Result<Vec<String>, String> {
    let file = world.router.bird.folder.join("moenet/roa.conf");
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    Ok(text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("remote ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect())
}

#[track_caller]
fn wait_remote(world: &World, wanted: &str) {
    wait_until(&format!("BIRD asks {wanted}"), 60, || {
        let found = remotes(world)?;
        if found == [wanted] {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
}

fn names_that_hang_or_fail_hold_up_nothing(version: &str) {
    let mut world = World::with_bird(version, 2);
    let dns = Dns::new(&world.router, &world.control_plane.url);
    let server = Rtr::start(&world.router, 8282, &roas());
    dns.set(SILENT, Record::Silence);
    dns.addresses(GOOD, &["127.0.0.1"]);
    world
        .control_plane
        .answer("bird-config", Answer::Json(servers(server.port)));
    world.router.start_agent();
    world.wait_established();
    // The good one validates, and the other one is told of.
    world.wait_condition("policy", "OriginsValidated", "True", "Live");
    world.neighbours[1].wait_route("172.20.1.0/24", "4242421001", 40);
    wait_remote(&world, "127.0.0.1 port 8282");
    let why = world.wait_condition("policy", "EndpointResolved", "False", "NotResolved");
    assert!(
        why.contains(SILENT) && why.contains("is not used") && !why.contains(GOOD),
        "{why}"
    );
    world.wait_measured();
    let kept = || std::fs::read_to_string(world.router.path("state/roa.conf")).unwrap_or_default();
    wait_until("the whole table is kept", 60, || {
        contains(&kept(), "fd42:2::/48")
    });
    wait_until("the agent is at rest", 40, || {
        world
            .router
            .inside
            .try_shell(&world.router.command("plan"))
            .map(drop)
    });
    // From now on no name leads anywhere. A restart of the agent goes on with the address it knew.
    let before = bird_history(&world.router);
    dns.set(GOOD, Record::Silence);
    world.router.kill_agent();
    world.router.start_agent();
    let why = world.wait_condition("policy", "EndpointResolved", "False", "NotResolved");
    wait_until("both names are told of", 40, || {
        let why = world.wait_condition("policy", "EndpointResolved", "False", "NotResolved");
        contains(&why, GOOD).and_then(|()| contains(&why, "127.0.0.1 stays in use"))
    });
    assert!(why.contains(SILENT), "{why}");
    world.wait_polls("bird-config", 2);
    wait_remote(&world, "127.0.0.1 port 8282");
    assert_eq!(bird_history(&world.router), before, "BIRD was touched");
    world.wait_condition("policy", "OriginsValidated", "True", "Live");
    let log = std::fs::read_to_string(world.router.path("agent.log")).unwrap();
    let told = |name: &str| {
        let line =
            |line: &&str| line.contains("RPKI server name does not resolve") && line.contains(name);
        log.lines().filter(line).count()
    };
    assert_eq!(
        (told(GOOD), told(SILENT)),
        (1, 2),
        "once by each run: {log}"
    );
    moves_to_another_address(&mut world, &dns);
}

/// The name leads elsewhere: BIRD asks there, and the kept table carries over.
fn moves_to_another_address(world: &mut World, dns: &Dns) {
    let ages = session_ages(&world.router);
    // The one in use last; it stays. Then it is gone.
    for (answer, wanted) in [
        (&["127.0.0.2", "127.0.0.1"][..], "127.0.0.1"),
        (&["127.0.0.2"], "127.0.0.2"),
    ] {
        dns.addresses(GOOD, answer);
        world.router.kill_agent();
        let asked = dns.asked(GOOD);
        world.router.start_agent();
        wait_until("the name is looked up", 30, || {
            if dns.asked(GOOD) > asked {
                Ok(())
            } else {
                Err("not yet".into())
            }
        });
        world.wait_polls("bird-config", 1);
        wait_remote(world, &format!("{wanted} port 8282"));
    }
    let heard = world.neighbours[1].heard(4).unwrap();
    assert!(heard.contains(&"172.20.1.0/24".to_owned()), "{heard:?}");
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
}

#[test]
fn hanging_rpki_names_block_nothing_bird_2_0_12() {
    names_that_hang_or_fail_hold_up_nothing("2.0.12");
}

#[test]
fn hanging_rpki_names_block_nothing_bird_3_4() {
    names_that_hang_or_fail_hold_up_nothing("3.4");
}
