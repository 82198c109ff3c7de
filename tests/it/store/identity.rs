//! The identity of a state directory, and what it takes over.

use moenet_agent::document::{Kind, Metadata, PackedSpec};
use moenet_agent::store::{AppliedBody, AppliedDocument, StateIdentity, Store, StoreError};

use super::support::State;

#[test]
fn approval_of_an_earlier_build_reaches_the_running_agent() {
    let state = State::new();
    assert!(matches!(
        Store::approve_earlier_build(&state.root()),
        Err(StoreError::Vanished { .. })
    ));
    let store = state.open();
    let before = store.identity().unwrap();
    assert!(!before.succeeds.unnamed);
    let old = state.text("identity");
    assert!(Store::approve_earlier_build(&state.root()).unwrap());
    assert!(!Store::approve_earlier_build(&state.root()).unwrap());
    store.load().unwrap();
    let after = store.identity().unwrap();
    assert!(after.succeeds.unnamed);
    assert_eq!(after.identity, before.identity);
    // An old file, which Git restored, takes nothing from it.
    state.put("identity", old);
    store.load().unwrap();
    assert!(store.identity().unwrap().succeeds.unnamed);
    std::fs::remove_file(state.root().join("identity")).unwrap();
    store.load().unwrap();
    assert_eq!(StateIdentity::read(&state.root()), store.identity());
}

#[test]
fn tunnel_claims_do_not_prove_configured_bird() {
    let state = State::new();
    let store = state.open();
    let write = |kind: Kind, name: &str, spec: Option<serde_json::Value>| {
        let metadata = Metadata {
            name: name.parse().unwrap(),
            uid: None,
            generation: 1,
        };
        let body = AppliedBody {
            interfaces: ["wg_1".parse().unwrap()].into(),
            protocols: ["ebgp_wg_1".to_owned()].into(),
            spec: spec.as_ref().map(PackedSpec::from),
            ..AppliedBody::default()
        };
        let document = AppliedDocument::new(kind, metadata, body);
        store.write_applied(&document).unwrap();
        store.load().unwrap().applied_in_bird()
    };
    let some = || Some(serde_json::json!({"x": 1}));
    assert!(!write(Kind::BgpSession, "wg_1", None));
    assert!(!write(Kind::Maintenance, "maintenance", some()));
    assert!(!write(Kind::MeshPeer, "hk1", some()));
    assert!(write(Kind::BgpSession, "wg_1", some()));
}

#[test]
fn start_waits_a_moment_for_the_lock() {
    let state = State::new();
    let first = state.open();
    let start = std::thread::spawn({
        let root = state.root();
        move || Store::open(&root).map(drop)
    });
    std::thread::sleep(std::time::Duration::from_millis(100));
    drop(first);
    start.join().unwrap().unwrap();
}
