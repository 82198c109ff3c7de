use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Intent, Object};
use crate::document::{self, DocumentError, Kind, OverrideSpec, PackedSpec, Spec};
use crate::effective::{FieldError, Merged, merge, merge_problems};
use crate::model::{AdminState, ObjectName, Uid};
use crate::status::{Acceptance, Hold};
use crate::store::{AppliedDocument, AppliedOverride, Slot, Stored};
use crate::util::sorted::Sorted as _;

/// The merged layers of one object: its document, its override, and, where these cannot be used, the applied
/// record.
#[derive(Debug, Clone)]
pub(crate) struct MergedLayers<S> {
    /// The specification to use; `None` without a document, or without a usable one.
    pub(crate) spec: Option<S>,
    /// The object's identity.
    pub(crate) uid: Uid,
    applied_uid: Option<Uid>,
    pub(crate) generation: u64,
    /// Whether the documents were accepted.
    pub(crate) acceptance: Acceptance,
    /// Every error of documents that were not accepted.
    pub(crate) faults: Vec<DocumentError>,
    /// A clash despite which an applied address stays.
    pub(crate) remark: Option<String>,
    /// Fields that the override changes, each with the document's value.
    pub(crate) overridden: BTreeMap<String, Value>,
    pub(crate) override_: Option<OverrideSpec>,
    /// Whether an override exists that cannot be read: it may pause the object.
    pub(crate) override_unreadable: bool,
    /// Whether a document exists, valid or not.
    pub(crate) documented: bool,
    /// Whether the document is the operator's own.
    pub(crate) operator_owned: bool,
    /// The document's specification, when it is valid.
    document: Option<S>,
    /// The texts of the layers, the uppermost first.
    sources: Vec<Source>,
}

/// The text of a layer, and the path in it to the specification's fields.
#[derive(Debug, Clone)]
struct Source {
    path: PathBuf,
    text: Arc<str>,
    below: &'static [&'static str],
}

impl Source {
    fn of<D>(stored: &Stored<D>, below: &'static [&'static str]) -> Self {
        Self {
            path: stored.path.clone(),
            text: Arc::clone(&stored.text),
            below,
        }
    }

    /// Returns the error with its position in this text, if the text sets the field.
    fn place(&self, field: &[&str], error: &FieldError) -> Option<DocumentError> {
        // `paused` is a sibling of an override's `set`.
        let below = if field == ["paused"] {
            &self.below[..1]
        } else {
            self.below
        };
        let path: Vec<&str> = below.iter().chain(field).copied().collect();
        Some(DocumentError {
            file: Some(self.path.clone()),
            location: Some(document::locate(&self.text, &path)?),
            field: error.field.clone(),
            ..DocumentError::whole(error.to_string())
        })
    }
}

/// Consequences while an invalid file replaces one of the sync's documents.
const WAITS: &str = ". The previous configuration stays active. Fix the file, or delete it to \
                     restore the Control Plane's copy";

/// Inputs for the layers of an object, besides its document.
pub(crate) struct LayerInputs<'a> {
    /// The operator's override.
    pub(crate) override_: Option<&'a Slot<OverrideSpec>>,
    /// Whether an unlisted override certainly does not exist.
    pub(crate) overrides_complete: bool,
    /// Whether an invalid file replaces one of the sync's documents.
    pub(crate) broken: bool,
    pub(crate) applied: Option<&'a AppliedDocument>,
    /// The current time.
    pub(crate) now: Timestamp,
}

