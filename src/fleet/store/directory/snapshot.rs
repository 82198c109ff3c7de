//! The files of a network at one moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::fleet::FleetError;
use crate::fleet::change::ChangeError;
use crate::fleet::files::{self, Stamps};
use crate::fleet::network::FleetFiles;
use crate::http::ApiError;
use crate::intervals::{FLEET_FILE_QUIET, FLEET_FILE_WAIT, FLEET_POLL};
use crate::util::file::Stamp;
use crate::util::task::pause;

/// Reads the files only while no one writes them.
pub(super) struct Snapshots {
    root: PathBuf,
    last: Mutex<Last>,
    /// The stamps after the last change by this server, which wrote complete files.
    own: Mutex<Stamps>,
}

#[derive(Default)]
struct Last {
    looked: Option<Instant>,
    stamps: Stamps,
    /// The files with these stamps.
    files: Option<Arc<FleetFiles>>,
    error: Option<ApiError>,
}

impl Snapshots {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            last: Mutex::default(),
            own: Mutex::default(),
        }
    }

    /// Returns the newest files, or an error while these change. Blocks until the files are quiet, unless there were
    /// others before. Looks once in an interval, because a look costs a system call for each file.
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
            let stamps = files::stamps(&self.root).map_err(internal)?;
            if stamps == last.stamps {
                return Ok(());
            }
            if self.is_quiet(&stamps) {
                let before = last.files.as_deref().map(|files| (&last.stamps, files));
                let files = files::read_changed(&self.root, &stamps, before);
                // A writer may have started in the meantime.
                if files::stamps(&self.root).map_err(internal)? == stamps {
                    last.files = files.has_network().then(|| Arc::new(files));
                    last.stamps = stamps;
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

    /// Changes files under the lock of the directory. Its files are quiet at once, if no one else writes meanwhile.
    /// Returns the changed files.
    pub(super) fn change(
        &self,
        write: impl FnOnce() -> Result<Vec<String>, ChangeError>,
    ) -> Result<Vec<String>, ChangeError> {
        let before = files::stamps(&self.root)?;
        let was_quiet = self.is_quiet(&before);
        let changed = write()?;
        if was_quiet && let Ok(after) = files::stamps(&self.root) {
            let is_own = |path: &Path| changed.iter().any(|file| Path::new(file).starts_with(path));
            let paths = before.keys().chain(after.keys());
            let mut others = paths.filter(|path| !is_own(path));
            if others.all(|path| before.get(path) == after.get(path)) {
                *self.own.lock() = after;
            }
        }
        Ok(changed)
    }

    fn is_quiet(&self, stamps: &Stamps) -> bool {
        let own = self.own.lock();
        let is_old = |stamp: &Stamp| stamp.age().is_none_or(|age| age >= FLEET_FILE_QUIET);
        let quiet = |(path, stamp): (&PathBuf, &Option<Stamp>)| {
            stamp.is_none_or(|it| is_old(&it) || own.get(path) == Some(stamp))
        };
        stamps.iter().all(quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::thread::sleep;

    #[test]
    fn own_change_is_quiet_at_once_and_others_are_not() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("sessions/jp1")).unwrap();
        fs::write(at("network.yaml"), "asn: 1").unwrap();
        let snapshots = Snapshots::new(root.path());
        let is_quiet = || snapshots.is_quiet(&files::stamps(root.path()).unwrap());
        let change = |also: &[&str]| {
            let change = || {
                for path in ["sessions/jp1/a.yaml"].iter().chain(also) {
                    fs::write(at(path), "asn: 2").unwrap();
                }
                Ok(vec!["sessions/jp1/a.yaml".to_owned()])
            };
            snapshots.change(change).unwrap();
        };
        change(&[]);
        assert!(!is_quiet(), "network.yaml was being written");
        sleep(FLEET_FILE_QUIET);
        for _ in 0..2 {
            change(&[]);
            assert!(is_quiet());
        }
        change(&["sessions/jp1/b.yaml"]);
        assert!(!is_quiet(), "another program wrote b.yaml");
        change(&[]);
        assert!(!is_quiet(), "b.yaml is young");
        sleep(FLEET_FILE_QUIET);
        fs::write(at("sessions/jp1/a.yaml"), "asn: 3").unwrap();
        assert!(!is_quiet(), "another program wrote a.yaml");
    }
}
