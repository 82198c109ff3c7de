//! A disk that can be filled, made read-only and unmounted, in a mount namespace of its own.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

const INSIDE: &str = "SMALL_DISK_TEST_INSIDE";

/// Runs a test of this file again in a mount namespace, with a tmpfs of 1 MiB on a directory that
/// the child finds in its environment. Where that is not allowed, it says so, and fails under CI.
pub(crate) fn on_a_small_disk(test: &str, body: fn(&Path)) {
    if let Some(dir) = std::env::var_os(INSIDE) {
        return body(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=1m tmpfs \"$1\" || exit 77; shift; exec \"$@\"";
    let mut wrapper = Command::new("unshare");
    wrapper
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .env(INSIDE, dir.path());
    match super::run_again(&mut wrapper, test) {
        Some(0) => {}
        Some(101) => panic!("{test} failed inside the mount namespace"),
        other => {
            assert!(
                std::env::var_os("CI").is_none(),
                "no mount namespace to test in: {other:?}"
            );
            eprintln!("NOT TESTED: {test} needs a mount namespace ({other:?})");
        }
    }
}

/// Fills the disk to the last byte; the file can be removed again.
pub(crate) fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[b'x'; 512]).is_ok() {}
}

/// Mounts the disk again, `ro` or `rw`.
pub(crate) fn remount(disk: &Path, mode: &str) {
    let status = Command::new("mount")
        .args(["-o", &format!("remount,{mode}")])
        .arg(disk)
        .status();
    assert!(status.unwrap().success());
}
