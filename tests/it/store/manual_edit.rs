//! Edits by hand of what the sync wrote: none is lost, and none is made up.

use std::fs;

use super::support::{State, name, own, peer};
use moenet_agent::document::Kind;
use moenet_agent::store::{Change, ImportedEdit, Store, StoreError};

#[test]
fn manual_edit_becomes_an_override_across_a_restart() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let synced = state.text("mesh/a.yaml");
    drop(store);
    state.put("mesh/a.yaml", synced.replace("mtu: 1400", "mtu: 1380"));
    let store = Store::open(&state.root()).unwrap();

    let refused = store.write_document(&peer("a", 1410)).unwrap_err();
    assert!(
        matches!(refused, StoreError::EditedInPlace { .. }),
        "{refused}"
    );
    let edits = &store.load().unwrap().edits;
    assert!(
        matches!(edits[0].change, Change::Edited { .. }) && edits.len() == 1,
        "{edits:?}"
    );
    let now = "2026-11-23T00:00:00Z".parse().unwrap();
    assert!(matches!(
        store.import_edit(&edits[0], now).unwrap(),
        ImportedEdit::Overridden(_)
    ));
    assert_eq!(state.text("mesh/a.yaml"), synced);

    let snapshot = store.load().unwrap();
    assert!(snapshot.edits.is_empty());
    let kept = snapshot.overrides[&(Kind::MeshPeer, name("a"))]
        .as_ref()
        .unwrap();
    assert_eq!(kept.document.spec.reason, "edited in place");
    assert_eq!(
        serde_json::to_value(&kept.document.spec.set).unwrap(),
        serde_json::json!({"mtu": 1380})
    );
    store.write_document(&peer("a", 1410)).unwrap();
    assert!(store.load().unwrap().edits.is_empty());
}

#[test]
fn comments_of_an_override_survive_a_manual_edit() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let head = "# ticket 42\napiVersion: moenet.work/v1\nkind: Override\nmetadata: {name: a}\n";
    state.put(
        "overrides/mesh/a.yaml",
        format!("{head}spec: {{reason: r, set: {{nodeId: 3}}}}\n"),
    );
    state.put(
        "mesh/a.yaml",
        state.text("mesh/a.yaml").replace("1400", "1380"),
    );
    let edits = &store.load().unwrap().edits;
    store
        .import_edit(&edits[0], "2026-11-23T00:00:00Z".parse().unwrap())
        .unwrap();
    let text = state.text("overrides/mesh/a.yaml");
    assert!(
        text.starts_with("# ticket 42\n")
            && text.contains("nodeId: 3")
            && text.contains("mtu: 1380"),
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
    let edits = &store.load().unwrap().edits;
    assert_eq!(edits[0].change, Change::Deleted);
    let now = "2026-11-23T00:00:00Z".parse().unwrap();
    assert_eq!(
        store.import_edit(&edits[0], now).unwrap(),
        ImportedEdit::Restored
    );
    assert_eq!(state.text("mesh/a.yaml"), synced);
    assert!(store.remove_document(Kind::MeshPeer, &name("a")).unwrap());
    assert!(
        store.load().unwrap().edits.is_empty(),
        "what the sync removes stays away"
    );
}

#[test]
fn crash_during_a_sync_is_no_manual_edit() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let old = state.text("mesh/a.yaml");
    let new = old.replace("1400", "1410");
    drop(store);
    for document in [&old, &new] {
        state.put(".synced/mesh/a.yaml", &old);
        state.put(".synced/mesh/a.yaml.next", &new);
        state.put("mesh/a.yaml", document);
        // Of a killed agent; in secrets/ it may be half of a key.
        let halves = ["mesh", "status/mesh", "secrets", "outbox"]
            .map(|folder| format!("{folder}/.moenet-tmp-x"));
        for half in &halves {
            state.put(half, "half");
        }
        let store = Store::open(&state.root()).unwrap();
        assert!(store.load().unwrap().edits.is_empty());
        for half in &halves {
            assert!(!state.root().join(half).exists(), "{half}");
        }
        assert!(!state.root().join(".synced/mesh/a.yaml.next").exists());
    }
}

