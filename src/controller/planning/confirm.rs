//! Checks whether BIRD runs the router drained, or undrained.

use super::router_error;
use crate::desired::{Desired, Intent, TextError};
use crate::document::Kind;
use crate::observed::bird::{BirdProblem, BirdState, Silence};
use crate::plan::{Action, Step, plan_base};

/// Largest number of sessions that a message names one by one.
const FEW: usize = 5;

/// Reason why BIRD cannot run the drain, or its end, for now.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unavailable {
    /// BIRD does not answer.
    #[error(transparent)]
    Silent(Silence),
    /// No BIRD runs.
    #[error("BIRD does not run; start it (`systemctl start bird`)")]
    Down,
    /// An operator has to act first.
    #[error("{0}")]
    Blocked(BirdProblem),
    /// The files that all sessions share are unknown.
    #[error(transparent)]
    Text(TextError),
}

/// Returns the part of the router's drain, or of its end, that BIRD does not run yet; absent once BIRD runs all of
/// it.
///
/// The drain is in the files that all sessions share. Every session's text obeys them, also a text that is older
/// than its document. So the sessions' own texts count only while the drain disables them.
///
/// # Errors
/// BIRD cannot be configured until an operator acts, or does not answer.
pub fn not_run_yet(desired: &Desired, bird: &BirdState) -> Result<Option<String>, Unavailable> {
    if let Some(why) = bird.files_unknown() {
        return Ok(Some(why.to_owned()));
    }
    if let Some(why) = &bird.silent {
        return Err(Unavailable::Silent(why.clone()));
    }
    if !bird.is_running() {
        return Err(Unavailable::Down);
    }
    if let Some(blocked) = router_error(desired, bird) {
        return Err(Unavailable::Blocked(blocked));
    }
    let base = desired.base.as_ref();
    let base = base.map_err(|error| Unavailable::Text(error.clone()))?;
    let is_write = |step: &Step| matches!(step.action, Action::WriteBase { .. });
    if plan_base(base, &bird.live.tree.base)
        .steps
        .iter()
        .any(is_write)
    {
        return Ok(Some("the files that all sessions share".to_owned()));
    }
    if !bird.loaded {
        return Ok(Some("BIRD has not loaded its files".to_owned()));
    }
    let sessions = match desired.maintenance.ebgp_disabled {
        true => older_texts(desired, bird),
        false => Vec::new(),
    };
    let more = sessions.len().saturating_sub(FEW);
    let more = (more > 0).then(|| format!("{more} more sessions"));
    let named: Vec<_> = sessions.into_iter().take(FEW).chain(more).collect();
    Ok((!named.is_empty()).then(|| named.join(", ")))
}

/// Returns the sessions whose live text differs from the wanted text. A session without a live text has nothing to
/// disable, and a session that is paused, or whose wanted text is unknown, stays as it is.
fn older_texts(desired: &Desired, bird: &BirdState) -> Vec<String> {
    let live = &bird.live.tree.fragments;
    let differs = desired.of_kind(Kind::BgpSession).filter(|session| {
        let there = live.get(session.name.as_str());
        let differs = match (&session.intent, session.text(), there) {
            (Intent::Present(_), Some(text), Some(there)) => text != there,
            (Intent::Absent, _, Some(_)) => true,
            _ => false,
        };
        differs && !session.may_be_paused()
    });
    differs.map(|session| session.key().to_string()).collect()
}
