//! Reconciles a session, a backbone tunnel or an internal neighbour.

use std::sync::Arc;

use super::record::{self, InEffect};
use super::{
    Advance, Next, Progress, ReconcileResult, ReconciledObject, advance, chase, claims, facts,
};
use crate::controller::context::Context;
use crate::controller::error::FailedPart;
use crate::controller::pass::Observation;
use crate::controller::planning::{self, KeyObservation};
use crate::controller::queue::Outcome;
use crate::desired::{Desired, Intent, Object, Wanted};
use crate::document::{Kind, PackedSpec, Phase, StatusBody};
use crate::intervals::{MOVING_OBJECT, SETTLED_OBJECT};
use crate::model::{AdminState, Endpoint, ErrorClass, ObjectKey, ObjectName, Uid};
use crate::observed::kernel::Link;
use crate::sources::probe::Target;
use crate::status::{Acceptance, BabelFacts, BirdFacts, Facts, ObjectFacts, TunnelFacts, assess};
use crate::telemetry::{chain, failed};
use crate::util::task::blocking;
use serde_json::Value;

pub(super) async fn reconcile(
    ctx: &Arc<Context>,
    desired: &Arc<Desired>,
    key: &ObjectKey,
    seen: &Observation,
    progress: Progress,
) -> Next {
    let Some((kind, name)) = Kind::of(key) else {
        return Next::Done(Outcome::Gone);
    };
    let Some(object) = desired.objects.get(key) else {
        return Next::Done(forget(ctx, key, kind, name).await);
    };
    let mut meta = ReconciledObject {
        key,
        kind,
        name,
        uid: &object.uid,
        generation: object.generation,
        endpoint: object.endpoint(),
        claims: object.wanted().map(|wanted| claims(wanted.claims())),
        hands_off: false,
        spec: object.spec.as_ref(),
        overridden: object.override_(),
    };
    let before = record::status_before(ctx, &meta).await;
    meta.hands_off = object.hands_off(before.phase == Phase::Paused).is_some();
    let plan = |observation: &KeyObservation| planning::object(desired, object, observation);
    Next::Done(
        match advance(ctx, &meta, desired, seen, plan, progress).await {
            Ok(Advance::Next(next)) => return *next,
            Ok(Advance::Ended(result)) => {
                conclude(ctx, &meta, desired, object, &before, *result).await
            }
            Err(error) => {
                failed(error.class(), key, &error, "reconcile not begun");
                let status = StatusBody {
                    last_error: Some(chain(&error)),
                    ..StatusBody::clone(&before)
                };
                record::status(ctx, &meta, &before, status).await;
                Outcome::Failed(error.class())
            }
        },
    )
}

/// Forgets an object that existed only to report its error: a remaining status would report it indefinitely.
async fn forget(ctx: &Context, key: &ObjectKey, kind: Kind, name: &ObjectName) -> Outcome {
    ctx.statuses.remove(key);
    let name = name.clone();
    let _ = ctx
        .disk(move |store| store.remove_status(kind, &name))
        .await;
    Outcome::Gone
}

/// Ends a reconcile: records the applied state and the status.
async fn conclude(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    desired: &Desired,
    object: &Object,
    before: &StatusBody,
    result: ReconcileResult,
) -> Outcome {
    // Without an observation of BIRD's files an object with a BGP session is neither present nor gone.
    let unknown = meta.kind.has_protocols() && result.observation.bird.files_unknown().is_some();
    let settled = result.is_settled() && !meta.hands_off && !unknown;
    match &object.intent {
        Intent::Absent if settled => {
            return depart(ctx, meta, desired, object, before, &result).await;
        }
        // While the agent writes nothing to BIRD's directory, the session is not in effect: a record would claim that this
        // state directory wrote the files there.
        Intent::Present(_) if meta.kind.has_protocols() && is_taken(&result) => {}
        Intent::Present(wanted) if settled && is_applied(object, wanted) => {
            let applied = in_effect(object, &result.observation);
            record::in_effect(ctx, meta, applied, result.observation.applied.as_ref()).await;
        }
        _ => {}
    }
    if let Some(endpoint) = meta.endpoint {
        chase(ctx, endpoint, meta.uid, &result);
    }
    let probed = ctx.probed(target(object).as_ref(), before);
    let status = status(desired, object, before, &result, probed);
    let is_session = meta.kind == Kind::BgpSession;
    let report = is_session.then(|| ctx.reports.due(&object.uid, &status));
    let phase = status.phase;
    let waits = result.waits_for_bird();
    record::status_with(ctx, meta, before, status, report.flatten()).await;
    if let Some(outcome) = waits {
        return outcome;
    }
    match phase {
        _ if result.trouble.is_some() || result.refusal.is_some() => result.failure(),
        _ if result.remaining.waits.is_some() && !meta.hands_off => Outcome::Waiting,
        _ if !result.is_settled() && !meta.hands_off => result.failure(),
        // An object that was just configured is about to come up. One that stays down is left to the tick of all
        // objects, since a router may have many peers that never answer.
        Phase::Configured | Phase::Configuring if !result.steps.is_empty() => {
            Outcome::Settled(MOVING_OBJECT)
        }
        _ => Outcome::Settled(SETTLED_OBJECT),
    }
}

