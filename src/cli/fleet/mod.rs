//! `fleet`: the files of the embedded Control Plane.

mod add;
mod audit;
mod get;
mod history;
mod init;
mod plan;
mod rollout;
mod sessions;
mod token;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Subcommand};
use serde::Serialize;

#[cfg(feature = "postgres")]
use super::block_on;
use super::{Arguments, Outcome, output};
use crate::fleet::{self, Changes, Findings, Must};
#[cfg(feature = "postgres")]
use crate::fleet::{Invalid, Replace};
use crate::model::Secret;
#[cfg(feature = "postgres")]
use crate::util::text::counted;

/// Work with a fleet directory.
#[derive(Debug, Args)]
pub struct Fleet {
    /// The verb
    #[command(subcommand)]
    verb: Verb,
}

/// The fleet directory of a verb.
#[derive(Debug, Args)]
struct Directory {
    /// The fleet directory
    #[arg(long = "fleet", value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write the description of a network, with every field and its description
    ///
    /// Takes the values from flags, and asks for missing ones on a terminal. Existing files stay as they are.
    #[command(after_help = "\
Examples:
  moenet-agent fleet init ./fleet
  moenet-agent fleet init ./fleet --asn 4242420998 --ipv4 172.23.105.176/28 \\
    --ipv6 fd48:4242:420::/48")]
    Init(init::Init),
    /// Add a router or a session to a network
    Add {
        #[command(subcommand)]
        what: add::Add,
    },
    /// Create, rotate and revoke tokens of routers, and of owners of sessions
    Token {
        #[command(subcommand)]
        token: token::Token,
    },
    /// Let a router set up a session that waits for review, or that is disabled
    #[command(after_help = "Example: moenet-agent fleet accept jp1/alice --fleet ./fleet")]
    Accept(sessions::Accept),
    /// Take a session down, and keep its file
    #[command(after_help = "Example: moenet-agent fleet disable jp1/alice --fleet ./fleet")]
    Disable(sessions::Disable),
    /// Remove a session from its router, then its file
    ///
    /// The first call marks it for removal. Once the router has confirmed the removal, a second call removes the file.
    #[command(after_help = "Example: moenet-agent fleet delete jp1/alice --fleet ./fleet")]
    Delete(sessions::Delete),
    /// List the routers: when they were seen, their sessions by state, drained, held, errors
    ///
    /// Shows what the routers have posted last, from the fleet directory or the database; no server is asked.
    #[command(after_help = "Example: moenet-agent fleet get -o wide --fleet ./fleet")]
    Get(get::Get),
    /// Show one router with each of its sessions
    #[command(after_help = "Example: moenet-agent fleet describe jp1 --fleet ./fleet")]
    Describe(get::Describe),
    /// Show which lists a router was served, from which commit, and which became its documents
    ///
    /// A list is shown once for each change of its content, at most 20 of a router, the newest last. Commits are known
    /// of a server with `--git-ref`.
    #[command(after_help = "Example: moenet-agent fleet history jp1 --fleet ./fleet")]
    History(history::History),
    /// Show how far a change of the network has come, and why one was rolled back
    #[command(after_help = "Example: moenet-agent fleet rollout --fleet ./fleet")]
    Rollout(rollout::Rollout),
    /// Show who changed files through a server or an import, and what it decided
    ///
    /// The newest last, with each drain that a router was permitted and each step of a rollout. An editor and the other
    /// verbs change the files of a directory without a server, and leave no entry: keep such a directory in Git.
    #[command(after_help = "Example: moenet-agent fleet audit --fleet ./fleet -o json")]
    Audit(audit::Audit),
    /// Show what a change of the files changes on each router
    ///
    /// Compares the files with those of another directory or commit, as the routers would take them: which objects
    /// change, which BGP sessions reset, what is removed. Needs no server, and changes nothing. The texts for BIRD are
    /// those of BIRD 3 and the built-in templates; overrides on routers are unknown.
    #[command(after_help = "\
Examples:
  moenet-agent fleet plan --fleet ./fleet                         against the last commit
  moenet-agent fleet plan --fleet ./fleet --against origin/main   in the CI of a pull request
  moenet-agent fleet plan --fleet ./new --against ./old

Exit codes: 0 no changes; 2 changes; 1 the fleet is not valid, or the comparison failed.")]
    Plan(plan::Plan),
    /// Check every file for errors that an agent would reject, with file:line:column
    ///
    /// Exit code 1 if there is a problem.
    #[command(after_help = "Example: moenet-agent fleet validate ./fleet")]
    Validate {
        /// The fleet directory
        #[arg(value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    #[cfg(feature = "postgres")]
    /// Copy the files of a directory into PostgreSQL, and the posts of routers that have none there
    ///
    /// Exit code 1, and nothing is changed, if a file differs there.
    #[command(
        after_help = "Example: moenet-agent fleet import ./fleet --store postgres:///fleet?host=/run/postgresql"
    )]
    Import {
        #[command(flatten)]
        copy: Copied,
        /// Import a description from which no server would serve the network; those that run go on with the one before
        #[arg(long)]
        allow_invalid: bool,
    },
    #[cfg(feature = "postgres")]
    /// Copy the files of PostgreSQL into a directory, and the posts of routers that have none there
    ///
    /// Exit code 1, and nothing is changed, if a file differs there.
    #[command(
        after_help = "Example: moenet-agent fleet export ./fleet --store postgres:///fleet?host=/run/postgresql"
    )]
    Export {
        #[command(flatten)]
        copy: Copied,
    },
}

/// The variable with the URL of the database, which keeps the password off the command line.
#[cfg(feature = "postgres")]
const STORE_ENV: &str = "MOENET_FLEET_STORE";

