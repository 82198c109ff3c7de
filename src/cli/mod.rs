//! The command line: one file per verb.
//!
//! Exit codes: 0 done, 1 failed, 2 for `plan` and `diff` when changes are pending, 64 usage. A plan with nothing
//! pending and an object in error has failed.

mod adopt;
mod answer;
mod api;
mod apply;
mod approve;
mod change;
mod commented;
mod complete;
mod completions;
mod control_plane;
mod describe;
mod diff;
mod doctor;
mod documents;
mod edit;
mod events;
mod explain;
mod fields;
mod fleet;
mod get;
mod history;
mod init;
mod maintenance;
mod man;
mod objects;
mod offline;
mod output;
mod overrides;
mod package_files;
mod plan;
mod printable;
mod reader;
mod reference;
mod render;
mod restart;
mod rollback;
mod run;
mod schema;
mod set_override;
mod status;
mod steps;
mod sync;
mod terminal;
mod validate;
mod version;
mod wait;
mod work;

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;

use crate::config::TokenError;
use crate::controller::Missing;
use crate::document::DocumentError;
use crate::intervals::EXIT_WAIT;
use crate::util::fs;
use clap::{Parser, Subcommand};

pub use complete::complete;
pub(crate) use output::Format;
use reader::Through;
pub use reference::reference;
pub use schema::schemas;

/// A short introduction for new users.
const FIRST: &str = "\
Troubleshooting:
  moenet-agent get              list all objects with phase and overridden fields
  moenet-agent describe NAME    show why an object is down, root cause first, and the next action
  moenet-agent plan             show the steps that the controller would take now, with reasons
  moenet-agent history [NAME]   show who changed what, and when
  moenet-agent rollback NAME    restore the previous state of an object

NAME is a session (wg_4242421080 or sessions/wg_4242421080), a mesh or ibgp peer (mesh/hk1), node or
policy. `-o json` prints JSON. `VERB --help` shows the details of a verb.

Exit codes: 0 success; 1 failure; 2 changes are pending (plan, diff); 64 wrong arguments.";

