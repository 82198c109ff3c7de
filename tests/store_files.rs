//! The state directory, with everything in it that an editor, a disk or an operator can do to it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use moenet_agent::document::{Document, Kind, MaintenanceSpec, MeshPeerSpec, Metadata, OverrideSpec};
use moenet_agent::model::{ObjectName, Secret};
use moenet_agent::store::{
    Absorbed, AppliedBody, AppliedDocument, Change, Snapshot, Store, StoreError, Written,
};

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

struct State {
    dir: tempfile::TempDir,
}

impl State {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn open(&self) -> Store {
        let store = Store::open(&self.root()).unwrap();
        store.confirm().unwrap();
        store
    }

    fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        fs::write(self.root().join(path), text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }
}

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn peer(object: &str, mtu: u16) -> Document<MeshPeerSpec> {
    let spec = serde_json::json!({"nodeId": 2, "mtu": mtu, "publicKey": KEY});
    let spec = serde_json::from_value(spec).unwrap();
    Document::new(name(object), Some("uid-1".parse().unwrap()), 1, spec)
}

fn own(object: &str) -> String {
    format!(
        "# mine\napiVersion: moenet.work/v1\nkind: MeshPeer\nmetadata: {{name: {object}}}\nspec: {{nodeId: 2, publicKey: {KEY}}}\n"
    )
}

fn applied(object: &str) -> AppliedDocument {
    let metadata = Metadata { name: name(object), uid: None, generation: 1 };
    AppliedDocument::new(Kind::MeshPeer, metadata, AppliedBody::default())
}

fn mtu(snapshot: &Snapshot, object: &str) -> u64 {
    let stored = snapshot.mesh[&name(object)].as_ref().unwrap();
    u64::from(stored.document.spec.mtu.unwrap().get())
}

fn problem(snapshot: &Snapshot, object: &str) -> String {
    snapshot.mesh[&name(object)].as_ref().unwrap_err().to_string()
}

#[test]
fn what_is_no_document_is_present_and_invalid_and_never_absent() {
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
    state.put("mesh/kind.yaml", own("kind").replace("MeshPeer", "IbgpPeer"));
    state.put("mesh/old.yml", own("old"));
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
        ("kind", "is a MeshPeer, not \"IbgpPeer\""),
        ("old", "rename it"),
        ("dir", "is a directory"),
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
    ] {
        let problem = problem(&snapshot, object);
        assert!(problem.contains(part) && problem.contains(&state.root().display().to_string()), "{problem}");
    }
    assert_eq!(snapshot.mesh.len(), 12);
    assert_eq!(snapshot.problems.len(), 13, "{:#?}", snapshot.problems);
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
    assert_eq!(snapshot.mesh.keys().map(ObjectName::as_str).collect::<Vec<_>>(), ["a"]);
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
        fs::File::options().write(true).open(&path).unwrap().set_modified(stamp).unwrap();
        assert_eq!(mtu(&store.load().unwrap(), "a"), u64::try_from(mtu_now).unwrap());
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
fn a_second_agent_is_refused_by_the_number_of_the_first() {
    let state = State::new();
    let first = state.open();
    let refused = Store::open(&state.root()).unwrap_err().to_string();
    assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
    assert!(Store::open_read_only(&state.root()).unwrap().load().unwrap().complete);
    drop(first);
    Store::open(&state.root()).unwrap();
}

