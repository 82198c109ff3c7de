//! Changes of an operator: documents and overrides, checked together with everything else on this router before the
//! first file is written. The daemon holds the lock; it treats the files as an editor's, so that the history has their
//! owner as the author.

mod because;
pub(crate) mod document;
mod effect;
pub(crate) mod expiry;
mod given;
pub(crate) mod patch;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) use because::Because;
pub(crate) use effect::takes_effect;
use given::{Given, given_at};

use super::offline::Wanted;
use super::output::Format;
use super::validate::refusals;
use super::{documents, objects, output};
use crate::config::Config;
use crate::desired::Desired;
use crate::document::{Document, DocumentError, Kind, Metadata, OverrideSpec, Problems, to_yaml};
use crate::effective::difference;
use crate::model::ObjectName;
use crate::store::{self, Area, Place, Snapshot};
use crate::telemetry::chain;
use crate::util::file::{self, Writer};
use crate::util::fs;
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;

/// Changes that are not written yet.
pub(crate) struct Draft {
    pub(crate) wanted: Wanted,
    changes: Vec<Change>,
    /// The state directory as it was read, without the changes.
    listed: Arc<Snapshot>,
    /// Losses of information that the operator should know once the changes are accepted.
    notes: Vec<String>,
    /// The document from which the next change is made.
    given: Option<Given>,
}

struct Change {
    place: Place,
    /// `None`: the file is removed.
    text: Option<String>,
    /// The text that it replaces.
    base: Option<String>,
    result: Outcome,
    /// The document that an operator gave for it.
    given: Option<Given>,
}

/// A file is not as it was when the change was made.
#[derive(Debug, thiserror::Error)]
#[error("{0} changed meanwhile, so nothing was written; look at it, and try again")]
pub(crate) struct ChangedMeanwhile(pub(crate) String);

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Created,
    Changed,
    Unchanged,
    Removed,
}

/// A changed file, for a program.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// `sessions/wg_4242421080`
    object: String,
    /// The path below the state directory.
    file: String,
    result: Outcome,
}

/// The files that were changed, or would be.
pub(crate) struct Changed {
    rows: Vec<Row>,
    /// When that takes effect.
    when: Option<String>,
}

impl Changed {
    /// Prints the files, and when the change takes effect.
    pub(crate) fn print(&self, format: Format, dry_run: bool) -> anyhow::Result<()> {
        if !output::value(format, &self.rows)? {
            let note = if dry_run { " (dry run)" } else { "" };
            for row in &self.rows {
                let (file, result) = (&row.file, format!("{:?}", row.result).to_lowercase());
                output::line(format_args!("{file} {result}{note}"));
            }
        }
        self.note();
        Ok(())
    }

    /// Says when the change takes effect.
    pub(crate) fn note(&self) {
        self.when.iter().for_each(|when| output::note(when));
    }
}

/// A valid document of the state directory.
pub(crate) struct Present {
    pub(crate) metadata: Metadata,
    pub(crate) spec: Value,
}

impl Present {
    /// Returns whether the Control Plane writes the document, so that a change must be an override.
    pub(crate) fn is_synced(&self) -> bool {
        self.metadata.uid.is_some()
    }
}

/// Makes changes, checks them and writes them; only checks with `dry_run`. Other commands wait only while files are written. If
/// one of them wrote during the check, the changes are made and checked once more, and then the others wait for that too.
///
/// # Errors
/// A change cannot be made, would be rejected, or cannot be written.
pub(crate) async fn change<T>(
    config: &Config,
    dry_run: bool,
    make: impl AsyncFn(&mut Draft) -> anyhow::Result<T>,
) -> anyhow::Result<(T, Changed)> {
    let mut lock = None;
    loop {
        let mut draft = Draft::read(config.clone()).await?;
        let made = make(&mut draft).await?;
        let waiting = draft.check().await?;
        let is_written = !dry_run && !draft.is_unchanged();
        if is_written && lock.is_none() {
            lock = Some(locked(config).await?);
            if !draft.wanted.is_still(&draft.listed).await? {
                continue;
            }
        }
        let (notes, rows) = (std::mem::take(&mut draft.notes), draft.rows());
        if is_written {
            draft.write().await?;
        }
        notes.iter().for_each(|note| output::note(note));
        let when = match is_written {
            true => Some(takes_effect(config, &waiting).await),
            false => None,
        };
        return Ok((made, Changed { rows, when }));
    }
}

