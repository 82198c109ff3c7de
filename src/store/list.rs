//! Listing the state directory.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::document::{self, Document, DocumentError, Kind, Spec};
use crate::model::{ObjectName, Uid, plain_key};
use crate::redact::find_secret;
use crate::util::sorted::Sorted as _;

use super::cache::{Cache, Outcome, Parsed, Slot, Stored};
use super::changed::ChangedFiles;
use super::debounce::Debounce;
use super::manual_edit::{Edit, edit};
use super::names::{Entry, Folders, is_document, misnamed, names};
use super::place::folder;
use super::quarantine::is_own;
use super::synced::{BrokenDocument, is_taken_over};
use super::{Area, Place, SYNCED, read};

/// The error of an override for the maintenance document.
pub(super) const OVERRIDES_NOTHING: &str = "overrides nothing: maintenance.yaml is yours to edit";

/// The documents of a kind, and their last versions of the sync.
#[derive(Debug)]
pub(super) struct Pair<S> {
    pub(super) now: Cache<Document<S>>,
    pub(super) synced: Cache<Document<S>>,
}

/// A [`Pair`] of any kind.
pub(super) trait AnyPair {
    /// Number of parsed texts so far.
    fn parsed(&self) -> u64;
    /// Forgets the copy of a document that the agent removes.
    fn forget_copy(&mut self, path: &Path);
    /// Returns whether a document has a `uid`; `None` if it is missing or invalid.
    fn has_uid(&mut self, path: &Path, place: &Place) -> Option<bool>;
    /// Keeps a document of this kind that the agent has just written.
    fn wrote(&mut self, path: &Path, place: &Place, document: &dyn Any, text: &str);
}

impl<S> Default for Pair<S> {
    fn default() -> Self {
        Self {
            now: Cache::default(),
            synced: Cache::default(),
        }
    }
}

impl<S: Spec> AnyPair for Pair<S> {
    fn parsed(&self) -> u64 {
        self.now.parsed + self.synced.parsed
    }

    fn forget_copy(&mut self, path: &Path) {
        self.synced.forget(path);
    }

    fn has_uid(&mut self, path: &Path, place: &Place) -> Option<bool> {
        let stored = self.now.look(path, place)?.ok()?;
        Some(stored.document.metadata.uid.is_some())
    }

    fn wrote(&mut self, path: &Path, place: &Place, document: &dyn Any, text: &str) {
        if let Some(document) = document.downcast_ref::<Document<S>>() {
            self.now.wrote(path, place, document.clone(), text);
        }
    }
}

/// State of one pass over the directory.
pub(super) struct Listing<'a> {
    dir: &'a Path,
    missing_is_empty: bool,
    patience: &'a Debounce,
    folders: &'a mut Folders,
    changed: &'a ChangedFiles,
    pub(super) problems: Vec<DocumentError>,
    pub(super) edits: Vec<Edit>,
    pub(super) broken: BTreeMap<(Kind, ObjectName), BrokenDocument>,
    pub(super) uncopied: BTreeSet<Place>,
    pub(super) lost_copies: Vec<(PathBuf, Arc<str>)>,
    pub(super) complete: bool,
    pub(super) settled: bool,
}

type Found<D> = BTreeMap<ObjectName, Outcome<D>>;

impl<'a> Listing<'a> {
    pub(super) fn new(
        dir: &'a Path,
        missing_is_empty: bool,
        patience: &'a Debounce,
        (folders, changed): (&'a mut Folders, &'a ChangedFiles),
    ) -> Self {
        let (problems, edits, broken, uncopied, lost_copies) = Default::default();
        Self {
            dir,
            missing_is_empty,
            patience,
            folders,
            changed,
            problems,
            edits,
            broken,
            uncopied,
            lost_copies,
            complete: true,
            settled: true,
        }
    }
}

