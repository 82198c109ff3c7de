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
        let mut text = Vec::new();
        clap_complete::generate(
            self.shell,
            &mut Arguments::command(),
            "moenet-agent",
            &mut text,
        );
        output::line(String::from_utf8_lossy(&text).trim_end());
        Ok(ExitCode::SUCCESS)
    }
}
