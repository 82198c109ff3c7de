//! Answers verbs that only read, to members of a group (docs/contract/local-api.md#read-socket). The agent runs the verb
//! itself, as its own user and with its own configuration, so that both answers come from the same code. Which verbs
//! are allowed is known to `cli::answer`, which that process begins with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Child;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::{Config, READ_GROUP};
use crate::http::bind_unix;
use crate::intervals::{HTTP_BODY, HTTP_HEAD, LISTEN_RETRY, READ_ANSWER};
use crate::telemetry::chain;
use crate::util::backoff::Backoff;
use crate::util::exec::{ExecError, Run};
use crate::util::group::group_id;
use crate::util::task::blocking;

/// Verbs that run at once, and those of one user; one more is refused.
const READERS: usize = 8;
const READERS_OF_USER: usize = 3;

/// Variables that the configuration of a verb follows, as that of the agent does.
const ENVIRONMENT: [&str; 3] = ["MOENET_NODE_NAME", "MOENET_CP_URL", "MOENET_CP_TOKEN"];

/// Size limit of a request, in bytes.
const REQUEST_MAX: u64 = 64 * 1024;

/// Lines of output that wait for the client.
const LINES: usize = 64;

/// A verb to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReadRequest {
    /// The words after the program's name.
    pub(crate) arguments: Vec<String>,
    /// Whether the output is for a terminal with colours.
    pub(crate) colour: bool,
}

/// A part of the answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ReadPart {
    /// A line for standard output.
    Out(String),
    /// A line for standard error.
    Err(String),
    /// The exit code, after everything else.
    Code(u8),
}

/// Serves until the agent stops. Without the group the socket would have no users, so the agent makes no socket.
pub(super) async fn serve(config: Config, stop: CancellationToken) {
    let Some(listener) = stop.run_until_cancelled(listener(&config)).await.flatten() else {
        return stop.cancelled().await;
    };
    let seats = Arc::new(Seats::new());
    let config = Arc::new(config);
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = clients.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of file descriptors, say: the next one may work.
                    tokio::time::sleep(LISTEN_RETRY.0).await;
                    continue;
                };
                clients.spawn(converse(stream, Arc::clone(&config), Arc::clone(&seats)));
            }
        }
    }
    let path = config.server.read_socket.clone();
    // Best effort: the next start recognises a stale socket.
    let _ = blocking(move || crate::util::fs::remove_file(path)).await;
}

/// Listens as soon as the path is free. `None`: there is no such group.
async fn listener(config: &Config) -> Option<UnixListener> {
    let named = config.server.read_group.clone();
    let is_named = named.is_some();
    let name = named.unwrap_or_else(|| READ_GROUP.to_owned());
    let wanted = name.clone();
    let Some(group) = blocking(move || group_id(&wanted)).await else {
        match is_named {
            true => warn!(
                group = name,
                "server.readGroup does not exist: only root can use the read verbs"
            ),
            false => debug!(
                group = name,
                "no such group: only root can use the read verbs"
            ),
        }
        return None;
    };
    let path: PathBuf = config.server.read_socket.clone();
    let mut waits = Backoff::new(LISTEN_RETRY.0, LISTEN_RETRY.1).waits();
    let mut is_said = false;
    loop {
        match bind_unix(&path, Some(group)).await {
            Ok(listener) => {
                info!(path = %path.display(), group = name, "read socket listens");
                return Some(listener);
            }
            Err(error) if !is_said => {
                is_said = true;
                warn!(path = %path.display(), error = chain(&error), "the read socket cannot listen; trying again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(waits.next().unwrap_or(LISTEN_RETRY.1)).await;
    }
}

/// The verbs in progress.
struct Seats {
    all: Arc<Semaphore>,
    of_user: Mutex<BTreeMap<u32, Arc<Semaphore>>>,
}

impl Seats {
    fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(READERS)),
            of_user: Mutex::default(),
        }
    }

    /// Takes a seat of a user, so that no user takes those of all others.
    fn take(&self, user: u32) -> Option<[OwnedSemaphorePermit; 2]> {
        let own = || Arc::new(Semaphore::new(READERS_OF_USER));
        let own = Arc::clone(self.of_user.lock().entry(user).or_insert_with(own));
        let own = own.try_acquire_owned().ok()?;
        let seat = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some([own, seat])
    }
}

