//! `completions`: completion scripts for shells.

use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Arguments, Outcome, output};

/// Completions for a shell.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self) -> Outcome {
        output::line(script(self.shell).trim_end());
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the completions for a shell.
pub(super) fn script(shell: Shell) -> String {
    let mut text = Vec::new();
    let mut command = Arguments::command();
    clap_complete::generate(shell, &mut command, "moenet-agent", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
