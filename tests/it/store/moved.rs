//! A work tree that Git has moved: nothing is read from it, nothing new is written to it, and after the return
//! everything is as before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use moenet_agent::document::{BgpSessionSpec, Document, Kind, MaintenanceSpec, Metadata};
use moenet_agent::history::{Author, Cause, History, Paths};
use moenet_agent::store::{AppliedBody, AppliedDocument, Store, StoreError, Written};
use serde_json::json;

fn git(store: &Store, line: &str) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=op", "-c", "user.email=op@x"])
        .args(line.split(' '))
        .current_dir(store.dir())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {line}: {text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn session(mtu: u16) -> Document<BgpSessionSpec> {
    let spec = json!({"asn": 4_242_421_080u32, "tunnel": {"mtu": mtu}});
    let name = "wg_1".parse().unwrap();
    let spec = serde_json::from_value(spec).unwrap();
    Document::new(name, Some("u-1".parse().unwrap()), 1, spec)
}

fn applied(generation: u64) -> AppliedDocument {
    let metadata = Metadata {
        name: "wg_1".parse().unwrap(),
        uid: None,
        generation,
    };
    AppliedDocument::new(Kind::BgpSession, metadata, AppliedBody::default())
}

fn generation(store: &Store) -> Option<u64> {
    let record = store.read_applied(Kind::BgpSession, &"wg_1".parse().unwrap());
    record.map(|record| record.metadata.generation)
}

/// Two commits: MTU 1400 and generation 1, then MTU 1420 and generation 2.
fn two_commits() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    git(&store, "init -q --initial-branch=main");
    for (mtu, generation) in [(1400, 1), (1420, 2)] {
        store.write_document(&session(mtu)).unwrap();
        store.write_applied(&applied(generation)).unwrap();
        git(&store, "add sessions applied");
        git(&store, "commit -qm x");
    }
    (dir, store)
}

fn mtu(store: &Store) -> u64 {
    let snapshot = store.load().unwrap();
    assert_eq!(snapshot.edits, []);
    let stored = snapshot.sessions[&"wg_1".parse().unwrap()].clone().unwrap();
    serde_json::to_value(&stored.document.spec).unwrap()["tunnel"]["mtu"]
        .as_u64()
        .unwrap()
}

#[test]
fn old_commit_checked_out_changes_nothing() {
    let (_dir, store) = two_commits();
    assert_eq!((mtu(&store), generation(&store)), (1420, Some(2)));
    for checkout in ["checkout -q HEAD~1", "checkout -q -b look HEAD~1"] {
        git(&store, checkout);
        assert!(store.load().unwrap().moved.is_some(), "{checkout}");
        assert_eq!((mtu(&store), generation(&store)), (1420, Some(2)));
        git(&store, "checkout -q main");
        assert_eq!(store.load().unwrap().moved, None);
        assert_eq!((mtu(&store), generation(&store)), (1420, Some(2)));
        assert_eq!(git(&store, "status --porcelain -uno"), "");
    }
}

