//! `validate`, as the counterpart of `run`: the same complaints in the same words, and all of them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use super::{NAME, Router, call};
use crate::support::unreadable::UNREADABLE;

impl Router {
    fn configure(&self, edit: impl FnOnce(String) -> String) {
        let path = self.dir.path().join("config.yaml");
        fs::write(&path, edit(fs::read_to_string(&path).unwrap())).unwrap();
    }

    /// The error of `run`, which ends at once.
    fn run_error(&self) -> String {
        let config = self.dir.path().join("config.yaml");
        // An agent that starts is ended, and fails the test.
        let mut command = Command::new("timeout");
        command
            .args(["20", env!("CARGO_BIN_EXE_moenet-agent"), "run", "--config"])
            .arg(config);
        let answer = call(&mut command);
        assert_eq!(answer.code, 1, "{}{}", answer.out, answer.err);
        let error = answer.err.lines().find_map(|line| {
            line.strip_prefix("error: ")
                .or(line.starts_with('/').then_some(line))
        });
        error.unwrap_or_else(|| panic!("{}", answer.err)).to_owned()
    }
}

#[test]
fn unknown_log_level_is_refused_by_validate_and_run() {
    let router = Router::new();
    router.configure(|text| format!("{text}log:\n  level: loud\n"));
    let error = router.run_error();
    let wanted = "config.yaml:7:10: log.level: invalid log level \"loud\": use one of off, error, warn, info, debug, trace";
    assert!(error.contains(wanted), "{error}");
    router.call(&["validate"]).says(1, &error);
    let file = router.dir.path().join("config.yaml").display().to_string();
    router.call(&["validate", &file]).says(1, &error);
}

#[test]
fn file_without_a_mapping_is_named_with_its_line() {
    let router = Router::new();
    let path = router.dir.path().join("some.yaml");
    let place = |line: u8| format!("some.yaml:{line}:1: expected a mapping");
    for text in ["null", "[1, 2]", "a text", "# first\n- 1"] {
        fs::write(&path, format!("{text}\n")).unwrap();
        let line = if text.starts_with('#') { 2 } else { 1 };
        let file = path.to_str().unwrap();
        router.call(&["validate", file]).says(1, &place(line));
        router.call(&["apply", "-f", file]).says(1, &place(line));
    }
    fs::write(&path, "kind: Session\n").unwrap();
    let answer = router.call(&["validate", path.to_str().unwrap()]);
    answer.says(1, "Override, not \"Session\"");
}

#[test]
fn unreadable_file_of_any_kind_is_named_without_waiting() {
    let files = [
        ("config.yaml", ""),
        (
            "cp-token",
            "controlPlane: {url: 'http://127.0.0.1:1', tokenFile: FILE}\n",
        ),
        ("api-token", "server: {tokenFile: FILE}\n"),
        ("private.key", ""),
        ("templates/session.conf", "TEMPLATES"),
        ("templates/moenet/bgp.conf", "TEMPLATES"),
    ];
    for (name, section) in files {
        for (spoil, why) in UNREADABLE {
            let router = Router::new();
            let path = router.dir.path().join(name);
            let section = section.replace("FILE", &path.display().to_string());
            fs::create_dir_all(router.dir.path().join("templates/moenet")).unwrap();
            let templates = router.dir.path().join("templates");
            let server = format!(", tokenFile: {}", path.display());
            let bird = format!("/nonexistent/bird, templates: {}", templates.display());
            router.configure(|text| match section.as_str() {
                "TEMPLATES" => text.replace("/nonexistent/bird", &bird),
                _ if section.starts_with("server") => text.replace(", token: t0ken", &server),
                _ => text + &section,
            });
            let _ = fs::remove_file(&path);
            spoil(&path);
            let mut command = Command::new("timeout");
            command
                .args([
                    "20",
                    env!("CARGO_BIN_EXE_moenet-agent"),
                    "validate",
                    "--config",
                ])
                .arg(router.dir.path().join("config.yaml"));
            let answer = call(&mut command);
            let said = answer.out.clone() + &answer.err;
            assert_eq!(answer.code, 1, "{name}: {said}");
            assert!(said.contains(name) && said.contains(why), "{name}: {said}");
        }
    }
}

