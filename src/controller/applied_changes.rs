//! Applied changes as causes of the history: one commit for each cause. Routing never waits for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::context::{AppliedChange, Context};
use super::conveniences::Convenience;
use crate::document::ConditionType;
use crate::history::{Author, Cause, Contents, HistoryHandle, Paths, Recording};
use crate::intervals::{ONCE_COMMITS, STEPS_AROUND, STEPS_GATHER, STOP_COMMITS};
use crate::model::ObjectKey;
use crate::util::sorted::Sorted as _;

/// Records applied changes until the agent stops. Retries an unwritable repository without delaying anything else.
pub async fn record_changes(
    context: Arc<Context>,
    entries: UnboundedReceiver<AppliedChange>,
    recording: Recording,
    stop: CancellationToken,
) {
    tokio::select! {
        () = health(&context, &recording.handle) => {}
        () = gather(entries, &recording.handle, &stop) => {}
    }
    // A full disk must not keep the agent from stopping.
    recording.end(STOP_COMMITS).await;
}

/// Records the changes that one pass applied.
pub async fn record_pass(mut entries: UnboundedReceiver<AppliedChange>, recording: Recording) {
    let batch: Vec<_> = std::iter::from_fn(|| entries.try_recv().ok()).collect();
    record(&recording.handle, &batch);
    let health = recording.handle.health();
    if !recording.end(ONCE_COMMITS).await {
        let why = health
            .borrow()
            .clone()
            .unwrap_or_else(|| "git is slow".to_owned());
        warn!(
            error = why,
            "the history is behind; the next start catches up"
        );
    }
}

/// Groups applied changes into causes until the agent stops.
async fn gather(
    mut entries: UnboundedReceiver<AppliedChange>,
    handle: &HistoryHandle,
    stop: &CancellationToken,
) {
    let mut around = Around::default();
    loop {
        let entry = tokio::select! {
            entry = entries.recv() => entry,
            () = stop.cancelled() => break,
        };
        let Some(entry) = entry else { break };
        let mut batch = vec![entry];
        tokio::time::sleep(STEPS_GATHER).await;
        while let Ok(entry) = entries.try_recv() {
            batch.push(entry);
        }
        around.record(handle, batch);
    }
    let rest: Vec<_> = std::iter::from_fn(|| entries.try_recv().ok()).collect();
    around.record(handle, rest);
}

/// Steps that changed no file by themselves, with their times.
#[derive(Default)]
struct Around(Vec<(Instant, AppliedChange)>);

impl Around {
    /// Records a batch, with the steps just before it. A batch that applies nothing new is not a
    /// cause: the log and the status show a repaired drift.
    fn record(&mut self, handle: &HistoryHandle, batch: Vec<AppliedChange>) {
        let now = Instant::now();
        self.0
            .retain(|(at, _)| now.duration_since(*at) < STEPS_AROUND);
        self.0.extend(batch.into_iter().map(|entry| (now, entry)));
        if self.0.iter().any(|(_, entry)| !entry.files.is_empty()) {
            let all: Vec<_> = self.0.drain(..).map(|(_, entry)| entry).collect();
            record(handle, &all);
        }
    }
}

/// Keeps the condition `HistoryRecorded` current.
async fn health(context: &Context, handle: &HistoryHandle) {
    let mut health = handle.health();
    loop {
        let problem = health.borrow_and_update().clone();
        let is = match problem {
            None => Convenience::works("Committed"),
            Some(why) => Convenience::fails("Failed", why),
        };
        context.conveniences.set(ConditionType::HistoryRecorded, is);
        context.hint(ObjectKey::Router);
        if health.changed().await.is_err() {
            return;
        }
    }
}

/// Records one apply: its diff is exactly the applied change, and its message lists every step.
fn record(handle: &HistoryHandle, batch: &[AppliedChange]) {
    let new = batch.iter().filter(|entry| !entry.files.is_empty());
    let objects: BTreeSet<String> = new.map(|entry| entry.key.to_string()).sorted_set();
    let subject = match (objects.first(), objects.last()) {
        (Some(one), Some(last)) if one == last => format!("Apply {one}"),
        (Some(first), Some(last)) => format!("Apply {} objects, {first} to {last}", objects.len()),
        _ => return,
    };
    let lines = batch
        .iter()
        .flat_map(|entry| entry.steps.iter().map(|step| (&entry.key, step)));
    let body = lines.map(|(key, step)| format!("{key}: {step}"));
    let files = batch.iter().flat_map(|entry| &entry.files);
    let contents: Contents = files
        .map(|(place, text)| {
            (
                place.relative(),
                text.as_ref().map(|text| text.as_bytes().to_vec()),
            )
        })
        .sorted_map();
    let body = body.collect();
    handle.record(Cause {
        author: Author::Agent,
        paths: Paths::Exactly(contents),
        subject,
        body,
    });
}
