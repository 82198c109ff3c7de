//! Runs another program, to its end or as a dialogue: closed environment, deadline, bounded output.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{Access, FileType, access, stat};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Where programs are looked up if the agent's environment does not say.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Limit of error messages, in bytes; the rest is dropped.
const MOST_ERRORS: u64 = 256 * 1024;

/// Reason why a program has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    /// It could not be started.
    #[error("cannot be started")]
    Start(#[source] io::Error),
    /// It did not end in time and was killed.
    #[error("did not end in time")]
    Deadline,
    /// Its output could not be read, or is longer than the limit.
    #[error("its output cannot be read")]
    Output(#[source] io::Error),
}

/// Programs started by this process.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// Returns the number of programs that this process has started.
pub(crate) fn started() -> u64 {
    STARTED.load(Ordering::Relaxed)
}

/// Returns the command that starts a program, which sees the name that it was asked for. Started by its name in an
/// environment of its own, a program costs a `fork`: a copy of all page tables, and a page fault for each page that this
/// process writes afterwards, 4200 of the 7200 faults of a start with 100 sessions (measured). Started by its path, it costs
/// a `posix_spawn`, which copies nothing.
pub(crate) fn command(program: &Path) -> Command {
    let file = file_in(&path(), program);
    let mut command = Command::new(file.as_deref().unwrap_or(program));
    command.arg0(program);
    command
}

/// Where programs are looked up.
fn path() -> OsString {
    env::var_os("PATH").unwrap_or_else(|| PATH.into())
}

/// Returns the first executable file of this name; `None` for a path, for what is in no folder, and in a relative one, which
/// would mean another folder to a program with a working directory of its own.
fn file_in(folders: &OsStr, program: &Path) -> Option<PathBuf> {
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return None;
    }
    let is_program = |file: &PathBuf| {
        let is_file = |mode| FileType::from_raw_mode(mode).is_file();
        stat(file).is_ok_and(|found| is_file(found.st_mode))
            && access(file, Access::EXEC_OK).is_ok()
    };
    let mut files = env::split_paths(folders).map(|folder| folder.join(program));
    files.find(is_program).filter(|file| file.is_absolute())
}

fn spawn(command: &mut Command) -> Result<Child, ExecError> {
    STARTED.fetch_add(1, Ordering::Relaxed);
    command.spawn().map_err(ExecError::Start)
}

/// One run of a program.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
    deadline: Duration,
    limit: u64,
    is_cut: bool,
    input: Vec<u8>,
}

impl Run {
    /// Prepares a run. The program sees nothing of the agent's environment, which may hold a token, but `PATH`.
    pub(crate) fn new(program: &Path, deadline: Duration, limit: u64) -> Self {
        let mut command = command(program);
        command
            .env_clear()
            .env("PATH", path())
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A run ends with its deadline, and with the task that waits for it.
            .kill_on_drop(true);
        Self {
            command,
            deadline,
            limit,
            is_cut: false,
            input: Vec::new(),
        }
    }

    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Sets the text of its standard input.
    pub(crate) fn input(mut self, input: Vec<u8>) -> Self {
        self.command.stdin(Stdio::piped());
        self.input = input;
        self
    }

    /// Drops output beyond the limit, which otherwise is an error.
    pub(crate) fn cut(self) -> Self {
        Self {
            is_cut: true,
            ..self
        }
    }

    /// Runs the program and waits for its end.
    ///
    /// # Errors
    /// It cannot be started, does not end in time, or prints more than the limit.
    pub(crate) async fn output(mut self) -> Result<Output, ExecError> {
        let mut child = spawn(&mut self.command)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let pipes = (stdin, stdout, stderr);
        let of_output = (self.limit, self.is_cut);
        end_of(child, pipes, self.input, of_output, self.deadline).await
    }
}

