//! `plan`: what the controller would do now.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::offline::Offline;
use super::{Arguments, Outcome, block_on, output};
use crate::controller::{Key, KeyPlan};
use crate::model::ObjectName;
use crate::plan::forwarding_blocked;

/// Show what the controller would do now.
#[derive(Debug, Args)]
pub struct Plan {
    /// Only these objects
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// One object's plan, for a program.
#[derive(Serialize)]
struct Printed {
    object: String,
    steps: Vec<PrintedStep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
}

#[derive(Serialize)]
struct PrintedStep {
    action: String,
    field: &'static str,
    want: String,
    have: String,
}

impl Plan {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let key_path = config.wireguard.private_key_path.clone();
        let printed = block_on(async {
            let offline = Offline::look(config).await?;
            let wanted =
                |key: &Key| self.names.is_empty() || self.names.iter().any(|name| is_named(key, name));
            let plans = offline.plans().into_iter().filter(|(key, _)| wanted(key));
            Ok(plans.map(|(key, plan)| printed(&offline, &key, plan)).collect::<Vec<_>>())
        })?;
        if !self.names.is_empty() && printed.is_empty() {
            anyhow::bail!(
                "there is no object named {}; `moenet-agent get` lists them",
                self.names.join(", ")
            );
        }
        if !output::value(arguments.output, &printed)? {
            print(&printed);
        }
        if !key_path.exists() {
            let place = key_path.display();
            output::note(&format!(
                "there is no WireGuard key at {place} yet; the first run makes one, and the plan shows a stand-in"
            ));
        }
        let pending = printed.iter().any(|object| !object.steps.is_empty() || object.held.is_some());
        Ok(if pending { ExitCode::from(2) } else { ExitCode::SUCCESS })
    }
}

/// Whether a key is meant by a name: `wg_1`, `sessions/wg_1`, `node`.
pub(crate) fn is_named(key: &Key, name: &str) -> bool {
    let full = key.to_string();
    full == name || full.rsplit('/').next() == Some(name)
}

fn printed(offline: &Offline, key: &Key, plan: KeyPlan) -> Printed {
    let (steps, error) = match plan {
        Ok(plan) => (plan.steps, None),
        Err(refusal) => (Vec::new(), Some(refusal.to_string())),
    };
    let steps = steps.into_iter().map(|step| PrintedStep {
        action: step.action.to_string(),
        field: step.because.field,
        want: step.because.want,
        have: step.because.have,
    });
    let refused = match key {
        Key::Session(name) => rejected(offline, name),
        Key::Router if offline.world.has_tunnels() => forwarding_blocked(&offline.kernel),
        _ => None,
    };
    let held = match key {
        Key::Session(name) => offline.world.sessions.get(name).and_then(|entry| entry.held.clone()),
        Key::Mesh(name) => offline.world.mesh.get(name).and_then(|entry| entry.held.clone()),
        Key::Ibgp(name) => offline.world.ibgp.get(name).and_then(|entry| entry.held.clone()),
        _ => None,
    };
    Printed { object: key.to_string(), steps: steps.collect(), error: error.or(refused), held }
}

fn rejected(offline: &Offline, name: &ObjectName) -> Option<String> {
    use crate::status::Acceptance;
    match &offline.world.sessions.get(name)?.acceptance {
        Acceptance::Invalid(why) | Acceptance::Clash(why) => Some(why.clone()),
        _ => None,
    }
}

fn print(objects: &[Printed]) {
    let mut steps = 0;
    for object in objects {
        for step in &object.steps {
            output::line(format_args!("{}  {}", object.object, step.action));
            output::line(format_args!("    because {}: want {}, have {}", step.field, step.want, step.have));
            steps += 1;
        }
        if let Some(error) = &object.error {
            output::line(format_args!("{}  {}: {error}", object.object, output::shade("Error")));
        }
        if let Some(held) = &object.held {
            output::line(format_args!("{}  removal held: {held}", object.object));
        }
    }
    output::line(match steps {
        0 => "Nothing to do.".to_owned(),
        1 => "1 step.".to_owned(),
        n => format!("{n} steps."),
    });
}
