//! Whose an object is: an agent without its state directory, and two agents on one host.

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

fn aliases(world: &World) -> Vec<String> {
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
fn unmount(world: &World) {
    let (state, away) = (world.router.path("state"), world.router.path("away"));
    std::fs::rename(&state, away).unwrap();
    std::fs::create_dir(&state).unwrap();
}

#[track_caller]
fn wait_missing(world: &World) {
    wait_until("/status names the missing state directory", 20, || {
        let status = world.router.api("", "/status").1;
        contains(&status, "\"status\":\"failed\"")?;
        contains(&status, "StateDirectoryMissing")?;
        contains(&status, "approve --state-lost")
    });
}

fn entries(folder: &Path) -> usize {
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
    let held = agent(&world.router, &["approve", "--list"]).ended(0);
    held.says("sessions/friend");
    let again = agent(&world.router, &["approve", "--state-lost"]).ended(0);
    again.says("Nothing to approve");
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
fn identity_that_was_cleaned_away_comes_back_from_the_history() {
    let mut world = World::converged(1);
    let (identity, ages) = (world.router.identity(), world.ages());
    world.router.kill_agent();
    std::fs::remove_file(world.router.path("state/identity")).unwrap();
    world.router.start_agent();
    assert_eq!(world.router.identity(), identity);
    world.wait_polls("sessions", 3);
    assert_eq!(world.ages(), ages);
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
    let status = world.router.api("", "/status").1;
    contains(&status, "looks like a copy of another host's").unwrap();
    world.wait_log("looks like a copy of another host's");
}

/// Another network on the same host: own state, own BIRD, own port, own firewall table, its node and session by hand.
struct Second {
    agent: Option<Process>,
    bird: Bird,
    keys: KeyPair,
    folder: tempfile::TempDir,
}

const SECOND_ASN: u32 = 4_242_420_997;

impl Second {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bird = Bird::new(&bird::version(), &folder.path().join("bird"));
        let keys = KeyPair::new();
        std::fs::write(
            folder.path().join("private.key"),
            format!("{}\n", keys.private),
        )
        .unwrap();
        Self {
            agent: None,
            bird,
            keys,
            folder,
        }
    }

    fn far_end(&self) -> FarEnd {
        FarEnd {
            asn: SECOND_ASN,
            address: "fe80::997:2".into(),
            public: self.keys.public.clone(),
            endpoint: "192.0.2.17:21002".into(),
        }
    }

    fn start(&mut self, world: &World, neighbour: &Neighbour) {
        let path = |name: &str| self.folder.path().join(name);
        let mut config = world.router.config("http://127.0.0.1:1", 1);
        config.as_object_mut().unwrap().remove("controlPlane");
        config["node"] = json!({
            "name": "other", "id": 2, "asn": SECOND_ASN,
            "loopbackIpv4": "172.20.99.2", "loopbackIpv6": "fd42:99::2"
        });
        config["server"] = json!({"listen": "127.0.0.1:24369"});
        config["state"] = json!({"directory": path("state")});
        config["wireguard"]["privateKeyPath"] = json!(path("private.key"));
        config["bird"] = json!({
            "controlSocket": self.bird.socket(), "directory": self.bird.folder,
            "binary": self.bird.program(), "confirmTimeout": 10, "templates": templates(&path("templates"))
        });
        config["firewall"] = json!({"enabled": true});
        std::fs::write(path("config.yaml"), config.to_string()).unwrap();
        std::fs::create_dir_all(path("state/sessions")).unwrap();
        let session = json!({
            "apiVersion": "moenet.work/v1", "kind": "BgpSession", "metadata": {"name": "second"},
            "spec": {
                "asn": neighbour.asn,
                "tunnel": {
                    "interface": interface(2), "publicKey": neighbour.keys.public,
                    "endpoint": "192.0.2.18:51820", "listenPort": 21_002
                },
                "address": {"peerLinkLocal": neighbour.address}
            }
        });
        std::fs::write(path("state/sessions/second.yaml"), session.to_string()).unwrap();
        std::fs::write(self.bird.folder.join("bird.conf"), "protocol device {}\n").unwrap();
        self.bird.start(&world.router.inside);
        let (program, file) = (agent_program(), path("config.yaml"));
        let arguments = ["--config", file.to_str().unwrap(), "run"];
        let log = self.folder.path().join("agent.log");
        self.agent = Some(world.router.inside.spawn(&log, &program, &arguments));
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("agent.log")).unwrap_or_default()
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("──── second agent.log\n{}", self.log());
        }
    }
}

/// Two BIRDs on one host share port 179 when each listens on its tunnels alone.
fn templates(folder: &Path) -> Value {
    const BUILT_IN: &str = include_str!("../../templates/session.conf");
    std::fs::create_dir_all(folder).unwrap();
    let text = BUILT_IN.replace("  source address", "  strict bind on;\n  source address");
    assert_ne!(text, BUILT_IN);
    std::fs::write(folder.join("session.conf"), text).unwrap();
    json!(folder)
}

#[test]
fn two_agents_on_one_host_leave_each_other_alone() {
    let mut world = World::new(1);
    let folder = world.router.path("templates");
    world.router.reconfigure(|config| {
        config["firewall"] = json!({"enabled": true});
        config["bird"]["templates"] = templates(&folder);
    });
    world.router.start_agent();
    world.neighbours[0].wait_established(40);

    let mut second = Second::new();
    let far = second.far_end();
    world.join(Neighbour::new(2), 2, |neighbour, _| {
        neighbour.start_bird(&bird::version(), &far);
    });
    second.start(&world, &world.neighbours[1]);
    world.neighbours[1].wait_established(60);
    let tables = || {
        let all = world.router.inside.shell("nft list tables inet");
        all.lines()
            .filter(|line| line.contains("moenet_agent"))
            .count()
    };
    wait_until("each agent has its table", 30, || match tables() {
        2 => Ok(()),
        other => Err(format!("{other} tables")),
    });
    // Measured links and first reloads are over.
    std::thread::sleep(std::time::Duration::from_secs(10));

    let marks = aliases(&world);
    let ages: Vec<Age> = world.neighbours.iter().map(Age::of).collect();
    let rules = world.router.inside.shell("nft -a list ruleset");
    let events = NetlinkEvents::record(&world.router);
    world.wait_polls("sessions", 15);
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert_eq!(events.seen(), Vec::<String>::new());
    assert_eq!(aliases(&world), marks);
    assert_eq!(world.router.inside.shell("nft -a list ruleset"), rules);
    assert_eq!(world.ages(), ages);
    contains(&rules, "21001")
        .and_then(|()| contains(&rules, "21002"))
        .unwrap();

    // One goes, with its table; the other does not notice.
    world.control_plane.sessions(&[]);
    drop(second.agent.take());
    assert_eq!(world.ages(), ages);
}