#[test]
fn refusals_of_run_are_problems_of_validate() {
    type Edit = fn(String) -> String;
    let edits: [Edit; 5] = [
        |text| text.replace("id: 1, ", "id: 0, "),
        |text| text.replace("name: jp1", "name: 'j p'"),
        |text| {
            text.replace(", token: t0ken", "")
                .replace("127.0.0.1:1", "0.0.0.0:1")
        },
        |text| format!("{text}controlPlane: {{url: 'ftp://x', token: t}}\n"),
        |text| format!("{text}probe: {{counts: 5}}\n"),
    ];
    for edit in edits {
        let router = Router::new();
        router.configure(edit);
        let error = router.run_error();
        let answer = router.call(&["validate"]);
        answer.says(1, &error);
    }
}

#[test]
fn validate_reports_unreadable_token_file_like_run() {
    let router = Router::new();
    router.with_key();
    router.configure(|text| text.replace("token: t0ken", "tokenFile: /nonexistent/token"));
    router
        .call(&["validate"])
        .says(1, "token file /nonexistent/token: ");
}

#[test]
fn missing_private_key_is_a_problem() {
    let router = Router::new();
    let path = router.dir.path().join("private.key");
    let _ = fs::remove_file(&path);
    router
        .call(&["validate"])
        .says(1, &path.display().to_string());
    router.with_key();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    router
        .call(&["validate"])
        .says(0, "Everything that could be checked is valid");
}

#[test]
fn facts_that_could_not_be_read_are_listed_as_unchecked() {
    let router = Router::new();
    router.with_key();
    router.configure(|text| {
        format!("{text}controlPlane: {{url: 'http://cp.invalid:1', token: t}}\n")
    });
    let answer = router.call(&["validate"]);
    answer.says(0, "unchecked: the files for BIRD");
    answer.says(
        0,
        "unchecked: the addresses of the Control Plane cp.invalid: ",
    );
    let json = router.call(&["validate", "-o", "json"]).json();
    let unchecked = json["unchecked"].as_array().unwrap();
    let has = |start: &str| {
        unchecked
            .iter()
            .any(|it| it.as_str().unwrap().starts_with(start))
    };
    assert!(
        has("the files for BIRD") && has("the addresses of the Control Plane"),
        "{json}"
    );
    assert_eq!(json["problems"], serde_json::json!([]));
}

#[test]
fn all_problems_of_all_files_are_listed_at_once() {
    let router = Router::new();
    router.with_key();
    let session = router.state(&format!("sessions/{NAME}.yaml"));
    let text = fs::read_to_string(&session).unwrap();
    let text = text
        .replace("mtu: 1420", "mtu: 1")
        .replace("policy: full", "policy: friend");
    fs::write(&session, text).unwrap();
    let policy = "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {name: policy}\nspec:\n  paused: true\n  \
                  reason: test\n  set:\n    limits: {ebgpImport: -1}\n    colour: red\n";
    fs::write(router.state("overrides/policy.yaml"), policy).unwrap();
    let answer = router.call(&["validate"]);
    let session = session.display().to_string();
    let override_ = router.state("overrides/policy.yaml").display().to_string();
    for (file, field) in [
        (&session, "spec.tunnel.mtu: "),
        (&session, "spec.bgp.policy: "),
        (&override_, "spec.paused: "),
        (&override_, "spec.limits.ebgpImport: "),
        (&override_, "spec.colour: "),
    ] {
        let is_it = |line: &&str| line.contains(&format!("{file}:")) && line.contains(field);
        assert!(
            answer.out.lines().any(|line| is_it(&line)),
            "{field}: {}",
            answer.out
        );
    }
    assert_eq!(answer.code, 1);
    let alone = router.call(&["validate", &session, &override_]);
    assert_eq!(alone.out.lines().count(), 5, "{}", alone.out);
}

