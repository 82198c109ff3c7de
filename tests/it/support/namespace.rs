//! Runs a test of this binary again in a network namespace of its own.

use std::process::Command;

const INSIDE: &str = "MOENET_TEST_IN_NAMESPACE";

/// Runs the ignored test `name` inside a new user and network namespace. Where the system grants
/// none, says so; under CI that is a failure.
pub(crate) fn run(name: &str) {
    let can = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "true"])
        .status();
    if !can.is_ok_and(|status| status.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "{name}: no network namespaces here"
        );
        eprintln!("NOT TESTED: {name}: `unshare --user --net` does not work here");
        return;
    }
    let mut wrapper = Command::new("unshare");
    wrapper
        .args(["--user", "--map-root-user", "--net"])
        .env(INSIDE, "1");
    let code = super::run_again(&mut wrapper, name);
    assert_eq!(code, Some(0), "{name} failed in its namespace");
}

/// Whether this is such a namespace: `cargo test -- --ignored` must not touch the host's.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs a shell script, which must succeed, and returns what it prints.
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