/// A declarative controller for routers that peer over WireGuard and BGP.
#[derive(Debug, Parser)]
#[command(name = "moenet-agent", version, about, after_help = FIRST)]
pub struct Arguments {
    /// The configuration file. Default: ./config.yaml, else /etc/moenet-agent/config.yaml
    #[arg(long, short, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Output format
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// The verb
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the daemon
    ///
    /// Follows the state directory and the Control Plane until SIGTERM. Tunnels and sessions stay up when it stops.
    #[command(after_help = "Example: moenet-agent run --config /etc/moenet-agent/config.yaml")]
    Run,
    /// Write a configuration, check that it works on this host, and show the first plan
    ///
    /// Takes the values from flags, and asks for missing ones on a terminal. The file has every key with its
    /// description, and mode 0600. An existing file is replaced only with --force, and a copy is kept.
    ///
    /// With --from: reads the config.json of the earlier agent written in Go, and names each key that it takes over or
    /// cannot express.
    ///
    /// Then runs the checks of `doctor` and prints the first `plan`. With -o json or yaml: prints file, keys, checks and
    /// plan as one value.
    #[command(after_help = "\
Examples:
  moenet-agent init
  moenet-agent init --name jp1 --control-plane https://api.example.net \\
    --token-file /etc/moenet-agent/token
  moenet-agent init --name jp1 --id 1 --asn 4242420998 --loopback-ipv4 172.23.105.177
  moenet-agent init --from /opt/moenet-agent/config.json

Exit codes: 0 written, and no check failed; 1 not written, or a check failed.")]
    Init(init::Init),
    /// Show the steps that the controller would take now, without changing anything
    ///
    /// Prints each step with its reason: the wanted and the present value. `+` adds, `~` changes, `-` removes. Works with and without a running daemon.
    /// Steps of paused objects and held changes are marked.
    #[command(after_help = "\
Examples:
  moenet-agent plan
  moenet-agent plan wg_4242421080 node
  moenet-agent plan --diff

Exit codes: 0 no changes; 2 changes are pending; 1 no changes are pending, but an object is in error.")]
    Plan(plan::Plan),
    /// Take over a router that runs already
    ///
    /// Reads the WireGuard interfaces, the running BIRD with bird.conf and its includes, and the files of wg-quick and
    /// systemd-networkd. Prints what documents would hold, what stays with the operator, what no document can hold, and
    /// the steps of the first pass with these documents. Names each step that would recreate a link, interrupt a tunnel
    /// or reset a session.
    ///
    /// Then writes the documents and runs that pass, unless --plan is given. It watches every session, and undoes
    /// everything if one is lost or loses more than --max-prefix-loss of its prefixes. After a kill the next `adopt` or
    /// `run` undoes it. Refused without --yes if something would be interrupted; changes that no undo could take back
    /// are always refused.
    ///
    /// BGP sessions stay in bird.conf, and BIRD is not reloaded. `-o yaml` prints the documents too.
    #[command(after_help = "\
Examples:
  moenet-agent adopt --plan
  moenet-agent adopt --plan -o json | jq '.documents'
  moenet-agent adopt --watch 5m --max-prefix-loss 20
  moenet-agent adopt --undo
  moenet-agent adopt --fleet ./fleet

Exit codes: 0 adopted, undone, or (--plan) nothing would be interrupted; 1 otherwise.")]
    Adopt(adopt::Adopt),
    /// Write documents, or apply the plan once without the daemon
    ///
    /// With --file: documents of your own are written as they are; what differs from a document of the Control Plane
    /// becomes an override. Everything is checked before the first file is written.
    ///
    /// With --once: runs the steps that `plan` shows, prints them, and exits. Refused while a daemon runs on the same
    /// state directory, since the daemon applies changes itself.
    #[command(after_help = "\
Examples:
  moenet-agent apply -f peer.yaml
  moenet-agent get sessions -o yaml | sed s/1420/1400/ | moenet-agent apply -f - --reason pppoe
  moenet-agent apply --once")]
    Apply(apply::Apply),
    /// Edit a document in $EDITOR
    ///
    /// Validates on save, and opens the editor again with the errors. A document of your own is written; what you change
    /// in a document of the Control Plane becomes an override.
    #[command(after_help = "\
Examples:
  moenet-agent edit sessions/wg_4242421080 --reason 'their side is on PPPoE'
  EDITOR=nano moenet-agent edit policy --reason 'test of a filter' --expires 2h")]
    Edit(edit::Edit),
    /// Override fields of a document
    ///
    /// Adds to the override that exists. It takes effect at once, survives every sync, and ends at --expires or with
    /// --remove.
    #[command(after_help = "\
Examples:
  moenet-agent override wg_4242421080 tunnel.mtu=1380 --reason 'PPPoE' --expires 2d
  moenet-agent override wg_4242421080 adminState=Disabled --reason 'asked by the peer'
  moenet-agent override wg_4242421080 tunnel.mtu --remove
  moenet-agent override wg_4242421080 --remove")]
    Override(set_override::Override),
    /// Pause an object: observe it and change nothing
    #[command(
        after_help = "Example: moenet-agent pause wg_4242421080 --reason 'the peer debugs' --expires 2h"
    )]
    Pause(set_override::Pause),
    /// End the pause of an object
    #[command(after_help = "Example: moenet-agent resume wg_4242421080")]
    Resume(set_override::Resume),
    /// List documents with their status
    ///
    /// OVERRIDDEN lists the fields that an override sets, with the document's value in brackets. Waiting: the
    /// override names an object that does not exist (yet); check the spelling.
    #[command(after_help = "\
