//! Health of the agent for `/status`: facts that were read back, bounded in size.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::api::{BirdView, HeldView, ListView, WaitView};
use super::LocalApi;
use crate::controller::settling;
use crate::desired::{Desired, HeldChange};
use crate::document::{Condition, ConditionStatus, ConditionType, Kind, StatusBody};
use crate::intervals::PASS_MAX;
use crate::model::ObjectKey;
use crate::status::{BIRD_DOWN, Health, HealthFacts, IDENTITY_UNKNOWN, is_bad, next_action};
use crate::sync::{CallHealth, Calls};
use crate::util::sorted::Sorted as _;
use crate::util::text::{MANY, bounded, cut};
use crate::wire::Call;

/// The last status of every object.
pub(super) type Statuses = BTreeMap<ObjectKey, Arc<StatusBody>>;

pub(super) fn health(
    api: &LocalApi,
    desired: &Desired,
    statuses: &Statuses,
) -> (Health, Vec<String>) {
    let context = &api.context;
    let bird = context.observer.last_bird();
    let facts = HealthFacts {
        since_pass: context.pulse.silence(),
        stuck: context
            .pulse
            .stuck(PASS_MAX)
            .iter()
            .map(ObjectKey::to_string)
            .collect(),
        kernel: context.observer.kernel_error(),
        committer: bird.files_error.clone(),
        bird: bird.down.clone(),
        state_directory: context.store.trouble(),
        drained: desired.maintenance.enabled,
        held: held_texts(&context.held()),
        lists: api.calls.failures(),
        conditions: bad_conditions(statuses),
    };
    let (health, reasons) = facts.judge();
    (
        health,
        bounded(reasons, "reasons; `moenet-agent get` lists the objects"),
    )
}

fn held_texts(held: &[HeldChange]) -> Vec<String> {
    let text = |held: &HeldChange| {
        let HeldChange {
            key,
            change,
            reason,
            ..
        } = held;
        format!("{key}: {change} is held until `moenet-agent approve {key}`: {reason}")
    };
    held.iter().map(text).collect()
}

fn bad_conditions(statuses: &Statuses) -> Vec<(String, Condition)> {
    let conditions = statuses.iter().flat_map(|(key, status)| {
        let bad = status
            .conditions
            .iter()
            .filter(|condition| is_bad(condition));
        bad.map(move |condition| (key.to_string(), condition.clone()))
    });
    // Held changes have a list of their own.
    conditions
        .filter(|(_, condition)| {
            !matches!(
                condition.condition_type,
                ConditionType::RemovalHeld | ConditionType::ChangeHeld
            )
        })
        .collect()
}

/// The last fetch of each list.
pub(super) fn lists(calls: &Calls) -> BTreeMap<String, ListView> {
    let view = |(call, health): (Call, CallHealth)| {
        let view = ListView {
            last_success: health.last_success,
            consecutive_failures: health.consecutive_failures,
            last_error: health.last_error.as_deref().map(cut),
            retry_at: health.retry_at,
        };
        (call.word().to_owned(), view)
    };
    calls.lists().into_iter().map(view).sorted_map()
}

/// The BIRD daemon at the last observation.
pub(super) fn bird(api: &LocalApi) -> BirdView {
    let bird = api.context.observer.last_bird();
    BirdView {
        running: bird.is_running(),
        version: bird.running.map(|version| version.to_string()),
        error: bird.down.clone(),
    }
}

/// Held changes, and their number.
pub(super) fn held(all: Vec<HeldChange>) -> (Vec<HeldView>, u64) {
    let total = all.len() as u64;
    let short = |held: HeldChange| {
        let view = HeldView::from(held);
        HeldView {
            change: cut(&view.change),
            reason: cut(&view.reason),
            ..view
        }
    };
    (all.into_iter().take(MANY).map(short).collect(), total)
}

/// The objects that have documents, as `get` lists them.
pub(super) fn counted(statuses: &Statuses) -> impl Iterator<Item = (&ObjectKey, &StatusBody)> {
    let all = statuses.iter().map(|(key, status)| (key, &**status));
    all.filter(|(key, _)| is_counted(key))
}

/// Returns whether an object has a document, and is in the list of `get`.
pub(super) fn is_counted(key: &ObjectKey) -> bool {
    !matches!(key, ObjectKey::Firewall | ObjectKey::Orphan(_))
}

