//! Applying an adoption: the watch, its undo, and what a kill leaves.

mod earlier;
mod undo;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::{Built, DEVICE, GO_AGENT, ONE_FILE, Style, WIKI, configuration};
use crate::lab::cli::{Answer, agent, answer};
use crate::lab::router::{self, agent_program};
use crate::lab::wireguard::KeyPair;
use crate::lab::{contains, wait_until};
use serde_json::json;

impl Built {
    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let path = |name: &str| self.router.path(name).display().to_string();
        let all = [
            "adopt".to_owned(),
            "--wg-quick".to_owned(),
            path("wireguard"),
            "--networkd".to_owned(),
            path("networkd"),
        ];
        let more = more.iter().map(|it| (*it).to_owned());
        all.into_iter().chain(more).collect()
    }

    pub(super) fn apply(&self, more: &[&str]) -> Answer {
        let arguments = self.arguments(more);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        agent(&self.router, &arguments)
    }

    /// Everything that an undo restores: files, links, sysctls, nftables.
    fn whole(&self) -> String {
        let folder = self.router.path("").display().to_string();
        let lines = [
            format!(
                "cd {folder} && find . -type f -not -name '*.log' -not -name 'agent.*' -not -path './state.undone-*' -not -path './state/.undone-*' | sort | xargs sha256sum"
            ),
            format!(
                "cd {folder} && find . -not -name '*.log' -not -name 'agent.*' -not -path './state.undone-*' -not -path './state/.undone-*' -printf '%p %m %U %G\\n' | sort"
            ),
            "ip -d addr show".to_owned(),
            format!("cat /sys/class/net/{DEVICE}/ifalias"),
            format!(
                "(wg show {DEVICE} allowed-ips; wg show {DEVICE} endpoints; wg show {DEVICE} persistent-keepalive) | sort"
            ),
            format!(
                "wg show {DEVICE} listen-port; wg show {DEVICE} private-key; wg show {DEVICE} preshared-keys | sort"
            ),
            format!(
                "grep -s . /proc/sys/net/ipv[46]/conf/{DEVICE}/* /proc/sys/net/ipv[46]/conf/all/* || true"
            ),
            "ip route; ip -6 route".to_owned(),
            "nft list ruleset || true".to_owned(),
        ];
        let text = lines
            .map(|line| self.router.inside.shell(&line))
            .join("\n────\n");
        // BIRD's routes follow the sessions, which tests compare by themselves.
        let lines = text.lines().filter(|line| !line.contains("proto bird"));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[track_caller]
    fn is_adopted(&self) {
        let alias = format!("cat /sys/class/net/{DEVICE}/ifalias");
        contains(&self.router.inside.shell(&alias), "moenet-agent:2:").unwrap();
        let document = self.router.path(&format!("state/sessions/{DEVICE}.yaml"));
        self.router
            .inside
            .shell(&format!("test -f {}", document.display()));
    }

    #[track_caller]
    fn wait_adopted(&self) {
        wait_until("the link carries the agent's mark", 30, || {
            let alias = format!("cat /sys/class/net/{DEVICE}/ifalias");
            contains(&self.router.inside.try_shell(&alias)?, "moenet-agent:2:")
        });
    }
}

#[track_caller]
fn same(before: &str, after: &str) {
    let differ = before
        .lines()
        .zip(after.lines())
        .find(|(one, other)| one != other);
    assert_eq!(before, after, "the first difference: {differ:?}");
}

fn is_adopted_and_undone(style: &Style) {
    let mut built = Built::new(style);
    let (before, state, routes) = (built.whole(), built.state(), built.routes());
    built
        .apply(&["--watch", "3s"])
        .ended(0)
        .says("watching 1 session with 4 prefixes, and 1 tunnel");
    built.is_adopted();
    assert_eq!(
        (built.state(), built.routes()),
        (state.clone(), routes.clone())
    );
    built.router.start_agent();
    let name = format!("sessions/{DEVICE}");
    wait_until("the agent has nothing to do for the tunnel", 30, || {
        let plan = agent(&built.router, &["plan", &name]).out;
        match plan.contains("set WireGuard") || plan.contains("mark ") {
            true => Err(plan),
            false => Ok(()),
        }
    });
    built.apply(&["--undo"]).ended(1);
    built.router.stop_agent();
    built.apply(&["--undo"]).ended(0).says("Adoption undone");
    same(&before, &built.whole());
    // What was written since, and the history, are kept aside.
    let folder = built.router.path("").display().to_string();
    let aside = format!("ls {folder}/state.undone-*/sessions/{DEVICE}.yaml");
    built.router.inside.shell(&aside);
    assert_eq!((built.state(), built.routes()), (state, routes));
    built.apply(&["--undo"]).ended(1).says("nothing to undo");
}

