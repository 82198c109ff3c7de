//! The command line: one file a verb.
//!
//! Exit codes: 0 done, 1 failed, 2 for `plan` and `diff` when changes are pending, 64 usage.

mod apply;
mod control_plane;
mod offline;
mod output;
mod plan;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use output::Format;

/// A declarative controller for routers that peer over WireGuard and BGP.
#[derive(Debug, Parser)]
#[command(name = "moenet-agent", version, about, disable_help_subcommand = true)]
pub struct Arguments {
    /// The configuration file. Default: ./config.yaml, else /etc/moenet-agent/config.yaml
    #[arg(long, short, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How to print: a table for a person, json or yaml for a program
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the daemon
    #[command(after_help = "Example: moenet-agent run --config /etc/moenet-agent/config.yaml")]
    Run,
    /// Show what the controller would do now; touches nothing
    #[command(after_help = "Example: moenet-agent plan wg_4242421080\nExit code 2: changes are pending.")]
    Plan(plan::Plan),
    /// Converge once, without the daemon
    #[command(after_help = "Example: moenet-agent apply --once")]
    Apply(apply::Apply),
    /// Run the embedded Control Plane over a directory of YAML files
    #[command(after_help = "Example: moenet-agent control-plane --fleet ./fleet --listen 127.0.0.1:8080")]
    ControlPlane(control_plane::ControlPlane),
}

/// What a verb comes to: an exit code, or an error that is printed as one line.
pub(crate) type Outcome = anyhow::Result<ExitCode>;

/// Runs a verb.
pub fn run(arguments: Arguments) -> ExitCode {
    let outcome = match &arguments.verb {
        Verb::Run => run::run(&arguments),
        Verb::Plan(plan) => plan.run(&arguments),
        Verb::Apply(apply) => apply.run(&arguments),
        Verb::ControlPlane(control_plane) => control_plane.run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::FAILURE
    })
}

/// Prints what is wrong with the arguments, or the help that was asked for.
pub fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is no reason to fail twice.
    let _ = error.print();
    match error.use_stderr() {
        true => ExitCode::from(64),
        false => ExitCode::SUCCESS,
    }
}

impl Arguments {
    /// Loads the configuration.
    pub(crate) fn load(&self) -> anyhow::Result<crate::config::Config> {
        Ok(crate::config::load(self.config.as_deref(), crate::config::Environment::read())?)
    }
}

/// Runs something asynchronous to its end.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // A lookup that hangs must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
}
