//! `/events`: changes of objects' phases as server-sent events.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use schemars::JsonSchema;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::view::PhaseChange;
use super::{AgentApi, ApiError};
use crate::intervals::{EVENTS_ALIVE, EVENTS_APART};

/// Maximum number of streams at once: each holds a connection.
const STREAMS: usize = 16;

/// One event, as a client reads it.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what the framework writes")]
pub(super) struct StreamEvent {
    /// `ready` or `object`.
    event: String,
    /// JSON: of `ready` the phase of each object, of `object` the object and its phase.
    data: String,
}

/// The streams in progress.
pub(super) struct Streams(Arc<Semaphore>);

impl Streams {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS)))
    }

    /// Begins a stream: the event `ready` with every phase, then an event `object` for each change.
    pub(super) fn open(&self, agent: Arc<dyn AgentApi>) -> Result<Response, ApiError> {
        let seat = Arc::clone(&self.0).try_acquire_owned();
        let seat = seat.map_err(|_| ApiError::rate_limited(EVENTS_ALIVE))?;
        let follower = Follower {
            changes: agent.changes(),
            known: agent.phases(),
            agent,
            waiting: Vec::new(),
            _seat: seat,
        };
        let ready = Event::default().event("ready").json_data(&follower.known);
        let ready = ready.map_err(|error| ApiError::internal(error.to_string()))?;
        let ready = stream::once(async { Ok(ready) });
        let events = stream::StreamExt::chain(ready, follower.events());
        let alive = KeepAlive::new().interval(EVENTS_ALIVE);
        Ok(Sse::new(events).keep_alive(alive).into_response())
    }
}

/// One client's position.
struct Follower {
    agent: Arc<dyn AgentApi>,
    changes: watch::Receiver<u64>,
    /// The phases that the client knows.
    known: BTreeMap<String, String>,
    /// Changes that are not sent yet, the next one at the end.
    waiting: Vec<PhaseChange>,
    _seat: OwnedSemaphorePermit,
}

impl Follower {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut follower| async {
            let change = follower.next().await?;
            let event = Event::default().event("object").json_data(&change).ok()?;
            Some((Ok(event), follower))
        })
    }

    /// Waits for the next change.
    async fn next(&mut self) -> Option<PhaseChange> {
        while self.waiting.is_empty() {
            self.changes.changed().await.ok()?;
            let now = self.agent.phases();
            self.waiting = changes(&self.known, &now);
            self.waiting.reverse();
            self.known = now;
            // A thousand changes of a start are compared a few times, and not once each.
            if self.waiting.is_empty() {
                tokio::time::sleep(EVENTS_APART).await;
            }
        }
        self.waiting.pop()
    }
}

/// Returns the differences between two moments.
fn changes(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<PhaseChange> {
    let gone = before.keys().filter(|object| !now.contains_key(*object));
    let gone = gone.map(|object| (object, None));
    let other = now
        .iter()
        .filter(|(object, phase)| before.get(*object) != Some(*phase));
    let other = other.map(|(object, phase)| (object, Some(phase.clone())));
    let change = |(object, phase): (&String, Option<String>)| PhaseChange {
        object: object.clone(),
        phase,
    };
    gone.chain(other).map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phases(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(object, phase): &(&str, &str)| ((*object).to_owned(), (*phase).to_owned());
        all.iter().map(owned).collect()
    }

    #[test]
    fn only_differences_are_changes() {
        let before = phases(&[
            ("node", "Configured"),
            ("sessions/a", "Configured"),
            ("sessions/b", "Error"),
        ]);
        let now = phases(&[
            ("node", "Configured"),
            ("sessions/a", "Established"),
            ("sessions/c", "Pending"),
        ]);
        let change = |object: &str, phase: Option<&str>| PhaseChange {
            object: object.to_owned(),
            phase: phase.map(str::to_owned),
        };
        let wanted = [
            change("sessions/b", None),
            change("sessions/a", Some("Established")),
            change("sessions/c", Some("Pending")),
        ];
        assert_eq!(changes(&before, &now), wanted);
        assert!(changes(&now, &now).is_empty());
    }
}
