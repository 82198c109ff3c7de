//! A full disk and a read-only file system: real ones, in a mount namespace of their own.

use std::fs;
use std::process::Command;

use crate::support::small_disk::{fill, on_a_small_disk, remount};
use moenet_agent::document::{Document, Kind, MeshPeerSpec};
use moenet_agent::model::{ErrorClass, ObjectName, Secret};
use moenet_agent::store::{Store, StoreError, Written};

fn peer(mtu: u16) -> Document<MeshPeerSpec> {
    let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    let spec = serde_json::json!({"nodeId": 2, "mtu": mtu, "publicKey": key});
    let name: ObjectName = "a".parse().unwrap();
    Document::new(
        name,
        Some("uid-1".parse().unwrap()),
        1,
        serde_json::from_value(spec).unwrap(),
    )
}

#[test]
fn full_disk_keeps_last_good_state_until_there_is_room() {
    on_a_small_disk(
        test_path!("full_disk_keeps_last_good_state_until_there_is_room"),
        |disk| {
            let state = disk.join("state");
            let store = Store::open(&state).unwrap();
            store.write_document(&peer(1400)).unwrap();
            store.confirm().unwrap();
            let before = fs::read_to_string(state.join("mesh/a.yaml")).unwrap();
            fill(&disk.join("ballast"));

            let error = store.write_document(&peer(1410)).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Transient);
            let shown = error.to_string();
            assert!(
                shown.contains("disk is full") && shown.contains("mesh/a.yaml"),
                "{shown}"
            );
            assert!(
                store
                    .write_secret("secrets/a.psk", &Secret::new("x".into()))
                    .is_err()
            );
            assert_eq!(
                fs::read_to_string(state.join("mesh/a.yaml")).unwrap(),
                before
            );
            let snapshot = store.load().unwrap();
            assert!(snapshot.complete && snapshot.problems.is_empty() && snapshot.edits.is_empty());
            let left = fs::read_dir(state.join("mesh")).unwrap().count();
            assert_eq!(left, 1, "no temporary file is left behind");

            fs::remove_file(disk.join("ballast")).unwrap();
            assert_eq!(store.write_document(&peer(1410)).unwrap(), Written::Changed);
            assert!(store.load().unwrap().edits.is_empty());
        },
    );
}

#[test]
fn read_only_disk_stays_readable_and_says_what_to_do() {
    on_a_small_disk(
        test_path!("read_only_disk_stays_readable_and_says_what_to_do"),
        |disk| {
            let state = disk.join("state");
            let store = Store::open(&state).unwrap();
            store.write_document(&peer(1400)).unwrap();
            store.confirm().unwrap();
            drop(store);
            remount(disk, "ro");
            let store = Store::open(&state).unwrap();
            assert!(store.load().unwrap().complete);
            assert_eq!(
                store.write_document(&peer(1400)).unwrap(),
                Written::Unchanged
            );
            let error = store.write_document(&peer(1410)).unwrap_err().to_string();
            assert!(
                error.contains("read-only") && error.contains("remount"),
                "{error}"
            );
            remount(disk, "rw");
            assert_eq!(store.write_document(&peer(1410)).unwrap(), Written::Changed);
        },
    );
}

#[test]
fn approvals_on_a_read_only_disk_stay_as_they_are() {
    on_a_small_disk(
        test_path!("approvals_on_a_read_only_disk_stay_as_they_are"),
        |disk| {
            let state = disk.join("state");
            drop(Store::open(&state).unwrap());
            let (first, second) = (["mesh/a".to_owned()].into(), ["mesh/b".to_owned()].into());
            Store::approve(&state, &first).unwrap();
            remount(disk, "ro");
            let store = Store::open(&state).unwrap();
            let refused = [
                Store::approve(&state, &second),
                store.spend_approvals(&first),
            ];
            for error in refused.map(|outcome| outcome.unwrap_err()) {
                let shown = error.to_string();
                assert_eq!(error.class(), ErrorClass::Transient, "{shown}");
                assert!(
                    shown.contains("approved") && shown.contains("read-only"),
                    "{shown}"
                );
            }
            assert_eq!(store.approved(), first);
            remount(disk, "rw");
            store.spend_approvals(&first).unwrap();
            assert_eq!(store.approved(), [].into());
        },
    );
}

#[test]
fn unmounted_disk_is_an_error_until_it_returns() {
    on_a_small_disk(
        test_path!("unmounted_disk_is_an_error_until_it_returns"),
        |disk| {
            let state = disk.join("state");
            fs::create_dir(&state).unwrap();
            let hidden = disk.join("disk");
            fs::create_dir(&hidden).unwrap();
            let bind = || {
                Command::new("mount")
                    .arg("--bind")
                    .arg(&hidden)
                    .arg(&state)
                    .status()
                    .unwrap()
            };
            assert!(bind().success());
            let store = Store::open(&state).unwrap();
            store.write_document(&peer(1400)).unwrap();
            store.confirm().unwrap();
            assert!(
                Command::new("umount")
                    .arg("-l")
                    .arg(&state)
                    .status()
                    .unwrap()
                    .success()
            );
            assert!(matches!(store.load(), Err(StoreError::Vanished { .. })));
            assert!(store.write_document(&peer(1410)).is_err());
            assert_eq!(
                fs::read_dir(&state).unwrap().count(),
                0,
                "nothing is written below the mount point"
            );
            assert!(bind().success());
            assert!(store.load().unwrap().complete);
            assert!(
                !store
                    .remove_document(Kind::MeshPeer, &"b".parse().unwrap())
                    .unwrap()
            );
        },
    );
}
