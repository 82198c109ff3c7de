//! Changes of the files of a fleet, as the verbs make them. A change is written only if the fleet is as valid with it
//! as it was before.

mod owned;
mod sessions;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::finding::Finding;
use super::network::FleetFiles;
use super::validate::findings;
use super::{FleetError, tree};
use crate::document::{Edit, EditError, edit, parse_value};
use crate::http::ApiError;
use crate::intervals::CHANGES_WAIT;
use crate::model::{Asn, ObjectName};
use crate::util::file::{self, Writer};
use crate::util::fs;
use crate::util::sorted::Sorted as _;

pub(super) use owned::{Asked, Owned, fleet_invalid, invalid};
pub use sessions::{SessionPlace, Wish};
pub use tokens::Holder;

/// Mode of the files, which may hold tokens and preshared keys.
const MODE: u32 = 0o600;

/// The reason why the files of a fleet are not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} exists already, and was not changed")]
    Exists(String),
    #[error("{file}: {source}")]
    Edit {
        file: String,
        source: Box<EditError>,
    },
    #[error("another command changes the fleet in {dir}; run this one after it", dir = .0.display())]
    Locked(PathBuf),
    #[error("{0} was changed by another program meanwhile; run the command again")]
    ChangedMeanwhile(String),
    #[error("the fleet has no router {name}; it has {known}")]
    NoRouter { name: String, known: String },
    #[error("the fleet has no session {0}; write ROUTER/NAME, as jp1/alice, or its uuid")]
    NoSession(String),
    /// A file that cannot be used may have the named object.
    #[error("{file}: {why}; `moenet-agent fleet validate` lists all errors")]
    Unusable { file: String, why: String },
    #[error("{name} is the name of several sessions: {all}; write one of these")]
    Ambiguous { name: String, all: String },
    #[error("{session}: {reason}")]
    Session { session: String, reason: String },
    #[error("{holder}: {reason}")]
    Token { holder: String, reason: String },
    #[error("the fleet has no owner of AS{0}; `moenet-agent fleet token new --owner {0}` adds one")]
    NoOwner(Asn),
    #[error("nothing was written, because the fleet would be invalid:\n{}", crate::fleet::finding::lines(.0))]
    Invalid(Vec<Finding>),
    /// The store cannot be used or written, or a client may not make the change.
    #[error("{}", .0.message)]
    Refused(#[from] ApiError),
}

/// Files by their paths, with their new texts; `None` for a removed one.
#[cfg(feature = "postgres")]
pub(super) type ChangedFiles = BTreeMap<String, Option<Arc<str>>>;

/// How valid a fleet has to be with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Must {
    /// It has no error.
    BeValid,
    /// It has no new error: a session must be disabled beside an error in another file.
    NotGetWorse,
}

/// Changes of a fleet's files that are not written yet.
#[derive(Debug)]
pub struct Changes {
    before: FleetFiles,
    files: FleetFiles,
    changed: BTreeSet<String>,
    /// `None`: a store writes the changes.
    dir: Option<LockedDir>,
}

/// A fleet's directory. Its lock is held, because two changes that are valid each may not be so together.
#[derive(Debug)]
pub(super) struct LockedDir {
    path: PathBuf,
    _lock: File,
}

impl LockedDir {
    /// Locks a directory. Blocks.
    pub(super) fn lock(dir: &Path) -> Result<Self, ChangeError> {
        let failed = |source| ChangeError::Io {
            path: dir.to_owned(),
            source,
        };
        let lock = fs::open(dir, File::options().read(true)).map_err(failed)?;
        match file::lock(&lock, CHANGES_WAIT).map_err(failed)? {
            true => Ok(Self {
                path: dir.to_owned(),
                _lock: lock,
            }),
            false => Err(ChangeError::Locked(dir.to_owned())),
        }
    }
}

impl Changes {
    /// Reads a fleet, and keeps other commands from changing it meanwhile.
    ///
    /// # Errors
    /// Another command changes it, or a file cannot be read.
    pub fn begin(dir: &Path) -> Result<Self, ChangeError> {
        let dir = LockedDir::lock(dir)?;
        let files = tree::read(&dir.path)?;
        Ok(Self::in_dir(dir, files))
    }

    /// Begins changes of these files of a directory.
    pub(super) fn in_dir(dir: LockedDir, files: FleetFiles) -> Self {
        Self {
            dir: Some(dir),
            ..Self::of(files)
        }
    }

