//! What is written about an object: its finalizer before the first step, what came into force after the
//! last, and its status.

use tracing::warn;

use super::{Claims, Round, Subject};
use crate::controller::context::{Context, Entry, Look};
use crate::controller::planning::Key;
use crate::document::{ApiVersion, Metadata, StatusBody, StatusDocument, to_yaml};
use crate::plan::Plan;
use crate::status::changed;
use crate::store::{AppliedBody, AppliedDocument, AppliedOverride, Area, Place, Written};
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

/// Writes down what is in force, and tells the history when that is new. A drift that was put right is not:
/// the log and the status have it.
pub(super) async fn in_force(ctx: &Context, subject: &Subject<'_>, in_force: InForce) {
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
    let text = to_yaml(&document).ok();
    match ctx.disk(move |store| store.write_applied(&document)).await {
        Ok(Written::Changed) => journal(ctx, subject, vec![(applied(subject), text)]),
        // The shared files are written for what other objects record: the policy, maintenance, neighbours.
        Ok(Written::Unchanged) if *subject.key == Key::Router => journal(ctx, subject, Vec::new()),
        Ok(Written::Unchanged) => drop(ctx.taken.take(subject.key)),
        Err(error) => {
            warn!(object = %subject.key, error = %chain(&error), "what is in force could not be written down")
        }
    }
}

/// Forgets an object that is gone; `document`: its document was removed too.
pub(super) async fn gone(ctx: &Context, subject: &Subject<'_>, document: bool) {
    let (kind, name) = (subject.kind, subject.name.clone());
    let removed = ctx
        .disk(move |store| {
            store.remove_status(kind, &name)?;
            store.remove_applied(kind, &name)
        })
        .await;
    let place = document.then(|| Place::document(kind, subject.name));
    let files = place.into_iter().chain([applied(subject)]).map(|place| (place, None)).collect();
    // An approval may be spent by it, and what waited for its interface or port may go on.
    ctx.reports.reload();
    match removed {
        Ok(true) => journal(ctx, subject, files),
        Ok(false) if document => journal(ctx, subject, files),
        Ok(false) => drop(ctx.taken.take(subject.key)),
        Err(error) => warn!(object = %subject.key, error = %chain(&error), "its record could not be removed"),
    }
}

/// The record of an object that is gone but whose document stays: its status stays too.
pub(super) async fn withdrawn(ctx: &Context, subject: &Subject<'_>) {
    let (kind, name) = (subject.kind, subject.name.clone());
    match ctx.disk(move |store| store.remove_applied(kind, &name)).await {
        Ok(true) => journal(ctx, subject, vec![(applied(subject), None)]),
        Ok(false) => drop(ctx.taken.take(subject.key)),
        Err(error) => warn!(object = %subject.key, error = %chain(&error), "its record could not be removed"),
    }
}

fn applied(subject: &Subject<'_>) -> Place {
    Place::new(Area::Applied, subject.kind, subject.name)
}

/// The steps are all that were taken since the object was last in force.
fn journal(ctx: &Context, subject: &Subject<'_>, files: Vec<(Place, Option<String>)>) {
    let entry = Entry { key: subject.key.clone(), files, steps: ctx.taken.take(subject.key) };
    if entry.files.is_empty() && entry.steps.is_empty() {
        return;
    }
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
