//! Objects by the names that people give them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::controller::World;
use crate::controller::world::{Entry, Intent};
use crate::document::Kind;
use crate::model::{AdminState, ObjectName, Uid};
use crate::status::Acceptance;

/// What every entry of the world has, whatever its kind.
#[derive(Clone)]
pub(crate) struct Object<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a ObjectName,
    pub(crate) uid: &'a Uid,
    pub(crate) acceptance: &'a Acceptance,
    pub(crate) admin_state: AdminState,
    pub(crate) spec: Option<&'a Value>,
    pub(crate) overridden: &'a BTreeMap<String, Value>,
    pub(crate) reason: Option<&'a str>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) paused: Option<&'a str>,
    pub(crate) held: Option<&'a str>,
    pub(crate) operator_owned: bool,
    /// The text for BIRD, of what is to be there.
    pub(crate) text: Option<&'a str>,
}

impl Object<'_> {
    /// `sessions/wg_1`.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.kind.folder(), self.name)
    }

    /// Why the documents are not in force, when they are not.
    pub(crate) fn refused(&self) -> Option<&str> {
        match self.acceptance {
            Acceptance::Invalid(why) | Acceptance::Clash(why) => Some(why),
            Acceptance::Valid | Acceptance::Waiting(_) => None,
        }
    }
}

/// Every session, mesh peer and internal neighbour.
pub(crate) fn all(world: &World) -> Vec<Object<'_>> {
    let sessions = world.sessions.iter().map(|(name, entry)| object(Kind::BgpSession, name, entry));
    let mesh = world.mesh.iter().map(|(name, entry)| object(Kind::MeshPeer, name, entry));
    let ibgp = world.ibgp.iter().map(|(name, entry)| object(Kind::IbgpPeer, name, entry));
    sessions.chain(mesh).chain(ibgp).collect()
}

/// The one that is meant.
pub(crate) fn find<'a>(world: &'a World, meant: &str) -> anyhow::Result<Object<'a>> {
    let mut found = all(world).into_iter().filter(|object| is_meant(object.kind, object.name, meant));
    match (found.next(), found.next()) {
        (Some(object), None) => Ok(object),
        (Some(one), Some(two)) => {
            anyhow::bail!("{meant} may be {} or {}; give the kind too", one.path(), two.path())
        }
        (None, _) => anyhow::bail!("there is no object named {meant}; `moenet-agent get` lists them"),
    }
}

/// Whether an object is meant by `wg_1`, `sessions/wg_1`, `session/wg_1` or `BgpSession/wg_1`.
pub(crate) fn is_meant(kind: Kind, name: &ObjectName, meant: &str) -> bool {
    match meant.split_once('/') {
        Some((word, rest)) => Kind::from_word(word) == Some(kind) && rest == name.as_str(),
        None => meant == name.as_str(),
    }
}

fn object<'a, T>(kind: Kind, name: &'a ObjectName, entry: &'a Entry<T>) -> Object<'a> {
    Object {
        kind,
        name,
        uid: &entry.uid,
        acceptance: &entry.acceptance,
        admin_state: entry.admin_state,
        spec: entry.spec.as_ref(),
        overridden: &entry.overridden,
        reason: entry.reason.as_deref(),
        expires_at: entry.expires_at,
        paused: entry.paused.as_deref(),
        held: entry.held.as_deref(),
        operator_owned: entry.operator_owned,
        text: match &entry.intent {
            Intent::Present(_, text) => Some(text),
            _ => None,
        },
    }
}
