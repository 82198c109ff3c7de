//! The state directory, with everything in it that an editor, a disk or an operator can do to it.

mod approvals;
mod identity;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::json;

use super::support::{State, applied, mtu, name, own, peer, problem};
use moenet_agent::document::{BgpSessionSpec, Document, Kind, MaintenanceSpec, OverrideSpec};
use moenet_agent::model::{ObjectName, Secret};
use moenet_agent::observed::Succession;
use moenet_agent::store::{IDENTITY, StateIdentity, Store, StoreError, Written};

#[test]
fn invalid_file_is_present_and_never_absent() {
    let state = State::new();
    let store = state.open();
    let whole = own("a");
    state.put("mesh/zero.yaml", "");
    state.put("mesh/nul.yaml", b"apiVersion: \0\0\0");
    state.put("mesh/latin.yaml", b"# \xe9\n");
    state.put("mesh/half.yaml", &own("half")[..whole.len() / 2]);
    state.put("mesh/large.yaml", "#".repeat(300 * 1024));
    state.put("mesh/other.yaml", own("another"));
    state.put("mesh/Case.yaml", own("case"));
    state.put(
        "mesh/kind.yaml",
        own("kind").replace("MeshPeer", "IbgpPeer"),
    );
    state.put("mesh/old.yml", own("old"));
    state.put("mesh/shout.YAML", own("shout"));
    state.put("mesh/brace.json", "{}");
    state.put("mesh/two words.yaml", own("x"));
    fs::create_dir(state.root().join("mesh/dir.yaml")).unwrap();
    let outside = state.dir.path().join("outside.yaml");
    fs::write(&outside, own("link")).unwrap();
    symlink(&outside, state.root().join("mesh/link.yaml")).unwrap();
    symlink("/nowhere", state.root().join("mesh/dangling.yaml")).unwrap();

    let snapshot = store.load().unwrap();
    assert!(snapshot.complete);
    for (object, part) in [
        ("zero", "is empty"),
        ("nul", "NUL"),
        ("latin", "not UTF-8: byte 2"),
        ("half", "half.yaml"),
        ("large", "307200 bytes"),
        ("other", "is another, but the file is other.yaml"),
        ("Case", "upper and lower case differ"),
        ("kind", "must be a MeshPeer, not \"IbgpPeer\""),
        ("old", "rename it"),
        ("shout", "rename it"),
        ("brace", "rename it"),
        ("dir", "is a directory"),
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
    ] {
        let problem = problem(&snapshot, object);
        assert!(
            problem.contains(part) && problem.contains(&state.root().display().to_string()),
            "{problem}"
        );
    }
    assert_eq!(snapshot.mesh.len(), 14);
    assert_eq!(snapshot.problems.len(), 15, "{:#?}", snapshot.problems);
}

#[test]
fn editors_temporary_files_are_no_documents() {
    let state = State::new();
    let store = state.open();
    state.put("mesh/a.yaml", own("a"));
    for file in [
        ".a.yaml.swp",
        ".a.yaml",
        "a.yaml~",
        ".#a.yaml",
        "4913",
        "a.yaml.tmp",
        "a.yaml.bak",
        "sedx1Y2",
        "#a.yaml#",
        ".goutputstream-1",
    ] {
        state.put(&format!("mesh/{file}"), "half");
    }
    let snapshot = store.load().unwrap();
    assert_eq!(
        snapshot
            .mesh
            .keys()
            .map(ObjectName::as_str)
            .collect::<Vec<_>>(),
        ["a"]
    );
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
}

#[test]
fn a_change_that_keeps_size_and_time_is_seen() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let path = state.root().join("mesh/a.yaml");
    for mtu_now in [1401, 1402, 1403, 1404] {
        let stamp = fs::metadata(&path).unwrap().modified().unwrap();
        let text = state.text("mesh/a.yaml");
        let text = text.replace(&format!("mtu: {}", mtu_now - 1), &format!("mtu: {mtu_now}"));
        fs::write(&path, text).unwrap();
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(stamp)
            .unwrap();
        assert_eq!(
            mtu(&store.load().unwrap(), "a"),
            u64::try_from(mtu_now).unwrap()
        );
    }
}

#[test]
fn a_pass_over_a_thousand_unchanged_documents_parses_none() {
    let state = State::new();
    let store = state.open();
    for number in 0..1000 {
        state.put(&format!("mesh/p{number}.yaml"), own(&format!("p{number}")));
    }
    assert_eq!(store.load().unwrap().mesh.len(), 1000);
    let parsed = store.parsed();
    let start = std::time::Instant::now();
    assert_eq!(store.load().unwrap().mesh.len(), 1000);
    assert_eq!(store.parsed(), parsed);
    assert!(start.elapsed() < std::time::Duration::from_secs(2));
    fs::remove_file(state.root().join("mesh/p7.yaml")).unwrap();
    state.put("mesh/p8.yaml", own("p8") + "# changed\n");
    assert_eq!(store.load().unwrap().mesh.len(), 999);
    assert_eq!(store.parsed(), parsed + 1);
}

