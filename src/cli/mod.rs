//! The command line: one file a verb.
//!
//! Exit codes: 0 done, 1 failed, 2 for `plan` and `diff` when changes are pending, 64 usage.

mod api;
mod apply;
mod approve;
mod completions;
mod control_plane;
mod describe;
mod diff;
mod documents;
mod get;
mod history;
mod maintenance;
mod man;
mod objects;
mod offline;
mod output;
mod plan;
mod render;
mod restart;
mod rollback;
mod run;
mod schema;
mod status;
mod steps;
mod sync;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use output::Format;
pub use schema::schemas;

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
    /// Documents joined with their status
    #[command(after_help = "Example: moenet-agent get sessions wg_4242421080")]
    Get(get::Get),
    /// One object in full, and why it is not Established
    #[command(after_help = "Example: moenet-agent describe sessions/wg_4242421080")]
    Describe(describe::Describe),
    /// The effective specification against what the Control Plane said
    #[command(after_help = "Example: moenet-agent diff wg_4242421080\nExit code 2: they differ.")]
    Diff(diff::Diff),
    /// The text that BIRD gets for a session
    #[command(after_help = "Example: moenet-agent render wg_4242421080")]
    Render(render::Render),
    /// Check documents and configuration: schema, rules, conflicts
    #[command(after_help = "Example: moenet-agent validate sessions/wg_4242421080.yaml")]
    Validate(validate::Validate),
    /// The JSON Schema of a kind
    #[command(after_help = "Example: moenet-agent schema BgpSession > BgpSession.json")]
    Schema(schema::Schema),
    /// Let held removals pass
    #[command(after_help = "Example: moenet-agent approve --list")]
    Approve(approve::Approve),
    /// Who changed what, when, and what came into force
    #[command(after_help = "Example: moenet-agent history wg_4242421080")]
    History(history::Log),
    /// Write an override that brings back what was in force
    #[command(after_help = "Example: moenet-agent rollback wg_4242421080 1a2b3c")]
    Rollback(rollback::Rollback),
    /// The running daemon's own account of itself
    #[command(after_help = "Example: moenet-agent status -o json")]
    Status,
    /// Let the running daemon fetch the sessions now
    #[command(after_help = "Example: moenet-agent sync")]
    Sync,
    /// Make one tunnel and its BGP session anew
    #[command(after_help = "Example: moenet-agent restart wg_4242421080")]
    Restart(restart::Restart),
    /// Drain the router, end that, or show which it is
    #[command(after_help = "Example: moenet-agent maintenance start")]
    Maintenance(maintenance::Maintenance),
    /// Run the embedded Control Plane over a directory of YAML files
    #[command(after_help = "Example: moenet-agent control-plane --fleet ./fleet --listen 127.0.0.1:8080")]
    ControlPlane(control_plane::ControlPlane),
    /// Completions for a shell
    #[command(after_help = "Example: moenet-agent completions bash > /etc/bash_completion.d/moenet-agent")]
    Completions(completions::Completions),
    /// The manual page
    #[command(after_help = "Example: moenet-agent man > /usr/share/man/man1/moenet-agent.1")]
    Man,
}

/// What a verb comes to: an exit code, or an error that is printed as one line.
pub(crate) type Outcome = anyhow::Result<ExitCode>;

/// Runs a verb.
pub fn run(arguments: Arguments) -> ExitCode {
    let outcome = match &arguments.verb {
        Verb::Run => run::run(&arguments),
        Verb::Plan(plan) => plan.run(&arguments),
        Verb::Apply(apply) => apply.run(&arguments),
        Verb::Get(get) => get.run(&arguments),
        Verb::Describe(describe) => describe.run(&arguments),
        Verb::Diff(diff) => diff.run(&arguments),
        Verb::Render(render) => render.run(&arguments),
        Verb::Validate(validate) => validate.run(&arguments),
        Verb::Schema(schema) => schema.run(&arguments),
        Verb::Approve(approve) => approve.run(&arguments),
        Verb::History(log) => log.run(&arguments),
        Verb::Rollback(rollback) => rollback.run(&arguments),
        Verb::Status => status::run(&arguments),
        Verb::Sync => sync::run(&arguments),
        Verb::Restart(restart) => restart.run(&arguments),
        Verb::Maintenance(maintenance) => maintenance.run(&arguments),
        Verb::ControlPlane(control_plane) => control_plane.run(&arguments),
        Verb::Completions(completions) => completions.run(),
        Verb::Man => man::run(),
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
