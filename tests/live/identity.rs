//! Whose an object is: an agent without its state directory, and two agents on one host.

mod second;
pub(crate) use second::Second;

use std::path::Path;

use serde_json::{Value, json};

use crate::lab::bird::{self, Bird};
use crate::lab::cli::agent;
use crate::lab::hands::Age;
use crate::lab::namespace::Process;
use crate::lab::neighbour::{FarEnd, Neighbour};
use crate::lab::router::agent_program;
use crate::lab::watch::NetlinkEvents;
use crate::lab::wireguard::KeyPair;
use crate::lab::world::{World, interface, uuid};
use crate::lab::{contains, wait_until};

const CASE: &str = include_str!("../cases/own-session-disk-not-mounted/session.yaml");

/// A session of the Control Plane, and one of the operator, as the case has it; both Established.
fn with_a_session_of_the_operator() -> World {
    let mut world = World::new(2);
    let own = &world.neighbours[1];
    let text = CASE
        .replace("@NAME@", "friend")
        .replace("@ASN@", &own.asn.to_string())
        .replace("@KEY@", &own.keys.public)
        .replace("10.201.@I@.2:51820", "192.0.2.18:51820")
        .replace("@LL@", &own.address);
    let listed = world.sessions()[..1].to_vec();
    world.control_plane.sessions(&listed);
    std::fs::create_dir_all(world.router.path("state/sessions")).unwrap();
    world.write("sessions/friend.yaml", &text);
    world.router.start_agent();
    world.wait_established();
    world.wait_measured();
    world
}

pub(crate) fn aliases(world: &World) -> Vec<String> {
    let links = world.router.inside.shell("ip -o link");
    let alias = |line: &str| Some(line.split_once("alias ")?.1.trim().to_owned());
    let mut found: Vec<_> = links.lines().filter_map(alias).collect();
    found.sort();
    found
}

fn ifindex(world: &World, number: u32) -> String {
    let name = interface(number);
    world
        .router
        .inside
        .shell(&format!("cat /sys/class/net/{name}/ifindex"))
}

/// An empty mount point stands where the state directory was.
pub(crate) fn unmount(world: &World) {
    let (state, away) = (world.router.path("state"), world.router.path("away"));
    std::fs::rename(&state, away).unwrap();
    std::fs::create_dir(&state).unwrap();
}

#[track_caller]
pub(crate) fn wait_missing(world: &World) {
    wait_until("/status names the missing state directory", 20, || {
        let status = world.router.api("", "/status").1;
        contains(&status, "\"status\":\"failed\"")?;
        contains(&status, "StateDirectoryMissing")?;
        contains(&status, "approve --state-lost")
    });
}

pub(crate) fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_missing_state_directory_touches_nothing_and_heals_when_mounted() {
    let mut world = with_a_session_of_the_operator();
    let (identity, before, ages) = (world.router.identity(), aliases(&world), world.ages());
    world.router.kill_agent();
    unmount(&world);
    std::fs::remove_file(world.router.path("private.key")).unwrap();
    let key = world.router.path("private.key");
    let bird = world.router.bird.folder.join("moenet/main.conf");
    let written = std::fs::metadata(&bird).unwrap().modified().unwrap();
    let events = NetlinkEvents::record(&world.router);

    world.router.start_agent();
    wait_missing(&world);
    world.wait_log("waiting for the state directory");
    let log = world.router.log();
    let said = log
        .lines()
        .filter(|line| line.contains("waiting for the state directory"));
    let said: Vec<_> = said.collect();
    assert_eq!(said.len(), 1, "{log}");
    contains(said[0], "approve --state-lost").unwrap();
    contains(said[0], &world.router.path("state").display().to_string()).unwrap();
    let plan = agent(&world.router, &["plan"]).ended(1);
    plan.says("StateDirectoryMissing");
    agent(&world.router, &["apply", "--once"]).ended(1);
    assert_eq!(world.router.api("", "/readyz").0, 503);
    assert_eq!(entries(&world.router.path("state")), 0);
    assert!(!key.exists(), "a key was made");
    assert_eq!(
        std::fs::metadata(&bird).unwrap().modified().unwrap(),
        written
    );
    assert_eq!(events.seen(), Vec::<String>::new());
    assert_eq!(world.ages(), ages);

    std::fs::write(&key, format!("{}\n", world.router.keys.private)).unwrap();
    std::fs::remove_dir(world.router.path("state")).unwrap();
    std::fs::rename(world.router.path("away"), world.router.path("state")).unwrap();
    wait_until("the agent goes on by itself", 30, || {
        // Between the two the API does not listen for a moment.
        let status = "curl -sf http://127.0.0.1:24368/status";
        contains(&world.router.inside.try_shell(status)?, "\"active\":2")
    });
    assert_eq!(world.router.identity(), identity);
    assert_eq!(aliases(&world), before);
    assert_eq!(events.seen(), Vec::<String>::new());
    assert_eq!(world.ages(), ages);
}