#[test]
fn second_agent_is_refused_with_the_pid_of_the_first() {
    let state = State::new();
    let first = state.open();
    let refused = Store::open(&state.root()).unwrap_err().to_string();
    assert!(
        refused.contains(&format!("process {}", std::process::id())),
        "{refused}"
    );
    assert!(
        Store::open_read_only(&state.root())
            .unwrap()
            .load()
            .unwrap()
            .complete
    );
    drop(first);
    Store::open(&state.root()).unwrap();
}

#[test]
fn looking_creates_nothing_and_writes_nothing() {
    let state = State::new();
    assert!(matches!(
        Store::open_read_only(&state.root()),
        Err(StoreError::Vanished { .. })
    ));
    fs::create_dir_all(state.root().join("mesh")).unwrap();
    state.put("mesh/a.yaml", own("a"));
    let store = Store::open_read_only(&state.root()).unwrap();
    let snapshot = store.load().unwrap();
    assert!(snapshot.complete && snapshot.mesh.len() == 1);
    assert!(matches!(
        store.write_document(&peer("b", 1400)),
        Err(StoreError::ReadOnly { .. })
    ));
    assert!(matches!(
        store.write_applied(&applied("b")),
        Err(StoreError::ReadOnly { .. })
    ));
    assert!(matches!(
        store.remove_document(Kind::MeshPeer, &name("a")),
        Err(StoreError::ReadOnly { .. })
    ));
    let left: Vec<_> = fs::read_dir(state.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["mesh"]);
}

#[test]
fn a_new_directory_proves_no_absence_until_it_is_confirmed() {
    let state = State::new();
    let store = Store::open(&state.root()).unwrap();
    assert!(!store.load().unwrap().complete);
    drop(store);
    let store = Store::open(&state.root()).unwrap();
    assert!(
        !store.load().unwrap().complete,
        "a restart does not make it any more certain"
    );
    store.confirm().unwrap();
    drop(store);
    assert!(Store::open(&state.root()).unwrap().load().unwrap().complete);
}

#[test]
fn a_directory_with_documents_is_complete_at_once() {
    let state = State::new();
    fs::create_dir_all(state.root().join("mesh")).unwrap();
    state.put("mesh/a.yaml", own("a"));
    assert!(Store::open(&state.root()).unwrap().load().unwrap().complete);
}

#[test]
fn vanished_state_directory_is_an_error() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let away = state.dir.path().join("away");
    fs::rename(state.root(), &away).unwrap();
    assert!(matches!(store.load(), Err(StoreError::Vanished { .. })));
    assert!(store.write_applied(&applied("a")).is_err());
    assert!(
        !state.root().exists(),
        "nothing is written where the disk was"
    );

    fs::create_dir(state.root()).unwrap();
    let error = store.load().unwrap_err().to_string();
    assert!(error.contains("another directory"), "{error}");

    fs::remove_dir(state.root()).unwrap();
    fs::rename(&away, state.root()).unwrap();
    let snapshot = store.load().unwrap();
    assert!(snapshot.complete && snapshot.mesh.len() == 1);
}

#[test]
fn replaced_state_directory_is_used_and_locked() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let away = state.dir.path().join("away");
    fs::rename(state.root(), &away).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(&away)
        .arg(state.root())
        .status()
        .unwrap();
    assert!(copied.success());
    assert_eq!(store.load().unwrap().mesh.len(), 1);
    assert!(matches!(
        Store::open(&state.root()),
        Err(StoreError::Locked { .. })
    ));
}

#[test]
fn an_emptied_directory_proves_nothing() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    for entry in fs::read_dir(state.root()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        }
        .unwrap();
    }
    assert!(!store.load().unwrap().complete);
    fs::create_dir_all(state.root().join("mesh")).unwrap();
    assert!(!store.load().unwrap().complete);
    store.write_document(&peer("a", 1400)).unwrap();
    store.confirm().unwrap();
    assert!(store.load().unwrap().complete);
}

#[test]
fn a_folder_that_vanished_leaves_a_doubt_across_a_restart() {
    let state = State::new();
    let store = state.open();
    fs::remove_dir_all(state.root().join("sessions")).unwrap();
    let snapshot = store.load().unwrap();
    assert!(!snapshot.complete && !snapshot.problems.is_empty());
    drop(store);
    let store = Store::open(&state.root()).unwrap();
    assert!(!store.load().unwrap().complete);
    store.confirm().unwrap();
    assert!(store.load().unwrap().complete);
}