    /// Begins changes of these files, which a store writes.
    pub(super) fn of(files: FleetFiles) -> Self {
        Self {
            before: files.clone(),
            files,
            changed: BTreeSet::new(),
            dir: None,
        }
    }

    /// Returns the path of a file in the fleet's directory; of a store, the path below it.
    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        let dir = self.dir.as_ref().map_or(Path::new(""), |dir| &dir.path);
        dir.join(name)
    }

    /// Returns the fleet's directory; `None`: a store writes the changes.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_ref().map(|dir| &*dir.path)
    }

    /// Returns the files that the changes remove.
    pub fn removed(&self) -> Vec<String> {
        let changed = self.changed.iter();
        changed.filter(|it| !self.files.has(it)).cloned().collect()
    }

    /// Returns the files with all changes.
    pub fn files(&self) -> &FleetFiles {
        &self.files
    }

    /// Adds a file.
    ///
    /// # Errors
    /// It exists.
    pub fn create(&mut self, path: &str, text: String) -> Result<(), ChangeError> {
        let is_there = |dir: &LockedDir| fs::symlink_metadata(dir.path.join(path)).is_ok();
        if self.files.has(path) || self.dir.as_ref().is_some_and(is_there) {
            return Err(ChangeError::Exists(path.to_owned()));
        }
        self.files.insert(path, text);
        self.changed.insert(path.to_owned());
        Ok(())
    }

    /// Changes one value of a file, and nothing else of it.
    fn edit(&mut self, path: &str, at: &[&str], change: &Edit) -> Result<(), ChangeError> {
        let failed = |source: EditError| ChangeError::Edit {
            file: path.to_owned(),
            source: source.into(),
        };
        let missing = || failed(EditError::Missing(path.to_owned()));
        let text = self.files.text(path).ok_or_else(missing)?;
        let text = edit(text, at, change).map_err(failed)?;
        self.files.insert(path, text);
        self.changed.insert(path.to_owned());
        Ok(())
    }

    fn remove(&mut self, path: &str) {
        self.files.remove(path);
        self.changed.insert(path.to_owned());
    }

    /// Returns the names of all routers.
    pub fn routers(&self) -> BTreeSet<String> {
        let described = self.files.iter().filter_map(|(path, _)| {
            let file = path.strip_prefix("routers/")?;
            file.strip_suffix(".yaml").map(str::to_owned)
        });
        described.chain(tree::folders(&self.files)).sorted_set()
    }

    /// Returns an id that no router has.
    pub fn next_id(&self) -> Option<u16> {
        let ids = self.routers().into_iter().filter_map(|router| {
            let router = router.parse().ok()?;
            let text = self.files.text(&self.router_file(&router).ok()?)?;
            let fields: Value = parse_value(text).ok()?;
            let id = fields.get("id").or_else(|| fields.get("node")?.get("id"));
            u16::try_from(id?.as_u64()?).ok()
        });
        ids.max().unwrap_or_default().checked_add(1)
    }

    /// Returns whether a router has a folder of its own.
    ///
    /// # Errors
    /// There is no such router.
    pub fn is_folder(&self, router: &ObjectName) -> Result<bool, ChangeError> {
        let file = self.router_file(router)?;
        Ok(file != super::network::router_path(router))
    }

    /// Returns the file of a router.
    fn router_file(&self, router: &ObjectName) -> Result<String, ChangeError> {
        let described = super::network::router_path(router);
        let folder = format!("{router}/router.yaml");
        let found = [described, folder]
            .into_iter()
            .find(|path| self.files.text(path).is_some());
        let missing = || {
            self.unusable().unwrap_or_else(|| ChangeError::NoRouter {
                name: router.to_string(),
                known: match self.routers() {
                    none if none.is_empty() => {
                        "none; `moenet-agent fleet add router` adds one".to_owned()
                    }
                    all => all.into_iter().collect::<Vec<_>>().join(", "),
                },
            })
        };
        found.ok_or_else(missing)
    }

    /// Returns why a file cannot be used, which may be that of an object that was not found.
    fn unusable(&self) -> Option<ChangeError> {
        let (file, why) = self.files.faults().next()?;
        let (file, why) = (file.to_owned(), why.to_owned());
        Some(ChangeError::Unusable { file, why })
    }

    /// Writes the changes, each file in one step. Returns the changed files.
    ///
    /// # Errors
    /// The fleet would be invalid, a file changed meanwhile, or cannot be written.
    pub fn write(self, must: Must) -> Result<Vec<String>, ChangeError> {
        self.check(must)?;
        for path in &self.changed {
            self.write_file(path)?;
        }
        Ok(self.changed.into_iter().collect())
    }

    /// Returns the changed files with their new texts; `None` for a removed one.
    ///
    /// # Errors
    /// The fleet would be invalid.
    #[cfg(feature = "postgres")]
    pub(super) fn checked(self, must: Must) -> Result<ChangedFiles, ChangeError> {
        self.check(must)?;
        let text = |path: String| {
            let text = self.files.text(&path).cloned();
            (path, text)
        };
        Ok(self.changed.iter().cloned().map(text).sorted_map())
    }

    /// Checks the fleet with the changes.
    ///
    /// # Errors
    /// It would be invalid.
    pub fn check(&self, must: Must) -> Result<(), ChangeError> {
        let allowed = match must {
            Must::BeValid => BTreeMap::new(),
            Must::NotGetWorse => counts(&findings(&self.before).problems),
        };
        let mut problems = findings(&self.files).problems;
        let now = counts(&problems);
        problems.retain(|it| now.get(&key(it)) > allowed.get(&key(it)));
        match problems.is_empty() {
            true => Ok(()),
            false => Err(ChangeError::Invalid(problems)),
        }
    }

    /// Creates a folder of the fleet and its missing parents. They belong to the owner of the directory: the server
    /// writes there too, as another user than root.
    ///
    /// # Errors
    /// As the system says.
    pub fn create_folder(&self, folder: &Path) -> Result<(), ChangeError> {
        create_folder(&self.path(""), folder).map_err(|source| ChangeError::Io {
            path: self.path(folder),
            source,
        })
    }

    fn write_file(&self, name: &str) -> Result<(), ChangeError> {
        let path = self.path(name);
        let failed = |source| ChangeError::Io {
            path: path.clone(),
            source,
        };
        let there =
            match file::read_text_below(&self.path(""), name.as_ref(), super::layout::MAX_BYTES) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                text => Some(text.map_err(failed)?),
            };
        let before: Option<&Arc<str>> = self.before.text(name);
        if there.as_deref() != before.map(|text| &**text) {
            return Err(ChangeError::ChangedMeanwhile(name.to_owned()));
        }
        let text = self.files.text(name).map(|text| &**text);
        put(&self.path(""), name, text).map_err(failed)
    }
}

