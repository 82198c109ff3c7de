//! Reconciles backbone tunnels, internal neighbours, and links of the agent that have neither a document nor a
//! record.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use super::record::{self, InForce};
use super::{Claims, LATER, Round, SOON, Subject, chase, round};
use crate::controller::context::{Context, Look};
use crate::controller::planning;
use crate::controller::queue::Outcome;
use crate::controller::world::{Entry, Intent};
use crate::document::{Kind, Phase, StatusBody};
use crate::effective::MeshTunnel;
use crate::model::{Endpoint, ObjectKey as Key, ObjectName, Uid};
use crate::probe::Target;
use crate::status::{Acceptance, BabelFacts, BirdFacts, Facts, TunnelFacts, assess};

pub(super) async fn mesh(ctx: &Arc<Context>, name: &ObjectName, due: Instant) -> Outcome {
    let world = ctx.world();
    let key = Key::Mesh(name.clone());
    let Some(entry) = world.mesh.get(name) else {
        return forget(ctx, &key, Kind::MeshPeer, name).await;
    };
    let claims = match &entry.intent {
        Intent::Present(tunnel, _) => Some(Claims {
            interface: Some(tunnel.interface.clone()),
            protocols: Vec::new(),
        }),
        _ => None,
    };
    let endpoint = match &entry.intent {
        Intent::Present(tunnel, _) => tunnel.endpoint.as_ref(),
        _ => None,
    };
    let mut subject = Subject {
        endpoint,
        claims,
        ..subject(&key, Kind::MeshPeer, name, entry)
    };
    let before = record::status_before(ctx, &subject).await;
    subject.hands_off = entry.hands_off(before.phase == Phase::Paused).is_some();
    let plan = |look: &Look| planning::mesh(&world, entry, ctx.keepalive, &look.view());
    match round(ctx, &subject, due, plan).await {
        Ok(round) => {
            conclude(
                ctx,
                &subject,
                entry,
                round,
                mesh_target(entry).as_ref(),
                None,
            )
            .await
        }
        Err(error) => failed(&key, &error),
    }
}

/// Reports the status of an internal neighbour: it has no link, and its text is in the shared files.
pub(super) async fn ibgp(ctx: &Arc<Context>, name: &ObjectName, due: Instant) -> Outcome {
    let world = ctx.world();
    let key = Key::Ibgp(name.clone());
    let Some(entry) = world.ibgp.get(name) else {
        return forget(ctx, &key, Kind::IbgpPeer, name).await;
    };
    let protocol = match &entry.intent {
        Intent::Present(neighbour, _) => Some(neighbour.protocol.clone()),
        _ => None,
    };
    let claims = protocol.clone().map(|protocol| Claims {
        interface: None,
        protocols: vec![protocol],
    });
    let subject = Subject {
        claims,
        ..subject(&key, Kind::IbgpPeer, name, entry)
    };
    let plan = |look: &Look| planning::ibgp(&world, entry, &look.view());
    let round = match round(ctx, &subject, due, plan).await {
        Ok(round) => round,
        Err(error) => return failed(&key, &error),
    };
    let protocols = round.look.bird.protocols(&protocol.into_iter().collect());
    let (running, loaded) = (round.look.bird.is_running(), round.look.bird.loaded);
    let waits = round.waits();
    let bird = BirdFacts {
        waits: waits
            .as_ref()
            .map(|(reason, message)| (*reason, message.as_str())),
        running,
        loaded,
        refused: None,
        trouble: None,
        protocols: &protocols,
        expected: 1,
    };
    conclude(ctx, &subject, entry, round, None, Some(bird)).await
}

pub(super) async fn orphan(ctx: &Arc<Context>, uid: &Uid, due: Instant) -> Outcome {
    let key = Key::Orphan(uid.clone());
    if ctx.world().uids().contains(uid) {
        return Outcome::Gone;
    }
    let name = ObjectName::sanitised(uid.as_str());
    let subject = Subject {
        key: &key,
        kind: Kind::BgpSession,
        name: &name,
        uid,
        generation: 0,
        endpoint: None,
        claims: None,
        hands_off: false,
        spec: None,
    };
    let round = round(ctx, &subject, due, |look| {
        planning::orphan(uid, &look.view())
    })
    .await;
    // It was never applied, so the history has no entry for it; the log has one.
    drop(ctx.taken.take(&key));
    match round {
        Ok(round) if round.is_settled() => Outcome::Gone,
        Ok(_) => Outcome::Failed,
        Err(error) => failed(&key, &error),
    }
}

/// Returns the probe target of a backbone tunnel: the peer's own address in it.
pub fn mesh_target(entry: &Entry<MeshTunnel>) -> Option<Target> {
    let Intent::Present(tunnel, _) = &entry.intent else {
        return None;
    };
    Some(Target {
        address: tunnel.link_local.get().into(),
        interface: Some(tunnel.interface.clone()),
    })
}

