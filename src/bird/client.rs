//! Client of BIRD's control socket: one connection per command, and a deadline for every operation.
//!
//! One connection per command, because BIRD 3 answers some commands with two replies, and a client
//! that reuses the connection reads the second one as the answer to its next command (measured).

mod protocols;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::command::Command;
use super::counters::BirdCounters;
use super::pace::Pace;
use crate::intervals::{BIRD_BACKLOG_POLL, BIRD_COMMAND};
use crate::model::RoaTable;
use crate::observed::bird::framing::{Decoder, FramingError};
use crate::observed::bird::{
    BirdName, ConfigureStatus, Protocol, Reply, Symbol, Version, babel, roa, status, text,
};
use crate::ports::BirdError;
use protocols::Details;

/// A client of one BIRD. Cheap to clone; clones share the counters and the last known version.
#[derive(Debug, Clone)]
pub struct Client {
    socket: Arc<Path>,
    deadline: Duration,
    /// The time of `configure`: a daemon that parses answers nothing else.
    pace: Arc<Pace>,
    counters: Arc<BirdCounters>,
    version: Arc<Mutex<Option<Version>>>,
    /// Start times of the commands that wait for an answer.
    asked: Arc<Mutex<Vec<Instant>>>,
    details: Arc<Details>,
}

/// A command in progress.
struct Asked<'a>(&'a Client, Instant);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut asked = self.0.asked.lock();
        if let Some(at) = asked.iter().position(|since| *since == self.1) {
            asked.swap_remove(at);
        }
    }
}

