use std::future::Future;
use std::net::IpAddr;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::state::Due;
use super::{Lookup, ResolveError, ResolverSettings, Shared, candidates};
use crate::intervals::LOOKUP_GRACE;

/// Number of concurrent lookups of names that reached the deadline last time.
const HANGING: usize = 4;

/// Looks names up when they are due, until it is aborted.
pub(super) async fn run(shared: Arc<Shared>, lookup: Arc<dyn Lookup>, settings: ResolverSettings) {
    let lanes = Lanes {
        quick: Arc::new(Semaphore::new(settings.concurrency.max(1))),
        hanging: Arc::new(Semaphore::new(HANGING)),
    };
    let mut running = JoinSet::new();
    loop {
        for due in shared.state.lock().take_due(Instant::now()) {
            let (lookup, lane) = (Arc::clone(&lookup), lanes.of(&due));
            running.spawn(async move {
                (
                    due.name.clone(),
                    one(&*lookup, due, lane, settings.deadline).await,
                )
            });
        }
        let next = shared.state.lock().next_due();
        tokio::select! {
            () = shared.wake.notified() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            Some(ended) = running.join_next() => {
                // A lookup is never cancelled; its panic is this task's.
                let (name, answer) = ended.unwrap_or_else(|error| resume_unwind(error.into_panic()));
                record(&shared, &name, answer, settings.interval);
            }
        }
    }
}

fn record(
    shared: &Shared,
    name: &str,
    answer: Result<Vec<IpAddr>, ResolveError>,
    interval: Duration,
) {
    if let Err(error) = &answer {
        tracing::debug!(name, %error, "endpoint name not resolved");
    }
    let jittered = interval.mul_f64(rand::rng().random_range(0.9..1.1));
    if shared
        .state
        .lock()
        .record(name, answer, (Instant::now(), Timestamp::now()), jittered)
    {
        shared.changed.notify_one();
    }
}

struct Lanes {
    quick: Arc<Semaphore>,
    hanging: Arc<Semaphore>,
}

/// The queue in which a lookup waits, and whether a slow lookup lets others start.
struct Lane(Arc<Semaphore>, bool);

impl Lanes {
    fn of(&self, due: &Due) -> Lane {
        if due.hangs {
            Lane(Arc::clone(&self.hanging), false)
        } else {
            Lane(Arc::clone(&self.quick), true)
        }
    }
}

async fn one(
    lookup: &dyn Lookup,
    due: Due,
    Lane(lane, lets_pass): Lane,
    deadline: Duration,
) -> Result<Vec<IpAddr>, ResolveError> {
    let name = due.name;
    // The semaphores are never closed.
    let permit = lane.acquire_owned().await.ok();
    let asked = timeout(deadline, lookup.lookup(&name));
    let answer = if lets_pass {
        release_after_grace(asked, permit).await
    } else {
        asked.await
    };
    match answer {
        Err(_) => Err(ResolveError::Deadline {
            name,
            seconds: deadline.as_secs(),
        }),
        Ok(Err(source)) => Err(ResolveError::Failed { name, source }),
        Ok(Ok(found)) => usable(name, found),
    }
}

async fn release_after_grace<T>(
    work: impl Future<Output = T>,
    permit: Option<OwnedSemaphorePermit>,
) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = sleep(LOOKUP_GRACE) => drop(permit),
    }
    work.await
}

fn usable(name: String, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, ResolveError> {
    let usable = candidates(found.iter().copied());
    if usable.is_empty() {
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        return Err(ResolveError::Unusable {
            name,
            found: found.join(", "),
        });
    }
    Ok(usable)
}