/// Takes the lock under which operators' commands write.
async fn locked(config: &Config) -> anyhow::Result<File> {
    let directory = config.state.directory.clone();
    let lock = blocking(move || store::lock_changes(&directory)).await;
    lock.context("nothing was written")
}

impl Draft {
    /// Reads the state directory.
    pub(crate) async fn read(config: Config) -> anyhow::Result<Self> {
        let wanted = Wanted::read(config).await?;
        Ok(Self {
            listed: Arc::clone(&wanted.snapshot),
            wanted,
            changes: Vec::new(),
            notes: Vec::new(),
            given: None,
        })
    }

    /// Names the document from which the next changes are made, so that errors have their place in it.
    fn give(&mut self, given: Given) {
        self.given = Some(given);
    }

    fn is_unchanged(&self) -> bool {
        let mut results = self.changes.iter().map(|it| it.result);
        results.all(|result| result == Outcome::Unchanged)
    }

    /// Returns the object that a name means.
    ///
    /// # Errors
    /// No document or several have the name.
    pub(crate) fn named(&self, meant: &str) -> anyhow::Result<(Kind, ObjectName)> {
        let all = documents::all(&self.wanted.snapshot);
        let found = objects::one(all.keys(), |(kind, name)| (*kind, name), meant)?;
        let known = || all.keys().map(|(kind, name)| kind.path(name));
        found
            .cloned()
            .ok_or_else(|| objects::unknown(meant, known()))
    }

    /// Returns the document of an object, if it has one.
    ///
    /// # Errors
    /// Its file is invalid.
    pub(crate) fn document(
        &self,
        kind: Kind,
        name: &ObjectName,
    ) -> anyhow::Result<Option<Present>> {
        let loaded = documents::all(&self.wanted.snapshot).remove(&(kind, name.clone()));
        let loaded = loaded.transpose()?;
        Ok(loaded.map(|(metadata, spec)| Present { metadata, spec }))
    }

    /// Returns the texts of an object's document and override, as they are on disk.
    pub(crate) fn texts(&self, kind: Kind, name: &ObjectName) -> [Option<String>; 2] {
        let places = [
            Place::document(kind, name),
            Place::new(Area::Overrides, kind, name),
        ];
        places.map(|place| text_at(&self.path(&place)))
    }

    /// Returns whether the file of a document of the Control Plane is invalid.
    fn is_broken_sync(&self, kind: Kind, name: &ObjectName) -> bool {
        let broken = &self.wanted.snapshot.broken;
        broken.contains_key(&(kind, name.clone()))
    }

    /// Returns the override of an object, unless it has expired.
    ///
    /// # Errors
    /// Its file is invalid, so that a change could lose what it says.
    pub(crate) fn override_(
        &self,
        kind: Kind,
        name: &ObjectName,
    ) -> anyhow::Result<Option<OverrideSpec>> {
        let slot = self.wanted.snapshot.overrides.get(&(kind, name.clone()));
        let stored = slot.map(Result::as_ref).transpose();
        let stored = stored.map_err(|error| {
            anyhow::anyhow!("{error}; fix the file or delete it, then try again")
        })?;
        let spec = stored.map(|stored| stored.document.spec.clone());
        Ok(spec.filter(|spec| spec.in_effect(Timestamp::now())))
    }

    /// Replaces the document of an object by a text without problems.
    pub(crate) fn put_document(&mut self, place: &Place, text: &str) {
        let path = self.path(place);
        let snapshot = Arc::make_mut(&mut self.wanted.snapshot);
        let exists = snapshot.has(place.kind, &place.name);
        let _ = snapshot.set_document(place, path, text);
        self.push(place, Some(text.to_owned()), exists);
    }