fn subject<'a, T>(
    key: &'a Key,
    kind: Kind,
    name: &'a ObjectName,
    entry: &'a Entry<T>,
) -> Subject<'a> {
    Subject {
        key,
        kind,
        name,
        uid: &entry.uid,
        generation: entry.generation,
        endpoint: None,
        claims: None,
        hands_off: entry.paused.is_some(),
        spec: entry.spec.as_ref(),
    }
}

/// Forgets an object that the Control Plane listed with an error and no longer lists: it has only a status.
async fn forget(ctx: &Context, key: &Key, kind: Kind, name: &ObjectName) -> Outcome {
    ctx.board.remove(key);
    let name = name.clone();
    // A remaining status file does no harm.
    let _ = ctx
        .disk(move |store| store.remove_status(kind, &name))
        .await;
    Outcome::Gone
}

fn failed(key: &Key, error: &str) -> Outcome {
    debug!(object = %key, error, "observation failed");
    Outcome::Failed
}

/// Ends a reconcile: records the applied state and the status. `bird` is the observation of an internal neighbour;
/// a backbone tunnel has its link instead.
async fn conclude<T>(
    ctx: &Context,
    subject: &Subject<'_>,
    entry: &Entry<T>,
    round: Round,
    target: Option<&Target>,
    bird: Option<BirdFacts<'_>>,
) -> Outcome {
    let settled = round.is_settled() && !subject.hands_off;
    match &entry.intent {
        Intent::Absent if settled && record::may_appear(ctx, subject).await => {
            return Outcome::Settled(SOON);
        }
        Intent::Absent if settled => {
            ctx.board.remove(subject.key);
            record::gone(ctx, subject, false).await;
            return Outcome::Gone;
        }
        // A held or refused object stays applied as recorded.
        Intent::Present(..)
            if settled && entry.held.is_none() && entry.acceptance == Acceptance::Valid =>
        {
            let in_force = InForce {
                spec: entry.spec.clone(),
                overridden: entry.exception(),
            };
            record::in_force(ctx, subject, in_force, round.look.applied.as_ref()).await;
        }
        _ => {}
    }
    let before = record::status_before(ctx, subject).await;
    let (rtt_ms, loss) = ctx.probed(target);
    if let Some(endpoint) = subject.endpoint {
        chase(ctx, endpoint, subject.uid, &round);
    }
    let status = StatusBody {
        rtt_ms,
        loss,
        ..status(entry, subject.endpoint, &before, &round, bird)
    };
    let phase = status.phase;
    let waits = round.waits_for_bird();
    record::status(ctx, subject, &before, status).await;
    if let Some(outcome) = waits {
        return outcome;
    }
    match phase {
        _ if round.waits && round.error().is_none() && !subject.hands_off => Outcome::Waiting,
        _ if !settled && !subject.hands_off => Outcome::Failed,
        Phase::Configuring if !round.steps.is_empty() => Outcome::Settled(SOON),
        _ => Outcome::Settled(LATER),
    }
}

/// Returns whether BIRD has a Babel neighbour on the link of an object.
fn babel(round: &Round, uid: &Uid) -> BabelFacts {
    let link = round.look.kernel.owned_by(uid).next();
    match (&round.look.bird.babel, link) {
        (Some(interfaces), Some((name, _))) => {
            BabelFacts::Neighbour(interfaces.contains(name.as_str()))
        }
        _ => BabelFacts::Unknown,
    }
}

fn status<T>(
    entry: &Entry<T>,
    endpoint: Option<&Endpoint>,
    before: &StatusBody,
    round: &Round,
    bird: Option<BirdFacts<'_>>,
) -> StatusBody {
    let error = round.error();
    let missing = record::remaining(round, false);
    let paused = entry.hands_off(before.phase == Phase::Paused);
    let link = round
        .look
        .kernel
        .owned_by(&entry.uid)
        .next()
        .map(|(_, link)| link);
    let peer = link.and_then(|link| link.wireguard.as_ref()?.peers.keys().next().copied());
    assess(&Facts {
        now: round.look.now,
        generation: entry.generation,
        acceptance: entry.acceptance.clone(),
        remark: entry.remark.as_deref(),
        admin_state: entry.admin_state,
        paused: paused.as_deref(),
        held: entry.held.as_ref(),
        tunnel: TunnelFacts {
            link,
            peer,
            missing: missing.as_deref(),
            error: error.as_deref(),
        },
        name: round.look.name(endpoint),
        route: round.look.route(),
        // An internal neighbour has no link.
        babel: link.map(|_| babel(round, &entry.uid)),
        has_tunnel: bird.is_none(),
        bird,
        overridden: entry.overridden.keys().cloned().collect(),
        rtt_ms: None,
        loss: None,
        steps: round.steps.clone(),
        before,
    })
}
