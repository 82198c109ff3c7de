//! The state directory: list, write, lock, watch. Synchronous; callers use `spawn_blocking`.
//!
//! An error here must never be read as "there is nothing": an invalid file is present and invalid, a
//! folder that cannot be listed makes the listing incomplete, and a directory other than the opened
//! one is an error. Symbolic links are never followed, except to the state directory itself: their
//! targets change without an event, and the history would record the link instead of the content.
//!
//! | file | content |
//! |---|---|
//! | `place` | the file of an object in each area |
//! | `list`, `names`, `cache`, `read` | listing everything; only changed files are parsed again |
//! | `relist` | a listing after an earlier one: only changed files are looked at again |
//! | `snapshot` | the result of a listing |
//! | `problems` | all problems of one file |
//! | `debounce` | debounce of changes: none counts while a file is being written |
//! | `preview` | a preview of the directory after the import of manual edits |
//! | `write`, `atomic` | writing documents, overrides, statuses and applied records |
//! | `synced`, `manual_edit`, `import` | manual edits: their detection, and their import as overrides |
//! | `quarantine` | quarantine of an invalid file in the place of a synced document, on its removal |
//! | `applied` | the applied records |
//! | `head` | detection of a tree that Git moved |
//! | `identity` | the lock, the directory's identity, and the check that this is the opened directory |
//! | `trouble` | whether the disk can be read and written, logged once |
//! | `moved` | state that stays in effect while Git has moved the tree |
//! | `removed` | documents that the Control Plane removed, which Git may restore |
//! | `keep`, `secrets` | files that are not documents |
//! | `watch` | hints about changed places |
//! | `unchanged`, `changed` | whether the last listing is still current, and what may differ from it |

mod any;
mod applied;
mod approvals;
mod atomic;
mod cache;
mod changed;
mod debounce;
mod documents;
mod error;
mod flush;
mod head;
mod identity;
mod import;
mod keep;
mod layout;
mod list;
mod manual_edit;
mod moved;
mod names;
mod place;
mod preview;
mod problems;
mod quarantine;
mod read;
mod records;
mod relist;
mod removed;
mod secrets;
mod snapshot;
mod synced;
mod trouble;
mod unchanged;
mod watch;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::intervals::HEAD_FOLLOWS;
use crate::model::Secret;
use crate::observed::Succession;
use crate::util::file::{self, Stamp};
use crate::util::fs;

pub(crate) use any::{AnyDocument, AnySlot};
pub(crate) use applied::applied_schema;
pub use applied::{AppliedBody, AppliedDocument, AppliedFirewall, AppliedOverride};
pub(crate) use approvals::lock_changes;
pub(crate) use cache::{Slot, Stored};
pub use error::StoreError;
pub(crate) use head::{BRANCH, IndexWrite, is_id, is_moving, moved};
pub use identity::{IDENTITY, StateIdentity};
pub use import::ImportedEdit;
pub(crate) use manual_edit::Edit;
pub use manual_edit::{Change, edited_in_place};
pub use place::{Area, Place};
pub(crate) use problems::{problems, stored, text_problems};
pub use snapshot::Snapshot;
pub(crate) use synced::BrokenDocument;
pub use watch::{Hint, Watch};
pub use write::Written;

use atomic::create_folder;
use debounce::Debounce;
use identity::{Doubt, Held};
use layout::{create_layout, document_folders, has_documents, missing_folder};
use moved::SharedMemory;
use parking_lot::{Mutex, MutexGuard};
use place::{PLACED, folder};
use removed::Removed;
use secrets::Secrets;
use snapshot::Caches;
use trouble::Attempts;
use unchanged::{Changes, Listed};

/// The folder with the last versions of the sync, used to detect manual edits.
pub(crate) const SYNCED: &str = ".synced";
pub const SECRETS: &str = "secrets";
/// The folder of reports that the Control Plane has not acknowledged.
pub const OUTBOX: &str = "outbox";
/// The file of changes that an operator approved.
pub const APPROVED: &str = "approved";
/// The file of held changes, and of the guard's counts.
pub const HELD: &str = "held.yaml";
/// The line in `approved` with which an operator confirms that no document is missing, though one
/// may have been: the directory is new, or lost a folder.
pub const COMPLETE: &str = "nothing-is-missing";

/// Returns whether a file below the state directory is one that the agent alone writes.
pub(crate) fn is_bookkeeping(relative: &Path) -> bool {
    const OWN: [&str; 11] = [
        "applied",
        "status",
        OUTBOX,
        HELD,
        SYNCED,
        approvals::LOCK,
        approvals::CHANGES,
        identity::IDENTITY,
        identity::LOCK,
        identity::DOUBT,
        moved::PENDING,
    ];
    let first = relative.iter().next();
    first.is_some_and(|first| OWN.iter().any(|own| first == *own))
}

