//! `fleet validate`: finds everything that an agent would reject in a fleet directory, with its place.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::finding::Finding;
use super::layout::{MAX_BYTES, RouterFile, file_of};
use super::{FleetError, check, files, network};
use crate::document::{parse_list, parse_value};
use crate::util::file;
use crate::util::fs;
use crate::wire::Call;

/// The calls whose answers come from files.
const CALLS: [Call; 4] = [Call::Config, Call::Sessions, Call::Mesh, Call::BirdConfig];

/// All errors of a fleet directory.
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
    let missing = |_: io::Error| FleetError::NoDirectory(dir.to_owned());
    let mut folders: Vec<PathBuf> = fs::read_dir(dir)
        .map_err(missing)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| fs::is_dir(path) && !hidden(path))
        .collect();
    let files = files::read(dir)?;
    let (routers, mut problems) = match files.has_network() {
        true => network::findings(&files),
        false => (0, Vec::new()),
    };
    if files.has_network() {
        // Beside a network, only a folder with this file is that of a router.
        folders.retain(|path| fs::exists(path.join("router.yaml")));
    }
    folders.sort();
    problems.extend(folders.iter().flat_map(|router| check_router(dir, router)));
    Ok(Findings {
        routers: routers + folders.len(),
        problems,
    })
}

fn hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn check_router(dir: &Path, router: &Path) -> Vec<Finding> {
    let node = read_router(&router.join("router.yaml")).and_then(|file| file.node);
    CALLS
        .into_iter()
        .flat_map(|call| {
            let path = router.join(file_of(call));
            let shown = path.strip_prefix(dir).unwrap_or(&path).to_owned();
            check_file(call, &path, &shown, node.as_ref())
        })
        .collect()
}

fn read_router(path: &Path) -> Option<RouterFile> {
    parse_value(&file::read_text(path, file::DOCUMENT).ok()?).ok()
}

fn check_file(call: Call, path: &Path, shown: &Path, node: Option<&Value>) -> Vec<Finding> {
    let text = match file::read_text(path, MAX_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return vec![Finding::whole(shown, missing_file(call))];
        }
        Err(error) => return vec![Finding::whole(shown, format!("cannot be read: {error}"))],
    };
    let parsed: Result<Map<String, Value>, _> = match call {
        Call::Config => parse_value::<RouterFile>(&text)
            .map(|file| Map::from_iter([("node".to_owned(), file.node.unwrap_or_default())])),
        _ => parse_list(&text),
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
        .map(|problem| Finding::new(shown, &text, &problem))
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
