//! The files of a network at one moment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::watch::Watch;
use crate::fleet::FleetError;
use crate::fleet::change::{ChangeError, Changes, LockedDir};
use crate::fleet::files::{self, Changed, Stamps};
use crate::fleet::network::FleetFiles;
use crate::fleet::store::MakeChange;
use crate::fleet::tree;
use crate::http::ApiError;
use crate::intervals::{FLEET_FILE_QUIET, FLEET_FILE_WAIT, FLEET_POLL};
use crate::util::file::Stamp;
use crate::util::sorted::Sorted as _;
use crate::util::task::pause;

/// Time between two looks at all files, as a multiple of the duration of a look: where events tell of changes, and
/// where they do not.
const SHARE_WATCHED: u32 = 100;
const SHARE_BLIND: u32 = 10;

/// Reads the files only while no one writes them.
pub(super) struct Snapshots {
    root: PathBuf,
    last: Mutex<Last>,
    /// The stamps of young files and folders after changes by this server, which wrote complete files.
    own: Mutex<Stamps>,
}

struct Last {
    looked: Option<Instant>,
    /// When all files are looked at again; an event may be lost.
    all_due: Instant,
    watch: Watch,
    /// Files and folders of which something changed since `stamps`.
    hints: BTreeSet<PathBuf>,
    stamps: Stamps,
    /// The files with these stamps.
    files: Option<Arc<FleetFiles>>,
    error: Option<ApiError>,
}

impl Snapshots {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            last: Mutex::new(Last {
                looked: None,
                all_due: Instant::now(),
                watch: Watch::new(root),
                hints: BTreeSet::new(),
                stamps: Stamps::new(),
                files: None,
                error: None,
            }),
            own: Mutex::default(),
        }
    }

    /// Returns the newest files, or an error while these change. Blocks until the files are quiet, unless there were
    /// others before. Looks once in an interval: at all files if that takes a small share of the time, else at those of
    /// which an event tells.
    pub(super) fn newest(&self) -> Result<Option<Arc<FleetFiles>>, ApiError> {
        let mut last = self.last.lock();
        if last.looked.is_none_or(|at| at.elapsed() >= FLEET_POLL) {
            last.error = self.look(&mut last).err();
            last.looked = Some(Instant::now());
        }
        match &last.error {
            Some(error) => Err(error.clone()),
            None => Ok(last.files.clone()),
        }
    }

    fn look(&self, last: &mut Last) -> Result<(), ApiError> {
        let internal = |error: FleetError| ApiError::internal(error.to_string());
        let deadline = Instant::now() + FLEET_FILE_WAIT;
        loop {
            let changed = self.changed(last).map_err(internal)?;
            if changed.is_empty() {
                last.hints.clear();
                return Ok(());
            }
            if self.is_quiet(&changed.new) {
                let files = last.files.as_deref().cloned();
                let mut files = files.unwrap_or_default();
                files::read_changed(&self.root, &changed, &mut files);
                // A writer may have started in the meantime.
                if changed.is_still(&self.root).map_err(internal)? {
                    last.take(files, changed);
                    return Ok(());
                }
            }
            if last.files.is_some() {
                return Err(ApiError::internal(
                    "the files of the network are being written; retry",
                ));
            }
            if Instant::now() > deadline {
                return Err(ApiError::internal(
                    "the files of the network change constantly; write them elsewhere and rename them",
                ));
            }
            pause(FLEET_FILE_QUIET);
        }
    }

    /// Returns what changed since the last files were read.
    fn changed(&self, last: &mut Last) -> Result<Changed, FleetError> {
        let begin = Instant::now();
        match last.watch.hints() {
            Some(hints) => last.hints.extend(hints),
            None => last.all_due = begin,
        }
        if begin < last.all_due {
            return match last.hints.is_empty() {
                true => Ok(Changed::default()),
                false => Changed::at(&self.root, &last.stamps, &last.hints),
            };
        }
        let changed = Changed::since(&self.root, &last.stamps)?;
        // After the listing, because that names the folders.
        let before = last.stamps.keys();
        let kept = before.filter(|path| changed.gone.binary_search(path).is_err());
        let is_new = last.watch.follow(kept.chain(changed.new.keys()));
        let share = match last.watch.is_blind() {
            true => SHARE_BLIND,
            false => SHARE_WATCHED,
        };
        let is_calm = changed.is_empty() && !is_new;
        last.all_due = match is_calm {
            true => begin + begin.elapsed() * share,
            // What changed before the folder was watched has no event.
            false => begin,
        };
        Ok(changed)
    }

    /// Changes files under the lock of the directory, once they are quiet. Its own files are quiet at once, if no one
    /// else writes meanwhile. Returns the changed files. Blocks.
    pub(super) fn change(&self, mut make: MakeChange) -> Result<Vec<String>, ChangeError> {
        let dir = LockedDir::lock(&self.root)?;
        let (before, files) = self.quiet_files()?;
        let mut changes = Changes::in_dir(dir, files);
        let must = make(&mut changes)?;
        let changed = changes.write(must)?;
        if let Ok(after) = tree::stamps(&self.root) {
            let is_own = |path: &Path| changed.iter().any(|file| Path::new(file).starts_with(path));
            let paths = before.keys().chain(after.keys());
            let mut others = paths.filter(|path| !is_own(path));
            if others.all(|path| before.get(path) == after.get(path)) {
                let mut own = self.own.lock();
                own.retain(|path, stamp| after.get(path) == Some(&*stamp) && is_young(stamp));
                own.extend(after.into_iter().filter(|(path, _)| is_own(path)));
            }
        }
        // The next request is answered from these files, before the interval ends and an event tells of them.
        let mut last = self.last.lock();
        last.looked = None;
        last.all_due = Instant::now();
        Ok(changed)
    }

    /// Reads all files of the directory once they are quiet.
    fn quiet_files(&self) -> Result<(Stamps, FleetFiles), ChangeError> {
        let deadline = Instant::now() + FLEET_FILE_WAIT;
        loop {
            let stamps = tree::stamps(&self.root)?;
            if self.is_quiet(&stamps) {
                let files = tree::read(&self.root)?;
                // A writer may have started in the meantime.
                if tree::stamps(&self.root)? == stamps {
                    return Ok((stamps, files));
                }
            }
            if Instant::now() > deadline {
                return Err(ChangeError::ChangedMeanwhile("the fleet".to_owned()));
            }
            pause(FLEET_FILE_QUIET);
        }
    }

    fn is_quiet(&self, stamps: &Stamps) -> bool {
        let own = self.own.lock();
        let quiet = |(path, stamp): (&PathBuf, &Option<Stamp>)| {
            !is_young(stamp) || own.get(path) == Some(stamp)
        };
        stamps.iter().all(quiet)
    }
}