Examples:
  moenet-agent get
  moenet-agent get sessions
  moenet-agent get wg_4242421080 node
  moenet-agent get sessions -o wide --sort-by rtt
  moenet-agent get sessions --phase Error --phase Degraded --watch
  moenet-agent get sessions -o json | jq -r '.[] | select(.status.phase != \"Established\").name'")]
    Get(get::Get),
    /// Show one object in full, and why it is down
    ///
    /// Prints the origin of each field, the state of kernel and BIRD, and the causes, root cause first. For a session
    /// that is down it sends a few packets to test who answers. It changes nothing.
    #[command(after_help = "Example: moenet-agent describe sessions/wg_4242421080")]
    Describe(describe::Describe),
    /// Wait until objects have a phase or a condition
    ///
    /// Asks the running agent; `deleted` looks at the state directory. Exit code 1 when the time is over.
    #[command(after_help = "\
Examples:
  moenet-agent wait wg_4242421080
  moenet-agent wait wg_4242421080 --for TunnelConfigured --timeout 2m
  moenet-agent wait wg_4242421080 --for deleted")]
    Wait(wait::Wait),
    /// Show the fields that an override changes: effective value and document's value
    #[command(after_help = "\
Examples:
  moenet-agent diff wg_4242421080
  moenet-agent diff policy

Exit codes: 0 no differences; 2 differences.")]
    Diff(diff::Diff),
    /// Print the BIRD configuration of a session
    #[command(after_help = "Example: moenet-agent render wg_4242421080")]
    Render(render::Render),
    /// Check documents and configuration: schema, rules, conflicts
    ///
    /// Without FILE, checks everything that the daemon reads. Exit code 1 if there is a problem.
    #[command(after_help = "\
Examples:
  moenet-agent validate
  moenet-agent validate sessions/wg_4242421080.yaml")]
    Validate(validate::Validate),
    /// Print the JSON Schema of a kind
    #[command(after_help = "Example: moenet-agent schema BgpSession > BgpSession.json")]
    Schema(schema::Schema),
    /// Explain a field of a document or of the configuration
    ///
    /// Type, range, default and description, from the schema.
    #[command(after_help = "\
Examples:
  moenet-agent explain bgpsession
  moenet-agent explain bgpsession.tunnel.mtu
  moenet-agent explain config.guard.maxRemovals
  moenet-agent explain policy --recursive")]
    Explain(explain::Explain),
    /// Approve held changes
    ///
    /// The agent holds a change that would remove every session, mesh tunnel or internal neighbour, or more than
    /// guard.maxRemovals within guard.window, or that resets every session (ASN, node id, loopbacks, link-local
    /// address). Approves only changes that are held now; later ones need a new approval.
    #[command(after_help = "\
Examples:
  moenet-agent approve --list           list held changes with reasons
  moenet-agent approve wg_4242421080
  moenet-agent approve node
  moenet-agent approve --all")]
    Approve(approve::Approve),
    /// Show who changed what and when, and when it was applied
    ///
    /// The state directory is a Git repository: `git log -p`, `git blame` and `git bisect` work there too.
    #[command(after_help = "\
Examples:
  moenet-agent history -n 10
  moenet-agent history wg_4242421080
  moenet-agent history --commit 1a2b3c")]
    History(history::Log),
    /// Show what happened last: transitions of conditions, and changes
    ///
    /// The status of an object keeps the last transition of each condition; `history` has every change.
    #[command(after_help = "\
Examples:
  moenet-agent events --since 2h
  moenet-agent events wg_4242421080")]
    Events(events::Events),
    /// Write an override that restores an earlier applied state
    ///
    /// The document stays unchanged. Delete the override to end the rollback.
    #[command(after_help = "\
Examples:
  moenet-agent rollback wg_4242421080           state before the last change
  moenet-agent rollback wg_4242421080 1a2b3c    state at this commit of `history`
  moenet-agent rollback policy")]
    Rollback(rollback::Rollback),
    /// Check that this host is fit to run the agent
    ///
    /// Permissions, files with secrets, WireGuard, disk, git, BIRD, Control Plane, clock, names, the agent, and the
    /// conditions of node and policy (sysctls, key, history, …), each with what to do. A check fails if the agent cannot
    /// do its work because of it; what you should put right while it works is a warning. It changes nothing.
    #[command(after_help = "\
