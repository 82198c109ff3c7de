//! Client of the read socket: runs a verb through the agent for a user who cannot read its files.

use std::io::{ErrorKind, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{Arguments, block_on, is_denied, is_root, output};
use crate::agent::{ReadPart, ReadRequest};
use crate::config::{ConfigError, READ_GROUP, READ_SOCKET};
use crate::util::fs;

/// Names the socket where the configuration cannot be read.
const SOCKET: &str = "MOENET_READ_SOCKET";

/// Whether a verb ran through the agent.
pub(super) enum Through {
    /// It ran, and ended with this code.
    Ran(ExitCode),
    /// This process has to run it.
    Own,
}

/// Runs a verb through the agent, if it only reads, and this user cannot read what it needs.
pub(super) fn through_agent(arguments: &Arguments) -> Through {
    if !arguments.verb.reads() || is_root() {
        return Through::Own;
    }
    let Some(path) = socket(arguments) else {
        return Through::Own;
    };
    let ran = block_on(async move {
        // The verb's own error says more, with the note on the group.
        match UnixStream::connect(&path).await {
            Ok(stream) if is_agent(&stream) => Ok(Through::Ran(converse(stream).await?)),
            _ => Ok(Through::Own),
        }
    });
    ran.unwrap_or_else(|error| {
        output::error(&error.context("the agent did not end its answer"), None);
        Through::Ran(ExitCode::FAILURE)
    })
}

/// Returns the socket, unless this user can read everything.
fn socket(arguments: &Arguments) -> Option<PathBuf> {
    let named = || std::env::var_os(SOCKET).map_or_else(|| READ_SOCKET.into(), PathBuf::from);
    match arguments.load() {
        Ok(config) => {
            let denied = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
            let listed = fs::read_dir(&config.state.directory);
            listed
                .is_err_and(denied)
                .then_some(config.server.read_socket)
        }
        // A folder that this user may not enter hides the file.
        Err(error) => (is_denied(&error) || is_missing(&error)).then(named),
    }
}

/// Returns whether root listens: a file in the current folder may name any socket.
fn is_agent(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0)
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ConfigError::NotFound))
}

async fn converse(mut stream: UnixStream) -> anyhow::Result<ExitCode> {
    let request = ReadRequest {
        arguments: std::env::args().skip(1).collect(),
        colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            ReadPart::Out(text) => output::passed_on(&text),
            ReadPart::Err(text) => output::passed_on_error(&text),
            ReadPart::Code(code) => {
                output::finish()?;
                return Ok(code.into());
            }
        }
        if output::is_closed() {
            return Ok(ExitCode::SUCCESS);
        }
    }
    Err(std::io::Error::from(ErrorKind::UnexpectedEof).into())
}

/// Returns what a user without permission can do.
pub(super) fn denied(arguments: &Arguments) -> String {
    match arguments.verb.reads() {
        true => format!(
            "root may read everything, and members of the group {READ_GROUP} through the running agent: \
             `sudo usermod -aG {READ_GROUP} USER` and log in again, or try again with sudo"
        ),
        false => "only root, or the agent's user, may do this: try again with sudo".to_owned(),
    }
}
