//! The router under test: a namespace with BIRD and the agent, all their files in one temporary folder.

use super::bird::Bird;
use super::namespace::{Namespace, Process};
use super::wait_until;
use super::wireguard::KeyPair;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

pub(crate) const ASN: u32 = 4_242_420_998;
pub(crate) const ADDRESS: &str = "fe80::998:1";
pub(crate) const PREFIX4: &str = "172.23.105.176/28";
pub(crate) const PREFIX6: &str = "fd48:4242:420::/48";

/// As in `GET config`.
pub(crate) fn node() -> Value {
    json!({"node": {
        "id": 1, "name": "jp1", "region": "ap-northeast", "asn": ASN,
        "loopbackIpv4": "172.23.105.177", "loopbackIpv6": "fd48:4242:420::1"
    }})
}

/// As in `GET bird-config`, without RPKI servers, so that unknown routes are taken.
pub(crate) fn policy() -> Value {
    json!({
        "configHash": "1",
        "node": {
            "id": 1, "name": "jp1", "type": "edge", "bandwidth": "1G", "regionCode": 101,
            "continentLc": "LC_ORIGIN_AS", "subregionLc": "LC_REGION_AS_E",
            "regionCommunity": "DN42_REGION_AS_E", "bandwidthCommunity": "DN42_BW_1G_PLUS"
        },
        "policy": {
            "dn42As": ASN, "dn42Ipv4Prefix": PREFIX4, "dn42Ipv6Prefix": PREFIX6, "rpkiServers": [],
            "rejectUnknownRoa": false, "ebgpImportLimit": 10000, "ebgpExportLimit": 100, "asPathMaxLen": 10
        },
        "ibgpPeers": []
    })
}

/// As `policy`, with these fields of its `policy` instead; `null` takes one away.
pub(crate) fn policy_with(fields: &Value) -> Value {
    let mut whole = policy();
    let policy = whole["policy"].as_object_mut().unwrap();
    for (key, value) in fields.as_object().unwrap() {
        policy.insert(key.clone(), value.clone());
    }
    policy.retain(|_, value| !value.is_null());
    whole
}

pub(crate) fn agent_program() -> PathBuf {
    std::env::var_os("MOENET_AGENT")
        .map_or_else(|| env!("CARGO_BIN_EXE_moenet-agent").into(), PathBuf::from)
}

pub(crate) struct Router {
    pub(crate) keys: KeyPair,
    pub(crate) bird: Bird,
    folder: tempfile::TempDir,
    agent: Option<Process>,
    /// Dropped last: it waits for its programs, of which a stopped one ends only by its own drop.
    pub(crate) inside: Namespace,
}

impl Router {
    pub(crate) fn new(bird_version: &str) -> Self {
        Self::named("router", bird_version)
    }

    /// One of several routers, with a name for error messages.
    pub(crate) fn named(name: &str, bird_version: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bird = Bird::new(bird_version, &folder.path().join("bird"));
        let router = Self {
            inside: Namespace::new(name),
            keys: KeyPair::new(),
            bird,
            folder,
            agent: None,
        };
        let key = router.path("private.key");
        std::fs::write(&key, format!("{}\n", router.keys.private)).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        router
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn loopback(&self) -> &'static str {
        let dummies = self
            .inside
            .try_shell("ip link add probe0 type dummy && ip link del probe0")
            .is_ok();
        if dummies { "dummy0" } else { "lo" }
    }

    /// Writes the configuration: short intervals, all paths in the folder. JSON is YAML.
    pub(crate) fn configure(&self, control_plane_url: &str, sync_interval: u64) {
        self.write_config(&self.config(control_plane_url, sync_interval));
    }

    pub(crate) fn write_config(&self, config: &Value) {
        std::fs::write(self.path("config.yaml"), config.to_string()).unwrap();
    }

    pub(crate) fn config(&self, control_plane_url: &str, sync_interval: u64) -> Value {
        json!({
            "node": {"name": "jp1"},
            "controlPlane": {
                "url": control_plane_url, "token": "lab-token", "requestTimeout": 3, "heartbeatInterval": 1,
                "syncInterval": sync_interval, "meshInterval": 2, "birdConfigInterval": 2, "metricInterval": 1,
                "maxRetries": 1, "retryInitialDelay": 100
            },
            "server": {"listen": "127.0.0.1:24368"},
            "state": {"directory": self.path("state")},
            "bird": {
                "controlSocket": self.bird.socket(), "directory": self.bird.folder,
                "binary": self.bird.program(), "confirmTimeout": 10
            },
            "wireguard": {"privateKeyPath": self.path("private.key"), "persistentKeepaliveInterval": 1},
            "probe": {"interval": 2, "count": 1, "timeout": 1},
            "loopback": {"interface": self.loopback()}
        })
    }

