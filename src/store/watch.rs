//! Watches for changes. An event is only a hint to list again, so every failure of events ends in
//! [`Hint::Everything`], and without events a timer gives the hints.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::debounce::Writers;
use super::moved::SharedMemory;
use super::read;
use super::unchanged::Changes;
use super::{APPROVED, Area, IDENTITY, Place, SECRETS, document_folders};
use crate::intervals::{EVENTS_GATHER, SCAN_POLL, WATCH_CHECK};
use crate::util::file::{self, Stamp};
use crate::util::fs;
use crate::util::notices::Notices;
use crate::util::sorted::Sorted as _;

/// More changes at once than this become [`Hint::Everything`].
const MANY: usize = 256;
/// Length of the queue of paths between the kernel's events and the watch thread; an overflow
/// becomes [`Hint::Everything`].
const QUEUE: usize = 4096;
/// Minimum interval between two scans of all files, as a multiple of the duration of a scan.
const SCAN_SHARE: u32 = 100;

/// A place that may have changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// The place is unknown; list again.
    Everything,
    /// A document, or an override.
    Changed(Place),
}

/// Settings of the watch.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// How often to check whether the watched folders are still the same, and, where events are not
    /// available, whether they have become available.
    pub poll: Duration,
}

impl Default for Watch {
    fn default() -> Self {
        Self { poll: WATCH_CHECK }
    }
}

impl Watch {
    /// Watches a state directory until the receiver is dropped. If the kernel has no watches left,
    /// polls the files' stamps every second, and requests watches again at the interval; while a folder is
    /// missing, sends [`Hint::Everything`] at the same interval. Files that the agent writes for itself
    /// (`status/`, `applied/`, `outbox/`, `.git/`) give no hints.
    pub fn start(self, dir: &Path) -> mpsc::Receiver<Hint> {
        let (writers, changes, memory) = Default::default();
        self.start_with(dir, writers, changes, memory)
    }

    pub(super) fn start_with(
        self,
        dir: &Path,
        writers: Writers,
        changes: Changes,
        memory: SharedMemory,
    ) -> mpsc::Receiver<Hint> {
        let (hints, receiver) = mpsc::channel(MANY);
        let dir = dir.to_owned();
        let thread = std::thread::Builder::new().name("watch-state".into());
        let run = move || Watched::new(dir, writers, changes, memory).run(self.poll, &hints);
        if let Err(error) = thread.spawn(run) {
            tracing::error!(%error, "cannot watch the state directory; changes are noticed at the next full pass");
        }
        receiver
    }
}

/// Logged when events become unavailable.
const BLIND: &str = "inotify does not watch the state directory, so the agent polls it every \
                     second; fs.inotify.max_user_watches or max_user_instances is too low, or \
                     other programs of this user use all watches";

/// Logged when events are available again.
const SEEING: &str = "inotify watches the state directory again";

/// The folders that are watched: documents, overrides and secrets.
fn folders(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let overrides = [Area::Overrides.folder().into(), SECRETS.into()];
    let folders = document_folders()
        .filter(|folder| !folder.starts_with("applied"))
        .chain(overrides);
    let inside: Vec<PathBuf> = folders.map(|folder| dir.join(folder)).collect();
    std::iter::once(dir.to_owned()).chain(inside)
}

/// Device, inode and birth of a folder.
type Identity = (u64, u64, Option<SystemTime>);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino(), metadata.created().ok())
}

/// The connection from the kernel's events to the thread.
#[derive(Clone)]
struct Events {
    dir: PathBuf,
    /// The directory as listings name it.
    listed: PathBuf,
    paths: SyncSender<PathBuf>,
    /// Paths were lost.
    overflow: Arc<AtomicBool>,
    writers: Writers,
    changes: Changes,
    memory: SharedMemory,
}

/// The watched folders, and how they are watched.
struct Watched {
    dir: PathBuf,
    /// `None` while the kernel has no instance left.
    watcher: Option<RecommendedWatcher>,
    armed: BTreeMap<PathBuf, Identity>,
    events: Events,
    paths: Receiver<PathBuf>,
    /// There are folders without kernel events.
    blind: bool,
    unwatched: Notices,
    /// Hash of the folders' content at the last scan, while `blind`.
    scanned: u64,
    next_scan: Instant,
}

