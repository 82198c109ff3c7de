//! `fleet`: the files of the embedded Control Plane.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

#[cfg(feature = "postgres")]
use super::block_on;
use super::{Arguments, Outcome, output};
#[cfg(feature = "postgres")]
use crate::fleet::Replace;
use crate::fleet::{self, Findings};
#[cfg(feature = "postgres")]
use crate::model::Secret;

/// Work with a fleet directory.
#[derive(Debug, Args)]
pub struct Fleet {
    /// The verb
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check every file for errors that an agent would reject, with file:line:column
    ///
    /// Exit code 1 if there is a problem.
    #[command(after_help = "Example: moenet-agent fleet validate ./fleet")]
    Validate {
        /// The fleet directory: one folder for each router
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    #[cfg(feature = "postgres")]
    /// Copy the files of a directory into PostgreSQL, and the posts of routers that have none there
    ///
    /// Exit code 1, and nothing is changed, if a file differs there.
    #[command(
        after_help = "Example: moenet-agent fleet import ./fleet --store postgres://fleet@/fleet"
    )]
    Import {
        #[command(flatten)]
        copy: Copied,
    },
    #[cfg(feature = "postgres")]
    /// Copy the files of PostgreSQL into a directory, and the posts of routers that have none there
    ///
    /// Exit code 1, and nothing is changed, if a file differs there.
    #[command(
        after_help = "Example: moenet-agent fleet export ./fleet --store postgres://fleet@/fleet"
    )]
    Export {
        #[command(flatten)]
        copy: Copied,
    },
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
        env = "MOENET_FLEET_STORE",
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
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        match &self.verb {
            Verb::Validate { dir } => validate(dir, arguments),
            #[cfg(feature = "postgres")]
            Verb::Import { copy } => {
                let by = std::env::var("USER").unwrap_or_else(|_| "fleet import".to_owned());
                let (url, replace) = (copy.store(), copy.replace());
                let import = fleet::import(&copy.dir, &url, replace, &by);
                copied(block_on(async { Ok(import.await?) })?)
            }
            #[cfg(feature = "postgres")]
            Verb::Export { copy } => {
                let (url, replace) = (copy.store(), copy.replace());
                let export = fleet::export(&copy.dir, &url, replace);
                copied(block_on(async { Ok(export.await?) })?)
            }
        }
    }
}

#[cfg(feature = "postgres")]
fn copied(files: usize) -> Outcome {
    output::line(format_args!("{files} files changed."));
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
