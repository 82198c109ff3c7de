//! Runs `bird -p` and `bird --version`.
//!
//! Checks run in a separate process and never with `configure check`: a quoted string of 4096 bytes or more crashes the
//! daemon that reads it, on all five versions (measured).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::counters::BirdCounters;
use super::pace::Pace;
use crate::observed::bird::{Diagnostic, Version, diagnostics, text};
use crate::ports::CheckError;
use crate::util::exec::{ExecError, Run};
use crate::util::file::Stamp;
use crate::util::fs;
use crate::util::task::blocking;

/// Limit of the output that is kept, in bytes. The rest is drained and dropped; the deadline bounds the time.
const MOST_OUTPUT: u64 = 256 * 1024;

/// Cached version of a program, with its file at that time.
type Asked = (PathBuf, Stamp, Version);

/// Runs the `bird` program for everything except the daemon.
#[derive(Debug, Clone)]
pub struct Checker {
    program: PathBuf,
    /// Deadline of `bird --version`.
    deadline: Duration,
    /// Deadline of `bird -p`.
    pace: Arc<Pace>,
    counters: Arc<BirdCounters>,
    asked: Arc<Mutex<Option<Asked>>>,
}

impl Checker {
    /// Creates a checker for this program (`bird` is looked up in `PATH`). The deadline is that of a small
    /// configuration.
    pub fn new(
        program: impl Into<PathBuf>,
        deadline: Duration,
        counters: Arc<BirdCounters>,
    ) -> Self {
        Self {
            program: program.into(),
            deadline,
            pace: Arc::new(Pace::new(deadline)),
            counters,
            asked: Arc::default(),
        }
    }

    /// Parses a configuration and returns the warnings. The path should be absolute, because BIRD reports file names as
    /// given. When run as root, this does not prove that the user `bird` may read the files. The deadline follows the
    /// number of files and the time of the last check.
    ///
    /// # Errors
    /// [`CheckError::Refused`] with BIRD's message, or any other [`CheckError`].
    pub async fn check(&self, file: &Path, files: usize) -> Result<Vec<Diagnostic>, CheckError> {
        self.counters.count_check();
        let (deadline, begun) = (self.pace.deadline(files), Instant::now());
        let arguments: [&OsStr; 3] = ["-p".as_ref(), "-c".as_ref(), file.as_os_str()];
        let ran = self.run(&arguments, deadline).await;
        match &ran {
            // A parser that refuses a text may have read only the first files.
            Ok((status, _)) if status.success() => self.pace.took(files, begun.elapsed()),
            Err(CheckError::Timeout { .. }) => self.pace.missed(files, deadline),
            _ => {}
        }
        let (status, output) = ran?;
        let mut messages = diagnostics::parse(&output);
        if status.success() {
            return Ok(messages);
        }
        if status.code().is_none_or(|code| code >= 128) {
            return Err(CheckError::Crashed {
                program: self.program.clone(),
                status,
            });
        }
        let silent = || Diagnostic {
            message: format!("bird -p failed ({status})"),
            ..Diagnostic::default()
        };
        Err(CheckError::Refused(messages.pop().unwrap_or_else(silent)))
    }

    /// Returns the version of the installed program, which can differ from the running daemon.
    ///
    /// # Errors
    /// Any [`CheckError`] except `Refused`.
    pub async fn version(&self) -> Result<Version, CheckError> {
        let (_, output) = self.run(&["--version".as_ref()], self.deadline).await?;
        let output = text::decode(&output);
        let missing = || CheckError::NoVersion {
            program: self.program.clone(),
            output: text::cut(&output, 80),
        };
        Version::find(&output).ok_or_else(missing)
    }

    /// Returns the version of the installed program, read again when its file changes. `None` if it cannot be run.
    pub async fn installed(&self) -> Option<Version> {
        let program = self.program.clone();
        let (file, stamp) = blocking(move || stamped(&program)).await?;
        if let Some((asked, at, version)) = &*self.asked.lock()
            && (asked, at) == (&file, &stamp)
        {
            return Some(*version);
        }
        let version = self.version().await.ok()?;
        *self.asked.lock() = Some((file, stamp, version));
        Some(version)
    }

    async fn run(
        &self,
        arguments: &[&OsStr],
        deadline: Duration,
    ) -> Result<(ExitStatus, Vec<u8>), CheckError> {
        let run = Run::new(&self.program, deadline, MOST_OUTPUT).cut();
        match run.args(arguments).output().await {
            Ok(output) => Ok((output.status, [output.stdout, output.stderr].concat())),
            Err(ExecError::Deadline) => Err(CheckError::Timeout {
                program: self.program.clone(),
                deadline,
            }),
            Err(ExecError::Start(source) | ExecError::Output(source)) => Err(CheckError::Run {
                program: self.program.clone(),
                source,
            }),
        }
    }
}

/// Returns the file of a program, looked up in `PATH` as the system does, and its stamp.
fn stamped(program: &Path) -> Option<(PathBuf, Stamp)> {
    let file = match program.components().count() {
        0 | 1 => std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|folder| folder.join(program))
            .find(|file| fs::is_file(file))?,
        _ => program.to_owned(),
    };
    let stamp = Stamp::at(&file)?;
    Some((file, stamp))
}
