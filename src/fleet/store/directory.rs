//! The store in a directory of YAML files, one folder for each router. Files are read at each
//! request, so an edit is served at the next one.

mod audit;
mod folder;
mod followed;
mod journal;
mod parsed;
mod record;
mod reported;
mod snapshot;
mod watch;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

pub(in crate::fleet) use self::followed::{commit_path, is_followed, view_path};

use self::folder::Folder;
use self::journal::{Edit, Journal};
use self::reported::Reported;
use self::snapshot::Snapshots;
use super::{Change, Door, MakeChange, PostedKeys, Store};
use crate::fleet::audit::{AuditEntry, Author};
use crate::fleet::change::ChangeError;
use crate::fleet::good::{Good, Written};
use crate::fleet::history::ServedList;
use crate::fleet::layout::MAX_BYTES;
use crate::fleet::mesh_keys::key_in;
use crate::fleet::network::FleetFiles;
use crate::fleet::posts::{Posts, REPORTED, Statuses};
use crate::fleet::rollout::FleetRecord;
use crate::fleet::tree::CALLS;
use crate::fleet::version::{Revision, Revisions, Version};
use crate::http::ApiError;
use crate::model::{ObjectName, PublicKey, Uid};
use crate::util::file::{self, Writer};
use crate::util::fs;
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;
use crate::wire::Call;

/// A fleet's directory.
pub(in crate::fleet) struct Directory(Arc<Files>);

struct Files {
    root: PathBuf,
    /// Whether a server follows the directory as a Git repository, whose files may change at any moment.
    is_followed: bool,
    snapshots: Snapshots,
    /// Read at the first use.
    keys: Mutex<Option<Arc<PostedKeys>>>,
    /// Held while the record of the fleet is replaced.
    record: Mutex<()>,
    /// Held while an entry is added.
    audit: Mutex<()>,
    /// `None`: each post is flushed alone.
    journal: Option<Journal>,
    /// Held by the only server of the directory.
    _lock: Option<File>,
}

impl Directory {
    pub(in crate::fleet) fn new(root: PathBuf) -> Self {
        let is_followed = is_followed(&root);
        Self::with(root, is_followed, None, None)
    }

    /// Returns the store for a server: posts become durable together. `None`: another server serves the directory.
    /// Blocks.
    pub(in crate::fleet) fn journaled(root: PathBuf, is_followed: bool) -> Option<Self> {
        let (lock, journal) = match journal::lock(&root).transpose()? {
            Ok(lock) => (Some(lock), Journal::open(&root)),
            Err(error) => (None, Err(error)),
        };
        if let Err(error) = followed::mark(&root, is_followed) {
            tracing::error!(%error, "reported/ of the fleet cannot be written");
        }
        let journal = journal.inspect_err(|error| {
            tracing::error!(%error, "journal of posts cannot be used; flushing each post alone");
            journal::quarantine(&root, &error.to_string());
        });
        Some(Self::with(root, is_followed, journal.ok(), lock))
    }

    /// Makes all posts durable as files, so that an operator may change these before the next start.
    pub(in crate::fleet) async fn close(&self) {
        let files = Arc::clone(&self.0);
        let closed = blocking(move || files.journal.as_ref().map_or(Ok(()), Journal::close)).await;
        if let Err(error) = closed {
            tracing::warn!(%error, "posts of the routers are not flushed; their journal is kept");
        }
    }

    fn with(
        root: PathBuf,
        is_followed: bool,
        journal: Option<Journal>,
        lock: Option<File>,
    ) -> Self {
        Self(Arc::new(Files {
            journal,
            _lock: lock,
            is_followed,
            snapshots: Snapshots::new(&root),
            root,
            keys: Mutex::default(),
            record: Mutex::default(),
            audit: Mutex::default(),
        }))
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
        let work = |folder: &Folder, files: &Files| work(&files.reported(folder));
        self.folder(router, work).await.map_err(disk)
    }
}