    /// Replaces the override of an object. One that neither sets a field nor pauses is removed.
    ///
    /// # Errors
    /// The override has no form in YAML.
    pub(crate) fn put_override(
        &mut self,
        kind: Kind,
        name: &ObjectName,
        mut spec: OverrideSpec,
    ) -> anyhow::Result<()> {
        // The folder says it.
        spec.target_kind = None;
        if spec.set.is_empty() && !spec.paused {
            self.remove_override(kind, name);
            return Ok(());
        }
        let place = Place::new(Area::Overrides, kind, name);
        let document = Document::new(name.clone(), None, 0, spec);
        let text = to_yaml(&document)?;
        let problems = store::text_problems(&place.relative(), &place, &text);
        let problems = problems
            .into_iter()
            .map(|it| given_at(self.given.as_ref(), it));
        Problems::refuse(problems.collect())?;
        let key = (kind, name.clone());
        let snapshot = Arc::make_mut(&mut self.wanted.snapshot);
        let before = snapshot.overrides.get(&key);
        let same = before.is_some_and(|slot| {
            slot.as_ref()
                .is_ok_and(|stored| *stored.document == document)
        });
        let (exists, comments) = (before.is_some(), before.is_some_and(has_comments));
        if comments && !same {
            let lost = "are not kept; the history has them";
            self.notes.push(format!("the comments of {place} {lost}"));
        }
        snapshot.set_override(kind, document);
        match same {
            true => self.unchanged(&place),
            false => self.push(&place, Some(text), exists),
        }
        Ok(())
    }

    /// Removes the override of an object, if there is one.
    pub(crate) fn remove_override(&mut self, kind: Kind, name: &ObjectName) {
        let place = Place::new(Area::Overrides, kind, name);
        let snapshot = Arc::make_mut(&mut self.wanted.snapshot);
        match snapshot.overrides.remove(&(kind, name.clone())) {
            Some(_) => self.add(&place, None, Outcome::Removed),
            None => self.unchanged(&place),
        }
    }

    /// Notes a file that has its content already.
    pub(crate) fn unchanged(&mut self, place: &Place) {
        self.add(place, None, Outcome::Unchanged);
    }

    fn push(&mut self, place: &Place, text: Option<String>, exists: bool) {
        let result = match exists {
            true => Outcome::Changed,
            false => Outcome::Created,
        };
        self.add(place, text, result);
    }

    fn add(&mut self, place: &Place, text: Option<String>, result: Outcome) {
        let change = Change {
            place: place.clone(),
            text,
            base: text_at(&self.path(place)),
            result,
            given: self.given.clone(),
        };
        add(&mut self.changes, change);
    }

    fn path(&self, place: &Place) -> PathBuf {
        self.wanted.parts.shared.context.store.path(place)
    }

    /// Checks that a pass would accept everything that it accepts now: a secret may be missing, another object may have the port,
    /// and a policy concerns every session.
    ///
    /// Returns the changed objects that wait, each with the reason.
    ///
    /// # Errors
    /// What would be rejected by the changes; nothing was written.
    async fn check(&self) -> anyhow::Result<Vec<String>> {
        if self.is_unchanged() {
            return Ok(Vec::new());
        }
        let now = &self.wanted.desired;
        let desired = self.wanted.again().await;
        let changed = self.changes.iter();
        let changed = changed.map(|it| it.place.kind.path(&it.place.name));
        let new = newly_rejected(rejected(now), rejected(&desired), changed.sorted_set());
        let new = new.map(|(path, fault)| self.told(&path, fault));
        Problems::refuse(new.collect()).context("nothing was written")?;
        match self.wanted.refused(&desired).await {
            Ok(Some(why)) if !matches!(self.wanted.refused(now).await, Ok(Some(_))) => {
                anyhow::bail!("BIRD would reject the result, so nothing was written: {why}")
            }
            Ok(_) => {}
            Err(error) => output::note(&format!(
                "the result was not checked by BIRD: {}",
                chain(error.as_ref())
            )),
        }
        Ok(self.waiting(&desired))
    }

    /// Returns why the router would reject an object. The place of a field of a changed object is in the document that the
    /// operator gave; an argument has none.
    fn told(&self, path: &str, fault: DocumentError) -> DocumentError {
        let mut changes = self.changes.iter();
        let change = changes.find(|it| it.place.kind.path(&it.place.name) == path);
        let message = format!("{path} would be rejected: {}", fault.message);
        let fault = DocumentError { message, ..fault };
        match change {
            Some(change) => given_at(change.given.as_ref(), fault),
            None => fault,
        }
    }

