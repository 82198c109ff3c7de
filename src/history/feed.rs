//! Changes of documents by the sync, by operators and by Git, as causes of the history. Routing never waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::MutexGuard;
use tracing::warn;

use super::writers::{Writers, writers};
use super::{Author, Cause, FILES, History, HistoryError, HistoryHandle, LoggedCommit, Paths};
use crate::document::parse_value;
use crate::model::without_keys;
use crate::store::{APPROVED, Area, Place, Snapshot, Store, StoreError};
use crate::telemetry::chain;
use crate::util::fs;
use crate::util::task::blocking;

/// Records causes of one state directory.
pub struct Feed {
    store: Arc<Store>,
    history: Arc<History>,
    /// The history that takes causes while the agent runs.
    recorder: Mutex<Option<HistoryHandle>>,
    known: Mutex<Known>,
    writing: tokio::sync::Mutex<()>,
}

/// State of operators' files that was already recorded.
#[derive(Debug, Default)]
struct Known {
    /// The owner, or last owner, of each file of an operator; a deleted file has no owner to query.
    owners: BTreeMap<Place, u32>,
    /// The recorded approval.
    approved: BTreeSet<String>,
    /// The history has not been compared with the state directory since the start.
    behind: bool,
}

/// A history that records causes.
pub struct Recording {
    pub handle: HistoryHandle,
}

impl Recording {
    /// Waits for the commits and the end of their git, at most `limit`. Returns whether all were made.
    pub async fn end(self, limit: Duration) -> bool {
        let work = async {
            self.handle.flush().await;
            self.handle.close();
            self.handle.ended().await;
        };
        let done = tokio::time::timeout(limit, work).await.is_ok();
        self.handle.close();
        done
    }
}

impl Feed {
    /// Returns the newest commits that changed these files, the newest first.
    ///
    /// # Errors
    /// Git fails.
    pub(crate) async fn log(
        &self,
        paths: &[PathBuf],
        limit: usize,
    ) -> Result<Vec<LoggedCommit>, HistoryError> {
        self.history.log(paths, limit).await
    }

    /// Returns a feed that records nothing until [`Feed::begin`].
    pub fn new(store: Arc<Store>, history: Arc<History>) -> Self {
        Self {
            store,
            history,
            recorder: Mutex::default(),
            known: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// Waits for the turn to write documents. The turn lasts until the history has recorded them, so that such a write
    /// is not recorded as a manual edit.
    pub async fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().await
    }

    /// Starts to record: first all existing changes, before anything is added to them. Returns the task that commits,
    /// too.
    pub async fn begin(self: &Arc<Self>) -> (Recording, impl Future<Output = ()> + Send + 'static) {
        let (handle, work) = Arc::clone(&self.history).queue();
        self.leftovers(&handle).await;
        self.recorder.lock().replace(handle.clone());
        (Recording { handle }, work)
    }

    /// Runs work on files on a thread that may block.
    async fn files<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        let feed = Arc::clone(self);
        blocking(move || work(&feed)).await
    }

    /// Records all document changes of a cause.
    pub async fn documents(
        self: &Arc<Self>,
        author: Author,
        subject: &str,
        body: Vec<String>,
        places: Vec<Place>,
    ) {
        let paths = places.into_iter().collect();
        let subject = subject.to_owned();
        self.files(move |feed| feed.record(author, subject, body, paths))
            .await;
    }

    /// Records a file that is not a document.
    pub async fn file(
        self: &Arc<Self>,
        author: Author,
        subject: &str,
        body: Vec<String>,
        file: &str,
    ) {
        let paths = Paths::Some(vec![PathBuf::from(file)]);
        let subject = subject.to_owned();
        self.files(move |feed| feed.record(author, subject, body, paths))
            .await;
    }

    /// Reads the files of a cause, and records it. Blocks.
    fn record(&self, author: Author, subject: String, body: Vec<String>, paths: Paths) {
        // A tree that Git moved holds no changes; it is compared after the return to the branch.
        if self.store.moved().is_some() {
            self.known.lock().behind = true;
            return;
        }
        // Before the history takes causes, all existing changes count as leftovers of the last run.
        if let Some(handle) = &*self.recorder.lock() {
            handle.record(Cause {
                author,
                paths,
                subject,
                body,
            });
        }
    }

