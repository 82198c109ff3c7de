//! `completions`: completion scripts for shells.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};

use super::complete::VARIABLE;
use super::{Outcome, output};

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

/// Returns the completions for a shell: they ask the program, which knows the names of this router.
pub(super) fn script(shell: Shell) -> String {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::PowerShell => &Powershell,
        _ => &Zsh,
    };
    let (name, mut text) = ("moenet-agent", Vec::new());
    // Writing to memory does not fail.
    let _ = completer.write_registration(VARIABLE, name, name, name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
