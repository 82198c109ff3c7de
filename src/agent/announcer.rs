//! Facts of the running agent → edges → log. The one place that logs that something went down and came back.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::status::{Board, drained};
use super::{Parts, overrides};
use crate::controller::{Key, World};
use crate::document::{Condition, ConditionStatus, ConditionType, StatusBody};
use crate::status::{Edges, Event, Fact, FactSet, Severity, State, Topic, is_bad};

/// How often facts are compared. Each comparison is in memory.
const PERIOD: Duration = Duration::from_secs(1);

/// Announces edges until the agent stops.
pub(super) async fn run(parts: Arc<Parts>, stop: CancellationToken) {
    let mut edges = Edges::default();
    let mut world = parts.context.world.clone();
    let _ = world.changed().await;
    loop {
        let facts = facts(&parts, &parts.context.world(), &parts.context.board.all());
        edges.step(&facts, Timestamp::now()).iter().for_each(log);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

fn log(event: &Event) {
    let Event {
        object,
        message,
        cause,
        ..
    } = event;
    let cause = (!cause.is_empty()).then_some(cause);
    match event.severity {
        Severity::Info => info!(object, cause, "{message}"),
        Severity::Warn => warn!(object, cause, "{message}"),
    }
}

/// All facts of this moment.
fn facts(parts: &Parts, world: &World, board: &Board) -> FactSet {
    let mut facts = FactSet::new();
    let bird = parts.context.observer.last_bird();
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
    let drain = if world.maintenance.enabled {
        Fact::new(State::Bad, drained(&world.maintenance))
    } else {
        Fact::new(State::Good, "")
    };
    facts.insert(Topic::Maintenance, drain);
    facts.extend(parts.calls.facts());
    facts.extend(of_overrides(world));
    for (key, status) in board {
        facts.extend(of_status(key, status));
    }
    facts
}

/// Overrides and pauses in effect.
fn of_overrides(world: &World) -> impl Iterator<Item = (Topic, Fact)> {
    overrides::of(world).into_iter().flat_map(|one| {
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

/// The conditions of an object.
fn of_status<'a>(key: &'a Key, status: &'a StatusBody) -> impl Iterator<Item = (Topic, Fact)> + 'a {
    status
        .conditions
        .iter()
        .filter(|condition| !has_announcer(key, condition.condition_type))
        .map(move |condition| {
            let topic = Topic::Condition(key.to_string(), condition.condition_type);
            (topic, of_condition(condition, status))
        })
}

/// Conditions whose source logs both edges itself.
fn has_announcer(key: &Key, about: ConditionType) -> bool {
    match about {
        ConditionType::OriginsValidated
        | ConditionType::TemplatesAccepted
        | ConditionType::WithinLimits
        | ConditionType::HistoryRecorded
        | ConditionType::FirewallConfigured
        | ConditionType::BirdSupported
        | ConditionType::ApiListening
        | ConditionType::ControlPlaneSynced
        | ConditionType::StateDirectoryUnique
        | ConditionType::RemovalHeld
        | ConditionType::ChangeHeld => true,
        ConditionType::EndpointResolved => *key == Key::Policy,
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
    Fact::new(state, &condition.message).at(at)
}