fn is_taken(result: &ReconcileResult) -> bool {
    result.observation.bird.live.left_alone().is_some()
}

/// Returns whether a settled object may be recorded as applied: a session once its text is known. A held or refused
/// peer of the backbone stays applied as recorded.
fn is_applied(object: &Object, wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Session(_, text) => text.is_some(),
        _ => object.held.is_none() && object.acceptance == Acceptance::Valid,
    }
}

fn in_effect(object: &Object, observation: &KeyObservation) -> InEffect {
    let mut spec = object.spec.clone();
    if let Some(spec) = &mut spec
        && object.endpoint().is_some()
        && observation.resolved.is_none()
        && recorded_endpoint(object.kind, observation).as_ref() != object.endpoint()
    {
        *spec = with_endpoint_before(spec, object.kind, observation);
    }
    InEffect {
        spec,
        overridden: object.override_(),
    }
}

fn recorded_endpoint(kind: Kind, observation: &KeyObservation) -> Option<Endpoint> {
    let spec = observation.applied.as_ref()?.applied.spec.as_ref()?;
    spec.text_at(kind.endpoint_field())?.parse().ok()
}

/// Returns a specification with the old endpoint, which stays in the record while the name of the new one has no
/// address: the new endpoint is not applied yet. Once the name has an address, the endpoint still counts as changed, and WireGuard receives it
/// although the peer answers from the old one.
fn with_endpoint_before(spec: &PackedSpec, kind: Kind, observation: &KeyObservation) -> PackedSpec {
    let (field, mut spec) = (kind.endpoint_field(), spec.value());
    let applied = observation.applied.as_ref();
    let before = applied.and_then(|applied| applied.applied.spec.as_ref()?.at(field));
    let parent = field.rsplit_once('/');
    let parent = parent.and_then(|(parent, name)| Some((spec.pointer_mut(parent)?, name)));
    match (parent, before) {
        (Some((Value::Object(parent), name)), Some(endpoint)) => {
            parent.insert(name.to_owned(), endpoint);
        }
        (Some((Value::Object(parent), name)), None) => drop(parent.remove(name)),
        _ => {}
    }
    PackedSpec::from(&spec)
}

/// Ends an object that is gone. If the Control Plane wants a session removed, the agent first reports it as gone and
/// then removes its document; a disabled session keeps document and status; an object without a document is forgotten.
async fn depart(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    desired: &Desired,
    object: &Object,
    before: &StatusBody,
    result: &ReconcileResult,
) -> Outcome {
    if record::may_appear(ctx, meta).await {
        return Outcome::Settled(MOVING_OBJECT);
    }
    let is_session = meta.kind == Kind::BgpSession;
    if is_session && object.admin_state != AdminState::Absent {
        record::withdrawn(ctx, meta).await;
        let status = status(desired, object, before, result, (None, None));
        record::status(ctx, meta, before, status).await;
        return Outcome::Settled(SETTLED_OBJECT);
    }
    // The sync may have written its document after the listing of this desired state; then nothing is reported.
    if is_session && is_wanted_again(ctx, meta).await {
        return Outcome::Settled(MOVING_OBJECT);
    }
    let owes_report = is_session && object.documented && !object.operator_owned;
    let (reports, uid) = (Arc::clone(&ctx.reports), object.uid.clone());
    if owes_report && !blocking(move || reports.gone(&uid)).await {
        return Outcome::Failed(ErrorClass::Transient);
    }
    let removed = record::remove(ctx, meta).await;
    let document = match is_session && removed.is_ok() {
        true => remove_document(ctx, meta, object).await,
        false => false,
    };
    record::gone(ctx, meta, removed, document).await;
    ctx.statuses.remove(meta.key);
    Outcome::Gone
}

/// Returns whether the document on disk wants a session again. One that cannot be read proves no removal.
async fn is_wanted_again(ctx: &Context, meta: &ReconciledObject<'_>) -> bool {
    let name = meta.name.clone();
    let wanted = ctx.disk(move |store| store.is_wanted_again(&name)).await;
    wanted.unwrap_or(true)
}

/// Removes the secrets and the document of a Control Plane session that is permanently gone; the sync may have
/// removed the document already. Returns whether there was one. An operator's files are left to the operator, and a
/// document that wants the session again stays.
async fn remove_document(ctx: &Context, meta: &ReconciledObject<'_>, object: &Object) -> bool {
    let is_local = object.uid == Uid::local(meta.kind.folder(), meta.name);
    if object.operator_owned || is_local {
        return false;
    }
    let (name, key) = (meta.name.clone(), meta.key);
    let removed = ctx.write(move |store| store.remove_departed(&name)).await;
    removed.unwrap_or_else(|error| {
        failed(
            error.class(),
            key,
            &error,
            "document not removed; the next pass tries again",
        );
        false
    })
}

