//! Compares facts of the running agent and logs their edges. The only place that logs that
//! something failed or recovered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::context::{Context, logged};
use super::overrides;
use crate::desired::{Desired, Maintenance};
use crate::document::{Condition, ConditionStatus, ConditionType, StatusBody};
use crate::intervals::{EDGES_HELD, EDGES_POLL, START_FIRST_BUILD};
use crate::model::ObjectKey;
use crate::observed::bird::Version;
use crate::status::{Edges, Event, Fact, FactSet, Hold, Severity, State, Topic, Verdict, is_bad};
use crate::util::sorted::Sorted as _;
use crate::util::text::bounded;

/// Logs edges until the agent stops. `more` returns facts that the controller does not know.
pub async fn announce(
    context: Arc<Context>,
    more: impl Fn() -> Vec<(Topic, Fact)>,
    stop: CancellationToken,
) {
    let (mut edges, mut last, mut told) = (Edges::default(), None, Told::default());
    let mut desired = context.desired.clone();
    // An unreadable state directory makes no desired state; the announcer reports it as a fact of its own.
    let _ = tokio::time::timeout(START_FIRST_BUILD, desired.changed()).await;
    loop {
        let now = Inputs::of(&context, more());
        let is_due = edges.is_due(Timestamp::now());
        if is_due || last.as_ref() != Some(&now) {
            // A bad state that has lasted long enough is an edge without a change.
            let (statuses, objects) = told.replace(context.statuses.all(), is_due);
            let node_waits = is_node_blocked(&told.0);
            let facts = facts(&context, now.more.clone(), (&statuses, node_waits));
            let has_conditions = |object: &str| objects.contains(object);
            let events = edges.step_of(&facts, &has_conditions, Timestamp::now());
            events.iter().for_each(log);
            last = Some(now);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EDGES_POLL) => {}
        }
    }
}

type Statuses = BTreeMap<ObjectKey, Arc<StatusBody>>;

/// The statuses of the last step.
#[derive(Default)]
struct Told(Statuses);

impl Told {
    /// Replaces the statuses. Returns those whose facts may differ, or all, and the objects of these and of removed ones.
    fn replace(&mut self, now: Statuses, all: bool) -> (Statuses, BTreeSet<String>) {
        let before = std::mem::replace(&mut self.0, now);
        let all = all || is_node_blocked(&before) != is_node_blocked(&self.0);
        let is_same = |key: &ObjectKey, status: &Arc<StatusBody>| {
            let last = before.get(key);
            last.is_some_and(|last| Arc::ptr_eq(last, status) || logged(last) == logged(status))
        };
        let differing = self
            .0
            .iter()
            .filter(|(key, status)| all || !is_same(key, status));
        let differing: Statuses = differing
            .map(|(key, status)| (key.clone(), Arc::clone(status)))
            .sorted_map();
        let removed = before.keys().filter(|key| !self.0.contains_key(key));
        let objects = differing
            .keys()
            .chain(removed)
            .map(ToString::to_string)
            .sorted_set();
        (differing, objects)
    }
}

/// What all facts follow from. A comparison of the facts of a thousand objects costs much more than one of these.
struct Inputs {
    desired: Arc<Desired>,
    statuses: u64,
    bird: (Option<Version>, Option<String>),
    daemons: [(Topic, Fact); 3],
    held: Vec<(Topic, Fact)>,
    more: Vec<(Topic, Fact)>,
}

impl Inputs {
    fn of(context: &Context, more: Vec<(Topic, Fact)>) -> Self {
        let bird = context.observer.last_bird();
        Self {
            desired: context.desired(),
            statuses: context.statuses.logged_changes(),
            bird: (bird.running, bird.down.clone()),
            daemons: of_daemons(context),
            held: of_held(context).collect(),
            more,
        }
    }
}

impl PartialEq for Inputs {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.desired, &other.desired)
            && self.statuses == other.statuses
            && self.bird == other.bird
            && self.daemons == other.daemons
            && self.held == other.held
            && self.more == other.more
    }
}

/// Logs every bad state at the end of a single pass without the daemon, which has no later pass.
pub fn announce_pass(context: &Context, more: Vec<(Topic, Fact)>) {
    let statuses = context.statuses.all();
    let facts = facts(context, more, (&statuses, is_node_blocked(&statuses)));
    let (mut edges, now) = (Edges::default(), Timestamp::now());
    let later = now.saturating_add(EDGES_HELD).unwrap_or(now);
    for at in [now, later] {
        edges.step(&facts, at).iter().for_each(log);
    }
}

