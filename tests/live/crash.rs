//! The agent is killed again and again while sessions come, change and go.

use crate::lab::hands::Age;
use crate::lab::wait_until;
use crate::lab::watch::ifindex;
use crate::lab::wireguard::KeyPair;
use crate::lab::world::{World, interface, uuid};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Numbers that look random and are the same in each run (Knuth's multiplier).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// How the Control Plane lists a session this time; none when it does not list it at all.
fn changed(session: &Value, dice: &mut Dice) -> Option<Value> {
    let mut session = session.clone();
    session["mtu"] = json!(1380 + 20 * dice.roll(3));
    session["description"] = json!(format!("now {}", dice.roll(3)));
    session["status"] = match dice.roll(6) {
        0 => return None,
        1 => json!(5),
        2 => json!(0),
        _ => json!(1),
    };
    Some(session)
}

/// A session with secrets, whose neighbour never answers.
fn secretive(key: &str) -> Value {
    json!({
        "uuid": uuid(4), "asn": 4_242_421_004u32, "status": 1, "ipv6LinkLocal": "fe80::1:4",
        "interface": interface(4), "password": "between friends",
        "credential": {"publicKey": KeyPair::new().public, "presharedKey": key}
    })
}

/// Names below a folder of the state directory or of BIRD, without their endings.
fn stems(world: &World, folder: &str) -> BTreeSet<String> {
    let list = world
        .router
        .inside
        .try_shell(&format!("cd {folder} && ls -A"))
        .unwrap_or_default();
    list.lines()
        .map(|file| {
            file.rsplit_once('.')
                .map_or(file, |(stem, _)| stem)
                .to_owned()
        })
        .collect()
}

/// Everything there is of sessions on this router, in kernel, BIRD and files, is of these.
fn only_these_are_left(world: &World, numbers: &[u32]) -> Result<(), String> {
    let wanted: BTreeSet<String> = numbers.iter().map(|number| interface(*number)).collect();
    let (state, bird) = (world.router.path("state"), world.router.bird.folder.clone());
    let (state, bird) = (state.display(), bird.display());
    let links = world.router.inside.shell("ip -o link");
    let marked = links
        .lines()
        .filter(|line| line.contains("alias moenet-agent:"));
    let links: BTreeSet<String> = marked
        .filter_map(|line| {
            Some(
                line.split_whitespace()
                    .nth(1)?
                    .trim_end_matches(':')
                    .to_owned(),
            )
        })
        .filter(|name| name != "dummy0")
        .collect();
    let protocols = world
        .router
        .bird
        .ask(&world.router.inside, "show protocols");
    let protocols = protocols.lines().filter(|line| line.contains(" BGP "));
    let protocols: BTreeSet<String> = protocols
        .filter_map(|line| Some(line.split_once(' ')?.0.trim_start_matches("ebgp_").into()))
        .collect();
    let processes = world.router.inside.shell("pgrep -a wireguard-go || true");
    let mine = |line: &&str| line.split_whitespace().any(|word| word.starts_with("wg_"));
    let processes: BTreeSet<String> = processes
        .lines()
        .filter(mine)
        .filter_map(|line| Some(line.rsplit_once(' ')?.1.to_owned()))
        .collect();
    let mut found = vec![("links", links), ("protocols", protocols)];
    // Where the kernel has WireGuard there are none.
    if !processes.is_empty() {
        found.push(("processes", processes));
    }
    for area in [
        "sessions",
        ".synced/sessions",
        "applied/sessions",
        "status/sessions",
    ] {
        found.push((area, stems(world, &format!("{state}/{area}"))));
    }
    found.push((
        "fragments",
        stems(world, &format!("{bird}/moenet/sessions")),
    ));
    for (what, found) in found {
        if found != wanted {
            return Err(format!("{what}: {found:?}, not {wanted:?}"));
        }
    }
    Ok(())
}

#[test]
fn kill_at_any_moment_touches_no_unchanged_session() {
    let mut world = World::converged(3);
    let key = world.router.inside.shell("wg genpsk");
    let (sessions, fourth) = (world.sessions(), secretive(key.trim()));
    let (age, index) = (
        Age::of(&world.neighbours[0]),
        ifindex(&world.router, &interface(1)),
    );
    let mut dice = Dice(4_242_420_998);
    let (begun, mut kills) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(45) {
        let mut listed = vec![sessions[0].clone()];
        listed.extend(
            [&sessions[1], &sessions[2], &fourth]
                .iter()
                .filter_map(|s| changed(s, &mut dice)),
        );
        world.control_plane.sessions(&listed);
        // Up to the time that it takes to start, fetch and apply.
        std::thread::sleep(Duration::from_millis(100 + dice.roll(1500)));
        world.router.kill_agent();
        world.router.spawn_agent(&[]);
        kills += 1;
    }
    assert!(kills > 15, "{kills}");
    // One that was there goes, one that may have gone comes back, and one with secrets goes.
    let mut last = sessions.clone();
    (last[1]["status"], last[1]["mtu"]) = (json!(1), json!(1400));
    last[2]["status"] = json!(5);
    let leaving = Value::from_iter([("uuid", json!(uuid(4))), ("status", json!(5))]);
    world
        .control_plane
        .sessions(&[&last[..], &[leaving]].concat());
    world.wait_mtu(2, 1400);
    for number in [3, 4] {
        world.wait_reported(&uuid(number), 0, "");
    }
    // A report of an earlier removal counts as well, so the Control Plane looks before it drops them.
    wait_until("what must go is gone", 40, || {
        only_these_are_left(&world, &[1, 2])
    });
    world.control_plane.sessions(&last[..2]);
    wait_until("nothing is left of what is gone", 40, || {
        only_these_are_left(&world, &[1, 2])
    });
    world.neighbours[1].wait_established(60);
    assert_eq!(
        Age::of(&world.neighbours[0]),
        age,
        "the session that never changed was reset"
    );
    assert_eq!(
        ifindex(&world.router, &interface(1)),
        index,
        "its link was made anew"
    );
    nothing_is_left_over(&world);
}

fn nothing_is_left_over(world: &World) {
    world.wait_measured();
    let leftovers = "find . -path ./.git -prune -o ( -name '.moenet-tmp-*' -o -name '*.next' -o -name '*.broken' ) -print";
    let leftovers = leftovers.replace('(', "\\(").replace(')', "\\)");
    wait_until("no temporary file, report or secret is left", 20, || {
        let found = world.in_state(&format!("{leftovers}; ls -A secrets outbox | grep -v :"));
        let found = found.trim().to_owned();
        if found.is_empty() { Ok(()) } else { Err(found) }
    });
    let bird = world
        .router
        .inside
        .shell(&format!("ls -A {}/", world.router.bird.folder.display()));
    let bird: Vec<&str> = bird
        .split_whitespace()
        .filter(|name| !name.starts_with("bird."))
        .collect();
    assert_eq!(bird, ["moenet"], "in BIRD's folder");
    wait_until("the history is whole and has all", 40, || {
        let status = world.git("status --porcelain");
        if status.is_empty() {
            Ok(())
        } else {
            Err(status)
        }
    });
    world.git("fsck --strict");
}