#[test]
fn looking_creates_nothing_and_writes_nothing() {
    let state = State::new();
    assert!(matches!(Store::open_read_only(&state.root()), Err(StoreError::Vanished { .. })));
    fs::create_dir_all(state.root().join("mesh")).unwrap();
    state.put("mesh/a.yaml", own("a"));
    let store = Store::open_read_only(&state.root()).unwrap();
    let snapshot = store.load().unwrap();
    assert!(snapshot.complete && snapshot.mesh.len() == 1);
    assert!(matches!(store.write_document(&peer("b", 1400)), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(store.write_applied(&applied("b")), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(store.remove_document(Kind::MeshPeer, &name("a")), Err(StoreError::ReadOnly { .. })));
    let left: Vec<_> = fs::read_dir(state.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mesh"]);
}

#[test]
fn a_new_directory_proves_no_absence_until_it_is_confirmed() {
    let state = State::new();
    let store = Store::open(&state.root()).unwrap();
    assert!(!store.load().unwrap().complete);
    drop(store);
    let store = Store::open(&state.root()).unwrap();
    assert!(!store.load().unwrap().complete, "a restart does not make it any more certain");
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
fn a_state_directory_that_vanished_is_an_error_and_never_an_empty_listing() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let away = state.dir.path().join("away");
    fs::rename(state.root(), &away).unwrap();
    assert!(matches!(store.load(), Err(StoreError::Vanished { .. })));
    assert!(store.write_applied(&applied("a")).is_err());
    assert!(!state.root().exists(), "nothing is written where the disk was");

    fs::create_dir(state.root()).unwrap();
    let error = store.load().unwrap_err().to_string();
    assert!(error.contains("another directory"), "{error}");

    fs::remove_dir(state.root()).unwrap();
    fs::rename(&away, state.root()).unwrap();
    let snapshot = store.load().unwrap();
    assert!(snapshot.complete && snapshot.mesh.len() == 1);
}

#[test]
fn a_copy_of_the_directory_in_its_place_is_taken_and_locked() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let away = state.dir.path().join("away");
    fs::rename(state.root(), &away).unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(&away).arg(state.root()).status().unwrap();
    assert!(copied.success());
    assert_eq!(store.load().unwrap().mesh.len(), 1);
    assert!(matches!(Store::open(&state.root()), Err(StoreError::Locked { .. })));
}

#[test]
fn an_emptied_directory_proves_nothing() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    for entry in fs::read_dir(state.root()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
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
    assert_eq!(store.write_document(&peer("a", 1400)).unwrap(), Written::Changed);
    let writes = store.writes();
    assert_eq!(store.write_document(&peer("a", 1400)).unwrap(), Written::Unchanged);
    assert_eq!(store.write_applied(&applied("a")).unwrap(), Written::Changed);
    assert_eq!(store.write_applied(&applied("a")).unwrap(), Written::Unchanged);
    assert_eq!(store.writes(), writes + 1);
    let snapshot = store.load().unwrap();
    assert_eq!(snapshot.applied[&(Kind::MeshPeer, name("a"))].document, applied("a"));
    assert!(snapshot.edits.is_empty() && snapshot.problems.is_empty());
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
    assert!(matches!(store.write_document(&peer("a", 1400)), Err(StoreError::Document(_))));
    assert!(matches!(store.remove_document(Kind::MeshPeer, &name("a")), Err(StoreError::Document(_))));
    assert_eq!(state.text("mesh/a.yaml"), "half");
}

#[test]
fn maintenance_is_written_over_whoever_wrote_it() {
    let state = State::new();
    let store = state.open();
    let head = "apiVersion: moenet.work/v1\nkind: Maintenance\nmetadata: {name: maintenance}\n";
    state.put("maintenance.yaml", format!("{head}spec: {{enabled: true}}\n"));
    let off = Document::new(name("maintenance"), None, 0, MaintenanceSpec::default());
    assert_eq!(store.write_document(&off).unwrap(), Written::Changed);
    assert!(!store.load().unwrap().maintenance.unwrap().unwrap().document.spec.enabled);
}

#[test]
fn an_edit_in_place_becomes_an_override_also_across_a_restart() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let synced = state.text("mesh/a.yaml");
    drop(store);
    state.put("mesh/a.yaml", synced.replace("mtu: 1400", "mtu: 1380"));
    let store = Store::open(&state.root()).unwrap();

    let refused = store.write_document(&peer("a", 1410)).unwrap_err();
    assert!(matches!(refused, StoreError::EditedInPlace { .. }), "{refused}");
    let edits = store.load().unwrap().edits;
    assert!(matches!(edits[0].change, Change::Edited { .. }) && edits.len() == 1, "{edits:?}");
    let now = "2026-11-23T00:00:00Z".parse().unwrap();
    assert!(matches!(store.absorb(&edits[0], now).unwrap(), Absorbed::Overridden(_)));
    assert_eq!(state.text("mesh/a.yaml"), synced);

    let snapshot = store.load().unwrap();
    assert!(snapshot.edits.is_empty());
    let kept = snapshot.overrides[&(Kind::MeshPeer, name("a"))].as_ref().unwrap();
    assert_eq!(kept.document.spec.reason, "edited in place");
    assert_eq!(serde_json::to_value(&kept.document.spec.set).unwrap(), serde_json::json!({"mtu": 1380}));
    store.write_document(&peer("a", 1410)).unwrap();
    assert!(store.load().unwrap().edits.is_empty());
}

#[test]
fn the_remarks_on_top_of_an_override_survive_an_edit_in_place() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let head = "# ticket 42\napiVersion: moenet.work/v1\nkind: Override\nmetadata: {name: a}\n";
    state.put("overrides/mesh/a.yaml", format!("{head}spec: {{reason: r, set: {{nodeId: 3}}}}\n"));
    state.put("mesh/a.yaml", state.text("mesh/a.yaml").replace("1400", "1380"));
    let edits = store.load().unwrap().edits;
    store.absorb(&edits[0], "2026-11-23T00:00:00Z".parse().unwrap()).unwrap();
    let text = state.text("overrides/mesh/a.yaml");
    assert!(
        text.starts_with("# ticket 42\n") && text.contains("nodeId: 3") && text.contains("mtu: 1380"),
        "{text}"
    );
}

