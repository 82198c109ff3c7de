//! Records applied changes and operators' edits of documents in the history. One commit per cause;
//! routing never waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Parts;
use super::writers::{Writers, writers};
use crate::controller::{Convenience, Entry};
use crate::document::{ConditionType, parse_value};
use crate::history::{Author, Cause, Contents, FILES, HistoryHandle, Paths};
use crate::intervals::{ONCE_COMMITS, STEPS_AROUND, STEPS_GATHER, STOP_COMMITS};
use crate::model::{ObjectKey, without_keys};
use crate::store::{APPROVED, Area, Place, Store};
use crate::telemetry::chain;

/// State of operators' files that was already recorded.
#[derive(Debug, Default)]
pub struct Known(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// The owner, or last owner, of each file of an operator; a deleted file has no owner to query.
    owners: BTreeMap<Place, u32>,
    /// The recorded approval.
    approved: BTreeSet<String>,
    /// The history has not been compared with the state directory since the start.
    behind: bool,
}

/// Records applied changes until the agent stops. Retries an unwritable repository without delaying anything else.
pub(super) async fn run(parts: Arc<Parts>, recording: Recording, stop: CancellationToken) {
    let health = health(&parts, &recording.handle);
    tokio::select! {
        () = health => {}
        () = gather(&parts, &recording, &stop) => {}
    }
    // A full disk must not keep the agent from stopping.
    recording.end(STOP_COMMITS).await;
}

/// Groups applied changes into causes until the agent stops.
async fn gather(parts: &Parts, recording: &Recording, stop: &CancellationToken) {
    let mut entries = parts.journal.lock().await;
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
        around.record(&recording.handle, batch);
    }
    let rest: Vec<_> = std::iter::from_fn(|| entries.try_recv().ok()).collect();
    around.record(&recording.handle, rest);
}

/// Steps that changed no file by themselves, with their times.
#[derive(Default)]
struct Around(Vec<(Instant, Entry)>);

