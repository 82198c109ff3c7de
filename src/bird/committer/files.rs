//! What all file operations of the committer share: reading and errors.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::ReadDir;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::observed::bird::mark::{self, Mark};
use crate::ports::CommitError;
use crate::util::file::{self, Stamp};
use crate::util::fs;
use crate::util::shared::shared;

/// Size limit of a BIRD file, in bytes: room for about 400 000 ROAs.
pub(super) const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// The files and folders of one reading, each with its stamp from before it was read: a later reading is needed only
/// once one of them has changed.
#[derive(Default)]
pub(super) struct Seen {
    stamps: RefCell<BTreeMap<PathBuf, Option<Stamp>>>,
    /// The contents of the reading before: a file with the same stamp is not read again.
    before: Contents,
    contents: RefCell<Contents>,
    /// Whether something could not be read: the next reading tries again.
    is_incomplete: Cell<bool>,
}

/// Files that any later change gives another stamp, each with its stamp and content.
pub(super) type Contents = BTreeMap<PathBuf, (Stamp, Content)>;

/// The content of a file, shared by all who keep it. The first line is apart, because it may be the mark.
#[derive(Clone)]
pub(super) struct Content {
    /// The first line, with its line end.
    pub(super) line: Arc<str>,
    /// All lines below.
    pub(super) text: Arc<str>,
    /// Whether the mark has the hash of these lines: computed once for all readings of the same file.
    is_intact: bool,
}

impl From<String> for Content {
    fn from(content: String) -> Self {
        let (line, text) = content.split_at(mark::first_line(&content));
        Self {
            line: line.into(),
            text: shared(text),
            is_intact: mark::is_intact(line, text),
        }
    }
}

impl Content {
    /// Returns the mark of the file.
    pub(super) fn mark(&self) -> Mark<'_> {
        mark::read_parts(&self.line, &self.text, self.is_intact)
    }

    /// Returns the whole file.
    pub(super) fn whole(&self) -> String {
        [&*self.line, &*self.text].concat()
    }
}

impl Seen {
    /// Returns a reading that follows the one with these contents.
    pub(super) fn after(before: Contents) -> Self {
        Self {
            before,
            ..Self::default()
        }
    }

    /// Records a file or folder that is about to be read.
    pub(super) fn note(&self, path: &Path) -> Option<Stamp> {
        let stamp = Stamp::at(path);
        self.stamps.borrow_mut().insert(path.to_owned(), stamp);
        stamp
    }

    /// Records the error of a reading, unless it is that nothing is there.
    pub(super) fn check<T>(&self, read: io::Result<T>) -> io::Result<T> {
        let is_failure = |error: &io::Error| error.kind() != io::ErrorKind::NotFound;
        if read.as_ref().is_err_and(is_failure) {
            self.is_incomplete.set(true);
        }
        read
    }

    /// As [`read_file`], recorded.
    pub(super) fn read_file(&self, path: &Path) -> Result<Option<Content>, CommitError> {
        let stamp = self.note(path).filter(Stamp::is_settled);
        let known = self.before.get(path).filter(|(of, _)| Some(*of) == stamp);
        let read = match known {
            Some((_, content)) => Ok(Some(content.clone())),
            None => read_file(path).map(|read| read.map(Content::from)),
        };
        if let (Some(stamp), Ok(Some(content))) = (stamp, &read) {
            let mut contents = self.contents.borrow_mut();
            contents.insert(path.to_owned(), (stamp, content.clone()));
        }
        self.is_incomplete
            .set(self.is_incomplete.get() || read.is_err());
        read
    }

    /// Lists a folder, recorded.
    pub(super) fn read_dir(&self, path: &Path) -> io::Result<ReadDir> {
        self.note(path);
        self.check(fs::read_dir(path))
    }

    /// Returns the stamps, if everything was read and any later change must change one of them, and the contents
    /// for the next reading.
    pub(super) fn settled(self) -> (Option<BTreeMap<PathBuf, Option<Stamp>>>, Contents) {
        let stamps = self.stamps.into_inner();
        let mut found = stamps.values().flatten();
        let is_settled = !self.is_incomplete.get() && found.all(Stamp::is_settled);
        (is_settled.then_some(stamps), self.contents.into_inner())
    }
}

/// Returns the text of a file, or `None` if it does not exist.
pub(super) fn read_file(path: &Path) -> Result<Option<String>, CommitError> {
    match file::read(path, MAX_BYTES) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Adds operation and path to an error of the operating system.
pub(super) fn failed(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> CommitError {
    let path = path.to_owned();
    move |source| CommitError::Io {
        operation,
        path,
        source,
    }
}
