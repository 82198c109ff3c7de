//! The history on a full disk and on a read-only one.

use std::fs;
use std::path::Path;

use crate::support::small_disk::{fill, on_a_small_disk, remount};
use moenet_agent::history::{Author, Cause, CommitId, History, HistoryError, Paths};

fn commit(history: &History) -> Result<Option<CommitId>, HistoryError> {
    let cause = Cause {
        author: Author::Agent,
        paths: Paths::All,
        subject: "x".into(),
        body: vec![],
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(history.commit(cause))
}

/// A committed document, and a change of it.
fn begun(disk: &Path) -> History {
    let history = History::new(disk);
    fs::create_dir(disk.join("sessions")).unwrap();
    fs::write(disk.join("sessions/a.yaml"), "a: 1\n").unwrap();
    assert!(commit(&history).unwrap().is_some());
    fs::write(disk.join("sessions/a.yaml"), "a: 2\n").unwrap();
    history
}

#[test]
fn full_disk_fails_commit_and_keeps_repository_intact() {
    on_a_small_disk(
        test_path!("full_disk_fails_commit_and_keeps_repository_intact"),
        |disk| {
            let history = begun(disk);
            fill(&disk.join("ballast"));
            for _ in 0..3 {
                let error = commit(&history).unwrap_err().to_string();
                assert!(error.contains("free space"), "{error}");
            }
            assert!(!disk.join(".git.broken").exists());
            fs::remove_file(disk.join("ballast")).unwrap();
            assert!(commit(&history).unwrap().is_some());
            let reports = fs::read_dir(disk.join(".git")).unwrap().flatten();
            assert!(
                !reports
                    .into_iter()
                    .any(|entry| entry.file_name().to_string_lossy().contains("crash"))
            );
        },
    );
}

#[test]
fn read_only_disk_fails_commit_and_stays_readable() {
    on_a_small_disk(
        test_path!("read_only_disk_fails_commit_and_stays_readable"),
        |disk| {
            let history = begun(disk);
            remount(disk, "ro");
            let error = commit(&history).unwrap_err().to_string();
            assert!(error.contains("Read-only"), "{error}");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            assert_eq!(runtime.block_on(history.log(&[], 5)).unwrap().len(), 1);
            remount(disk, "rw");
            assert!(commit(&history).unwrap().is_some());
        },
    );
}
