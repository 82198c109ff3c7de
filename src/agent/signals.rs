//! The signals that the agent hears: SIGTERM and SIGINT stop it, SIGHUP reloads its configuration.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals, heard from the moment this exists: a SIGHUP never ends the process.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// An orderly end.
    Stop,
    /// The configuration is to be read again.
    Reload,
}

impl Signals {
    /// Hears signals from now on. To be called inside of a tokio runtime.
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

    /// Waits until the agent is to stop. Before it has started there is nothing to reload.
    pub(super) async fn stopped(&mut self) {
        while self.next().await != Asked::Stop {}
    }

    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}
