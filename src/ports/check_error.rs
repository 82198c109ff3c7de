use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::observed::bird::Diagnostic;

/// Reason for a failed check.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// BIRD's parser rejected the configuration.
    #[error("{0}")]
    Refused(Diagnostic),
    /// The program could not be run.
    #[error("cannot run {}: is BIRD installed?", .program.display())]
    Run {
        program: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The program did not end in time and was killed.
    #[error(
        "{} -p did not end within {deadline:?}: the machine is overloaded, or a file that BIRD includes hangs",
        .program.display()
    )]
    Timeout {
        program: PathBuf,
        deadline: Duration,
    },
    /// The parser itself crashed, as some texts make it do. Such a text must not reach the daemon.
    #[error("{} crashed ({status}) while reading the configuration: a text in it is too long for \
             BIRD", .program.display())]
    Crashed {
        program: PathBuf,
        status: ExitStatus,
    },
    /// `bird --version` printed no version.
    #[error("{} printed no version: {output:?}", .program.display())]
    NoVersion {
        program: PathBuf,
        /// The output printed instead.
        output: String,
    },
}
