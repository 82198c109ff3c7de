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

/// Another network on the same host: own state, own BIRD, own port, own firewall table, its node and session by hand.
pub(crate) struct Second {
    pub(crate) agent: Option<Process>,
    pub(crate) bird: Bird,
    keys: KeyPair,
    folder: tempfile::TempDir,
}

const SECOND_ASN: u32 = 4_242_420_997;

impl Second {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn far_end(&self) -> FarEnd {
        FarEnd {
            asn: SECOND_ASN,
            address: "fe80::997:2".into(),
            public: self.keys.public.clone(),
            endpoint: "192.0.2.17:21002".into(),
        }
    }

    pub(crate) fn start(&mut self, world: &World, neighbour: &Neighbour) {
        self.prepare(world, neighbour, |_| {});
        std::fs::write(self.bird.folder.join("bird.conf"), "protocol device {}\n").unwrap();
        self.bird.start(&world.router.inside);
        self.run(world);
    }

    fn run(&mut self, world: &World) {
        let (program, file) = (agent_program(), self.folder.path().join("config.yaml"));
        let arguments = ["--config", file.to_str().unwrap(), "run"];
        let log = self.folder.path().join("agent.log");
        self.agent = Some(world.router.inside.spawn(&log, &program, &arguments));
    }

    /// A command of the second agent.
    pub(crate) fn says(&self, world: &World, verb: &str) -> String {
        let (program, folder) = (agent_program(), self.folder.path().display());
        let program = program.display();
        let line = format!("{program} --config {folder}/config.yaml {verb} 2>&1 || true");
        world.router.inside.shell(&line)
    }

    /// Writes its configuration and documents.
    pub(crate) fn prepare(
        &self,
        world: &World,
        neighbour: &Neighbour,
        edit: impl FnOnce(&mut Value),
    ) {
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
        // Where the kernel has dummy devices, the default is the first agent's device.
        config["loopback"]["interface"] = json!("lo");
        edit(&mut config);
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
    }

    pub(crate) fn log(&self) -> String {
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

#[test]
fn second_agent_leaves_the_first_bird_directory_unchanged() {
    let mut world = World::converged(1);
    let mut second = Second::new();
    let far = second.far_end();
    world.join(Neighbour::new(2), 2, |neighbour, _| {
        neighbour.start_bird(&bird::version(), &far);
    });
    world.wait_measured();
    let (age, identity) = (Age::of(&world.neighbours[0]), world.router.identity());
    let files = bird_files(&world);
    let shared = (world.router.bird.socket(), world.router.bird.folder.clone());
    // As with the first agent's dummy device on kernels that have them, the loopback interface is foreign too.
    world.router.inside.shell("ip link add br7 type bridge");
    second.prepare(&world, &world.neighbours[1], |config| {
        config["bird"]["controlSocket"] = json!(shared.0);
        config["bird"]["directory"] = json!(shared.1);
        config["firewall"]["enabled"] = json!(false);
        config["loopback"]["interface"] = json!("br7");
    });
    let told = |text: &str| {
        contains(text, &format!("identity {identity}"))?;
        contains(text, &shared.1.join("bird.conf").display().to_string())?;
        contains(text, "bird.directory")
    };
    let plan = second.says(&world, "plan");
    told(&plan)
        .and_then(|()| contains(&plan, "interface br7"))
        .unwrap();
    for _ in 0..2 {
        second.run(&world);
        wait_until("/status of the second names the first", 40, || {
            let status = "curl -sf http://127.0.0.1:24369/status";
            told(&world.router.inside.try_shell(status)?)
        });
        wait_until("its tunnel is there meanwhile", 30, || {
            let links = world.router.inside.shell("ip -o link");
            contains(&links, &interface(2))?;
            contains(&aliases(&world).join("\n"), "local/sessions/second")
        });
        wait_until("describe names the first", 20, || {
            told(&second.says(&world, "describe node"))
        });
        world.wait_polls("sessions", 4);
        assert_eq!(bird_files(&world), files);
        assert_eq!(Age::of(&world.neighbours[0]), age);
        drop(second.agent.take());
    }
    contains(&second.log(), "BirdDirectoryInUse")
        .or_else(|_| contains(&second.log(), &identity))
        .unwrap();
    // The first goes on as before: it loads what changes.
    second.run(&world);
    let mut sessions = world.sessions()[..1].to_vec();
    sessions[0]["description"] = json!("changed meanwhile");
    world.control_plane.sessions(&sessions);
    wait_until("the first writes its files", 30, || {
        let texts: Vec<_> = bird_files(&world)
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        contains(&texts.join("\n"), "changed meanwhile")
    });
    assert_eq!(Age::of(&world.neighbours[0]), age);
    // With a BIRD of its own the second works.
    drop(second.agent.take());
    second.prepare(&world, &world.neighbours[1], |config| {
        config["firewall"]["enabled"] = json!(false);
    });
    second.run(&world);
    let own = second.bird.folder.join("moenet/sessions/second.conf");
    wait_until("its own directory has its files", 30, || {
        match own.exists() {
            true => Ok(()),
            false => Err("not yet".into()),
        }
    });
    assert_eq!(Age::of(&world.neighbours[0]), age);
}

/// The addresses on `lo` but those of the machine itself.
fn on_lo(world: &World) -> String {
    let list = world.router.inside.shell("ip -o addr show dev lo");
    let addresses = list
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3));
    let mut addresses: Vec<_> = addresses
        .filter(|address| !["127.0.0.1/8", "::1/128"].contains(address))
        .collect();
    addresses.sort_unstable();
    addresses.join(" ")
}

