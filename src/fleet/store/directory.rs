//! The store in a directory of YAML files, one folder for each router. Files are read at each
//! request, so an edit is served at the next one.

mod folder;
mod parsed;
mod reported;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use self::folder::Folder;
use self::parsed::Parsed;
use self::reported::Reported;
use super::{Change, Door, Store, Version};
use crate::fleet::good::{Good, Written};
use crate::fleet::posts::{Posts, Statuses};
use crate::http::ApiError;
use crate::model::{ObjectName, Uid};
use crate::util::file::Stamp;
use crate::util::fs;
use crate::util::task::blocking;
use crate::wire::Call;

/// A fleet's directory.
pub(in crate::fleet) struct Directory(Arc<Files>);

struct Files {
    root: PathBuf,
    parsed: Parsed,
}

impl Directory {
    pub(in crate::fleet) fn new(root: PathBuf) -> Self {
        let parsed = Parsed::default();
        Self(Arc::new(Files { root, parsed }))
    }

    /// Works on a router's folder, on a thread for blocking work.
    async fn folder<T: Send + 'static>(
        &self,
        router: &ObjectName,
        work: impl FnOnce(&Folder, &Files) -> T + Send + 'static,
    ) -> T {
        let (files, router) = (Arc::clone(&self.0), router.clone());
        blocking(move || work(&Folder::new(&files.root, router), &files)).await
    }

    async fn reported<T: Send + 'static>(
        &self,
        router: &ObjectName,
        work: impl FnOnce(&Reported) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let work = |folder: &Folder, _: &Files| work(&Reported::new(folder.reported()));
        self.folder(router, work).await.map_err(disk)
    }
}

/// Removes incomplete files that a killed server left, in every router's folder. Blocks.
pub(in crate::fleet) fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        Reported::new(entry.path().join("reported")).sweep();
    }
}

#[async_trait]
impl Store for Directory {
    async fn lists(&self) -> Vec<(ObjectName, Version)> {
        let files = Arc::clone(&self.0);
        let list = |folder: Folder| {
            let version = hash(&folder.stamp(Call::Sessions));
            (folder.router().clone(), version)
        };
        blocking(move || Folder::all(&files.root).into_iter().map(list).collect()).await
    }

    async fn door(&self, router: &ObjectName) -> Result<Option<Door>, ApiError> {
        let door = |folder: &Folder, files: &Files| {
            if !fs::is_dir(&files.root) {
                return Err(ApiError::internal("the fleet directory is missing"));
            }
            Ok(folder.exists().then(|| Door {
                tokens: folder.tokens(),
                is_being_written: folder.token_is_being_written(),
                in_maintenance: folder.in_maintenance(),
            }))
        };
        self.folder(router, door).await
    }

    async fn written(&self, router: &ObjectName, call: Call) -> Result<Written, ApiError> {
        let written = move |folder: &Folder, files: &Files| {
            Ok(Written {
                answer: folder.answer(call, &files.parsed)?,
                node: folder.node(&files.parsed),
            })
        };
        self.folder(router, written).await
    }

    async fn text(&self, router: &ObjectName, call: Call) -> String {
        self.folder(router, move |folder, _| folder.text(call))
            .await
    }

    async fn version(&self, router: &ObjectName, call: Call) -> Option<Version> {
        let version = move |folder: &Folder, _: &Files| {
            let posted = match call {
                Call::Sessions => Reported::new(folder.reported()).stamp(),
                _ => None,
            };
            let stamps = [folder.stamp(call), folder.stamp(Call::Config), posted];
            let settled = stamps.iter().flatten().all(Stamp::is_settled);
            settled.then(|| hash(&stamps))
        };
        self.folder(router, version).await
    }

    async fn good(&self, router: &ObjectName, call: Call) -> Result<Good, ApiError> {
        self.reported(router, move |reported| reported.good(call))
            .await
    }

    async fn statuses(&self, router: &ObjectName) -> Result<Statuses, ApiError> {
        self.reported(router, Reported::statuses).await
    }

    async fn status(&self, router: &ObjectName, uuid: &Uid) -> Result<Statuses, ApiError> {
        let uuid = uuid.clone();
        self.reported(router, move |reported| reported.status(&uuid))
            .await
    }

    async fn posts(&self, router: &ObjectName) -> Result<Posts, ApiError> {
        self.reported(router, Reported::posts).await
    }

    async fn write(&self, router: &ObjectName, changes: Vec<Change>) -> Result<(), ApiError> {
        let write = move |reported: &Reported| changes.iter().try_for_each(|it| reported.apply(it));
        self.reported(router, write).await
    }
}

fn hash(value: &impl Hash) -> Version {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn disk(error: io::Error) -> ApiError {
    ApiError::internal(format!(
        "reported/ of the router: {error}; check the free space and the owner"
    ))
}
