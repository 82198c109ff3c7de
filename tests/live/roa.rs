//! Origins are validated by every RPKI server, and by the last good table where there is none.

use crate::lab::control_plane::Answer;
use crate::lab::router::{policy, policy_with};
use crate::lab::rtr::{Roa, Rtr};
use crate::lab::world::{Speaker, World};
use crate::lab::{bird, contains, wait_until};
use serde_json::json;

/// Beside its own prefixes: one of another's, and one that nobody has a ROA for.
const FIRST_SAYS: &str = "protocol static says4 { ipv4; route 172.20.101.0/24 blackhole; \
                          route 172.20.201.0/24 blackhole; }";
const VALID: &str = "172.20.1.0/24";
const INVALID: &str = "172.20.101.0/24";
const UNKNOWN: &str = "172.20.201.0/24";

fn roa(prefix: &str, asn: u32) -> Roa {
    (
        prefix.into(),
        prefix.split_once('/').unwrap().1.parse().unwrap(),
        asn,
    )
}

/// What makes a table large enough to collapse.
fn filling() -> impl Iterator<Item = Roa> {
    (0..30).flat_map(|i| {
        [
            roa(&format!("172.22.{i}.0/24"), 1),
            roa(&format!("fd77:{i}::/48"), 1),
        ]
    })
}

/// The first neighbour's, and the rest of the world.
fn of_the_first() -> Vec<Roa> {
    let own = [
        roa(VALID, 4_242_421_001),
        roa("fd42:1::/48", 4_242_421_001),
        roa(INVALID, 4_242_429_999),
    ];
    own.into_iter().chain(filling()).collect()
}

/// The second neighbour's.
fn of_the_second() -> Vec<Roa> {
    vec![
        roa("172.20.2.0/24", 4_242_421_002),
        roa("fd42:2::/48", 4_242_421_002),
    ]
}

/// What the second neighbour has heard of what the first one says.
fn passed_on(world: &World, prefixes: &[&str], wanted: &[&str]) -> Result<(), String> {
    let heard = world.neighbours[1].heard(4)?;
    let there: Vec<&str> = prefixes
        .iter()
        .copied()
        .filter(|p| heard.iter().any(|h| h == p))
        .collect();
    if there == wanted {
        Ok(())
    } else {
        Err(format!("{there:?} of {heard:?}"))
    }
}

#[track_caller]
fn wait_passed_on(world: &World, wanted: &[&str], seconds: u64) {
    wait_until(
        &format!("the second neighbour hears of {wanted:?} only"),
        seconds,
        || passed_on(world, &[VALID, INVALID, UNKNOWN], wanted),
    );
}

fn kept(world: &World) -> String {
    std::fs::read_to_string(world.router.path("state/roa.conf")).unwrap_or_default()
}

fn metric(world: &World, line: &str) -> Result<(), String> {
    let (_, metrics) = world.router.api("", "/metrics");
    contains(&metrics, line).map_err(|_| {
        metrics
            .lines()
            .filter(|line| line.contains("roa") || line.contains("rpki"))
            .collect::<Vec<_>>()
            .join("\n")
    })
}

fn world_with_servers(version: &str) -> (World, [Rtr; 2]) {
    let speakers = vec![
        Speaker::Bird(FIRST_SAYS.into()),
        Speaker::Bird(String::new()),
    ];
    let mut world = World::with_speakers(version, speakers);
    let servers = [
        Rtr::start(&world.router, 8282, &of_the_first()),
        Rtr::start(&world.router, 8283, &of_the_second()),
    ];
    let listed = json!({"rpkiServers": [servers[0].server(), servers[1].server()], "rejectUnknownRoa": null});
    world
        .control_plane
        .answer("bird-config", Answer::Json(policy_with(&listed)));
    world.router.start_agent();
    world.wait_established();
    (world, servers)
}

/// Everything but the state directory and a fresh `bird.conf` is gone, as on a machine set up anew.
fn cold_boot(world: &mut World) {
    world.router.kill_agent();
    world.router.bird.kill();
    std::fs::remove_dir_all(world.router.bird.folder.join("moenet")).unwrap();
    std::fs::remove_file(world.router.bird.folder.join("bird.conf")).unwrap();
    world.router.start_bird();
    world.router.start_agent();
    world.wait_established();
}

fn validated_by_every_server_and_without_any(version: &str) {
    let (mut world, mut servers) = world_with_servers(version);
    wait_passed_on(&world, &[VALID], 40);
    // Only the second server knows of the second neighbour.
    world.neighbours[0].wait_route("172.20.2.0/24", "4242421002", 20);
    world.neighbours[0].wait_route("fd42:2::/48", "4242421002", 20);
    world.wait_condition("policy", "OriginsValidated", "True", "Live");
    wait_until("the whole table is kept", 60, || {
        contains(&kept(&world), "route 172.20.2.0/24 max 24 as 4242421002;\n")?;
        let count = kept(&world)
            .lines()
            .filter(|line| line.starts_with("route "))
            .count();
        if count == 65 {
            Ok(())
        } else {
            Err(format!("{count} ROAs"))
        }
    });
    servers.iter_mut().for_each(Rtr::stop);
    // BIRD alone first: its own files have the table.
    world.router.kill_agent();
    world.router.bird.kill();
    world.router.start_bird();
    wait_passed_on(&world, &[VALID], 60);
    world.router.start_agent();
    world.wait_condition("policy", "OriginsValidated", "True", "FromCache");
    wait_passed_on(&world, &[VALID], 40);
    cold_boot(&mut world);
    wait_passed_on(&world, &[VALID], 60);
    world.neighbours[0].wait_route("fd42:2::/48", "4242421002", 20);
    world.wait_condition("policy", "OriginsValidated", "True", "FromCache");
}

