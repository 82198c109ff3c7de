//! The command line: one file per verb.
//!
//! Exit codes: 0 done, 1 failed, 2 for `plan` and `diff` when changes are pending, 64 usage. A plan with nothing
//! pending and an object in error has failed.

mod api;
mod apply;
mod approve;
mod completions;
mod control_plane;
mod describe;
mod diff;
mod documents;
mod fleet;
mod get;
mod history;
mod maintenance;
mod man;
mod objects;
mod offline;
mod output;
mod overrides;
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

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use output::Format;
pub use schema::schemas;

/// A short introduction for new users.
const FIRST: &str = "\
Something is wrong?
  moenet-agent get                      every object, its phase, and what is overridden
  moenet-agent describe NAME            why one is not up, root cause first, and what to do
  moenet-agent plan                     what the controller would do now, and why
  moenet-agent history [NAME]           who changed what, when
  moenet-agent rollback NAME            back to what was in force before

A NAME is that of a session (wg_4242421080 or sessions/wg_4242421080), of a mesh or ibgp peer
(mesh/hk1), or node, policy. Every verb prints JSON with `-o json`, and more with `VERB --help`.

Exit codes: 0 done; 1 failed; 2 of plan and diff: changes are pending; 64 wrong arguments.";

/// A declarative controller for routers that peer over WireGuard and BGP.
#[derive(Debug, Parser)]
#[command(name = "moenet-agent", version, about, disable_help_subcommand = true, after_help = FIRST)]
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
    ///
    /// It follows the state directory and the Control Plane until it is told to stop (SIGTERM), and leaves all
    /// tunnels and sessions as they are then.
    #[command(after_help = "Example: moenet-agent run --config /etc/moenet-agent/config.yaml")]
    Run,
    /// Show what the controller would do now; touches nothing
    ///
    /// Each step with its reason: what is wanted, and what is there. With a running daemon and without. What is
    /// paused or held is shown and marked.
    #[command(after_help = "\
Examples:
  moenet-agent plan
  moenet-agent plan wg_4242421080 node

Exit code: 0 nothing to do; 2 changes are pending; 1 nothing is pending, but an object is in error.")]
    Plan(plan::Plan),
    /// Converge once, without the daemon
    ///
    /// Does what `plan` shows, tells it in the same words, and ends. Not beside a running daemon, which converges
    /// by itself.
    #[command(after_help = "Example: moenet-agent apply --once")]
    Apply(apply::Apply),
    /// List documents with their status
    ///
    /// OVERRIDDEN has the fields that an override sets, and in brackets what the document says. An override
    /// without a document is Waiting: for a session to come, or for somebody to mend its name.
    #[command(after_help = "\
Examples:
  moenet-agent get
  moenet-agent get sessions
  moenet-agent get wg_4242421080 node
  moenet-agent get sessions -o json | jq -r '.[] | select(.status.phase != \"Established\").name'")]
    Get(get::Get),
    /// Show one object in full, and why it is not up
    ///
    /// Where each field comes from, what is really there, and the causes, the root cause first. For a session that
    /// is not up a few packets are sent to see who answers; nothing is changed.
    #[command(after_help = "Example: moenet-agent describe sessions/wg_4242421080")]
    Describe(describe::Describe),
    /// Show what an override changes: what is in force against what the document says
    #[command(after_help = "\
Examples:
  moenet-agent diff wg_4242421080
  moenet-agent diff policy

Exit code: 0 they are the same; 2 they differ.")]
    Diff(diff::Diff),
    /// Print the text that BIRD gets for a session
    #[command(after_help = "Example: moenet-agent render wg_4242421080")]
    Render(render::Render),
    /// Check documents and configuration: schema, rules, conflicts
    ///
    /// Without a file, everything that the daemon reads. Exit code 1 when something is wrong.
    #[command(after_help = "\
Examples:
  moenet-agent validate
  moenet-agent validate sessions/wg_4242421080.yaml")]
    Validate(validate::Validate),
    /// Print the JSON Schema of a kind
    #[command(after_help = "Example: moenet-agent schema BgpSession > BgpSession.json")]
    Schema(schema::Schema),
    /// Approve held changes
    ///
    /// A change waits when it would remove every session, mesh tunnel or internal neighbour, or more than
    /// guard.maxRemovals within guard.window, or when it resets every session (ASN, node id, router id, loopbacks).
    /// An approval is for the change that is held now; another one later is held again.
    #[command(after_help = "\
