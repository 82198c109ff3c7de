//! What the agent writes itself is not parsed again.

use serde_json::json;

use super::support::{State, applied, mtu, name, peer};
use moenet_agent::document::{Kind, PackedSpec};
use moenet_agent::store::Store;

#[test]
fn copy_of_a_document_is_not_parsed_or_kept_again() {
    let state = State::new();
    let store = state.open();
    store.write_document(&peer("a", 1400)).unwrap();
    let parsed = store.parsed();
    let before = store.load().unwrap();
    assert_eq!(store.parsed(), parsed, "it was just written");
    store.write_document(&peer("a", 1401)).unwrap();
    let now = store.load().unwrap();
    assert_eq!((mtu(&now, "a"), mtu(&before, "a")), (1401, 1400));
    assert_eq!(store.parsed(), parsed);
    assert!(now.edits.is_empty());
    let start = Store::open_read_only(&state.root()).unwrap();
    assert_eq!(start.load().unwrap().mesh, now.mesh);
    assert_eq!(start.parsed(), 1, "its copy has the same text");
}

#[test]
fn written_record_is_known_as_a_start_reads_it() {
    let state = State::new();
    let store = state.open();
    let mut record = applied("a");
    record.applied.interfaces.insert("wg_a".parse().unwrap());
    record.applied.sysctls.insert("x".to_owned(), 1);
    record.applied.spec = Some(PackedSpec::from(&json!({"nodeId": 2, "mtu": 1400})));
    store.write_applied(&record).unwrap();
    let parsed = store.parsed();
    let read = |store: &Store| store.read_applied(Kind::MeshPeer, &name("a")).unwrap();
    assert_eq!(read(&store), record);
    assert_eq!(store.parsed(), parsed, "it was just written");
    assert_eq!(read(&Store::open_read_only(&state.root()).unwrap()), record);
    state.put("applied/mesh/a.yaml", "");
    assert!(store.read_applied(Kind::MeshPeer, &name("a")).is_none());
}