#[test]
fn go_agents_router_is_adopted_and_undone() {
    is_adopted_and_undone(&GO_AGENT);
}

#[test]
fn wiki_router_is_adopted_and_undone() {
    is_adopted_and_undone(&WIKI);
}

#[test]
fn router_with_one_file_is_adopted_and_undone() {
    is_adopted_and_undone(&ONE_FILE);
}

/// With the time of production: the watch lasts 60 s.
#[test]
fn withdrawn_half_of_the_prefixes_undoes_everything() {
    let built = Built::new(&WIKI);
    let (before, state) = (built.whole(), built.state());
    std::thread::scope(|scope| {
        let adopting = scope.spawn(|| built.apply(&[]));
        built.wait_adopted();
        std::thread::sleep(Duration::from_secs(30));
        built.is_adopted();
        built.neighbour.ask_bird("disable says1");
        let answer = adopting.join().unwrap().ended(1);
        answer.says("session peer1 imports 2 prefixes instead of 4");
        answer.says("every change is undone");
    });
    same(&before, &built.whole());
    assert_eq!(built.state(), state);
}

/// The session would end only after its hold time of 240 s.
#[test]
fn silent_tunnel_undoes_everything() {
    let built = Built::new(&WIKI);
    let (before, state) = (built.whole(), built.state());
    let drop = "nft add table inet silence; nft add chain inet silence in '{ type filter hook input priority 0; }'; \
        nft add rule inet silence in iifname wg0 drop";
    for (silence, end) in [
        ("ip link set u0 down", "ip link set u0 up"),
        // Keepalives of WireGuard pass.
        (drop, "nft delete table inet silence"),
    ] {
        std::thread::scope(|scope| {
            let adopting = scope.spawn(|| built.apply(&[]));
            built.wait_adopted();
            built.neighbour.inside.shell(silence);
            let answer = adopting.join().unwrap().ended(1);
            answer.says(&format!("nothing came through the tunnel {DEVICE}"));
            answer.says("every change is undone");
        });
        built.neighbour.inside.shell(end);
        same(&before, &built.whole());
        assert_eq!(built.state(), state);
    }
}

#[test]
fn lost_session_undoes_everything() {
    let built = Built::new(&GO_AGENT);
    let before = built.whole();
    std::thread::scope(|scope| {
        let adopting = scope.spawn(|| built.apply(&["--watch", "60s", "--max-prefix-loss", "100"]));
        built.wait_adopted();
        built.neighbour.ask_bird("disable moe_router");
        adopting
            .join()
            .unwrap()
            .ended(1)
            .says("is not established any more");
    });
    same(&before, &built.whole());
}

#[test]
fn bird_that_ends_undoes_everything() {
    let built = Built::new(&GO_AGENT);
    let before = built.whole();
    std::thread::scope(|scope| {
        let adopting = scope.spawn(|| built.apply(&["--watch", "60s"]));
        built.wait_adopted();
        let pid = built.router.path("bird/bird.pid");
        built
            .router
            .inside
            .shell(&format!("kill -9 $(cat {})", pid.display()));
        adopting
            .join()
            .unwrap()
            .ended(1)
            .says("the sessions cannot be watched: BIRD is not running");
    });
    same(&before, &built.whole());
}

impl Built {
    /// Kills an adoption in the tenth second of its watch.
    fn kill_in_the_middle(&self) {
        let program = agent_program().display().to_string();
        let config = self.router.path("config.yaml").display().to_string();
        let mut arguments = vec![program, "--config".to_owned(), config];
        arguments.extend(self.arguments(&[]));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let log = self.router.path("agent.adopt");
        let mut adopting = self.router.inside.spawn(&log, "env".as_ref(), &arguments);
        self.wait_adopted();
        wait_until("the watch has begun", 30, || {
            contains(
                &std::fs::read_to_string(&log).unwrap(),
                "watching 1 session ",
            )
        });
        std::thread::sleep(Duration::from_secs(10));
        adopting.end("-KILL");
    }
}

