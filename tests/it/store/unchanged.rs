//! A listing is used again until something changes.
use std::sync::Arc;
use std::time::Duration;

use moenet_agent::document::Kind;
use moenet_agent::store::{Hint, Snapshot, Store};
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};

use super::support::{State, applied, name, own, peer};

/// A state directory whose listings are used again.
async fn watched() -> (State, Arc<Store>, Receiver<Hint>) {
    let state = State::new();
    let store = Arc::new(state.open());
    store.write_document(&peer("a", 1400)).unwrap();
    store.write_applied(&applied("a")).unwrap();
    let hints = store.watch();
    is_used_again(&store).await;
    (state, store, hints)
}

/// Waits until a listing is used again.
async fn is_used_again(store: &Store) {
    let again = async {
        while !Arc::ptr_eq(&store.load().unwrap(), &store.load().unwrap()) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), again).await.unwrap();
}

/// Checks that a store without any memory lists the same.
fn assert_current(listed: &Snapshot, state: &State) {
    let new = Store::open_read_only(&state.root()).unwrap().load();
    let new = new.unwrap();
    assert_eq!(listed.mesh, new.mesh);
    assert_eq!(listed.overrides, new.overrides);
    assert_eq!(listed.applied, new.applied);
    assert_eq!(listed.problems, new.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_writes_is_listed_at_once() {
    let (state, store, _hints) = watched().await;
    let first = store.load().unwrap();
    store.write_document(&peer("a", 1300)).unwrap();
    assert_current(&store.load().unwrap(), &state);
    is_used_again(&store).await;
    let before = store.load().unwrap();
    store.write_applied(&applied("b")).unwrap();
    let with_record = store.load().unwrap();
    assert_current(&with_record, &state);
    assert!(
        Arc::ptr_eq(&with_record, &store.load().unwrap()),
        "a record needs no listing"
    );
    store.write_applied(&applied("b")).unwrap();
    assert!(
        Arc::ptr_eq(&with_record, &store.load().unwrap()),
        "nor does one that is as it was"
    );
    assert_eq!((first.applied.len(), before.applied.len()), (1, 1));
    store.remove_applied(Kind::MeshPeer, &name("b")).unwrap();
    assert_current(&store.load().unwrap(), &state);
    store.remove_document(Kind::MeshPeer, &name("a")).unwrap();
    assert_current(&store.load().unwrap(), &state);
}

#[tokio::test(flavor = "multi_thread")]
async fn announced_writes_of_the_agent_need_one_listing() {
    let (state, store, mut hints) = watched().await;
    store.write_document(&peer("a", 1300)).unwrap();
    let listed = store.load().unwrap();
    assert!(hints.recv().await.is_some());
    sleep(Duration::from_millis(200)).await;
    assert!(Arc::ptr_eq(&listed, &store.load().unwrap()));
    let of_the_agent = std::fs::read_to_string(state.root().join("mesh/a.yaml")).unwrap();
    let by_others = of_the_agent.replace("1300", "1350");
    for text in [by_others, of_the_agent] {
        state.put("mesh/a.yaml", text);
        sleep(Duration::from_millis(200)).await;
        assert_current(&store.load().unwrap(), &state);
    }
    is_used_again(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listing_looks_at_changed_files_alone() {
    let (state, store, mut hints) = watched().await;
    let record = state.root().join("applied/mesh/a.yaml");
    let mut add = async |name: &str| {
        sleep(Duration::from_millis(200)).await;
        state.put(&format!("mesh/{name}.yaml"), own(name));
        while !store.load().unwrap().mesh.contains_key(&self::name(name)) {
            hints.recv().await.unwrap();
        }
    };
    add("b").await;
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, format!("{text}# by others\n")).unwrap();
    add("c").await;
    let listed = store.load().unwrap();
    let kept = &listed.applied[&(Kind::MeshPeer, name("a"))];
    assert_eq!(*kept.text, *text, "no event announces this change");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_is_listed_once_it_is_announced() {
    let (state, store, mut hints) = watched().await;
    let at = |path: &str| state.root().join(path);
    let steps: [(&str, &dyn Fn()); 6] = [
        ("add", &|| state.put("mesh/mine.yaml", own("mine"))),
        ("break", &|| state.put("mesh/mine.yaml", "no: document")),
        ("rename", &|| {
            std::fs::rename(at("mesh/mine.yaml"), at("mesh/other.yaml")).unwrap();
        }),
        ("remove", &|| {
            std::fs::remove_file(at("mesh/other.yaml")).unwrap()
        }),
        ("away", &|| std::fs::rename(at("mesh"), at("away")).unwrap()),
        ("back", &|| std::fs::rename(at("away"), at("mesh")).unwrap()),
    ];
    for (what, step) in steps {
        while timeout(Duration::from_millis(300), hints.recv())
            .await
            .is_ok()
        {}
        let before = store.load().unwrap();
        step();
        let hint = timeout(Duration::from_secs(10), hints.recv()).await;
        assert!(hint.unwrap().is_some(), "{what}");
        let listed = store.load().unwrap();
        assert!(!Arc::ptr_eq(&before, &listed), "{what}");
        match what {
            "away" => assert!(!listed.complete),
            _ => assert_current(&listed, &state),
        }
    }
}