#[test]
fn a_linked_folder_is_not_followed() {
    let state = State::new();
    let store = state.open();
    let outside = state.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir(state.root().join("mesh")).unwrap();
    symlink(&outside, state.root().join("mesh")).unwrap();
    fs::write(outside.join("a.yaml"), own("a")).unwrap();
    let snapshot = store.load().unwrap();
    assert!(!snapshot.complete && snapshot.mesh.is_empty());
}

#[test]
fn the_same_document_is_written_once() {
    let state = State::new();
    let store = state.open();
    assert_eq!(
        store.write_document(&peer("a", 1400)).unwrap(),
        Written::Changed
    );
    let writes = store.writes();
    assert_eq!(
        store.write_document(&peer("a", 1400)).unwrap(),
        Written::Unchanged
    );
    assert_eq!(
        store.write_applied(&applied("a")).unwrap(),
        Written::Changed
    );
    assert_eq!(
        store.write_applied(&applied("a")).unwrap(),
        Written::Unchanged
    );
    assert_eq!(store.writes(), writes + 1);
    let snapshot = store.load().unwrap();
    assert_eq!(
        *snapshot.applied[&(Kind::MeshPeer, name("a"))].document,
        applied("a")
    );
    assert!(snapshot.edits.is_empty() && snapshot.problems.is_empty());
}

#[test]
fn records_that_another_program_removed_are_put_back() {
    let state = State::new();
    let store = state.open();
    for object in ["a", "b", "c"] {
        store.write_applied(&applied(object)).unwrap();
    }
    store.load().unwrap();
    fs::remove_dir_all(state.root().join("applied")).unwrap();
    let broken = "applied/mesh/c.yaml";
    fs::create_dir_all(state.root().join("applied/mesh")).unwrap();
    state.put(broken, "");
    let listed = store.load().unwrap();
    for object in ["a", "b", "c"] {
        assert!(
            listed.applied.contains_key(&(Kind::MeshPeer, name(object))),
            "{object} is still known"
        );
        assert!(
            state
                .text(&format!("applied/mesh/{object}.yaml"))
                .contains("applied:"),
            "{object} is on disk again"
        );
    }
    assert!(store.remove_applied(Kind::MeshPeer, &name("a")).unwrap());
    let listed = store.load().unwrap();
    assert!(
        !listed.applied.contains_key(&(Kind::MeshPeer, name("a"))),
        "the agent's own removal is final"
    );
}

#[test]
fn an_operators_document_is_never_written_over_nor_removed() {
    let state = State::new();
    let store = state.open();
    state.put("mesh/a.yaml", own("a"));
    let error = store.write_document(&peer("a", 1400)).unwrap_err();
    assert!(matches!(error, StoreError::OperatorOwned { .. }), "{error}");
    assert!(matches!(
        store.remove_document(Kind::MeshPeer, &name("a")),
        Err(StoreError::OperatorOwned { .. })
    ));
    assert_eq!(state.text("mesh/a.yaml"), own("a"));
}

#[test]
fn what_cannot_be_parsed_is_not_written_over() {
    let state = State::new();
    let store = state.open();
    state.put("mesh/a.yaml", "half");
    assert!(matches!(
        store.write_document(&peer("a", 1400)),
        Err(StoreError::Document(_))
    ));
    assert!(matches!(
        store.remove_document(Kind::MeshPeer, &name("a")),
        Err(StoreError::Document(_))
    ));
    assert_eq!(state.text("mesh/a.yaml"), "half");
}

#[test]
fn maintenance_is_written_over_whoever_wrote_it() {
    let state = State::new();
    let store = state.open();
    let head = "apiVersion: moenet.work/v1\nkind: Maintenance\nmetadata: {name: maintenance}\n";
    state.put(
        "maintenance.yaml",
        format!("{head}spec: {{enabled: true}}\n"),
    );
    let off = Document::new(name("maintenance"), None, 0, MaintenanceSpec::default());
    assert_eq!(store.write_document(&off).unwrap(), Written::Changed);
    assert!(
        !store
            .load()
            .unwrap()
            .maintenance
            .as_ref()
            .unwrap()
            .as_ref()
            .unwrap()
            .document
            .spec
            .enabled
    );
}