#[test]
fn killed_adoption_is_undone_by_the_next() {
    let built = Built::new(&WIKI);
    let (before, state) = (built.whole(), built.state());
    built.kill_in_the_middle();
    built.is_adopted();
    built.apply(&["--plan"]).ended(1).says("adopt --undo");
    built.apply(&["--undo"]).ended(0);
    same(&before, &built.whole());
    built.kill_in_the_middle();
    built
        .apply(&["--watch", "2s"])
        .ended(0)
        .says("was undone first");
    built.is_adopted();
    built.apply(&["--undo"]).ended(0);
    same(&before, &built.whole());
    assert_eq!(built.state(), state);
}

#[test]
fn starting_agent_undoes_a_killed_adoption() {
    let mut built = Built::new(&GO_AGENT);
    let state = built.state();
    built.kill_in_the_middle();
    built.router.start_agent();
    contains(&built.router.log(), "undoing an interrupted adoption").unwrap();
    let alias = format!("cat /sys/class/net/{DEVICE}/ifalias");
    assert_eq!(built.router.inside.shell(&alias).trim(), "");
    assert!(
        !built
            .router
            .path(&format!("state/sessions/{DEVICE}.yaml"))
            .exists()
    );
    assert_eq!(built.state(), state);
}

#[test]
fn signal_during_the_watch_undoes_everything() {
    let built = Built::new(&WIKI);
    let before = built.whole();
    for signal in ["-TERM", "-HUP"] {
        let script = format!(
            "{} & pid=$!; for i in $(seq 100); do grep -qs moenet /sys/class/net/{DEVICE}/ifalias && break; sleep 0.1; \
             done; sleep 1; kill {signal} $pid; wait $pid",
            built
                .router
                .command(&built.arguments(&["--watch", "60s"]).join(" "))
        );
        let failed = built.router.inside.try_shell(&script).unwrap_err();
        contains(&failed, "interrupted by a signal").unwrap();
        same(&before, &built.whole());
    }
}

#[test]
fn fleet_files_serve_what_runs_and_are_adopted() {
    let built = Built::new(&WIKI);
    let fleet = built.router.path("agent.fleet").display().to_string();
    let state = built.state();
    let answer = built.apply(&["--fleet", &fleet]).ended(0);
    answer.says("no field for tunnel.adopt");
    answer.says("jp1/bird-config.yaml");
    assert!(!built.router.path("state").exists());
    built
        .apply(&["--fleet", &fleet])
        .ended(1)
        .says("exists already");
    let folder = built.router.path("agent.fleet/jp1");
    let policy = router::policy().to_string();
    std::fs::write(folder.join("bird-config.yaml"), policy).unwrap();
    agent(&built.router, &["fleet", "validate", &fleet]).ended(0);
    let text = std::fs::read_to_string(folder.join("router.yaml")).unwrap();
    let token = text
        .lines()
        .find_map(|line| line.strip_prefix("token: "))
        .unwrap();
    let mut config = built.router.config("http://127.0.0.1:24369", 60);
    config["controlPlane"]["token"] = json!(token.trim_matches(['"', '\'']));
    built.router.write_config(&config);
    let program = agent_program().display().to_string();
    let arguments = [
        &program,
        "control-plane",
        "--fleet",
        &fleet,
        "--listen",
        "127.0.0.1:24369",
    ];
    let log = built.router.path("agent.control-plane");
    let mut serving = built.router.inside.spawn(&log, "env".as_ref(), &arguments);
    wait_until("the Control Plane listens", 20, || {
        let call = "curl -s -o /dev/null http://127.0.0.1:24369/";
        built.router.inside.try_shell(call).map(drop)
    });
    let answer = built.apply(&["--watch", "1s"]).ended(0);
    answer.says("1 override, 0 link re-creations, 0 other interruptions, 0 BGP resets.");
    built.is_adopted();
    assert_eq!(built.state(), state);
    serving.end("-TERM");
}

/// A router that must be refused: one interface for two peers, and nothing else that could be taken over.
#[test]
fn interface_with_two_peers_is_refused() {
    let built = Built::new(&GO_AGENT);
    let other = KeyPair::new().public;
    built
        .router
        .inside
        .shell(&format!("wg set {DEVICE} peer {other}"));
    let (before, state) = (built.whole(), built.state());
    let refused = built.apply(&["--yes"]).ended(1);
    refused.says("exactly one peer");
    refused.says("nothing was changed: there is nothing to take over");
    same(&before, &built.whole());
    assert_eq!(built.state(), state);
}