impl Watched {
    fn new(dir: PathBuf, writers: Writers, changes: Changes, memory: SharedMemory) -> Self {
        let listed = dir.clone();
        // Events name real paths.
        let dir = fs::canonicalize(&dir).unwrap_or(dir);
        let (sender, paths) = sync_channel(QUEUE);
        let events = Events {
            dir: dir.clone(),
            listed,
            paths: sender,
            overflow: Arc::default(),
            writers,
            changes,
            memory,
        };
        let (armed, next_scan) = (BTreeMap::new(), Instant::now());
        Self {
            dir,
            watcher: None,
            armed,
            events,
            paths,
            blind: false,
            unwatched: Notices::default(),
            scanned: 0,
            next_scan,
        }
    }

    fn run(mut self, poll: Duration, hints: &mpsc::Sender<Hint>) {
        self.arm();
        let mut next_look = Instant::now() + poll;
        while !hints.is_closed() {
            // Short enough to end soon after the receiver is dropped.
            let wait = next_look
                .saturating_duration_since(Instant::now())
                .min(SCAN_POLL);
            let mut found = match self.paths.recv_timeout(wait) {
                Ok(first) => self.gather(first),
                // This side holds a sender too.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => BTreeSet::new(),
            };
            if self.blind && self.scan() {
                found.insert(Hint::Everything);
            }
            let due = Instant::now() >= next_look;
            if due {
                next_look = Instant::now() + poll;
            }
            if self.events.overflow.swap(false, Ordering::Relaxed) {
                found.insert(Hint::Everything);
            }
            if found.contains(&Hint::Everything) {
                // A folder may have been replaced, even by one with the same inode number.
                self.disarm();
            }
            if (due || found.contains(&Hint::Everything)) && self.arm() {
                found = [Hint::Everything].into();
            }
            if found.contains(&Hint::Everything) {
                found = [Hint::Everything].into();
            }
            if found
                .into_iter()
                .any(|hint| hints.blocking_send(hint).is_err())
            {
                return;
            }
        }
    }

    /// Returns the hints of one burst of events.
    fn gather(&self, first: PathBuf) -> BTreeSet<Hint> {
        let end = Instant::now() + EVENTS_GATHER;
        let mut found: BTreeSet<Hint> = self.hint(&first).into_iter().sorted_set();
        while let Ok(path) = self
            .paths
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            found.extend(self.hint(&path));
        }
        if found.len() > MANY {
            return [Hint::Everything].into();
        }
        found
    }

    fn hint(&self, path: &Path) -> Option<Hint> {
        let inside = path.strip_prefix(&self.dir).ok()?;
        let Some(first) = inside.iter().next().and_then(|first| first.to_str()) else {
            return Some(Hint::Everything);
        };
        if first.starts_with('.') || matches!(first, "status" | "applied" | "outbox") {
            return None;
        }
        if first == SECRETS
            || first == APPROVED
            || first == IDENTITY
            || is_document_folder(inside)
            || inside.ends_with("overrides")
        {
            return Some(Hint::Everything);
        }
        // A file that looks like a document and has no place is a problem that a listing reports.
        let looks_like_one = inside
            .extension()
            .is_some_and(super::names::looks_like_a_document)
            && inside
                .file_name()
                .is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."));
        Place::parse(inside)
            .map(Hint::Changed)
            .or(looks_like_one.then_some(Hint::Everything))
    }

    /// Scans the stamps of all files instead of waiting for events. `true`: at least one changed.
    fn scan(&mut self) -> bool {
        let begin = Instant::now();
        if begin < self.next_scan {
            return false;
        }
        let mut hasher = DefaultHasher::new();
        for folder in folders(&self.dir) {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let stamps = entries.map(|entry| (entry.file_name(), entry.metadata().ok()));
            let mut stamps: Vec<_> = stamps
                .map(|(file, found)| (file, found.as_ref().map(Stamp::of)))
                .collect();
            stamps.sort();
            stamps.hash(&mut hasher);
        }
        self.next_scan = begin + SCAN_POLL.max(begin.elapsed() * SCAN_SHARE);
        let now = hasher.finish();
        std::mem::replace(&mut self.scanned, now) != now
    }

    fn disarm(&mut self) {
        // The end of a write may be missed while events are not watched.
        self.events.writers.forget();
        self.events.changes.watch(false);
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for path in std::mem::take(&mut self.armed).into_keys() {
            let _ = watcher.unwatch(&path);
        }
    }

    /// Watches all existing folders, as far as the kernel can. `true`: a folder is missing, was
    /// replaced, or is watched only from now on, so that events may have been missed.
    fn arm(&mut self) -> bool {
        let (mut amiss, mut refused) = (false, None);
        if self.watcher.is_none() {
            let events = self.events.clone();
            match notify::recommended_watcher(move |event| forward(event, &events)) {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => refused = Some(error),
            }
        }
        for path in folders(&self.dir) {
            let now = fs::metadata(&path).ok().map(|metadata| identity(&metadata));
            let before = self.armed.get(&path).copied();
            if now.is_some() && now == before {
                continue;
            }
            if let (Some(_), Some(watcher)) = (self.armed.remove(&path), &mut self.watcher) {
                let _ = watcher.unwatch(&path);
            }
            let watched = self
                .watcher
                .as_mut()
                .map(|w| w.watch(&path, RecursiveMode::NonRecursive));
            match (now, watched) {
                (Some(now), Some(Ok(()))) => drop(self.armed.insert(path, now)),
                // The folder is scanned instead, so no change in it is missed.
                (Some(_), Some(Err(error))) => {
                    refused = Some(error);
                    continue;
                }
                (Some(_), None) => continue,
                (None, _) => {}
            }
            amiss = true;
        }
        self.tell(refused);
        if amiss {
            self.events.changes.note_anything();
        }
        let is_whole = folders(&self.dir).all(|folder| self.armed.contains_key(&folder));
        self.events.changes.watch(is_whole);
        amiss
    }

    /// Logs once that events are unavailable, and once that they are available again.
    fn tell(&mut self, refused: Option<notify::Error>) {
        self.blind = refused.is_some();
        match (self.unwatched.edge(self.blind), refused) {
            (Some(true), Some(error)) => tracing::warn!(%error, "{BLIND}"),
            (Some(false), _) => tracing::info!("{SEEING}"),
            _ => {}
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.events.changes.watch(false);
    }
}