/// Returns whether a document below the state directory has a copy of the sync.
pub(crate) fn has_copy(state: &Path, relative: &Path) -> bool {
    fs::exists(state.join(SYNCED).join(relative))
}

/// The state directory of one router.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    held: Option<Mutex<Held>>,
    /// Held during a whole pass and a whole write, so that a listing never sees a partial write.
    caches: Mutex<Caches>,
    writes: AtomicU64,
    attempts: Attempts,
    patience: Debounce,
    changes: Changes,
    memory: SharedMemory,
    removed: Mutex<Removed>,
    secrets: Mutex<Secrets>,
    /// The secrets of a store that writes no file for them.
    in_memory: Option<Mutex<BTreeMap<String, Secret<String>>>>,
    /// The applied records that survive a power failure, as they were when this was known.
    durable: Mutex<BTreeMap<PathBuf, Stamp>>,
    /// Folders in which the next flush makes files and names durable too.
    owed: Mutex<BTreeSet<PathBuf>>,
    /// Directory of the schemas, for the first line of files that the agent writes.
    schemas: Option<PathBuf>,
}

impl Store {
    /// Opens the state directory for the agent: creates missing folders and takes the lock.
    ///
    /// # Errors
    /// Another agent holds the lock, or the directory cannot be created or read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        create_folder(dir, 0o700)?;
        let dir = fs::canonicalize(dir).map_err(StoreError::io("open", dir))?;
        // A read-only disk has no lock file to create; its documents are applied nevertheless.
        let there = StateIdentity::read(&dir);
        let known = there
            .clone()
            .unwrap_or_else(|| StateIdentity::new(Succession::default()));
        let mut held = Held::take(&dir, known)?;
        if there.is_none() {
            let doubt = match has_documents(&dir) {
                true => Doubt::None,
                false => Doubt::All,
            };
            held.begin(&dir, doubt)?;
        } else {
            // On a read-only disk the older file stays in use.
            let _ = identity::migrate(&dir, &held.known);
            // A tree that Git moved says nothing about missing documents.
            let doubt = match head::moved(&dir).is_none() && missing_folder(&dir) {
                true => Doubt::All,
                false => held.doubt,
            };
            held.set_doubt(&dir, doubt)?;
        }
        create_layout(&dir)?;
        let removed = Mutex::new(Removed::read(&dir));
        let store = Self {
            dir,
            held: Some(Mutex::new(held)),
            caches: Mutex::default(),
            writes: AtomicU64::new(0),
            attempts: Attempts::default(),
            patience: Debounce::default(),
            changes: Changes::default(),
            memory: SharedMemory::default(),
            removed,
            secrets: Mutex::default(),
            in_memory: None,
            durable: Mutex::default(),
            owed: Mutex::default(),
            schemas: None,
        };
        if !store.has_applied() {
            // What a process before this one wrote may wait for the first record too.
            store.owe([store.dir.clone()]);
        }
        store.sweep();
        store.finish_writes()?;
        store.read_pending();
        Ok(store)
    }

    /// Opens the state directory for reading only: takes no lock, and creates nothing.
    ///
    /// # Errors
    /// The directory does not exist.
    pub fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        identity::root(dir)?;
        let dir = fs::canonicalize(dir).map_err(StoreError::io("open", dir))?;
        let (caches, writes, attempts, patience, changes, memory) = Default::default();
        let removed = Mutex::new(Removed::read(&dir));
        Ok(Self {
            dir,
            held: None,
            caches,
            writes,
            attempts,
            patience,
            changes,
            memory,
            removed,
            secrets: Mutex::default(),
            in_memory: None,
            durable: Mutex::default(),
            owed: Mutex::default(),
            schemas: None,
        })
    }

    /// Makes the documents that the agent writes name their schema, so that editors complete and
    /// check them: `<schemas>/BgpSession.json`. Without it they name no schema.
    #[must_use]
    pub fn with_schemas(self, schemas: PathBuf) -> Self {
        Self {
            schemas: Some(schemas),
            ..self
        }
    }

    /// Keeps secrets that are written from now on in memory: an interrupted rehearsal leaves none on disk.
    #[must_use]
    pub(crate) fn with_secrets_in_memory(self) -> Self {
        Self {
            in_memory: Some(Mutex::default()),
            ..self
        }
    }

    /// Debounces changes: a change counts once the file has been quiet for this time and its writer
    /// has closed it; see [`Snapshot::settled`]. Without it every change counts at once.
    #[must_use]
    pub fn with_patience(self, quiet: Duration) -> Self {
        Self {
            patience: Debounce::new(quiet),
            ..self
        }
    }

    /// Watches this directory; see [`watch`]. From then on listings know which files are open for writing, and one is used
    /// again while nothing has changed.
    pub fn watch(&self) -> tokio::sync::mpsc::Receiver<Hint> {
        Watch::default().start_with(
            &self.dir,
            self.patience.writers.clone(),
            self.changes.clone(),
            Arc::clone(&self.memory),
        )
    }

    /// The state directory, without symbolic links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, place: &Place) -> PathBuf {
        self.dir.join(place.relative())
    }

    /// Returns the text in a place, if there is a file of a document's type and size; never blocks on a pipe.
    pub fn text(&self, place: &Place) -> Option<String> {
        read::text(&self.path(place))
            .ok()
            .flatten()
            .map(|read| read.text)
    }

    /// Returns whether a document has a `uid`, without parsing it again; `None` if it is missing or invalid.
    pub(crate) fn has_uid(&self, place: &Place) -> Option<bool> {
        self.caches.lock().has_uid(&self.path(place), place)
    }

    /// Returns the identity of the directory; `None` for a directory opened read-only that has no identity yet.
    pub fn identity(&self) -> Option<StateIdentity> {
        match &self.held {
            Some(held) => Some(held.lock().known.clone()),
            None => StateIdentity::read(&self.dir),
        }
    }

    /// Returns whether this agent holds the lock and may write.
    pub fn is_writable(&self) -> bool {
        self.held.is_some()
    }

    /// Returns the approvals (`moenet-agent approve`): one object per line in `approved`, as `sessions/wg_1`.
    pub fn approved(&self) -> BTreeSet<String> {
        // Approvals of an old tree do not count.
        if self.moved().is_some() {
            return BTreeSet::new();
        }
        approvals::read(&self.dir).unwrap_or_default()
    }

    /// Returns whether any document is on disk.
    pub(crate) fn has_documents(&self) -> bool {
        has_documents(&self.dir)
    }

    /// Returns whether any applied record is on disk.
    pub fn has_applied(&self) -> bool {
        PLACED.iter().any(|kind| {
            match fs::read_dir(self.dir.join(folder(Area::Applied, *kind))) {
                Ok(entries) => entries
                    .flatten()
                    .any(|entry| names::is_document(Path::new(&entry.file_name()))),
                // What cannot be read may be there.
                Err(error) => error.kind() != std::io::ErrorKind::NotFound,
            }
        })
    }

    /// Adds approvals of these changes. Operators' commands call this while the agent runs, so it
    /// does not need the agent's lock.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn approve(dir: &Path, objects: &BTreeSet<String>) -> Result<(), StoreError> {
        approvals::change(dir, |approved| approved.extend(objects.iter().cloned()))
    }

    /// Removes used approvals. Keeps others that were given meanwhile.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn spend_approvals(&self, spent: &BTreeSet<String>) -> Result<(), StoreError> {
        approvals::change(&self.dir, |approved| {
            approved.retain(|line| !spent.contains(line));
        })
    }

    /// Number of written or removed files.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Number of parsed texts; a pass over an unchanged directory parses none.
    pub fn parsed(&self) -> u64 {
        self.caches.lock().parsed()
    }

    /// Returns a listing of everything. Files that did not change since the last call are not parsed again, and mostly not
    /// looked at; without any change it is the last listing.
    ///
    /// # Errors
    /// The directory is missing or is not the opened one. Never returns an empty listing for that.
    pub fn load(&self) -> Result<Arc<Snapshot>, StoreError> {
        let listed = self.list();
        self.attempts.read(&listed);
        listed
    }

    fn list(&self) -> Result<Arc<Snapshot>, StoreError> {
        let mut caches = self.caches.lock();
        let root = identity::root(&self.dir)?;
        if !self.is_writable() {
            // The agent that holds the lock may have written since.
            self.read_pending();
        }
        if let Some(kept) = self.listing_kept()? {
            return Ok(Arc::new(kept));
        }
        let (known, doubt) = match &self.held {
            Some(held) => {
                let mut held = held.lock();
                held.verify(&self.dir)?;
                held.renew_identity(&self.dir)?;
                held.keep_copy(&self.dir);
                (true, held.doubt)
            }
            None => {
                identity::root(&self.dir)?;
                let known = StateIdentity::read(&self.dir).is_some();
                let doubt = match known {
                    true => identity::doubt(&self.dir),
                    false => Doubt::None,
                };
                (known, doubt)
            }
        };
        if doubt == Doubt::None
            && let Some(current) = self.current_listing(root)
        {
            return Ok(current);
        }
        let (listed, changed, last) = self.begin_listing(root);
        let last = last.filter(|_| !missing_folder(&self.dir));
        let again = last.and_then(|last| caches.relist(&self.dir, &last, &self.patience, &changed));
        let mut snapshot =
            again.unwrap_or_else(|| caches.load(&self.dir, !known, &self.patience, &changed));
        // A directory that was unmounted meanwhile was listed as an empty one.
        if let Some(held) = &self.held {
            held.lock().verify(&self.dir)?;
        }
        snapshot.complete &= doubt != Doubt::All;
        snapshot.operators_complete = doubt == Doubt::None && snapshot.complete;
        self.note_missing_folder();
        self.add_pending(&mut snapshot);
        self.restore_applied(&mut snapshot);
        self.put_back_copies(std::mem::take(&mut snapshot.lost_copies));
        self.keep_removed();
        self.take_out_revived(&mut snapshot);
        self.end_doubt(&mut snapshot);
        let snapshot = Arc::new(snapshot);
        self.keep_listing(&snapshot, Some(listed));
        Ok(snapshot)
    }

    /// Confirms that all documents are present: an operator has approved every held removal. Until
    /// then, listings of a directory that is new, or that lost a folder, are not
    /// [`Snapshot::complete`].
    ///
    /// # Errors
    /// The doubt or a missing folder cannot be written.
    pub fn confirm(&self) -> Result<(), StoreError> {
        let listed = self.list()?;
        self.confirm_listed(&listed)
    }

    /// The same for an earlier listing. Applied objects of the operator whose documents are missing
    /// stay in doubt: neither a list of the Control Plane nor an approval of other objects says
    /// anything about them.
    ///
    /// # Errors
    /// The doubt or a missing folder cannot be written.
    pub fn confirm_listed(&self, before: &Snapshot) -> Result<(), StoreError> {
        let _one_at_a_time = self.tree_turn()?;
        let mut held = self.writable()?;
        create_layout(&self.dir)?;
        let doubt = match held.doubt != Doubt::None && before.lacks_operators_documents() {
            true => Doubt::Operators,
            false => Doubt::None,
        };
        if doubt != held.doubt {
            // A document whose name a power failure undoes must not be missing without a doubt.
            self.flush_owed()?;
        }
        held.set_doubt(&self.dir, doubt)
    }

    /// Verifies that the directory is the opened one, and returns it for writing.
    fn writable(&self) -> Result<MutexGuard<'_, Held>, StoreError> {
        let held = self.held.as_ref().ok_or_else(|| StoreError::ReadOnly {
            dir: self.dir.clone(),
        })?;
        let mut held = held.lock();
        held.verify(&self.dir)?;
        Ok(held)
    }

    /// Takes the turn to write to the tree, while no other git changes the tree and HEAD is at the
    /// history's branch. Waits for git without the turn, so that listings and other writes go on.
    fn tree_turn(&self) -> Result<MutexGuard<'_, Caches>, StoreError> {
        let begun = Instant::now();
        let turn = loop {
            moved::wait_for_git(&self.dir, HEAD_FOLLOWS, begun);
            let turn = self.caches.lock();
            // Another git may have begun while this write waited for its turn.
            if !moved::is_worth_waiting(&self.dir, HEAD_FOLLOWS, begun) {
                break turn;
            }
        };
        at_branch(&self.dir)?;
        drop(self.writable()?);
        Ok(turn)
    }

    /// A vanished folder leaves a doubt that remains after the folder returns.
    fn note_missing_folder(&self) {
        if let Some(held) = &self.held
            && missing_folder(&self.dir)
        {
            // On a full disk the doubt is kept in memory, and the folder is missing at the next start too.
            let _ = held.lock().set_doubt(&self.dir, Doubt::All);
        }
    }

    /// Ends the doubt about objects of the operator once each applied object has its document again, or is gone.
    fn end_doubt(&self, snapshot: &mut Snapshot) {
        let Some(held) = &self.held else { return };
        let mut held = held.lock();
        let ended = held.doubt == Doubt::Operators
            && snapshot.complete
            && snapshot.settled
            && !snapshot.lacks_operators_documents();
        // If the doubt cannot be removed from the disk, it remains.
        if ended && held.set_doubt(&self.dir, Doubt::None).is_ok() {
            snapshot.operators_complete = true;
        }
    }

    /// Removes incomplete files that a crash left.
    fn sweep(&self) {
        let folders = layout::folders()
            .into_iter()
            .chain([SECRETS, OUTBOX].map(PathBuf::from));
        for folder in folders {
            file::sweep(&self.dir.join(folder));
        }
        file::sweep(&self.dir);
    }
}

/// Refuses to write to a tree that is not that of the history's branch: the write would prevent Git from returning.
fn at_branch(dir: &Path) -> Result<(), StoreError> {
    match head::moved(dir) {
        None => Ok(()),
        Some(at) => Err(StoreError::Moved {
            dir: dir.to_owned(),
            at,
        }),
    }
}

/// Returns the identity of a state directory as text; `None` without one.
pub(crate) fn state_directory(dir: &Path) -> Option<String> {
    StateIdentity::read(dir).map(|known| known.identity.to_string())
}
