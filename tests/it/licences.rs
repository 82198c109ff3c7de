//! What `deny.toml` allows, checked without cargo-deny: each package's licence, and where it comes from. It needs
//! cargo and the lock file only, so it runs everywhere, also where cargo-deny cannot be had.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

const DENY: &str = include_str!("../../deny.toml");

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The quoted words between the first `[` after a place in `deny.toml` and its `]`, without comments.
fn words(after: &str) -> BTreeSet<&'static str> {
    let rest = &DENY[DENY
        .find(after)
        .unwrap_or_else(|| panic!("deny.toml has no {after}"))
        + after.len()..];
    let list = &rest[..rest.find(']').unwrap()];
    let code = list.lines().map(|line| line.split('#').next().unwrap());
    code.flat_map(|line| line.split('"').skip(1).step_by(2))
        .collect()
}

/// Whether an SPDX expression can be satisfied with these licences. `OR` binds less than `AND`, and `/` is an
/// `OR` of old. A licence with an exception counts as its whole text.
fn satisfied(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let (verdict, rest) = alternatives(&tokens, allowed);
    assert!(rest.is_empty(), "not an SPDX expression: {expression}");
    verdict
}

fn alternatives<'t, 'a>(tokens: &'t [&'a str], allowed: &BTreeSet<&str>) -> (bool, &'t [&'a str]) {
    let (mut verdict, mut rest) = all(tokens, allowed);
    while let ["OR", after @ ..] = rest {
        let (next, left) = all(after, allowed);
        (verdict, rest) = (verdict || next, left);
    }
    (verdict, rest)
}

fn all<'t, 'a>(tokens: &'t [&'a str], allowed: &BTreeSet<&str>) -> (bool, &'t [&'a str]) {
    let (mut verdict, mut rest) = one(tokens, allowed);
    while let ["AND", after @ ..] = rest {
        let (next, left) = one(after, allowed);
        (verdict, rest) = (verdict && next, left);
    }
    (verdict, rest)
}

fn one<'t, 'a>(tokens: &'t [&'a str], allowed: &BTreeSet<&str>) -> (bool, &'t [&'a str]) {
    match tokens {
        ["(", inner @ ..] => match alternatives(inner, allowed) {
            (verdict, [")", rest @ ..]) => (verdict, rest),
            _ => panic!("a bracket is not closed: {tokens:?}"),
        },
        [licence, "WITH", exception, rest @ ..] => (
            allowed.contains(format!("{licence} WITH {exception}").as_str()),
            rest,
        ),
        [licence, rest @ ..] => (allowed.contains(licence), rest),
        [] => panic!("a licence is missing"),
    }
}

/// The packages that a target is built from, those of the tests among them.
fn packages(target: &str) -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "metadata",
        "--format-version",
        "1",
        "--offline",
        "--locked",
        "--filter-platform",
        target,
    ]);
    let output = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// What is wrong with a package, if anything is.
fn complaint(package: &Value, allowed: &BTreeSet<&str>) -> Option<String> {
    let name = package["name"].as_str().unwrap();
    let ours = name == env!("CARGO_PKG_NAME") && package["source"].is_null();
    if !ours && package["source"] != REGISTRY {
        return Some(format!(
            "{name} comes from {}, not from the registry",
            package["source"]
        ));
    }
    let Some(licence) = package["license"].as_str() else {
        return Some(format!("{name} names no licence"));
    };
    let excepted = DENY.contains(&format!(
        "{{ crate = \"{name}\", allow = [\"{licence}\"] }}"
    ));
    let fine = excepted || satisfied(licence, allowed);
    (!fine).then(|| format!("{name}: {licence} is not allowed by deny.toml"))
}

#[test]
fn every_package_has_allowed_licence_and_registry_source() {
    let allowed = words("\nallow = ");
    for target in words("\ntargets = ") {
        let packages = packages(target);
        assert!(
            packages.len() > 100,
            "{target}: only {} packages",
            packages.len()
        );
        let complaints: Vec<_> = packages
            .iter()
            .filter_map(|package| complaint(package, &allowed))
            .collect();
        assert!(
            complaints.is_empty(),
            "{target}:\n{}",
            complaints.join("\n")
        );
    }
}

#[test]
fn what_is_forbidden_is_found() {
    let allowed = words("\nallow = ");
    assert!(
        allowed.contains("MIT") && !allowed.contains("GPL-3.0-only"),
        "{allowed:?}"
    );
    for fine in [
        "MIT",
        "GPL-3.0-only OR MIT",
        "GPL-3.0-only/MIT",
        "(MIT OR GPL-3.0-only) AND ISC",
        "MIT AND ISC OR X",
    ] {
        assert!(satisfied(fine, &allowed), "{fine}");
    }
    for bad in [
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "(MIT OR ISC) AND X",
        "MIT WITH X",
        "X OR MIT AND Y",
        "mit",
    ] {
        assert!(!satisfied(bad, &allowed), "{bad}");
    }
    let package = |name: &str, licence: &str, source: &str| {
        let package = serde_json::json!({"name": name, "license": licence, "source": source});
        complaint(&package, &allowed)
    };
    assert_eq!(package("a", "MIT", REGISTRY), None);
    assert_eq!(
        package("wireguard-control", "LGPL-2.1-or-later", REGISTRY),
        None
    );
    assert!(
        package("a", "LGPL-2.1-or-later", REGISTRY)
            .unwrap()
            .contains("not allowed")
    );
    assert!(
        package("a", "MIT", "git+https://example.com/a")
            .unwrap()
            .contains("not from the registry")
    );
}