#[test]
fn comments_are_no_edit_and_lost_uid_changes_the_owner() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let synced = state.text("mesh/a.yaml");
    state.put("mesh/a.yaml", format!("# looks good\n{synced}"));
    assert!(store.load().unwrap().edits.is_empty());
    state.put("mesh/a.yaml", synced.replace("  uid: uid-1\n", ""));
    import_all(&store);
    assert!(matches!(
        store.write_document(&peer("a", 1410)),
        Err(StoreError::OperatorOwned { .. })
    ));
}

/// Imports every manual edit, and returns the changes.
fn import_all(store: &Store) -> Vec<Change> {
    let edits = &store.load().unwrap().edits;
    let now = "2026-11-23T00:00:00Z".parse().unwrap();
    edits
        .iter()
        .for_each(|edit| drop(store.import_edit(edit, now).unwrap()));
    edits.iter().map(|edit| edit.change.clone()).collect()
}

#[test]
fn operator_owned_document_stays_owned_when_it_breaks() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let synced = state.text("mesh/a.yaml");
    let own = synced.replace("  uid: uid-1\n", "");
    state.put("mesh/a.yaml", &own);
    assert_eq!(import_all(&store), [Change::TakenOver]);
    assert_eq!(
        (import_all(&store), state.text("mesh/a.yaml")),
        (Vec::new(), own)
    );
    state.put("mesh/a.yaml", "spec: {");
    drop(store);
    let store = Store::open(&state.root()).unwrap();
    assert!(store.load().unwrap().broken.is_empty());
    assert!(matches!(
        store.remove_document(Kind::MeshPeer, &name("a")),
        Err(StoreError::Document(_))
    ));
    assert_eq!(state.text("mesh/a.yaml"), "spec: {");
    // Deleted, it is the sync's again, and so it is with its uid back.
    fs::remove_file(state.root().join("mesh/a.yaml")).unwrap();
    assert_eq!(import_all(&store), [Change::Deleted]);
    assert_eq!(state.text("mesh/a.yaml"), synced);
    assert_eq!(import_all(&store), [Change::GivenBack]);
    assert_eq!(
        (import_all(&store), state.text(".synced/mesh/a.yaml")),
        (Vec::new(), synced)
    );
}

#[test]
fn invalid_file_of_removed_document_is_quarantined() {
    let state = State::new();
    let store = state.open();
    let there = |path: &str| fs::symlink_metadata(state.root().join(path)).is_ok();
    for (number, half) in [
        "spec: {",
        "\0\0",
        "kind: MeshPeer\nmetadata: {name: b, uid: uid-1}\n",
    ]
    .iter()
    .enumerate()
    {
        store.write_document(&peer("a", 1400)).unwrap();
        state.put("mesh/a.yaml", half);
        let broken = &store.load().unwrap().broken;
        assert_eq!(broken[&(Kind::MeshPeer, name("a"))].uid.as_str(), "uid-1");
        assert!(store.remove_document(Kind::MeshPeer, &name("a")).unwrap());
        assert!(!there("mesh/a.yaml") && !there(".synced/mesh/a.yaml"));
        let ending = if number == 0 {
            String::new()
        } else {
            format!(".{}", number + 1)
        };
        assert_eq!(state.text(&format!("mesh/a.yaml.broken{ending}")), *half);
    }
    store.write_document(&peer("a", 1400)).unwrap();
    fs::rename(
        state.root().join("mesh/a.yaml"),
        state.root().join("mesh/a.yml"),
    )
    .unwrap();
    assert!(store.remove_document(Kind::MeshPeer, &name("a")).unwrap());
    assert!(!there("mesh/a.yml") && there("mesh/a.yml.broken"));
    store.write_document(&peer("a", 1400)).unwrap();
    fs::remove_file(state.root().join("mesh/a.yaml")).unwrap();
    fs::create_dir(state.root().join("mesh/a.yaml")).unwrap();
    assert_eq!(
        store.displace_document(&peer("a", 1410)).unwrap(),
        moenet_agent::store::Written::Changed
    );
    assert!(state.text("mesh/a.yaml").contains("1410") && there("mesh/a.yaml.broken.4"));
    assert!(store.load().unwrap().problems.is_empty());
}

