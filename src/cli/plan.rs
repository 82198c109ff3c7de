//! `plan`: the steps that the controller would run now.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::offline::Offline;
use super::steps::Tense;
use super::{Arguments, Outcome, block_on, complete, objects, output, steps};
use crate::config::Config;
use crate::document::Kind;
use crate::model::ObjectKey;

/// Show what the controller would do now.
#[derive(Debug, Default, Args)]
pub struct Plan {
    /// Only these objects
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::names))]
    names: Vec<String>,
    /// Show the differences of BIRD's files too; passwords are hidden
    #[arg(long)]
    diff: bool,
}

impl Plan {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let Planned {
            objects,
            unknown,
            notes,
        } = planned(arguments.load()?, self.diff)?;
        let objects = named(objects, &self.names)?;
        if !output::value(arguments.output, &objects)? {
            let tense = match unknown {
                None => Tense::Planned,
                Some(_) => Tense::Incomplete,
            };
            steps::print(objects.iter(), tense);
        }
        notes.iter().for_each(|note| output::note(note));
        let pending = objects.iter().any(steps::ObjectSteps::is_pending);
        let failing = objects.iter().any(|object| object.error.is_some());
        if let Some(unknown) = unknown {
            output::note(&unknown);
            return Ok(ExitCode::FAILURE);
        }
        Ok(match (pending, failing) {
            (true, _) => ExitCode::from(2),
            (false, true) => ExitCode::FAILURE,
            (false, false) => ExitCode::SUCCESS,
        })
    }
}

/// The steps of all objects.
pub(super) struct Planned {
    pub(super) objects: BTreeMap<ObjectKey, steps::ObjectSteps>,
    /// Why it is unknown which configuration BIRD runs.
    unknown: Option<String>,
    notes: Vec<String>,
}

/// Plans, before a first start too.
///
/// # Errors
/// When the state cannot be read or observed.
pub(super) fn planned(config: Config, diff: bool) -> anyhow::Result<Planned> {
    let key_path = config.wireguard.private_key_path.clone();
    block_on(async {
        let offline = Offline::before_start(config).await?;
        let bird = offline
            .desired
            .bird
            .and_then(crate::observed::bird::Version::warning);
        let problem = crate::controller::planning::bird_problem(&offline.desired, &offline.bird);
        let bird = bird.or(problem.map(|problem| problem.to_string()));
        let (key, mut objects) = (&offline.desired.key, steps::planned(&offline, diff));
        let created = offline.parts.shared.sources.key.is_to_be_created();
        if let Some(stand_in) = key.public().filter(|_| created) {
            let stand_in = stand_in.to_string();
            for step in objects.values_mut().flat_map(|object| &mut object.steps) {
                step.replace(&stand_in, "a new key");
            }
        }
        let place = key_path.display();
        let created = created
            .then(|| format!("no WireGuard key at {place}; one will be generated on first start"));
        let missing = key.missing().map(str::to_owned);
        Ok(Planned {
            objects,
            unknown: offline.unknown(),
            notes: bird.into_iter().chain(missing).chain(created).collect(),
        })
    })
}

/// Returns the objects with these names; without names, all.
///
/// # Errors
/// A name is unknown: a mistyped name among several must not look like an object with nothing to do.
fn named(
    planned: BTreeMap<ObjectKey, steps::ObjectSteps>,
    names: &[String],
) -> anyhow::Result<Vec<steps::ObjectSteps>> {
    for name in names {
        if !planned.keys().any(|key| is_named(key, name)) {
            let known = planned.keys().map(ObjectKey::to_string);
            return Err(objects::unknown(name, known));
        }
    }
    let wanted = |key: &ObjectKey| names.is_empty() || names.iter().any(|name| is_named(key, name));
    let objects = planned.into_iter().filter(|(key, _)| wanted(key));
    Ok(objects.map(|(_, object)| object).collect())
}

/// Returns whether a name means this key: `wg_1`, `sessions/wg_1`, `node`. The policy and maintenance are applied with
/// the node's files.
fn is_named(key: &ObjectKey, name: &str) -> bool {
    match Kind::of(key) {
        Some((kind, object)) => objects::is_meant(kind, object, name),
        None if *key == ObjectKey::Router => Kind::from_word(name).is_some_and(Kind::is_single),
        None => {
            let full = key.to_string();
            full == name || full.rsplit('/').next() == Some(name)
        }
    }
}
