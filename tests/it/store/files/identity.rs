//! The identity of the directory.

use super::*;

#[test]
fn identity_is_made_once_and_outlives_what_cleans_it_away() {
    let state = State::new();
    let store = state.open();
    let known = store.identity().unwrap();
    fs::remove_file(state.root().join(IDENTITY)).unwrap();
    assert!(
        !store.load().unwrap().complete,
        "what else is gone cannot be told"
    );
    drop(store);
    assert_eq!(StateIdentity::read(&state.root()), Some(known.clone()));
    let store = Store::open(&state.root()).unwrap();
    assert_eq!(store.identity(), Some(known));
}

#[test]
fn marker_of_an_earlier_build_becomes_the_identity() {
    let state = State::new();
    drop(state.open());
    fs::remove_file(state.root().join(IDENTITY)).unwrap();
    state.put(
        ".moenet-state",
        "# x\nid: 00112233445566778899aabbccddeeff\nunproven: true\n",
    );
    let store = Store::open(&state.root()).unwrap();
    let known = store.identity().unwrap();
    assert_eq!(known.identity.as_str(), "0011223344556677");
    assert!(!store.load().unwrap().complete);
    assert!(!state.root().join(".moenet-state").exists());
    drop(store);
    assert_eq!(Store::open(&state.root()).unwrap().identity(), Some(known));
}

#[test]
fn identity_with_a_succession_reads_back_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let succeeds = Succession {
        identities: ["00000000000000ff".parse().unwrap()].into(),
        unnamed: true,
    };
    let known = StateIdentity::new(succeeds);
    known.write(dir.path()).unwrap();
    assert_eq!(StateIdentity::read(dir.path()), Some(known));
}