#[test]
fn secrets_are_private_and_stay_in_their_folder() {
    let state = State::new();
    let store = state.open();
    let secret = Secret::new("hunter2".to_owned());
    store.write_secret("secrets/a.psk", &secret).unwrap();
    let path = state.root().join("secrets/a.psk");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&path), mode(&state.root().join("secrets"))),
        (0o600, 0o700)
    );
    assert_eq!(mode(&state.root()), 0o700, "as docs/install.md says");
    assert_eq!(
        store
            .read_secret("secrets/a.psk")
            .unwrap()
            .unwrap()
            .expose(),
        "hunter2"
    );
    assert_eq!(
        store.write_secret("secrets/a.psk", &secret).unwrap(),
        Written::Unchanged
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    store.write_secret("secrets/a.psk", &secret).unwrap();
    assert_eq!(mode(&path), 0o600);
    for bad in [
        "",
        "a",
        "secrets/",
        "secrets/..",
        "secrets/../node.yaml",
        "/etc/shadow",
        "secrets//a",
        "secrets/a/b",
        "secrets/.a",
        "secrets/a\0",
    ] {
        assert!(
            matches!(store.read_secret(bad), Err(StoreError::SecretName)),
            "{bad}"
        );
        assert!(store.write_secret(bad, &secret).is_err(), "{bad}");
        assert!(store.remove_secret(bad).is_err(), "{bad}");
    }
    symlink("/etc/passwd", state.root().join("secrets/link")).unwrap();
    let error = store.read_secret("secrets/link").unwrap_err().to_string();
    assert!(error.contains("link"), "{error}");
    assert!(store.read_secret("secrets/none").unwrap().is_none());
    assert!(store.remove_secret("secrets/a.psk").unwrap());
}

#[test]
fn an_override_is_written_by_the_object_it_is_about() {
    let state = State::new();
    let store = state.open();
    let spec = OverrideSpec {
        reason: "r".into(),
        target_kind: None,
        expires_at: None,
        paused: true,
        set: serde_json::Map::new(),
    };
    let document = Document::new(name("a"), None, 0, spec);
    assert_eq!(
        store.write_override(Kind::MeshPeer, &document).unwrap(),
        Written::Changed
    );
    assert_eq!(
        store.write_override(Kind::MeshPeer, &document).unwrap(),
        Written::Unchanged
    );
    assert!(store.write_document(&document).is_err());
    assert_eq!(store.load().unwrap().overrides.len(), 1);
    assert!(store.remove_override(Kind::MeshPeer, &name("a")).unwrap());
}

#[test]
fn documents_name_their_schema_when_its_path_is_known() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    assert!(state.text("mesh/a.yaml").starts_with("apiVersion:"));
    let store = store.with_schemas("/usr/share/moenet-agent/schemas".into());
    assert_eq!(
        store.write_document(&peer("a", 1400)).unwrap(),
        Written::Changed
    );
    let line = "# yaml-language-server: $schema=/usr/share/moenet-agent/schemas/MeshPeer.json\n";
    assert!(state.text("mesh/a.yaml").starts_with(line));
    assert!(store.load().unwrap().edits.is_empty());
}

#[test]
fn an_override_in_a_place_of_nothing_is_named() {
    let state = State::new();
    let store = state.open();
    fs::create_dir(state.root().join("overrides/session")).unwrap();
    for file in [
        "wg_1.yaml",
        "maintenance.yaml",
        "node.yaml~",
        ".x.yaml.swp",
        "4913",
    ] {
        state.put(&format!("overrides/{file}"), "a");
    }
    let problems = &store.load().unwrap().problems;
    let named: BTreeSet<String> = problems
        .iter()
        .filter(|problem| problem.message.contains("overrides nothing"))
        .map(|problem| {
            problem
                .file
                .as_ref()
                .unwrap()
                .file_name()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(
        named,
        ["maintenance.yaml", "session", "wg_1.yaml"]
            .map(String::from)
            .into()
    );
}

#[test]
fn departed_session_that_is_wanted_again_keeps_everything() {
    let state = State::new();
    let store = state.open();
    let secret = Secret::new("x".into());
    let put = |admin_state: &str| {
        let spec = json!({
            "asn": 4_242_421_080_u32, "adminState": admin_state,
            "address": {"peerLinkLocal": "fe80::1"},
            "tunnel": {"publicKey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="}
        });
        let spec: BgpSessionSpec = serde_json::from_value(spec).unwrap();
        let uid = Some("u".parse().unwrap());
        let document = Document::new(name("a"), uid, 1, spec);
        store.write_secret("secrets/a.psk", &secret).unwrap();
        store.write_document(&document).unwrap();
    };
    // The removal was read back; meanwhile the Control Plane wanted the session again.
    put("Enabled");
    assert!(store.is_wanted_again(&name("a")).unwrap());
    assert!(!store.remove_departed(&name("a")).unwrap());
    assert!(state.root().join("sessions/a.yaml").exists());
    assert!(store.read_secret("secrets/a.psk").unwrap().is_some());
    put("Absent");
    assert!(!store.is_wanted_again(&name("a")).unwrap());
    assert!(store.remove_departed(&name("a")).unwrap());
    assert!(!state.root().join("sessions/a.yaml").exists());
    assert!(store.read_secret("secrets/a.psk").unwrap().is_none());
    assert!(!store.remove_departed(&name("a")).unwrap());
}