/// Waits until the stamps of files can be trusted, and lists.
fn settle(store: &Store) {
    std::thread::sleep(Duration::from_millis(300));
    store.load().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn record_that_waited_for_the_tree_is_listed() {
    let (_dir, store) = two_commits();
    let _hints = store.watch();
    (0..3).for_each(|_| settle(&store));
    git(&store, "checkout -q HEAD~1");
    assert!(store.load().unwrap().moved.is_some());
    assert_eq!(store.write_applied(&applied(3)).unwrap(), Written::Changed);
    git(&store, "checkout -q main");
    for _ in 0..3 {
        settle(&store);
        let listed = store.load().unwrap();
        let record = &listed.applied[&(Kind::BgpSession, "wg_1".parse().unwrap())];
        assert_eq!(record.document.metadata.generation, 3);
    }
}

#[test]
fn moved_tree_gets_no_documents_and_records_wait() {
    let (dir, store) = two_commits();
    store.load().unwrap();
    git(&store, "checkout -q HEAD~1");
    assert!(matches!(
        store.write_document(&session(1380)),
        Err(StoreError::Moved { .. })
    ));
    assert!(matches!(
        Store::approve(store.dir(), &["sessions/wg_1".to_owned()].into()),
        Err(StoreError::Moved { .. })
    ));
    assert_eq!(
        store.write_applied(&applied(2)).unwrap(),
        Written::Unchanged
    );
    assert_eq!(store.write_applied(&applied(3)).unwrap(), Written::Changed);
    assert_eq!(generation(&store), Some(3));
    assert_eq!(
        git(&store, "status --porcelain -uno"),
        "",
        "Git can go back"
    );
    // A crash loses no record.
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(matches!(store.load(), Err(StoreError::Moved { .. })));
    let tip = |path: &str| git(&store, &format!("show main:{path}")).into_bytes();
    let paths = ["sessions/wg_1.yaml", "applied/sessions/wg_1.yaml"];
    let files: BTreeMap<PathBuf, Vec<u8>> =
        paths.map(|path| (PathBuf::from(path), tip(path))).into();
    store.take_branch(&files).unwrap();
    assert_eq!((mtu(&store), generation(&store)), (1420, Some(3)));
    git(&store, "checkout -q main");
    assert_eq!((mtu(&store), generation(&store)), (1420, Some(3)));
    let record = std::fs::read_to_string(dir.path().join("applied/sessions/wg_1.yaml")).unwrap();
    assert!(record.contains("generation: 3"), "{record}");
}

#[test]
fn repository_without_the_branch_of_the_history_has_moved_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    git(&store, "init -q --initial-branch=other");
    assert_eq!(store.load().unwrap().moved, None);
    std::fs::write(dir.path().join(".git/HEAD"), "").unwrap();
    assert_eq!(
        store.load().unwrap().moved,
        None,
        "a broken HEAD is repaired"
    );
}

#[test]
fn tree_under_git_change_keeps_its_last_listing() {
    let (dir, store) = two_commits();
    store.load().unwrap();
    let lock = dir.path().join(".git/index.lock");
    std::fs::write(&lock, "").unwrap();
    git_removes(&store);
    let snapshot = store.load().unwrap();
    assert!(!snapshot.settled && snapshot.sessions.len() == 1);
    std::fs::remove_file(&lock).unwrap();
    let snapshot = store.load().unwrap();
    assert!(snapshot.settled && snapshot.sessions.is_empty());
}

/// The folder `mesh` has a document in the first commit, and none in the second.
fn mesh_only_in_the_past(quiet: Duration) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap().with_patience(quiet);
    store.confirm().unwrap();
    git(&store, "init -q --initial-branch=main");
    std::fs::write(dir.path().join("mesh/a.yaml"), "x").unwrap();
    git(&store, "add mesh");
    git(&store, "commit -qm x");
    std::fs::remove_file(dir.path().join("mesh/a.yaml")).unwrap();
    git(&store, "add mesh");
    git(&store, "commit -qm y");
    (dir, store)
}

#[test]
fn return_is_noticed_though_the_index_is_young() {
    const QUIET: Duration = Duration::from_millis(400);
    let (dir, store) = mesh_only_in_the_past(QUIET);
    std::thread::sleep(QUIET);
    assert!(store.load().unwrap().complete);
    git(&store, "checkout -q HEAD~1");
    assert!(store.load().unwrap().moved.is_some());
    git(&store, "checkout -q main");
    assert!(
        !dir.path().join("mesh").exists(),
        "Git keeps no empty folder"
    );
    assert!(!store.load().unwrap().settled);
    std::thread::sleep(QUIET);
    let snapshot = store.load().unwrap();
    assert!(snapshot.complete && snapshot.settled);
    assert!(dir.path().join("mesh").is_dir());
}

#[test]
fn folder_that_lost_documents_while_moved_leaves_a_doubt() {
    let (dir, store) = two_commits();
    store.confirm().unwrap();
    assert!(store.load().unwrap().complete);
    git(&store, "checkout -q HEAD~1");
    store.load().unwrap();
    git(&store, "checkout -q main");
    std::fs::remove_dir_all(dir.path().join("sessions")).unwrap();
    assert!(!store.load().unwrap().complete);
}

#[test]
fn record_removed_while_moved_stays_removed() {
    for restarted in [false, true] {
        let (dir, store) = two_commits();
        store.load().unwrap();
        git(&store, "checkout -q HEAD~1");
        let name = "wg_1".parse().unwrap();
        assert!(store.remove_applied(Kind::BgpSession, &name).unwrap());
        assert_eq!(store.load().unwrap().applied.len(), 0);
        git(&store, "checkout -q main");
        let store = if restarted {
            drop(store);
            Store::open(dir.path()).unwrap()
        } else {
            store
        };
        assert_eq!(store.load().unwrap().applied.len(), 0);
        assert!(!dir.path().join("applied/sessions/wg_1.yaml").exists());
        assert_eq!(generation(&store), None);
    }
}

