//! A network namespace a test, and the test binary run again inside of it.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Set inside; its value is the name of the namespace.
const INSIDE: &str = "MOENET_TEST_NAMESPACE";
/// Which run inside a namespace this is, for tests about restarts.
const STAGE: &str = "MOENET_TEST_STAGE";
/// A stand-in for the secrets in the agent's environment.
pub(crate) const TOKEN: &str = "MOENET_TEST_TOKEN";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace that goes, with all its links, when the value is dropped.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let name = format!(
            "moe-k-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        ip(&["netns", "add", &name]);
        Self(name)
    }

    /// Runs one test of this binary inside, and fails with what it printed.
    fn run(&self, test: &str, stage: u32) {
        let binary = std::env::current_exe().unwrap();
        let output = Command::new("ip")
            .args(["netns", "exec", &self.0])
            .arg(binary)
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, &self.0)
            .env(STAGE, stage.to_string())
            .env(TOKEN, "hunter2")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "{test}, run {stage}:\n{stdout}\n{stderr}"
        );
        assert!(
            stdout.contains("1 passed"),
            "{test} did not run inside:\n{stdout}"
        );
    }
}

impl Drop for Namespace {
    /// A userspace WireGuard holds its namespace until its link is deleted.
    fn drop(&mut self) {
        let links = Command::new("ip")
            .args(["-n", &self.0, "-brief", "link"])
            .output();
        let links = links.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        for line in links.unwrap_or_default().lines() {
            let name = line.split([' ', '@']).next().unwrap_or_default();
            if name != "lo" {
                let _ = Command::new("ip")
                    .args(["-n", &self.0, "link", "delete", name])
                    .output();
            }
        }
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.0])
            .output();
    }
}

/// Runs the body in a namespace of its own, `runs` times, each time in a new process. The body gets
/// the number of the run.
pub(crate) fn inside<F: Future<Output = ()>>(test: &str, runs: u32, body: impl FnOnce(u32) -> F) {
    if std::env::var_os(INSIDE).is_none() {
        require();
        let namespace = Namespace::new();
        (0..runs).for_each(|stage| namespace.run(test, stage));
        return;
    }
    let stage = std::env::var(STAGE).unwrap().parse().unwrap();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(body(stage));
}

fn require() {
    let root =
        std::fs::metadata("/proc/self").map(|facts| std::os::unix::fs::MetadataExt::uid(&facts));
    assert_eq!(
        root.unwrap(),
        0,
        "these tests make network namespaces: run them as root"
    );
    for (program, package) in [("ip", "iproute2"), ("wireguard-go", "wireguard-go")] {
        let path = std::env::var_os("PATH").unwrap();
        let found = std::env::split_paths(&path).any(|folder| folder.join(program).exists());
        assert!(
            found,
            "these tests need the program {program}: apt-get install {package}"
        );
    }
}

/// Runs `ip`, which must succeed.
pub(crate) fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(
        output.status.success(),
        "ip {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An interface name that is unique over all namespaces, as the sockets of userspace WireGuard share
/// one folder.
pub(crate) fn name(suffix: &str) -> moenet_agent::model::InterfaceName {
    let namespace = std::env::var(INSIDE).unwrap();
    format!("{}{suffix}", namespace.replace("moe-k-", "k"))
        .parse()
        .unwrap()
}