    /// Records operators' changes: their own documents, overrides, maintenance. The sync and the agent
    /// record their own writes.
    pub async fn edits(self: &Arc<Self>, places: &BTreeSet<Place>) {
        if places.is_empty() {
            return;
        }
        let _written = self.writing().await;
        let places = places.clone();
        self.files(move |feed| {
            for (owner, places) in feed.by_owner(&places) {
                let (author, subject) = (Author::operator(owner), feed.edited(&places));
                let body = names(&places);
                feed.record(author, subject, body, places.into_iter().collect());
            }
        })
        .await;
    }

    /// Records operators' changes whose places are unknown: more at once than hints can hold, or lost
    /// events. Compares the existing files with the history.
    pub async fn edits_anywhere(self: &Arc<Self>, places: &BTreeSet<Place>) {
        let _written = self.writing().await;
        let places = places.clone();
        self.files(move |feed| {
            for (owner, places) in feed.by_owner(&places) {
                let (author, subject) = (Author::operator(owner), "Edit several documents");
                let paths = places.into_iter().collect();
                feed.record(author, subject.to_owned(), Vec::new(), paths);
            }
        })
        .await;
    }

    /// Groups places by owner. All changes of one person at one moment are one cause: a rename, a copy
    /// of several files, a checkout.
    fn by_owner(&self, places: &BTreeSet<Place>) -> BTreeMap<u32, Vec<Place>> {
        let mut found: BTreeMap<u32, Vec<Place>> = BTreeMap::new();
        for place in places {
            if let Some(owner) = self.person(place) {
                found.entry(owner).or_default().push(place.clone());
            }
        }
        found
    }