/// Merges the layers of one object.
pub(crate) fn merge_layers<S: Spec>(
    name: &ObjectName,
    document: Option<&Slot<S>>,
    inputs: &LayerInputs<'_>,
) -> MergedLayers<S> {
    let applied = inputs.applied;
    let local = || Uid::local(S::KIND.folder(), name);
    let mut layers = MergedLayers {
        spec: None,
        uid: applied
            .and_then(|applied| applied.metadata.uid.clone())
            .unwrap_or_else(local),
        applied_uid: applied.and_then(|applied| applied.metadata.uid.clone()),
        generation: applied.map_or(0, |applied| applied.metadata.generation),
        acceptance: Acceptance::Valid,
        faults: Vec::new(),
        remark: None,
        overridden: BTreeMap::new(),
        override_: None,
        override_unreadable: matches!(inputs.override_, Some(Err(_))),
        documented: document.is_some(),
        operator_owned: false,
        document: None,
        sources: Vec::new(),
    };
    if let Some(Ok(stored)) = inputs.override_ {
        layers.sources.push(Source::of(stored, &["spec", "set"]));
        layers.override_ = Some(&stored.document.spec)
            .filter(|it| it.in_effect(inputs.now))
            .cloned();
    }
    match document {
        None => {}
        Some(Err(error)) if inputs.broken => {
            let message = format!("{}{WAITS}", error.message);
            let error = DocumentError {
                message,
                ..error.clone()
            };
            layers.fall_back(vec![error], applied);
        }
        Some(Err(error)) => layers.fall_back(vec![error.clone()], applied),
        Some(Ok(stored)) => {
            // An operator who takes a session over omits its uid; the mark on its tunnel stays.
            if stored.document.metadata.uid.is_some() || applied.is_none() {
                layers.uid = stored.document.uid();
            }
            layers.generation = stored.document.metadata.generation;
            layers.operator_owned = stored.document.metadata.uid.is_none();
            layers.sources.push(Source::of(stored, &["spec"]));
            layers.put_on(&stored.document.spec, inputs);
        }
    }
    layers
}

impl<S: Spec> MergedLayers<S> {
    /// Merges the override over the document.
    fn put_on(&mut self, spec: &S, inputs: &LayerInputs<'_>) {
        self.document = Some(spec.clone());
        match (inputs.override_, in_effect_before(inputs)) {
            (Some(Err(error)), Some(_)) => self.fall_back(vec![error.clone()], inputs.applied),
            // If no override was applied before, or the earlier one has ended, only the document is valid.
            (Some(Err(error)), None) if inputs.applied.is_some() => {
                self.take(merge(spec, &Map::new()));
                self.reject(vec![error.clone()]);
            }
            (Some(Err(error)), None) => self.fall_back(vec![error.clone()], None),
            // An override may have been removed, or an override may exist that disables the object.
            (None, before)
                if !inputs.overrides_complete && (before.is_some() || inputs.applied.is_none()) =>
            {
                let why = "cannot list the overrides; the current configuration stays active";
                self.fall_back(vec![DocumentError::whole(why)], inputs.applied);
            }
            _ => match self.merged(spec) {
                Ok(merged) => self.take(Ok(merged)),
                Err(errors) => self.refuse(&errors, inputs.applied),
            },
        }
    }

    /// Returns the document merged with the override, or every error of that.
    fn merged(&self, spec: &S) -> Result<Merged<S>, Vec<FieldError>> {
        let Some(override_) = &self.override_ else {
            return merge(spec, &Map::new()).map_err(|error| vec![error]);
        };
        let mut patch = override_.set.clone();
        let enabled = patch
            .get("adminState")
            .is_some_and(|state| state == "Enabled");
        // An object that the Control Plane removes is removed, also when an override has already disabled it.
        let leaving = serde_json::to_value(spec).is_ok_and(|spec| spec["adminState"] == "Absent");
        if leaving && !enabled {
            patch.remove("adminState");
        }
        let broken: Vec<FieldError> = broken_rules(S::KIND, override_).collect();
        match merge(spec, &patch) {
            Ok(merged) if broken.is_empty() => Ok(merged),
            Ok(_) => Err(broken),
            Err(_) => Err(broken
                .into_iter()
                .chain(merge_problems(spec, &patch))
                .collect()),
        }
    }

    /// Refuses the documents for these reasons, and uses the applied specification.
    pub(crate) fn refuse(&mut self, errors: &[FieldError], applied: Option<&AppliedDocument>) {
        self.fall_back(self.placed(errors), applied);
    }

    /// Returns the document's value of a field, such as `spec.tunnel.mtu`.
    fn said(&self, field: &str) -> Value {
        let path = field
            .strip_prefix("spec")
            .unwrap_or(field)
            .replace('.', "/");
        let document = serde_json::to_value(&self.document).unwrap_or_default();
        document.pointer(&path).cloned().unwrap_or_default()
    }

    fn take(&mut self, merged: Result<Merged<S>, FieldError>) {
        match merged {
            Ok(merged) => (self.spec, self.overridden) = (Some(merged.spec), merged.overridden),
            Err(error) => self.reject(self.placed(&[error])),
        }
    }

    /// Returns errors about fields, each with file, line and column of the text that set its field.
    pub(crate) fn placed(&self, errors: &[FieldError]) -> Vec<DocumentError> {
        errors.iter().map(|error| self.place(error)).collect()
    }