/// Runs a verb with its output on a full disk.
fn on_full_disk(router: &Router, arguments: &[&str]) -> super::Answer {
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_moenet-agent"))
        .arg("--config")
        .arg(router.dir.path().join("config.yaml"))
        .args(arguments)
        .stdout(Stdio::from(full))
        .output()
        .unwrap();
    super::Answer {
        code: output.status.code().unwrap(),
        out: String::new(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn output_that_cannot_be_written_fails_every_verb() {
    let router = Router::new();
    router.with_bird();
    router.with_key();
    router.git(&["init", "-q"]);
    router.apply(1420);
    let fleet = router.dir.path().join("fleet");
    fs::create_dir(&fleet).unwrap();
    let fleet = fleet.display().to_string();
    let verbs: Vec<Vec<&str>> = vec![
        vec!["get"],
        vec!["get", "-o", "json"],
        vec!["describe", NAME],
        vec!["diff", NAME],
        vec!["plan"],
        vec!["validate"],
        vec!["render", NAME],
        vec!["schema", "BgpSession"],
        vec!["approve", "--list"],
        vec!["history"],
        vec!["fleet", "validate", &fleet],
        vec!["completions", "bash"],
        vec!["man"],
        vec!["--help"],
    ];
    for verb in verbs {
        on_full_disk(&router, &verb).says(1, "write the output");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let router = Router::listening(&listener.local_addr().unwrap().to_string());
    std::thread::spawn(move || answer_all(&listener));
    for verb in ["status", "sync", "maintenance"] {
        on_full_disk(&router, &[verb]).says(1, "write the output");
    }
}

/// A daemon that answers until the tests end.
fn answer_all(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).unwrap();
        let request = String::from_utf8_lossy(&request[..length]);
        let body = match request.split_whitespace().nth(1) {
            Some("/sync") => r#"{"status":"sync_triggered"}"#,
            Some("/status") => {
                r#"{"status":"ok","version":"1","commit":"c","uptime":5,"node":{"id":1,"name":"jp1","region":null},
                    "sessions":{"total":0,"active":0,"error":0,"pending":0},"circuitBreaker":"closed",
                    "sync":{"requested":1,"finished":1,"sessions":0,"changed":0,"error":null}}"#
            }
            _ => r#"{"enabled":false,"since":null}"#,
        };
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .unwrap();
    }
}

#[test]
fn validate_knows_a_file_by_its_place() {
    let router = Router::new();
    let other = router.state("mesh/wrong.yaml");
    fs::copy(router.state(&format!("sessions/{NAME}.yaml")), &other).unwrap();
    let answer = call(
        Command::new(env!("CARGO_BIN_EXE_moenet-agent"))
            .arg("validate")
            .arg(&other),
    );
    answer.says(
        1,
        "kind: a document in this folder must be a MeshPeer, not \"BgpSession\"",
    );
}

#[test]
fn validate_before_the_first_start_says_so_and_succeeds() {
    let router = Router::new();
    fs::remove_dir_all(router.state("")).unwrap();
    let answer = router.call(&["validate"]);
    answer.says(0, "does not exist yet; the first start");
    answer.says(0, "Everything that could be checked is valid.");
    router.configure(|text| text.replace("id: 1, ", "id: 0, "));
    router.call(&["validate"]).says(1, "node.id");
    assert!(!router.state("").exists());
}

#[test]
fn validate_finds_marks_of_a_missing_state_directory() {
    let router = Router::new();
    fs::remove_dir_all(router.state("")).unwrap();
    let bird = router.dir.path().join("bird/moenet");
    fs::create_dir_all(&bird).unwrap();
    let mark = "# Written by moenet-agent; edits are replaced, a copy is kept. sha256:0\n";
    fs::write(bird.join("main.conf"), mark).unwrap();
    router.call(&["validate"]).says(1, "StateDirectoryMissing");
}