/// Returns the database of the environment, for a command line that names no source. An empty one does not count.
#[cfg(feature = "postgres")]
pub(super) fn store_of_environment() -> Option<String> {
    std::env::var(STORE_ENV).ok().filter(|url| !url.is_empty())
}

#[cfg(feature = "postgres")]
#[derive(Debug, Args)]
struct Copied {
    /// The fleet directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The database: postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(
        long,
        value_name = "URL",
        env = STORE_ENV,
        hide_env_values = true
    )]
    store: String,
    /// Replace files that differ, and remove those that the source does not have
    #[arg(long)]
    overwrite: bool,
}

#[cfg(feature = "postgres")]
impl Copied {
    fn store(&self) -> Secret<String> {
        Secret::new(self.store.clone())
    }

    fn replace(&self) -> Replace {
        match self.overwrite {
            true => Replace::Differing,
            false => Replace::Nothing,
        }
    }
}

impl Fleet {
    /// Returns what the verb does from its start; `None`: it asks first.
    pub(super) fn work(&self) -> Option<&'static str> {
        Some(match &self.verb {
            Verb::Init(_) | Verb::Add { .. } => return None,
            Verb::Plan(_) => "comparing the routers",
            Verb::Validate { .. } => "checking the files",
            #[cfg(feature = "postgres")]
            Verb::Import { .. } | Verb::Export { .. } => "copying the files",
            _ => "reading the fleet",
        })
    }

    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        match &self.verb {
            Verb::Init(init) => init.run(arguments),
            Verb::Add { what } => what.run(arguments),
            Verb::Get(get) => get.run(arguments),
            Verb::Describe(describe) => describe.run(arguments),
            Verb::History(history) => history.run(arguments),
            Verb::Rollout(rollout) => rollout.run(arguments),
            Verb::Audit(audit) => audit.run(arguments),
            Verb::Plan(plan) => plan.run(arguments),
            Verb::Token { token } => token.run(arguments),
            Verb::Accept(accept) => accept.run(arguments),
            Verb::Disable(disable) => disable.run(arguments),
            Verb::Delete(delete) => delete.run(arguments),
            Verb::Validate { dir } => validate(dir, arguments),
            #[cfg(feature = "postgres")]
            Verb::Import {
                copy,
                allow_invalid,
            } => {
                let user = ["SUDO_USER", "USER"];
                let user = user.iter().find_map(|name| std::env::var(name).ok());
                // Without a name, as under cron and systemd.
                let by =
                    user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
                let invalid = match allow_invalid {
                    true => Invalid::Allow,
                    false => Invalid::Refuse,
                };
                let (url, care) = (copy.store(), (copy.replace(), invalid));
                let import = fleet::import(&copy.dir, &url, care, &by);
                copied(&block_on(async { Ok(import.await?) })?, arguments)
            }
            #[cfg(feature = "postgres")]
            Verb::Export { copy } => {
                let (url, replace) = (copy.store(), copy.replace());
                let export = fleet::export(&copy.dir, &url, replace);
                copied(&block_on(async { Ok(export.await?) })?, arguments)
            }
        }
    }
}

#[cfg(feature = "postgres")]
fn copied(files: &fleet::Copied, arguments: &Arguments) -> Outcome {
    if !output::value(arguments.output, files)? {
        let changed = counted(files.changed, "file");
        let removed = files.removed;
        output::line(format_args!(
            "{changed} changed, {removed} of them removed."
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn validate(dir: &Path, arguments: &Arguments) -> Outcome {
    let findings = fleet::validate(dir)?;
    if !output::value(arguments.output, &findings)? {
        print(&findings);
    }
    Ok(match findings.problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn print(findings: &Findings) {
    findings.problems.iter().for_each(output::line);
    let routers = match findings.routers {
        1 => "1 router".to_owned(),
        count => format!("{count} routers"),
    };
    match findings.problems.len() {
        0 => output::line(format_args!("All files of {routers} are valid.")),
        1 => output::line(format_args!("1 problem in {routers}.")),
        count => output::line(format_args!("{count} problems in {routers}.")),
    }
}

/// Returns the error of a command line on which a value is missing.
fn missing(why: &str) -> anyhow::Error {
    clap::Error::raw(ErrorKind::MissingRequiredArgument, format!("{why}\n")).into()
}

/// The answer of a verb that changes files.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    /// The files, below the fleet directory.
    files: Vec<String>,
    /// Those that were removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
    /// A new token, which is shown only here.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// What to do next.
    next: String,
}

impl Changed {
    /// Writes changes, and prints the answer.
    fn write(
        changes: Changes,
        must: Must,
        (token, next): (Option<Secret<String>>, String),
        arguments: &Arguments,
    ) -> Outcome {
        let followed = changes.dir().map(fleet::followed).transpose()?.flatten();
        let next = match followed {
            Some(_) => {
                format!("{next}; commit the change first, because the server serves commits")
            }
            None => next,
        };
        let removed = changes.removed();
        let files = changes.write(must)?;
        let token = token.map(|token| token.expose().clone());
        let changed = Self {
            files,
            removed,
            token,
            next,
        };
        changed.print(arguments)
    }

    fn print(&self, arguments: &Arguments) -> Outcome {
        if !arguments.output.is_for_people() {
            // The operator asked for the token.
            output::unredacted_value(arguments.output, self)?;
            return Ok(ExitCode::SUCCESS);
        }
        for file in &self.files {
            let done = match self.removed.contains(file) {
                true => "removed",
                false => "wrote",
            };
            output::line(format_args!("{done} {file}"));
        }
        if let Some(token) = &self.token {
            output::unredacted(format_args!("token: {token}"));
        }
        output::note(&self.next);
        Ok(ExitCode::SUCCESS)
    }
}
