//! Cache of parsed documents that have not changed since.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::document::{self, Document, DocumentError, Kind, Spec, parse_value};

use super::changed::ChangedFiles;
use super::debounce::Debounce;
use super::read::{self, Text, TextHash};
use super::{AppliedDocument, Place};
use crate::util::file::Stamp;
use crate::util::fs;

/// A document with the attributes of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<D> {
    /// Shared by all files with this text.
    pub document: Arc<D>,
    /// The SHA-256 of the file's text.
    pub hash: TextHash,
    pub path: PathBuf,
    /// The numeric user ID of the file's owner.
    pub owner: u32,
    /// The file's text, used to locate errors.
    pub text: Arc<str>,
}

/// An existing document: valid, or the reason why it is invalid.
pub type Slot<S> = Result<Arc<Stored<Document<S>>>, DocumentError>;

/// A type that a file of the state directory is parsed into.
pub(super) trait Parsed: PartialEq + Sized {
    fn parse(text: &str, place: &Place) -> Result<Self, DocumentError>;
}

impl<S: Spec> Parsed for Document<S> {
    fn parse(text: &str, place: &Place) -> Result<Self, DocumentError> {
        let document: Self = document::parse(text)?;
        check_name(place, document.metadata.name.as_str())?;
        check_target(place, document.spec.target())?;
        Ok(document)
    }
}

impl Parsed for AppliedDocument {
    fn parse(text: &str, place: &Place) -> Result<Self, DocumentError> {
        let document: Self = parse_value(text)?;
        check_name(place, document.metadata.name.as_str())?;
        if document.kind != place.kind {
            let message = format!(
                "kind: a document in this folder must be a {}, not {}",
                place.kind, document.kind
            );
            return Err(field_error("kind", message));
        }
        Ok(document)
    }
}

/// Checks that the name in a document equals the name of its file; a single document may have any name.
pub(super) fn check_name(place: &Place, name: &str) -> Result<(), DocumentError> {
    if place.kind.is_single() || name == place.name.as_str() {
        return Ok(());
    }
    let case = if name.eq_ignore_ascii_case(place.name.as_str()) {
        " (upper and lower case differ)"
    } else {
        ""
    };
    let message = format!(
        "metadata.name: is {name}, but the file is {}.yaml{case}; rename one of them",
        place.name
    );
    Err(field_error("metadata.name", message))
}

/// Checks that an override overrides the kind of its folder.
pub(super) fn check_target(place: &Place, target: Option<Kind>) -> Result<(), DocumentError> {
    let Some(target) = target.filter(|target| *target != place.kind) else {
        return Ok(());
    };
    let message = format!(
        "spec.targetKind: is {target}, but the folder is that of a {}; move the file, or remove the field",
        place.kind
    );
    Err(field_error("spec.targetKind", message))
}

fn field_error(field: &str, message: String) -> DocumentError {
    DocumentError {
        file: None,
        location: None,
        field: field.to_owned(),
        message,
        is_denied: false,
    }
}

/// The last parse of one file.
#[derive(Debug)]
struct CachedFile<D> {
    stamp: Stamp,
    settled: bool,
    hash: TextHash,
    slot: Result<Arc<Stored<D>>, DocumentError>,
    seen: bool,
}

/// Cache of the files of one tree and kind.
#[derive(Debug)]
pub(super) struct Cache<D> {
    entries: HashMap<PathBuf, CachedFile<D>>,
    /// The last result for each file, valid or not.
    last: HashMap<PathBuf, Outcome<D>>,
    /// Files whose change is debounced, with the time when the change was first seen.
    waiting: HashMap<PathBuf, Instant>,
    seen: HashSet<PathBuf>,
    /// The folder was listed before, so that there is a previous state.
    listed: bool,
    /// Number of parsed texts.
    pub(super) parsed: u64,
}

impl<D> Default for Cache<D> {
    fn default() -> Self {
        let (entries, last, waiting, seen) = Default::default();
        Self {
            entries,
            last,
            waiting,
            seen,
            listed: false,
            parsed: 0,
        }
    }
}

pub(super) type Outcome<D> = Result<Arc<Stored<D>>, DocumentError>;

impl<D: Parsed> Cache<D> {
    /// As [`Cache::look`], but returns the previous content of a file whose change may be incomplete.
    pub(super) fn look_patiently(
        &mut self,
        path: &Path,
        place: &Place,
        patience: &Debounce,
    ) -> Option<Outcome<D>> {
        let since = self.waiting.get(path).copied();
        let since = since.unwrap_or_else(Instant::now);
        let found = fs::symlink_metadata(path);
        let waits = match found.as_ref().map(Stamp::of) {
            Ok(stamp) if self.listed && patience.waits_for(path, &stamp, since) => {
                let hash = read::text(path).ok().flatten().map(|text| text.hash);
                !patience.is_own(path, hash.as_ref())
            }
            Err(_) if self.last.contains_key(path) => patience.waits_for_return(path, since),
            _ => false,
        };
        self.seen.insert(path.to_owned());
        if waits {
            self.waiting.entry(path.to_owned()).or_insert(since);
            return self.last.get(path).cloned();
        }
        self.waiting.remove(path);
        let found = self.look_at(path, place, found, None);
        match &found {
            Some(outcome) => drop(self.last.insert(path.to_owned(), outcome.clone())),
            None => drop(self.last.remove(path)),
        }
        found
    }

