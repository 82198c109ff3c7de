//! Messages to the service manager: sd_notify(3), as a unit of `Type=notify` with `WatchdogSec=` expects them.
//!
//! The agent is ready once its controller has finished a first run and the local API has tried to listen: what a
//! start needs from the machine was there, and commands can be answered. BIRD, the Control Plane and established
//! sessions do not delay it, since a unit that waits for a neighbour would fail with it.
//!
//! Only progress of the controller feeds the watchdog: a long check of many files is no reason for a restart, and a
//! controller that hangs has no other remedy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::controller::Context;
use crate::document::{ConditionType, Kind, Phase};
use crate::intervals::{SERVICE_MESSAGE, SERVICE_READY_POLL, SERVICE_STATUS};
use crate::model::ObjectKey;
use crate::telemetry::chain;
use crate::util::task::blocking;

/// The service manager, if there is one: `NOTIFY_SOCKET` names its socket.
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    is_ready: AtomicBool,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Message {
    Ready,
    Reloading,
    Stopping,
    Alive,
    Status(String),
}

impl ServiceManager {
    /// Reports that the agent is ready, then its counts and its progress, until the agent stops.
    pub(super) async fn run(self: Arc<Self>, context: Arc<Context>, stop: CancellationToken) {
        if !is_there() {
            return stop.cancelled().await;
        }
        tokio::select! {
            () = self.report(&context) => {}
            () = stop.cancelled() => {}
        }
    }

    async fn report(&self, context: &Context) {
        while !is_started(context) {
            sleep(SERVICE_READY_POLL).await;
        }
        let interval = interval(sd_notify::watchdog_enabled());
        let (mut feed, mut sent) = (Feed::default(), String::new());
        loop {
            let mut messages = Vec::new();
            if !self.is_ready.swap(true, Ordering::Relaxed) {
                messages.push(Message::Ready);
            }
            if feed.is_due(context.pulse.progress()) {
                messages.push(Message::Alive);
            }
            let status = Counts::of(context).to_string();
            if sent != status {
                sent.clone_from(&status);
                messages.push(Message::Status(status));
            }
            send(messages).await;
            sleep(interval).await;
        }
    }

    /// Reports an agent that is ready and waits, for as long as it waits; never ends.
    pub(super) async fn waits(&self, status: String) {
        let mut messages = vec![Message::Ready, Message::Status(status)];
        self.is_ready.store(true, Ordering::Relaxed);
        let interval = interval(sd_notify::watchdog_enabled());
        loop {
            messages.push(Message::Alive);
            send(std::mem::take(&mut messages)).await;
            sleep(interval).await;
        }
    }

    /// Reports that a reload begins. Before the agent is ready, a reload is a part of its start.
    pub(super) async fn reloading(&self) {
        if self.is_ready.load(Ordering::Relaxed) {
            send(vec![Message::Reloading]).await;
        }
    }

    /// Reports that a reload is over.
    pub(super) async fn reloaded(&self) {
        if self.is_ready.load(Ordering::Relaxed) {
            send(vec![Message::Ready]).await;
        }
    }

    /// Reports that the agent stops.
    pub(super) async fn stopping(&self) {
        let status = "stopping; tunnels and BGP sessions stay as they are";
        send(vec![Message::Stopping, Message::Status(status.to_owned())]).await;
    }
}

fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Returns whether a first run has ended, and the local API has tried to listen.
fn is_started(context: &Context) -> bool {
    let known = context.conveniences.all();
    context.pulse.has_run() && known.contains_key(&ConditionType::ApiListening)
}

/// Returns the interval between two messages: the watchdog's time has four of them.
fn interval(watchdog: Option<Duration>) -> Duration {
    watchdog.map_or(SERVICE_STATUS, |limit| SERVICE_STATUS.min(limit / 4))
}

/// The last progress for which the watchdog was fed.
#[derive(Debug, Default)]
struct Feed(Option<Instant>);

impl Feed {
    /// Returns whether there is progress since the last call.
    fn is_due(&mut self, progress: Instant) -> bool {
        self.0.replace(progress) != Some(progress)
    }
}

/// The counts that `systemctl status` shows.
#[derive(Debug, Default)]
struct Counts {
    sessions: usize,
    established: usize,
    errors: usize,
    held: usize,
    is_drained: bool,
    is_bird_down: bool,
}

impl Counts {
    fn of(context: &Context) -> Self {
        let mut counts = Self {
            held: context.held().len(),
            is_drained: context.desired().maintenance.enabled,
            is_bird_down: context.observer.last_bird().down.is_some(),
            ..Self::default()
        };
        for (key, phase) in context.statuses.phases() {
            counts.errors += usize::from(phase == Phase::Error);
            if matches!(key, ObjectKey::Named(Kind::BgpSession, _)) {
                counts.sessions += 1;
                counts.established += usize::from(phase == Phase::Established);
            }
        }
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            sessions,
            established,
            ..
        } = self;
        write!(f, "{established} of {sessions} sessions Established")?;
        for (count, what) in [(self.errors, "in error"), (self.held, "held for approval")] {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        if self.is_drained {
            f.write_str("; drained")?;
        }
        if self.is_bird_down {
            f.write_str("; BIRD does not answer")?;
        }
        Ok(())
    }
}

/// Sends messages as one datagram. A service manager that does not take it delays nothing.
async fn send(messages: Vec<Message>) {
    if messages.is_empty() || !is_there() {
        return;
    }
    let sent = timeout(SERVICE_MESSAGE, blocking(move || write(&messages))).await;
    match sent {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(
            error = chain(&error),
            "message to the service manager not sent; without it the watchdog of the unit restarts the agent"
        ),
        Err(_) => {
            warn!("the service manager does not take messages; its watchdog may restart the agent")
        }
    }
}

fn write(messages: &[Message]) -> std::io::Result<()> {
    let mut states = Vec::new();
    for message in messages {
        match message {
            Message::Ready => states.push(NotifyState::Ready),
            Message::Reloading => {
                states.push(NotifyState::Reloading);
                states.push(NotifyState::monotonic_usec_now()?);
            }
            Message::Stopping => states.push(NotifyState::Stopping),
            Message::Alive => states.push(NotifyState::Watchdog),
            Message::Status(text) => states.push(NotifyState::Status(text)),
        }
    }
    sd_notify::notify(&states)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_progress_feeds_the_watchdog() {
        let (pulse, mut feed) = (crate::controller::Pulse::default(), Feed::default());
        assert!(feed.is_due(pulse.progress()), "the start");
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(!feed.is_due(pulse.progress()), "time alone");
        pulse.tick();
        assert!(feed.is_due(pulse.progress()));
        assert!(!feed.is_due(pulse.progress()), "the same progress");
    }

    #[test]
    fn watchdog_limit_holds_four_messages() {
        let seconds = Duration::from_secs;
        assert_eq!(interval(None), SERVICE_STATUS);
        assert_eq!(interval(Some(seconds(180))), SERVICE_STATUS);
        assert_eq!(interval(Some(seconds(8))), seconds(2));
    }

    #[test]
    fn status_counts_sessions_and_names_what_needs_an_operator() {
        let counts = Counts {
            sessions: 14,
            established: 12,
            ..Counts::default()
        };
        assert_eq!(counts.to_string(), "12 of 14 sessions Established");
        let counts = Counts {
            errors: 1,
            held: 2,
            is_drained: true,
            is_bird_down: true,
            ..counts
        };
        let rest = "1 in error; 2 held for approval; drained; BIRD does not answer";
        assert_eq!(
            counts.to_string(),
            format!("12 of 14 sessions Established; {rest}")
        );
    }
}
