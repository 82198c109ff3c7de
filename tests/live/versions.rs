//! What the agent writes keeps to its schemas, and a document of another version is left alone.

use crate::describe::{configure, expect, expect_up, object};
use crate::lab::watch::session_ages;
use crate::lab::world::{World, uuid};
use crate::lab::{contains, wait_until};
use std::path::{Path, PathBuf};

fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

/// Every YAML file below a folder but Git's and the agent's own copies.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let hidden = path.file_name().unwrap().to_str().unwrap().starts_with('.');
        match (hidden, path.is_dir()) {
            (true, _) => {}
            (false, true) => files(&path, found),
            // The guard's record is no document.
            (false, false) if path.ends_with("held.yaml") => {}
            (false, false) if path.extension().is_some_and(|end| end == "yaml") => found.push(path),
            _ => {}
        }
    }
}

fn keeps_to_its_schema(file: &Path) {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().next().unwrap();
    let schema = line.strip_prefix("# yaml-language-server: $schema=");
    let schema = schema.unwrap_or_else(|| panic!("{} names no schema:\n{text}", file.display()));
    let schema: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap();
    let document: serde_json::Value = moenet_agent::document::parse_value(&text).unwrap();
    let errors: Vec<_> = jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(&document)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{}: {errors:?}\n{text}", file.display());
}

#[test]
fn every_written_file_is_valid_and_names_its_schema() {
    let mut world = World::new(1);
    configure(&world, |config| {
        config["state"]["schemas"] = schemas().display().to_string().into()
    });
    world.router.start_agent();
    world.wait_established();
    // An edit in place makes the agent write an override.
    let document = world
        .router
        .path("state")
        .join(format!("{}.yaml", object(1)));
    let text = std::fs::read_to_string(&document).unwrap();
    std::fs::write(&document, text.replace("mtu: 1420", "mtu: 1400")).unwrap();
    let exception = world
        .router
        .path("state")
        .join(format!("overrides/{}.yaml", object(1)));
    wait_until("the edit is an override", 30, || {
        contains(
            &std::fs::read_to_string(&exception).unwrap_or_default(),
            "edited in place",
        )
    });
    expect_up(&world, 1);
    let mut found = Vec::new();
    files(&world.router.path("state"), &mut found);
    let has = |part: &str| {
        found
            .iter()
            .any(|path| path.display().to_string().contains(part))
    };
    for part in [
        "/node.yaml",
        "/policy.yaml",
        "/sessions/",
        "/status/",
        "/applied/",
        "/overrides/sessions/",
    ] {
        assert!(has(part), "no {part} in {found:?}");
    }
    found.iter().for_each(|file| keeps_to_its_schema(file));
}

#[test]
fn unknown_document_version_keeps_the_applied_state() {
    let world = World::converged(1);
    world.wait_polls("sessions", 2);
    let ages = session_ages(&world.router);
    let file = world
        .router
        .path("state")
        .join(format!("{}.yaml", object(1)));
    let ours = std::fs::read_to_string(&file).unwrap();
    let theirs = ours
        .replace("moenet.work/v1", "moenet.work/v2")
        .replace("spec:", "spec:\n  warpFactor: 9");
    std::fs::write(&file, &theirs).unwrap();
    let told = "apiVersion: \"moenet.work/v2\" is not supported, only moenet.work/v1; correct it, or upgrade the agent";
    expect(&world, &object(1), true, &[("Invalid", told)]);
    let status = world
        .router
        .path("state")
        .join(format!("status/{}.yaml", object(1)));
    wait_until("the status says which versions are understood", 30, || {
        contains(
            &std::fs::read_to_string(&status).unwrap_or_default(),
            "moenet.work/v1;",
        )
    });
    world.wait_polls("sessions", 3);
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        theirs,
        "the file was touched"
    );
    assert_eq!(session_ages(&world.router), ages, "the session was reset");
    let log = std::fs::read_to_string(world.router.path("agent.log")).unwrap();
    let lines = log
        .lines()
        .filter(|line| line.contains("moenet.work/v2"))
        .count();
    assert!(lines <= 3, "the log says it {lines} times:\n{log}");
    std::fs::write(&file, &ours).unwrap();
    expect_up(&world, 1);
    assert_eq!(session_ages(&world.router), ages, "the session was reset");
    world.wait_reported(&uuid(1), 1, "");
}
