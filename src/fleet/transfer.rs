//! Copies a fleet between a directory and a database: the operators' files byte for byte, and the
//! newest posts of each router that has none at the target.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::audit::{Author, FLEET};
use super::change::{ChangeError, ChangedFiles, LockedDir, put};
use super::described::Described;
use super::finding::Finding;
use super::layout::MAX_BYTES;
use super::network::{FleetFiles, Network};
use super::posts::REPORTED;
use super::store::directory::Directory;
use super::store::postgres::{Postgres, StoreError};
use super::store::{Change, Store};
use super::tree::CALLS;
use super::{FleetError, tree};
use crate::http::{ApiError, Client};
use crate::model::{ObjectName, Secret};
use crate::util::file;
use crate::util::{fs, progress};

/// What may be done with files of the target that differ from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// Refuse the whole copy.
    Nothing,
    /// Replace them, and remove those that the source does not have.
    Differing,
}

/// Whether files may be imported from which no server would serve the network; servers go on with those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    Refuse,
    Allow,
}

/// A failure to copy a fleet. Nothing was changed, except by `Io` of an export.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: not a file name of a fleet; rename it", path = .0.display())]
    Name(PathBuf),
    #[error("{0}: differs at the target; compare the files, then use --overwrite")]
    Differs(String),
    #[error("another instance changed the fleet meanwhile; run the command again")]
    ChangedMeanwhile,
    #[error("{path}: neither network.yaml nor a router's folder is there; give the directory of the fleet", path = .0.display())]
    Empty(PathBuf),
    #[error("{first}; no server would serve the network; correct it (`moenet-agent fleet validate {path}` lists all), or use --allow-invalid", path = .path.display())]
    Invalid { path: PathBuf, first: Box<Finding> },
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("record of rollouts and drains: {0}")]
    Record(ApiError),
    #[error("posts of router {router}: {source}")]
    Posts {
        router: ObjectName,
        source: ApiError,
    },
}

/// How many files a copy changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Copied {
    pub changed: usize,
    /// Those that were removed at the target.
    pub removed: usize,
}

impl Copied {
    fn of(changes: &ChangedFiles) -> Self {
        Self {
            changed: changes.len(),
            removed: changes.values().filter(|text| text.is_none()).count(),
        }
    }
}

type Files = BTreeMap<String, Arc<str>>;

/// Copies the files of a directory into a database, in one transaction.
///
/// # Errors
/// A file cannot be read, is not valid or differs, or the database is unavailable.
pub async fn import(
    dir: &Path,
    url: &Secret<String>,
    (replace, invalid): (Replace, Invalid),
    by: &str,
) -> Result<Copied, TransferError> {
    let files = tree::read(dir)?;
    // Another directory would replace the fleet, too.
    if !files.has_network() && tree::folders(&files).is_empty() {
        return Err(TransferError::Empty(dir.to_owned()));
    }
    let wanted = read(dir, dir)?;
    if invalid == Invalid::Refuse {
        check(dir, &files)?;
    }
    let store = Postgres::open(url)?;
    store.load().await?;
    let known = store.memory().files.revision().unwrap_or_default();
    let changes = changes(&wanted, &store.memory().files.all(), replace)?;
    let from = Arc::new(Directory::new(dir.to_owned()));
    // Before the files: without it, a change that was taken back would reach every router.
    copy_record(&*from, &store).await?;
    let by = Author::new(by, Client::Local, "import", FLEET.to_owned());
    let written = store.write_files(&changes, known, &by).await;
    if !written.map_err(StoreError::from)? {
        return Err(TransferError::ChangedMeanwhile);
    }
    copy_posts(from, &store).await?;
    Ok(Copied::of(&changes))
}

/// Copies the files of a database into a directory.
///
/// # Errors
/// A file cannot be written or differs, or the database is unavailable.
pub async fn export(
    dir: &Path,
    url: &Secret<String>,
    replace: Replace,
) -> Result<Copied, TransferError> {
    let store = Postgres::open_existing(url).await?;
    let wanted = store.memory().files.all();
    if wanted.is_empty() {
        return Err(StoreError::NoFleet.into());
    }
    let failed = |path: PathBuf| |source| TransferError::Io { path, source };
    fs::create_dirs(dir, 0o755).map_err(failed(dir.to_owned()))?;
    let _lock = LockedDir::lock(dir)?;
    let present = read(dir, dir)?;
    let changes = changes(&wanted, &present, replace)?;
    let to = Directory::new(dir.to_owned());
    copy_record(&store, &to).await?;
    for (name, text) in &changes {
        checked(name)?;
        put(dir, name, text.as_deref()).map_err(failed(dir.join(name)))?;
    }
    copy_posts(Arc::new(store), &to).await?;
    give_posts(dir).map_err(failed(dir.to_owned()))?;
    Ok(Copied::of(&changes))
}

/// Gives the posts to the owner of the directory, as whom the server writes them.
fn give_posts(dir: &Path) -> io::Result<()> {
    let like = fs::metadata(dir)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let posts = match entry.file_name() == REPORTED {
            true => entry.path(),
            false => entry.path().join(REPORTED),
        };
        if fs::exists(&posts) {
            give(&posts, &like)?;
        }
    }
    Ok(())
}

