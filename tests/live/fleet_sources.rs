//! The description of a network in files and in a Git repository, with a real agent as the client.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::lab::cli;
use crate::lab::hands::{Age, document_of};
use crate::lab::namespace::Process;
use crate::lab::router::{ASN, agent_program};
use crate::lab::world::World;
use crate::lab::{contains, wait_until};
use crate::network::{add_router, write};

const LISTEN: &str = "127.0.0.1:8080";

/// A network of one router, and its agent, which asks for changes and polls once an hour.
struct Network {
    world: World,
    dir: PathBuf,
    serving: Option<Process>,
}

impl Network {
    fn new(neighbours: u32) -> Self {
        let world = World::new(neighbours);
        let dir = world.router.path("fleet");
        std::fs::create_dir_all(&dir).unwrap();
        let prefixes = json!({"ipv4": "172.23.105.176/28", "ipv6": "fd48:4242:420::/48"});
        let policy = json!({"rejectUnknownRoa": false, "rpkiServers": []});
        let network = json!({"asn": ASN, "prefixes": prefixes, "policy": policy});
        write(&dir, "network.yaml", &network);
        add_router(&dir, 1, "jp1");
        for (number, session) in (1..).zip(world.sessions()) {
            write_session(&dir, number, &session);
        }
        Self {
            world,
            dir,
            serving: None,
        }
    }

    /// Starts the server and the agent.
    fn start(&mut self, options: &[&str]) {
        let dir = self.dir.to_str().unwrap();
        let arguments = ["control-plane", "--fleet", dir, "--listen", LISTEN];
        let arguments = [&arguments[..], options].concat();
        let router = &self.world.router;
        let log = router.path("fleet.log");
        self.serving = Some(router.inside.spawn(&log, &agent_program(), &arguments));
        wait_until("the embedded Control Plane answers", 10, || {
            let look = format!("curl -s http://{LISTEN}/");
            router.inside.try_shell(&look).map(drop)
        });
        router.configure(&format!("http://{LISTEN}"), 3600);
        router.reconfigure(|config| {
            for list in ["configInterval", "meshInterval", "birdConfigInterval"] {
                config["controlPlane"][list] = json!(3600);
            }
        });
        self.world.router.start_agent();
        self.world.wait_established();
    }

    fn session(&self, number: u32) -> Value {
        self.world.sessions().remove(number as usize - 1)
    }

    /// Waits until the agent has a document with a text, and returns when it was written.
    fn wait_document(&self, number: u32, text: &str) -> SystemTime {
        let path = self.world.state(&document_of(number));
        wait_until(&format!("{} has {text}", path.display()), 40, || {
            let found = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
            contains(&found, text)
        });
        written(&path)
    }

    /// Returns what a verb on the fleet prints.
    fn ask(&self, arguments: &[&str]) -> String {
        let fleet = ["--fleet", self.dir.to_str().unwrap()];
        let answer = cli::agent(&self.world.router, &[arguments, &fleet].concat());
        answer.out + &answer.err
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=Alice", "-c", "user.email=a@example.net"])
            .args(arguments)
            .current_dir(&self.dir);
        cli::answer(&mut git).ended(0).out
    }

    fn commit(&self, subject: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", subject]);
    }

    fn wait_session(&self, number: usize, is_up: bool) {
        wait_until(&format!("session {number} is up: {is_up}"), 40, || {
            let session = self.world.neighbours[number - 1].session()?;
            match session.contains("Established") == is_up {
                true => Ok(()),
                false => Err(session),
            }
        });
    }
}

fn write_session(dir: &Path, number: u32, session: &Value) {
    write(dir, &format!("sessions/jp1/s{number}.yaml"), session);
}

fn written(path: &Path) -> SystemTime {
    std::fs::metadata(path).unwrap().modified().unwrap()
}

#[test]
fn changed_file_is_a_document_within_two_seconds() {
    let mut network = Network::new(1);
    network.start(&[]);
    let mut session = network.session(1);
    // The times of the two files say how long it took; a busy machine may delay some of the edits.
    let took = [1400, 1410, 1390].map(|mtu| {
        session["mtu"] = json!(mtu);
        write_session(&network.dir, 1, &session);
        let edited = written(&network.dir.join("sessions/jp1/s1.yaml"));
        let arrived = network.wait_document(1, &format!("mtu: {mtu}"));
        arrived.duration_since(edited).unwrap()
    });
    let fastest = took.iter().min().unwrap();
    assert!(*fastest <= Duration::from_secs(2), "{took:?}");
}

#[test]
fn commits_reach_the_router_and_a_revert_undoes_one() {
    let mut network = Network::new(2);
    network.git(&["init", "-q", "-b", "main"]);
    network.commit("Begin");
    network.start(&["--git-ref", "main"]);
    let before = Age::of(&network.world.neighbours[0]);

    let mut other = network.session(2);
    other["status"] = json!(0);
    write_session(&network.dir, 2, &other);
    network.commit("Disable the second session");
    network.wait_session(2, false);

    std::fs::write(network.dir.join("sessions/jp1/s1.yaml"), "mtu: 1400\n").unwrap();
    network.commit("Break the first session");
    wait_until("the bad commit is refused", 30, || {
        contains(&network.ask(&["fleet", "get"]), "sessions/jp1/s1.yaml")
    });
    network.wait_session(2, false);

    let revert = ["revert", "--no-edit", "HEAD", "HEAD~1"];
    network.git(&revert);
    network.wait_session(2, true);
    assert_eq!(Age::of(&network.world.neighbours[0]), before);

    let history = network.ask(&["fleet", "history", "jp1", "-o", "json"]);
    let history: Value = serde_json::from_str(&history).unwrap();
    let served = history["served"].as_array().unwrap().iter();
    let sessions = served.filter(|served| served["list"] == "sessions");
    let subjects = sessions.map(|served| served["commit"]["subject"].as_str().unwrap());
    let reverted = "Revert \"Disable the second session\"";
    let wanted = ["Begin", "Disable the second session", reverted];
    assert_eq!(subjects.collect::<Vec<_>>(), wanted);
}