    fn place(&self, error: &FieldError) -> DocumentError {
        let keys = error.field.split(['.', '[', ']']);
        let field: Vec<&str> = keys.skip(1).filter(|key| !key.is_empty()).collect();
        let at = |field: &[&str]| {
            let mut sources = self.sources.iter();
            sources.find_map(|source| source.place(field, error))
        };
        let nowhere = || DocumentError {
            field: error.field.clone(),
            ..DocumentError::whole(error.to_string())
        };
        at(&field).or_else(|| at(&[])).unwrap_or_else(nowhere)
    }

    /// Records why the documents are not accepted.
    pub(crate) fn reject(&mut self, faults: Vec<DocumentError>) {
        let first = faults.first().map(ToString::to_string);
        self.acceptance = Acceptance::Invalid(first.unwrap_or_default());
        self.faults = faults;
    }

    /// Uses the applied state, and records the reason.
    pub(crate) fn fall_back(&mut self, why: Vec<DocumentError>, applied: Option<&AppliedDocument>) {
        self.reject(why);
        self.overridden = BTreeMap::new();
        let body = applied.map(|applied| &applied.applied);
        let spec = body.and_then(|body| body.spec.as_ref());
        self.spec = spec.and_then(|spec| spec.read().ok());
        if let Some(before) = body.and_then(|body| body.overridden.as_ref()) {
            self.overridden = before
                .fields
                .iter()
                .map(|field| (field.clone(), self.said(field)))
                .sorted_map();
            let paused = self
                .override_
                .as_ref()
                .is_some_and(|override_| override_.paused);
            let (reason, expires_at) = (before.reason.clone(), before.expires_at);
            self.override_ = Some(OverrideSpec {
                reason,
                target_kind: None,
                expires_at,
                paused,
                set: Map::new(),
            });
        }
    }

    /// Returns the reason why this object is paused, if the operator paused it.
    pub(crate) fn paused(&self) -> Option<String> {
        self.override_
            .as_ref()
            .filter(|override_| override_.paused)
            .map(|override_| override_.reason.clone())
    }

    /// Returns the override, for the applied record.
    pub(crate) fn applied_override(&self) -> Option<AppliedOverride> {
        let override_ = self.override_.as_ref()?;
        let (reason, expires_at) = (override_.reason.clone(), override_.expires_at);
        Some(AppliedOverride {
            reason,
            expires_at,
            fields: self.overridden.keys().cloned().collect(),
        })
    }

    /// Returns the object, with its intent.
    pub(crate) fn into_object(
        self,
        name: &ObjectName,
        intent: Intent,
        admin_state: AdminState,
        spec: Option<PackedSpec>,
        held: Option<Hold>,
    ) -> Object {
        let paused = self.paused();
        let formerly = self.applied_uid.clone().filter(|uid| *uid != self.uid);
        Object {
            kind: S::KIND,
            name: name.clone(),
            formerly,
            faults: self.faults,
            remark: self.remark,
            spec,
            paused,
            reason: self
                .override_
                .as_ref()
                .map(|override_| override_.reason.clone()),
            expires_at: self
                .override_
                .as_ref()
                .and_then(|override_| override_.expires_at),
            uid: self.uid,
            generation: self.generation,
            intent,
            admin_state,
            acceptance: self.acceptance,
            overridden: self.overridden,
            held,
            override_unreadable: self.override_unreadable,
            documented: self.documented,
            operator_owned: self.operator_owned,
        }
    }
}

/// Returns the rules for overrides that an override violates.
fn broken_rules(kind: Kind, override_: &OverrideSpec) -> impl Iterator<Item = FieldError> {
    let paused = (override_.paused && !kind.has_tunnel()).then(|| {
        let reason = "is for a session or a mesh peer; the node, the policy and internal neighbours share their files \
                      with every session";
        FieldError::new("spec.paused", reason)
    });
    let state = override_.set.get("adminState");
    let absent = state.is_some_and(|state| state == "Absent").then(|| {
        let reason =
            "only the Control Plane sets Absent; Disabled takes the object down and keeps the document";
        FieldError::new("spec.adminState", reason)
    });
    paused.into_iter().chain(absent)
}

/// Returns the override in the applied record, unless it has ended.
fn in_effect_before<'a>(inputs: &LayerInputs<'a>) -> Option<&'a AppliedOverride> {
    let before = inputs.applied?.applied.overridden.as_ref()?;
    before
        .expires_at
        .is_none_or(|end| inputs.now < end)
        .then_some(before)
}
