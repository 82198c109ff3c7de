//! An external peering.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::record::{self, InForce};
use super::{LATER, Round, SOON, Subject, chase, claims, round};
use crate::controller::context::{Context, Look};
use crate::controller::planning;
use crate::controller::queue::Outcome;
use crate::controller::world::{Entry, Intent, World};
use crate::document::{Kind, Phase, StatusBody};
use crate::effective::Session;
use crate::model::{AdminState, ObjectKey as Key, ObjectName, PublicKey, Uid};
use crate::plan::kernel_view::Link;
use crate::probe::Target;
use crate::status::{Acceptance, BirdFacts, Facts, TunnelFacts, assess};
use crate::store::StoreError;

pub(super) async fn reconcile(ctx: &Arc<Context>, name: &ObjectName, due: Instant) -> Outcome {
    let world = ctx.world();
    let key = Key::Session(name.clone());
    let Some(entry) = world.sessions.get(name) else {
        ctx.board.remove(&key);
        let name = name.clone();
        // The object existed only to report its error; a remaining status would report it indefinitely.
        let _ = ctx
            .disk(move |store| store.remove_status(Kind::BgpSession, &name))
            .await;
        return Outcome::Gone;
    };
    let mut subject = subject(&key, name, entry);
    let before = record::status_before(ctx, &subject).await;
    subject.hands_off = entry.hands_off(before.phase == Phase::Paused).is_some();
    let subject = subject;
    let plan = |look: &Look| planning::session(&world, name, entry, &look.view());
    match round(ctx, &subject, due, plan).await {
        Ok(round) => conclude(ctx, &subject, &world, entry, &before, round).await,
        Err(error) => {
            debug!(object = %key, %error, "observation failed");
            let status = StatusBody {
                last_error: Some(error),
                ..before.clone()
            };
            record::status(ctx, &subject, &before, status).await;
            Outcome::Failed
        }
    }
}

fn subject<'a>(key: &'a Key, name: &'a ObjectName, entry: &'a Entry<Session>) -> Subject<'a> {
    let claims = match &entry.intent {
        Intent::Present(session, _) => Some(claims(session.claims())),
        _ => None,
    };
    Subject {
        key,
        kind: Kind::BgpSession,
        name,
        uid: &entry.uid,
        generation: entry.generation,
        endpoint: planning::endpoint(entry),
        claims,
        hands_off: entry.paused.is_some(),
        spec: entry.spec.as_ref(),
    }
}

async fn conclude(
    ctx: &Context,
    subject: &Subject<'_>,
    world: &World,
    entry: &Entry<Session>,
    before: &StatusBody,
    round: Round,
) -> Outcome {
    // Without an observation of BIRD's files a session is neither present nor gone.
    let settled = round.is_settled() && !subject.hands_off && !round.look.bird.unread;
    match &entry.intent {
        Intent::Absent if settled => return depart(ctx, subject, entry, before, &round).await,
        Intent::Present(_, Some(_)) if settled => {
            let before = round.look.applied.as_ref();
            record::in_force(ctx, subject, in_force(entry, &round.look), before).await;
        }
        _ => {}
    }
    if let Some(endpoint) = subject.endpoint {
        chase(ctx, endpoint, subject.uid, &round);
    }
    let status = status(ctx, world, entry, before, &round);
    ctx.reports.session(&entry.uid, &status);
    let phase = status.phase;
    let waits = round.waits_for_bird();
    record::status(ctx, subject, before, status).await;
    if let Some(outcome) = waits {
        return outcome;
    }
    match phase {
        _ if round.trouble.is_some() || round.refusal.is_some() => Outcome::Failed,
        _ if round.waits && !subject.hands_off => Outcome::Waiting,
        _ if !round.is_settled() && !subject.hands_off => Outcome::Failed,
        // A session that was just configured is about to come up. One that stays down is left to the tick of all
        // objects, since a router may have many peers that never answer.
        Phase::Configured | Phase::Configuring if !round.steps.is_empty() => Outcome::Settled(SOON),
        _ => Outcome::Settled(LATER),
    }
}

fn in_force(entry: &Entry<Session>, look: &Look) -> InForce {
    let mut spec = entry.spec.clone();
    if planning::endpoint(entry).is_some()
        && look.resolved.is_none()
        && planning::endpoint_changed(entry, look.applied.as_ref())
    {
        keep_endpoint(&mut spec, look);
    }
    InForce {
        spec,
        overridden: entry.exception(),
    }
}

/// Keeps the old endpoint in the record while the name of the new one has no address: the new endpoint is not
/// applied yet. Once the name has an address, the endpoint still counts as changed, and WireGuard receives it
/// although the peer answers from the old one.
fn keep_endpoint(spec: &mut Option<serde_json::Value>, look: &Look) {
    const FIELD: &str = "endpoint";
    let before = look
        .applied
        .as_ref()
        .and_then(|applied| applied.applied.spec.as_ref());
    let before = before
        .and_then(|spec| spec.get("tunnel")?.get(FIELD))
        .cloned();
    let Some(tunnel) = spec
        .as_mut()
        .and_then(|spec| spec.get_mut("tunnel")?.as_object_mut())
    else {
        return;
    };
    match before {
        Some(endpoint) => drop(tunnel.insert(FIELD.to_owned(), endpoint)),
        None => drop(tunnel.remove(FIELD)),
    }
}

