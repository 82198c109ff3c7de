//! Routers in network namespaces, with real BIRDs in them. Needs root; without it the tests fail.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::bird;

/// A router: a namespace, and a BIRD in it.
pub(crate) struct Node {
    space: String,
    version: &'static str,
    directory: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = Command::new("ip")
            .args(["netns", "del", &self.space])
            .status();
    }
}

/// Runs a command that must succeed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {said} (these tests need root)",
        arguments.join(" ")
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Node {
    /// A router with a loopback interface that has these addresses.
    pub(crate) fn new(name: &str, version: &'static str, loopbacks: &[&str]) -> Self {
        let space = format!("mr{}-{version}-{name}", std::process::id());
        run("ip", &["netns", "add", &space]);
        let directory = tempfile::tempdir().unwrap();
        let node = Self {
            space,
            version,
            directory,
            daemon: None,
        };
        node.ip(&["link", "set", "lo", "up"]);
        for address in loopbacks {
            node.ip(&["address", "add", address, "dev", "lo"]);
        }
        node
    }

    /// Runs `ip` in the namespace.
    pub(crate) fn ip(&self, arguments: &[&str]) -> String {
        run("ip", &[&["-n", self.space.as_str()], arguments].concat())
    }

    /// A wire between two routers: interface and link-local address of either side.
    pub(crate) fn wire(&self, near: (&str, &str), other: &Self, far: (&str, &str)) {
        let ends = ["type", "veth", "peer", "name", far.0, "netns", &other.space];
        self.ip(&[&["link", "add", near.0][..], &ends].concat());
        for (node, (interface, address)) in [(self, near), (other, far)] {
            node.ip(&["link", "set", interface, "addrgenmode", "none"]);
            node.ip(&[
                "address",
                "add",
                &format!("{address}/64"),
                "dev",
                interface,
                "nodad",
            ]);
            node.ip(&["link", "set", interface, "up"]);
        }
    }

    /// Where the configuration lies.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn socket(&self) -> PathBuf {
        self.directory().join("ctl")
    }

    /// The start of a `bird.conf`.
    pub(crate) fn preamble(&self, router_id: &str) -> String {
        let log = self.directory().join("log");
        format!("log \"{}\" all;\nrouter id {router_id};\n", log.display())
    }

    /// Starts BIRD.
    pub(crate) fn start(&mut self) {
        let program = bird(self.version, "bird");
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.space])
            .arg(program)
            .arg("-f");
        command
            .arg("-c")
            .arg(self.directory().join("bird.conf"))
            .arg("-s")
            .arg(self.socket());
        command.arg("-P").arg(self.directory().join("pid"));
        self.daemon = Some(command.stdout(Stdio::null()).spawn().unwrap());
        let up = || self.ask("show status").contains("Daemon is up and running");
        eventually("BIRD answers", || {
            up().then_some(()).ok_or_else(|| self.log())
        });
    }

    /// Asks BIRD something.
    pub(crate) fn ask(&self, question: &str) -> String {
        let mut command = Command::new(bird(self.version, "birdc"));
        let output = command
            .arg("-s")
            .arg(self.socket())
            .args(question.split(' '))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Has BIRD read its configuration again.
    pub(crate) fn configure(&self) {
        let said = self.ask("configure");
        assert!(said.contains("Reconfigur"), "{said}");
    }

    /// What BIRD logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory().join("log")).unwrap_or_default()
    }

    /// Waits until a protocol is up.
    pub(crate) fn wait_for(&self, protocol: &str) {
        eventually(protocol, || {
            let said = self.ask(&format!("show protocols {protocol}"));
            said.contains("Established")
                .then_some(())
                .ok_or_else(|| said + &self.log())
        });
    }

    /// Since when a protocol is in its state, in seconds since the epoch as `moenet/main.conf` asks for.
    pub(crate) fn since(&self, protocol: &str) -> u64 {
        let said = self.ask(&format!("show protocols {protocol}"));
        said.lines()
            .last()
            .unwrap()
            .split_whitespace()
            .nth(4)
            .unwrap()
            .parse()
            .unwrap()
    }

    /// The routes of a protocol, each with its attributes in one spelling for all versions.
    pub(crate) fn routes(&self, arguments: &str) -> BTreeMap<String, String> {
        let mut routes: BTreeMap<String, String> = BTreeMap::new();
        let mut prefix = String::new();
        for line in self.ask(&format!("show route {arguments} all")).lines() {
            let first = line.split_whitespace().next().unwrap_or_default();
            if !line.starts_with(char::is_whitespace) && first.contains('/') {
                prefix = first.to_owned();
                routes.insert(prefix.clone(), String::new());
            } else if let Some(attributes) = routes.get_mut(&prefix) {
                attributes.push_str(&one_spelling(line.trim()));
                attributes.push('\n');
            }
        }
        routes
    }
}

/// 2.x writes `BGP.local_pref: 5` and `(1,2)`, 3.x `bgp_local_pref: 5` and `(1, 2)`.
fn one_spelling(line: &str) -> String {
    line.replace("BGP.as_path", "bgp_path")
        .replace("BGP.", "bgp_")
        .replace(", ", ",")
}

/// Tries for half a minute; what is still wrong then is the failure.
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    loop {
        match check() {
            Ok(()) => return,
            Err(why) if start.elapsed() > Duration::from_secs(40) => panic!("{what}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