impl Files {
    /// What is in the audit has happened already, so that an error costs the entry only.
    fn add_to_audit(&self, entry: &AuditEntry) {
        let _writing = self.audit.lock();
        if let Err(error) = audit::add(&self.root, entry) {
            tracing::error!(%error, "audit log of the fleet cannot be written; check the free space and the owner of reported/");
        }
    }

    fn reported(&self, folder: &Folder) -> Reported {
        Reported::new(folder.reported(self.is_followed))
    }

    fn keys(&self) -> io::Result<Arc<PostedKeys>> {
        let mut keys = self.keys.lock();
        if let Some(keys) = &*keys {
            return Ok(Arc::clone(keys));
        }
        let mut posted = PostedKeys::new();
        for (router, reported) in described(&self.root)? {
            let key = reported.heartbeat()?.and_then(|post| key_in(&post.body));
            posted.extend(key.map(|key| (router, key)));
        }
        Ok(Arc::clone(keys.insert(Arc::new(posted))))
    }

    /// Takes the key in a heartbeat.
    fn take_key(&self, router: &ObjectName, key: Option<PublicKey>) {
        let mut keys = self.keys.lock();
        let (Some(posted), Some(key)) = (keys.as_mut(), key) else {
            return;
        };
        if posted.get(router) != Some(&key) {
            Arc::make_mut(posted).insert(router.clone(), key);
        }
    }
}

/// Returns the posts of the routers of a network.
fn described(root: &Path) -> io::Result<Vec<(ObjectName, Reported)>> {
    let entries = match fs::read_dir(root.join(REPORTED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().into_string().ok();
        let name = name.and_then(|name| name.parse().ok());
        found.extend(name.map(|name| (name, Reported::new(entry.path()))));
    }
    Ok(found)
}

/// Removes incomplete files that a killed server left, in every router's folder. Blocks.
pub(in crate::fleet) fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        Reported::new(entry.path().join(REPORTED)).sweep();
    }
    for (_, reported) in described(root).into_iter().flatten() {
        reported.sweep();
    }
}

#[async_trait]
impl Store for Directory {
    async fn network(&self) -> Result<Option<Arc<FleetFiles>>, ApiError> {
        let files = Arc::clone(&self.0);
        blocking(move || files.snapshots.newest()).await
    }

