//! Runs the stock `git`: fixed arguments, a fixed environment, a deadline.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use super::HistoryError;
use crate::util::exec::{Dialogue, ExecError, Run};
use crate::util::fs;
use crate::util::task::blocking;

/// Options that override the configuration of an operator or a distribution. Hooks and signing
/// could wait for input; automatic packing would run inside a commit.
const OPTIONS: [&str; 10] = [
    "commit.gpgSign=false",
    "core.autocrlf=false",
    "core.fsmonitor=false",
    "core.fsync=committed",
    "core.hooksPath=/dev/null",
    "core.quotePath=false",
    // Each import leaves a pack: unpacking it would take another process and more files.
    "fastimport.unpackLimit=0",
    "gc.auto=0",
    "log.showSignature=false",
    "safe.directory=*",
];

/// Limit of git's output, in bytes: more than all documents of ten thousand sessions.
const MOST_OUTPUT: u64 = 256 * 1024 * 1024;

/// Git on one state directory.
#[derive(Debug, Clone)]
pub(super) struct Git {
    dir: PathBuf,
    program: PathBuf,
    deadline: Duration,
}

impl Git {
    pub(super) fn new(dir: &Path, program: PathBuf, deadline: Duration) -> Self {
        Self {
            dir: dir.to_owned(),
            program,
            deadline,
        }
    }

    pub(super) fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            deadline,
            ..self.clone()
        }
    }

    /// Runs git and returns its output.
    pub(super) async fn run(
        &self,
        operation: &'static str,
        args: &[&str],
    ) -> Result<Vec<u8>, HistoryError> {
        self.feed(operation, args, Vec::new()).await
    }

    /// Runs git with this standard input and returns its output.
    pub(super) async fn feed(
        &self,
        operation: &'static str,
        args: &[&str],
        input: Vec<u8>,
    ) -> Result<Vec<u8>, HistoryError> {
        let output = self.output(operation, args, input).await?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(self.refused(operation, &output))
    }

    /// Runs git as a query: `None` for a negative answer. A killed git is an error.
    pub(super) async fn ask(
        &self,
        operation: &'static str,
        args: &[&str],
    ) -> Result<Option<String>, HistoryError> {
        let output = self.output(operation, args, Vec::new()).await?;
        if output.status.code().is_none() {
            return Err(self.refused(operation, &output));
        }
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(output.status.success().then_some(text))
    }

    async fn output(
        &self,
        operation: &'static str,
        args: &[&str],
        input: Vec<u8>,
    ) -> Result<Output, HistoryError> {
        let run = self.command(args).input(input);
        match run.output().await {
            Ok(output) => Ok(output),
            Err(error) => Err(self.failed(operation, error).await),
        }
    }

    /// Starts a git that answers each input with a line.
    pub(super) async fn start(
        &self,
        operation: &'static str,
        args: &[&str],
    ) -> Result<Dialogue, HistoryError> {
        match self.command(args).start() {
            Ok(dialogue) => Ok(dialogue),
            Err(error) => Err(self.failed(operation, error).await),
        }
    }

    /// Returns the error of a git that ended with this output.
    pub(super) fn refused(&self, operation: &'static str, output: &Output) -> HistoryError {
        HistoryError::Git {
            operation,
            dir: self.dir.clone(),
            reason: reason(output),
        }
    }

    /// Returns the error of a git without a result.
    pub(super) async fn failed(&self, operation: &'static str, error: ExecError) -> HistoryError {
        match error {
            ExecError::Start(source) => self.not_run(source).await,
            ExecError::Output(source) => {
                HistoryError::io("read git's output in", &self.dir)(source)
            }
            ExecError::Deadline => HistoryError::Deadline {
                operation,
                dir: self.dir.clone(),
                deadline: self.deadline,
            },
        }
    }

    /// Returns why git could not be started: git is missing, or its working directory.
    async fn not_run(&self, source: io::Error) -> HistoryError {
        let dir = self.dir.clone();
        match blocking(move || fs::read_dir(dir)).await {
            Ok(_) => HistoryError::NoGit {
                program: self.program.clone(),
                source,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => HistoryError::Away {
                dir: self.dir.clone(),
            },
            Err(error) => HistoryError::io("enter", &self.dir)(error),
        }
    }

    fn command(&self, args: &[&str]) -> Run {
        Run::new(&self.program, self.deadline, MOST_OUTPUT)
            // Set explicitly, because git would use a repository in a parent directory if this one is missing.
            .env("GIT_DIR", self.dir.join(".git"))
            .env("GIT_WORK_TREE", &self.dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_LITERAL_PATHSPECS", "1")
            .env("GIT_PAGER", "cat")
            .args(OPTIONS.iter().flat_map(|option| ["-c", option]))
            .args(args)
            .dir(&self.dir)
    }
}

/// Returns git's error in one line, with advice if the disk is the cause.
fn reason(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let said = |line: &&str| !line.is_empty() && !line.contains("dumping crash report");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(said).take(4).collect();
    let reason = if lines.is_empty() {
        output.status.to_string()
    } else {
        lines.join("; ")
    };
    let full = ["No space left", "Out of diskspace", "Disk quota exceeded"]
        .iter()
        .any(|words| reason.contains(words));
    let advice = if full {
        ". The disk is full: free space, and the history continues"
    } else {
        ""
    };
    reason + advice
}