    /// Returns the commit subject: `Edit overrides/sessions/wg_1.yaml`, `Remove …`, `Edit 3 documents`;
    /// a removed and an added file are a rename, which Git shows as one too.
    fn edited(&self, places: &[Place]) -> String {
        let is_there = |place: &Place| fs::symlink_metadata(self.store.path(place)).is_ok();
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

    /// Owner of the file if it is, or was until its deletion, an operator's.
    fn person(&self, place: &Place) -> Option<u32> {
        let Ok(file) = fs::symlink_metadata(self.store.path(place)) else {
            return self.known.lock().owners.remove(place);
        };
        let is_operators = place.area == Area::Overrides || !self.is_synced(place);
        is_operators.then(|| {
            let owner = file.uid();
            self.known.lock().owners.insert(place.clone(), owner);
            owner
        })
    }

    /// Returns whether a document has a `uid` and so belongs to the sync: a manual edit of it is recorded as the override
    /// that it becomes.
    fn is_synced(&self, place: &Place) -> bool {
        let known = self.store.has_uid(place);
        known.unwrap_or_else(|| self.store.text(place).is_some_and(|text| has_uid(&text)))
    }

    /// Records that a manual edit became an override.
    pub async fn imported(self: &Arc<Self>, place: &Place, owner: u32) {
        let override_ = place.within(Area::Overrides);
        self.known.lock().owners.insert(override_.clone(), owner);
        let path = place.relative();
        let subject = format!("Keep an edit of {} as an override", path.display());
        let places = vec![override_, place.clone()];
        let author = blocking(move || Author::operator(owner)).await;
        self.documents(author, &subject, Vec::new(), places).await;
    }

    /// Records that a document belongs to the sync again where the history has an operator's own document.
    pub async fn put_back(self: &Arc<Self>, place: &Place) {
        self.known.lock().owners.remove(place);
        let subject = format!("Put back {}", place.relative().display());
        self.documents(Author::Agent, &subject, Vec::new(), vec![place.clone()])
            .await;
    }

    /// Records the approval of held changes with its author.
    pub async fn approved(self: &Arc<Self>, objects: &BTreeSet<String>) {
        if std::mem::replace(&mut self.known.lock().approved, objects.clone()) == *objects {
            return;
        }
        let path = self.store.dir().join(APPROVED);
        let author = move || {
            let owner = fs::metadata(path).map_or(0, |file| file.uid());
            Author::operator(owner)
        };
        let author = blocking(author).await;
        let subject = match objects.first() {
            Some(one) if objects.len() == 1 => format!("Approve {}", without_keys(one)),
            _ => format!("Approve {} changes", objects.len()),
        };
        // The file may contain anything.
        let body = objects
            .iter()
            .map(|object| without_keys(object).into_owned())
            .collect();
        self.file(author, &subject, body, APPROVED).await;
    }

    /// Records documents that the sync wrote but could not record.
    pub async fn synced(self: &Arc<Self>) {
        if let Ok(snapshot) = self.load().await {
            let subject = "Sync what was not recorded";
            let places = writers(&snapshot).synced;
            self.documents(Author::ControlPlane, subject, Vec::new(), places)
                .await;
        }
    }

    /// Compares the history with the state directory if that failed at the start.
    pub async fn catch_up(self: &Arc<Self>) {
        let behind = self.known.lock().behind;
        let handle = self.recorder.lock().clone();
        if let (true, Some(handle)) = (behind, handle) {
            self.leftovers(&handle).await;
        }
    }

    /// Commits now what could not be committed while Git had moved the tree.
    pub fn retry(&self) {
        if let Some(handle) = &*self.recorder.lock() {
            handle.retry();
        }
    }

    async fn load(&self) -> Result<Arc<Snapshot>, StoreError> {
        let store = Arc::clone(&self.store);
        blocking(move || store.load()).await
    }

    /// Records all differences from the history at the start, each file under its author: a crash may
    /// have come between a write and its commit.
    async fn leftovers(self: &Arc<Self>, handle: &HistoryHandle) {
        let handle = handle.clone();
        let recorded = self.files(move |feed| feed.record_leftovers(&handle));
        if let Err(error) = recorded.await {
            warn!(
                error = %chain(&error),
                "history not compared with the state directory; trying again once the directory can be read"
            );
        }
    }

    fn record_leftovers(&self, handle: &HistoryHandle) -> Result<(), StoreError> {
        self.known.lock().behind = true;
        if self.store.moved().is_some() {
            return Ok(());
        }
        let snapshot = self.store.load()?;
        let found = writers(&snapshot);
        let owned = found
            .persons
            .iter()
            .flat_map(|(owner, places)| places.iter().map(|place| (place.clone(), *owner)));
        let mut known = self.known.lock();
        known.behind = false;
        known.owners.extend(owned);
        drop(known);
        leftover_causes(found).for_each(|cause| handle.record(cause));
        Ok(())
    }
}

fn leftover_causes(found: Writers) -> impl Iterator<Item = Cause> {
    let cause = |author: Author, subject: &str, paths: Paths| Cause {
        author,
        paths,
        subject: format!("{subject} while the agent was not running"),
        body: Vec::new(),
    };
    let synced = cause(
        Author::ControlPlane,
        "Sync what was not recorded",
        found.synced.into_iter().collect(),
    );
    let applied = cause(
        Author::Agent,
        "Apply what was not recorded",
        found.applied.into_iter().collect(),
    );
    let persons = found.persons.into_iter().map(move |(owner, places)| {
        let author = Author::operator(owner);
        cause(author, "Edit", places.into_iter().collect())
    });
    let files = Paths::Some(FILES.iter().map(PathBuf::from).collect());
    let files = cause(Author::Agent, "Record files", files);
    // A deleted file has no owner.
    let unknown = Author::Operator {
        name: "unknown".to_owned(),
    };
    let gone = cause(unknown, "Remove", Paths::Gone);
    [synced, applied]
        .into_iter()
        .chain(persons)
        .chain([files, gone])
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

/// Returns whether the text of a document has a `uid`.
fn has_uid(text: &str) -> bool {
    let document: Option<serde_json::Value> = parse_value(text).ok();
    document.is_some_and(|document| {
        document
            .pointer("/metadata/uid")
            .is_some_and(|uid| !uid.is_null())
    })
}