/// Writes the input, reads the output, and waits for the end of a program.
async fn end_of(
    mut child: Child,
    (stdin, stdout, stderr): (
        Option<ChildStdin>,
        Option<impl AsyncRead + Unpin>,
        Option<ChildStderr>,
    ),
    input: Vec<u8>,
    (limit, is_cut): (u64, bool),
    deadline: Duration,
) -> Result<Output, ExecError> {
    let work = async {
        // Input is written while output is read: otherwise a full pipe would block both sides.
        let (status, stdout, stderr, ()) = tokio::try_join!(
            child.wait(),
            read(stdout, limit, is_cut),
            read(stderr, MOST_ERRORS, true),
            write(stdin, input),
        )?;
        io::Result::Ok(Output {
            status,
            stdout,
            stderr,
        })
    };
    let output = timeout(deadline, work).await;
    output
        .map_err(|_| ExecError::Deadline)?
        .map_err(ExecError::Output)
}

impl Run {
    /// Starts the program, whose output the caller reads as it comes. It is killed when the child is dropped.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn stream(mut self) -> Result<Child, ExecError> {
        spawn(&mut self.command)
    }
}

/// A running program that answers each input with one line. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Dialogue {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
    deadline: Duration,
}

impl Run {
    /// Starts the program.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(mut self) -> Result<Dialogue, ExecError> {
        let mut child = spawn(self.command.stdin(Stdio::piped()))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(ExecError::Start(ErrorKind::BrokenPipe.into()));
        };
        Ok(Dialogue {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            stderr,
            deadline: self.deadline,
        })
    }
}

impl Dialogue {
    /// Writes an input and returns the line that answers it; `None`: the program has ended, and [`Self::end`] returns
    /// the reason.
    ///
    /// # Errors
    /// No answer came in time, or it cannot be read.
    pub(crate) async fn ask(&mut self, input: &[u8]) -> Result<Option<String>, ExecError> {
        let work = async {
            // A program that has ended closes the pipe; then there is no line either.
            let _ = self.stdin.write_all(input).await;
            let mut line = String::new();
            (&mut self.stdout)
                .take(MOST_ERRORS)
                .read_line(&mut line)
                .await?;
            io::Result::Ok(line.strip_suffix('\n').map(str::to_owned))
        };
        let answered = timeout(self.deadline, work).await;
        answered
            .map_err(|_| ExecError::Deadline)?
            .map_err(ExecError::Output)
    }

    /// Writes the last input, and waits for the end of the program.
    ///
    /// # Errors
    /// It does not end in time, or its output cannot be read.
    pub(crate) async fn end(self, input: &[u8]) -> Result<Output, ExecError> {
        let pipes = (Some(self.stdin), Some(self.stdout), Some(self.stderr));
        let of_output = (MOST_ERRORS, true);
        end_of(self.child, pipes, input.to_vec(), of_output, self.deadline).await
    }
}

/// A program that ends early closes the pipe; its exit status and its messages have the reason.
async fn write(pipe: Option<ChildStdin>, input: Vec<u8>) -> io::Result<()> {
    if let Some(mut pipe) = pipe {
        let _ = pipe.write_all(&input).await;
        let _ = pipe.shutdown().await;
    }
    Ok(())
}