#[test]
fn waiting_record_that_a_power_cut_emptied_removes_nothing() {
    let (dir, store) = two_commits();
    store.load().unwrap();
    git(&store, "checkout -q HEAD~1");
    store.write_applied(&applied(3)).unwrap();
    drop(store);
    let waiting = dir.path().join(".pending/applied/sessions/wg_1.yaml");
    std::fs::write(waiting, "").unwrap();
    git(
        &Store::open_read_only(dir.path()).unwrap(),
        "checkout -q main",
    );
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.load().unwrap().applied.len(), 1);
    assert_eq!(generation(&store), Some(2));
}

#[test]
fn record_that_cannot_be_written_yet_is_not_lost() {
    let (dir, store) = two_commits();
    store.load().unwrap();
    git(&store, "checkout -q HEAD~1");
    store.write_applied(&applied(3)).unwrap();
    git(&store, "checkout -q main");
    // A folder in its place keeps the record from being written.
    let path = dir.path().join("applied/sessions/wg_1.yaml");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir_all(path.join("x")).unwrap();
    store.load().unwrap();
    assert_eq!(generation(&store), Some(3));
    assert!(store.write_applied(&applied(4)).is_err());
    drop(store);
    std::fs::remove_dir_all(&path).unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.load().unwrap();
    assert_eq!(generation(&store), Some(4), "the newest one counts");
    assert!(
        std::fs::read_to_string(&path)
            .unwrap()
            .contains("generation: 4")
    );
    assert!(
        !dir.path()
            .join(".pending/applied/sessions/wg_1.yaml")
            .exists()
    );
}

#[test]
fn identity_is_not_written_during_a_git_change() {
    let (dir, store) = two_commits();
    store.load().unwrap();
    let lock = dir.path().join(".git/index.lock");
    std::fs::write(&lock, "").unwrap();
    std::fs::remove_file(dir.path().join("identity")).unwrap();
    store.load().unwrap();
    store.keep("public-key", "x").unwrap();
    assert!(!dir.path().join("identity").exists());
    std::fs::remove_file(&lock).unwrap();
    assert!(!store.load().unwrap().complete);
    assert!(dir.path().join("identity").exists());
}

#[test]
fn document_is_written_after_git_has_changed_the_tree() {
    let (dir, store) = two_commits();
    store.load().unwrap();
    let lock = dir.path().join(".git/index.lock");
    std::fs::write(&lock, "").unwrap();
    std::thread::scope(|scope| {
        let write = scope.spawn(|| store.write_document(&session(1380)));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!write.is_finished());
        std::fs::write(dir.path().join(".git/HEAD"), git(&store, "rev-parse main")).unwrap();
        std::fs::remove_file(&lock).unwrap();
        assert!(matches!(
            write.join().unwrap(),
            Err(StoreError::Moved { .. })
        ));
    });
}

type Write = fn(&Store) -> Result<(), StoreError>;

/// Every write to the tree.
const WRITES: [Write; 5] = [
    |store| store.write_document(&session(1380)).map(drop),
    |store| {
        let name = "wg_1".parse().unwrap();
        store.remove_document(Kind::BgpSession, &name).map(drop)
    },
    |store| {
        let name = "wg_1".parse().unwrap();
        store.remove_override(Kind::BgpSession, &name).map(drop)
    },
    |store| store.remove_revived(&[]).map(drop),
    Store::confirm,
];

#[test]
fn write_that_waits_for_git_blocks_nothing_else() {
    for write in WRITES {
        let (dir, store) = two_commits();
        store.load().unwrap();
        let lock = dir.path().join(".git/index.lock");
        std::fs::write(&lock, "").unwrap();
        std::thread::scope(|scope| {
            let write = scope.spawn(|| write(&store));
            // The write reaches its wait.
            std::thread::sleep(Duration::from_millis(100));
            assert!(!store.load().unwrap().settled);
            store.keep("held.yaml", "x").unwrap();
            assert_eq!(generation(&store), Some(2));
            assert!(!write.is_finished());
            std::fs::remove_file(&lock).unwrap();
            write.join().unwrap().unwrap();
        });
    }
}

