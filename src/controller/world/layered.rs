use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::{Entry, Intent};
use crate::document::{OverrideSpec, Spec};
use crate::effective::{FieldError, Merged, merge};
use crate::model::{AdminState, ObjectName, Uid};
use crate::status::Acceptance;
use crate::store::{AppliedDocument, Slot};

/// The layers of one object put on top of each other: its document, its override, and, where these
/// cannot be used, what `applied/` says was in force.
#[derive(Debug, Clone)]
pub(crate) struct Layered<S> {
    /// The specification to go by; none when there is no document, or nothing usable.
    pub(crate) spec: Option<S>,
    /// The object's identity.
    pub(crate) uid: Uid,
    /// The generation of its document.
    pub(crate) generation: u64,
    /// Whether the documents were accepted.
    pub(crate) acceptance: Acceptance,
    /// What the override changes, each with what the document says.
    pub(crate) overridden: BTreeMap<String, Value>,
    /// The override that is in force.
    pub(crate) exception: Option<OverrideSpec>,
    /// Whether there is a document, valid or not.
    pub(crate) documented: bool,
    /// Whether the document is the operator's own.
    pub(crate) operator_owned: bool,
}

/// Puts the layers of one object on top of each other.
pub(crate) fn layered<S: Spec>(
    name: &ObjectName,
    document: Option<&Slot<S>>,
    exception: Option<&Slot<OverrideSpec>>,
    applied: Option<&AppliedDocument>,
    now: Timestamp,
) -> Layered<S> {
    let local = || Uid::local(S::KIND.folder(), name);
    let mut layers = Layered {
        spec: None,
        uid: applied.and_then(|applied| applied.metadata.uid.clone()).unwrap_or_else(local),
        generation: applied.map_or(0, |applied| applied.metadata.generation),
        acceptance: Acceptance::Valid,
        overridden: BTreeMap::new(),
        exception: None,
        documented: document.is_some(),
        operator_owned: false,
    };
    let Some(document) = document else { return layers };
    match document {
        Ok(stored) => {
            layers.uid = stored.document.uid();
            layers.generation = stored.document.metadata.generation;
            layers.operator_owned = stored.document.metadata.uid.is_none();
            match merged(&stored.document.spec, exception, now) {
                Ok((merged, exception)) => {
                    layers.overridden = merged.overridden;
                    layers.spec = Some(merged.spec);
                    layers.exception = exception;
                }
                Err(why) => layers.fall_back(why, applied),
            }
        }
        Err(error) => layers.fall_back(error.to_string(), applied),
    }
    layers
}

fn merged<S: Spec>(
    spec: &S,
    exception: Option<&Slot<OverrideSpec>>,
    now: Timestamp,
) -> Result<(Merged<S>, Option<OverrideSpec>), String> {
    let exception = match exception {
        None => None,
        Some(Ok(stored)) => Some(stored.document.spec.clone()).filter(|exception| exception.in_force(now)),
        Some(Err(error)) => return Err(error.to_string()),
    };
    let none = serde_json::Map::new();
    let patch = exception.as_ref().map_or(&none, |exception| &exception.set);
    let merged = merge(spec, patch).map_err(|error: FieldError| format!("override: {error}"))?;
    Ok((merged, exception))
}

impl<S: Spec> Layered<S> {
    /// Goes by what was in force, and says why.
    pub(crate) fn fall_back(&mut self, why: String, applied: Option<&AppliedDocument>) {
        self.acceptance = Acceptance::Invalid(why);
        self.overridden = BTreeMap::new();
        let spec = applied.and_then(|applied| applied.applied.spec.clone());
        self.spec = spec.and_then(|spec| serde_json::from_value(spec).ok());
    }

    /// Why nothing is written for this object, when the operator says so.
    pub(crate) fn paused(&self) -> Option<String> {
        self.exception.as_ref().filter(|exception| exception.paused).map(|exception| exception.reason.clone())
    }

    /// The entry of the object in the world, once it is known what is to be done about it.
    pub(crate) fn into_entry<T>(
        self,
        intent: Intent<T>,
        admin_state: AdminState,
        spec: Option<Value>,
        held: Option<String>,
    ) -> Entry<T> {
        Entry {
            spec,
            paused: self.paused(),
            reason: self.exception.as_ref().map(|exception| exception.reason.clone()),
            expires_at: self.exception.as_ref().and_then(|exception| exception.expires_at),
            uid: self.uid,
            generation: self.generation,
            intent,
            admin_state,
            acceptance: self.acceptance,
            overridden: self.overridden,
            held,
            documented: self.documented,
            operator_owned: self.operator_owned,
        }
    }
}
