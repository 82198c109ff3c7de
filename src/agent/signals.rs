//! Signals of the agent: SIGTERM and SIGINT stop it, SIGHUP reloads its configuration.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signal handlers, installed as long as this value exists: a SIGHUP never ends the process.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// The action that a signal requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// An orderly shutdown.
    Stop,
    Reload,
}

impl Signals {
    /// Installs the handlers. Requires a tokio runtime.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a stop signal. Before the agent has started there is nothing to reload.
    pub(super) async fn stopped(&mut self) {
        while self.next().await != Asked::Stop {}
    }

    /// Waits for any signal: a command that is no daemon ends with its terminal too.
    pub(crate) async fn ended(&mut self) {
        self.next().await;
    }

    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}