#[test]
fn broken_document_without_uid_belongs_to_the_operator() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let half = state
        .text("mesh/a.yaml")
        .replace("  uid: uid-1\n", "")
        .replace("1400", "99999");
    state.put("mesh/a.yaml", &half);
    let snapshot = store.load().unwrap();
    assert!(snapshot.broken.is_empty() && snapshot.mesh[&name("a")].is_err());
    assert!(matches!(
        store.remove_document(Kind::MeshPeer, &name("a")),
        Err(StoreError::OperatorOwned { .. })
    ));
    assert_eq!(state.text("mesh/a.yaml"), half);
}

#[test]
fn an_invalid_override_keeps_the_edit_where_it_is() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    state.put("overrides/mesh/a.yaml", "half");
    let edited = state.text("mesh/a.yaml").replace("1400", "1380");
    state.put("mesh/a.yaml", &edited);
    let edits = &store.load().unwrap().edits;
    let error = store
        .import_edit(&edits[0], "2026-11-23T00:00:00Z".parse().unwrap())
        .unwrap_err();
    assert!(matches!(error, StoreError::Document(_)), "{error}");
    assert_eq!(
        (
            state.text("mesh/a.yaml"),
            state.text("overrides/mesh/a.yaml")
        ),
        (edited, "half".to_owned())
    );
}

#[test]
fn an_edit_that_goes_on_is_not_put_back_over() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let synced = state.text("mesh/a.yaml");
    state.put("mesh/a.yaml", synced.replace("1400", "1380"));
    let edits = &store.load().unwrap().edits;
    state.put("mesh/a.yaml", synced.replace("1400", "1390"));
    store
        .import_edit(&edits[0], "2026-11-23T00:00:00Z".parse().unwrap())
        .unwrap();
    assert!(
        state.text("mesh/a.yaml").contains("1390"),
        "the later edit is found by the next listing"
    );
    assert_eq!(store.load().unwrap().edits.len(), 1);
}

#[test]
fn an_operators_own_document_is_no_edit() {
    let state = State::new();
    let store = state.open();
    state.put("mesh/a.yaml", own("a"));
    assert!(store.load().unwrap().edits.is_empty());
    assert_eq!(state.text("mesh/a.yaml"), own("a"));
    assert!(!store.remove_document(Kind::MeshPeer, &name("b")).unwrap());
}

#[test]
fn copy_with_the_same_uid_is_rejected_original_unchanged() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("b", 1400)).unwrap();
    for copy in ["a", "c"] {
        let text = state
            .text("mesh/b.yaml")
            .replace("name: b", &format!("name: {copy}"));
        state.put(&format!("mesh/{copy}.yaml"), text);
    }
    let snapshot = store.load().unwrap();
    assert!(snapshot.mesh[&name("b")].is_ok());
    for copy in ["a", "c"] {
        let error = snapshot.mesh[&name(copy)].as_ref().unwrap_err().to_string();
        assert!(
            error.contains(&format!("mesh/{copy}.yaml:")) && error.contains("b has the same uid"),
            "{error}"
        );
    }
    assert!(snapshot.edits.is_empty());
}

#[test]
fn restored_document_never_overwrites_a_faster_editor() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let synced = state.text("mesh/a.yaml");
    fs::remove_file(state.root().join("mesh/a.yaml")).unwrap();
    let edits = &store.load().unwrap().edits;
    state.put("mesh/a.yaml", synced.replace("1400", "1380"));
    store
        .import_edit(&edits[0], "2026-11-23T00:00:00Z".parse().unwrap())
        .unwrap();
    assert!(state.text("mesh/a.yaml").contains("1380"));
}