    /// Writes every change. The caller holds the lock.
    async fn write(self) -> anyhow::Result<()> {
        let paths: Vec<_> = self
            .changes
            .iter()
            .map(|change| self.path(&change.place))
            .collect();
        blocking(move || {
            let changes = || self.changes.iter().zip(&paths);
            for (change, path) in changes() {
                change.check_base(path)?;
            }
            for (change, path) in changes() {
                change.write(path)?;
            }
            Ok(())
        })
        .await
    }

    fn rows(&self) -> Vec<Row> {
        let row = |change: &Change| Row {
            object: change.place.kind.path(&change.place.name),
            file: change.place.relative().display().to_string(),
            result: change.result,
        };
        self.changes.iter().map(row).collect()
    }
}

impl Change {
    /// Refuses to replace a text that was not part of the check.
    fn check_base(&self, path: &Path) -> Result<(), ChangedMeanwhile> {
        match self.result == Outcome::Unchanged || text_at(path) == self.base {
            true => Ok(()),
            false => Err(ChangedMeanwhile(self.place.kind.path(&self.place.name))),
        }
    }

    /// Writes a temporary file and renames it, as the daemon does.
    fn write(&self, path: &Path) -> anyhow::Result<()> {
        match (&self.text, self.result) {
            (_, Outcome::Unchanged) => Ok(()),
            (None, _) => {
                fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
            }
            (Some(text), _) => {
                let folder = path.parent().unwrap_or(Path::new("."));
                fs::create_dir_all(folder)
                    .and_then(|()| Writer::new(0o644).replace(path, text.as_bytes()))
                    .with_context(|| format!("write {}", path.display()))
            }
        }
    }
}

/// Adds a change. Of two changes of one file the second, whose result is relative to the first, replaces the first.
fn add(changes: &mut Vec<Change>, mut change: Change) {
    let first = changes.iter().position(|it| it.place == change.place);
    if let Some(first) = first {
        if change.result == Outcome::Unchanged {
            return;
        }
        change.base = changes.remove(first).base;
        change.result = match (&change.base, &change.text) {
            (base, text) if base == text => Outcome::Unchanged,
            (None, _) => Outcome::Created,
            (_, None) => Outcome::Removed,
            _ => Outcome::Changed,
        };
    }
    changes.push(change);
}

fn text_at(path: &Path) -> Option<String> {
    file::read_text(path, file::DOCUMENT).ok()
}

/// Returns everything that a pass would reject.
fn rejected(desired: &Desired) -> BTreeSet<(String, DocumentError)> {
    let shared = match (&desired.router, &desired.base) {
        (Err(why), _) => Some(chain(why)),
        (_, Err(why)) => Some(chain(why)),
        _ => None,
    };
    let node = Kind::Node.folder().to_owned();
    let shared = shared.map(|why| (node, DocumentError::whole(why)));
    refusals(desired).into_iter().chain(shared).sorted_set()
}

/// Returns the objects that a pass would reject because of the changes, with the reasons. An object that is rejected already can
/// still be paused; its new reason may only name another object. Without a valid node no peer was checked before: a change that
/// repairs the node must not be refused for peers that it does not change.
fn newly_rejected<T: Ord>(
    before: BTreeSet<(String, T)>,
    after: BTreeSet<(String, T)>,
    changed: BTreeSet<String>,
) -> impl Iterator<Item = (String, T)> {
    let node = Kind::Node.folder();
    let before: BTreeSet<_> = before.into_iter().map(|(path, _)| path).sorted_set();
    let is_all = !before.contains(node) || after.iter().any(|(path, _)| path == node);
    after
        .into_iter()
        .filter(move |(path, _)| !before.contains(path) && (is_all || changed.contains(path)))
}

fn has_comments(slot: &store::Slot<OverrideSpec>) -> bool {
    let Ok(stored) = slot else { return false };
    let mut lines = stored.text.lines().map(str::trim_start);
    // The first line may name the schema.
    lines.any(|line| line.starts_with('#') && !line.contains("yaml-language-server"))
}

