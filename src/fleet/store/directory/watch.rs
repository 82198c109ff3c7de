//! Events of the kernel that tell which files of a network may have changed. An event is only a hint to look, and a lost
//! one costs time only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;

use crate::fleet::files::is_folder;
use crate::fleet::network::{NETWORK, OWNERS, ROUTERS, SESSIONS, is_ignored};
use crate::util::file::Stamp;
use crate::util::fs;
use crate::util::notices::Notices;

/// More changed paths than this are found by a look at all files.
const MANY: usize = 4096;

/// The watched folders of a network.
pub(super) struct Watch {
    /// Events have absolute paths.
    root: PathBuf,
    /// `None` without an instance of inotify, and before the first look.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, Option<Stamp>>,
    heard: Arc<Mutex<Heard>>,
    refused: Notices,
}

#[derive(Default)]
struct Heard {
    paths: BTreeSet<PathBuf>,
    /// Whether there may be more.
    is_part: bool,
}

impl Watch {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()),
            watcher: None,
            watched: BTreeMap::new(),
            heard: Arc::default(),
            refused: Notices::default(),
        }
    }

    /// Returns whether the kernel does not tell of all changes.
    pub(super) fn is_blind(&self) -> bool {
        self.refused.first().is_some()
    }

    /// Returns the files and folders of which events told; `None` if there may be more.
    pub(super) fn hints(&mut self) -> Option<BTreeSet<PathBuf>> {
        let Heard { paths, mut is_part } = std::mem::take(&mut *self.heard.lock());
        if is_part {
            // A folder whose end was not heard is not watched any more.
            self.watched.clear();
        }
        let mut hints = BTreeSet::new();
        for path in &paths {
            // What is in the root concerns all files. A folder of the network has no other file than those that are
            // read; that of a router has.
            let Some((path, folder)) = inside(&self.root, path).filter(|(path, _)| {
                let folders = [ROUTERS, SESSIONS, OWNERS];
                folders.iter().any(|folder| path.starts_with(folder))
            }) else {
                is_part = true;
                continue;
            };
            // A folder may be another one now; one that is new is watched before it is listed.
            if let Some(watcher) = &mut self.watcher
                && self.watched.remove(path).is_some()
            {
                let _ = watcher.unwatch(&self.root.join(path));
            }
            if is_folder(&self.root, path) {
                self.watch(path);
            }
            let name = path.file_name().unwrap_or_default();
            hints.insert(match is_ignored(&name.to_string_lossy()) {
                true => folder.to_owned(),
                false => path.to_owned(),
            });
        }
        (!is_part).then_some(hints)
    }

    /// Watches the folders of these files. Returns whether one of them was not watched before.
    pub(super) fn follow<'p>(&mut self, paths: impl Iterator<Item = &'p PathBuf>) -> bool {
        let (mut folders, mut has_network) = (BTreeSet::new(), false);
        for path in paths {
            has_network |= path == Path::new(NETWORK);
            let is_file = path
                .extension()
                .is_some_and(|extension| extension == "yaml");
            match !is_file && is_folder(&self.root, path) {
                true => folders.insert(path.as_path()),
                false => folders.insert(path.parent().unwrap_or(Path::new(""))),
            };
        }
        if !has_network {
            (self.watcher, self.watched) = (None, BTreeMap::new());
            return false;
        }
        if self.watcher.is_none() {
            let heard = Arc::clone(&self.heard);
            match notify::recommended_watcher(move |event| hear(event, &heard)) {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => self.refuse(&error),
            }
        }
        let mut is_new = false;
        for folder in &folders {
            let folder = *folder;
            let now = Stamp::at(&self.root.join(folder));
            let known = self.watched.get(folder).copied().flatten();
            if known
                .zip(now)
                .is_none_or(|(known, now)| !known.is_same_file(&now))
            {
                is_new |= self.watch(folder);
            }
        }
        let watches_all = folders.iter().all(|it| self.watched.contains_key(*it));
        if watches_all && self.refused.edge(false) == Some(false) {
            tracing::info!("inotify watches all folders of the fleet again");
        }
        is_new
    }

    fn watch(&mut self, folder: &Path) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let path = self.root.join(folder);
        match watcher.watch(&path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(folder.to_owned(), Stamp::at(&path));
                true
            }
            // It may be gone by now.
            Err(_) if !fs::is_dir(&path) => false,
            Err(error) => {
                self.refuse(&error);
                false
            }
        }
    }

    fn refuse(&self, error: &notify::Error) {
        if self.refused.edge(true) == Some(true) {
            tracing::warn!(%error, "inotify does not watch all folders of the fleet, so that changes are found later; raise fs.inotify.max_user_watches");
        }
    }
}

/// Returns a path below the root with its folder; `None` for one in the root.
fn inside<'p>(root: &Path, path: &'p Path) -> Option<(&'p Path, &'p Path)> {
    let path = path.strip_prefix(root).ok()?;
    let folder = path.parent()?;
    (folder != Path::new("")).then_some((path, folder))
}

/// Runs in the thread of the watcher, so that it never waits.
fn hear(event: notify::Result<Event>, heard: &Mutex<Heard>) {
    let mut heard = heard.lock();
    let Ok(event) = event else {
        heard.is_part = true;
        return;
    };
    // Reading a file is an event too.
    if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
    {
        return;
    }
    heard.is_part |= event.need_rescan() || heard.paths.len() >= MANY;
    if !heard.is_part {
        heard.paths.extend(event.paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::files;
    use std::fs;
    use std::time::{Duration, Instant};

    #[test]
    fn event_names_files_also_of_folders_that_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("sessions/jp1")).unwrap();
        fs::write(root.join("network.yaml"), "asn: 1").unwrap();
        let mut watch = Watch::new(root);
        let stamps = files::stamps(root).unwrap();
        assert!(watch.follow(stamps.keys()));
        assert!(!watch.follow(stamps.keys()));
        assert_eq!(watch.hints(), Some(BTreeSet::new()), "reading is no change");
        let mut wait = |wanted: &str| {
            let end = Instant::now() + Duration::from_secs(10);
            let mut found = BTreeSet::new();
            while !found.contains(Path::new(wanted)) {
                assert!(Instant::now() < end, "{wanted}: {found:?}");
                found.extend(watch.hints().unwrap());
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        let write = |path: &str| fs::write(root.join(path), "asn: 2").unwrap();
        write("sessions/jp1/a.yaml");
        wait("sessions/jp1/a.yaml");
        for _ in 0..2 {
            fs::create_dir(root.join("sessions/hk1")).unwrap();
            wait("sessions/hk1");
            write("sessions/hk1/a.yaml");
            wait("sessions/hk1/a.yaml");
            fs::remove_dir_all(root.join("sessions/hk1")).unwrap();
            wait("sessions/hk1");
        }
        write("sessions/jp1/.a.yaml.swp");
        wait("sessions/jp1");
        write("network.yaml");
        let end = Instant::now() + Duration::from_secs(10);
        while watch.hints().is_some() {
            assert!(Instant::now() < end, "network.yaml concerns all files");
        }
    }
}