    /// Begins a listing: what was looked at since the last one does not count.
    pub(super) fn begin(&mut self) {
        self.entries
            .values_mut()
            .for_each(|entry| entry.seen = false);
    }

    /// Returns what was found in a file that did not change since; `None` if it must be looked at.
    pub(super) fn known_slot(&mut self, path: &Path, changed: &ChangedFiles) -> Option<Outcome<D>> {
        if changed.has(path) || self.waiting.contains_key(path) {
            return None;
        }
        let entry = self.entries.get_mut(path).filter(|entry| entry.settled)?;
        entry.seen = true;
        Some(entry.slot.clone())
    }

    /// The files that existed at the last look.
    pub(super) fn known(&self) -> impl Iterator<Item = &PathBuf> {
        self.last.keys()
    }

    /// Returns whether a change is debounced, so that a new look is needed soon.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns the document in a file; `None` without a file. Parses only changed files.
    pub(super) fn look(&mut self, path: &Path, place: &Place) -> Option<Outcome<D>> {
        self.look_beside(path, place, None)
    }

    /// As [`Cache::look`]; a file with the text of another one shares its document.
    pub(super) fn look_beside(
        &mut self,
        path: &Path,
        place: &Place,
        beside: Option<&Stored<D>>,
    ) -> Option<Outcome<D>> {
        self.look_at(path, place, fs::symlink_metadata(path), beside)
    }

    /// As [`Cache::look_beside`], for what was found at the path.
    fn look_at(
        &mut self,
        path: &Path,
        place: &Place,
        found: io::Result<Metadata>,
        beside: Option<&Stored<D>>,
    ) -> Option<Outcome<D>> {
        let metadata = match read::checked(path, found) {
            Ok(None) => return None,
            Err(error) => return Some(Err(error)),
            Ok(Some(metadata)) => metadata,
        };
        if let Some(entry) = self.entries.get_mut(path)
            && entry.settled
            && entry.stamp == Stamp::of(&metadata)
        {
            entry.seen = true;
            return Some(entry.slot.clone());
        }
        match read::text_of(path, Some(metadata)) {
            Ok(None) => None,
            Err(error) => Some(Err(error)),
            Ok(Some(text)) => Some(self.take(path, place, &text, beside)),
        }
    }

    fn take(
        &mut self,
        path: &Path,
        place: &Place,
        text: &Text,
        beside: Option<&Stored<D>>,
    ) -> Outcome<D> {
        let settled = text.stamp.is_settled();
        if let Some(entry) = self.entries.get_mut(path)
            && entry.hash == text.hash
        {
            (entry.stamp, entry.settled, entry.seen) = (text.stamp, settled, true);
            return entry.slot.clone();
        }
        let same = beside.filter(|beside| beside.hash == text.hash);
        let parsed = match same {
            Some(same) => Ok((Arc::clone(&same.document), Arc::clone(&same.text))),
            None => {
                self.parsed += 1;
                let parsed = D::parse(&text.text, place);
                parsed.map(|document| (document.into(), text.text.as_str().into()))
            }
        };
        let slot = parsed.map_err(|error| error.in_file(path));
        let slot = slot.map(|(document, content)| {
            Arc::new(Stored {
                document,
                hash: text.hash,
                path: path.to_owned(),
                owner: text.owner,
                text: content,
            })
        });
        let entry = CachedFile {
            stamp: text.stamp,
            settled,
            hash: text.hash,
            slot: slot.clone(),
            seen: true,
        };
        self.entries.insert(path.to_owned(), entry);
        slot
    }

    /// Keeps a document that the agent has just written to a file, so that the next look does not parse it. A build with
    /// debug assertions checks that it would be the same.
    pub(super) fn wrote(
        &mut self,
        path: &Path,
        place: &Place,
        document: D,
        text: &str,
    ) -> Option<Arc<Stored<D>>> {
        debug_assert!(D::parse(text, place).is_ok_and(|parsed| parsed == document));
        let metadata = fs::symlink_metadata(path).ok()?;
        let stored = Arc::new(Stored {
            document: Arc::new(document),
            hash: read::hash(text),
            path: path.to_owned(),
            owner: metadata.uid(),
            text: text.into(),
        });
        let entry = CachedFile {
            stamp: Stamp::of(&metadata),
            settled: false,
            hash: stored.hash,
            slot: Ok(Arc::clone(&stored)),
            seen: true,
        };
        self.entries.insert(path.to_owned(), entry);
        Some(stored)
    }

    pub(super) fn forget(&mut self, path: &Path) {
        self.entries.remove(path);
    }

    /// Returns the valid files that existed before and are missing now; they stay in the cache.
    pub(super) fn keep_lost(&mut self) -> Vec<Arc<Stored<D>>> {
        let lost = self
            .entries
            .iter_mut()
            .filter(|(path, entry)| !entry.seen && fs::symlink_metadata(path).is_err());
        let kept = lost.filter_map(|(_, entry)| {
            let stored = entry.slot.as_ref().ok()?;
            entry.seen = true;
            Some(Arc::clone(stored))
        });
        kept.collect()
    }

    /// Forgets the files that were not looked at since the last call.
    pub(super) fn forget_unseen(&mut self) {
        self.entries
            .retain(|_, entry| std::mem::take(&mut entry.seen));
        let seen = std::mem::take(&mut self.seen);
        let entries = &self.entries;
        self.last
            .retain(|path, _| seen.contains(path) || entries.contains_key(path));
        self.waiting.retain(|path, _| seen.contains(path));
        self.listed = true;
    }
}
