//! `wait`: until objects have a phase or a condition. The running agent says so: a status file may be that of an agent
//! which has stopped.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use clap_complete::ArgValueCompleter;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::api::Agent;
use super::{Arguments, Outcome, block_on, complete, documents, objects, offline, output};
use crate::config::{Config, Interval};
use crate::document::{ConditionStatus, ConditionType, Kind, Phase, StatusBody};
use crate::intervals::VERB_POLL;
use crate::model::ObjectName;
use crate::store::Store;
use crate::util::progress;
use crate::util::sorted::Sorted as _;

/// Waits for objects.
#[derive(Debug, Args)]
pub struct Wait {
    /// Objects, by the names that `get` prints
    #[arg(value_name = "NAME", required = true, add = ArgValueCompleter::new(complete::names))]
    names: Vec<String>,
    /// A phase, a condition (TunnelConfigured, or TunnelConfigured=False), or `deleted`
    #[arg(
        long = "for",
        value_name = "PHASE|CONDITION",
        default_value = "Established"
    )]
    goal: Goal,
    /// The longest wait: seconds, or 30s, 5m, 1h
    #[arg(long, default_value = "60s", value_parser = interval)]
    timeout: Interval,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Phase(Phase),
    Condition(ConditionType, ConditionStatus),
    Deleted,
}

/// A goal that is neither a phase nor a condition.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is neither a phase, a condition nor `deleted`; `moenet-agent explain status.phase` lists the phases"
)]
struct UnknownGoal(String);

impl FromStr for Goal {
    type Err = UnknownGoal;

    fn from_str(text: &str) -> Result<Self, UnknownGoal> {
        if text == "deleted" {
            return Ok(Self::Deleted);
        }
        let (name, status) = text.split_once('=').unwrap_or((text, "True"));
        // `get` shows BGP's states in lower case.
        let phase = word(text).or_else(|| word(&capitalised(text)));
        let condition = word(name).zip(word(status));
        phase
            .map(Self::Phase)
            .or(condition.map(|(name, status)| Self::Condition(name, status)))
            .ok_or_else(|| UnknownGoal(text.to_owned()))
    }
}

/// Returns the value that is written with this word.
fn word<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(Value::String(text.to_owned())).ok()
}

fn capitalised(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(rest).collect()
}

/// Parses a duration.
pub(super) fn interval(text: &str) -> Result<Interval, serde_json::Error> {
    serde_json::from_value(Value::String(text.to_owned()))
}

impl Wait {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let store = offline::open(&config.state.directory)?;
        let objects = self.objects(&known(&store)?)?;
        let until = Instant::now() + self.timeout.get();
        block_on(async {
            for (kind, name) in &objects {
                let what = format!("waiting for {}: {}", kind.path(name), self.goal);
                let left = until.saturating_duration_since(Instant::now());
                progress::say(&what, Some(left));
                self.reach(&config, &store, (*kind, name), until).await?;
                output::line(format_args!("{}: {}", kind.path(name), self.goal));
            }
            Ok(ExitCode::SUCCESS)
        })
    }

    /// Returns the objects that the names mean.
    fn objects(
        &self,
        all: &BTreeSet<(Kind, ObjectName)>,
    ) -> anyhow::Result<Vec<(Kind, ObjectName)>> {
        let mut objects = Vec::new();
        for meant in &self.names {
            match objects::one(all, |(kind, name)| (*kind, name), meant)? {
                Some(object) => objects.push(object.clone()),
                None if self.goal == Goal::Deleted => {}
                None => {
                    let paths = all.iter().map(|(kind, name)| kind.path(name));
                    return Err(objects::unknown(meant, paths));
                }
            }
        }
        Ok(objects)
    }

    /// Waits for one object.
    async fn reach(
        &self,
        config: &Config,
        store: &Store,
        (kind, name): (Kind, &ObjectName),
        until: Instant,
    ) -> anyhow::Result<()> {
        let path = kind.path(name);
        loop {
            let (mut is_running, mut status) = (true, None);
            let is_known = match self.goal {
                Goal::Deleted => known(store)?.contains(&(kind, name.clone())),
                Goal::Phase(_) | Goal::Condition(..) => {
                    let agent = Agent::find(config).await;
                    is_running = agent.is_running();
                    status = agent.status(&path).await;
                    true
                }
            };
            if self.goal.is_reached(status.as_ref(), is_known) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(self.is_over(&path, is_running, status.as_ref()));
            }
            sleep_until(until.min(Instant::now() + VERB_POLL)).await;
        }
    }

    fn is_over(&self, path: &str, is_running: bool, status: Option<&StatusBody>) -> anyhow::Error {
        let (seconds, goal) = (self.timeout.get().as_secs(), self.goal);
        if goal == Goal::Deleted {
            return anyhow::anyhow!(
                "{path} still exists after {seconds} s; `moenet-agent describe {path}` shows why"
            );
        }
        if !is_running {
            return anyhow::anyhow!(
                "no agent answers after {seconds} s, so the phase of {path} is unknown; `moenet-agent doctor` shows why"
            );
        }
        let phase = status.map_or(Phase::Pending, |status| status.phase);
        anyhow::anyhow!(
            "{path} is {phase} after {seconds} s, not {goal}; `moenet-agent describe {path}` shows why"
        )
    }
}

/// Returns every object with a document, a record or a status.
fn known(store: &Store) -> anyhow::Result<BTreeSet<(Kind, ObjectName)>> {
    let snapshot = store.load()?;
    let documents = documents::all(&snapshot).into_keys();
    let applied = snapshot.applied.keys().cloned();
    Ok(documents
        .chain(applied)
        .chain(store.statuses())
        .sorted_set())
}

impl Goal {
    fn is_reached(self, status: Option<&StatusBody>, is_known: bool) -> bool {
        match self {
            Self::Deleted => !is_known,
            Self::Phase(phase) => status.is_some_and(|status| status.phase == phase),
            Self::Condition(name, wanted) => status.is_some_and(|status| {
                let mut all = status.conditions.iter();
                all.any(|it| it.condition_type == name && it.status == wanted)
            }),
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Deleted => f.write_str("deleted"),
            Self::Phase(phase) => phase.fmt(f),
            Self::Condition(name, status) => write!(f, "{name:?}={status:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_phases_conditions_and_deletion() {
        let goal = |text: &str| text.parse::<Goal>().ok();
        assert_eq!(goal("Established"), Some(Goal::Phase(Phase::Established)));
        assert_eq!(goal("established"), Some(Goal::Phase(Phase::Established)));
        assert_eq!(goal("deleted"), Some(Goal::Deleted));
        let tunnel = ConditionType::TunnelConfigured;
        for (text, status) in [
            ("TunnelConfigured", ConditionStatus::True),
            ("TunnelConfigured=False", ConditionStatus::False),
        ] {
            assert_eq!(goal(text), Some(Goal::Condition(tunnel, status)));
        }
        for bad in ["", "up", "TunnelConfigured=maybe", "Nothing=True"] {
            assert_eq!(goal(bad), None, "{bad}");
        }
    }

    #[test]
    fn object_without_status_has_reached_only_its_deletion() {
        assert!(!Goal::Phase(Phase::Pending).is_reached(None, true));
        assert!(!Goal::Deleted.is_reached(None, true));
        assert!(Goal::Deleted.is_reached(None, false));
    }
}