impl Listing<'_> {
    /// Lists a part, and returns whether that part is complete.
    pub(super) fn apart<T>(&mut self, list: impl FnOnce(&mut Self) -> T) -> (T, bool) {
        let before = std::mem::replace(&mut self.complete, true);
        let listed = list(self);
        let complete = std::mem::replace(&mut self.complete, before);
        self.complete &= complete;
        (listed, complete)
    }

    /// Lists the document of a kind with one document.
    pub(super) fn document<S: Spec>(&mut self, pair: &mut Pair<S>) -> Option<Slot<S>> {
        self.documents(pair).into_values().next()
    }

    /// Lists the documents of a kind, and compares them with the last versions of the sync.
    pub(super) fn documents<S: Spec>(
        &mut self,
        pair: &mut Pair<S>,
    ) -> BTreeMap<ObjectName, Slot<S>> {
        let (found, folder_complete) =
            self.apart(|listing| listing.folder(Area::Documents, S::KIND, &mut pair.now));
        let synced = self.synced(&mut pair.synced, &found);
        let mut found = found;
        self.refuse_copies(&mut found, &synced);
        let copied: BTreeSet<&ObjectName> = synced.iter().map(|(name, _)| name).sorted_set();
        let of_the_sync = |slot: &Outcome<Document<S>>| {
            slot.as_ref()
                .is_ok_and(|s| s.document.metadata.uid.is_some())
        };
        let uncopied = found
            .iter()
            .filter(|(name, slot)| !copied.contains(name) && of_the_sync(slot));
        self.uncopied
            .extend(uncopied.map(|(name, _)| Place::document(S::KIND, name)));
        for (name, synced) in synced {
            let now = found.get(&name);
            if now.is_none() && !folder_complete {
                continue;
            }
            if let Some(Err(error)) = now
                && !is_taken_over(&synced.text)
                && !self.is_meant_as_own(error)
                && let Some(document) = BrokenDocument::of(&*synced.document)
            {
                self.broken.insert((S::KIND, name.clone()), document);
            }
            self.edits
                .extend(edit(Place::document(S::KIND, &name), &synced, now));
        }
        found
    }

    /// Returns whether an invalid file has a valid head without a uid.
    fn is_meant_as_own(&self, error: &DocumentError) -> bool {
        let text = error
            .file
            .as_ref()
            .and_then(|file| read::text(file).ok().flatten());
        text.is_some_and(|text| is_own(&text.text))
    }

    /// Reports files in `overrides/` that override nothing, for an operator who used the wrong place.
    pub(super) fn strays(&mut self) {
        let folder = self.dir.join(Area::Overrides.folder());
        for Entry { name, is_folder } in self.folders.entries(&folder).iter().flat_map(|all| &**all)
        {
            let (path, is_folder) = (folder.join(name), *is_folder);
            let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
            let kind = Kind::ALL.into_iter().find(|kind| kind.folder() == stem);
            let message = match kind {
                Some(Kind::Maintenance) => OVERRIDES_NOTHING.to_owned(),
                Some(kind) if kind != Kind::Override && kind.is_single() != is_folder => continue,
                _ if !is_folder && !is_document(Path::new(name)) => continue,
                _ if name.as_encoded_bytes().starts_with(b".") => continue,
                _ => format!(
                    "overrides nothing: an override belongs in {} under the name of the object, or is \
                     overrides/node.yaml or overrides/policy.yaml",
                    override_folders()
                ),
            };
            self.problems.push(read::error(&path, message));
        }
    }

    /// Refuses a document with the uid of another: an operator copied it and left the uid in. Both
    /// would be one object to the kernel and to the Control Plane.
    fn refuse_copies<S: Spec>(
        &mut self,
        found: &mut Found<Document<S>>,
        synced: &[(ObjectName, Arc<Stored<Document<S>>>)],
    ) {
        let originals = synced.iter().filter(|(name, _)| found.contains_key(name));
        let originals = originals
            .filter_map(|(name, synced)| Some((synced.document.metadata.uid.as_ref()?, name)));
        let mut owners: HashMap<&Uid, &ObjectName> = originals.collect();
        let mut copies = Vec::new();
        for (name, slot) in &*found {
            let stored = slot.as_ref().ok();
            let Some(uid) = stored.and_then(|stored| stored.document.metadata.uid.as_ref()) else {
                continue;
            };
            let owner = *owners.entry(uid).or_insert(name);
            if owner != name {
                copies.push((name.clone(), owner.clone()));
            }
        }
        for (name, owner) in copies {
            let Some(Ok(stored)) = found.get(&name) else {
                continue;
            };
            let error = DocumentError {
                file: Some(stored.path.clone()),
                location: document::locate(&stored.text, &["metadata", "uid"]),
                field: "metadata.uid".to_owned(),
                message: format!(
                    "metadata.uid: {owner} has the same uid; remove uid from a document of your own"
                ),
                is_denied: false,
            };
            self.problems.push(error.clone());
            found.insert(name, Err(error));
        }
    }

    /// Lists the last versions of the sync. Leaves out unreadable copies: no edit is inferred from
    /// them. Only the agent removes a copy: a copy that another tool removed keeps its last
    /// content.
    fn synced<S: Spec>(
        &mut self,
        cache: &mut Cache<Document<S>>,
        documents: &Found<Document<S>>,
    ) -> Vec<(ObjectName, Arc<Stored<Document<S>>>)> {
        let (base, kind) = (self.dir.join(SYNCED), S::KIND);
        let copies = base.join(folder(Area::Documents, kind));
        cache.begin();
        let names = match kind.is_single() {
            true => [Place::single(Area::Documents, kind).name].into(),
            false => names(&base.join(kind.folder()), self.folders)
                .map(|listed| listed.names)
                .unwrap_or_default(),
        };
        let found = names.into_iter().filter_map(|name| {
            let place = Place::document(kind, &name);
            // A copy mostly equals its document.
            let document = documents.get(&name).and_then(|slot| slot.as_deref().ok());
            let path = copies.join(place.file());
            let slot = match cache.known_slot(&path, self.changed) {
                Some(slot) => slot,
                None => cache.look_beside(&path, &place, document)?,
            };
            Some((name, slot.ok()?))
        });
        let mut found: Vec<_> = found.collect();
        for lost in cache.keep_lost() {
            let inside = lost.path.strip_prefix(&base).ok();
            if let Some(place) = inside.and_then(Place::parse) {
                self.lost_copies
                    .push((lost.path.clone(), Arc::clone(&lost.text)));
                // In its order: of two copies with one uid the same one counts in each listing.
                let at = found.partition_point(|(name, _)| *name < place.name);
                found.insert(at, (place.name, lost));
            }
        }
        cache.forget_unseen();
        found
    }

    /// Lists the documents of all kinds in a tree.
    pub(super) fn tree<D: Parsed>(
        &mut self,
        area: Area,
        cache: &mut Cache<D>,
    ) -> BTreeMap<(Kind, ObjectName), Outcome<D>> {
        cache.begin();
        let mut all = BTreeMap::new();
        for kind in super::place::PLACED {
            let found = self.files(area, kind, cache);
            all.extend(found.into_iter().map(|(name, slot)| ((kind, name), slot)));
        }
        cache.forget_unseen();
        all
    }

    fn folder<D: Parsed>(&mut self, area: Area, kind: Kind, cache: &mut Cache<D>) -> Found<D> {
        cache.begin();
        let found = self.files(area, kind, cache);
        cache.forget_unseen();
        found
    }

    fn files<D: Parsed>(&mut self, area: Area, kind: Kind, cache: &mut Cache<D>) -> Found<D> {
        let mut found = BTreeMap::new();
        let mut names = self.names(area, kind);
        // Files that only the agent writes are always complete.
        let patient = area != Area::Applied;
        let folder = self.dir.join(folder(area, kind));
        if patient && names.is_listed {
            // Paths compare their parts.
            let is_here = |it: &Path| it.as_os_str() == folder.as_os_str();
            let known = cache
                .known()
                .filter(|path| path.parent().is_some_and(is_here));
            names
                .all
                .extend(known.filter_map(|path| path.file_stem()?.to_str()?.parse().ok()));
        }
        for name in names.all {
            let place = Place::new(area, kind, &name);
            let path = folder.join(place.file());
            let slot = match cache.known_slot(&path, self.changed) {
                Some(slot) => Some(slot),
                None if patient => cache.look_patiently(&path, &place, self.patience),
                None => cache.look(&path, &place),
            };
            if let Some(slot) = slot {
                self.problems.extend(slot.as_ref().err().cloned());
                if let Ok(stored) = &slot
                    && patient
                {
                    self.problems
                        .extend(in_plain_sight(&stored.path, &stored.text));
                }
                found.insert(name, slot);
            }
        }
        self.settled &= !cache.waits();
        self.misnamed(area, kind, &mut found);
        found
    }

    /// Returns the names of the documents of a kind in a tree.
    fn names(&mut self, area: Area, kind: Kind) -> Names {
        if kind.is_single() {
            return Names {
                all: [Place::single(area, kind).name].into(),
                is_listed: false,
            };
        }
        let path = self.dir.join(folder(area, kind));
        let none = Names {
            all: BTreeSet::new(),
            is_listed: false,
        };
        match names(&path, self.folders) {
            Ok(listed) => {
                self.problems.extend(listed.problems);
                Names {
                    all: listed.names,
                    is_listed: true,
                }
            }
            Err(error) if self.missing_is_empty && error.kind() == std::io::ErrorKind::NotFound => {
                none
            }
            Err(error) => {
                self.complete = false;
                let message =
                    format!("cannot be listed ({error}); nothing is removed while that is so");
                self.problems.push(read::error(&path, message));
                none
            }
        }
    }

    /// Lists a document whose file ends in `.yml`, `.json` or `.YAML` as present and invalid, not as absent.
    fn misnamed<D>(&mut self, area: Area, kind: Kind, found: &mut Found<D>) {
        let path = self.dir.join(folder(area, kind));
        let single = Place::single(area, kind).name;
        for file in misnamed(&path, self.folders) {
            let Some(name) = file
                .file_stem()
                .and_then(OsStr::to_str)
                .and_then(|stem| stem.parse().ok())
            else {
                continue;
            };
            if kind.is_single() && name != single {
                continue;
            }
            let error = read::error(&file, "documents end in .yaml; rename it");
            self.problems.push(error.clone());
            found.entry(name).or_insert(Err(error));
        }
    }
}

/// Returns `overrides/sessions, overrides/mesh or overrides/ibgp`.
fn override_folders() -> String {
    let folders = Kind::many().map(|kind| format!("overrides/{}", kind.folder()));
    let all = folders.collect::<Vec<_>>().join(", ");
    match all.rsplit_once(", ") {
        Some((first, last)) => format!("{first} or {last}"),
        None => all,
    }
}

/// Reports a secret in a document. The document stays in effect, since a comment is no reason to take a session
/// down; the history leaves it out.
pub(super) fn in_plain_sight(path: &Path, text: &str) -> Option<DocumentError> {
    let key = plain_key(text).map(|at| (at, "key"));
    let (at, what) = key.or_else(|| Some((find_secret(text)?, "secret")))?;
    let line = text[..at].matches('\n').count() as u64 + 1;
    let message = format!(
        "holds a {what} in plain text, so the history excludes this file; move the {what} to a \
         file in secrets/, mode 0600"
    );
    Some(DocumentError {
        location: Some((line, 1)),
        ..read::error(path, message)
    })
}

/// The names of documents.
struct Names {
    all: BTreeSet<ObjectName>,
    /// A folder was listed for the names.
    is_listed: bool,
}
