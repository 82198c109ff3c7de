//! From what the Control Plane said to documents: which to write, which to remove. Pure; the caller
//! fetches and writes.
//!
//! Absence from a list removes a document only when the list is complete, and never one of an operator.
//! Whether something in force is then torn down is the guard's to say, later and in one place.

mod peers;
mod sessions;

pub use peers::{plan_ibgp, plan_mesh, plan_single};
pub use sessions::{PortBases, SessionChange, plan_sessions};

use crate::document::{Document, Spec};
use crate::model::ObjectName;
use crate::store::{BrokenDocument, Snapshot};

/// What to do with one document.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<S> {
    /// Write it; it is new or different.
    Write(Box<Document<S>>),
    /// Write it in the place of something that is no document: the Control Plane wants the object down.
    Displace(Box<Document<S>>),
    /// Remove it; the Control Plane does not list it any more.
    Remove(ObjectName),
}

/// The sync's documents of a kind in whose place stands what is none.
fn broken<S: Spec>(snapshot: &Snapshot) -> impl Iterator<Item = (&ObjectName, &BrokenDocument)> {
    let of_kind = snapshot.broken.iter().filter(|((kind, _), _)| *kind == S::KIND);
    of_kind.map(|((_, name), document)| (name, document))
}

/// The document with its generation: the next one when the specification changed, and none at all when
/// nothing did.
fn updated<S: Spec>(
    name: ObjectName,
    uid: crate::model::Uid,
    spec: S,
    existing: Option<&Document<S>>,
    generation_in_force: u64,
) -> Option<Document<S>> {
    match existing {
        Some(document) if document.spec == spec && document.metadata.uid.as_ref() == Some(&uid) => None,
        Some(document) => Some(Document::new(name, Some(uid), document.metadata.generation + 1, spec)),
        None => Some(Document::new(name, Some(uid), generation_in_force + 1, spec)),
    }
}
