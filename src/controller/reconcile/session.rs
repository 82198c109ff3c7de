//! An external peering.

use std::collections::BTreeSet;

use tokio::time::Instant;
use tracing::warn;

use super::record::{self, InForce};
use super::{LATER, Round, SOON, Subject, claims, round};
use crate::controller::context::{Context, Look};
use crate::controller::planning::{self, Key};
use crate::controller::queue::Outcome;
use crate::controller::world::{Entry, Intent, World};
use crate::document::{Kind, Phase, StatusBody};
use crate::effective::Session;
use crate::model::{AdminState, Host, ObjectName};
use crate::plan::HANDSHAKE_FRESH_SECONDS;
use crate::plan::kernel_view::Link;
use crate::probe::Target;
use crate::status::{Acceptance, BirdFacts, Facts, TunnelFacts, assess};
use crate::store::AppliedOverride;

pub(super) async fn reconcile(ctx: &Context, name: &ObjectName, due: Instant) -> Outcome {
    let world = ctx.world();
    let key = Key::Session(name.clone());
    let Some(entry) = world.sessions.get(name) else {
        ctx.board.remove(&key);
        let name = name.clone();
        // It was only there to say what was wrong with it; a status left behind would say so for ever.
        let _ = ctx.disk(move |store| store.remove_status(Kind::BgpSession, &name)).await;
        return Outcome::Gone;
    };
    let subject = subject(&key, name, entry);
    let before = record::status_before(ctx, &subject).await;
    let plan = |look: &Look| planning::session(&world, name, entry, &look.view());
    match round(ctx, &subject, due, plan).await {
        Ok(round) => conclude(ctx, &subject, &world, entry, &before, round).await,
        Err(error) => {
            warn!(object = %key, %error, "cannot be looked at");
            let status = StatusBody { last_error: Some(error), ..before.clone() };
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
    let settled = round.is_settled() && entry.paused.is_none();
    match &entry.intent {
        Intent::Absent if settled => return depart(ctx, subject, entry, before, &round).await,
        Intent::Present(..) if settled => {
            record::in_force(ctx, subject, in_force(entry)).await;
        }
        _ => {}
    }
    refresh_endpoint(ctx, entry, &round);
    let status = status(ctx, world, entry, before, &round);
    ctx.reports.session(&entry.uid, &status);
    let phase = status.phase;
    record::status(ctx, subject, before, status).await;
    match phase {
        _ if round.trouble.is_some() || round.refusal.is_some() => Outcome::Failed,
        _ if !round.is_settled() && !subject.hands_off => Outcome::Failed,
        // Just configured, it is about to come up; one that does not is left to the tick of all objects,
        // since a router may have many peers that never answer.
        Phase::Configured | Phase::Configuring if !round.steps.is_empty() => Outcome::Settled(SOON),
        _ => Outcome::Settled(LATER),
    }
}

fn in_force(entry: &Entry<Session>) -> InForce {
    let overridden = entry.reason.as_ref().map(|reason| AppliedOverride {
        reason: reason.clone(),
        expires_at: entry.expires_at,
        fields: entry.overridden.keys().cloned().collect(),
    });
    InForce { spec: entry.spec.clone(), overridden }
}

/// An object that is gone. One that the Control Plane wants removed is reported as gone, and only then
/// its document goes; one that is disabled keeps its document; one without a document is forgotten.
async fn depart(
    ctx: &Context,
    subject: &Subject<'_>,
    entry: &Entry<Session>,
    before: &StatusBody,
    round: &Round,
) -> Outcome {
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

/// Removes the document and the secrets of a session that is gone for good. Returns whether there was a
/// document.
async fn forget(ctx: &Context, subject: &Subject<'_>, entry: &Entry<Session>) -> bool {
    if entry.operator_owned || !entry.documented {
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
        warn!(object = %key, error = %crate::telemetry::chain(&error), "its document could not be removed");
        false
    })
}

/// A peer that does not answer may have moved: its name is looked up again.
fn refresh_endpoint(ctx: &Context, entry: &Entry<Session>, round: &Round) {
    let Some(endpoint) = planning::endpoint(entry).filter(|endpoint| matches!(endpoint.host, Host::Name(_)))
    else {
        return;
    };
    let Intent::Present(session, _) = &entry.intent else { return };
    let peer = link(entry, round).and_then(|link| link.wireguard.as_ref()?.peers.get(&session.tunnel.peer?));
    let age = peer.and_then(|peer| peer.last_handshake).map(|at| round.look.now.as_second() - at.as_second());
    if peer.is_some() && age.is_none_or(|age| age >= HANDSHAKE_FRESH_SECONDS) {
        ctx.resolver.next(endpoint);
    }
}

fn link<'a>(entry: &'a Entry<Session>, round: &'a Round) -> Option<&'a Link> {
    let mut owned = round.look.kernel.owned_by(&entry.uid);
    owned.next().map(|(_, link)| link)
}

fn status(
    ctx: &Context,
    world: &World,
    entry: &Entry<Session>,
    before: &StatusBody,
    round: &Round,
) -> StatusBody {
    let error = round.error().or_else(|| round.look.bird.files_error.clone());
    let missing = record::remaining(round, false);
    let (peer, expected) = match &entry.intent {
        Intent::Present(session, _) => {
            let names = session.neighbours.iter().map(|neighbour| neighbour.protocol.clone());
            (session.tunnel.peer, names.collect::<BTreeSet<_>>())
        }
        _ => (None, BTreeSet::new()),
    };
    let protocols = round.look.bird.protocols(&expected);
    let present = matches!(entry.intent, Intent::Present(..));
    let bird = BirdFacts {
        running: round.look.bird.is_running(),
        loaded: round.look.bird.loaded && record::remaining(round, true).is_none(),
        refused: round.trouble.as_ref().and_then(|trouble| trouble.refused()),
        trouble: round.trouble.as_ref().and_then(|trouble| trouble.of_bird()),
        protocols: &protocols,
        expected: expected.len(),
    };
    let facts = Facts {
        now: round.look.now,
        generation: entry.generation,
        acceptance: acceptance(world, entry),
        admin_state: entry.admin_state,
        paused: entry.paused.as_deref(),
        held: entry.held.as_deref(),
        tunnel: TunnelFacts {
            link: link(entry, round),
            peer,
            missing: missing.as_deref(),
            error: error.as_deref(),
        },
        has_tunnel: true,
        bird: present.then_some(bird),
        overridden: entry.overridden.keys().cloned().collect(),
        rtt_ms: target(entry).and_then(|target| ctx.rtt(&target)),
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

/// What is probed for a session: the first neighbour's address.
pub fn target(entry: &Entry<Session>) -> Option<Target> {
    let Intent::Present(session, _) = &entry.intent else { return None };
    let neighbour = session.neighbours.first()?;
    let interface = Some(session.tunnel.interface.clone()).filter(|_| session.multihop.is_none());
    Some(Target { address: neighbour.address, interface })
}
