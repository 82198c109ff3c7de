//! Reports to the Control Plane: heartbeats, the state of sessions, and the results of its documents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Syncer;
use super::calls::Calls;
use crate::control_plane::{CallError, Delivery, Failure, after_failure, jittered};
use crate::document::{Condition, ConditionStatus, ConditionType, Kind, StatusBody};
use crate::intervals::{REPORTS_RETRY, REPORTS_RETRY_MAX};
use crate::model::Uid;
use crate::telemetry::chain;
use crate::util::backoff::Backoff;
use crate::util::notices::Notices;
use crate::util::sorted::Sorted as _;
use crate::util::version::VERSION;
use crate::wire::reference::endpoint;
use crate::wire::{Call, Heartbeat, PeerState, Report, SessionReport};

/// Reports that this router is alive.
pub(super) async fn heartbeat(sync: Arc<Syncer>) -> Result<(), CallError> {
    let desired = sync.context.desired();
    let held = desired.held().len() as u64;
    let heartbeat = Heartbeat {
        version: VERSION.to_owned(),
        uptime: sync.started.elapsed().as_secs(),
        mesh_public_key: sync.sources.key.current().public(),
        drained: desired.maintenance.enabled.then_some(true),
        held: (held > 0).then_some(held),
        lists: sync.written_lists(),
    };
    sync.client.post_heartbeat(&heartbeat).await
}

impl Syncer {
    /// Returns the lists that became documents, as the Control Plane names them.
    fn written_lists(&self) -> BTreeMap<String, String> {
        let names = self.client.list_names().into_iter();
        names
            .map(|(list, name)| (endpoint(list).to_owned(), name))
            .sorted_map()
    }
}

/// Reports the state of every session of the Control Plane.
pub(super) async fn report(sync: Arc<Syncer>) -> Result<(), CallError> {
    let desired = sync.context.desired();
    let statuses = sync.context.statuses.all();
    let sessions = desired
        .of_kind(Kind::BgpSession)
        .filter(|session| !session.operator_owned && session.documented);
    let sessions = sessions.filter_map(|session| {
        let status = statuses.get(&session.key())?;
        let bgp = status.bgp.clone().unwrap_or_default();
        Some(SessionReport {
            uuid: session.uid.clone(),
            rtt_ms: status.rtt_ms,
            loss: status.loss,
            routes_imported: bgp.routes_imported,
            routes_exported: bgp.routes_exported,
            state: bgp.state.parse().unwrap_or(PeerState::Down),
        })
    });
    let tunnels = desired.mesh().filter_map(|tunnel| {
        let status = statuses.get(&Kind::MeshPeer.key(&tunnel.name))?;
        tunnel_report(tunnel.reported_as.clone()?, status)
    });
    sync.client
        .post_report(&Report {
            sessions: sessions.chain(tunnels).collect(),
        })
        .await
}

/// Reports a backbone tunnel for which the Control Plane has a name. It has no routes of its own;
/// it is up while its peer answers.
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

/// Delivers reports of status changes as soon as they exist, and retries until they arrive.
pub(super) async fn outbox(sync: &Syncer) {
    let Some(outbox) = &sync.outbox else { return };
    let mut failures = 0;
    let unlisted = Notices::default();
    loop {
        let delivery = outbox.deliver_once(&sync.client).await;
        match (unlisted.edge(delivery.is_err()), &delivery) {
            (Some(_), Err(error)) => {
                warn!(error = %chain(error), "status reports not delivered; keeping them in the outbox");
            }
            (Some(_), Ok(_)) => info!("status reports delivered again"),
            (None, _) => {}
        }
        let left = delivery.as_ref().map_or(true, |delivery| delivery.kept > 0);
        failures = if left { failures + 1 } else { 0 };
        let wait = Backoff::new(REPORTS_RETRY, REPORTS_RETRY_MAX).wait(failures);
        let delivery = delivery.unwrap_or_default();
        let pause = match &delivery.failure {
            // A retry is useless until an operator has corrected the token or the name; a poll that
            // succeeds again triggers it.
            Some(CallError {
                failure: failure @ (Failure::Auth { .. } | Failure::NotFound { .. }),
                ..
            }) => after_failure(wait, failure, 1, rand::random()),
            _ if left => jittered(wait, rand::random()),
            _ => REPORTS_RETRY_MAX,
        };
        note(&sync.calls, &delivery, left, pause);
        drop(tokio::time::timeout(pause, sync.context.reports.deliver.notified()).await);
    }
}

/// Records the health of `modify`, like that of every other call.
fn note(calls: &Calls, delivery: &Delivery, left: bool, wait: Duration) {
    if delivery.delivered + delivery.dropped > 0 {
        calls.succeeded(Call::Modify);
    }
    match &delivery.failure {
        Some(error) => calls.failed(error, wait),
        None if !left => calls.settled(Call::Modify),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(delivered: usize, failure: Option<Failure>) -> Delivery {
        let call = Call::Modify;
        Delivery {
            delivered,
            failure: failure.map(|failure| CallError { call, failure }),
            ..Delivery::default()
        }
    }

    #[test]
    fn undelivered_report_becomes_a_notice_until_it_is_delivered() {
        let (calls, wait) = (Calls::default(), Duration::from_secs(60));
        note(&calls, &delivery(2, None), false, wait);
        let success = calls.all()[&Call::Modify].last_success;
        assert!(success.is_some());
        let refused = || {
            let (status, detail) = (418, String::new());
            delivery(0, Some(Failure::Refused { status, detail }))
        };
        note(&calls, &refused(), true, wait);
        // The report waits, and no other report is due.
        note(&calls, &delivery(0, None), true, wait);
        assert!(
            calls.notices()[0].starts_with("Control Plane: modify failed 1 times"),
            "{:?}",
            calls.notices()
        );
        assert_eq!(calls.all()[&Call::Modify].last_success, success);
        note(&calls, &delivery(1, None), false, wait);
        assert!(calls.notices().is_empty());
    }

    #[test]
    fn report_that_an_operator_removed_ends_its_notice() {
        let (calls, wait) = (Calls::default(), Duration::from_secs(60));
        for _ in 0..3 {
            let failure = Failure::Network("timed out".into());
            note(&calls, &delivery(0, Some(failure)), true, wait);
        }
        assert_eq!(calls.notices().len(), 1);
        note(&calls, &Delivery::default(), false, wait);
        assert!(calls.notices().is_empty());
    }
}