fn give(path: &Path, like: &Metadata) -> io::Result<()> {
    fs::give(path, like.uid(), like.gid())?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), like)?;
        }
    }
    Ok(())
}

/// Refuses files from which no server would serve the network. A session with an error concerns itself only.
fn check(dir: &Path, files: &FleetFiles) -> Result<(), TransferError> {
    let read = files.has_network().then(|| Network::read(files));
    let errors = read.and_then(Result::err).unwrap_or_default();
    match errors.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(TransferError::Invalid {
            path: dir.to_owned(),
            first: Box::new(first),
        }),
    }
}

/// Copies how far a change of the network has come, unless the target has a record.
async fn copy_record(from: &dyn Store, to: &dyn Store) -> Result<(), TransferError> {
    let mut record = from.record().await.map_err(TransferError::Record)?;
    let present = to.record().await.map_err(TransferError::Record)?;
    if present.version > 0 || record.version == 0 {
        return Ok(());
    }
    record.version = present.version;
    let written = to.set_record(&record, None).await;
    match written.map_err(TransferError::Record)? {
        true => Ok(()),
        false => Err(TransferError::ChangedMeanwhile),
    }
}

/// Returns the files to write, and with `None` those to remove.
fn changes(
    wanted: &Files,
    present: &Files,
    replace: Replace,
) -> Result<ChangedFiles, TransferError> {
    let mut changes = ChangedFiles::new();
    for (name, text) in wanted {
        match present.get(name) {
            Some(same) if same == text => continue,
            Some(_) if replace == Replace::Nothing => {
                return Err(TransferError::Differs(name.clone()));
            }
            _ => drop(changes.insert(name.clone(), Some(Arc::clone(text)))),
        }
    }
    if replace == Replace::Differing {
        let gone = present.keys().filter(|name| !wanted.contains_key(*name));
        changes.extend(gone.map(|name| (name.clone(), None)));
    }
    Ok(changes)
}

/// Copies the newest posts of each router that has none at the target.
async fn copy_posts(from: Arc<dyn Store>, to: &dyn Store) -> Result<(), TransferError> {
    let described = Described::new(Arc::clone(&from));
    let routers = described.revisions().await;
    progress::say("copying the posts of routers", None);
    for (done, router) in routers.keys().enumerate() {
        progress::count(done, routers.len());
        let copied = copy_posts_of(&*from, to, router).await;
        copied.map_err(|source| TransferError::Posts {
            router: router.clone(),
            source,
        })?;
    }
    Ok(())
}

async fn copy_posts_of(
    from: &dyn Store,
    to: &dyn Store,
    router: &ObjectName,
) -> Result<(), ApiError> {
    let present = to.posts(router).await?;
    if present.heartbeat.is_some() || present.report.is_some() || !present.sessions.is_empty() {
        return Ok(());
    }
    let posts = from.posts(router).await?;
    let mut changes: Vec<Change> = posts.sessions.into_values().map(Change::Status).collect();
    changes.extend(posts.heartbeat.map(Change::Heartbeat));
    changes.extend(posts.report.map(Change::Report));
    let served = from.served(router).await?;
    changes.extend((!served.is_empty()).then_some(Change::Served(served)));
    for call in CALLS {
        let good = from.good(router, call).await?;
        changes.extend((!good.is_empty()).then_some(Change::Good(call, good)));
    }
    match changes.is_empty() {
        true => Ok(()),
        false => to.write(router, changes).await,
    }
}

/// Reads the files of the operators below a folder. Blocks.
fn read(root: &Path, folder: &Path) -> Result<Files, TransferError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TransferError::Io { path, source }
    };
    let mut files = Files::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let name = path.file_name().unwrap_or_default();
        let is_posts =
            name == REPORTED && (folder != root || !fs::exists(path.join("router.yaml")));
        let is_skipped = name.as_encoded_bytes().starts_with(b".")
            || path.extension().is_some_and(|end| end == "broken")
            || is_posts;
        if is_skipped {
            continue;
        }
        if !fs::is_link(&path) && fs::is_dir(&path) {
            files.extend(read(root, &path)?);
            continue;
        }
        let text = file::read_text_unlinked(&path, MAX_BYTES).map_err(failed(&path))?;
        let below = path.strip_prefix(root).unwrap_or(&path);
        let name = below
            .to_str()
            .ok_or_else(|| TransferError::Name(below.to_owned()))?;
        checked(name)?;
        files.insert(name.to_owned(), text.into());
    }
    Ok(files)
}

/// Refuses a name that leads out of the fleet, or to a hidden file.
fn checked(name: &str) -> Result<&Path, TransferError> {
    let path = Path::new(name);
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(name) if !name.as_encoded_bytes().starts_with(b"."));
    match !name.is_empty() && path.components().all(is_plain) {
        true => Ok(path),
        false => Err(TransferError::Name(path.to_owned())),
    }
}