fn git_removes(store: &Store) {
    std::fs::remove_file(store.dir().join("sessions/wg_1.yaml")).unwrap();
}

#[test]
fn commit_from_before_the_identity_keeps_the_identity() {
    let (dir, store) = two_commits();
    git(&store, "add identity");
    git(&store, "commit -qm identity");
    store.load().unwrap();
    let identity = std::fs::read_to_string(dir.path().join("identity")).unwrap();
    git(&store, "checkout -q HEAD~1");
    store.load().unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(!dir.path().join("identity").exists(), "Git can go back");
    git(&store, "checkout -q main");
    assert_eq!(mtu(&store), 1420);
    let now = std::fs::read_to_string(dir.path().join("identity")).unwrap();
    assert_eq!(now, identity);
}

#[tokio::test]
async fn own_commit_does_not_count_as_a_moving_tree() {
    let (dir, store) = two_commits();
    let store = {
        drop(store);
        Store::open(dir.path()).unwrap().with_patience(QUIET)
    };
    let history = History::new(store.dir());
    let quiet = |store: &Store| {
        let stamp = |file: &str| std::fs::File::open(dir.path().join(file)).unwrap();
        let old = std::time::SystemTime::now() - 2 * QUIET;
        stamp(".git/index").set_modified(old).unwrap();
        store.load().unwrap();
    };
    quiet(&store);
    store.write_document(&session(1300)).unwrap();
    let cause = Cause {
        author: Author::Agent,
        paths: Paths::All,
        subject: "x".to_owned(),
        body: Vec::new(),
    };
    assert!(history.commit(cause).await.unwrap().is_some());
    assert_eq!(
        git(&store, "diff --cached --name-only"),
        "",
        "the index is new"
    );
    let is_kept = |store: &Store| !store.load().unwrap().settled;
    assert!(!is_kept(&store), "the agent's own commit");
    // Another git than the agent's.
    std::fs::write(dir.path().join("sessions/other.yaml"), "x").unwrap();
    git(&store, "add sessions/other.yaml");
    assert!(is_kept(&store), "another git");
}

const QUIET: std::time::Duration = std::time::Duration::from_secs(60);

#[test]
fn document_that_the_control_plane_removed_is_not_revived() {
    let (dir, store) = two_commits();
    assert_eq!(store.load().unwrap().sessions.len(), 1);
    let name = "wg_1".parse().unwrap();
    let mut record = applied(2);
    record.metadata.uid = Some("u-1".parse().unwrap());
    store.write_applied(&record).unwrap();
    git(&store, "add applied");
    git(&store, "commit -qm applied");
    store.remove_document(Kind::BgpSession, &name).unwrap();
    let reset = |store: &Store| {
        git(store, "reset -q --hard HEAD");
        assert!(dir.path().join("sessions/wg_1.yaml").exists());
        store.load().unwrap()
    };
    let held = reset(&store);
    assert_eq!((held.sessions.len(), held.applied.len()), (0, 1), "held");
    store.remove_applied(Kind::BgpSession, &name).unwrap();
    assert_eq!(reset(&store).applied.len(), 0, "the session is gone");

    // A restart knows it too, and a tool that cleans takes nothing away.
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    git(&store, "clean -qfdx");
    let revived = reset(&store);
    assert_eq!((revived.sessions.len(), revived.applied.len()), (0, 0));
    assert_eq!(revived.edits, []);
    assert_eq!(store.remove_revived(&revived.revived).unwrap().len(), 2);
    assert_eq!(store.load().unwrap().revived, []);

    store.write_document(&session(1420)).unwrap();
    assert_eq!(mtu(&store), 1420, "wanted again");
    assert_eq!(reset(&store).sessions.len(), 1);
}

#[test]
fn record_that_the_agent_writes_is_not_restored_by_git() {
    let (_dir, store) = two_commits();
    let name = "wg_1".parse().unwrap();
    store.remove_document(Kind::BgpSession, &name).unwrap();
    // A reconcile of the desired state before claims the session's link meanwhile.
    let mut record = applied(2);
    record.metadata.uid = Some("u-1".parse().unwrap());
    store.write_applied(&record).unwrap();
    let listed = store.load().unwrap();
    assert_eq!((listed.applied.len(), listed.revived.len()), (1, 0));
    store.remove_applied(Kind::BgpSession, &name).unwrap();
    assert_eq!(store.load().unwrap().applied.len(), 0);
}

