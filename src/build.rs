//! Build script: writes the target into the program, and the commit where there is one. `MOENET_COMMIT` gives the
//! commit of a source without a repository.

use std::process::Command;

#[expect(clippy::disallowed_methods, reason = "a build script may block")]
fn main() {
    let head = Command::new("git")
        .args(["rev-parse", "--short=7", "HEAD"])
        .output();
    let given = std::env::var("MOENET_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty());
    let commit = head.ok().filter(|output| output.status.success());
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!(
        "cargo::rustc-env=MOENET_COMMIT={}",
        given.or(commit).unwrap_or_else(|| "unknown".to_owned())
    );
    println!(
        "cargo::rustc-env=MOENET_TARGET={}",
        std::env::var("TARGET").unwrap_or_default()
    );
    if is_for_packages() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    println!("cargo::rerun-if-env-changed=MOENET_COMMIT");
    println!("cargo::rerun-if-changed=.git/HEAD");
}

/// Returns whether this is the small build of packages for a glibc that reads packed relocations: 2.36, as in Debian 12.
/// They save half a megabyte.
fn is_for_packages() -> bool {
    let is = |name, value| std::env::var(name).is_ok_and(|it| it == value);
    is("OPT_LEVEL", "z") && is("CARGO_CFG_TARGET_ENV", "gnu")
}
