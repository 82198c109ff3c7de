//! `validate`: documents and configuration: schema, rules, conflicts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::offline::Wanted;
use super::{Arguments, Outcome, block_on, objects, output};
use crate::controller::World;
use crate::disk;
use crate::document::{
    self, BgpSessionSpec, DocumentError, IbgpPeerSpec, Kind, MaintenanceSpec, MeshPeerSpec,
    NodeSpec, OverrideSpec, RoutingPolicySpec, StatusDocument,
};
use crate::status::Acceptance;
use crate::store::AppliedDocument;

/// Check documents and configuration.
#[derive(Debug, Args)]
pub struct Validate {
    /// Only these files. Left out: the configuration and the whole state directory
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What came of it.
#[derive(Default, Serialize)]
struct Findings {
    /// What is wrong, with file, line and column where they are known.
    problems: Vec<String>,
    /// What could not be checked, and why.
    unchecked: Vec<String>,
    /// Overrides without a document, which may be meant so or be mistyped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting: Vec<String>,
}

impl Validate {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let findings = if self.files.is_empty() {
            everything(arguments)?
        } else {
            let problems = self
                .files
                .iter()
                .filter_map(|file| check_file(file).err())
                .collect();
            Findings {
                problems,
                ..Findings::default()
            }
        };
        if !output::value(arguments.output, &findings)? {
            print(&findings);
        }
        Ok(if findings.problems.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn print(findings: &Findings) {
    findings.problems.iter().for_each(output::line);
    findings
        .unchecked
        .iter()
        .for_each(|what| output::line(format_args!("not checked: {what}")));
    findings.waiting.iter().for_each(output::line);
    match (findings.problems.is_empty(), findings.unchecked.is_empty()) {
        (true, true) => output::line("Everything is valid."),
        (true, false) => output::line("What could be checked is valid."),
        (false, _) => {}
    }
}

/// The configuration, every file, and what the documents make together.
fn everything(arguments: &Arguments) -> anyhow::Result<Findings> {
    let config = arguments.load()?;
    let (wanted, checked) = block_on(async {
        let wanted = Wanted::read(config).await?;
        let checked = wanted.refused().await;
        Ok((wanted, checked))
    })?;
    let world = &wanted.world;
    let files: BTreeSet<String> = world.problems.iter().cloned().collect();
    let router = world
        .router
        .as_ref()
        .err()
        .map(|why| format!("node: {why}"));
    let documents = &world.router_documents;
    let single = [
        ("node", &documents.node.acceptance),
        ("policy", &documents.policy.acceptance),
    ];
    let single = single
        .into_iter()
        .filter_map(|(name, acceptance)| match acceptance {
            Acceptance::Invalid(why) | Acceptance::Clash(why) => {
                Some((name.to_owned(), why.clone()))
            }
            _ => None,
        });
    let objects = objects::all(world);
    let refused = objects
        .iter()
        .filter_map(|object| Some((object.path(), object.refused()?.to_owned())));
    // An entry whose file is no document repeats the file's problem.
    let repeated = |why: &String| files.iter().any(|problem| why.starts_with(problem));
    let refused = single.chain(refused).filter(|(_, why)| !repeated(why));
    let refused: Vec<String> = refused
        .map(|(path, why)| format!("{path}.yaml: {why}"))
        .collect();
    let (refused_main, unchecked_main) = match checked {
        Ok(refused) => (refused, None),
        Err(error) => (None, Some(format!("BIRD's configuration: {error:#}"))),
    };
    let main = wanted.blocked().or(refused_main);
    let main = main.map(|why| format!("bird: {why}"));
    let problems = files
        .into_iter()
        .chain(router)
        .chain(refused)
        .chain(main)
        .collect();
    let waiting = objects::waiting(&wanted.snapshot).into_iter();
    let waiting = waiting
        .map(|(kind, name)| objects::waits(kind, &name))
        .collect();
    Ok(Findings {
        problems,
        unchecked: unchecked(world).into_iter().chain(unchecked_main).collect(),
        waiting,
    })
}

/// Texts for BIRD are made for the version that is there; without a BIRD there are none to look at.
fn unchecked(world: &World) -> Vec<String> {
    let texts = match (&world.router, &world.base) {
        (Ok(_), Err(why)) => Some(format!(
            "the texts for BIRD, since they cannot be made: {why}"
        )),
        // Who this router is, is not known, which is a problem of its own.
        _ => None,
    };
    texts
        .into_iter()
        .chain(world.waiting.iter().cloned())
        .collect()
}

/// One file, by the kind that it says it is of.
fn check_file(file: &Path) -> Result<(), String> {
    let text = disk::read_text(file, disk::DOCUMENT)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    check_text(file, &text).map_err(|error| error.in_file(file).to_string())
}

fn check_text(file: &Path, text: &str) -> Result<(), DocumentError> {
    let value: Value = document::parse_value(text)?;
    if value.get("status").is_some() {
        return document::parse_value::<StatusDocument>(text).map(drop);
    }
    if value.get("applied").is_some() {
        return document::parse_value::<AppliedDocument>(text).map(drop);
    }
    let Some(word) = value.get("kind") else {
        // The only file without a kind is the configuration.
        return crate::config::parse(text).map(drop);
    };
    match Kind::ALL
        .into_iter()
        .find(|kind| Some(kind.to_string().as_str()) == word.as_str())
    {
        Some(Kind::Node) => document::parse::<NodeSpec>(text).map(drop),
        Some(Kind::RoutingPolicy) => document::parse::<RoutingPolicySpec>(text).map(drop),
        Some(Kind::Maintenance) => document::parse::<MaintenanceSpec>(text).map(drop),
        Some(Kind::BgpSession) => document::parse::<BgpSessionSpec>(text).map(drop),
        Some(Kind::MeshPeer) => document::parse::<MeshPeerSpec>(text).map(drop),
        Some(Kind::IbgpPeer) => document::parse::<IbgpPeerSpec>(text).map(drop),
        Some(Kind::Override) => check_override(file, text),
        None => Err(unknown_kind(text, word)),
    }
}

/// An override, by the kind that its folder names; elsewhere it has to fit some kind.
fn check_override(file: &Path, text: &str) -> Result<(), DocumentError> {
    let set = document::parse::<OverrideSpec>(text)?.spec.set;
    let folder = file.parent().and_then(Path::file_name);
    let stem = file.file_stem();
    let named = |kind: &Kind| [folder, stem].contains(&Some(kind.folder().as_ref()));
    let kinds = match Kind::ALL.into_iter().find(named) {
        Some(kind) => vec![kind],
        None => vec![
            Kind::BgpSession,
            Kind::MeshPeer,
            Kind::IbgpPeer,
            Kind::Node,
            Kind::RoutingPolicy,
        ],
    };
    let mut refused = Vec::new();
    for kind in kinds {
        match document::check_patch(kind, &set) {
            Ok(()) => return Ok(()),
            Err(why) => refused.push(why),
        }
    }
    // A kind that has all the fields says most about the values.
    let known = refused.iter().find(|why| !why.contains("unknown field"));
    let why = known.or(refused.first()).cloned().unwrap_or_default();
    Err(why).map_err(|message| {
        let field = message.split(':').next().unwrap_or_default();
        let path = field.strip_prefix("spec.").unwrap_or(field);
        let path: Vec<&str> = ["spec", "set"].into_iter().chain(path.split('.')).collect();
        DocumentError {
            file: None,
            location: document::locate(text, &path),
            field: path.join("."),
            message,
        }
    })
}

fn unknown_kind(text: &str, word: &Value) -> DocumentError {
    let line = text.lines().position(|line| line.starts_with("kind:"));
    let known = Kind::ALL.map(|kind| kind.to_string()).join(", ");
    DocumentError {
        file: None,
        location: line
            .and_then(|line| u64::try_from(line).ok())
            .map(|line| (line + 1, 1)),
        field: "kind".to_owned(),
        message: format!(
            "kind: there are {known}, not {}",
            crate::model::shown(&word.to_string())
        ),
    }
}
