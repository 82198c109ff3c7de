//! The files of a network at one moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::fleet::FleetError;
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
            if is_quiet(&stamps) {
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
}

fn is_quiet(stamps: &Stamps) -> bool {
    let quiet = |stamp: &Stamp| stamp.age().is_none_or(|age| age >= FLEET_FILE_QUIET);
    stamps.values().flatten().all(quiet)
}
