//! The ways in which `get` lists: names, more columns, by phase, sorted, and followed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::{NAME, Router};

#[test]
fn names_are_paths_that_other_verbs_take() {
    let router = Router::new();
    let names = router.call(&["get", "-o", "name"]);
    names.says(0, &format!("sessions/{NAME}"));
    for name in names.out.lines() {
        assert_eq!(router.call(&["get", name]).code, 0, "{name}");
    }
}

#[test]
fn wide_table_has_handshake_loss_and_routes() {
    let wide = Router::new().call(&["get", NAME, "-o", "wide"]);
    for column in ["HANDSHAKE", "RTT", "LOSS", "IMPORTED", "EXPORTED"] {
        wide.says(0, column);
    }
}

#[test]
fn only_objects_in_the_phases_are_listed() {
    let router = Router::new();
    let rows = |phase: &str| {
        let rows = router.call(&["get", "--phase", phase, "-o", "json"]);
        rows.json().as_array().unwrap().clone()
    };
    let established = rows("Established");
    assert!(!established.is_empty());
    let phases = established.iter().map(|row| &row["status"]["phase"]);
    assert!(phases.into_iter().all(|phase| phase == "Established"));
    assert!(rows("Deleting").is_empty());
    router
        .call(&["get", "--phase", "established"])
        .says(64, "Established");
}

#[test]
fn rows_are_sorted_by_name_and_number() {
    let router = Router::new();
    let sorted = |column: &str, field: &str| -> Vec<String> {
        let rows = router.call(&["get", "--sort-by", column, "-o", "json"]);
        let rows = rows.json().as_array().unwrap().clone();
        let keys = rows.iter().filter_map(|row| row.pointer(field).cloned());
        keys.map(|key| key.as_u64().map_or(key.to_string(), |n| format!("{n:012}")))
            .collect()
    };
    for (column, field) in [("name", "/name"), ("asn", "/spec/asn")] {
        let keys = sorted(column, field);
        assert!(keys.len() > 1, "{column}: {keys:?}");
        assert!(keys.is_sorted(), "{column}: {keys:?}");
    }
}

#[test]
fn watch_prints_a_row_again_when_it_changes() {
    let router = Router::new();
    let mut watch = Command::new(env!("CARGO_BIN_EXE_moenet-agent"))
        .args(["get", NAME, "--watch", "--config"])
        .arg(router.dir.path().join("config.yaml"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    assert!(line().starts_with("NAME"));
    assert!(line().contains("Established"));
    let file = router.state(&format!("status/sessions/{NAME}.yaml"));
    let status = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        status.replace("phase: Established", "phase: Degraded"),
    )
    .unwrap();
    let changed = line();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(
        changed.starts_with(NAME) && changed.contains("Degraded"),
        "{changed}"
    );
}
