//! `adopt --fleet`: the adopted interfaces as files of the embedded Control Plane.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::Answer;
use crate::adopt::fleet::session;
use crate::cli::{Outcome, output};
use crate::config::Config;
use crate::document::to_yaml;
use crate::fleet;
use crate::model::ObjectName;
use crate::util::file::Writer;
use crate::util::fs;
use crate::util::random;

/// Mode of the files, which hold a token and preshared keys.
const MODE: u32 = 0o600;

/// Writes the folder of this router, and says what is left to do.
pub(super) fn write(fleet: &Path, config: &Config, answer: &Answer) -> Outcome {
    let sessions: Vec<_> = answer
        .adopted
        .iter()
        .filter(|it| it.over.is_none())
        .collect();
    anyhow::ensure!(
        !sessions.is_empty(),
        "nothing was written: there is nothing to take over"
    );
    let router: ObjectName = config.node.name.parse().context("node.name")?;
    let folder = fleet.join(router.as_str());
    let path = folder.join("sessions.yaml");
    anyhow::ensure!(
        fs::symlink_metadata(&path).is_err(),
        "{} exists already, and nothing was written; move it away, or add the sessions of `adopt --plan -o yaml`",
        path.display()
    );
    let mut items = Vec::new();
    for adopted in sessions {
        let session = session(adopted, &random::uuid()?);
        let lost = session.lost.join(", ");
        output::line(format_args!(
            "sessions/{}: no field for {lost}",
            adopted.name()
        ));
        items.push(session.item);
    }
    fs::create_dirs(&folder, 0o755).with_context(|| format!("create {}", folder.display()))?;
    create(&folder, "router.yaml", &router_file(config))?;
    create(&folder, "mesh.yaml", &json!({"peers": []}))?;
    // The last, since its presence refuses a second run.
    create(&folder, "sessions.yaml", &json!({ "sessions": items }))?;
    let findings = fleet::validate(fleet)?;
    let problems = findings.problems.iter();
    for finding in problems.filter(|it| it.file.starts_with(router.as_str())) {
        output::line(format_args!("needed: {finding}"));
    }
    output::note(
        "the API has no field for the values above; once the Control Plane serves these files and controlPlane.url names \
         it, `moenet-agent adopt` writes them as overrides",
    );
    Ok(ExitCode::SUCCESS)
}

/// Creates a file of the fleet; one that exists stays.
fn create(folder: &Path, name: &str, value: &Value) -> anyhow::Result<()> {
    let path: PathBuf = folder.join(name);
    let text = to_yaml(value)?;
    let created = Writer::new(MODE).create(&path, text.as_bytes());
    let word = match created.with_context(|| format!("write {}", path.display()))? {
        true => "wrote",
        false => "kept",
    };
    output::line(format_args!("{word} {}", path.display()));
    Ok(())
}

/// Returns `router.yaml` with a new token.
fn router_file(config: &Config) -> Value {
    let node = &config.node;
    let all = json!({
        "id": node.id,
        "name": node.name,
        "region": node.region,
        "asn": node.asn.map(|asn| asn.get()),
        "loopbackIpv4": node.loopback_ipv4,
        "loopbackIpv6": node.loopback_ipv6,
    });
    let mut known: Map<_, _> = all.as_object().cloned().unwrap_or_default();
    known.retain(|_, value| !value.is_null());
    json!({"token": random::token().expose(), "node": known})
}