#[test]
fn a_lost_state_directory_is_succeeded_in_place() {
    let mut world = with_a_session_of_the_operator();
    let (identity, ages) = (world.router.identity(), world.ages());
    let indices = (ifindex(&world, 1), ifindex(&world, 2));
    world.router.kill_agent();
    unmount(&world);
    world.router.start_agent();
    wait_missing(&world);
    agent(&world.router, &["approve", "--state-lost"]).ended(0);
    wait_until("the session is configured from the list", 40, || {
        let status = "curl -sf http://127.0.0.1:24368/status";
        contains(&world.router.inside.try_shell(status)?, "\"active\":1")
    });
    assert_ne!(world.router.identity(), identity);
    let (ours, lost) = (
        world.router.mark(&uuid(1)),
        format!("moenet-agent:2:{identity}:local/sessions/friend"),
    );
    wait_until("the mark is that of the new identity", 20, || {
        contains(&aliases(&world).join("\n"), &ours)
    });
    // No list of the Control Plane disproves the operator's session, whose document is lost.
    world.wait_polls("sessions", 5);
    assert!(aliases(&world).contains(&lost), "{:?}", aliases(&world));
    assert_eq!((ifindex(&world, 1), ifindex(&world, 2)), indices);
    assert_eq!(world.ages(), ages);
    let new = format!("moenet-agent:2:{}", world.router.identity());
    wait_until("BIRD's files have the mark of the new identity", 20, || {
        all_marked(&world, &new)
    });
    assert_eq!(world.ages(), ages);
    let held = agent(&world.router, &["approve", "--list"]).ended(0);
    held.says("sessions/friend");
    let again = agent(&world.router, &["approve", "--state-lost"]).ended(0);
    again.says("Nothing to approve");

    // Approved, all that is left of the operator's session goes, and nothing else.
    agent(&world.router, &["approve", "sessions/friend"]).ended(0);
    let file = world.router.bird.folder.join("moenet/sessions/friend.conf");
    wait_until("the file of the lost session is gone", 40, || {
        match file.exists() {
            true => Err("it is there".into()),
            false => Ok(()),
        }
    });
    // A link that no record names any more is listed, and goes with an approval of its own.
    wait_until("the link of the lost session is gone, or held", 40, || {
        let held = agent(&world.router, &["approve", "--list"]);
        world
            .has_no_link(2)
            .or_else(|_| contains(&held.out, "orphan/local/sessions/friend"))
    });
    agent(&world.router, &["approve", "--all"]).ended(0);
    wait_until("the link of the lost session is gone", 40, || {
        world.has_no_link(2)
    });
    assert_eq!(Age::of(&world.neighbours[0]), ages[0]);
}

/// The files of BIRD's configuration, each with its content.
pub(crate) fn bird_files(world: &World) -> Vec<(String, String)> {
    let folder = world.router.bird.folder.display();
    let list = format!("cd {folder} && find . -name '*.conf*' -not -path '*/.*' | sort");
    let names = world.router.inside.shell(&list);
    let read = |name: &str| {
        let path = world.router.bird.folder.join(name);
        Some((name.to_owned(), std::fs::read_to_string(path).ok()?))
    };
    names.lines().filter_map(read).collect()
}