impl Last {
    fn take(&mut self, files: FleetFiles, changed: Changed) {
        self.files = files.has_network().then(|| Arc::new(files));
        for path in &changed.gone {
            self.stamps.remove(path);
        }
        match self.stamps.is_empty() {
            // A map that is made at once has no gaps.
            true => self.stamps = changed.new.into_iter().sorted_map(),
            false => self.stamps.extend(changed.new),
        }
        self.hints.clear();
    }
}

fn is_young(stamp: &Option<Stamp>) -> bool {
    let age = stamp.as_ref().and_then(Stamp::age);
    age.is_some_and(|age| age < FLEET_FILE_QUIET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::change::Must;
    use std::cell::Cell;
    use std::{fs, thread};

    #[test]
    fn announced_change_needs_no_look_at_all_files() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("sessions/jp1")).unwrap();
        fs::write(at("network.yaml"), "asn: 1").unwrap();
        fs::write(at("sessions/jp1/a.yaml"), "asn: 2").unwrap();
        let snapshots = Snapshots::new(root.path());
        let before = snapshots.newest().unwrap().unwrap();
        let look = || {
            let mut last = snapshots.last.lock();
            last.all_due = Instant::now() + FLEET_FILE_WAIT * 100;
            snapshots.look(&mut last).map(|()| last.files.clone())
        };
        // The first look at all files watched the folders.
        assert!(Arc::ptr_eq(&look().unwrap().unwrap(), &before));
        fs::write(at("sessions/jp1/a.yaml"), "asn: 3").unwrap();
        fs::create_dir(at("sessions/hk1")).unwrap();
        fs::write(at("sessions/hk1/b.yaml"), "asn: 4").unwrap();
        let end = Instant::now() + FLEET_FILE_WAIT;
        let text = loop {
            let files = look().unwrap_or(None).unwrap_or_default();
            match files.text("sessions/hk1/b.yaml") {
                Some(_) => break files.text("sessions/jp1/a.yaml").cloned(),
                None => assert!(Instant::now() < end),
            }
            thread::sleep(FLEET_POLL / 10);
        };
        assert_eq!(text.as_deref(), Some("asn: 3"));
        fs::remove_dir_all(at("sessions/hk1")).unwrap();
        let is_there = |files: Option<Arc<FleetFiles>>| files.unwrap().has("sessions/hk1/b.yaml");
        while look().map_or(true, is_there) {
            assert!(Instant::now() < end + FLEET_FILE_WAIT);
        }
    }

    #[test]
    fn own_change_is_quiet_at_once_and_others_are_not() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let network = "{asn: 4242420998, prefixes: {ipv6: 'fd48:4da8:420::/48'}}";
        fs::write(at("network.yaml"), network).unwrap();
        let snapshots = Snapshots::new(root.path());
        let is_quiet = || snapshots.is_quiet(&files::stamps(root.path()).unwrap());
        let id = Cell::new(0);
        let add = |beside: Option<PathBuf>| {
            id.set(id.get() + 1);
            let id = id.get();
            let make = move |changes: &mut Changes| {
                let router = format!("{{id: {id}, token: of-{id}, address: r{id}.example.net}}");
                changes.create(&format!("routers/r{id}.yaml"), router)?;
                if let Some(path) = &beside {
                    fs::write(path, "# by another program").unwrap();
                }
                Ok(Must::NotGetWorse)
            };
            snapshots.change(Box::new(make)).unwrap();
        };
        for _ in 0..3 {
            add(None);
            assert!(is_quiet());
        }
        add(Some(at("routers/other.yaml")));
        assert!(!is_quiet(), "another program wrote other.yaml");
        add(None);
        fs::write(at("routers/r1.yaml"), "{id: 9, token: of-9}").unwrap();
        assert!(!is_quiet(), "another program wrote r1.yaml");
    }

    #[test]
    fn change_waits_for_a_file_that_is_being_saved() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("jp1/sessions.yaml");
        fs::create_dir(root.path().join("jp1")).unwrap();
        fs::write(&path, "sessions:\n- uui").unwrap();
        let snapshots = Snapshots::new(root.path());
        let whole = "sessions:\n- uuid: a\n";
        let make = move |changes: &mut Changes| {
            let read = changes.files().text("jp1/sessions.yaml").unwrap();
            assert_eq!(&**read, whole);
            Ok(Must::NotGetWorse)
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(FLEET_FILE_QUIET / 2);
                fs::write(&path, whole).unwrap();
            });
            snapshots.change(Box::new(make)).unwrap();
        });
    }
}
