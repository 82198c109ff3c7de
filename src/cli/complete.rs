//! Completions of kinds, names and fields, as this router has them. Whatever cannot be read completes nothing: an error
//! in the middle of a command line helps no operator.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::CompleteEnv;

use super::fields::{Field, Schema};
use super::{Arguments, documents, objects, offline};
use crate::config::{self, Environment};
use crate::document::Kind;
use crate::model::ObjectName;
use crate::util::schemas;

/// Answers a shell that asks for completions, and ends the process; otherwise returns at once.
pub fn complete() {
    // Most calls are no question of a shell, and build no command for one.
    if std::env::var_os(VARIABLE).is_some() {
        CompleteEnv::with_factory(Arguments::command).complete();
    }
}

/// The variable with which a shell asks.
pub(super) const VARIABLE: &str = "COMPLETE";

/// Completes kinds and the names of objects.
pub(super) fn kinds_and_names(current: &OsStr) -> Vec<CompletionCandidate> {
    let kinds = Kind::ALL.into_iter().map(|kind| kind.folder().to_owned());
    let kinds = starting_with(current, kinds);
    let names = names(current).into_iter();
    kinds.into_iter().chain(names).collect()
}

/// Completes the names of objects: with their kind once it was begun, and where the name alone is that of several.
pub(super) fn names(current: &OsStr) -> Vec<CompletionCandidate> {
    let all = all_names();
    let with_kind = current.to_string_lossy().contains('/');
    let is_unique = |name: &ObjectName| all.iter().filter(|(_, other)| other == name).count() == 1;
    let names = all
        .iter()
        .map(|(kind, name)| match with_kind || !is_unique(name) {
            true => kind.path(name),
            false => name.to_string(),
        });
    starting_with(current, names)
}

/// Completes `field=` of the object that the command line names.
pub(super) fn assignments(current: &OsStr) -> Vec<CompletionCandidate> {
    let all = all_names();
    let words: Vec<_> = std::env::args().collect();
    let is_meant = |(kind, name): &&(Kind, ObjectName)| {
        words
            .iter()
            .any(|word| objects::is_meant(*kind, name, word))
    };
    let Some((kind, _)) = all.iter().find(is_meant) else {
        return Vec::new();
    };
    let root = schemas::value(&kind.to_string());
    let spec = Schema::of(&root).fields().into_iter();
    let spec = spec.filter(|field| field.name == "spec");
    let leaves = spec.flat_map(|spec| leaves("", &spec.schema));
    starting_with(current, leaves.map(|path| path + "="))
}

/// Returns the words that begin with what was typed.
pub(super) fn starting_with(
    current: &OsStr,
    words: impl IntoIterator<Item = String>,
) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let words = words.into_iter().filter(|word| word.starts_with(&*current));
    words.map(CompletionCandidate::new).collect()
}

/// Returns the paths of the fields that have a value of their own.
fn leaves(path: &str, schema: &Schema<'_>) -> Vec<String> {
    let below = |field: Field<'_>| {
        let path = match path {
            "" => field.name.clone(),
            path => format!("{path}.{}", field.name),
        };
        let is_list = field.schema.is_list();
        match field.schema.fields().is_empty() || is_list {
            true => vec![path],
            false => leaves(&path, &field.schema),
        }
    };
    schema.fields().into_iter().flat_map(below).collect()
}

/// Returns the objects of this router's state directory.
fn all_names() -> Vec<(Kind, ObjectName)> {
    let Ok(config) = config::load(given_config().as_deref(), Environment::read()) else {
        return Vec::new();
    };
    let store = offline::open(&config.state.directory);
    let snapshot = store.and_then(|store| Ok(store.load()?));
    snapshot.map_or_else(
        |_| Vec::new(),
        |snapshot| documents::all(&snapshot).into_keys().collect(),
    )
}

/// Returns the configuration that the command line names before the word to complete.
fn given_config() -> Option<PathBuf> {
    let mut words = std::env::args_os();
    words.find(|word| word == "-c" || word == "--config")?;
    words.next().map(PathBuf::from)
}
