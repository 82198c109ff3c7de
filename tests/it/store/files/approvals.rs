//! Approvals in the state directory.

use super::*;

#[test]
fn approval_of_one_object_leaves_the_operators_others_in_doubt() {
    let state = State::new();
    let store = state.open();
    let record = "apiVersion: moenet.work/v1\nkind: BgpSession\n\
                  metadata: {name: own, uid: local/sessions/own}\napplied: {interfaces: [wg_own]}\n";
    state.put("applied/sessions/own.yaml", record);
    fs::remove_dir_all(state.root().join("sessions")).unwrap();
    assert!(!store.load().unwrap().complete);
    store.confirm().unwrap();
    let snapshot = store.load().unwrap();
    assert!(snapshot.complete && !snapshot.operators_complete);
    store
        .remove_applied(Kind::BgpSession, &name("own"))
        .unwrap();
    assert!(
        store.load().unwrap().operators_complete,
        "no object is left in doubt"
    );
}

#[test]
fn spent_approval_keeps_one_that_was_given_meanwhile() {
    let state = State::new();
    let store = state.open();
    let lines = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Store::approve(&state.root(), &lines(&["sessions/a"])).unwrap();
    Store::approve(&state.root(), &lines(&["sessions/b"])).unwrap();
    store.spend_approvals(&lines(&["sessions/a"])).unwrap();
    assert_eq!(store.approved(), lines(&["sessions/b"]));
    store.spend_approvals(&lines(&["sessions/b"])).unwrap();
    assert!(!state.root().join("approved").exists());
}

#[test]
fn approvers_at_once_lose_no_approval() {
    let state = State::new();
    let store = state.open();
    let all: BTreeSet<String> = (0..16).map(|number| format!("sessions/{number}")).collect();
    std::thread::scope(|scope| {
        for object in &all {
            let root = state.root();
            scope.spawn(move || Store::approve(&root, &[object.clone()].into()).unwrap());
        }
    });
    assert_eq!(store.approved(), all);
}

#[test]
fn approver_without_the_lock_approves_nothing() {
    let state = State::new();
    let store = state.open();
    let (a, b) = ("sessions/a".to_owned(), "sessions/b".to_owned());
    Store::approve(&state.root(), &[a.clone()].into()).unwrap();
    let lock = fs::File::open(state.root().join(".approved.lock")).unwrap();
    lock.lock().unwrap();
    for outcome in [
        Store::approve(&state.root(), &[b.clone()].into()),
        store.spend_approvals(&[a.clone()].into()),
    ] {
        let text = outcome.unwrap_err().to_string();
        assert!(
            text.contains("another process changes the approvals"),
            "{text}"
        );
        assert!(text.contains("moenet-agent approve --list"), "{text}");
    }
    assert_eq!(store.approved(), [a].into());
    lock.unlock().unwrap();
    Store::approve(&state.root(), &[b].into()).unwrap();
    assert_eq!(store.approved().len(), 2);
}

#[test]
fn control_plane_list_does_not_decide_operators_documents() {
    let state = State::new();
    let store = state.open();
    let record = "apiVersion: moenet.work/v1\nkind: BgpSession\n\
                  metadata: {name: own, uid: local/sessions/own}\napplied: {interfaces: [wg_own]}\n";
    state.put("applied/sessions/own.yaml", record);
    fs::remove_dir_all(state.root().join("sessions")).unwrap();
    assert!(!store.load().unwrap().complete);
    store.confirm_listed(&store.load().unwrap()).unwrap();
    let snapshot = store.load().unwrap();
    assert!(snapshot.complete && !snapshot.operators_complete);
    drop(store);
    let store = Store::open(&state.root()).unwrap();
    assert!(!store.load().unwrap().operators_complete);
    state.put(
        "sessions/own.yaml",
        own("own").replace("MeshPeer", "BgpSession"),
    );
    store.confirm_listed(&store.load().unwrap()).unwrap();
    assert!(store.load().unwrap().operators_complete);
}
