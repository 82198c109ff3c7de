//! Events of kernel and nftables as hints.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::context::Context;
use super::hint::Hint;
use crate::intervals::FIREWALL_QUIET;
use crate::kernel;
use crate::model::ObjectKey;
use crate::plan::firewall::TABLE_NAME;

/// Watches netlink events. Each names a link; the objects that have or want it are reconciled.
pub async fn watch_kernel(
    context: Arc<Context>,
    hints: mpsc::UnboundedSender<Hint>,
    stop: CancellationToken,
) {
    let mut events = match kernel::events() {
        Ok(events) => events,
        Err(error) => {
            warn!(%error, "kernel events not available; polling for changes every few seconds");
            return stop.cancelled().await;
        }
    };
    context.observer.announced(None);
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = stop.cancelled() => None,
        };
        let Some(event) = event else {
            return context.observer.events_ended();
        };
        context.observer.announced(event.interface.clone());
        let hint = match &event.interface {
            None => Some(Hint::Everything),
            Some(name) => {
                let key = context.desired().key_of(name);
                key.map(|key| Hint::Link(key, name.clone()))
            }
        };
        if let Some(hint) = hint {
            if let Hint::Link(key, _) = &hint {
                context.announced.note(key.clone(), "kernel event");
            }
            let _ = hints.send(hint);
        }
    }
}

/// Watches changes of the agent's table in nftables and reacts at once; without the kernel's events, at the next tick.
pub async fn watch_firewall(
    is_enabled: bool,
    hints: mpsc::UnboundedSender<Hint>,
    stop: CancellationToken,
) {
    if !is_enabled {
        return stop.cancelled().await;
    }
    let mut events = match kernel::nftables_events(TABLE_NAME) {
        Ok(events) => events,
        Err(error) => {
            warn!(%error, "nftables events not available; polling for changes every few seconds");
            return stop.cancelled().await;
        }
    };
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = stop.cancelled() => return,
        };
        if event.is_none() || hints.send(Hint::key(ObjectKey::Firewall)).is_err() {
            return;
        }
        tokio::time::sleep(FIREWALL_QUIET).await;
    }
}