async fn read(
    pipe: Option<impl AsyncRead + Unpin>,
    limit: u64,
    is_cut: bool,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(pipe) = pipe else { return Ok(bytes) };
    let mut limited = pipe.take(limit);
    limited.read_to_end(&mut bytes).await?;
    // A program that prints more can still end.
    let mut rest = limited.into_inner();
    if is_cut {
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    } else if rest.read(&mut [0]).await? > 0 {
        let message = format!("it printed more than {limit} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn shell(script: &str, limit: u64) -> Run {
        Run::new(Path::new("sh"), Duration::from_secs(20), limit).args(["-c", script])
    }

    #[tokio::test]
    async fn large_input_and_output_do_not_block_each_other() {
        let input = vec![b'x'; 1 << 20];
        let output = shell("cat", 1 << 20).input(input.clone()).output().await;
        assert_eq!(output.unwrap().stdout, input);
    }

    #[tokio::test]
    async fn output_beyond_the_limit_is_an_error_or_cut() {
        let script = "head -c 1000000 /dev/zero; echo late >&2";
        let error = shell(script, 10).output().await.unwrap_err();
        assert!(matches!(error, ExecError::Output(_)), "{error:?}");
        let output = shell(script, 10).cut().output().await.unwrap();
        assert_eq!(
            (output.stdout.len(), &output.stderr[..]),
            (10, &b"late\n"[..])
        );
        assert!(output.status.success());
    }

    #[tokio::test]
    async fn program_ends_with_its_deadline() {
        let mut run = shell("echo $$; exec sleep 1000", 100);
        run.deadline = Duration::from_millis(200);
        let error = run.output().await.unwrap_err();
        assert!(matches!(error, ExecError::Deadline), "{error:?}");
    }

    #[tokio::test]
    async fn dialogue_answers_each_input_and_ends_with_its_reason() {
        let script = "while read word; do echo got $word; test $word = last && break; done; echo why >&2; exit 3";
        let mut dialogue = shell(script, 100).start().unwrap();
        for word in ["first", "last"] {
            let line = dialogue.ask(format!("{word}\n").as_bytes()).await.unwrap();
            assert_eq!(line, Some(format!("got {word}")));
        }
        assert_eq!(dialogue.ask(b"more\n").await.unwrap(), None);
        let output = dialogue.end(b"more\n").await.unwrap();
        assert_eq!(
            (output.status.code(), &output.stderr[..]),
            (Some(3), &b"why\n"[..])
        );
    }

    #[tokio::test]
    async fn dialogue_without_an_answer_ends_with_its_deadline() {
        let mut run = shell("exec sleep 1000", 100);
        run.deadline = Duration::from_millis(200);
        let error = run.start().unwrap().ask(b"x\n").await.unwrap_err();
        assert!(matches!(error, ExecError::Deadline), "{error:?}");
    }

    #[tokio::test]
    async fn program_does_not_see_the_environment() {
        let output = shell("env | cut -d= -f1 | grep -v ^_ | sort", 1000).output();
        let output = output.await.unwrap();
        let names = String::from_utf8(output.stdout).unwrap();
        let own = ["OLDPWD", "PWD", "SHLVL"];
        let passed: Vec<&str> = names.lines().filter(|name| !own.contains(name)).collect();
        assert_eq!(passed, ["LC_ALL", "PATH"]);
    }

    #[test]
    fn program_is_the_first_executable_file_of_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| dir.path().join(name);
        for name in ["none", "folder/tool", "text", "first", "second"] {
            std::fs::create_dir_all(folder(name)).unwrap();
        }
        for (name, mode) in [("text", 0o644), ("first", 0o755), ("second", 0o755)] {
            let file = folder(name).join("tool");
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        }
        let names = ["none", "folder", "text", "first", "second"];
        let folders = env::join_paths(names.map(folder)).unwrap();
        let found = |program| file_in(&folders, Path::new(program));
        assert_eq!(found("tool"), Some(folder("first").join("tool")));
        assert_eq!(found("no-such-tool"), None);
        assert_eq!(found("./tool"), None);
    }

    #[tokio::test]
    async fn program_sees_the_name_that_it_was_asked_for() {
        let output = shell("cat /proc/$$/cmdline", 100).output().await.unwrap();
        assert!(output.stdout.starts_with(b"sh\0-c\0"), "{output:?}");
    }

    #[tokio::test]
    async fn missing_program_cannot_be_started() {
        let run = Run::new(Path::new("no-such-program"), Duration::from_secs(1), 1);
        let error = run.output().await.unwrap_err();
        assert!(
            matches!(&error, ExecError::Start(cause) if cause.kind() == ErrorKind::NotFound),
            "{error:?}"
        );
    }
}
