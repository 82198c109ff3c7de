//! Build script: writes the commit into the program, where there is one.

use std::process::Command;

#[expect(clippy::disallowed_methods, reason = "a build script may block")]
fn main() {
    let head = Command::new("git")
        .args(["rev-parse", "--short=7", "HEAD"])
        .output();
    let commit = head.ok().filter(|output| output.status.success());
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!(
        "cargo::rustc-env=MOENET_COMMIT={}",
        commit.unwrap_or_else(|| "unknown".to_owned())
    );
    println!("cargo::rerun-if-changed=.git/HEAD");
}
