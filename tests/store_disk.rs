//! A full disk and a read-only file system: real ones, in a mount namespace of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use moenet_agent::document::{Document, Kind, MeshPeerSpec};
use moenet_agent::model::{ObjectName, Secret};
use moenet_agent::store::{Store, StoreError, Written};

const INSIDE: &str = "STORE_DISK_TEST_INSIDE";

/// Runs a test of this file again in a mount namespace, with a tmpfs of 256 KiB on a directory that
/// the child finds in its environment. Where that is not allowed, it says so, and fails under CI.
fn on_a_small_disk(test: &str, body: fn(&Path)) {
    if let Some(dir) = std::env::var_os(INSIDE) {
        return body(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=256k tmpfs \"$1\" || exit 77; shift; exec \"$@\"";
    let status = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, dir.path())
        .status();
    match status.map(|status| status.code()) {
        Ok(Some(0)) => {}
        Ok(Some(101)) => panic!("{test} failed inside the mount namespace"),
        other => {
            assert!(std::env::var_os("CI").is_none(), "no mount namespace to test in: {other:?}");
            eprintln!("NOT TESTED: {test} needs a mount namespace ({other:?})");
        }
    }
}

fn peer(mtu: u16) -> Document<MeshPeerSpec> {
    let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    let spec = serde_json::json!({"nodeId": 2, "mtu": mtu, "publicKey": key});
    let name: ObjectName = "a".parse().unwrap();
    Document::new(name, Some("uid-1".parse().unwrap()), 1, serde_json::from_value(spec).unwrap())
}

/// Fills the disk to the last byte; the file can be removed again.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[b'x'; 512]).is_ok() {}
}

#[test]
fn a_full_disk_leaves_the_last_good_and_goes_on_when_there_is_room() {
    on_a_small_disk("a_full_disk_leaves_the_last_good_and_goes_on_when_there_is_room", |disk| {
        let state = disk.join("state");
        let store = Store::open(&state).unwrap();
        store.write_document(&peer(1400)).unwrap();
        store.confirm().unwrap();
        let before = fs::read_to_string(state.join("mesh/a.yaml")).unwrap();
        fill(&disk.join("ballast"));

        let error = store.write_document(&peer(1410)).unwrap_err();
        assert!(error.is_transient());
        let shown = error.to_string();
        assert!(shown.contains("disk is full") && shown.contains("mesh/a.yaml"), "{shown}");
        assert!(store.write_secret("secrets/a.psk", &Secret::new("x".into())).is_err());
        assert_eq!(fs::read_to_string(state.join("mesh/a.yaml")).unwrap(), before);
        let snapshot = store.load().unwrap();
        assert!(snapshot.complete && snapshot.problems.is_empty() && snapshot.edits.is_empty());
        let left = fs::read_dir(state.join("mesh")).unwrap().count();
        assert_eq!(left, 1, "no temporary file is left behind");

        fs::remove_file(disk.join("ballast")).unwrap();
        assert_eq!(store.write_document(&peer(1410)).unwrap(), Written::Changed);
        assert!(store.load().unwrap().edits.is_empty());
    });
}

#[test]
fn a_read_only_disk_is_read_on_and_says_what_to_do() {
    on_a_small_disk("a_read_only_disk_is_read_on_and_says_what_to_do", |disk| {
        let state = disk.join("state");
        let remount = |mode: &str| {
            let status = Command::new("mount").args(["-o", &format!("remount,{mode}")]).arg(disk).status();
            assert!(status.unwrap().success());
        };
        let store = Store::open(&state).unwrap();
        store.write_document(&peer(1400)).unwrap();
        store.confirm().unwrap();
        drop(store);
        remount("ro");
        let store = Store::open(&state).unwrap();
        assert!(store.load().unwrap().complete);
        assert_eq!(store.write_document(&peer(1400)).unwrap(), Written::Unchanged);
        let error = store.write_document(&peer(1410)).unwrap_err().to_string();
        assert!(error.contains("read-only") && error.contains("remount"), "{error}");
        remount("rw");
        assert_eq!(store.write_document(&peer(1410)).unwrap(), Written::Changed);
    });
}

#[test]
fn an_unmounted_disk_is_an_error_and_all_goes_on_when_it_is_back() {
    on_a_small_disk("an_unmounted_disk_is_an_error_and_all_goes_on_when_it_is_back", |disk| {
        let state = disk.join("state");
        fs::create_dir(&state).unwrap();
        let hidden = disk.join("disk");
        fs::create_dir(&hidden).unwrap();
        let bind = || Command::new("mount").arg("--bind").arg(&hidden).arg(&state).status().unwrap();
        assert!(bind().success());
        let store = Store::open(&state).unwrap();
        store.write_document(&peer(1400)).unwrap();
        store.confirm().unwrap();
        assert!(Command::new("umount").arg("-l").arg(&state).status().unwrap().success());
        assert!(matches!(store.load(), Err(StoreError::Vanished { .. })));
        assert!(store.write_document(&peer(1410)).is_err());
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "nothing is written below the mount point");
        assert!(bind().success());
        assert!(store.load().unwrap().complete);
        assert!(!store.remove_document(Kind::MeshPeer, &"b".parse().unwrap()).unwrap());
    });
}