#[test]
fn only_the_adding_agent_removes_addresses_on_lo() {
    let mut world = World::new(1);
    world
        .router
        .reconfigure(|config| config["loopback"]["interface"] = json!("lo"));
    let inside = &world.router.inside;
    // The operator has one of the node's addresses there already, and one more.
    inside.shell("ip link set lo up && ip addr add 172.23.105.177/32 dev lo && ip addr add 172.20.99.77/32 dev lo");
    world.router.start_agent();
    world.neighbours[0].wait_established(40);
    let record = |world: &World| world.read("applied/node.yaml");
    wait_until("the record names the address that was added", 20, || {
        contains(&record(&world), "loopbackAddresses")?;
        contains(&record(&world), "- fd48:4242:420::1")
    });
    assert_eq!(
        on_lo(&world),
        "172.20.99.77/32 172.23.105.177/32 fd48:4242:420::1/128"
    );
    assert!(
        !record(&world).contains("- 172.23.105.177"),
        "{}",
        record(&world)
    );

    // A crash after the claim and the address, before the record of what is in effect.
    world.router.kill_agent();
    let claimed = record(&world).replace(
        "- fd48:4242:420::1\n",
        "- fd48:4242:420::1\n  - fd42:99::dead\n",
    );
    assert_ne!(claimed, record(&world));
    world.write("applied/node.yaml", &claimed);
    world
        .router
        .inside
        .shell("ip addr add fd42:99::dead/128 dev lo");
    world.router.start_agent();
    wait_until("the address of the crash is gone", 30, || {
        match on_lo(&world).contains("dead") {
            true => Err(on_lo(&world)),
            false => Ok(()),
        }
    });
    assert_eq!(
        on_lo(&world),
        "172.20.99.77/32 172.23.105.177/32 fd48:4242:420::1/128"
    );

    // A second agent with the same addresses comes and goes.
    let ages = world.ages();
    let mut second = Second::new();
    second.prepare(&world, &world.neighbours[0], |config| {
        config["loopback"]["interface"] = json!("lo");
        config["firewall"]["enabled"] = json!(false);
        config["node"]["loopbackIpv4"] = json!("172.23.105.177");
        config["node"]["loopbackIpv6"] = json!("fd48:4242:420::1");
    });
    std::fs::remove_file(second.folder.path().join("state/sessions/second.yaml")).unwrap();
    std::fs::write(second.bird.folder.join("bird.conf"), "protocol device {}\n").unwrap();
    second.bird.start(&world.router.inside);
    second.run(&world);
    let of_second = second.folder.path().join("state/applied/node.yaml");
    wait_until("the second has its record", 40, || {
        contains(
            &std::fs::read_to_string(&of_second).unwrap_or_default(),
            "loopbackAddresses: []",
        )
    });
    drop(second.agent.take());
    second.prepare(&world, &world.neighbours[0], |config| {
        config["loopback"]["interface"] = json!("lo");
        config["firewall"]["enabled"] = json!(false);
        config["node"]["loopbackIpv4"] = json!("172.20.99.9");
        config["node"]["loopbackIpv6"] = json!("fd42:99::9");
    });
    std::fs::remove_file(second.folder.path().join("state/sessions/second.yaml")).unwrap();
    second.run(&world);
    wait_until("the second has other addresses", 40, || {
        contains(&on_lo(&world), "fd42:99::9/128")
    });
    contains(&on_lo(&world), "172.23.105.177/32 ").unwrap();
    contains(&on_lo(&world), "fd48:4242:420::1/128").unwrap();
    assert_eq!(world.ages(), ages);
}
