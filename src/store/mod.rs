//! The state directory: list, write, lock, watch. Synchronous; callers use `spawn_blocking`.
//!
//! What goes wrong here must never read as "there is nothing": a file that is no document is present
//! and invalid, a folder that cannot be listed makes the listing incomplete, and a directory that is
//! not the one that was opened is an error. Symbolic links are never followed, except to the state
//! directory itself: what they point to changes without an event, and the history would record the
//! link instead of the content.
//!
//! | file | holds |
//! |---|---|
//! | `place` | which file an object has in which area |
//! | `list`, `names`, `cache`, `read` | listing everything; only what changed is parsed again |
//! | `snapshot` | what a listing finds |
//! | `problems` | everything that is wrong with one file |
//! | `settled`, `patience` | when a change counts: not while somebody still writes |
//! | `write`, `atomic` | writing documents, overrides, statuses and what is in force |
//! | `synced`, `inplace`, `absorb` | edits by hand: how they are told, and how they become overrides |
//! | `aside` | what stands in a synced document's place and is none, when that document goes |
//! | `applied` | the documents of what is in force |
//! | `head` | whether Git has moved the whole tree |
//! | `identity` | the lock, the directory's identity, and whether this is the directory that was opened |
//! | `trouble` | whether the disk can be read and written, said once |
//! | `moved` | what stays in effect while Git has moved the tree |
//! | `removed` | documents that the Control Plane removed, which Git may bring back |
//! | `keep`, `secrets` | files that are no documents |
//! | `watch` | which place may have changed |

mod absorb;
mod applied;
mod aside;
mod atomic;
mod cache;
mod error;
mod head;
mod identity;
mod inplace;
mod keep;
mod list;
mod moved;
mod names;
mod patience;
mod place;
mod problems;
mod read;
mod removed;
mod secrets;
mod settled;
mod snapshot;
mod synced;
mod trouble;
mod watch;
mod write;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::plan::mark::Succession;

pub use absorb::Absorbed;
pub use applied::{AppliedBody, AppliedDocument, AppliedFirewall, AppliedOverride, applied_schema};
pub use cache::{Slot, Stored};
pub use error::StoreError;
pub(crate) use head::{BRANCH, IndexWrite, is_id, is_moving, moved};
pub use identity::{IDENTITY, StateIdentity};
pub use inplace::{Change, EDITED_IN_PLACE, Edit, edited_in_place};
pub use place::{Area, Place};
pub(crate) use problems::{problems, stored};
pub use read::TextHash;
pub use snapshot::{BrokenDocument, Snapshot};
pub use watch::{Hint, Watch, watch};
pub use write::Written;

use identity::{Doubt, Held};
use list::{Caches, SYNCED};
use moved::Memory;
use patience::Patience;
use place::{PLACED, folder};
use removed::Removed;
use trouble::Attempts;

/// The folder of secrets.
pub const SECRETS: &str = "secrets";
/// The folder of reports that the Control Plane has not acknowledged.
pub const OUTBOX: &str = "outbox";
/// The file of removals that a human let pass.
pub const APPROVED: &str = "approved";
/// The lock of that file.
const APPROVALS_LOCK: &str = ".approved.lock";
/// The file of what waits for approval, and of what the guard counts.
pub const HELD: &str = "held.yaml";
/// The line in `approved` by which a human says that no document is missing, though one may have been: the
/// directory is new, or lost a folder.
pub const COMPLETE: &str = "nothing-is-missing";

/// How long after the index a git writes HEAD, in all likelihood.
const HEAD_FOLLOWS: Duration = Duration::from_millis(50);

/// What the agent's temporary files start with: hidden, so that listings skip them, and ours, so that those a
/// crash leaves behind can be swept.
pub(crate) const TEMPORARY: &str = ".moenet-tmp-";

/// The state directory of one router.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    held: Option<Mutex<Held>>,
    /// Held during a whole pass and a whole write, so that a listing never sees half a write.
    caches: Mutex<Caches>,
    writes: AtomicU64,
    attempts: Attempts,
    patience: Patience,
    memory: Mutex<Memory>,
    removed: Mutex<Removed>,
    /// Where the schemas are, for the first line of what the agent writes.
    schemas: Option<PathBuf>,
}

