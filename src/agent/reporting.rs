//! What the Control Plane is told: that we are here, how sessions are, and what became of its wishes.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::{Parts, build};
use crate::control_plane::{CallError, Class, Client, Failure, after_failure, jittered};
use crate::controller::Key;
use crate::controller::world::present;
use crate::document::{Condition, ConditionStatus, ConditionType, StatusBody};
use crate::model::Uid;
use crate::telemetry::chain;
use crate::wire::{Heartbeat, PeerState, Report, SessionReport};

/// Says that this router is alive.
pub(super) async fn heartbeat(parts: Arc<Parts>, client: Arc<Client>) -> Result<(), CallError> {
    let heartbeat = Heartbeat {
        version: build::VERSION.to_owned(),
        uptime: parts.started.elapsed().as_secs(),
        mesh_public_key: parts.maker.our_key(),
    };
    client.post_heartbeat(&heartbeat).await
}

/// Says how every session of the Control Plane is doing.
pub(super) async fn report(parts: Arc<Parts>, client: Arc<Client>) -> Result<(), CallError> {
    let world = parts.context.world();
    let board = parts.context.board.all();
    let sessions = world
        .sessions
        .iter()
        .filter(|(_, entry)| !entry.operator_owned && entry.documented);
    let sessions = sessions.filter_map(|(name, entry)| {
        let status = board.get(&Key::Session(name.clone()))?;
        let bgp = status.bgp.clone().unwrap_or_default();
        Some(SessionReport {
            uuid: entry.uid.clone(),
            rtt_ms: status.rtt_ms,
            loss: status.loss,
            routes_imported: bgp.routes_imported,
            routes_exported: bgp.routes_exported,
            state: bgp.state.parse().unwrap_or(PeerState::Down),
        })
    });
    let tunnels = present(&world.mesh).filter_map(|tunnel| {
        let status = board.get(&Key::Mesh(tunnel.name.clone()))?;
        tunnel_report(tunnel.reported_as.clone()?, status)
    });
    client
        .post_report(&Report {
            sessions: sessions.chain(tunnels).collect(),
        })
        .await
}

/// A backbone tunnel for which the Control Plane has a name. It has no routes of its own; it is up while its
/// peer answers.
fn tunnel_report(uuid: Uid, status: &StatusBody) -> Option<SessionReport> {
    let about = |condition: &&Condition| condition.condition_type == ConditionType::HandshakeRecent;
    let handshake = status.conditions.iter().find(about)?;
    let up = handshake.status == ConditionStatus::True;
    Some(SessionReport {
        uuid,
        rtt_ms: status.rtt_ms,
        loss: status.loss,
        routes_imported: 0,
        routes_exported: 0,
        state: if up {
            PeerState::Established
        } else {
            PeerState::Down
        },
    })
}

/// Delivers reports of status changes, as soon as there are some, and again until they arrive.
pub(super) async fn outbox(parts: &Parts, client: &Client) {
    let Some(outbox) = &parts.outbox else { return };
    let mut wait = Duration::from_secs(1);
    loop {
        let (left, failure) = match outbox.deliver_once(client).await {
            Ok(delivery) => (delivery.kept > 0, delivery.failure),
            Err(error) => {
                warn!(error = %chain(&error), "the outbox cannot be read");
                (true, None)
            }
        };
        wait = if left {
            (wait * 2).min(Duration::from_secs(60))
        } else {
            Duration::from_secs(1)
        };
        let pause = match failure {
            // Of no use until somebody has mended the token or the name; a poll that succeeds again says so.
            Some(CallError {
                failure: Failure::Auth { .. } | Failure::NotFound { .. },
                ..
            }) => after_failure(wait, Class::Operator, rand::random()),
            _ if left => jittered(wait, rand::random()),
            _ => Duration::from_secs(60),
        };
        drop(tokio::time::timeout(pause, parts.context.reports.deliver.notified()).await);
    }
}