Examples:
  moenet-agent doctor
  moenet-agent doctor -o json | jq -r '.[] | select(.status == \"failed\").check'

Exit codes: 0 no check failed; 1 a check failed.")]
    Doctor,
    /// Show the daemon's health
    #[command(after_help = "Example: moenet-agent status -o json")]
    Status,
    /// Fetch the sessions from the Control Plane now, and wait for the result
    #[command(after_help = "Example: moenet-agent sync")]
    Sync,
    /// Recreate a tunnel and its BGP session (interrupts traffic)
    ///
    /// Needs the running daemon.
    #[command(after_help = "Example: moenet-agent restart wg_4242421080")]
    Restart(restart::Restart),
    /// Show or change maintenance mode
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
    /// Describe a network of routers, check and change its files, and show its routers
    #[command(after_help = "Example: moenet-agent fleet validate ./fleet")]
    Fleet(fleet::Fleet),
    /// Print completions for a shell
    #[command(
        after_help = "Example: moenet-agent completions bash > /etc/bash_completion.d/moenet-agent"
    )]
    Completions(completions::Completions),
    /// Print a manual page
    ///
    /// A package installs both: `man moenet-agent`, `man moenet-agent-config`.
    #[command(after_help = "\
Examples:
  moenet-agent man > moenet-agent.1
  moenet-agent man config > moenet-agent-config.5")]
    Man(man::Page),
    /// Print version, commit, target and the supported BIRD versions
    #[command(after_help = "Example: moenet-agent version -o json")]
    Version,
    /// Answer a verb of another user
    #[command(hide = true)]
    Answer(answer::Answer),
    /// Write the generated files of a package
    #[command(hide = true)]
    PackageFiles(package_files::PackageFiles),
}

/// Result of a verb: an exit code, or an error that is printed as one line.
pub(crate) type Outcome = anyhow::Result<ExitCode>;

/// Runs a verb.
pub fn run(arguments: Arguments) -> ExitCode {
    crate::util::task::is_program();
    let arguments = match &arguments.verb {
        Verb::Answer(answer) => match answer.arguments(&arguments) {
            Ok(answered) => answered,
            Err(code) => return code,
        },
        _ => arguments,
    };
    output::choose(arguments.output);
    let work = arguments.verb.work();
    let _progress = work.map(|work| output::progress(arguments.output, work));
    if let Through::Ran(code) = reader::through_agent(&arguments) {
        return code;
    }
    let outcome = outcome(&arguments);
    crate::telemetry::flush();
    let outcome = outcome.and_then(|code| output::finish().map(|()| code));
    outcome.unwrap_or_else(|error| {
        if let Some(error) = error.downcast_ref::<clap::Error>() {
            return usage(error);
        }
        let denied = is_denied(&error) && !is_root();
        let note = denied.then(|| reader::denied(&arguments));
        output::error(&error, note.as_deref());
        ExitCode::FAILURE
    })
}