#[test]
fn cold_boot_without_rpki_validates_bird_2_0_12() {
    validated_by_every_server_and_without_any("2.0.12");
}

#[test]
fn cold_boot_without_rpki_validates_bird_3_4() {
    validated_by_every_server_and_without_any("3.4");
}

/// The alarm is in the status, in the metrics and, once, in the log; nothing of the kept table goes.
#[track_caller]
fn alarm_and_last_good(world: &World, table: &str) {
    let why = world.wait_condition("policy", "OriginsValidated", "False", "Collapsed");
    assert!(why.contains("remove roa.conf"), "{why}");
    wait_until("the metric tells", 20, || {
        metric(world, "moenet_agent_roa_alarm 1")
    });
    assert_eq!(kept(world), table);
    wait_passed_on(world, &[VALID], 5);
}

#[test]
fn roa_collapse_raises_alarm_and_keeps_last_good_table() {
    let (world, servers) = world_with_servers(&bird::version());
    wait_until("the whole table is kept", 60, || {
        contains(&kept(&world), "4242421002")
    });
    wait_until("the metric tells", 20, || {
        metric(&world, "moenet_agent_rpki_servers{state=\"answering\"} 2")
    });
    let table = kept(&world);
    servers[1].serve(&[]);
    // A tenth, and then nothing at all.
    let tenth: Vec<Roa> = filling().take(6).collect();
    for left in [&tenth[..], &[]] {
        servers[0].serve(left);
        let shown = format!(
            "moenet_agent_roas{{family=\"ipv4\",source=\"rpki\"}} {}",
            left.len() / 2
        );
        wait_until("the servers have next to nothing", 60, || {
            metric(&world, &shown)
        });
        alarm_and_last_good(&world, &table);
    }
    servers[0].serve(&of_the_first());
    servers[1].serve(&of_the_second());
    world.wait_condition("policy", "OriginsValidated", "True", "Live");
    wait_until("the metric tells", 20, || {
        metric(&world, "moenet_agent_roa_alarm 0")
    });
    assert_eq!(kept(&world), table);
    let log = std::fs::read_to_string(world.router.path("agent.log")).unwrap();
    assert_eq!(
        log.matches("ROA validation not working").count(),
        1,
        "{log}"
    );
    // A ROA that comes lets in what was said before, and one that goes puts it out.
    let with_unknown: Vec<Roa> = of_the_second()
        .into_iter()
        .chain([roa(UNKNOWN, 4_242_421_001)])
        .collect();
    servers[1].serve(&with_unknown);
    wait_passed_on(&world, &[VALID, UNKNOWN], 40);
    servers[1].serve(&of_the_second());
    wait_passed_on(&world, &[VALID], 120);
}

#[test]
fn silent_rpki_server_alarm_ends_with_operators_table() {
    let speakers = vec![
        Speaker::Bird(FIRST_SAYS.into()),
        Speaker::Bird(String::new()),
    ];
    let mut world = World::with_speakers(&bird::version(), speakers);
    let nobody = json!([{"host": "127.0.0.1", "port": 8299}]);
    let refusing = policy_with(&json!({"rpkiServers": nobody, "rejectUnknownRoa": null}));
    world
        .control_plane
        .answer("bird-config", Answer::Json(refusing));
    world.router.start_agent();
    world.wait_established();
    let why = world.wait_condition("policy", "OriginsValidated", "False", "NoRoas");
    assert!(why.contains("refused"), "{why}");
    wait_passed_on(&world, &[], 10);
    wait_until("the metric tells", 20, || {
        metric(&world, "moenet_agent_roa_alarm 1")
    });
    // Downloaded by hand, as one does on the first day.
    let table = "route 172.20.1.0/24 max 24 as 4242421001;\nroute 172.20.101.0/24 max 24 as 1;\n\
                 route fd42:1::/48 max 48 as 4242421001;\n";
    std::fs::write(world.router.path("state/roa.conf"), table).unwrap();
    wait_passed_on(&world, &[VALID], 60);
    world.wait_condition("policy", "OriginsValidated", "True", "FromCache");
    assert_eq!(kept(&world), table, "an operator's file stays as it is");
    // Unknown is let in where the policy says so; invalid never is.
    let lax = policy_with(&json!({"rpkiServers": nobody, "rejectUnknownRoa": false}));
    world.control_plane.answer("bird-config", Answer::Json(lax));
    wait_passed_on(&world, &[VALID, UNKNOWN], 40);
    // Without any server the table goes on.
    world
        .control_plane
        .answer("bird-config", Answer::Json(policy()));
    world.wait_condition("policy", "OriginsValidated", "True", "FromCache");
    wait_passed_on(&world, &[VALID, UNKNOWN], 10);
}
