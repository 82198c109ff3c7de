//! Build script: writes the target into the program, and the commit where there is one. `MOENET_COMMIT` gives the
//! commit of a source without a repository. It packs the files of `schemas/` for `util::schemas`.

#![expect(clippy::disallowed_methods, reason = "a build script may block")]

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> io::Result<()> {
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
        // Equal functions are one. Rust brings a linker that can do so for this target only.
        if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|it| it == "x86_64") {
            println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        }
    }
    println!("cargo::rerun-if-env-changed=MOENET_COMMIT");
    watch_commit();
    println!("cargo::rerun-if-changed=schemas");
    pack_schemas()
}

/// Runs this script again when the commit changes: the branch or the commit of HEAD, or what the branch points to. In a
/// worktree these files are not all below one folder.
fn watch_commit() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let branch = git(&["symbolic-ref", "-q", "HEAD"]);
    let names = ["HEAD", "logs/HEAD", "packed-refs"].map(str::to_owned);
    for name in names.into_iter().chain(branch) {
        let path = git(&["rev-parse", "--git-path", &name]);
        // Cargo takes a file that does not exist for one that changed.
        if let Some(path) = path.filter(|path| fs::exists(path).unwrap_or_default()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// Writes the table of the packed files, which take a seventh of their texts.
fn pack_schemas() -> io::Result<()> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let paths: io::Result<Vec<PathBuf>> = fs::read_dir("schemas")?
        .map(|entry| Ok(entry?.path()))
        .collect();
    let mut table = String::from("const PACKED: &[(&str, &[u8])] = &[\n");
    for path in paths? {
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().display().to_string();
        let packed = out.join(format!("{name}.json.gz"));
        let mut encoder = GzEncoder::new(fs::File::create(&packed)?, Compression::best());
        encoder.write_all(&fs::read(&path)?)?;
        encoder.finish()?;
        table += &format!("({name:?}, include_bytes!({packed:?})),\n");
    }
    fs::write(out.join("schemas.rs"), table + "];\n")
}

/// Returns whether this is the small build of packages for a glibc that reads packed relocations: 2.36, as in Debian 12.
/// They save half a megabyte.
fn is_for_packages() -> bool {
    let is = |name, value| std::env::var(name).is_ok_and(|it| it == value);
    is("OPT_LEVEL", "z") && is("CARGO_CFG_TARGET_ENV", "gnu")
}