/// Returns the status of an object, with its measured round-trip time and loss.
pub(super) fn status(
    desired: &Desired,
    object: &Object,
    before: &StatusBody,
    result: &ReconcileResult,
    (rtt_ms, loss): (Option<f64>, Option<f64>),
) -> StatusBody {
    let now = &result.observation;
    let error = result.error().or_else(|| files_error(object, now));
    let missing = record::remaining(result, false);
    let (sessions, blocked) = (
        facts::sessions(desired, object, &now.bird, now.applied.as_ref()),
        now.bird.blocked(),
    );
    let [of_text, of_bird] = [FailedPart::Text, FailedPart::Bird].map(|part| result.failed(part));
    let bird = BirdFacts {
        protocols: &sessions.protocols,
        expected: &sessions.expected,
        blocked: blocked.as_ref(),
        outside: sessions.outside.as_ref(),
        refused: of_text.as_deref(),
        trouble: of_bird.as_deref(),
        ..bird(desired, object, result)
    };
    let tunnel = TunnelFacts {
        link: object_link(object, result),
        peer: facts::peer(object, now.applied.as_ref()),
        missing: missing.as_deref(),
        name: now.name(object.endpoint()),
        route: now.route(),
        babel: babel(object, result),
    };
    let paused = object.hands_off(before.phase == Phase::Paused);
    let drained = || bird.loaded && missing.is_none() && planning::is_base_loaded(desired, now);
    assess(&Facts {
        now: now.now,
        object: ObjectFacts {
            path: &object.path(),
            generation: object.generation,
            acceptance: acceptance(desired, object),
            remark: object.remark.as_deref(),
            admin_state: object.admin_state,
            service: facts::service(desired, object, drained),
            operator_owned: object.operator_owned,
            paused: paused.as_deref(),
            held: object.held.as_ref(),
            overridden: object.overridden.keys().cloned().collect(),
        },
        applied: now.has_applied_spec(),
        error: error.as_deref(),
        tunnel: object.kind.has_tunnel().then_some(tunnel),
        bird: (!sessions.expected.is_empty()).then_some(bird),
        rtt_ms,
        loss,
        steps: result.steps.clone(),
        before,
    })
}

/// Returns why BIRD's files cannot be read, for an object with a file of its own.
fn files_error(object: &Object, observation: &KeyObservation) -> Option<String> {
    let error = observation.bird.files_error.clone();
    error.filter(|_| object.kind == Kind::BgpSession)
}

/// Returns the facts about BIRD besides the object's protocols and failures.
fn bird<'a>(desired: &Desired, object: &Object, result: &'a ReconcileResult) -> BirdFacts<'a> {
    let bird = &result.observation.bird;
    let our_asn = desired.router.as_ref().ok().map(|router| router.asn.get());
    BirdFacts {
        down: (!bird.is_running()).then(|| bird.why_down()),
        loaded: bird.loaded && record::remaining(result, true).is_none(),
        refused: None,
        blocked: None,
        outside: None,
        trouble: None,
        protocols: &[],
        expected: &[],
        our_asn,
        their_asn: object.asn().or(our_asn),
    }
}

/// Returns the link that carries the object's mark.
fn object_link<'a>(object: &'a Object, result: &'a ReconcileResult) -> Option<&'a Link> {
    let mut owned = result.observation.kernel.owned_by(&object.uid);
    owned.next().map(|(_, link)| link)
}

/// Returns whether BIRD has a Babel neighbour on the link of a backbone tunnel.
fn babel(object: &Object, result: &ReconcileResult) -> Option<BabelFacts> {
    if object.kind != Kind::MeshPeer {
        return None;
    }
    let (name, _) = result.observation.kernel.owned_by(&object.uid).next()?;
    Some(match &result.observation.bird.babel {
        Some(interfaces) => BabelFacts::Neighbour(interfaces.contains(name.as_str())),
        None => BabelFacts::Unknown,
    })
}

fn acceptance(desired: &Desired, object: &Object) -> Acceptance {
    match (&object.acceptance, &desired.router) {
        (Acceptance::Valid, Err(error)) => Acceptance::Waiting(error.to_string()),
        (acceptance, _) => acceptance.clone(),
    }
}

/// Returns the probe target of a wanted object: a session's first neighbour, or the peer's address in a backbone
/// tunnel.
pub fn target(object: &Object) -> Option<Target> {
    let interface = object.link()?.interface.clone();
    let (address, is_on_link) = object.wanted()?.probed()?;
    Some(Target {
        address,
        interface: is_on_link.then_some(interface),
    })
}