impl Around {
    /// Records a batch, with the steps just before it. A batch that applies nothing new is not a
    /// cause: the log and the status show a repaired drift.
    fn record(&mut self, handle: &HistoryHandle, batch: Vec<Entry>) {
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
async fn health(parts: &Parts, handle: &HistoryHandle) {
    let mut health = handle.health();
    loop {
        let problem = health.borrow_and_update().clone();
        let is = match problem {
            None => Convenience::works("Committed"),
            Some(why) => Convenience::fails("Failed", why),
        };
        let context = &parts.context;
        context.conveniences.set(ConditionType::HistoryRecorded, is);
        context.hint(ObjectKey::Router);
        if health.changed().await.is_err() {
            return;
        }
    }
}

/// Records one apply: its diff is exactly the applied change, and its message lists every step.
fn record(handle: &HistoryHandle, batch: &[Entry]) {
    let new = batch.iter().filter(|entry| !entry.files.is_empty());
    let objects: BTreeSet<String> = new.map(|entry| entry.key.to_string()).collect();
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
        .collect();
    let body = body.collect();
    handle.record(Cause {
        author: Author::Agent,
        paths: Paths::Exactly(contents),
        subject,
        body,
    });
}

/// Records all document changes of a cause.
pub(super) fn record_documents(
    parts: &Parts,
    author: Author,
    subject: &str,
    body: Vec<String>,
    places: Vec<Place>,
) {
    let paths = places.into_iter().collect();
    tell(
        parts,
        Cause {
            author,
            paths,
            subject: subject.to_owned(),
            body,
        },
    );
}

/// Records a file that is not a document.
pub(super) fn record_file(
    parts: &Parts,
    author: Author,
    subject: &str,
    body: Vec<String>,
    file: &str,
) {
    let paths = Paths::Some(vec![PathBuf::from(file)]);
    tell(
        parts,
        Cause {
            author,
            paths,
            subject: subject.to_owned(),
            body,
        },
    );
}

fn tell(parts: &Parts, cause: Cause) {
    // A tree that Git moved holds no changes; it is compared after the return to the branch.
    if parts.context.store.moved().is_some() {
        parts.known.0.lock().behind = true;
        return;
    }
    // Before the history takes causes, all existing changes count as leftovers of the last run.
    if let Some(handle) = &*parts.recorder.lock() {
        handle.record(cause);
    }
}

/// Records operators' changes: their own documents, overrides, maintenance. The sync and the agent
/// record their own writes.
pub(super) async fn edits(parts: &Parts, places: &BTreeSet<Place>) {
    if places.is_empty() {
        return;
    }
    let _synced = parts.syncing.lock().await;
    for (owner, places) in by_owner(parts, places) {
        let subject = edited(parts, &places);
        record_documents(
            parts,
            Author::operator(owner),
            &subject,
            names(&places),
            places,
        );
    }
}

/// Groups places by owner. All changes of one person at one moment are one cause: a rename, a copy
/// of several files, a checkout.
fn by_owner(parts: &Parts, places: &BTreeSet<Place>) -> BTreeMap<u32, Vec<Place>> {
    let mut found: BTreeMap<u32, Vec<Place>> = BTreeMap::new();
    for place in places {
        if let Some(owner) = person(parts, place) {
            found.entry(owner).or_default().push(place.clone());
        }
    }
    found
}

/// Returns the commit subject: `Edit overrides/sessions/wg_1.yaml`, `Remove …`, `Edit 3 documents`;
/// a removed and an added file are a rename, which Git shows as one too.
fn edited(parts: &Parts, places: &[Place]) -> String {
    let is_there =
        |place: &Place| std::fs::symlink_metadata(parts.context.store.path(place)).is_ok();
    let path = |place: &Place| place.relative().display().to_string();
    match places {
        [one] if is_there(one) => format!("Edit {}", path(one)),
        [one] => format!("Remove {}", path(one)),
        [one, two] => match (is_there(one), is_there(two)) {
            (here, there) if here != there && (one.area, one.kind) != (two.area, two.kind) => {
                format!("Edit {} and {}", path(one), path(two))
            }
            (true, false) => format!("Rename {} to {}", path(two), path(one)),
            (false, true) => format!("Rename {} to {}", path(one), path(two)),
            (true, true) => format!("Edit {} and {}", path(one), path(two)),
            (false, false) => format!("Remove {} and {}", path(one), path(two)),
        },
        several => format!("Edit {} documents", several.len()),
    }
}

/// The files of a commit, if its subject has no room for them.
fn names(places: &[Place]) -> Vec<String> {
    match places {
        [_] | [_, _] => Vec::new(),
        several => several
            .iter()
            .map(|place| place.relative().display().to_string())
            .collect(),
    }
}

/// Owner of the file if it is, or was until its deletion, an operator's.
fn person(parts: &Parts, place: &Place) -> Option<u32> {
    let path = parts.context.store.path(place);
    let mut told = parts.known.0.lock();
    match std::fs::symlink_metadata(&path) {
        Ok(file) => {
            let text = parts.context.store.text(place).unwrap_or_default();
            let persons = place.area == Area::Overrides || !is_synced(&text);
            persons.then(|| {
                *told
                    .owners
                    .entry(place.clone())
                    .insert_entry(file.uid())
                    .get()
            })
        }
        Err(_) => told.owners.remove(place),
    }
}

/// Records operators' changes whose places are unknown: more at once than hints can hold, or lost
/// events. Compares the existing files with the history.
pub(super) async fn edits_anywhere(parts: &Parts, places: &BTreeSet<Place>) {
    let _synced = parts.syncing.lock().await;
    for (owner, places) in by_owner(parts, places) {
        record_documents(
            parts,
            Author::operator(owner),
            "Edit several documents",
            Vec::new(),
            places,
        );
    }
}

/// Returns whether a text has a `uid` and so belongs to the sync: a manual edit of it is recorded
/// as the override that it becomes.
fn is_synced(text: &str) -> bool {
    let document: Option<serde_json::Value> = parse_value(text).ok();
    document.is_some_and(|document| {
        document
            .pointer("/metadata/uid")
            .is_some_and(|uid| !uid.is_null())
    })
}

/// Records that a manual edit became an override.
pub(super) fn absorbed(parts: &Parts, place: &Place, owner: u32) {
    let exception = place.within(Area::Overrides);
    parts.known.0.lock().owners.insert(exception.clone(), owner);
    let subject = format!(
        "Keep an edit of {} as an override",
        place.relative().display()
    );
    record_documents(
        parts,
        Author::operator(owner),
        &subject,
        Vec::new(),
        vec![exception, place.clone()],
    );
}

/// Records that a document belongs to the sync again where the history has an operator's own document.
pub(super) fn put_back(parts: &Parts, place: &Place) {
    parts.known.0.lock().owners.remove(place);
    let subject = format!("Put back {}", place.relative().display());
    record_documents(
        parts,
        Author::Agent,
        &subject,
        Vec::new(),
        vec![place.clone()],
    );
}

/// Records the approval of held changes with its author.
pub(super) fn approved(parts: &Parts, objects: &BTreeSet<String>) {
    if std::mem::replace(&mut parts.known.0.lock().approved, objects.clone()) == *objects {
        return;
    }
    let owner =
        std::fs::metadata(parts.context.store.dir().join(APPROVED)).map_or(0, |file| file.uid());
    let subject = match objects.first() {
        Some(one) if objects.len() == 1 => format!("Approve {}", without_keys(one)),
        _ => format!("Approve {} changes", objects.len()),
    };
    // The file may contain anything.
    let body = objects
        .iter()
        .map(|object| without_keys(object).into_owned())
        .collect();
    record_file(parts, Author::operator(owner), &subject, body, APPROVED);
}

/// Records documents that the sync wrote but could not record.
pub(super) async fn synced(parts: &Parts) {
    if let Ok(snapshot) = parts.context.disk(Store::load).await {
        let subject = "Sync what was not recorded";
        record_documents(
            parts,
            Author::ControlPlane,
            subject,
            Vec::new(),
            writers(&snapshot).synced,
        );
    }
}

/// Compares the history with the state directory if that failed at the start.
pub(super) async fn catch_up(parts: &Parts) {
    let behind = parts.known.0.lock().behind;
    let handle = parts.recorder.lock().clone();
    if let (true, Some(handle)) = (behind, handle) {
        leftovers(parts, &handle).await;
    }
}

/// Commits now what could not be committed while Git had moved the tree.
pub(super) fn retry(parts: &Parts) {
    if let Some(handle) = &*parts.recorder.lock() {
        handle.retry();
    }
}

/// Records all differences from the history at the start, each file under its author: a crash may
/// have come between a write and its commit.
async fn leftovers(parts: &Parts, handle: &HistoryHandle) {
    if parts.context.store.moved().is_some() {
        parts.known.0.lock().behind = true;
        return;
    }
    let snapshot = match parts.context.disk(Store::load).await {
        Ok(snapshot) => snapshot,
        Err(error) => {
            parts.known.0.lock().behind = true;
            return warn!(
                error = %chain(&error),
                "history not compared with the state directory; trying again once the directory \
                 can be read"
            );
        }
    };
    parts.known.0.lock().behind = false;
    let Writers {
        synced,
        persons,
        in_force,
    } = writers(&snapshot);
    let cause = |author: Author, subject: &str, paths: Paths| {
        let subject = format!("{subject} while the agent was not running");
        handle.record(Cause {
            author,
            paths,
            subject,
            body: Vec::new(),
        });
    };
    cause(
        Author::ControlPlane,
        "Sync what was not recorded",
        synced.into_iter().collect(),
    );
    cause(
        Author::Agent,
        "Apply what was not recorded",
        in_force.into_iter().collect(),
    );
    for (owner, places) in persons {
        parts
            .known
            .0
            .lock()
            .owners
            .extend(places.iter().map(|place| (place.clone(), owner)));
        cause(
            Author::operator(owner),
            "Edit",
            places.into_iter().collect(),
        );
    }
    cause(
        Author::Agent,
        "Record files",
        Paths::Some(FILES.iter().map(PathBuf::from).collect()),
    );
    // A deleted file has no owner.
    cause(
        Author::Operator {
            name: "unknown".to_owned(),
        },
        "Remove",
        Paths::Gone,
    );
}

/// Starts to record: first all existing changes, before anything is added to them.
pub(super) async fn begin(parts: &Parts) -> Recording {
    let (handle, work) = Arc::clone(&parts.history).queue();
    parts.tasks().spawn("history", work);
    leftovers(parts, &handle).await;
    parts.recorder.lock().replace(handle.clone());
    Recording { handle }
}

/// A history that records causes.
pub(super) struct Recording {
    handle: HistoryHandle,
}

impl Recording {
    /// Waits for the commits, at most `limit`. Returns whether all were made.
    async fn end(self, limit: Duration) -> bool {
        let done = tokio::time::timeout(limit, self.handle.flush())
            .await
            .is_ok();
        self.handle.close();
        done
    }
}

/// Records the changes that one pass applied.
pub(super) async fn end_pass(parts: &Parts, recording: Recording) {
    let mut entries = parts.journal.lock().await;
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
