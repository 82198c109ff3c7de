//! `fleet validate`: finds everything that an agent would reject in a fleet, with its place.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::finding::Finding;
use super::layout::{RouterFile, file_of};
use super::network::{FleetFiles, NETWORK};
use super::tree::CALLS;
use super::{FleetError, across, check, network, tree};
use crate::document::{parse_list, parse_value};
use crate::wire::Call;

/// A folder without any router is the wrong one, or its fleet is lost.
const NO_FLEET: &str = "does not exist, and no folder has router.yaml: no fleet is here; give its directory, or begin one \
                        with `moenet-agent fleet init DIR`";

/// All errors of a fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    pub routers: usize,
    /// The errors, by file.
    pub problems: Vec<Finding>,
}

/// Checks every file of a fleet directory.
///
/// # Errors
/// The directory cannot be read.
pub fn validate(dir: &Path) -> Result<Findings, FleetError> {
    Ok(findings(&tree::read(dir)?))
}

/// Checks every file of a fleet.
pub fn findings(files: &FleetFiles) -> Findings {
    let (routers, mut problems) = match files.has_network() {
        true => network::findings(files),
        // A file that cannot be used must not look like one that is gone.
        false => (0, faults(files)),
    };
    let folders = tree::folders(files);
    problems.extend(
        folders
            .iter()
            .flat_map(|router| check_router(files, router)),
    );
    problems.extend(across::findings(files));
    let routers = routers + folders.len();
    if routers == 0 && !files.has(NETWORK) {
        problems.push(Finding::whole(NETWORK.as_ref(), NO_FLEET));
    }
    Findings { routers, problems }
}

fn faults(files: &FleetFiles) -> Vec<Finding> {
    let faults = files.faults();
    faults
        .map(|(path, why)| Finding::whole(path.as_ref(), why))
        .collect()
}

fn check_router(files: &FleetFiles, router: &str) -> Vec<Finding> {
    let path = format!("{router}/{}", file_of(Call::Config));
    let file = files
        .text(&path)
        .map(|text| parse_value::<RouterFile>(text));
    let node = file.and_then(|file| file.ok()?.node);
    let check = |call| check_file(files, call, router, node.as_ref());
    CALLS.into_iter().flat_map(check).collect()
}

fn check_file(files: &FleetFiles, call: Call, router: &str, node: Option<&Value>) -> Vec<Finding> {
    let path = format!("{router}/{}", file_of(call));
    let shown: &Path = path.as_ref();
    let Some(text) = files.text(&path) else {
        if files.has(&path) {
            // A fault, which is among the network's errors.
            return Vec::new();
        }
        return vec![Finding::whole(shown, missing_file(call))];
    };
    let parsed: Result<Map<String, Value>, _> = match call {
        Call::Config => parse_value::<RouterFile>(text)
            .map(|file| Map::from_iter([("node".to_owned(), file.node.unwrap_or_default())])),
        _ => parse_list(text),
    };
    let answer = match parsed {
        Ok(answer) => answer,
        Err(error) => return vec![Finding::syntax(shown, error)],
    };
    let problems = check::shape(call, &answer)
        .into_iter()
        .chain(check::stray_keys(call, &answer))
        .chain(
            check::units(call, &answer, node)
                .into_iter()
                .flat_map(|unit| unit.problems),
        );
    let mut found: Vec<Finding> = problems
        .map(|problem| Finding::new(shown, text, &problem))
        .collect();
    found.sort_by_key(|finding| (finding.line, finding.column));
    found
}

fn missing_file(call: Call) -> &'static str {
    match call {
        Call::Config => "missing; a router needs token (or tokenFile) and node in it",
        Call::Sessions => "missing; write `sessions: []` for a router without sessions",
        Call::Mesh => "missing; write `peers: []` for a router without a backbone",
        _ => "missing; the router gets no routing policy and exchanges no routes",
    }
}
