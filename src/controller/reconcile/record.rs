//! What is written about an object: its finalizer before the first step, what came into force after the
//! last, and its status.

use tracing::warn;

use super::{Claims, Round, Subject};
use crate::controller::context::{Context, Entry, Look};
use crate::document::{ApiVersion, Metadata, StatusBody, StatusDocument};
use crate::plan::Plan;
use crate::status::changed;
use crate::store::{AppliedBody, AppliedDocument, AppliedOverride, Written};
use crate::telemetry::chain;

fn metadata(subject: &Subject<'_>) -> Metadata {
    Metadata { name: subject.name.clone(), uid: Some(subject.uid.clone()), generation: subject.generation }
}

/// Writes down what the object is about to claim, so that a crash at any point leaves nothing that is not
/// found again.
pub(super) async fn finalizer(
    ctx: &Context,
    subject: &Subject<'_>,
    plan: &Plan,
    look: &Look,
) -> Result<(), String> {
    let Some(claims) = &subject.claims else { return Ok(()) };
    let mut body = look.applied.as_ref().map(|applied| applied.applied.clone()).unwrap_or_default();
    body.interfaces.extend(claims.interface.clone());
    body.protocols.extend(claims.protocols.iter().cloned());
    body.creating = body.creating.or_else(|| plan.creates().cloned());
    let metadata =
        look.applied.as_ref().map_or_else(|| metadata(subject), |applied| applied.metadata.clone());
    let document = AppliedDocument::new(subject.kind, metadata, body);
    ctx.disk(move |store| store.write_applied(&document)).await.map(drop).map_err(|error| chain(&error))
}

/// What came into force: a settled object's whole specification.
pub(super) struct InForce {
    pub(super) spec: Option<serde_json::Value>,
    pub(super) overridden: Option<AppliedOverride>,
}

impl InForce {
    /// What an object's entry wants, with the override that shapes it.
    pub(super) fn of<T>(entry: &crate::controller::world::Entry<T>) -> Self {
        let overridden = entry.reason.as_ref().map(|reason| AppliedOverride {
            reason: reason.clone(),
            expires_at: entry.expires_at,
            fields: entry.overridden.keys().cloned().collect(),
        });
        Self { spec: entry.spec.clone(), overridden }
    }
}

/// Writes down what is in force, and tells the history when that is new.
pub(super) async fn in_force(ctx: &Context, subject: &Subject<'_>, in_force: InForce, steps: &[String]) {
    let none = Claims { interface: None, protocols: Vec::new() };
    let claims = subject.claims.as_ref().unwrap_or(&none);
    let body = AppliedBody {
        interfaces: claims.interface.iter().cloned().collect(),
        creating: None,
        protocols: claims.protocols.iter().cloned().collect(),
        overridden: in_force.overridden,
        spec: in_force.spec,
    };
    let document = AppliedDocument::new(subject.kind, metadata(subject), body);
    match ctx.disk(move |store| store.write_applied(&document)).await {
        Ok(Written::Changed) => journal(ctx, subject, steps),
        Ok(Written::Unchanged) => {}
        Err(error) => {
            warn!(object = %subject.key, error = %chain(&error), "what is in force could not be written down")
        }
    }
}

/// Forgets an object that is gone.
pub(super) async fn gone(ctx: &Context, subject: &Subject<'_>, steps: &[String]) {
    let (kind, name) = (subject.kind, subject.name.clone());
    let removed = ctx
        .disk(move |store| {
            store.remove_status(kind, &name)?;
            store.remove_applied(kind, &name)
        })
        .await;
    match removed {
        Ok(true) => journal(ctx, subject, steps),
        Ok(false) => {}
        Err(error) => warn!(object = %subject.key, error = %chain(&error), "its record could not be removed"),
    }
}

/// The record of an object that is gone but whose document stays: its status stays too.
pub(super) async fn withdrawn(ctx: &Context, subject: &Subject<'_>, steps: &[String]) {
    let (kind, name) = (subject.kind, subject.name.clone());
    match ctx.disk(move |store| store.remove_applied(kind, &name)).await {
        Ok(true) => journal(ctx, subject, steps),
        Ok(false) => {}
        Err(error) => warn!(object = %subject.key, error = %chain(&error), "its record could not be removed"),
    }
}

fn journal(ctx: &Context, subject: &Subject<'_>, steps: &[String]) {
    let entry = Entry { kind: subject.kind, name: subject.name.clone(), steps: steps.to_vec() };
    // The history ends when the agent stops; what it misses is committed at the next start.
    let _ = ctx.journal.send(entry);
}

/// Remembers a status, and writes it when something in it changed that does not change by itself.
pub(super) async fn status(ctx: &Context, subject: &Subject<'_>, before: &StatusBody, status: StatusBody) {
    let write = changed(before, &status);
    ctx.board.set(subject.key.clone(), status.clone());
    if !write {
        return;
    }
    let metadata = Metadata { generation: 0, ..metadata(subject) };
    let document = StatusDocument { api_version: ApiVersion::V1, kind: subject.kind, metadata, status };
    if let Err(error) = ctx.disk(move |store| store.write_status(&document)).await {
        warn!(object = %subject.key, error = %chain(&error), "the status could not be written");
    }
}

/// The status of the last time: from memory, else from its file.
pub(super) async fn status_before(ctx: &Context, subject: &Subject<'_>) -> StatusBody {
    if let Some(status) = ctx.board.get(subject.key) {
        return status;
    }
    let (kind, name) = (subject.kind, subject.name.clone());
    let read = ctx.disk(move |store| Ok(store.read_status(kind, &name))).await;
    read.ok().flatten().map(|document| document.status).unwrap_or_default()
}

/// What is left to do, as a text for a condition.
pub(super) fn remaining(round: &Round, of_bird: bool) -> Option<String> {
    let steps = round.remaining.iter().filter(|step| step.contains(" BIRD ") == of_bird);
    let text = steps.cloned().collect::<Vec<_>>().join("; ");
    (!text.is_empty()).then_some(text)
}
