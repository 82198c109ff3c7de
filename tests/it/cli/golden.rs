//! The texts that operators read, as files below `tests/golden/cli`: help, `get`, `plan`, `describe`, `status`, and
//! the errors for bad input. `UPDATE_GOLDEN=1` writes them again.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use super::{NAME, Router, answer_once};

const VERBS: [&str; 31] = [
    "run",
    "init",
    "plan",
    "adopt",
    "apply",
    "edit",
    "override",
    "pause",
    "resume",
    "get",
    "describe",
    "wait",
    "diff",
    "render",
    "validate",
    "schema",
    "explain",
    "approve",
    "history",
    "events",
    "rollback",
    "doctor",
    "status",
    "sync",
    "restart",
    "maintenance",
    "control-plane",
    "fleet",
    "completions",
    "man",
    "version",
];

/// Documents of operators with common mistakes, each by the name of its session.
const BAD: [(&str, &str); 9] = [
    ("bad-asn", "{asn: 0, tunnel: {publicKey: KEY}}"),
    (
        "bad-endpoint",
        "{asn: 4242420002, tunnel: {endpoint: 'a b:1', publicKey: KEY}}",
    ),
    ("bad-key", "{asn: 4242420003, tunnel: {publicKey: hunter2}}"),
    (
        "bad-mtu",
        "{asn: 4242420004, tunnel: {mtu: 70000, publicKey: KEY}}",
    ),
    ("bad-type", "{asn: AS4242420005, tunnel: {publicKey: KEY}}"),
    ("missing-asn", "{tunnel: {publicKey: KEY}}"),
    (
        "no-address",
        "{asn: 4242420007, tunnel: {publicKey: KEY, listenPort: 20007}}",
    ),
    ("no-yaml", "{asn: ["),
    (
        "unknown-field",
        "{asn: 4242420009, tunnel: {mut: 1400, publicKey: KEY}}",
    ),
];

/// Compares a text with its golden file, or writes the file.
#[track_caller]
fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/cli/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let differs = golden.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert!(
        golden == text,
        "{} differs, first in {differs:#?}\n{text}\nUPDATE_GOLDEN=1 accepts this",
        path.display()
    );
}

impl Router {
    /// Calls the program, and returns the command, its output and the exit code without what differs from host to host:
    /// the test's directory, the uplink, ages, the widths of columns, the sysctls that this kernel has, and
    /// the version of BIRD.
    fn transcript(&self, arguments: &[&str]) -> String {
        let answer = self.call(arguments);
        let mut text = format!("$ moenet-agent {}\n", arguments.join(" "));
        let mut skipped = false;
        for line in answer.out.lines().chain(answer.err.lines()) {
            let reason_of_skipped = skipped && line.starts_with("    because ");
            skipped = line.contains(" set sysctl ") || line.starts_with("note: BIRD ");
            if !skipped && !reason_of_skipped {
                text.push_str(&self.stable(line));
                text.push('\n');
            }
        }
        format!("{text}(exit code {})\n", answer.code)
    }

    fn stable(&self, line: &str) -> String {
        let line = line.replace(&self.dir.path().display().to_string(), "/router");
        if let Some((route, _)) = line.split_once(" is reached from ") {
            return format!("{route} is reached from ADDRESS by LINK");
        }
        let is_count = |count: &str| count.parse::<u32>().is_ok();
        if let Some((rest, count)) = line.rsplit_once("; and ")
            && count.strip_suffix(" more").is_some_and(is_count)
        {
            return self.stable(&format!("{rest}; and N more"));
        }
        let indent = line.len() - line.trim_start().len();
        let cells = line.trim().split("  ").map(str::trim);
        let cells = cells.filter(|cell| !cell.is_empty()).map(|cell| {
            let age = cell.strip_suffix(['s', 'm', 'h', 'd']);
            let is_age = age.is_some_and(|age| age.parse::<u32>().is_ok());
            if is_age { "AGE" } else { cell }
        });
        let cells: Vec<_> = cells.collect();
        format!("{}{}", " ".repeat(indent), cells.join("  "))
    }