fn log(event: &Event) {
    let Event {
        object,
        message,
        cause,
        action,
        ..
    } = event;
    let cause = (!cause.is_empty()).then_some(cause);
    match event.severity {
        Severity::Info => info!(object, cause, action, "{message}"),
        Severity::Warn => warn!(object, cause, action, "{message}"),
        Severity::Error => error!(object, cause, action, "{message}"),
    }
}

/// Returns the current facts, with those of these statuses.
fn facts(
    context: &Context,
    more: Vec<(Topic, Fact)>,
    (statuses, node_waits): (&Statuses, bool),
) -> FactSet {
    let desired = &*context.desired();
    let mut facts = FactSet::new();
    facts.extend(more);
    let bird = context.observer.last_bird();
    match (&bird.running, &bird.down) {
        (Some(version), _) => {
            facts.insert(
                Topic::Bird,
                Fact::new(State::Good, format!("version {version}")),
            );
        }
        (None, Some(why)) => drop(facts.insert(Topic::Bird, Fact::new(State::Bad, why))),
        (None, None) => {}
    }
    let drain = if desired.maintenance.enabled {
        Fact::new(State::Bad, drained(&desired.maintenance))
    } else {
        Fact::new(State::Good, "")
    };
    facts.insert(Topic::Maintenance, drain);
    facts.extend(of_daemons(context));
    facts.extend(of_rpki(desired));
    facts.extend(of_expired(desired));
    facts.extend(of_overrides(desired));
    facts.extend(of_held(context));
    facts.extend([of_settling(desired)]);
    for (key, status) in statuses {
        facts.extend(of_status(key, status, node_waits));
    }
    facts.extend([of_work_tree(desired)]);
    facts
}

/// Fact: Git moved the work tree. Taken from the desired state, because the node's condition follows only
/// at its next reconcile.
fn of_work_tree(desired: &Desired) -> (Topic, Fact) {
    let topic = Topic::Condition(
        ObjectKey::Router.to_string(),
        ConditionType::WorkTreeCurrent,
    );
    let fact = match &desired.moved {
        Some(head) => Fact::new(
            State::Bad,
            format!("HEAD is {head}; run `git checkout main` to return"),
        ),
        None => Fact::new(State::Good, ""),
    };
    (topic, fact)
}

/// Facts of the kernel, BIRD's files and the state directory.
fn of_daemons(context: &Context) -> [(Topic, Fact); 3] {
    let fact = |error: Option<String>| match error {
        Some(why) => Fact::new(State::Bad, why),
        None => Fact::new(State::Good, ""),
    };
    let files = context.observer.last_bird().files_error.clone();
    [
        (Topic::Kernel, fact(context.observer.kernel_error())),
        (Topic::BirdFiles, fact(files)),
        (Topic::StateDirectory, fact(context.store.trouble())),
    ]
}

/// Facts of RPKI servers and their names.
fn of_rpki(desired: &Desired) -> impl Iterator<Item = (Topic, Fact)> {
    let origins = &desired.origins;
    let state = match origins.verdict() {
        Verdict::Live => State::Good,
        Verdict::FromCache if origins.servers > 0 => State::Bad,
        _ => State::Unknown,
    };
    let servers = (Topic::RpkiServers, Fact::new(state, origins.message()));
    let names = desired.rpki.iter().map(|name| {
        let fact = match name.problem() {
            Some(why) => Fact::new(State::Bad, why),
            None => Fact::new(State::Good, ""),
        };
        (Topic::RpkiName(name.endpoint.to_string()), fact)
    });
    std::iter::once(servers).chain(names)
}

/// Facts of held changes.
fn of_held(context: &Context) -> impl Iterator<Item = (Topic, Fact)> {
    context.held().into_iter().map(|held| {
        let cause = format!("{}: {}", held.change, held.reason);
        (
            Topic::Held(held.key.to_string()),
            Fact::new(State::Bad, cause),
        )
    })
}

/// Fact: removals that wait until the files of the state directory are at rest.
fn of_settling(desired: &Desired) -> (Topic, Fact) {
    let waiting = desired.settling();
    let fact = match waiting.is_empty() {
        true => Fact::new(State::Good, ""),
        false => Fact::new(State::Bad, settling(&waiting)),
    };
    (Topic::Settling, fact)
}

fn is_node_blocked(statuses: &Statuses) -> bool {
    let node = statuses.get(&ObjectKey::Router);
    node.is_some_and(|status| is_bird_blocked(status))
}