fn create_folder(root: &Path, folder: &Path) -> io::Result<()> {
    let like = fs::metadata(root)?;
    let folder = root.join(folder);
    let missing = folder.ancestors();
    let missing: Vec<_> = missing
        .take_while(|it| fs::symlink_metadata(it).is_err())
        .collect();
    fs::create_dirs(&folder, 0o755)?;
    let mut missing = missing.into_iter();
    missing.try_for_each(|folder| fs::give(folder, like.uid(), like.gid()))
}

/// Writes a file of a fleet's directory; `None` removes it. It belongs to the owner of the file before it, or of the
/// directory: the server reads it as another user than root.
pub(super) fn put(root: &Path, name: &str, text: Option<&str>) -> io::Result<()> {
    let path = root.join(name);
    let Some(text) = text else {
        return file::remove_file(&path).map(drop);
    };
    if let Some(folder) = Path::new(name).parent() {
        create_folder(root, folder)?;
    }
    let (mode, like) = match fs::metadata(&path) {
        Ok(found) => (found.mode() & 0o777, found),
        Err(_) => (MODE, fs::metadata(root)?),
    };
    Writer::new(mode)
        .owner(Some(like.uid()))
        .group(Some(like.gid()))
        .replace(&path, text.as_bytes())
}

/// Identifies a problem beside a change that moves lines.
fn key(finding: &Finding) -> (PathBuf, String) {
    (finding.file.clone(), finding.message.clone())
}

fn counts(findings: &[Finding]) -> BTreeMap<(PathBuf, String), usize> {
    let mut counts = BTreeMap::new();
    for finding in findings {
        *counts.entry(key(finding)).or_default() += 1;
    }
    counts
}