/// Returns the override that turns a document into this specification, on top of what the existing one says otherwise.
///
/// # Errors
/// There is no reason for it.
pub(crate) fn towards(
    document: &Value,
    wanted: &Value,
    existing: Option<&OverrideSpec>,
    because: &Because,
) -> anyhow::Result<OverrideSpec> {
    let set = match difference(document, wanted) {
        Value::Object(set) => set,
        _ => Map::new(),
    };
    let is_same = existing.map_or(set.is_empty(), |existing| existing.set == set);
    let before = existing.cloned();
    // Many objects may be written at once: those that do not change keep their own reason and end.
    let mut spec = match (before, is_same) {
        (Some(existing), true) => existing,
        (existing, _) => because.apply(existing, set.is_empty())?,
    };
    spec.set = set;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds these changes of one file, and returns the only one that is left, as its text and result.
    fn added(base: Option<&str>, changes: &[(Option<&str>, Outcome)]) -> (Option<String>, Outcome) {
        let mut all = Vec::new();
        for (text, result) in changes {
            let change = Change {
                place: Place::document(Kind::BgpSession, &"a".parse().unwrap()),
                text: text.map(str::to_owned),
                base: base.map(str::to_owned),
                result: *result,
                given: None,
            };
            add(&mut all, change);
        }
        assert_eq!(all.len(), 1);
        let left = all.remove(0);
        assert_eq!(left.base.as_deref(), base);
        (left.text, left.result)
    }

    #[test]
    fn same_document_twice_is_written() {
        for first in [Outcome::Created, Outcome::Changed, Outcome::Removed] {
            let text = (first != Outcome::Removed).then_some("new");
            let twice = [(text, first), (None, Outcome::Unchanged)];
            let left = added(None, &twice);
            assert_eq!(left, (text.map(str::to_owned), first));
        }
    }

    #[test]
    fn result_of_two_changes_is_that_of_the_file() {
        use Outcome::{Changed, Created, Removed, Unchanged};
        let (new, old) = (Some("new"), Some("old"));
        for (base, changes, result) in [
            (None, [(new, Created), (None, Removed)], Unchanged),
            (None, [(old, Created), (new, Changed)], Created),
            (old, [(None, Removed), (new, Created)], Changed),
            (old, [(new, Changed), (None, Removed)], Removed),
            (old, [(new, Changed), (old, Changed)], Unchanged),
            (old, [(None, Unchanged), (new, Changed)], Changed),
        ] {
            let text = changes[1].0.map(str::to_owned);
            assert_eq!(
                added(base, &changes),
                (text, result),
                "{base:?} {changes:?}"
            );
        }
    }

    /// Returns the paths that a change of `sessions/a` lets a pass reject.
    fn new_paths(before: &[(&str, &str)], after: &[(&str, &str)]) -> Vec<String> {
        let owned = |all: &[(&str, &str)]| {
            let all = all.iter();
            all.map(|(path, why)| ((*path).to_owned(), (*why).to_owned()))
                .collect()
        };
        let changed = ["sessions/a".to_owned()].into();
        let new = newly_rejected(owned(before), owned(after), changed);
        new.map(|(path, _)| path).collect()
    }

    #[test]
    fn change_that_repairs_the_node_is_accepted() {
        let broken = [("node", "invalid MTU 1")];
        assert_eq!(new_paths(&broken, &[("sessions/b", "port")]), [""; 0]);
        assert_eq!(new_paths(&broken, &[("node", "invalid MTU 2")]), [""; 0]);
        let own = [("sessions/a", "port"), ("sessions/b", "port")];
        assert_eq!(new_paths(&broken, &own), ["sessions/a"]);
    }

    #[test]
    fn rejected_object_with_another_reason_is_not_new() {
        let before = [("sessions/b", "has the port of sessions/a")];
        let after = [("sessions/b", "has the port of sessions/c")];
        assert_eq!(new_paths(&before, &after), [""; 0]);
        let harmed = [after[0], ("sessions/c", "port")];
        assert_eq!(new_paths(&before, &harmed), ["sessions/c"]);
    }
}