impl Store {
    /// Opens the state directory for the agent: creates what is missing and takes the lock.
    ///
    /// # Errors
    /// When another agent holds the lock, or when it cannot be created or read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        create_folder(dir, 0o755)?;
        let dir = fs::canonicalize(dir).map_err(StoreError::io("open", dir))?;
        // A disk that is read-only has no lock file to create; what is there is run all the same.
        let there = StateIdentity::read(&dir);
        let known = there
            .clone()
            .unwrap_or_else(|| StateIdentity::new(Succession::default()));
        let mut held = Held::take(&dir, known)?;
        if there.is_none() {
            held.known.write(&dir)?;
            let doubt = match has_documents(&dir) {
                true => Doubt::None,
                false => Doubt::All,
            };
            held.set_doubt(&dir, doubt)?;
        } else {
            // On a read-only disk the older file goes on serving.
            let _ = identity::migrate(&dir, &held.known);
            // A tree that Git moved says nothing about what is missing.
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
            patience: Patience::default(),
            memory: Mutex::default(),
            removed,
            schemas: None,
        };
        store.sweep();
        store.finish_writes()?;
        store.read_pending();
        Ok(store)
    }

    /// Opens the state directory for looking only: no lock, and nothing is created.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        identity::root(dir)?;
        let dir = fs::canonicalize(dir).map_err(StoreError::io("open", dir))?;
        let (caches, writes, attempts, patience, memory) = Default::default();
        let removed = Mutex::new(Removed::read(&dir));
        Ok(Self {
            dir,
            held: None,
            caches,
            writes,
            attempts,
            patience,
            memory,
            removed,
            schemas: None,
        })
    }

    /// Lets the documents that the agent writes name their schema, so that editors complete and check
    /// them: `<schemas>/BgpSession.json`. Without it they name none.
    #[must_use]
    pub fn with_schemas(self, schemas: PathBuf) -> Self {
        Self {
            schemas: Some(schemas),
            ..self
        }
    }

    /// Lets changes wait until nothing has happened to a file for this time, and until whoever writes it has
    /// closed it; see [`Snapshot::settled`]. Without it every change is believed at once.
    #[must_use]
    pub fn with_patience(self, quiet: Duration) -> Self {
        Self {
            patience: Patience::new(quiet),
            ..self
        }
    }

    /// Watches this directory; see [`watch`]. What is open for writing is known to the listings from then on.
    pub fn watch(&self) -> tokio::sync::mpsc::Receiver<Hint> {
        Watch::default().start_with(&self.dir, self.patience.writers.clone())
    }

    /// The state directory, without symbolic links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file of a place.
    pub fn path(&self, place: &Place) -> PathBuf {
        self.dir.join(place.relative())
    }

    /// The text in a place, where a file of a document's kind and size is; never waits for a pipe.
    pub fn text(&self, place: &Place) -> Option<String> {
        read::text(&self.path(place))
            .ok()
            .flatten()
            .map(|read| read.text)
    }

    /// The identity of the directory; none in one that is only looked at and that has none yet.
    pub fn identity(&self) -> Option<StateIdentity> {
        match &self.held {
            Some(held) => Some(lock(held).known.clone()),
            None => StateIdentity::read(&self.dir),
        }
    }

    /// Whether this agent holds the lock and may write.
    pub fn is_writable(&self) -> bool {
        self.held.is_some()
    }

    /// The removals that a human let pass (`moenet-agent approve`): one object a line in `approved`, as
    /// `sessions/wg_1`.
    pub fn approved(&self) -> BTreeSet<String> {
        // What an old tree approved is no approval.
        if self.moved().is_some() {
            return BTreeSet::new();
        }
        approvals(&self.dir).unwrap_or_default()
    }

    /// Whether any applied record is on disk.
    pub fn has_applied(&self) -> bool {
        let folders = PLACED.map(|kind| self.dir.join(folder(Area::Applied, kind)));
        let entries = folders
            .into_iter()
            .filter_map(|folder| fs::read_dir(folder).ok());
        let mut files = entries.flatten().flatten();
        files.any(|entry| names::is_document(Path::new(&entry.file_name())))
    }

    /// Approves these changes, beside those that are approved already. It is an operator's call beside the running
    /// agent, so it does not need the agent's lock.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn approve(dir: &Path, objects: &BTreeSet<String>) -> Result<(), StoreError> {
        change_approvals(dir, |approved| approved.extend(objects.iter().cloned()))
    }

    /// Takes approvals back. Others that were given meanwhile stay.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn spend_approvals(&self, spent: &BTreeSet<String>) -> Result<(), StoreError> {
        change_approvals(&self.dir, |approved| {
            approved.retain(|line| !spent.contains(line));
        })
    }

    /// How many files were written or removed.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// How many texts were parsed; a pass over an unchanged directory parses none.
    pub fn parsed(&self) -> u64 {
        self.caches().parsed()
    }

    /// Lists and parses everything; what did not change since the last call is not parsed again.
    ///
    /// # Errors
    /// When the directory is gone or is another than the one that was opened. Never an empty listing.
    pub fn load(&self) -> Result<Snapshot, StoreError> {
        let listed = self.list();
        self.attempts.read(&listed);
        listed
    }

    fn list(&self) -> Result<Snapshot, StoreError> {
        let mut caches = self.caches();
        identity::root(&self.dir)?;
        if let Some(kept) = self.listing_kept()? {
            return Ok(kept);
        }
        let (known, doubt) = match &self.held {
            Some(held) => {
                let mut held = lock(held);
                held.verify(&self.dir)?;
                held.renew_identity(&self.dir)?;
                identity::keep_copy(&self.dir, &held.known);
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
        let mut snapshot = caches.load(&self.dir, !known, &self.patience);
        // A directory that was unmounted meanwhile was listed as an empty one.
        if let Some(held) = &self.held {
            lock(held).verify(&self.dir)?;
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
        self.keep_listing(&snapshot);
        Ok(snapshot)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// Says that the documents are all there: an operator has approved every removal that was held. Until this is
    /// said of a directory that is new, or that lost a folder, listings are not [`Snapshot::complete`].
    ///
    /// # Errors
    /// When the doubt or a missing folder cannot be written.
    pub fn confirm(&self) -> Result<(), StoreError> {
        self.confirm_listed(&self.list()?)
    }

    /// The same by a listing that was taken before. Applied objects of the operator whose documents are missing stay
    /// in doubt: neither a list of the Control Plane nor an approval of other objects says anything about them.
    ///
    /// # Errors
    /// When the doubt or a missing folder cannot be written.
    pub fn confirm_listed(&self, before: &Snapshot) -> Result<(), StoreError> {
        let _one_at_a_time = self.caches();
        let mut held = self.writable_tree()?;
        create_layout(&self.dir)?;
        let doubt = match held.doubt != Doubt::None && before.lacks_operators_documents() {
            true => Doubt::Operators,
            false => Doubt::None,
        };
        held.set_doubt(&self.dir, doubt)
    }

    /// The directory, proved to be the one that was opened, for writing.
    fn writable(&self) -> Result<MutexGuard<'_, Held>, StoreError> {
        let held = self.held.as_ref().ok_or_else(|| StoreError::ReadOnly {
            dir: self.dir.clone(),
        })?;
        let mut held = lock(held);
        held.verify(&self.dir)?;
        Ok(held)
    }

    /// As [`Self::writable`], for a file of the tree that Git may have moved.
    fn writable_tree(&self) -> Result<MutexGuard<'_, Held>, StoreError> {
        at_branch(&self.dir)?;
        self.writable()
    }

    fn caches(&self) -> MutexGuard<'_, Caches> {
        lock(&self.caches)
    }

    /// A folder that vanished leaves a doubt that outlives its return.
    fn note_missing_folder(&self) {
        if let Some(held) = &self.held
            && missing_folder(&self.dir)
        {
            // On a full disk the doubt is kept in memory, and the folder is missing at the next start too.
            let _ = lock(held).set_doubt(&self.dir, Doubt::All);
        }
    }

    /// Ends the doubt about objects of the operator once each that is applied has its document again, or is gone.
    fn end_doubt(&self, snapshot: &mut Snapshot) {
        let Some(held) = &self.held else { return };
        let mut held = lock(held);
        let ended = held.doubt == Doubt::Operators
            && snapshot.complete
            && snapshot.settled
            && !snapshot.lacks_operators_documents();
        // A doubt that cannot be removed from the disk lasts.
        if ended && held.set_doubt(&self.dir, Doubt::None).is_ok() {
            snapshot.operators_complete = true;
        }
    }

    /// Removes what a crash left half-written.
    fn sweep(&self) {
        let folders = layout()
            .into_iter()
            .chain([SECRETS, OUTBOX].map(PathBuf::from));
        for folder in folders {
            atomic::sweep(&self.dir.join(folder));
        }
        atomic::sweep(&self.dir);
    }
}