/// Ends an object that is gone. If the Control Plane wants it removed, the agent first reports it as gone and then
/// removes its document; a disabled object keeps its document; an object without a document is forgotten.
async fn depart(
    ctx: &Context,
    subject: &Subject<'_>,
    entry: &Entry<Session>,
    before: &StatusBody,
    round: &Round,
) -> Outcome {
    if record::may_appear(ctx, subject).await {
        return Outcome::Settled(SOON);
    }
    match entry.admin_state {
        AdminState::Absent => {
            if entry.documented && !entry.operator_owned && !ctx.reports.gone(&entry.uid).await {
                return Outcome::Failed;
            }
            let forgotten = forget(ctx, subject, entry).await;
            record::gone(ctx, subject, forgotten).await;
            ctx.board.remove(subject.key);
            Outcome::Gone
        }
        _ => {
            record::withdrawn(ctx, subject).await;
            let world = ctx.world();
            let status = status(ctx, &world, entry, before, round);
            record::status(ctx, subject, before, status).await;
            Outcome::Settled(LATER)
        }
    }
}

/// Removes the secrets and the document of a Control Plane session that is permanently gone; the sync may have
/// removed the document already. Returns whether there was one. An operator's files are left to the operator.
async fn forget(ctx: &Context, subject: &Subject<'_>, entry: &Entry<Session>) -> bool {
    if entry.operator_owned || entry.uid == Uid::local(Kind::BgpSession.folder(), subject.name) {
        return false;
    }
    let (name, key) = (subject.name.clone(), subject.key);
    let removed = ctx
        .disk(move |store| {
            for ending in ["psk", "bgp"] {
                store.remove_secret(&format!("secrets/{name}.{ending}"))?;
            }
            store.remove_document(Kind::BgpSession, &name)
        })
        .await;
    removed.unwrap_or_else(|error| {
        // A moved tree and a disk that cannot be written are logged once, for the whole directory.
        let error_text = crate::telemetry::chain(&error);
        match error {
            StoreError::Moved { .. } | StoreError::Io { .. } => {
                debug!(object = %key, error = error_text, "document not removed; the next pass tries again");
            }
            _ => warn!(object = %key, error = error_text, "document not removed; the next pass tries again"),
        }
        false
    })
}

fn link<'a>(entry: &'a Entry<Session>, round: &'a Round) -> Option<&'a Link> {
    let mut owned = round.look.kernel.owned_by(&entry.uid);
    owned.next().map(|(_, link)| link)
}

/// Returns the wanted peer and protocols.
fn expected(entry: &Entry<Session>) -> (Option<PublicKey>, BTreeSet<String>) {
    let Intent::Present(session, _) = &entry.intent else {
        return (None, BTreeSet::new());
    };
    let names = session
        .neighbours
        .iter()
        .map(|neighbour| neighbour.protocol.clone());
    (session.tunnel.peer, names.collect())
}

fn status(
    ctx: &Context,
    world: &World,
    entry: &Entry<Session>,
    before: &StatusBody,
    round: &Round,
) -> StatusBody {
    let error = round
        .error()
        .or_else(|| round.look.bird.files_error.clone());
    let missing = record::remaining(round, false);
    let (peer, expected) = expected(entry);
    let protocols = round.look.bird.protocols(&expected);
    let paused = entry.hands_off(before.phase == Phase::Paused);
    let present = matches!(entry.intent, Intent::Present(..));
    let waits = round.waits();
    let bird = BirdFacts {
        running: round.look.bird.is_running(),
        loaded: round.look.bird.loaded && record::remaining(round, true).is_none(),
        refused: round.trouble.as_ref().and_then(|trouble| trouble.refused()),
        waits: waits
            .as_ref()
            .map(|(reason, message)| (*reason, message.as_str())),
        trouble: round.trouble.as_ref().and_then(|trouble| trouble.of_bird()),
        protocols: &protocols,
        expected: expected.len(),
    };
    let (rtt_ms, loss) = ctx.probed(target(entry).as_ref());
    let facts = Facts {
        now: round.look.now,
        generation: entry.generation,
        acceptance: acceptance(world, entry),
        remark: entry.remark.as_deref(),
        admin_state: entry.admin_state,
        paused: paused.as_deref(),
        held: entry.held.as_ref(),
        tunnel: TunnelFacts {
            link: link(entry, round),
            peer,
            missing: missing.as_deref(),
            error: error.as_deref(),
        },
        name: round.look.name(planning::endpoint(entry)),
        route: round.look.route(),
        babel: None,
        has_tunnel: true,
        bird: present.then_some(bird),
        overridden: entry.overridden.keys().cloned().collect(),
        rtt_ms,
        loss,
        steps: round.steps.clone(),
        before,
    };
    assess(&facts)
}

fn acceptance(world: &World, entry: &Entry<Session>) -> Acceptance {
    match (&entry.acceptance, &world.router) {
        (Acceptance::Valid, Err(why)) => Acceptance::Waiting(why.clone()),
        (acceptance, _) => acceptance.clone(),
    }
}

/// Returns the probe target of a session: the first neighbour's address.
pub fn target(entry: &Entry<Session>) -> Option<Target> {
    let Intent::Present(session, _) = &entry.intent else {
        return None;
    };
    let neighbour = session.neighbours.first()?;
    let interface = Some(session.tunnel.interface.clone()).filter(|_| session.multihop.is_none());
    Some(Target {
        address: neighbour.address,
        interface,
    })
}