/// A change of the private key could not be undone.
#[test]
fn interface_with_another_key_is_refused_even_with_consent() {
    let built = Built::new(&GO_AGENT);
    std::fs::write(built.router.path("private.key"), KeyPair::new().private).unwrap();
    let before = built.whole();
    for more in [&[][..], &["--yes"]] {
        let refused = built.apply(more).ended(1);
        refused.says("so this one stays");
        refused.says("nothing was changed: there is nothing to take over");
    }
    same(&before, &built.whole());
}

impl Built {
    /// Runs `adopt` with a program of this name before all others.
    fn with_program(&self, name: &str, text: &str, more: &[&str]) -> Answer {
        let folder = self.router.path("programs");
        std::fs::create_dir_all(&folder).unwrap();
        let program = folder.join(name);
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = self.router.inside.command(agent_program());
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        command.arg("--config").arg(self.router.path("config.yaml"));
        answer(command.args(self.arguments(more)).env("PATH", path))
    }
}

/// The links are marked by then.
#[test]
fn failed_step_of_the_pass_undoes_everything() {
    let built = Built::new(&WIKI);
    let nft = "#!/bin/sh\ncase \"$*\" in *list*) exec /usr/sbin/nft \"$@\";; esac\necho no space >&2; exit 1\n";
    let mut config = configuration(&built.router);
    config["firewall"] = json!({"enabled": true});
    built.router.write_config(&config);
    built.with_program("nft", nft, &["--plan"]).ended(0);
    let before = built.whole();
    let refused = built.with_program("nft", nft, &["--watch", "1s"]).ended(1);
    refused.says("a step of the pass failed: firewall: ");
    refused.says("no space");
    refused.says("every change is undone");
    same(&before, &built.whole());
}

/// Units are disabled with consent, together, and only once systemd starts the agent; an undo enables them. It names those that
/// the operator has disabled since.
#[test]
fn units_are_disabled_only_beside_an_enabled_agent() {
    let built = Built::new(&GO_AGENT);
    let calls = built.router.path("agent.calls");
    let enabled = built.router.path("agent.enabled");
    let by_hand = built.router.path("agent.disabled");
    let text = format!(
        "#!/bin/sh\necho \"$@\" >>{}\ncase \"$*\" in *moenet-agent*) test -e {};; is-enabled*) test ! -e {};; esac\n",
        calls.display(),
        enabled.display(),
        by_hand.display()
    );
    // The program is there before and after.
    built.with_program("systemctl", &text, &["--plan"]).ended(0);
    let before = built.whole();
    let unit = format!("wg-quick@{DEVICE}.service");
    let asked = format!("is-enabled --quiet {unit}\n");
    let agent = "is-enabled --quiet moenet-agent.service\n";
    let run = |more: &[&str], says: &str, called: &str| {
        std::fs::write(&calls, "").unwrap();
        built
            .with_program("systemctl", &text, more)
            .ended(0)
            .says(says);
        assert_eq!(std::fs::read_to_string(&calls).unwrap(), called);
    };
    let advice = format!("then run `systemctl disable {unit}`");
    run(&["--watch", "1s"], &advice, &asked);
    std::fs::write(&by_hand, "").unwrap();
    let kept = format!(
        "left alone: units were enabled before the adoption and are disabled now; `systemctl enable {unit}`"
    );
    run(&["--undo"], &kept, &asked);
    std::fs::remove_file(&by_hand).unwrap();
    run(
        &["--watch", "1s", "--yes"],
        &advice,
        &format!("{asked}{agent}"),
    );
    run(&["--undo"], "Adoption undone.", &asked);
    std::fs::write(&enabled, "").unwrap();
    let disabled = format!("{asked}{agent}disable --quiet {unit}\n");
    let done = format!("ran `systemctl disable {unit}`");
    run(&["--watch", "1s", "--yes"], &done, &disabled);
    let done = format!("ran `systemctl enable {unit}`");
    run(&["--undo"], &done, &format!("enable --quiet {unit}\n"));
    std::fs::remove_file(&enabled).unwrap();
    std::fs::remove_file(&calls).unwrap();
    same(&before, &built.whole());
}
