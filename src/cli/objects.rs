//! Lookup of objects by name.

use std::borrow::Cow;

use super::documents;
use crate::desired::{Desired, Object};
use crate::document::Kind;
use crate::model::ObjectName;
use crate::store::{Area, Place, Snapshot};

/// Returns the object with this name.
pub(crate) fn find<'a>(
    desired: &'a Desired,
    snapshot: &Snapshot,
    meant: &str,
) -> anyhow::Result<Cow<'a, Object>> {
    let singles = desired
        .router_documents
        .objects()
        .into_iter()
        .map(Cow::Owned);
    let objects = desired.objects.values().map(Cow::Borrowed);
    let all: Vec<_> = singles.chain(objects).collect();
    match one(&all, |object| (object.kind, &object.name), meant)? {
        Some(object) => Ok(object.clone()),
        None => {
            let unknown = unknown(meant, all.iter().map(|object| object.path()));
            let mut waiting = waiting(snapshot).into_iter();
            match waiting.find(|(kind, name)| is_meant(*kind, name, meant)) {
                Some((kind, name)) => anyhow::bail!("{unknown} {}", waits(kind, &name)),
                None => Err(unknown),
            }
        }
    }
}

/// Returns the one of these objects that a name means; `None` if no object has it.
///
/// # Errors
/// Several objects have it.
pub(crate) fn one<'a, T>(
    all: impl IntoIterator<Item = &'a T>,
    key: impl Fn(&'a T) -> (Kind, &'a ObjectName),
    meant: &str,
) -> anyhow::Result<Option<&'a T>> {
    let is_it = |object: &&'a T| {
        let (kind, name) = key(object);
        is_meant(kind, name, meant)
    };
    let found: Vec<_> = all.into_iter().filter(is_it).collect();
    let path = |object: &'a T| {
        let (kind, name) = key(object);
        kind.path(name)
    };
    match found.as_slice() {
        [one, two, ..] => anyhow::bail!(
            "{meant} is ambiguous: {} or {}; add the kind",
            path(one),
            path(two)
        ),
        found => Ok(found.first().copied()),
    }
}

/// Returns the overrides whose document does not exist.
pub(crate) fn waiting(snapshot: &Snapshot) -> Vec<(Kind, ObjectName)> {
    let documents = documents::all(snapshot);
    let waiting = snapshot
        .overrides
        .keys()
        .filter(|key| !documents.contains_key(key));
    waiting.cloned().collect()
}

/// Returns a sentence that an override waits.
pub(crate) fn waits(kind: Kind, name: &ObjectName) -> String {
    let file = Place::new(Area::Overrides, kind, name).relative();
    format!(
        "{} waits for a document of {}.",
        file.display(),
        kind.path(name)
    )
}

/// Returns the error for an unknown name, with the object of another kind that has it, or the most similar known name.
pub(crate) fn unknown(meant: &str, known: impl IntoIterator<Item = String>) -> anyhow::Error {
    if Kind::from_word(meant) == Some(Kind::Maintenance) {
        return anyhow::anyhow!(
            "no maintenance.yaml, so the router is not drained; run `moenet-agent maintenance start` to drain it"
        );
    }
    let bare = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let known = known.into_iter().filter(|path| path != meant);
    let known: Vec<String> = known.collect();
    if let Some(path) = known.iter().find(|path| bare(path) == bare(meant)) {
        return anyhow::anyhow!("no object of this kind is named {meant}; did you mean {path}?");
    }
    // A suggestion has no kind if the name was given without one.
    let known = known.into_iter().map(|path| {
        if meant.contains('/') {
            path
        } else {
            bare(&path)
        }
    });
    let distance =
        |known: &str| strsim::damerau_levenshtein(&meant.to_lowercase(), &known.to_lowercase());
    let near = known
        .map(|known| (distance(&known), known))
        .filter(|(far, known)| *far <= 1 + known.len() / 4);
    match near.min() {
        Some((_, nearest)) => {
            anyhow::anyhow!("no object named {meant}; did you mean {nearest}?")
        }
        None => anyhow::anyhow!("no object named {meant}; `moenet-agent get` lists all objects"),
    }
}

/// Returns whether `wg_1`, `sessions/wg_1`, `session/wg_1` or `BgpSession/wg_1` names the object; a singleton
/// is named by any word for its kind.
pub(crate) fn is_meant(kind: Kind, name: &ObjectName, meant: &str) -> bool {
    if kind.is_single() {
        return Kind::from_word(meant) == Some(kind);
    }
    match meant.split_once('/') {
        Some((word, rest)) => Kind::from_word(word) == Some(kind) && rest == name.as_str(),
        None => meant == name.as_str(),
    }
}
