//! `apply -f`, `override`, `pause` and `resume`: what they refuse, and what they write.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Answer, NAME, Router};

/// A document of the operator's own.
pub(super) const OWN: &str = "\
# My peer.
apiVersion: moenet.work/v1
kind: BgpSession
metadata: {name: wg_own}
spec:
  asn: 4242420777
  address: {peerLinkLocal: 'fe80::777'}
  tunnel: {listenPort: 20777, publicKey: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=}
";

impl Router {
    pub(super) fn override_file(&self) -> std::path::PathBuf {
        self.state(&format!("overrides/sessions/{NAME}.yaml"))
    }

    pub(super) fn exception(&self) -> Value {
        let rows = self.call(&["get", NAME, "-o", "json"]).json();
        rows[0]["override"].clone()
    }

    pub(super) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn apply_text(&self, text: &str, arguments: &[&str]) -> Answer {
        let mut child = Command::new(env!("CARGO_BIN_EXE_moenet-agent"))
            .args(["apply", "-f", "-", "--config"])
            .arg(self.dir.path().join("config.yaml"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        Answer {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A router whose session has no override.
pub(super) fn plain() -> Router {
    let router = Router::new();
    router.with_addresses();
    fs::remove_file(router.override_file()).unwrap();
    router
}

#[test]
fn override_without_reason_is_refused() {
    let router = plain();
    router
        .call(&["override", NAME, "tunnel.mtu=1380"])
        .says(1, "needs --reason");
    assert!(!router.override_file().exists());
}

#[test]
fn override_that_the_router_would_reject_is_not_written() {
    let router = plain();
    for (field, words) in [
        ("tunnel.mtu=70000", "invalid MTU"),
        ("tunnel.mut=1400", "unknown field"),
        ("asn=0", "invalid AS number"),
        ("mtu", "write field=value"),
        ("tunnel.mtu=[", "tunnel.mtu=["),
    ] {
        router
            .call(&["override", NAME, field, "--reason", "test"])
            .says(1, words);
        assert!(!router.override_file().exists(), "{field}");
    }
    let nothing = router.call(&["override", NAME]);
    nothing.says(1, "name a field with its value");
    let reason = router.call(&["override", NAME, "--reason", "x"]);
    reason.says(1, "there is no override of");
    let twice = ["override", NAME, "tunnel.mtu=1300", "spec.tunnel.mtu=1290"];
    router.call(&twice).says(1, "given twice");
    router
        .call(&["override", "maintenance", "enabled=true", "--reason", "x"])
        .says(1, "moenet-agent maintenance start");
    router
        .call(&["override", "wg_424242108", "asn=1", "--reason", "x"])
        .says(1, &format!("did you mean {NAME}?"));
    router
        .call(&["override", "hk1", "mtu=1400", "--reason", "x"])
        .says(1, "add the kind");
}

#[test]
fn override_merges_into_the_existing_one() {
    let router = plain();
    let first = [
        "override",
        NAME,
        "tunnel.mtu=1380",
        "--reason",
        "PPPoE",
        "--expires",
        "2d",
    ];
    router.call(&first).says(0, "created");
    let second = router.call(&["override", NAME, "spec.bgp.policy=peer", "-o", "json"]);
    assert_eq!(second.json()[0]["result"], "changed");
    let exception = router.exception();
    let set = json!({"tunnel": {"mtu": 1380}, "bgp": {"policy": "peer"}});
    assert_eq!(
        (&exception["set"], &exception["reason"]),
        (&set, &"PPPoE".into())
    );
    assert!(exception["expiresAt"].is_string());
    router
        .call(&["override", NAME, "tunnel.mtu=1380"])
        .says(0, "unchanged");
    let file = router.override_file().display().to_string();
    router.call(&["validate", &file]).says(0, "valid");
}

#[test]
fn fields_of_an_expired_override_do_not_come_back() {
    let router = plain();
    let text = format!(
        "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {{name: {NAME}}}\n\
         spec: {{reason: old, expiresAt: '2020-01-01T00:00:00Z', set: {{asn: 4242420001}}}}\n"
    );
    fs::write(router.override_file(), text).unwrap();
    router
        .call(&["override", NAME, "tunnel.mtu=1380"])
        .says(1, "needs --reason");
    router
        .call(&["override", NAME, "tunnel.mtu=1380", "--reason", "new"])
        .says(0, "changed");
    let exception = router.exception();
    assert_eq!(exception["set"], json!({"tunnel": {"mtu": 1380}}));
    assert_eq!(exception["expiresAt"], Value::Null);
}

#[test]
fn invalid_override_file_is_never_replaced() {
    let router = plain();
    fs::write(router.override_file(), "kind: [").unwrap();
    for call in [
        &["override", NAME, "tunnel.mtu=1380", "--reason", "x"][..],
        &["pause", NAME, "--reason", "x"],
        &["resume", NAME],
    ] {
        router.call(call).says(1, "fix the file or delete it");
    }
    assert_eq!(
        fs::read_to_string(router.override_file()).unwrap(),
        "kind: ["
    );
}

#[test]
fn removed_fields_leave_the_rest_of_an_override() {
    let router = Router::new();
    router
        .call(&["override", NAME, "bgp.policy=peer"])
        .says(0, "changed");
    router
        .call(&["override", NAME, "asn", "--remove"])
        .says(1, "does not set asn");
    router
        .call(&["override", NAME, "tunnel.mtu", "--remove"])
        .says(0, "changed");
    assert_eq!(
        router.exception()["set"],
        json!({"bgp": {"policy": "peer"}})
    );
    router
        .call(&["override", NAME, "--remove"])
        .says(0, "removed");
    assert!(!router.override_file().exists());
    router
        .call(&["override", NAME, "--remove"])
        .says(0, "unchanged");
}

#[test]
fn dry_run_writes_nothing() {
    let router = plain();
    let call = [
        "override",
        NAME,
        "tunnel.mtu=1380",
        "--reason",
        "x",
        "--dry-run",
    ];
    router.call(&call).says(0, "created (dry run)");
    assert!(!router.override_file().exists());
}

#[test]
fn pause_keeps_the_fields_and_resume_removes_an_empty_override() {
    let router = Router::new();
    router.call(&["pause", NAME]).says(0, "changed");
    let exception = router.exception();
    assert_eq!(exception["paused"], true);
    assert_eq!(exception["set"], json!({"tunnel": {"mtu": 1380}}));
    router.call(&["resume", NAME]).says(0, "changed");
    router.call(&["resume", NAME]).says(1, "is not paused");
    assert_eq!(router.exception()["set"], json!({"tunnel": {"mtu": 1380}}));
    let router = plain();
    router.call(&["pause", NAME]).says(1, "needs --reason");
    router
        .call(&["pause", NAME, "--reason", "the peer debugs"])
        .says(0, "created");
    router.call(&["resume", NAME]).says(0, "removed");
    assert!(!router.override_file().exists());
}

#[test]
fn object_that_is_rejected_can_be_paused() {
    let router = plain();
    let path = router.state(&format!("sessions/{NAME}.yaml"));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("asn: 4242421080", "asn: 4242420998")).unwrap();
    router
        .call(&["pause", NAME, "--reason", "wrong AS number"])
        .says(0, "created");
}

#[test]
fn own_documents_of_a_stream_are_written_with_their_comments() {
    let router = plain();
    let other = OWN.replace("wg_own", "wg_other").replace("777", "778");
    let stream = format!("---\n{OWN}---\n{other}");
    let answer = router.apply_text(&stream, &[]);
    answer.says(0, "sessions/wg_own.yaml created");
    answer.says(0, "sessions/wg_other.yaml created");
    let written = fs::read_to_string(router.state("sessions/wg_own.yaml")).unwrap();
    assert_eq!(written, OWN);
    router
        .apply_text(&stream, &[])
        .says(0, "sessions/wg_own.yaml unchanged");
    let changed = OWN.replace("fe80::777", "fe80::1777");
    router.apply_text(&changed, &[]).says(0, "changed");
}

#[test]
fn one_bad_document_of_a_stream_writes_nothing() {
    let router = plain();
    for (bad, words) in [
        (
            OWN.replace("wg_own", "b").replace("4242420777", "0"),
            "<stdin>:15:8: spec.asn",
        ),
        (
            OWN.replace("wg_own", "b").replace("asn:", "ans:"),
            "<stdin>:15:3: ",
        ),
        (
            OWN.replace("BgpSession", "Session"),
            "<stdin>:12:7: kind: use one of",
        ),
        (OWN.replace("wg_own", "'a b'"), "metadata.name"),
        (
            OWN.replace("wg_own", "b, uid: u-1"),
            "metadata.uid: is set by the Control Plane",
        ),
        ("kind: [".to_owned(), "<stdin>:10:"),
        // The port of the first document.
        (OWN.replace("wg_own", "b"), " would be rejected: "),
    ] {
        let answer = router.apply_text(&format!("{OWN}---\n{bad}"), &[]);
        answer.says(1, words);
        assert!(!router.state("sessions/wg_own.yaml").exists(), "{bad}");
    }
    router
        .apply_text("# nothing\n", &[])
        .says(1, "has no document");
    let call = router.call(&["apply", "-f", "/nonexistent.yaml"]);
    call.says(1, "/nonexistent.yaml");
    assert_eq!(router.call(&["apply"]).code, 64);
}

#[test]
fn change_that_harms_another_object_is_refused() {
    let router = plain();
    router.apply_text(OWN, &[]).says(0, "created");
    for name in ["aa", "zz"] {
        let same_port = OWN.replace("wg_own", name).replace("777'", "778'");
        let answer = router.apply_text(&same_port, &[]);
        answer.says(1, " would be rejected: ");
        let answer = router.apply_text(&same_port, &["-o", "json"]);
        let error: serde_json::Value = serde_json::from_str(&answer.err).unwrap();
        let problem = error["problems"][0]["message"].as_str().unwrap();
        assert!(problem.contains(" would be rejected: "), "{error}");
        assert!(!router.state(&format!("sessions/{name}.yaml")).exists());
    }
}

#[test]
fn problems_have_one_shape_and_their_true_place() {
    let router = plain();
    let problem = |answer: &super::Answer| -> Value {
        let error: Value = serde_json::from_str(&answer.err).unwrap();
        error["problems"][0].clone()
    };
    let place = |problem: &Value| {
        let mut keys: Vec<_> = problem.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(keys, ["column", "field", "file", "line", "message"]);
        let of = |key: &str| problem[key].clone();
        (of("file"), of("line"), of("field"))
    };
    // An argument is in no file.
    for value in ["tunnel.mtu=99999", "tunnel.mtu=["] {
        let arguments = ["override", NAME, value, "--reason", "x", "-o", "json"];
        let found = problem(&router.call(&arguments));
        let wanted = (Value::Null, Value::Null, "spec.tunnel.mtu".into());
        assert_eq!(place(&found), wanted, "{found}");
    }
    let bad = OWN.replace("peerLinkLocal: 'fe80::777'", "localIpv4: 172.20.0.9");
    assert_ne!(bad, OWN);
    let answer = router.apply_text(&format!("# first\n---\n{bad}"), &["-o", "json"]);
    let found = problem(&answer);
    let (file, line, field) = place(&found);
    assert_eq!(file, "<stdin>", "{found}");
    assert!(line.as_u64() > Some(2), "{found}");
    assert_eq!(field, "spec.address", "{found}");
    // `validate` and `fleet validate` have the same.
    let path = router.dir.path().join("bad.yaml");
    fs::write(&path, OWN.replace("asn: ", "asn: x")).unwrap();
    let path = path.to_str().unwrap();
    let findings = router.call(&["validate", path, "-o", "json"]).json();
    let found = place(&findings["problems"][0]);
    assert_eq!((found.0, found.2), (path.into(), "spec.asn".into()));
    let fleet = router.dir.path().join("fleet/jp1");
    fs::create_dir_all(&fleet).unwrap();
    fs::write(fleet.join("router.yaml"), "node: {id: x}\ntoken: t\n").unwrap();
    let fleet = fleet.parent().unwrap().to_str().unwrap();
    let findings = router.call(&["fleet", "validate", fleet, "-o", "json"]);
    let findings = findings.json();
    let all = findings["problems"].as_array().unwrap();
    assert!(all.iter().any(|it| place(it).2 == "node.id"), "{all:#?}");
}

#[test]
fn every_mistake_of_a_configuration_is_named_at_once() {
    let router = plain();
    let path = router.dir.path().join("config.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text
        .replace("id: 1", "id: 0, nme: x")
        .replace("server: {", "server: {lisen: x, ");
    fs::write(&path, &text).unwrap();
    let answer = router.call(&["get"]);
    for words in [
        "node.nme: unknown field",
        "server.lisen: unknown field",
        "node.id: invalid id 0",
    ] {
        answer.says(1, words);
    }
    answer.says(1, "error: 3 problems, as above");
    let answer = router.call(&["get", "-o", "json"]);
    let error: Value = serde_json::from_str(&answer.err).unwrap();
    assert_eq!(
        error["problems"].as_array().map(Vec::len),
        Some(3),
        "{error}"
    );
}

#[test]
fn usage_errors_are_json_for_programs() {
    let router = plain();
    let answer = router.call(&["get", "-o", "json", "--nope"]);
    assert_eq!((answer.code, answer.out.as_str()), (64, ""));
    let error: Value = serde_json::from_str(&answer.err).unwrap();
    let text = error["error"].as_str().unwrap();
    assert!(text.starts_with("unexpected argument '--nope'"), "{text}");
    let refused = "--force is only for `maintenance start`";
    for act in [
        &["maintenance", "stop", "--force"][..],
        &["maintenance", "--force"],
    ] {
        router.call(act).says(64, refused);
    }
}

#[test]
fn command_waits_until_another_has_written() {
    let router = plain();
    let lock = fs::File::create(router.state(".changes.lock")).unwrap();
    lock.lock().unwrap();
    // Only a check, which writes nothing.
    let dry = router.apply_text(OWN, &["--dry-run"]);
    dry.says(0, "created (dry run)");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| router.apply_text(OWN, &[]));
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(!waits.is_finished());
        lock.unlock().unwrap();
        waits.join().unwrap().says(0, "created");
    });
}

#[test]
fn waiting_command_checks_what_another_wrote() {
    let router = plain();
    let lock = fs::File::create(router.state(".changes.lock")).unwrap();
    lock.lock().unwrap();
    let same_port = OWN.replace("wg_own", "zz").replace("777'", "778'");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| router.apply_text(&same_port, &[]));
        std::thread::sleep(std::time::Duration::from_millis(1500));
        fs::write(router.state("sessions/wg_own.yaml"), OWN).unwrap();
        lock.unlock().unwrap();
        let answer = waits.join().unwrap();
        answer.says(1, " would be rejected: ");
    });
    assert!(!router.state("sessions/zz.yaml").exists());
}

