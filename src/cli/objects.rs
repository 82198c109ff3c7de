//! Lookup of objects by name.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::documents;
use crate::controller::World;
use crate::controller::world::{Entry, Intent, RouterDocuments, SingleDocument};
use crate::document::Kind;
use crate::model::{AdminState, ObjectName, Uid};
use crate::status::Acceptance;
use crate::store::{Area, Place, Snapshot};

/// The common part of every entry of the world, of any kind.
#[derive(Clone)]
pub(crate) struct Object<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: Cow<'a, ObjectName>,
    pub(crate) uid: Cow<'a, Uid>,
    pub(crate) acceptance: &'a Acceptance,
    /// Further problems of rejected documents.
    pub(crate) further: &'a [String],
    pub(crate) admin_state: AdminState,
    spec: Option<Cow<'a, Value>>,
    pub(crate) overridden: &'a BTreeMap<String, Value>,
    pub(crate) reason: Option<&'a str>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) paused: Option<&'a str>,
    /// The held change, and the reason.
    pub(crate) held: Option<Cow<'a, str>>,
    pub(crate) operator_owned: bool,
    /// The text for BIRD, if the object is wanted.
    pub(crate) text: Option<&'a str>,
}

impl Object<'_> {
    /// Returns `sessions/wg_1`, or `node`.
    pub(crate) fn path(&self) -> String {
        path(self.kind, &self.name)
    }

    /// Returns the applied specification, or the one to apply.
    pub(crate) fn spec(&self) -> Option<&Value> {
        self.spec.as_deref()
    }

    /// Returns why the documents are not applied, if they are not.
    pub(crate) fn refused(&self) -> Option<&str> {
        match self.acceptance {
            Acceptance::Invalid(why) | Acceptance::Clash(why) => Some(why),
            Acceptance::Valid | Acceptance::Waiting(_) => None,
        }
    }
}

/// Returns `sessions/wg_1`; for a singleton kind, its folder's word: `node`.
pub(crate) fn path(kind: Kind, name: &ObjectName) -> String {
    if kind.is_single() {
        kind.folder().to_owned()
    } else {
        format!("{}/{name}", kind.folder())
    }
}

/// Returns every session, mesh peer and internal neighbour.
pub(crate) fn all(world: &World) -> Vec<Object<'_>> {
    let sessions = world
        .sessions
        .iter()
        .map(|(name, entry)| object(Kind::BgpSession, name, entry));
    let mesh = world
        .mesh
        .iter()
        .map(|(name, entry)| object(Kind::MeshPeer, name, entry));
    let ibgp = world
        .ibgp
        .iter()
        .map(|(name, entry)| object(Kind::IbgpPeer, name, entry));
    sessions.chain(mesh).chain(ibgp).collect()
}

/// Returns the object with this name.
pub(crate) fn find<'a>(
    world: &'a World,
    snapshot: &Snapshot,
    meant: &str,
) -> anyhow::Result<Object<'a>> {
    let all: Vec<_> = singles(world).into_iter().chain(all(world)).collect();
    let mut found = all
        .iter()
        .filter(|object| is_meant(object.kind, &object.name, meant));
    match (found.next(), found.next()) {
        (Some(object), None) => Ok(object.clone()),
        (Some(one), Some(two)) => {
            anyhow::bail!(
                "{meant} may be {} or {}; give the kind too",
                one.path(),
                two.path()
            )
        }
        (None, _) => {
            let unknown = unknown(meant, all.iter().map(Object::path));
            let mut waiting = waiting(snapshot).into_iter();
            match waiting.find(|(kind, name)| is_meant(*kind, name, meant)) {
                Some((kind, name)) => anyhow::bail!("{unknown} {}", waits(kind, &name)),
                None => Err(unknown),
            }
        }
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
        path(kind, name)
    )
}

/// Returns the error for an unknown name, with the most similar known name.
pub(crate) fn unknown(meant: &str, known: impl IntoIterator<Item = String>) -> anyhow::Error {
    let bare = |path: String| path.rsplit('/').next().unwrap_or_default().to_owned();
    // A suggestion has no kind if the name was given without one.
    let known = known.into_iter().map(|path| {
        if meant.contains('/') {
            path
        } else {
            bare(path)
        }
    });
    let distance =
        |known: &str| strsim::damerau_levenshtein(&meant.to_lowercase(), &known.to_lowercase());
    let near = known
        .map(|known| (distance(&known), known))
        .filter(|(far, known)| *far <= 1 + known.len() / 4);
    match near.min() {
        Some((_, nearest)) => {
            anyhow::anyhow!("there is no object named {meant}; did you mean {nearest}?")
        }
        None => anyhow::anyhow!("there is no object named {meant}; `moenet-agent get` lists them"),
    }
}

/// Returns node and policy, which share their files with all objects.
fn singles(world: &World) -> [Object<'_>; 2] {
    let documents = &world.router_documents;
    let policy = single(Kind::RoutingPolicy, &documents.policy);
    [
        node(documents),
        Object {
            spec: policy.spec.filter(|_| documents.has_policy),
            ..policy
        },
    ]
}

fn node(documents: &RouterDocuments) -> Object<'_> {
    let held = documents.node_held.as_ref();
    Object {
        held: held.map(|held| Cow::Owned(format!("{}: {}", held.change, held.reason))),
        ..single(Kind::Node, &documents.node)
    }
}

fn single<S: Serialize>(kind: Kind, document: &SingleDocument<S>) -> Object<'_> {
    let name = Place::single(Area::Documents, kind).name;
    let exception = document.exception.as_ref();
    Object {
        kind,
        uid: Cow::Owned(Uid::local(kind.folder(), &name)),
        name: Cow::Owned(name),
        acceptance: &document.acceptance,
        further: &document.further,
        admin_state: AdminState::Enabled,
        spec: serde_json::to_value(&document.spec)
            .ok()
            .filter(|spec| !spec.is_null())
            .map(Cow::Owned),
        overridden: &document.overridden,
        reason: exception.map(|exception| exception.reason.as_str()),
        expires_at: exception.and_then(|exception| exception.expires_at),
        paused: None,
        held: None,
        operator_owned: document.operator_owned,
        text: None,
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

fn object<'a, T>(kind: Kind, name: &'a ObjectName, entry: &'a Entry<T>) -> Object<'a> {
    Object {
        kind,
        name: Cow::Borrowed(name),
        uid: Cow::Borrowed(&entry.uid),
        acceptance: &entry.acceptance,
        further: &entry.further,
        admin_state: entry.admin_state,
        spec: entry.spec.as_ref().map(Cow::Borrowed),
        overridden: &entry.overridden,
        reason: entry.reason.as_deref(),
        expires_at: entry.expires_at,
        paused: entry.paused.as_deref(),
        held: entry
            .held
            .as_ref()
            .and_then(|held| held.approval().map(Cow::Borrowed)),
        operator_owned: entry.operator_owned,
        text: match &entry.intent {
            Intent::Present(_, text) => text.as_deref(),
            _ => None,
        },
    }
}
