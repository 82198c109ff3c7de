//! `fleet`: the files of the embedded Control Plane.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Arguments, Outcome, output};
use crate::fleet::{self, Findings};

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
}

impl Fleet {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let Verb::Validate { dir } = &self.verb;
        let findings = fleet::validate(dir)?;
        if !output::value(arguments.output, &findings)? {
            print(&findings);
        }
        Ok(match findings.problems.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
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