/// Returns whether BIRD's configuration waits for the node. The sessions wait for the same reason, which is one event.
fn is_bird_blocked(node: &StatusBody) -> bool {
    let mut conditions = node.conditions.iter();
    conditions.any(|condition| {
        condition.condition_type == ConditionType::BirdConfigured
            && condition.status == ConditionStatus::False
    })
}

/// Facts of overrides and pauses in effect.
fn of_overrides(desired: &Desired) -> impl Iterator<Item = (Topic, Fact)> {
    overrides::of(desired).into_iter().flat_map(|one| {
        let pause = one.paused.then(|| {
            let fact = Fact::new(State::Bad, &one.reason).at(one.expires_at);
            (Topic::Pause(one.object.clone()), fact)
        });
        let fields: Vec<_> = one
            .fields
            .iter()
            .map(|field| field.field.as_str())
            .collect();
        let set = (!fields.is_empty()).then(|| {
            let cause = format!("{}: {}", fields.join(", "), one.reason);
            let fact = Fact::new(State::Bad, cause).at(one.expires_at);
            (Topic::Override(one.object.clone()), fact)
        });
        pause.into_iter().chain(set)
    })
}

/// Facts of overrides whose time is over: an override may have ended before its change was seen.
fn of_expired(desired: &Desired) -> impl Iterator<Item = (Topic, Fact)> {
    desired.expired.iter().flat_map(|(object, end)| {
        let fact = Fact::new(State::Good, format!("expiresAt {end}"));
        let topics = [
            Topic::Override(object.clone()),
            Topic::Pause(object.clone()),
        ];
        topics.map(|topic| (topic, fact.clone()))
    })
}

/// Facts of an object's conditions.
fn of_status<'a>(
    key: &'a ObjectKey,
    status: &'a StatusBody,
    node_waits: bool,
) -> impl Iterator<Item = (Topic, Fact)> + 'a {
    let own = status
        .conditions
        .iter()
        .filter(|condition| !is_told_elsewhere(key, condition.condition_type));
    own.map(move |condition| {
        let topic = Topic::Condition(key.to_string(), condition.condition_type);
        let fact = of_condition(condition, status);
        let is_of_node = node_waits
            && *key != ObjectKey::Router
            && condition.condition_type == ConditionType::BirdConfigured;
        let state = if is_of_node {
            State::Unknown
        } else {
            fact.state
        };
        (topic, Fact { state, ..fact })
    })
}

/// Returns whether another topic, or the source of the condition, logs its details.
fn is_told_elsewhere(key: &ObjectKey, about: ConditionType) -> bool {
    match about {
        // Logged by `Topic::Held` and `Topic::Call`.
        ConditionType::RemovalHeld
        | ConditionType::ChangeHeld
        | ConditionType::ControlPlaneSynced
        // Logged by `Topic::Override`, `Topic::Pause` and `Topic::Maintenance`.
        | ConditionType::InService
        // Logged by their sources: `copied`, the sink of the log, `reload`.
        | ConditionType::StateDirectoryUnique
        | ConditionType::LogWritten
        | ConditionType::TokensReadable => true,
        // Logged by `Topic::RpkiName`.
        ConditionType::EndpointResolved => *key == ObjectKey::Policy,
        _ => false,
    }
}

fn of_condition(condition: &Condition, status: &StatusBody) -> Fact {
    let state = match condition.status {
        ConditionStatus::Unknown => State::Unknown,
        _ if is_bad(condition) => State::Bad,
        _ => State::Good,
    };
    let at = match condition.condition_type {
        ConditionType::BgpEstablished => status.bgp.as_ref().and_then(|bgp| bgp.since),
        _ => Some(condition.last_transition_time),
    };
    let action = condition.next_action.clone();
    Fact::new(state, &condition.message).action(action).at(at)
}

/// Describes removals that wait until the files of the state directory are at rest.
pub(crate) fn settling(removals: &[ObjectKey]) -> String {
    let names = bounded(removals.iter().map(ObjectKey::to_string), "objects");
    format!("removal of {}: {}", names.join(", "), Hold::Settling.why())
}

/// Describes how long the router has been drained.
fn drained(state: &Maintenance) -> String {
    let since = state.since.map(|since| format!("since {since}; "));
    let closed = if state.ebgp_disabled {
        "external sessions are disabled; "
    } else {
        ""
    };
    format!(
        "{}{closed}`moenet-agent maintenance stop` ends the drain",
        since.unwrap_or_default()
    )
}
