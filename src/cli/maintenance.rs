//! `maintenance`: drain the router, end the drain, or show its state.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Command, ValueEnum};
use serde_json::{Value, json};

use super::api::Api;
use super::{Arguments, Outcome, block_on, output};
use crate::util::progress;

/// Show or change maintenance mode.
#[derive(Debug, Args)]
pub struct Maintenance {
    /// Default: show the mode
    #[arg(value_enum)]
    act: Option<Act>,
    /// With start: drain even if the Control Plane refuses it
    #[arg(long)]
    force: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Act {
    /// Drain the router
    Start,
    /// End the drain
    Stop,
}

impl Maintenance {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        if self.force && self.act != Some(Act::Start) {
            let text = "--force is only for `maintenance start`";
            let mut command = Self::augment_args(Command::new("moenet-agent maintenance"));
            return Err(command.error(ErrorKind::ArgumentConflict, text).into());
        }
        let config = arguments.load()?;
        let state = block_on(async {
            let api = Api::new(&config)?;
            match self.act {
                Some(Act::Start) => {
                    progress::say("draining the router", None);
                    let body = self.force.then(|| json!({"force": true}));
                    let answer = api.post("/maintenance/start", body.as_ref()).await?;
                    if let Some(warning) = answer["warning"].as_str() {
                        output::note(&format!(
                            "the Control Plane did not decide whether the router may drain: {warning}"
                        ));
                    }
                    confirmed(&answer)?;
                }
                Some(Act::Stop) => {
                    progress::say("ending the drain", None);
                    confirmed(&api.post("/maintenance/stop", None).await?)?;
                }
                None => {}
            }
            api.get("/maintenance").await
        })?;
        if !output::value(arguments.output, &state)? {
            print(&state);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Checks the drain. One that BIRD has not confirmed is not complete, and a script must not continue.
fn confirmed(answer: &Value) -> anyhow::Result<()> {
    if answer["status"] == "pending" {
        anyhow::bail!(
            "{}",
            answer["message"].as_str().unwrap_or("not confirmed yet")
        );
    }
    Ok(())
}

fn print(state: &Value) {
    match (state["enabled"].as_bool(), state["since"].as_str()) {
        (Some(true), Some(since)) => {
            output::line(format_args!("The router is drained since {since}."))
        }
        (Some(true), None) => output::line("The router is drained."),
        _ => output::line("The router is not drained."),
    }
}