/// Refuses to write to a tree that is not that of the history's branch: it would keep Git from going back.
fn at_branch(dir: &Path) -> Result<(), StoreError> {
    moved::wait_for_git(dir, HEAD_FOLLOWS);
    match head::moved(dir) {
        None => Ok(()),
        Some(at) => Err(StoreError::Moved {
            dir: dir.to_owned(),
            at,
        }),
    }
}

/// The lines of the file of approvals.
fn approvals(dir: &Path) -> Result<BTreeSet<String>, StoreError> {
    let path = dir.join(APPROVED);
    let text = read::text(&path)?.map(|read| read.text).unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

/// Changes the file of approvals. Operator and agent both do, so one waits for the other.
fn change_approvals(
    dir: &Path,
    change: impl FnOnce(&mut BTreeSet<String>),
) -> Result<(), StoreError> {
    at_branch(dir)?;
    let lock = dir.join(APPROVALS_LOCK);
    let mut options = fs::OpenOptions::new();
    let options = options.create(true).truncate(false).write(true);
    let file = options.open(&lock).map_err(StoreError::io("open", &lock))?;
    file.lock().map_err(StoreError::io("lock", &lock))?;
    let mut approved = approvals(dir)?;
    change(&mut approved);
    let path = dir.join(APPROVED);
    if approved.is_empty() {
        return atomic::remove(&path).map(drop);
    }
    let lines: String = approved.iter().map(|line| format!("{line}\n")).collect();
    atomic::write(&path, lines.as_bytes(), 0o644)
}

/// What a state directory is known by; `None`: none is there.
pub(crate) fn state_directory(dir: &Path) -> Option<String> {
    StateIdentity::read(dir).map(|known| known.identity.to_string())
}

/// A panic of another thread leaves nothing half-changed that matters: caches are checked against files.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The folders that hold documents: when one of them is missing, documents may be.
fn document_folders() -> impl Iterator<Item = PathBuf> {
    let many = || PLACED.into_iter().filter(|kind| !kind.is_single());
    let areas = [Area::Documents, Area::Overrides, Area::Applied];
    areas
        .into_iter()
        .flat_map(move |area| many().map(move |kind| folder(area, kind)))
}

/// All folders, parents first.
fn layout() -> Vec<PathBuf> {
    let kinds = || PLACED.into_iter().filter(|kind| !kind.is_single());
    let mut folders: Vec<PathBuf> = document_folders().collect();
    folders.extend(kinds().map(|kind| folder(Area::Status, kind)));
    folders.extend(kinds().map(|kind| Path::new(SYNCED).join(kind.folder())));
    for tree in [Area::Overrides, Area::Applied, Area::Status]
        .map(Area::folder)
        .into_iter()
        .chain([SYNCED])
    {
        folders.insert(0, tree.into());
    }
    folders
}

fn missing_folder(dir: &Path) -> bool {
    document_folders().any(|folder| !dir.join(folder).is_dir())
}

fn has_documents(dir: &Path) -> bool {
    let one_of = |folder: PathBuf| {
        let entries = fs::read_dir(dir.join(folder))
            .into_iter()
            .flatten()
            .flatten();
        entries.into_iter().any(|entry| {
            names::is_document(Path::new(&entry.file_name())) && entry.file_name() != HELD
        })
    };
    one_of(PathBuf::new()) || document_folders().any(one_of)
}

fn create_layout(dir: &Path) -> Result<(), StoreError> {
    for folder in layout() {
        create_folder(&dir.join(folder), 0o755)?;
    }
    for folder in [SECRETS, OUTBOX] {
        create_folder(&dir.join(folder), 0o700)?;
    }
    Ok(())
}

fn create_folder(path: &Path, mode: u32) -> Result<(), StoreError> {
    // Looked for first: on a read-only file system, creating what is there fails too.
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(StoreError::io("create", path))
}
