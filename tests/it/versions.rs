//! Documents are versioned. This test shows how a `v2` of one kind would join: a specification of its own,
//! and a conversion from the version before. A version that nobody knows is refused, and left alone.

use moenet_agent::document::{
    DocumentError, Kind, MaintenanceSpec, Reader, Spec, parse, parse_value, parse_versions,
};
use serde::Deserialize;

/// A build after a commit shows the new commit.
#[test]
fn build_script_watches_the_branch_of_the_commit() {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(branch) = git(&["symbolic-ref", "-q", "HEAD"]) else {
        return;
    };
    let printed = std::path::Path::new(env!("OUT_DIR")).with_file_name("output");
    let printed = std::fs::read_to_string(printed).unwrap();
    for name in ["HEAD", &branch] {
        let path = git(&["rev-parse", "--git-path", name]).unwrap();
        let line = format!("rerun-if-changed={path}");
        let is_watched = printed.lines().any(|it| it.ends_with(&line));
        assert!(
            is_watched || !std::path::Path::new(&path).exists(),
            "{printed}"
        );
    }
}

/// What `src/document/v2/maintenance.rs` would hold: v1's switch has become a choice.
mod v2 {
    use jiff::Timestamp;
    use moenet_agent::document::MaintenanceSpec as V1;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(crate) struct MaintenanceSpec {
        #[serde(default)]
        pub(crate) mode: Mode,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub(crate) since: Option<Timestamp>,
    }

    #[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(crate) enum Mode {
        #[default]
        Serving,
        Drained,
        /// New in v2: the sessions are down.
        Closed,
    }

    /// Nothing that v1 could say is lost.
    impl From<V1> for MaintenanceSpec {
        fn from(old: V1) -> Self {
            let mode = if old.enabled {
                Mode::Drained
            } else {
                Mode::Serving
            };
            Self {
                mode,
                since: old.since,
            }
        }
    }
}

/// A document as `v2` has it.
#[derive(Deserialize)]
struct V2Document {
    spec: v2::MaintenanceSpec,
}

/// What the codec's `parse` would hold for the kind: a reader for each version, all of which give the latest.
const READERS: [Reader<v2::MaintenanceSpec>; 2] = [
    Reader {
        version: "moenet.work/v1",
        read: |text| parse::<MaintenanceSpec>(text).map(|old| old.spec.into()),
    },
    Reader {
        version: "moenet.work/v2",
        read: |text| parse_value::<V2Document>(text).map(|new| new.spec),
    },
];

fn read_latest(text: &str) -> Result<v2::MaintenanceSpec, DocumentError> {
    parse_versions(text, Kind::Maintenance, &READERS)
}

fn document(version: &str, spec: &str) -> String {
    format!("apiVersion: {version}\nkind: Maintenance\nmetadata:\n  name: jp1\nspec: {spec}\n")
}

#[test]
fn older_document_is_read_as_the_newer_version() {
    let old = document(
        "moenet.work/v1",
        "{enabled: true, since: 2026-11-23T20:00:00Z}",
    );
    let new = document(
        "moenet.work/v2",
        "{mode: drained, since: 2026-11-23T20:00:00Z}",
    );
    assert_eq!(read_latest(&old).unwrap(), read_latest(&new).unwrap());
}

#[test]
fn new_fields_default_to_the_older_behaviour() {
    let old = read_latest(&document("moenet.work/v1", "{}")).unwrap();
    assert_eq!(old, read_latest(&document("moenet.work/v2", "{}")).unwrap());
    assert_eq!(old.mode, v2::Mode::Serving);
}

#[test]
fn each_version_refuses_the_fields_of_the_other() {
    let error = read_latest(&document("moenet.work/v1", "{mode: drained}")).unwrap_err();
    assert!(error.message.contains("unknown field `mode`"), "{error}");
    let error = read_latest(&document("moenet.work/v2", "{enabled: true}")).unwrap_err();
    assert!(error.message.contains("unknown field `enabled`"), "{error}");
}

#[test]
fn unknown_version_is_rejected_with_a_clear_message() {
    for version in [
        "moenet.work/v2",
        "moenet.work/v1beta1",
        "v1",
        "example.com/v1",
        "''",
    ] {
        let error =
            parse::<MaintenanceSpec>(&document(version, "{anything: [at, all]}")).unwrap_err();
        assert_eq!(error.field, "apiVersion", "{error}");
        let said = error.to_string();
        let found = version.trim_matches('\'');
        assert!(
            said.contains("moenet.work/v1") && said.contains(&format!("{found:?}")),
            "{said}"
        );
        assert!(said.contains("correct it, or upgrade the agent"), "{said}");
    }
}

#[test]
fn two_known_versions_are_named_and_kind_is_checked() {
    let error = read_latest(&document("moenet.work/v3", "{}")).unwrap_err();
    assert!(
        error
            .message
            .contains("is not supported, only moenet.work/v1 and moenet.work/v2;"),
        "{error}"
    );
    assert_eq!(error.location, Some((1, 1)));
    for version in ["moenet.work/v1", "moenet.work/v2"] {
        let node = document(version, "{}").replace("kind: Maintenance", "kind: Node");
        assert_eq!(read_latest(&node).unwrap_err().field, "kind");
    }
}

#[test]
fn every_sample_document_reads_as_its_version() {
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/state/maintenance.yaml"
    ))
    .unwrap();
    assert_eq!(read_latest(&text).unwrap().mode, v2::Mode::Serving);
}

#[test]
fn the_version_is_checked_before_anything_else() {
    // A later version may have kinds and fields that today's agent has never heard of: the message is
    // about the version, not about them.
    let text = "apiVersion: moenet.work/v9\nkind: Teleporter\nspec: {}\n";
    let error = parse::<MaintenanceSpec>(text).unwrap_err();
    assert_eq!(error.field, "apiVersion");
    assert_eq!(MaintenanceSpec::KIND, Kind::Maintenance);
}

#[test]
fn a_document_without_a_version_says_that_it_is_missing() {
    let error = parse::<MaintenanceSpec>("kind: Maintenance\nmetadata: {name: jp1}\nspec: {}\n")
        .unwrap_err();
    assert!(error.to_string().contains("apiVersion"), "{error}");
}
