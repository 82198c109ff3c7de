//! The agent's long-lived tasks. Each has a name and runs until the agent stops. A task that panics
//! or ends early would leave the agent partly working, so its end is logged and ends the process,
//! and systemd restarts it.
//!
//! Such a task is responsible for its own children: it waits for their result, or propagates their panic.

use crate::intervals::TASK_FAULT;

use std::any::Any;
use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{debug, error, warn};

/// The running tasks.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    names: BTreeMap<Id, &'static str>,
}

/// The end of a task.
#[derive(Debug)]
pub(super) struct Ended {
    name: &'static str,
    panic: Option<String>,
}

impl Tasks {
    /// Starts a task that runs until the agent stops.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn_boxed(name, Box::pin(work));
    }

    /// Boxed, so that the runtime's code is compiled once.
    fn spawn_boxed(&mut self, name: &'static str, mut work: BoxFuture<'static, ()>) {
        debug!(task = name, "task started");
        let task = self.set.spawn(async move {
            // Borrowed, so that a task that hangs keeps what it holds.
            tokio::select! {
                () = &mut work => {}
                hangs = fault_for_a_test(name) => if hangs {
                    std::future::pending().await
                }
            }
        });
        self.names.insert(task.id(), name);
    }

    /// Waits until a task ends. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Ended {
        match self.set.join_next_with_id().await {
            Some(Ok((id, ()))) => self.forget(id, None),
            Some(Err(error)) => self.forget(error.id(), panic_of(error)),
            None => std::future::pending().await,
        }
    }

    /// Waits until these tasks have ended, at most `limit`.
    pub(super) async fn drain(&mut self, names: &[&str], limit: Duration) {
        let until = Instant::now() + limit;
        while self.names.values().any(|name| names.contains(name)) {
            match tokio::time::timeout_at(until, self.ended()).await {
                Ok(ended) => ended.log_panic(),
                Err(_) => {
                    let left: Vec<_> = self.names.values().filter(|n| names.contains(n)).collect();
                    warn!(tasks = ?left, "tasks did not stop in time; the next start finishes their work");
                    return;
                }
            }
        }
    }

    fn forget(&mut self, id: Id, panic: Option<String>) -> Ended {
        let name = self.names.remove(&id).unwrap_or("unknown");
        Ended { name, panic }
    }
}

impl Ended {
    pub(super) fn log(&self) {
        let panic = self.panic.as_deref();
        error!(
            task = self.name,
            panic, "task ended early; exiting for a restart by systemd, please report this"
        );
    }

    fn log_panic(&self) {
        if let Some(panic) = &self.panic {
            error!(
                task = self.name,
                panic, "task panicked while the agent stopped"
            );
        }
    }
}

fn panic_of(error: JoinError) -> Option<String> {
    let panic = error.try_into_panic().ok()?;
    Some(message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// In a debug build, `MOENET_AGENT_END_TASK=NAME` makes the task of that name panic a second after
/// its start, `NAME:return` makes it end, and `NAME:hang` makes it do nothing from then on. Returns whether to hang.
async fn fault_for_a_test(name: &str) -> bool {
    let asked = std::env::var("MOENET_AGENT_END_TASK").unwrap_or_default();
    let (task, way) = asked.split_once(':').unwrap_or((&asked, "panic"));
    if !cfg!(debug_assertions) || task != name {
        return std::future::pending().await;
    }
    tokio::time::sleep(TASK_FAULT).await;
    if way == "hang" {
        warn!(task = name, "task hangs, as MOENET_AGENT_END_TASK asks");
        return true;
    }
    assert!(way == "return", "asked for by MOENET_AGENT_END_TASK");
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_task_has_its_name_and_cause() {
        let mut tasks = Tasks::default();
        tasks.spawn("runs on", std::future::pending());
        tasks.spawn("panics", async { panic!("a fault") });
        let ended = tasks.ended().await;
        assert_eq!(
            (ended.name, ended.panic.as_deref()),
            ("panics", Some("a fault"))
        );
        tasks.spawn("returns", async {});
        let ended = tasks.ended().await;
        assert_eq!((ended.name, ended.panic), ("returns", None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_its_tasks_and_not_for_ever() {
        let mut tasks = Tasks::default();
        tasks.spawn("other", std::future::pending());
        tasks.spawn("quick", tokio::time::sleep(Duration::from_secs(2)));
        let began = Instant::now();
        tasks.drain(&["quick"], Duration::from_secs(20)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        tasks.spawn("hangs", std::future::pending());
        tasks.drain(&["hangs"], Duration::from_secs(20)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(22));
    }
}
