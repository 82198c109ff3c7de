//! Does what many tasks ask for at about the same time together: a thousand small writes cost few changes of threads, and
//! become durable with few flushes.

use parking_lot::Mutex as Lock;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, sleep};

use crate::intervals::{TOGETHER_GATHER, TOGETHER_GATHER_MAX};

/// Requests that are answered together, each with the task that waits for its answer.
#[derive(Debug)]
pub(super) struct Group<T, A>(Vec<(T, oneshot::Sender<A>)>);

impl<T, A> Group<T, A> {
    /// Takes the requests, and what answers each.
    pub(super) fn split(self) -> (Vec<T>, Vec<oneshot::Sender<A>>) {
        self.0.into_iter().unzip()
    }
}

/// Requests of one kind that wait.
#[derive(Debug)]
pub struct Together<T, A> {
    waiting: Lock<Vec<(T, oneshot::Sender<A>)>>,
    turn: Mutex<()>,
}

impl<T, A> Default for Together<T, A> {
    fn default() -> Self {
        Self {
            waiting: Lock::default(),
            turn: Mutex::default(),
        }
    }
}

impl<T, A> Together<T, A> {
    /// Adds a request, and waits for its answer. Of those that wait, the first gathers and calls `work` with the whole
    /// group, which answers each. `None`: it did not.
    pub(super) async fn ask<F: Future>(
        &self,
        request: T,
        work: impl FnOnce(Group<T, A>) -> F,
    ) -> Option<A> {
        let (reply, mut answer) = oneshot::channel();
        self.waiting.lock().push((request, reply));
        let turn = self.turn.lock().await;
        if let Ok(answer) = answer.try_recv() {
            return Some(answer);
        }
        self.gather().await;
        let group = std::mem::take(&mut *self.waiting.lock());
        work(Group(group)).await;
        drop(turn);
        answer.await.ok()
    }

    /// Waits until no more requests come.
    async fn gather(&self) {
        let (begun, mut before) = (Instant::now(), 0);
        loop {
            let waiting = self.waiting.lock().len();
            if waiting == before || begun.elapsed() >= TOGETHER_GATHER_MAX {
                return;
            }
            before = waiting;
            sleep(TOGETHER_GATHER).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_of_one_moment_are_answered_together() {
        let (together, groups) = (Together::default(), Cell::new(0));
        let double = |group: Group<u32, u32>| {
            groups.set(groups.get() + 1);
            let (requests, replies) = group.split();
            for (request, reply) in requests.into_iter().zip(replies) {
                let _ = reply.send(request * 2);
            }
            std::future::ready(())
        };
        let answers = join_all((0..100).map(|request| together.ask(request, double))).await;
        assert_eq!(answers, (0..100).map(|it| Some(it * 2)).collect::<Vec<_>>());
        assert_eq!(groups.get(), 1);
        assert_eq!(together.ask(7, double).await, Some(14));
    }

    #[tokio::test(start_paused = true)]
    async fn request_without_an_answer_ends() {
        let together = Together::<u32, u32>::default();
        let forget = |group: Group<u32, u32>| async { drop(group) };
        assert_eq!(together.ask(1, forget).await, None);
    }
}