    fn session(&self, name: &str, spec: &str) {
        let spec = spec.replace("KEY", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=");
        let text = format!(
            "apiVersion: moenet.work/v1\nkind: BgpSession\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        );
        fs::write(self.state(&format!("sessions/{name}.yaml")), text).unwrap();
    }

    fn overrides(&self, name: &str, spec: &str) {
        let text = format!(
            "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        );
        fs::write(self.state(&format!("overrides/sessions/{name}.yaml")), text).unwrap();
    }
}

/// A router with a session in each state that needs no daemon and no BIRD: overridden, paused, disabled, invalid, and
/// an override without a document.
fn router() -> Router {
    let router = Router::new();
    router.with_bird();
    router.with_key();
    router.with_addresses();
    let peer = |asn: u32, more: &str| {
        format!(
            "{{asn: {asn}, {more} address: {{peerLinkLocal: 'fe80::{}'}}, tunnel: {{listenPort: {}, publicKey: KEY}}}}",
            asn % 1000,
            20000 + asn % 1000
        )
    };
    router.session("wg_paused", &peer(4242420101, ""));
    router.overrides(
        "wg_paused",
        "{reason: the cable is being replaced, paused: true}",
    );
    router.session("wg_disabled", &peer(4242420102, "adminState: Disabled,"));
    router.session("wg_invalid", &peer(0, ""));
    router.overrides(
        "wg_missing",
        "{reason: made before the peer, set: {tunnel: {mtu: 1400}}}",
    );
    router
}

fn transcripts(router: &Router, calls: &[&[&str]]) -> String {
    let texts: Vec<_> = calls.iter().map(|call| router.transcript(call)).collect();
    texts.join("\n")
}

#[test]
fn version_names_build_and_supported_bird() {
    let router = Router::new();
    let build = router.call(&["version", "-o", "json"]).json();
    let word = |key: &str| build[key].as_str().unwrap().to_owned();
    let commit = word("commit");
    let is_hash = commit.len() == 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_hash || commit == "unknown", "{commit}");
    let mut text = router.call(&["version"]).out;
    for (key, placeholder) in [
        ("version", "VERSION"),
        ("commit", "COMMIT"),
        ("target", "TARGET"),
    ] {
        text = text.replace(&word(key), placeholder);
    }
    check("version", &text);
}

#[test]
fn explanations_of_fields_are_golden() {
    let router = Router::new();
    let calls: &[&[&str]] = &[
        &["explain", "bgpsession.tunnel.mtu"],
        &["explain", "BgpSession.spec.tunnel"],
        &["explain", "config.wireguard.backend"],
        &["explain", "config.guard", "-o", "json"],
        &["explain", "status.phase"],
        &["explain", "sessions.tunnel.mut"],
        &["explain", "bgpsession.tunnel.mtu.more"],
        &["explain", "nothing"],
    ];
    check("explain", &transcripts(&router, calls));
}

#[test]
fn help_of_every_verb_is_golden() {
    let router = Router::new();
    let help = |arguments: &[&str]| {
        let answer = router.call(arguments);
        assert_eq!(answer.code, 0, "{}", answer.err);
        let version = env!("CARGO_PKG_VERSION");
        answer.out.replace(version, "VERSION")
    };
    check("help/moenet-agent", &help(&["--help"]));
    for verb in VERBS {
        check(&format!("help/{verb}"), &help(&[verb, "--help"]));
    }
    check(
        "help/fleet-validate",
        &help(&["fleet", "validate", "--help"]),
    );
    let listed = help(&["-h"]);
    let listed = listed
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    let listed: Vec<_> = listed
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let verbs: Vec<_> = VERBS.into_iter().chain(["help"]).collect();
    assert_eq!(listed, verbs);
}

#[test]
fn get_plan_and_diff_are_golden() {
    let router = router();
    let calls: [&[&str]; 5] = [
        &["get"],
        &["get", "overrides"],
        &["plan", NAME, "wg_paused", "wg_disabled", "wg_invalid"],
        &["diff", NAME],
        &["validate"],
    ];
    check("objects", &transcripts(&router, &calls));
}

#[test]
fn describe_is_golden() {
    let router = router();
    let calls: [&[&str]; 5] = [
        &["describe", NAME],
        &["describe", "wg_paused"],
        &["describe", "wg_disabled"],
        &["describe", "wg_invalid"],
        &["describe", "node"],
    ];
    check("describe", &transcripts(&router, &calls));
}

#[test]
fn status_is_golden() {
    let body = r#"{"status":"degraded","version":"1.0.0","commit":"abcdef0","uptime":90061,
        "node":{"id":1,"name":"jp1","region":"ap-northeast"},
        "sessions":{"total":4,"active":2,"error":1,"pending":1},"circuitBreaker":"closed",
        "bgp":{"established":2,"active":1},"bird":{"running":true,"version":"2.17.1"},
        "maintenance":{"enabled":true,"since":"2026-11-23T00:00:00Z"},
        "lastSync":{"sessions":{"lastSuccess":"2026-11-23T00:00:00Z","consecutiveFailures":0},
          "mesh":{"lastSuccess":null,"consecutiveFailures":3,"lastError":"connection refused"}},
        "reasons":["sessions/wg_1: BgpEstablished=False (Down)"],
        "waiting":[{"object":"node","waitsFor":"BIRD is not running (/run/bird.ctl)","action":"start BIRD"}],
        "overrides":[{"object":"sessions/wg_1","reason":"PPPoE","paused":true,
          "fields":[{"field":"spec.tunnel.mtu","value":1380,"document":1420}]}],"overridesTotal":3,
        "held":[{"object":"sessions/wg_2","change":"removal","reason":"every session would go"}],
        "notices":["BIRD reads bird.local, which the agent did not write"]}"#;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let router = Router::listening(&listener.local_addr().unwrap().to_string());
    let server = answer_once(listener, "200 OK", body);
    let status = router.transcript(&["status"]);
    server.join().unwrap();
    check("status", &status);
}

#[test]
fn errors_for_bad_input_are_golden() {
    let router = Router::new();
    router.with_bird();
    router.with_key();
    router.with_addresses();
    for (name, spec) in BAD {
        router.session(name, spec);
    }
    router.overrides("bad-asn", "{set: {tunnel: {mtu: 1400}}}");
    router.overrides(NAME, "{reason: '', expiresAt: tomorrow}");
    let calls: [&[&str]; 8] = [
        &["validate"],
        &["get", "wg_424242108"],
        &["get", "overrides", "nothing"],
        &["describe", "hk1"],
        &["render", "node"],
        &["rollback", NAME],
        &["approve", "node"],
        &["status"],
    ];
    let mut text = transcripts(&router, &calls);
    for (old, new) in [
        ("id: 1,", "id: 0,"),
        ("token: t0ken", "token: t0ken, lisen: x"),
        ("state: {", "guard: {window: soon}\nstate: {"),
    ] {
        let path = router.dir.path().join("config.yaml");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(&path, config.replace(old, new)).unwrap();
        text.push_str(&format!(
            "\n# config.yaml: {new:?}\n{}",
            router.transcript(&["get"])
        ));
        fs::write(&path, config).unwrap();
    }
    check("errors", &text);
}
