//! Validation of one file, by its path in a state directory, or else by its kind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::cli::fields::Schema;
use crate::config::{self, Environment};
use crate::desired::{LayerInputs, merge_layers};
use crate::document::{
    self, Document, DocumentError, Kind, OverrideSpec, Spec, StatusDocument, with_spec,
};
use crate::model::ObjectName;
use crate::status::Acceptance;
use crate::store::{self, AppliedDocument, Area, Place, Slot, Stored};
use crate::util::{file, schemas};

/// Returns all problems of a single file. The texts are those of a running agent.
pub(super) fn problems(file: &Path) -> Vec<DocumentError> {
    let Some((directory, place)) = place_of(file) else {
        return elsewhere(file);
    };
    let found = store::problems(file, &place);
    if !found.is_empty() || place.area != Area::Overrides {
        return found;
    }
    match store::stored::<OverrideSpec>(&directory, &place) {
        Some(override_) => merged(place.kind, &place.name, Some(&directory), &override_),
        None => Vec::new(),
    }
}

/// Returns the state directory of a file, and its place there, according to its folder names.
fn place_of(file: &Path) -> Option<(PathBuf, Place)> {
    let whole = std::path::absolute(file).ok()?;
    (1..=3).rev().find_map(|depth| {
        let directory = whole.ancestors().nth(depth)?;
        let place = Place::parse(whole.strip_prefix(directory).ok()?)?;
        Some((directory.to_owned(), place))
    })
}

/// Returns the problems of a file outside a state directory.
fn elsewhere(file: &Path) -> Vec<DocumentError> {
    let text = match file::read_text(file, file::DOCUMENT) {
        Ok(text) => text,
        Err(error) => return vec![DocumentError::whole(error.to_string()).in_file(file)],
    };
    let value: Value = match document::parse_value(&text) {
        Ok(value) => value,
        Err(error) => return vec![error.in_file(file)],
    };
    let found = if value.get("status").is_some() {
        list(document::parse_value::<StatusDocument>(&text))
    } else if value.get("applied").is_some() {
        list(document::parse_value::<AppliedDocument>(&text))
    } else {
        match value.get("kind") {
            Some(word) => match Kind::ALL.into_iter().find(|kind| word == &kind.to_string()) {
                Some(Kind::Override) => return unplaced_override(file, &text),
                Some(kind) => document_problems(kind, &text),
                None => vec![unknown_kind(&text, word)],
            },
            // The only file without a kind is the configuration.
            None => return config::problems(file, Environment::read()),
        }
    };
    let found = found.into_iter().map(|error| error.in_file(file));
    found.collect()
}

fn list<T>(parsed: Result<T, DocumentError>) -> Vec<DocumentError> {
    parsed.err().into_iter().collect()
}

fn document_problems(kind: Kind, text: &str) -> Vec<DocumentError> {
    with_spec!(kind, S => document::problems::<S>(text))
}

/// Checks an override whose folder names no kind: it must fit a document of the kind that it says, or of some kind.
fn unplaced_override(file: &Path, text: &str) -> Vec<DocumentError> {
    let found = document::problems::<OverrideSpec>(text);
    let document = match document::parse::<OverrideSpec>(text) {
        Ok(document) if found.is_empty() => document,
        _ => {
            let found = found.into_iter().map(|error| error.in_file(file));
            return found.collect();
        }
    };
    let name = document.metadata.name.clone();
    let override_: Slot<OverrideSpec> = Ok(Arc::new(stored(document, file, text)));
    let singles = [Kind::Node, Kind::RoutingPolicy];
    let target = override_
        .as_ref()
        .ok()
        .and_then(|it| it.document.spec.target_kind);
    let mut refused: Vec<_> = Kind::many()
        .chain(singles)
        .filter(|kind| target.is_none_or(|target| target == *kind))
        .map(|kind| (kind, merged(kind, &name, None, &override_)))
        .collect();
    let set = override_.map(|stored| stored.document.spec.set.clone());
    let knows = |kind| set.as_ref().is_ok_and(|set| has_fields(kind, set));
    // A kind that has all the fields gives the best errors about the values. The sort is stable.
    refused.sort_by_cached_key(|(kind, faults)| (!faults.is_empty(), !knows(*kind)));
    refused
        .into_iter()
        .next()
        .map(|(_, faults)| faults)
        .unwrap_or_default()
}

/// Returns whether the specification of a kind has all fields that an override sets.
fn has_fields(kind: Kind, set: &Map<String, Value>) -> bool {
    fn all_in(schema: &Schema<'_>, set: &Map<String, Value>) -> bool {
        let fields = schema.fields();
        set.iter().all(|(name, value)| {
            let field = fields.iter().find(|field| field.name == *name);
            field.is_some_and(|field| match value.as_object() {
                Some(below) if !field.schema.fields().is_empty() => all_in(&field.schema, below),
                _ => true,
            })
        })
    }
    let root = schemas::value(&kind.to_string());
    let mut spec = Schema::of(&root).fields().into_iter();
    let spec = spec.find(|field| field.name == "spec");
    spec.is_some_and(|spec| all_in(&spec.schema, set))
}

/// Returns the problems of an override on top of its document, or, without one, of the shortest valid document.
fn merged(
    kind: Kind,
    name: &ObjectName,
    directory: Option<&Path>,
    override_: &Slot<OverrideSpec>,
) -> Vec<DocumentError> {
    match kind {
        Kind::Maintenance | Kind::Override => Vec::new(),
        kind => with_spec!(kind, S => merged_with::<S>(name, directory, override_)),
    }
}

fn merged_with<S: Spec>(
    name: &ObjectName,
    directory: Option<&Path>,
    override_: &Slot<OverrideSpec>,
) -> Vec<DocumentError> {
    let place = Place::document(S::KIND, name);
    let written = directory.and_then(|directory| store::stored::<S>(directory, &place));
    let shortest = || {
        let spec = document::read(&document::minimal(S::KIND), document::Scalars::Typed).ok()?;
        let document = Document::new(name.clone(), None, 0, spec);
        Some(Ok(Arc::new(stored(document, Path::new(""), ""))))
    };
    let document = written.filter(|slot| slot.is_ok()).or_else(shortest);
    let inputs = LayerInputs {
        override_: Some(override_),
        overrides_complete: true,
        broken: false,
        applied: None,
        now: Timestamp::now(),
    };
    let layers = merge_layers::<S>(name, document.as_ref(), &inputs);
    match layers.acceptance {
        Acceptance::Invalid(_) => layers.faults,
        _ => Vec::new(),
    }
}

fn stored<D>(document: D, path: &Path, text: &str) -> Stored<D> {
    Stored {
        document: document.into(),
        hash: [0; 32],
        path: path.to_owned(),
        owner: 0,
        text: text.into(),
    }
}

fn unknown_kind(text: &str, word: &Value) -> DocumentError {
    let known = Kind::ALL.map(|kind| kind.to_string()).join(", ");
    DocumentError {
        location: document::locate(text, &["kind"]),
        field: "kind".to_owned(),
        ..DocumentError::whole(format!(
            "kind: use one of {known}, not {}",
            match word.as_str() {
                Some(word) => crate::model::shown(word),
                None => crate::model::shown(&word.to_string()),
            }
        ))
    }
}