#[test]
fn lock_of_changes_follows_its_directory() {
    let router = plain();
    let (state, lock) = (router.state(""), router.state(".changes.lock"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    router.apply_text(OWN, &[]).says(0, "created");
    assert_eq!(mode(&lock), 0o600);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o775)).unwrap();
    if chown(&state, None, Some(60_001)).is_err() {
        return; // not root
    }
    router.call(&["pause", NAME, "--reason", "x"]).says(0, "");
    assert_eq!(mode(&lock), 0o660);
    assert_eq!(fs::metadata(&lock).unwrap().gid(), 60_001);
}

#[test]
fn keys_in_plain_text_are_not_written() {
    let router = plain();
    let key = "XgUElZsuhxz12KENlLtJuKP0eYNyTNy2QYUaeGKaPZ4=";
    let answer = router.apply_text(&format!("# psk: {key}\n{OWN}"), &[]);
    answer.says(1, "holds a key in plain text");
    assert!(!format!("{}{}", answer.out, answer.err).contains(key));
    assert!(!router.state("sessions/wg_own.yaml").exists());
}

#[test]
fn printed_documents_are_valid_and_applied_unchanged() {
    let router = Router::new();
    router.with_addresses();
    let before = fs::read_to_string(router.override_file()).unwrap();
    let printed = router.call(&["get", "-o", "yaml"]).out;
    assert!(
        printed.contains("kind: MeshPeer") && printed.contains("mtu: 1380"),
        "{printed}"
    );
    assert!(!printed.contains("status:"), "{printed}");
    let one = router.call(&["get", NAME, "-o", "yaml"]).out;
    let file = router.file("one.yaml", &one);
    router.call(&["validate", &file]).says(0, "valid");
    let applied = router.apply_text(&printed, &["-o", "json"]).json();
    let rows = applied.as_array().unwrap();
    assert!(rows.len() > 4, "{applied}");
    assert!(
        rows.iter().all(|row| row["result"] == "unchanged"),
        "{applied}"
    );
    assert_eq!(fs::read_to_string(router.override_file()).unwrap(), before);
}

#[test]
fn change_of_a_synced_document_becomes_an_override() {
    let router = plain();
    let file = router.state(&format!("sessions/{NAME}.yaml"));
    let before = fs::read_to_string(&file).unwrap();
    let printed = router.call(&["get", NAME, "-o", "yaml"]).out;
    let edited = printed.replace("mtu: 1420", "mtu: 1390");
    router.apply_text(&edited, &[]).says(1, "needs --reason");
    router
        .apply_text(&edited, &["--reason", "their uplink"])
        .says(0, &format!("overrides/sessions/{NAME}.yaml created"));
    assert_eq!(router.exception()["set"], json!({"tunnel": {"mtu": 1390}}));
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    // The Control Plane's own values end the override.
    router.apply_text(&printed, &[]).says(0, "removed");
    let of_another = printed.replace("uid: abc-123", "uid: other");
    router
        .apply_text(&of_another, &["--reason", "x"])
        .says(1, "metadata.uid: is that of another object");
}