/// Whether the first line of every file of BIRD's configuration has this mark.
fn all_marked(world: &World, mark: &str) -> Result<(), String> {
    let files = bird_files(world);
    let marked = |text: &str| text.lines().next().unwrap_or_default().contains(mark);
    // The copy that the first start kept is the distribution's.
    let kept = |name: &str| name.ends_with(".before-moenet-agent");
    match files
        .iter()
        .find(|(name, text)| !kept(name) && !marked(text))
    {
        Some((name, _)) => Err(format!("{name} has no mark {mark}")),
        None if files.len() < 4 => Err(format!("{} files", files.len())),
        None => Ok(()),
    }
}

#[test]
fn files_of_an_earlier_build_get_the_identity_without_reset() {
    let mut world = World::converged(2);
    let (ages, index) = (world.ages(), ifindex(&world, 1));
    let mark = format!("moenet-agent:2:{};", world.router.identity());
    all_marked(&world, &mark).unwrap();
    world.router.kill_agent();
    for (name, text) in bird_files(&world) {
        let path = world.router.bird.folder.join(name);
        std::fs::write(path, text.replacen(&mark, "moenet-agent;", 1)).unwrap();
    }
    let names = |world: &World| {
        bird_files(world)
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    let before = names(&world);
    world.router.start_agent();
    wait_until("every file has the identity", 30, || {
        all_marked(&world, &mark)
    });
    assert_eq!(names(&world), before, "no file was taken for an edited one");
    world.wait_polls("sessions", 3);
    assert_eq!(world.ages(), ages);
    assert_eq!(ifindex(&world, 1), index);
    world.wait_condition("node", "BirdConfigured", "True", "Loaded");
}

#[test]
fn approval_takes_over_files_of_an_earlier_build_without_records() {
    let mut world = World::converged(1);
    let ages = world.ages();
    let mark = format!("moenet-agent:2:{};", world.router.identity());
    all_marked(&world, &mark).unwrap();
    world.router.kill_agent();
    for (name, text) in bird_files(&world) {
        let path = world.router.bird.folder.join(name);
        std::fs::write(path, text.replacen(&mark, "moenet-agent;", 1)).unwrap();
    }
    world.in_state("rm applied/*.yaml applied/*/*.yaml");
    let files = bird_files(&world);
    world.router.start_agent();
    world.wait_condition("node", "BirdConfigured", "False", "BirdDirectoryInUse");
    // The claims of the tunnel are recorded meanwhile, and prove nothing.
    world.wait_polls("sessions", 4);
    assert_eq!(bird_files(&world), files);
    let told = agent(&world.router, &["describe", "node"]);
    contains(&told.out, "moenet-agent approve --earlier-build").unwrap();
    agent(&world.router, &["approve", "--earlier-build"])
        .ended(0)
        .says("belong to");
    wait_until("every file has the identity", 60, || {
        all_marked(&world, &mark)
    });
    world.wait_condition("node", "BirdConfigured", "True", "Loaded");
    assert_eq!(world.ages(), ages);
    agent(&world.router, &["approve", "--earlier-build"])
        .ended(0)
        .says("Nothing to approve");
}

#[test]
fn marks_of_an_earlier_build_are_upgraded_in_place() {
    let mut world = World::converged(1);
    let (ages, index) = (world.ages(), ifindex(&world, 1));
    world.router.kill_agent();
    let identity = world.router.identity();
    let earlier = |object: &str| format!("moenet-agent:{object}");
    let inside = &world.router.inside;
    inside.shell(&format!(
        "ip link set {} alias {}",
        interface(1),
        earlier(&uuid(1))
    ));
    inside.shell(&format!(
        "ip link add br7 type bridge && ip link set br7 alias {}",
        earlier("no-record")
    ));
    std::fs::remove_file(world.router.path("state/identity")).unwrap();
    let marker = format!("id: {identity}00112233445566ff\nunproven: false\n");
    world.write(".moenet-state", &marker);
    world.router.start_agent();
    wait_until("the mark is today's", 30, || {
        contains(&aliases(&world).join("\n"), &world.router.mark(&uuid(1)))
    });
    assert_eq!(world.router.identity(), identity);
    world.wait_polls("sessions", 3);
    assert!(aliases(&world).contains(&earlier("no-record")));
    assert_eq!(ifindex(&world, 1), index);
    assert_eq!(world.ages(), ages);
}

#[test]
fn identity_that_was_cleaned_away_comes_back() {
    let mut world = World::converged(1);
    let (identity, ages) = (world.router.identity(), world.ages());
    let starts_without = |world: &mut World, gone: &[&str]| {
        world.router.kill_agent();
        for file in gone {
            std::fs::remove_file(world.router.path("state").join(file)).unwrap();
        }
        world.router.start_agent();
        world.wait_polls("sessions", 3);
        assert_eq!(world.router.identity(), identity);
        assert_eq!(world.ages(), ages);
    };
    // The history may have no commit yet, but has the copy next to it.
    starts_without(&mut world, &["identity"]);
    wait_until("the history has the identity", 60, || {
        match world.git("log --all --format=%s -- identity").is_empty() {
            true => Err("it has not".into()),
            false => Ok(()),
        }
    });
    starts_without(&mut world, &["identity", ".git/moenet-identity"]);
}

#[test]
fn a_copied_state_directory_is_reported() {
    let mut world = World::converged(1);
    world.router.kill_agent();
    // Another host: no link of the records is there, and its key is another.
    world
        .router
        .inside
        .shell(&format!("ip link del {}", interface(1)));
    let key = world.router.path("private.key");
    std::fs::write(key, format!("{}\n", KeyPair::new().private)).unwrap();
    world.router.start_agent();
    let recorded = |world: &World| world.read("public-key").trim().to_owned();
    let before = recorded(&world);
    for start in ["first", "second"] {
        let status = world.router.api("", "/status").1;
        contains(&status, "looks like a copy of another host's").unwrap();
        world.wait_log("looks like a copy of another host's");
        let why = world.wait_condition(
            "node",
            "StateDirectoryUnique",
            "False",
            "CopiedFromAnotherHost",
        );
        contains(&why, "state.directory").unwrap();
        let status = world.router.api("", "/status").1;
        contains(&status, "\"status\":\"degraded\"").unwrap();
        for verb in [&["describe", "node"][..], &["get", "node", "-o", "json"]] {
            agent(&world.router, verb).says("looks like a copy");
        }
        assert_eq!(recorded(&world), before, "{start} start");
        // By now this host has interfaces of these names, with its own key.
        wait_until("the tunnel is here", 20, || world.has_link(1));
        world.router.kill_agent();
        world.router.start_agent();
    }
    world.remove("public-key");
    world.wait_condition("node", "StateDirectoryUnique", "True", "RecordsOfThisHost");
    wait_until("the key of this host is recorded", 10, || {
        match recorded(&world) == before {
            true => Err("still the other host's".into()),
            false => Ok(()),
        }
    });
}

#[test]
fn two_records_of_the_public_key_become_one() {
    let mut world = World::converged(1);
    let (key, ages) = (world.read("public-key"), world.ages());
    for leftover in [true, false] {
        world.router.kill_agent();
        if leftover {
            world.write(".public-key", &key);
        } else {
            std::fs::rename(world.state("public-key"), world.state(".public-key")).unwrap();
        }
        world.router.start_agent();
        wait_until("one record is left", 10, || {
            match world.state(".public-key").exists() {
                true => Err("there are two".into()),
                false => Ok(()),
            }
        });
        assert_eq!(world.read("public-key"), key);
    }
    world.wait_polls("sessions", 2);
    assert_eq!(world.ages(), ages);
}