Examples:
  moenet-agent approve --list           what is held, and why
  moenet-agent approve wg_4242421080
  moenet-agent approve node
  moenet-agent approve --all")]
    Approve(approve::Approve),
    /// Show who changed what, when, and what came into force
    ///
    /// The state directory is a Git repository, so that `git log -p`, `git blame` and `git bisect` work in it too.
    #[command(after_help = "\
Examples:
  moenet-agent history -n 10
  moenet-agent history wg_4242421080")]
    History(history::Log),
    /// Write an override that brings back what was in force
    ///
    /// The document stays as it is; deleting the override ends the rollback.
    #[command(after_help = "\
Examples:
  moenet-agent rollback wg_4242421080           before the last change
  moenet-agent rollback wg_4242421080 1a2b3c    as it was at this commit of `history`
  moenet-agent rollback policy")]
    Rollback(rollback::Rollback),
    /// Show the running daemon's own account of itself
    #[command(after_help = "Example: moenet-agent status -o json")]
    Status,
    /// Let the running daemon fetch the sessions now
    #[command(after_help = "Example: moenet-agent sync")]
    Sync,
    /// Make one tunnel and its BGP session anew
    ///
    /// The session goes down for that. The running daemon does it.
    #[command(after_help = "Example: moenet-agent restart wg_4242421080")]
    Restart(restart::Restart),
    /// Drain the router, end that, or show which it is
    #[command(after_help = "\
Examples:
  moenet-agent maintenance
  moenet-agent maintenance start
  moenet-agent maintenance stop")]
    Maintenance(maintenance::Maintenance),
    /// Run the embedded Control Plane over a directory of YAML files
    #[command(
        after_help = "Example: moenet-agent control-plane --fleet ./fleet --listen 127.0.0.1:8080"
    )]
    ControlPlane(control_plane::ControlPlane),
    /// Check the files of the embedded Control Plane
    #[command(after_help = "Example: moenet-agent fleet validate ./fleet")]
    Fleet(fleet::Fleet),
    /// Print completions for a shell
    #[command(
        after_help = "Example: moenet-agent completions bash > /etc/bash_completion.d/moenet-agent"
    )]
    Completions(completions::Completions),
    /// Print the manual page
    #[command(after_help = "Example: moenet-agent man > /usr/share/man/man1/moenet-agent.1")]
    Man,
}

/// Result of a verb: an exit code, or an error that is printed as one line.
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
        Verb::Fleet(fleet) => fleet.run(&arguments),
        Verb::Completions(completions) => completions.run(),
        Verb::Man => man::run(),
    };
    crate::telemetry::flush();
    let outcome = outcome.and_then(|code| output::finish().map(|()| code));
    outcome.unwrap_or_else(|error| {
        output::error(&error);
        if is_denied(&error) && !is_root() {
            output::note(
                "only root, or the user that the agent runs as, may look at all of it: try it with sudo",
            );
        }
        ExitCode::FAILURE
    })
}

/// Returns whether an error means that this user lacks permission.
fn is_denied(error: &anyhow::Error) -> bool {
    let denied = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::PermissionDenied;
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref())
        .any(denied)
        || error.to_string().contains("Permission denied")
}

fn is_root() -> bool {
    // The owner of a process's folder is its effective user (proc(5)).
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Prints the errors in the arguments, or the requested help.
pub fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print().or_else(|error| output::check(&error));
    match (error.use_stderr(), printed) {
        (true, _) => ExitCode::from(64),
        (false, Ok(())) => ExitCode::SUCCESS,
        (false, Err(error)) => {
            output::error(&error.context("write the output"));
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    /// Loads the configuration.
    pub(crate) fn load(&self) -> anyhow::Result<crate::config::Config> {
        Ok(crate::config::load(
            self.config.as_deref(),
            crate::config::Environment::read(),
        )?)
    }
}

/// Runs a future to its end.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    // A lookup that hangs must not delay the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
}
