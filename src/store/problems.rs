//! All problems of one file. A listing reports only the first error; an operator who corrects a file needs all.

use std::path::Path;

use crate::document::{
    self, Document, DocumentError, Kind, OverrideSpec, Spec, StatusDocument, with_spec,
};

use super::cache::{Cache, Parsed, Slot, check_name, check_target};
use super::list::{OVERRIDES_NOTHING, in_plain_sight};
use super::{AppliedDocument, Area, Place, read};

/// Returns the problems of the file in a place: first the error of a listing, then the errors of other fields.
pub(crate) fn problems(path: &Path, place: &Place) -> Vec<DocumentError> {
    let text = match read::text(path) {
        Ok(Some(found)) => found.text,
        Ok(None) => return vec![read::error(path, "does not exist")],
        Err(error) => return vec![error],
    };
    text_problems(path, place, &text)
}

/// Returns the problems that a text would have as the file in a place.
pub(crate) fn text_problems(path: &Path, place: &Place, text: &str) -> Vec<DocumentError> {
    let found = match (place.area, place.kind) {
        (Area::Status, _) => document::parse_value::<StatusDocument>(text)
            .err()
            .into_iter()
            .collect(),
        (Area::Applied, _) => AppliedDocument::parse(text, place)
            .err()
            .into_iter()
            .collect(),
        (Area::Overrides, Kind::Maintenance) => vec![read::error(path, OVERRIDES_NOTHING)],
        (Area::Overrides, _) | (_, Kind::Override) => of::<OverrideSpec>(text, place),
        (_, kind) => with_spec!(kind, S => of::<S>(text, place)),
    };
    let found = found.into_iter().map(|error| error.in_file(path));
    found.chain(in_plain_sight(path, text)).collect()
}

/// Returns a document as a listing finds it; `None` without a file.
pub(crate) fn stored<S: Spec>(directory: &Path, place: &Place) -> Option<Slot<S>> {
    Cache::<Document<S>>::default().look(&directory.join(place.relative()), place)
}

fn of<S: Spec>(text: &str, place: &Place) -> Vec<DocumentError> {
    let mut found = document::problems::<S>(text);
    let value = document::value(text).unwrap_or_default();
    if let Some(name) = value
        .pointer("/metadata/name")
        .and_then(|name| name.as_str())
    {
        found.extend(check_name(place, name).err());
    }
    let target = value.pointer("/spec/targetKind");
    let target = target.filter(|_| S::KIND == Kind::Override);
    let target = target.and_then(|kind| serde_json::from_value(kind.clone()).ok());
    found.extend(check_target(place, target).err());
    found
}
