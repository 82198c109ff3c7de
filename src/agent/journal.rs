//! What came into force, and what people did to documents, on their way into the history. One commit a
//! cause; routing never waits for it.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Parts;
use crate::controller::Entry;
use crate::document::Kind;
use crate::history::{Author, Cause, HistoryHandle, Paths};
use crate::store::{Area, Place};
use crate::telemetry::chain;

/// How long entries are gathered: what one world brought into force is one cause.
const GATHER: Duration = Duration::from_millis(500);

/// Records what comes into force until the agent stops. A repository that cannot be opened is tried again
/// with the next entry, and holds nothing up.
pub(super) async fn run(parts: Arc<Parts>, stop: CancellationToken) {
    match crate::history::History::open(parts.context.store.dir()).await {
        Ok(_) => parts.history_problem(None),
        Err(error) => {
            warn!(error = %chain(&error), "the history cannot be written; routing goes on");
            parts.history_problem(Some(chain(&error)));
        }
    }
    let (handle, task) = Arc::clone(&parts.history).start();
    *parts.recorder.lock().await = Some(handle.clone());
    leftovers(&parts).await;
    parts.journal_ready.notify_one();
    let mut entries = parts.journal.lock().await;
    loop {
        let entry = tokio::select! {
            entry = entries.recv() => entry,
            () = stop.cancelled() => break,
        };
        let Some(entry) = entry else { break };
        let mut batch = vec![entry];
        tokio::time::sleep(GATHER).await;
        while let Ok(entry) = entries.try_recv() {
            batch.push(entry);
        }
        record(&handle, &batch);
        parts.history_problem(handle.health().borrow().clone());
    }
    while let Ok(entry) = entries.try_recv() {
        record(&handle, &[entry]);
    }
    // A full disk must not keep the agent from stopping.
    let _ = tokio::time::timeout(Duration::from_secs(5), handle.flush()).await;
    handle.close();
    task.abort();
}

fn record(handle: &HistoryHandle, batch: &[Entry]) {
    let names: Vec<_> = batch.iter().map(|entry| entry.name.to_string()).collect();
    let subject = match names.as_slice() {
        [one] => format!("Apply {one}"),
        [first, .., last] => format!("Apply {} objects, {first} to {last}", names.len()),
        [] => return,
    };
    let body =
        batch.iter().flat_map(|entry| entry.steps.iter().map(|step| format!("{}: {step}", entry.name)));
    handle.record(Cause {
        author: Author::Agent,
        paths: batch.iter().map(|entry| place(entry.kind, entry)).collect(),
        subject,
        body: body.collect(),
    });
}

fn place(kind: Kind, entry: &Entry) -> Place {
    if kind.is_single() {
        Place::single(Area::Applied, kind)
    } else {
        Place::new(Area::Applied, kind, &entry.name)
    }
}

/// Records everything that a cause changed in documents.
pub(super) async fn record_documents(
    parts: &Parts,
    author: Author,
    subject: &str,
    body: Vec<String>,
    places: Vec<Place>,
) {
    let cause = Cause { author, paths: places.into_iter().collect(), subject: subject.to_owned(), body };
    if let Some(handle) = &*parts.recorder.lock().await {
        handle.record(cause);
    }
}

/// Records what people changed: documents of their own, overrides, maintenance. What the sync wrote is in
/// the history by then, so that nothing of it is left to be an edit.
pub(super) async fn edits(parts: &Parts, places: &BTreeSet<Place>) {
    let _synced = parts.syncing.lock().await;
    for place in places {
        let owner =
            std::fs::symlink_metadata(parts.context.store.path(place)).map(|file| file.uid()).unwrap_or(0);
        let subject = format!("Edit {}", place.relative().display());
        record_documents(parts, Author::operator(owner), &subject, Vec::new(), vec![place.clone()]).await;
    }
}

/// Records what people changed when nobody knows where: more at once than there are hints for, or lost
/// events. What is there is compared with the history.
pub(super) async fn edits_anywhere(parts: &Parts, places: &BTreeSet<Place>) {
    let _synced = parts.syncing.lock().await;
    let subject = "Edit several documents";
    let author = lately(parts, places);
    record_documents(parts, author, subject, Vec::new(), places.iter().cloned().collect()).await;
}

/// Whoever owns the files that changed in the last minute, when that is one.
fn lately(parts: &Parts, places: &BTreeSet<Place>) -> Author {
    let found =
        places.iter().filter_map(|place| std::fs::symlink_metadata(parts.context.store.path(place)).ok());
    let young = |file: &std::fs::Metadata| file.modified().ok()?.elapsed().ok();
    let young = found.filter(|file| young(file).is_some_and(|age| age < Duration::from_secs(60)));
    let owners: BTreeSet<u32> = young.map(|file| file.uid()).collect();
    match owners.iter().next() {
        Some(owner) if owners.len() == 1 => Author::operator(*owner),
        _ => Author::Operator { name: "unknown".to_owned() },
    }
}

/// Records that an edit in place became an override.
pub(super) async fn absorbed(parts: &Parts, place: &Place, owner: Option<u32>) {
    let subject = format!("Keep an edit of {} as an override", place.relative().display());
    let author = Author::operator(owner.unwrap_or(0));
    let places = vec![place.within(Area::Overrides), place.clone()];
    record_documents(parts, author, &subject, Vec::new(), places).await;
}

/// All that differs from the history at the start, by whoever it was.
pub(super) async fn leftovers(parts: &Parts) {
    if let Some(handle) = &*parts.recorder.lock().await {
        let subject = "Record what changed while the agent was not running".to_owned();
        let author = Author::Operator { name: "unknown".to_owned() };
        handle.record(Cause { author, paths: Paths::All, subject, body: Vec::new() });
    }
}

/// Writes down what one pass brought into force.
pub(super) async fn flush_once(parts: &Arc<Parts>) {
    let mut entries = parts.journal.lock().await;
    let batch: Vec<_> = std::iter::from_fn(|| entries.try_recv().ok()).collect();
    if batch.is_empty() {
        return;
    }
    let history = match crate::history::History::open(parts.context.store.dir()).await {
        Ok(history) => Arc::new(history),
        Err(error) => return warn!(error = %chain(&error), "the history cannot be written"),
    };
    let (handle, task) = history.start();
    record(&handle, &batch);
    let _ = tokio::time::timeout(Duration::from_secs(15), handle.flush()).await;
    handle.close();
    task.abort();
}