/// Runs in the watcher's own thread, and waits for no reader of the paths: the queue overflows instead.
fn forward(event: notify::Result<Event>, to: &Events) {
    let Ok(event) = event else {
        to.changes.note_anything();
        to.writers.forget();
        to.overflow.store(true, Ordering::Relaxed);
        return;
    };
    note_writers(&event, &to.writers);
    // Reading a file is an event too, and the agent reads all of them.
    if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
    {
        return;
    }
    note(&event, to);
    if event.need_rescan() {
        to.writers.forget();
        to.overflow.store(true, Ordering::Relaxed);
    }
    for path in event.paths {
        if to.paths.try_send(path).is_err() {
            to.overflow.store(true, Ordering::Relaxed);
        }
    }
}

/// Notes the files that an event announces.
fn note(event: &Event, to: &Events) {
    if event.paths.is_empty() || event.need_rescan() {
        return to.changes.note_anything();
    }
    let lasting = event.paths.iter().filter(|path| !file::is_temporary(path));
    for path in lasting {
        match path.strip_prefix(&to.dir).ok().and_then(Place::parse) {
            Some(place) if is_listed(&place, path, to) => {}
            Some(place) => to.changes.note(&to.listed.join(place.relative())),
            None => to.changes.note_anything(),
        }
    }
}

/// Returns whether the last listing has what is in a place now, as when the agent itself wrote it before.
fn is_listed(place: &Place, path: &Path, to: &Events) -> bool {
    let is_unchanged = || to.memory.lock().unchanged(&to.changes).is_some();
    let Some(Ok(now)) = is_unchanged().then(|| read::text(path)) else {
        return false;
    };
    // Another listing may have begun while the file was read.
    let memory = to.memory.lock();
    let listing = memory.unchanged(&to.changes);
    listing.is_some_and(|listing| listing.had(place, now.as_ref()))
}

/// Records writers: the kernel reports each write to a file and the end of writing, also when a writer is killed.
fn note_writers(event: &Event, writers: &Writers) {
    let note: fn(&Writers, &Path) = match event.kind {
        EventKind::Modify(ModifyKind::Data(_)) => Writers::began,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Remove(_)
        | EventKind::Modify(ModifyKind::Name(_)) => Writers::ended,
        _ => return,
    };
    event.paths.iter().for_each(|path| note(writers, path));
}

fn is_document_folder(inside: &Path) -> bool {
    // Most events are of files.
    inside.extension().is_none() && document_folders().any(|folder| folder == inside)
}