/// Answers one client. Its failure concerns only the client, and the verb ends with its connection.
async fn converse(stream: UnixStream, config: Arc<Config>, seats: Arc<Seats>) {
    let Ok(user) = stream.peer_cred().map(|user| user.uid()) else {
        return;
    };
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let request = match timeout(HTTP_HEAD, request(&mut read)).await {
        Ok(Some(request)) => request,
        _ => return refuse(&mut write, "the request is not one line of JSON").await,
    };
    let Some(_seat) = seats.take(user) else {
        let why = "the agent runs many verbs of readers already; try again";
        return refuse(&mut write, why).await;
    };
    debug!(user, arguments = ?request.arguments, "read verb");
    match start(&config, &request) {
        Ok(child) => tokio::select! {
            () = answer(child, &mut write) => {}
            () = hangs_up(&mut read) => {}
            () = sleep(READ_ANSWER) => refuse(&mut write, "the verb took too long").await,
        },
        Err(error) => refuse(&mut write, &chain(&error)).await,
    }
}

async fn request(read: &mut BufReader<OwnedReadHalf>) -> Option<ReadRequest> {
    let mut line = String::new();
    read.take(REQUEST_MAX).read_line(&mut line).await.ok()?;
    serde_json::from_str(&line).ok()
}

fn start(config: &Config, request: &ReadRequest) -> Result<Child, ExecError> {
    // After an upgrade this is still the running program.
    let program = Path::new("/proc/self/exe");
    let run = Run::new(program, HTTP_HEAD, 0)
        .env("CLICOLOR_FORCE", if request.colour { "1" } else { "0" });
    let run = run.args([
        "--config".as_ref(),
        config.source.path.as_os_str(),
        "answer".as_ref(),
        "--".as_ref(),
    ]);
    // The agent's own environment may set it.
    let run = run.env("MOENET_STATE_DIR", &config.state.directory);
    let set = |name| Some((name, std::env::var_os(name)?));
    let set = ENVIRONMENT.into_iter().filter_map(set);
    let run = set.fold(run, |run, (name, value)| run.env(name, value));
    run.args(&request.arguments).stream()
}

/// Sends the output of a verb as it comes, then its exit code.
async fn answer(mut child: Child, write: &mut OwnedWriteHalf) {
    let (parts, mut lines) = mpsc::channel(LINES);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let both = async {
        tokio::join!(
            copy(out.map(BufReader::new), parts.clone(), ReadPart::Out),
            copy(err.map(BufReader::new), parts.clone(), ReadPart::Err),
        );
        drop(parts);
    };
    let sent = async {
        while let Some(part) = lines.recv().await {
            send(write, &part).await?;
        }
        Some(write)
    };
    let (sent, ()) = tokio::join!(sent, both);
    if let (Some(write), Ok(status)) = (sent, child.wait().await) {
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        send(write, &ReadPart::Code(code.unwrap_or(1))).await;
    }
}

async fn copy(
    pipe: Option<impl AsyncBufRead + Unpin>,
    parts: mpsc::Sender<ReadPart>,
    part: fn(String) -> ReadPart,
) {
    let Some(mut pipe) = pipe else { return };
    let mut line = Vec::new();
    while matches!(pipe.read_until(b'\n', &mut line).await, Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
        if parts.send(part(text)).await.is_err() {
            return;
        }
        line.clear();
    }
}

/// Sends a part as one line. `None`: the client is gone, or does not read.
async fn send(write: &mut OwnedWriteHalf, part: &ReadPart) -> Option<()> {
    let mut line = serde_json::to_vec(part).ok()?;
    line.push(b'\n');
    timeout(HTTP_BODY, write.write_all(&line)).await.ok()?.ok()
}

async fn refuse(write: &mut OwnedWriteHalf, why: &str) {
    for part in [ReadPart::Err(format!("error: {why}")), ReadPart::Code(1)] {
        send(write, &part).await;
    }
}

/// Waits until the client closes its connection.
async fn hangs_up(read: &mut BufReader<OwnedReadHalf>) {
    let mut more = [0; 64];
    while matches!(read.read(&mut more).await, Ok(1..)) {}
}