impl Client {
    /// Creates a client of the BIRD at this control socket (`/run/bird/bird.ctl`). Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into().into(),
            deadline: BIRD_COMMAND,
            pace: Arc::new(Pace::new(BIRD_COMMAND)),
            counters: Arc::default(),
            version: Arc::default(),
            asked: Arc::default(),
            details: Arc::default(),
        }
    }

    /// Returns the same client with another deadline for a whole command.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self {
            deadline,
            pace: Arc::new(Pace::new(deadline)),
            ..self
        }
    }

    /// Returns how long the oldest command in progress has waited for its answer.
    pub fn unanswered_for(&self) -> Option<Duration> {
        let asked = self.asked.lock();
        asked.iter().map(Instant::elapsed).max()
    }

    fn ask(&self) -> Asked<'_> {
        let now = Instant::now();
        let mut asked = self.asked.lock();
        asked.push(now);
        Asked(self, now)
    }

    /// Returns the counters of the commands so far.
    pub fn counters(&self) -> &Arc<BirdCounters> {
        &self.counters
    }

    /// Returns the version in the last greeting, if there was one.
    pub fn last_version(&self) -> Option<Version> {
        *self.version.lock()
    }

    /// Sends a command and returns the reply if it is a success.
    ///
    /// # Errors
    /// [`BirdError::Refused`] for codes 8xxx and 9xxx, and every other [`BirdError`].
    pub async fn run(&self, command: &Command) -> Result<Reply, BirdError> {
        self.run_within(command, self.pace.at_least(self.deadline))
            .await
    }

    /// Loads the configuration of this many files. The deadline follows their number and the time of the last load.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) async fn configure(&self, timeout: Duration, files: usize) -> Result<(), BirdError> {
        let (deadline, begun) = (self.pace.deadline(files), Instant::now());
        let command = Command::Configure { timeout };
        let ran = self.run_within(&command, deadline).await;
        match &ran {
            Ok(_) => self.pace.took(files, begun.elapsed()),
            Err(BirdError::Timeout { .. }) => self.pace.missed(files, deadline),
            Err(_) => {}
        }
        ran.map(drop)
    }

    /// Returns a time in which the daemon settles, at least this one.
    pub(super) fn patience(&self, least: Duration) -> Duration {
        self.pace.at_least(least)
    }

    async fn run_within(&self, command: &Command, deadline: Duration) -> Result<Reply, BirdError> {
        self.count(command);
        let _asked = self.ask();
        // The version is unknown before the greeting; this text is for errors only.
        let shown = command.text(Version::new(2, 0, 12));
        let timeout = || BirdError::Timeout {
            command: shown.clone(),
            deadline,
        };
        let conversation = tokio::time::timeout(deadline, self.converse(command, &shown)).await;
        if command.changes_protocols() {
            self.details.lock().take();
        }
        let reply = conversation.map_err(|_| timeout())??;
        if reply.is_success() {
            return Ok(reply);
        }
        Err(BirdError::Refused {
            command: shown,
            code: reply.code,
            text: reply.text,
        })
    }

    /// Returns the version of the running daemon.
    ///
    /// # Errors
    /// Any [`BirdError`].
    pub async fn version(&self) -> Result<Version, BirdError> {
        let reply = self.run(&Command::ConfigureStatus).await?;
        self.last_version()
            .ok_or_else(|| unexpected(&Command::ConfigureStatus, &reply))
    }

    /// Returns the row of every protocol, sorted by name: states only, a twentieth of the bytes.
    ///
    /// # Errors
    /// Any [`BirdError`].
    pub async fn protocol_rows(&self) -> Result<Vec<Protocol>, BirdError> {
        let reply = self.run(&Command::ShowProtocols).await?;
        Ok(crate::observed::bird::protocols::parse(&reply))
    }

    /// `configure status`.
    ///
    /// # Errors
    /// Any [`BirdError`].
    pub async fn configure_status(&self) -> Result<ConfigureStatus, BirdError> {
        let reply = self.run(&Command::ConfigureStatus).await?;
        status::parse_configure(&reply).ok_or_else(|| unexpected(&Command::ConfigureStatus, &reply))
    }

    /// Returns the value of a constant of the running configuration, or `None` if there is no such constant.
    ///
    /// # Errors
    /// Any [`BirdError`] except `Refused`: an unknown symbol is 9001 (measured).
    pub async fn eval(&self, symbol: Symbol) -> Result<Option<String>, BirdError> {
        match self.run(&Command::Eval(symbol)).await {
            Ok(reply) => Ok(reply.with_code(23).next().map(str::to_owned)),
            Err(error) if error.is_refused() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the ROAs in BIRD's tables that did not come from the agent's cached table: those of the RPKI servers and
    /// those of an operator's templates. [`MAX_REPLY`](crate::observed::bird::framing::MAX_REPLY) limits them to about 160 000 per
    /// family.
    ///
    /// # Errors
    /// Any [`BirdError`]; `Refused` if there are no such tables, or if a `configure` ran in between (8004 on 2.x).
    pub async fn roas(&self) -> Result<RoaTable, BirdError> {
        let mut table = roa::parse(&self.run(&Command::ShowRoas { ipv6: false }).await?);
        table
            .entries
            .append(&mut roa::parse(&self.run(&Command::ShowRoas { ipv6: true }).await?).entries);
        Ok(table)
    }

    /// Returns the interfaces on which Babel has a neighbour.
    ///
    /// # Errors
    /// Any [`BirdError`]; `Refused` if no Babel protocol is up.
    pub async fn babel_neighbours(&self) -> Result<BTreeSet<String>, BirdError> {
        let reply = self.run(&Command::ShowBabelNeighbours).await?;
        Ok(babel::parse(&reply))
    }

    /// Returns the routes to a network or an address, as BIRD prints them.
    ///
    /// # Errors
    /// Any [`BirdError`]; an unknown network is an empty answer.
    pub async fn routes_to(&self, net: IpNet) -> Result<Vec<String>, BirdError> {
        match self.run(&Command::ShowRoute(net)).await {
            Ok(reply) => Ok(reply.lines.into_iter().map(|(_, line)| line).collect()),
            // "Network not found"
            Err(BirdError::Refused { code: 8001, .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Restarts one protocol. The neighbour sees a Cease.
    ///
    /// # Errors
    /// Any [`BirdError`]; `Refused` (8003) if there is no such protocol.
    pub async fn restart(&self, name: BirdName) -> Result<(), BirdError> {
        self.run(&Command::Restart(name)).await.map(drop)
    }

    /// Enables one protocol. Returns whether it was disabled (0011; else 0010, measured).
    ///
    /// # Errors
    /// Any [`BirdError`]; `Refused` (8003) if there is no such protocol.
    pub async fn enable(&self, name: BirdName) -> Result<bool, BirdError> {
        let reply = self.run(&Command::Enable(name)).await?;
        Ok(reply.with_code(11).next().is_some())
    }

    /// Runs one protocol's import filters again, for instance after ROAs changed.
    ///
    /// # Errors
    /// Any [`BirdError`]; `Refused` (8003) if there is no such protocol.
    pub async fn reload_in(&self, name: BirdName) -> Result<(), BirdError> {
        self.run(&Command::ReloadIn(name)).await.map(drop)
    }

    fn count(&self, command: &Command) {
        match command {
            Command::Configure { .. } => self.counters.count_configure(),
            Command::ConfigureConfirm | Command::ConfigureUndo => {}
            Command::Enable(_) | Command::Restart(_) | Command::ReloadIn(_) => {
                self.counters.count_action();
            }
            _ => self.counters.count_read(),
        }
    }

    async fn converse(&self, command: &Command, shown: &str) -> Result<Reply, BirdError> {
        let mut stream = self.connect(shown).await?;
        let mut decoder = Decoder::new();
        // BIRD sends the greeting first, and only once it runs: it listens before it has read its configuration.
        let greeting = read_reply(&mut stream, &mut decoder).await;
        let greeting = greeting.map_err(|failure| match failure {
            ReadFailure::Io(source) if is_gone(&source) => self.not_running(source),
            failure => self.failed(shown, failure),
        })?;
        let version = Version::find(&greeting.text).filter(|_| greeting.code == 1);
        let version = version.ok_or_else(|| BirdError::Unexpected {
            command: "(greeting)".into(),
            text: text::cut(&greeting.text, 80),
        })?;
        *self.version.lock() = Some(version);
        if command.is_restricted() {
            self.restrict(&mut stream, &mut decoder).await?;
        }
        let request = format!("{}\n", command.text(version));
        stream
            .write_all(request.as_bytes())
            .await
            .map_err(|error| self.failed(shown, error.into()))?;
        read_reply(&mut stream, &mut decoder)
            .await
            .map_err(|failure| self.failed(shown, failure))
    }

    /// Gives up the right to change anything, for the rest of the connection.
    async fn restrict(
        &self,
        stream: &mut UnixStream,
        decoder: &mut Decoder,
    ) -> Result<(), BirdError> {
        const COMMAND: &str = "restrict";
        let sent = stream.write_all(format!("{COMMAND}\n").as_bytes()).await;
        sent.map_err(|error| self.failed(COMMAND, error.into()))?;
        let reply = read_reply(stream, decoder).await;
        let reply = reply.map_err(|failure| self.failed(COMMAND, failure))?;
        // "Access restricted"
        match reply.code {
            16 => Ok(()),
            code => Err(BirdError::Refused {
                command: COMMAND.into(),
                code,
                text: reply.text,
            }),
        }
    }

    /// Connects. The backlog of a busy BIRD (8) can be full, which a non-blocking connect sees as EAGAIN
    /// (measured). Because BIRD runs in that case, the client retries until the deadline.
    async fn connect(&self, shown: &str) -> Result<UnixStream, BirdError> {
        loop {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(BIRD_BACKLOG_POLL).await;
                }
                Err(error) if is_gone(&error) => return Err(self.not_running(error)),
                Err(error) => return Err(self.failed(shown, error.into())),
            }
        }
    }

    fn not_running(&self, source: io::Error) -> BirdError {
        BirdError::NotRunning {
            socket: self.socket.to_path_buf(),
            source,
        }
    }

    fn failed(&self, command: &str, failure: ReadFailure) -> BirdError {
        let command = command.to_owned();
        match failure {
            ReadFailure::Io(source) => BirdError::Io {
                command,
                socket: self.socket.to_path_buf(),
                source,
            },
            ReadFailure::Framing(source) => BirdError::Framing { command, source },
        }
    }
}

enum ReadFailure {
    Io(io::Error),
    Framing(FramingError),
}

impl From<io::Error> for ReadFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Returns whether the error means that BIRD is not running. The socket file stays when BIRD is killed, and the
/// connection is then refused. A BIRD that fails during its start has already accepted, and resets (measured).
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(
        error.kind(),
        NotFound | ConnectionRefused | ConnectionReset | UnexpectedEof
    )
}

async fn read_reply(stream: &mut UnixStream, decoder: &mut Decoder) -> Result<Reply, ReadFailure> {
    let mut chunk = vec![0; 64 * 1024];
    if let Some(reply) = decoder.take().map_err(ReadFailure::Framing)? {
        return Ok(reply);
    }
    loop {
        let length = stream.read(&mut chunk).await?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(reply) = decoder
            .push(&chunk[..length])
            .map_err(ReadFailure::Framing)?
        {
            return Ok(reply);
        }
    }
}

fn unexpected(command: &Command, reply: &Reply) -> BirdError {
    let line = reply
        .lines
        .first()
        .map_or(reply.text.as_str(), |(_, text)| text.as_str());
    BirdError::Unexpected {
        command: command.text(Version::new(2, 0, 12)),
        text: text::cut(line, 80),
    }
}
