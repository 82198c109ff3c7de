use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::observed::bird::framing::FramingError;

/// Reason for a failed command.
#[derive(Debug, thiserror::Error)]
pub enum BirdError {
    /// No process listens: BIRD is stopped, or died during its start.
    #[error("BIRD is not running ({})", .socket.display())]
    NotRunning {
        socket: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// BIRD accepted the connection, or should have, and then did not answer.
    #[error(
        "BIRD did not answer `{command}` within {deadline:?}: it hangs or is overloaded; see its log"
    )]
    Timeout {
        /// The request line.
        command: String,
        deadline: Duration,
    },
    /// The connection failed for another reason.
    #[error("cannot send `{command}` to BIRD at {}: may this user open the socket (group bird)?", .socket.display())]
    Io {
        /// The request line.
        command: String,
        socket: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The peer does not speak BIRD's protocol.
    #[error("BIRD's answer to `{command}` cannot be read")]
    Framing {
        /// The request line.
        command: String,
        source: FramingError,
    },
    #[error("BIRD refused `{command}`: {text} (code {code})")]
    Refused {
        /// The request line.
        command: String,
        /// BIRD's code: 8xxx or 9xxx.
        code: u16,
        /// BIRD's message.
        text: String,
    },
    /// BIRD answered in an unexpected way, such as without the requested value.
    #[error("BIRD's answer to `{command}` is unknown: {text:?}; is the version supported?")]
    Unexpected {
        /// The request line.
        command: String,
        /// BIRD's message.
        text: String,
    },
}

impl BirdError {
    /// Returns whether no process listens on the socket.
    pub fn is_not_running(&self) -> bool {
        matches!(self, Self::NotRunning { .. })
    }

    /// Returns whether BIRD understood the command and refused it.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}