    /// Changes the configuration that `configure` wrote.
    pub(crate) fn reconfigure(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.path("config.yaml");
        let mut config = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        edit(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// Changes the configuration for the agent's next start.
    pub(crate) fn edit_configuration(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.path("config.yaml");
        let mut config = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        edit(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// Starts BIRD on the least configuration it accepts, as a fresh Debian machine has it.
    pub(crate) fn start_bird(&mut self) {
        let config = self.bird.folder.join("bird.conf");
        if !config.exists() {
            std::fs::write(config, "protocol device {}\n").unwrap();
        }
        self.bird.start(&self.inside);
    }

    pub(crate) fn start_agent(&mut self) {
        self.start_agent_with(&[]);
    }

    /// Starts the agent without waiting for it, with more in its environment: `NAME=value`.
    pub(crate) fn spawn_agent(&mut self, environment: &[&str]) {
        let config = self.path("config.yaml").display().to_string();
        let program = agent_program().display().to_string();
        let arguments = [environment, &[&program, "--config", &config, "run"]].concat();
        self.agent = Some(
            self.inside
                .spawn(&self.path("agent.log"), "env".as_ref(), &arguments),
        );
    }

    /// As [`Router::start_agent`], with more in its environment: `NAME=value`.
    pub(crate) fn start_agent_with(&mut self, environment: &[&str]) {
        self.spawn_agent(environment);
        wait_until("the agent answers on its API", 15, || {
            if !self.agent_runs() {
                return Err("the agent ended".into());
            }
            self.inside
                .try_shell("curl -sf http://127.0.0.1:24368/healthz")
                .map(|_| ())
        });
    }

    /// Has the agent stand still while something is done.
    pub(crate) fn with_agent_stopped<R>(&self, done: impl FnOnce() -> R) -> R {
        let agent = self.agent.as_ref().expect("the agent runs");
        agent.signal("-STOP");
        let result = done();
        agent.resume();
        result
    }

    /// The identity of the state directory.
    pub(crate) fn identity(&self) -> String {
        let text = std::fs::read_to_string(self.path("state/identity")).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("identity: "));
        line.expect("an identity").to_owned()
    }

    /// The alias that marks a link as this object's.
    pub(crate) fn mark(&self, object: &str) -> String {
        format!("moenet-agent:2:{}:{object}", self.identity())
    }

    pub(crate) fn agent_runs(&mut self) -> bool {
        self.agent.as_mut().is_some_and(Process::is_running)
    }

    /// Waits until the agent ends by itself, and returns its exit code.
    #[track_caller]
    pub(crate) fn wait_agent_end(&mut self, seconds: u64) -> Option<i32> {
        let agent = self.agent.as_mut().expect("the agent was started");
        wait_until("the agent ends", seconds, || match agent.is_running() {
            true => Err("runs".into()),
            false => Ok(()),
        });
        agent.code()
    }

    pub(crate) fn signal_agent(&self, signal: &str) {
        self.agent.as_ref().expect("the agent runs").signal(signal);
    }

    /// A line of shell that runs a verb of the command line with the agent's configuration.
    pub(crate) fn command(&self, verb: &str) -> String {
        format!(
            "{} --config {} {verb}",
            agent_program().display(),
            self.path("config.yaml").display()
        )
    }

    /// What the agent has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    pub(crate) fn kill_agent(&mut self) {
        self.agent.as_mut().expect("the agent runs").end("-KILL");
    }

    /// Stops the agent as systemd does, and waits until it has ended.
    pub(crate) fn stop_agent(&mut self) {
        self.agent.as_mut().expect("the agent runs").end("-TERM");
    }

    /// Stops the agent where it is while `meanwhile` happens.
    pub(crate) fn while_agent_stands_still(&self, meanwhile: impl FnOnce()) {
        let agent = self.agent.as_ref().expect("the agent runs");
        agent.signal("-STOP");
        meanwhile();
        agent.resume();
    }

    /// The local API: status code and body.
    #[track_caller]
    pub(crate) fn api(&self, arguments: &str, path: &str) -> (u16, String) {
        let line = format!(
            "curl -s -m 20 -w '\\n%{{http_code}}' {arguments} http://127.0.0.1:24368{path}"
        );
        let text = self.inside.shell(&line);
        let (body, code) = text.rsplit_once('\n').unwrap();
        (code.trim().parse().unwrap(), body.into())
    }

    /// The value of a series in `/metrics`, with its labels as they stand there.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let (_, text) = self.api("", "/metrics");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// Everything one wants to see when a test fails.
    fn dump(&self) {
        let show = |what: &str, text: &str| eprintln!("──── {}: {what}\n{text}", self.inside.name);
        show(
            "agent.log",
            &std::fs::read_to_string(self.path("agent.log")).unwrap_or_default(),
        );
        show(
            "bird.log",
            &std::fs::read_to_string(self.path("bird/bird.log")).unwrap_or_default(),
        );
        for request in ["show status", "show protocols all"] {
            show(
                request,
                &self
                    .bird
                    .try_ask(&self.inside, request)
                    .unwrap_or_else(|error| error),
            );
        }
        let state = format!("find {} -type f", self.path("state").display());
        for line in ["ip addr", "wg show", &state] {
            show(
                line,
                &self.inside.try_shell(line).unwrap_or_else(|error| error),
            );
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dump();
        }
    }
}
