//! File events as real editors cause them.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::run_again;
use moenet_agent::document::Kind;
use moenet_agent::store::{Area, Hint, Place, Store, Watch};
use tokio::sync::mpsc::Receiver;

struct Watched {
    _dir: tempfile::TempDir,
    root: PathBuf,
    hints: Receiver<Hint>,
}

impl Watched {
    async fn new(poll: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        drop(Store::open(&root).unwrap());
        let mut hints = Watch { poll }.start(&root);
        settle(&mut hints).await;
        Self {
            _dir: dir,
            root,
            hints,
        }
    }

    fn put(&self, path: &str, text: &str) {
        fs::write(self.root.join(path), text).unwrap();
    }
}

/// All hints until it is quiet for a third of a second.
async fn settle(hints: &mut Receiver<Hint>) -> BTreeSet<Hint> {
    let mut found = BTreeSet::new();
    while let Ok(Some(hint)) = tokio::time::timeout(Duration::from_millis(350), hints.recv()).await
    {
        found.insert(hint);
    }
    found
}

fn changed(area: Area, name: &str) -> Hint {
    Hint::Changed(Place::new(area, Kind::MeshPeer, &name.parse().unwrap()))
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn every_way_to_save_a_file_gives_a_hint() {
    let mut watched = Watched::new(LONG).await;
    let shell = |command: &str| {
        let status = Command::new("sh")
            .args(["-ec", command])
            .current_dir(&watched.root)
            .status();
        assert!(status.unwrap().success(), "{command}");
    };
    for command in [
        "echo a > mesh/x.yaml",
        "echo a >> mesh/x.yaml",
        "sed -i s/a/b/ mesh/x.yaml",
        "echo c > .c; cp .c mesh/x.yaml; rm .c",
        "echo d > mesh/.x.swp; mv mesh/.x.swp mesh/x.yaml",
        "mv mesh/x.yaml mesh/x.yaml~; echo e > mesh/x.yaml; rm mesh/x.yaml~",
        "chmod 600 mesh/x.yaml",
        "rm mesh/x.yaml",
    ] {
        shell(command);
        let hints = settle(&mut watched.hints).await;
        assert_eq!(hints, [changed(Area::Documents, "x")].into(), "{command}");
    }
    shell("echo a > overrides/mesh/x.yaml");
    assert_eq!(
        settle(&mut watched.hints).await,
        [changed(Area::Overrides, "x")].into()
    );
    shell("echo a > policy.yaml");
    let policy = Hint::Changed(Place::single(Area::Documents, Kind::RoutingPolicy));
    assert_eq!(settle(&mut watched.hints).await, [policy].into());
    shell("echo a > secrets/x.psk");
    assert_eq!(settle(&mut watched.hints).await, [Hint::Everything].into());
}

#[tokio::test]
async fn a_hint_comes_well_within_a_second() {
    let mut watched = Watched::new(LONG).await;
    let start = std::time::Instant::now();
    watched.put("overrides/mesh/x.yaml", "a");
    assert_eq!(
        watched.hints.recv().await,
        Some(changed(Area::Overrides, "x"))
    );
    assert!(start.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn own_writes_and_reads_cause_no_hint() {
    let mut watched = Watched::new(LONG).await;
    fs::create_dir(watched.root.join(".git")).unwrap();
    for path in [
        ".git/x",
        "status/mesh/x.yaml",
        "applied/mesh/x.yaml",
        "outbox/x",
        ".lock",
        "mesh/.x.yaml.swp",
        "mesh/4913",
        "mesh/x.yaml~",
    ] {
        watched.put(path, "a");
    }
    let store = Store::open(&watched.root).unwrap();
    store.load().unwrap();
    assert_eq!(settle(&mut watched.hints).await, BTreeSet::new());
}

#[tokio::test]
async fn thousands_of_events_at_once_become_a_look_at_everything() {
    let mut watched = Watched::new(LONG).await;
    for number in 0..5000 {
        watched.put(&format!("mesh/p{number}.yaml"), "a");
    }
    assert!(settle(&mut watched.hints).await.contains(&Hint::Everything));
    watched.put("mesh/later.yaml", "a");
    assert!(
        settle(&mut watched.hints)
            .await
            .contains(&changed(Area::Documents, "later"))
    );
}

#[tokio::test]
async fn a_folder_that_was_replaced_is_watched_again() {
    let mut watched = Watched::new(LONG).await;
    fs::remove_dir(watched.root.join("mesh")).unwrap();
    fs::create_dir(watched.root.join("mesh")).unwrap();
    assert!(settle(&mut watched.hints).await.contains(&Hint::Everything));
    watched.put("mesh/x.yaml", "a");
    assert_eq!(
        settle(&mut watched.hints).await,
        [changed(Area::Documents, "x")].into()
    );
}

#[tokio::test]
async fn recreated_directory_is_listed_and_watched_again() {
    let mut watched = Watched::new(Duration::from_millis(200)).await;
    let away = watched.root.with_file_name("away");
    fs::rename(&watched.root, &away).unwrap();
    assert!(until_everything(&mut watched.hints).await);
    let copied = Command::new("cp")
        .arg("-a")
        .arg(&away)
        .arg(&watched.root)
        .status()
        .unwrap();
    assert!(copied.success());
    assert!(until_everything(&mut watched.hints).await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    settle_now(&mut watched.hints);
    watched.put("mesh/x.yaml", "a");
    assert_eq!(
        watched.hints.recv().await,
        Some(changed(Area::Documents, "x"))
    );
}

async fn until_everything(hints: &mut Receiver<Hint>) -> bool {
    let found = async { while hints.recv().await != Some(Hint::Everything) {} };
    tokio::time::timeout(Duration::from_secs(5), found)
        .await
        .is_ok()
}

fn settle_now(hints: &mut Receiver<Hint>) {
    while hints.try_recv().is_ok() {}
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_polled_for() {
    let dir = tempfile::tempdir().unwrap();
    let root: &Path = &dir.path().join("state");
    let mut hints = Watch {
        poll: Duration::from_millis(100),
    }
    .start(root);
    assert!(until_everything(&mut hints).await);
    assert!(until_everything(&mut hints).await);
}

const INSIDE: &str = "FEW_WATCHES_TEST_INSIDE";

/// Runs a test again in a user namespace with this limit, which is nobody else's. `true`: this is the run
/// inside.
fn in_a_namespace_with(limit: &str, test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let script = format!("echo {limit} || exit 77; exec \"$@\"");
    let mut wrapper = Command::new("unshare");
    wrapper
        .args(["--user", "--map-root-user", "sh", "-c", &script, "sh"])
        .env(INSIDE, "1");
    match run_again(&mut wrapper, test) {
        Some(0) => {}
        Some(101) => panic!("it failed inside the user namespace"),
        other => {
            assert!(
                std::env::var_os("CI").is_none(),
                "no user namespace to test in: {other:?}"
            );
            eprintln!("NOT TESTED: a limit of watches needs a user namespace ({other:?})");
        }
    }
    false
}

#[tokio::test]
async fn without_inotify_watches_changes_are_found_by_polling() {
    let limit = "3 > /proc/sys/user/max_inotify_watches";
    if !in_a_namespace_with(
        limit,
        test_path!("without_inotify_watches_changes_are_found_by_polling"),
    ) {
        return;
    }
    let mut watched = Watched::new(LONG).await;
    for path in ["mesh/x.yaml", "overrides/ibgp/x.yaml", "node.yaml"] {
        watched.put(path, "a");
        assert!(until_everything(&mut watched.hints).await, "{path}");
        settle(&mut watched.hints).await;
    }
}

#[tokio::test]
async fn missing_inotify_watches_are_retried() {
    let limit = "/proc/sys/user/max_inotify_instances";
    let test = test_path!("missing_inotify_watches_are_retried");
    if !in_a_namespace_with(&format!("0 > {limit}"), test) {
        return;
    }
    let mut watched = Watched::new(Duration::from_millis(200)).await;
    // Each time that it is asked for in vain is no reason to list a thousand documents.
    assert_eq!(settle(&mut watched.hints).await, BTreeSet::new());
    watched.put("mesh/x.yaml", "a");
    assert!(until_everything(&mut watched.hints).await);
    fs::write(limit, "1").unwrap();
    assert!(
        until_everything(&mut watched.hints).await,
        "something may have changed in between"
    );
    settle(&mut watched.hints).await;
    watched.put("mesh/x.yaml", "b");
    assert_eq!(
        settle(&mut watched.hints).await,
        [changed(Area::Documents, "x")].into()
    );
}
