//! A change is believed when it is whole, and not between two steps of an editor.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::support::{State, name, own, peer};
use moenet_agent::store::{Snapshot, Store};

const QUIET: Duration = Duration::from_millis(400);

fn patient(state: &State) -> Store {
    Store::open(&state.root()).unwrap().with_patience(QUIET)
}

/// Looks until nothing waits any more.
fn settled(store: &Store) -> Arc<Snapshot> {
    loop {
        let snapshot = store.load().unwrap();
        if snapshot.settled {
            return snapshot;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn mtu(snapshot: &Snapshot, peer: &str) -> Option<u16> {
    snapshot.mesh[&name(peer)]
        .as_ref()
        .unwrap()
        .document
        .spec
        .mtu
        .map(moenet_agent::model::Mtu::get)
}

#[test]
fn unsettled_change_lists_the_previous_state() {
    let state = State::new();
    drop(state.open());
    state.put("mesh/a.yaml", own("a"));
    let store = patient(&state);
    let first = store.load().unwrap();
    assert!(
        first.settled && first.mesh.contains_key(&name("a")),
        "at the start there is no before"
    );

    state.put("mesh/a.yaml", "");
    let between = store.load().unwrap();
    assert!(!between.settled && between.mesh[&name("a")].is_ok() && between.problems.is_empty());
    state.put(
        "mesh/a.yaml",
        own("a").replace("nodeId: 2", "nodeId: 2, mtu: 1400"),
    );
    assert_eq!(mtu(&store.load().unwrap(), "a"), None);
    assert_eq!(mtu(&settled(&store), "a"), Some(1400));

    fs::rename(
        state.root().join("mesh/a.yaml"),
        state.root().join("mesh/a.yaml~"),
    )
    .unwrap();
    assert!(
        store.load().unwrap().mesh.contains_key(&name("a")),
        "so its document may come back"
    );
    assert!(!settled(&store).mesh.contains_key(&name("a")), "it did not");
}

#[test]
fn broken_file_is_reported_and_its_fix_removes_nothing() {
    let state = State::new();
    drop(state.open());
    state.put("mesh/a.yaml", own("a"));
    let store = patient(&state);
    store.load().unwrap();
    state.put("mesh/a.yaml", "");
    assert!(settled(&store).mesh[&name("a")].is_err());
    state.put("mesh/a.yaml", own("a"));
    let between = store.load().unwrap();
    assert!(!between.settled && between.mesh.contains_key(&name("a")));
    assert!(settled(&store).mesh[&name("a")].is_ok());
}

#[test]
fn what_the_agent_writes_itself_is_whole_at_once() {
    let state = State::new();
    drop(state.open());
    let store = patient(&state);
    store.load().unwrap();
    store.write_document(&peer("a", 1400)).unwrap();
    let listed = store.load().unwrap();
    assert_eq!((mtu(&listed, "a"), listed.settled), (Some(1400), true));
    store.write_document(&peer("a", 1410)).unwrap();
    assert_eq!(mtu(&store.load().unwrap(), "a"), Some(1410));
    store
        .remove_document(moenet_agent::document::Kind::MeshPeer, &name("a"))
        .unwrap();
    assert!(!store.load().unwrap().mesh.contains_key(&name("a")));
}

#[test]
fn constantly_changing_file_is_read_at_the_deadline() {
    let state = State::new();
    drop(state.open());
    state.put("mesh/a.yaml", own("a"));
    let store = patient(&state);
    store.load().unwrap();
    let mut looks = 0;
    while mtu(&store.load().unwrap(), "a").is_none() {
        looks += 1;
        assert!(looks < 400, "never believed");
        state.put(
            "mesh/a.yaml",
            own("a").replace("nodeId: 2", "nodeId: 2, mtu: 1400"),
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(looks > 1);
}