#[test]
fn cleaned_copies_are_written_again_and_edits_still_found() {
    let (dir, store) = two_commits();
    store.load().unwrap();
    let copy = dir.path().join(".synced/sessions/wg_1.yaml");
    let before = std::fs::read(&copy).unwrap();
    git(&store, "clean -qfdx");
    assert!(!copy.exists());
    let document = dir.path().join("sessions/wg_1.yaml");
    let edited = std::fs::read_to_string(&document).unwrap();
    std::fs::write(&document, edited.replace("1420", "1380")).unwrap();
    assert_eq!(store.load().unwrap().edits.len(), 1);
    assert_eq!(std::fs::read(&copy).unwrap(), before);
    store
        .remove_document(Kind::BgpSession, &"wg_1".parse().unwrap())
        .unwrap();
    store.load().unwrap();
    assert!(!copy.exists(), "the agent's own removal stays");
}

#[test]
fn maintenance_works_on_a_moved_tree_and_after_return() {
    let (dir, store) = two_commits();
    store.load().unwrap();
    let document = |enabled: bool| -> Document<MaintenanceSpec> {
        let spec = MaintenanceSpec {
            enabled,
            since: None,
        };
        Document::new("maintenance".parse().unwrap(), None, 0, spec)
    };
    let enabled = |store: &Store| {
        let slot = &store.load().unwrap().maintenance;
        let slot = slot.as_ref().map(|slot| slot.as_ref().unwrap());
        slot.is_some_and(|slot| slot.document.spec.enabled)
    };
    git(&store, "checkout -q HEAD~1");
    assert!(!enabled(&store));
    let written = store.write_document(&document(true)).unwrap();
    assert_eq!((written, enabled(&store)), (Written::Changed, true));
    assert_eq!(git(&store, "status --porcelain -uno"), "");
    assert!(!dir.path().join("maintenance.yaml").exists());
    // A crash loses nothing.
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    store.take_branch(&BTreeMap::new()).unwrap();
    assert!(enabled(&store));
    git(&store, "checkout -q main");
    // Also while Git is still at work.
    let lock = dir.path().join(".git/index.lock");
    std::fs::write(&lock, "").unwrap();
    assert!(enabled(&store));
    std::fs::remove_file(&lock).unwrap();
    assert!(enabled(&store));
    let text = std::fs::read_to_string(dir.path().join("maintenance.yaml")).unwrap();
    assert!(text.contains("enabled: true"), "{text}");
    store.write_document(&document(false)).unwrap();
    assert!(!enabled(&store), "nothing waits any more");
}

#[test]
fn reader_without_the_lock_sees_waiting_records_and_writes_nothing() {
    let (dir, store) = two_commits();
    store.load().unwrap();
    git(&store, "checkout -q HEAD~1");
    store.write_applied(&applied(3)).unwrap();
    let maintenance = MaintenanceSpec {
        enabled: true,
        ..MaintenanceSpec::default()
    };
    let name = "maintenance".parse().unwrap();
    let document = Document::new(name, None, 0, maintenance);
    store.write_document(&document).unwrap();
    // The agent crashes, and HEAD returns.
    let reader = Store::open_read_only(store.dir()).unwrap();
    git(&store, "checkout -q main");
    drop(store);
    let seen = || {
        let snapshot = reader.load().unwrap();
        let key = (Kind::BgpSession, "wg_1".parse().unwrap());
        let maintenance = snapshot.maintenance.as_ref();
        let maintenance = maintenance.map(|slot| slot.as_ref().unwrap());
        let drained = maintenance.is_some_and(|stored| stored.document.spec.enabled);
        let listed = snapshot.applied[&key].document.metadata.generation;
        assert_eq!(generation(&reader), Some(listed));
        (listed, drained)
    };
    let waiting = dir.path().join(".pending/applied/sessions/wg_1.yaml");
    assert_eq!(seen(), (3, true));
    assert!(waiting.exists() && !dir.path().join("maintenance.yaml").exists());
    assert_eq!(git(&reader, "status --porcelain -uno"), "");
    // The agent starts again and goes on.
    let store = Store::open(dir.path()).unwrap();
    store.load().unwrap();
    assert!(!waiting.exists());
    assert_eq!(seen(), (3, true));
    store.write_applied(&applied(4)).unwrap();
    assert_eq!(seen(), (4, true));
}