#[test]
fn a_deleted_synced_document_is_put_back() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let synced = state.text("mesh/a.yaml");
    fs::remove_file(state.root().join("mesh/a.yaml")).unwrap();
    let edits = store.load().unwrap().edits;
    assert_eq!(edits[0].change, Change::Deleted);
    let now = "2026-11-23T00:00:00Z".parse().unwrap();
    assert_eq!(store.absorb(&edits[0], now).unwrap(), Absorbed::Restored);
    assert_eq!(state.text("mesh/a.yaml"), synced);
    assert!(store.remove_document(Kind::MeshPeer, &name("a")).unwrap());
    assert!(store.load().unwrap().edits.is_empty(), "what the sync removes stays away");
}

#[test]
fn a_crash_in_the_middle_of_a_sync_is_no_edit() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let old = state.text("mesh/a.yaml");
    let new = old.replace("1400", "1410");
    for document in [&old, &new] {
        state.put(".synced/mesh/a.yaml", &old);
        state.put(".synced/mesh/a.yaml.next", &new);
        state.put("mesh/a.yaml", document);
        state.put("mesh/.moenet-tmp-x", "half");
        let again = state.dir.path().join("again");
        fs::rename(state.root(), &again).unwrap();
        let store = Store::open(&again).map_err(|error| error.to_string());
        assert!(store.is_err(), "the lock moves with the directory");
        fs::rename(&again, state.root()).unwrap();
    }
    drop(store);
    for document in [&old, &new] {
        state.put(".synced/mesh/a.yaml", &old);
        state.put(".synced/mesh/a.yaml.next", &new);
        state.put("mesh/a.yaml", document);
        let store = Store::open(&state.root()).unwrap();
        assert!(store.load().unwrap().edits.is_empty());
        assert!(!state.root().join("mesh/.moenet-tmp-x").exists());
        assert!(!state.root().join(".synced/mesh/a.yaml.next").exists());
    }
}

#[test]
fn remarks_in_a_synced_document_are_no_edit_and_a_lost_uid_makes_it_the_operators() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let synced = state.text("mesh/a.yaml");
    state.put("mesh/a.yaml", format!("# looks good\n{synced}"));
    assert!(store.load().unwrap().edits.is_empty());
    state.put("mesh/a.yaml", synced.replace("  uid: uid-1\n", ""));
    assert!(store.load().unwrap().edits.is_empty());
    assert!(matches!(store.write_document(&peer("a", 1410)), Err(StoreError::OperatorOwned { .. })));
}

#[test]
fn secrets_are_private_from_the_first_byte_and_stay_in_their_folder() {
    let state = State::new();
    let store = state.open();
    let secret = Secret::new("hunter2".to_owned());
    store.write_secret("secrets/a.psk", &secret).unwrap();
    let path = state.root().join("secrets/a.psk");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&state.root().join("secrets"))), (0o600, 0o700));
    assert_eq!(store.read_secret("secrets/a.psk").unwrap().unwrap().expose(), "hunter2");
    assert_eq!(store.write_secret("secrets/a.psk", &secret).unwrap(), Written::Unchanged);
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
        assert!(matches!(store.read_secret(bad), Err(StoreError::SecretName(_))), "{bad}");
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
    let spec =
        OverrideSpec { reason: "r".into(), expires_at: None, paused: true, set: serde_json::Map::new() };
    let document = Document::new(name("a"), None, 0, spec);
    assert_eq!(store.write_override(Kind::MeshPeer, &document).unwrap(), Written::Changed);
    assert_eq!(store.write_override(Kind::MeshPeer, &document).unwrap(), Written::Unchanged);
    assert!(store.write_document(&document).is_err());
    assert_eq!(store.load().unwrap().overrides.len(), 1);
    assert!(store.remove_override(Kind::MeshPeer, &name("a")).unwrap());
}