    async fn file(&self, path: &Path) -> io::Result<Option<Arc<str>>> {
        let (files, path) = (Arc::clone(&self.0), path.to_owned());
        blocking(
            move || match file::read_text_below(&files.root, &path, MAX_BYTES) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                text => text.map(|text| Some(text.into())),
            },
        )
        .await
    }

    async fn mesh_keys(&self) -> Result<Arc<PostedKeys>, ApiError> {
        let files = Arc::clone(&self.0);
        blocking(move || files.keys()).await.map_err(disk)
    }

    async fn revisions(&self) -> Revisions {
        let files = Arc::clone(&self.0);
        let revision = |folder: Folder| {
            let stamps = CALLS.map(|call| folder.stamp(call));
            let revision = Revision::of(&stamps, &folder.stamp(Call::Sessions));
            (folder.router().clone(), revision)
        };
        blocking(move || {
            let folders = Folder::all(&files.root).into_iter();
            folders.map(revision).sorted_map()
        })
        .await
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

    async fn version(&self, router: &ObjectName, call: Call) -> Option<Version> {
        self.folder(router, move |folder, _| folder.version(call))
            .await
    }

    async fn written(&self, router: &ObjectName, call: Call) -> Result<Written, ApiError> {
        let written = move |folder: &Folder, _: &Files| {
            Ok(Written {
                answer: folder.answer(call)?,
                node: folder.node(),
                version: None,
            })
        };
        self.folder(router, written).await
    }

    async fn text(&self, router: &ObjectName, call: Call) -> String {
        self.folder(router, move |folder, _| folder.text(call))
            .await
    }

    async fn good(&self, router: &ObjectName, call: Call) -> Result<Good, ApiError> {
        self.reported(router, move |reported| reported.good(call))
            .await
    }

    async fn change_files(
        &self,
        by: &Author,
        make: MakeChange,
    ) -> Result<Vec<String>, ChangeError> {
        let (files, by) = (Arc::clone(&self.0), by.clone());
        blocking(move || {
            let changed = files.snapshots.change(make)?;
            if !changed.is_empty() {
                files.add_to_audit(&by.made(changed.clone()));
            }
            Ok(changed)
        })
        .await
    }

    async fn audit(&self) -> Result<Vec<AuditEntry>, ApiError> {
        let files = Arc::clone(&self.0);
        blocking(move || audit::read(&files.root))
            .await
            .map_err(disk)
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

    async fn served(&self, router: &ObjectName) -> Result<Vec<ServedList>, ApiError> {
        self.reported(router, Reported::served).await
    }

    async fn record(&self) -> Result<FleetRecord, ApiError> {
        let files = Arc::clone(&self.0);
        blocking(move || record::read(&files.root)).await
    }

    async fn set_record(
        &self,
        record: &FleetRecord,
        decided: Option<AuditEntry>,
    ) -> Result<bool, ApiError> {
        let (files, record) = (Arc::clone(&self.0), record.clone());
        blocking(move || {
            let _writing = files.record.lock();
            let is_written = record::replace(&files.root, record)?;
            if let Some(entry) = decided.filter(|_| is_written) {
                files.add_to_audit(&entry);
            }
            Ok(is_written)
        })
        .await
    }

    async fn write(&self, router: &ObjectName, changes: Vec<Change>) -> Result<(), ApiError> {
        let mut keys = changes.iter().filter_map(|change| match change {
            Change::Heartbeat(post) => key_in(&post.body),
            _ => None,
        });
        let key = keys.next_back();
        let edits = move |folder: &Folder, files: &Files| {
            let reported = files.reported(folder);
            let edits = changes.iter().map(|change| reported.edit(change));
            let edits = edits.filter_map(io::Result::transpose);
            let below = |edit: Edit| Edit {
                path: edit
                    .path
                    .strip_prefix(&files.root)
                    .unwrap_or(&edit.path)
                    .to_owned(),
                ..edit
            };
            let edits: Vec<Edit> = edits
                .map(|edit| edit.map(below))
                .collect::<io::Result<_>>()?;
            if files.journal.is_none() {
                let writer = Writer::new(0o600);
                edits
                    .iter()
                    .try_for_each(|edit| edit.apply(&files.root, writer))?;
            }
            Ok(edits)
        };
        let edits = self.folder(router, edits).await.map_err(disk)?;
        if let Some(journal) = &self.0.journal {
            journal.write(edits).await.map_err(disk)?;
        }
        self.0.take_key(router, key);
        Ok(())
    }
}

fn disk(error: io::Error) -> ApiError {
    ApiError::internal(format!(
        "reported/ of the router: {error}; check the free space and the owner"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn second_server_of_a_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let open = || Directory::journaled(root.path().to_owned(), false);
        let first = open().unwrap();
        assert!(first.0.journal.is_some());
        assert!(open().is_none());
        drop(first);
        assert!(open().is_some());
    }

    #[test]
    fn unusable_journal_is_quarantined_and_the_directory_served() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(REPORTED).join(name);
        fs::create_dir_all(at(".journal")).unwrap();
        fs::write(at(".journal.old"), "").unwrap();
        let open = || Directory::journaled(root.path().to_owned(), false);
        let store = open().unwrap();
        assert!(store.0.journal.is_none());
        assert!(open().is_none(), "locked without a journal too");
        for name in [".journal", ".journal.old"] {
            assert!(!at(name).exists());
            assert!(at(&format!("{name}.broken")).exists());
        }
        drop(store);
        assert!(open().unwrap().0.journal.is_some());
    }
}
