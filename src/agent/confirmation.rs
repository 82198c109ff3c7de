//! Whether BIRD runs what the local API was asked for: an attempt is not a confirmation
//! (docs/contract/local-api.md#maintenance).

use std::time::Duration;

use tokio::time::Instant;

use super::Parts;
use crate::controller::world::{Intent, World};
use crate::controller::{BirdState, Key, planning};
use crate::http::{ApiRefusal, Confirmation};
use crate::plan::{Action, Step, plan_base};

/// How long a call waits for BIRD.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often BIRD is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(200);
/// So many objects are named one by one.
const FEW: usize = 5;

/// Waits until BIRD runs the router drained, or as before.
pub(super) async fn of_maintenance(
    parts: &Parts,
    enabled: bool,
) -> Result<Confirmation, ApiRefusal> {
    let mut missing = "the state directory is not read yet".to_owned();
    let confirmed = async {
        let mut world = parts.context.world.clone();
        // The sender lives as long as the parts do.
        let _ = world
            .wait_for(|world| world.maintenance.enabled == enabled)
            .await;
        loop {
            let bird = parts.context.observer.bird(Instant::now()).await;
            match lack(&parts.context.world(), &bird)? {
                None => return Ok(()),
                Some(lack) => missing = lack,
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(PATIENCE, confirmed).await {
        Ok(Ok(())) => Ok(Confirmation::Confirmed),
        Ok(Err(why)) => Err(ApiRefusal::BirdUnavailable(why)),
        Err(_) => match parts.context.board.get(&Key::Router) {
            Some(status) if status.last_error.is_some() => Err(ApiRefusal::BirdUnavailable(
                status.last_error.unwrap_or_default(),
            )),
            _ => Ok(Confirmation::Pending(missing)),
        },
    }
}

/// What BIRD does not run yet of a world; an error where it cannot be told at all.
fn lack(world: &World, bird: &BirdState) -> Result<Option<String>, String> {
    if let Some(why) = bird.silent.as_ref().filter(|_| !bird.unread) {
        return Err(why.clone());
    }
    if bird.unread {
        return Ok(Some("BIRD has not answered yet".to_owned()));
    }
    if !bird.is_running() {
        return Err("BIRD does not run".to_owned());
    }
    if let Some(blocked) = planning::router_error(world, bird) {
        return Err(blocked.message);
    }
    let base = world.base.as_ref().map_err(Clone::clone)?;
    let live = &bird.live.tree;
    let is_write = |step: &Step| matches!(step.action, Action::WriteBase { .. });
    let shared = plan_base(base, &live.base).steps.iter().any(is_write);
    let shared = shared.then(|| "the files that all sessions share".to_owned());
    // A session that BIRD has no file of has nothing to drain, and a paused one is left as it is.
    let differs = world.sessions.iter().filter(|(name, entry)| {
        let Some(there) = live.fragments.get(name.as_str()) else {
            return false;
        };
        let hands_off = entry.paused.is_some() || entry.exception_unreadable;
        !hands_off && !matches!(&entry.intent, Intent::Present(_, text) if text == there)
    });
    let sessions: Vec<_> = differs
        .map(|(name, _)| format!("sessions/{name}"))
        .collect();
    let more = sessions.len().saturating_sub(FEW);
    let more = (more > 0).then(|| format!("{more} more sessions"));
    let missing: Vec<_> = shared
        .into_iter()
        .chain(sessions.into_iter().take(FEW))
        .chain(more)
        .collect();
    Ok(match (missing.is_empty(), bird.loaded) {
        (true, true) => None,
        (true, false) => Some("BIRD has not loaded its files".to_owned()),
        (false, _) => Some(missing.join(", ")),
    })
}
