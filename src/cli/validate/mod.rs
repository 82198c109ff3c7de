//! `validate`: checks documents and configuration: schema, rules, conflicts.

mod file;
mod router;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Arguments, Outcome, output};
use crate::document::DocumentError;
pub(super) use router::{refusals, token_problems};

/// Check documents and configuration.
#[derive(Debug, Args)]
pub struct Validate {
    /// Only these files, each by itself. Default: the configuration and the whole state directory
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// The result of a check.
#[derive(Debug, Default, Serialize)]
struct Findings {
    /// All problems, with file, line and column if known.
    problems: Vec<DocumentError>,
    /// Facts that could not be checked, each with the reason.
    unchecked: Vec<String>,
    /// Overrides without a document, which may be intended or mistyped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting: Vec<String>,
    /// Address clashes of applied objects, which stay as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    clashes: Vec<String>,
}

impl Validate {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let findings = if self.files.is_empty() {
            router::findings(arguments)?
        } else {
            Findings {
                problems: self
                    .files
                    .iter()
                    .flat_map(|it| file::problems(it))
                    .collect(),
                ..Findings::default()
            }
        };
        if !output::value(arguments.output, &findings)? {
            print(&findings);
        }
        Ok(if findings.problems.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn print(findings: &Findings) {
    findings.problems.iter().for_each(output::line);
    for fact in &findings.unchecked {
        output::line(format_args!("unchecked: {fact}"));
    }
    findings.clashes.iter().for_each(output::line);
    findings.waiting.iter().for_each(output::line);
    match (findings.problems.is_empty(), findings.unchecked.is_empty()) {
        (true, true) => output::line("Everything is valid."),
        (true, false) => output::line("Everything that could be checked is valid."),
        (false, _) => {}
    }
}