fn outcome(arguments: &Arguments) -> Outcome {
    match &arguments.verb {
        Verb::Run => run::run(arguments),
        Verb::Init(init) => init.run(arguments),
        Verb::Plan(plan) => plan.run(arguments),
        Verb::Adopt(adopt) => adopt.run(arguments),
        Verb::Apply(apply) => apply.run(arguments),
        Verb::Edit(edit) => edit.run(arguments),
        Verb::Override(set) => set.run(arguments),
        Verb::Pause(pause) => pause.run(arguments),
        Verb::Resume(resume) => resume.run(arguments),
        Verb::Get(get) => get.run(arguments),
        Verb::Describe(describe) => describe.run(arguments),
        Verb::Wait(wait) => wait.run(arguments),
        Verb::Diff(diff) => diff.run(arguments),
        Verb::Render(render) => render.run(arguments),
        Verb::Validate(validate) => validate.run(arguments),
        Verb::Schema(schema) => schema.run(arguments),
        Verb::Explain(explain) => explain.run(arguments),
        Verb::Approve(approve) => approve.run(arguments),
        Verb::History(log) => log.run(arguments),
        Verb::Events(events) => events.run(arguments),
        Verb::Rollback(rollback) => rollback.run(arguments),
        Verb::Doctor => doctor::run(arguments),
        Verb::Status => status::run(arguments),
        Verb::Sync => sync::run(arguments),
        Verb::Restart(restart) => restart.run(arguments),
        Verb::Maintenance(maintenance) => maintenance.run(arguments),
        Verb::ControlPlane(control_plane) => control_plane.run(arguments),
        Verb::Fleet(fleet) => fleet.run(arguments),
        Verb::Completions(completions) => completions.run(),
        Verb::Man(page) => page.run(),
        Verb::Version => version::run(arguments),
        Verb::PackageFiles(files) => files.run(),
        // Its words are those of another verb, which is never this one.
        Verb::Answer(_) => Ok(ExitCode::FAILURE),
    }
}

/// Returns whether an error means that this user lacks permission.
fn is_denied(error: &anyhow::Error) -> bool {
    use std::io::{Error, ErrorKind::PermissionDenied};
    error.chain().any(|cause| {
        let system = cause.downcast_ref().map(Error::kind);
        system == Some(PermissionDenied)
            || cause
                .downcast_ref()
                .is_some_and(|error: &DocumentError| error.is_denied)
            || cause.downcast_ref().is_some_and(Missing::is_denied)
            || cause.downcast_ref().is_some_and(TokenError::is_denied)
    })
}

fn is_root() -> bool {
    // The owner of a process's folder is its effective user (proc(5)).
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Prints the errors in the arguments, or the requested help.
pub fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && asks_for_json(std::env::args_os()) {
        output::choose(Format::Json);
        let text = error.render().to_string();
        let text = text.trim().trim_start_matches("error: ");
        // The usage follows.
        let text = text.split("\n\nUsage: ").next().unwrap_or_default();
        let text = text.split("\n\nFor more information").next();
        let text = text.unwrap_or_default().to_owned();
        output::error(&anyhow::Error::msg(text), None);
        return ExitCode::from(64);
    }
    let printed = error.print().or_else(|error| output::check(&error));
    match (error.use_stderr(), printed) {
        (true, _) => ExitCode::from(64),
        (false, Ok(())) => ExitCode::SUCCESS,
        (false, Err(error)) => {
            output::error(&error.context("write the output"), None);
            ExitCode::FAILURE
        }
    }
}

/// Returns whether arguments that cannot be parsed ask for JSON.
fn asks_for_json(arguments: impl Iterator<Item = OsString>) -> bool {
    let arguments = arguments.map(|it| it.to_string_lossy().into_owned());
    let arguments: Vec<_> = arguments.collect();
    let apart = |pair: &[String]| matches!(pair, [name, value] if matches!(name.as_str(), "-o" | "--output") && value == "json");
    let together = ["-ojson", "-o=json", "--output=json"];
    arguments.windows(2).any(apart) || arguments.iter().any(|it| together.contains(&it.as_str()))
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
    // Tasks only wait and compare. Blocking work is limited elsewhere (`controller::Turns`); its threads would keep the
    // memory that they freed.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .enable_all()
        .build()?;
    // Boxed, so that the runtime's code is compiled once for a type of result, and not for each verb.
    let work: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(work);
    let done = runtime.block_on(work);
    // A lookup that hangs must not delay the exit.
    runtime.shutdown_timeout(EXIT_WAIT);
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn examples_in_help_are_not_wrapped() {
        let mut commands = vec![Arguments::command()];
        while let Some(command) = commands.pop() {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with(' ')) {
                assert!(
                    line.chars().count() <= 100,
                    "{}: {line}",
                    command.get_name()
                );
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