/// External sessions by BGP state, and all objects by phase.
pub(super) fn counts(statuses: &Statuses) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let (mut bgp, mut phases) = (BTreeMap::new(), BTreeMap::new());
    for (key, status) in counted(statuses) {
        *phases.entry(status.phase.to_string()).or_default() += 1;
        if let (ObjectKey::Named(Kind::BgpSession, _), Some(session)) = (key, &status.bgp) {
            *bgp.entry(session.state.clone()).or_default() += 1;
        }
    }
    (bgp, phases)
}

/// Lists everything the agent waits for: approvals, directories, sockets, identities, keys, names.
/// Waits of the whole agent come first.
pub(super) fn waits(api: &LocalApi, desired: &Desired, statuses: &Statuses) -> Vec<WaitView> {
    let mut waits: Vec<_> = waits_of_node(api, desired).collect();
    waits.extend(api.context.held().into_iter().map(|held| {
        let text = format!("approval of its {}: {}", held.change, held.reason);
        let action = format!("`moenet-agent approve {}`", held.key);
        wait(&held.key.to_string(), &text, &action)
    }));
    let removals = desired.settling();
    if !removals.is_empty() {
        let action = "finish the writes to the state directory; each change starts the wait again";
        waits.push(wait("state directory", &settling(&removals), action));
    }
    for (object, status) in statuses {
        waits.extend(unresolved(status).map(|condition| {
            let action = condition.next_action.as_deref().unwrap_or_default();
            wait(&object.to_string(), &condition.message, action)
        }));
    }
    shortened(waits)
}

fn waits_of_node(api: &LocalApi, desired: &Desired) -> impl Iterator<Item = WaitView> {
    let directory = api.context.store.trouble().map(|why| {
        let action = "mount or repair the directory; the current configuration stays active";
        wait("state directory", &why, action)
    });
    let bird = api.context.observer.last_bird();
    let bird = bird.down.as_ref().map(|why| wait("node", why, BIRD_DOWN));
    let identity = desired.router.as_ref().err();
    let identity = identity.map(|error| wait("node", &error.to_string(), IDENTITY_UNKNOWN));
    let key = desired.key.missing();
    let key = key.map(|why| wait("node", why, failing(ConditionType::KeyAvailable)));
    let tokens = [
        ("controlPlane.tokenFile", api.token.problem()),
        ("server.tokenFile", api.api_token.problem()),
    ];
    let tokens = tokens.into_iter().filter_map(|(field, problem)| {
        let action = failing(ConditionType::TokensReadable);
        Some(wait(field, &problem?.to_string(), action))
    });
    let about = ConditionType::ApiListening;
    let listening = api.context.conveniences.problem(about);
    let listening = listening.map(|why| wait("local API", &why, failing(about)));
    [directory, bird, identity, key, listening]
        .into_iter()
        .flatten()
        .chain(tokens)
}

/// Returns the next action of a condition that is false.
pub(super) fn failing(about: ConditionType) -> &'static str {
    next_action(about, ConditionStatus::False, "").unwrap_or_default()
}

fn wait(object: &str, waits_for: &str, action: &str) -> WaitView {
    WaitView {
        object: object.to_owned(),
        waits_for: cut(waits_for),
        action: action.to_owned(),
    }
}

/// Returns the first entries, and one that counts the others.
fn shortened(mut waits: Vec<WaitView>) -> Vec<WaitView> {
    let more = waits.len().saturating_sub(MANY);
    waits.truncate(MANY);
    if more > 0 {
        let text = format!("and {more} more");
        waits.push(wait(
            "others",
            &text,
            "`moenet-agent get` lists the objects",
        ));
    }
    waits
}

/// The condition of an endpoint whose name has no address.
fn unresolved(status: &StatusBody) -> impl Iterator<Item = &Condition> {
    status.conditions.iter().filter(|condition| {
        condition.condition_type == ConditionType::EndpointResolved
            && condition.status == ConditionStatus::False
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_cut_and_counted() {
        let many = |count: usize| (0..count).map(|n| wait(&n.to_string(), "x", "y")).collect();
        assert_eq!(shortened(many(MANY)).len(), MANY);
        let cut = shortened(many(MANY + 3));
        assert_eq!(
            (cut.len(), cut[MANY].waits_for.as_str()),
            (MANY + 1, "and 3 more")
        );
    }
}
