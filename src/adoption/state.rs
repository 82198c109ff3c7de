//! The files of an undo: BIRD's, and those of the state directory.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::files::{self, Tree};
use super::{AdoptionError, Undone, record, restore};
use crate::adopt::{Phase, Record, without};
use crate::controller::known_agents;
use crate::document::Kind;
use crate::model::ObjectName;
use crate::store::{Area, Place, SECRETS, Snapshot, Store};
use crate::util::{file, fs};

/// Restores all files.
pub(super) fn everything(
    store: &Store,
    record: &Record,
    roots: &[PathBuf],
    undone: &mut Undone,
) -> Result<(), AdoptionError> {
    let state = store.dir();
    let identity = store.identity().map(|known| known.identity);
    let marked = |path: &Path| {
        let identity = identity.as_ref();
        identity.is_some_and(|identity| restore::is_marked(path, identity))
    };
    let beside = restore::all(state, record, marked, undone)?;
    let mut bird = Tree::default();
    for root in roots {
        // The copies beside edited files may have the agent's mark.
        bird.list(root, &beside)?;
    }
    let removed = files::remove_new(&bird, record, marked)?;
    if removed > 0 {
        let done = format!("removed {removed} files of the agent from BIRD's directory");
        undone.done.push(done);
    }
    let is_edited = |path: &Path| {
        let identity = identity.as_ref();
        identity.is_some_and(|identity| restore::is_edited(path, identity))
    };
    let edited = bird.new_files(record).filter(|path| is_edited(path));
    undone.kept.extend(edited.map(|path| edited_since(path)));
    if !move_whole(state, record, undone)? {
        clear(state, record, beside, undone)?;
    }
    identity.iter().for_each(known_agents::forget);
    Ok(())
}

/// Moves the state directory of a kept adoption away, if the adoption created it: it may hold what an operator wrote since, and
/// its history. Returns whether it did.
fn move_whole(state: &Path, record: &Record, undone: &mut Undone) -> Result<bool, AdoptionError> {
    if record.phase != Phase::Kept || record.state_existed {
        return Ok(false);
    }
    let aside = restore::aside(state, record);
    match fs::rename(state, &aside) {
        // A mount cannot be moved.
        Err(error) if files::is_of_mount(&error) => return Ok(false),
        done => done.map_err(AdoptionError::file("move away", state))?,
    }
    undone.done.push(moved(state, &aside));
    record::remove(&aside)?;
    Ok(true)
}

/// Removes everything from the state directory that was not there before, except these files. What another may have written is
/// moved aside.
fn clear(
    state: &Path,
    record: &Record,
    mut except: Vec<PathBuf>,
    undone: &mut Undone,
) -> Result<(), AdoptionError> {
    let aside = restore::aside(state, record);
    let inside = files::inside(state, &aside);
    let mut own = Tree::default();
    except.extend([record::folder(state), inside]);
    if record.state_existed {
        except.push(state.join(".git"));
    }
    own.list(state, &except)?;
    own.folders.remove(state);
    let is_ours =
        |path: &Path| record.phase == Phase::Applying && files::is_made(state, record, path);
    if let Some(target) = files::move_new(state, &own, record, &aside, is_ours)? {
        let moved = moved(&state.join("*"), &target);
        match record.phase {
            Phase::Kept => undone.done.push(moved),
            Phase::Applying => undone
                .kept
                .push(format!("files were written meanwhile: {moved}")),
        }
    }
    files::remove_new(&own, record, |_| true)?;
    record::remove(state)?;
    if record.state_existed {
        return Ok(());
    }
    match fs::remove_dir(state) {
        Err(error)
            if files::is_of_mount(&error) || error.kind() == ErrorKind::DirectoryNotEmpty => {}
        done => {
            done.map_err(AdoptionError::file("remove", state))?;
            undone.done.push(format!("removed {}", state.display()));
        }
    }
    Ok(())
}

fn moved(from: &Path, to: &Path) -> String {
    format!("moved {} to {}", from.display(), to.display())
}

fn edited_since(path: &Path) -> String {
    format!("{} was edited since; remove it yourself", path.display())
}

/// Removes what belongs to the adopted sessions alone; documents of the Control Plane stay.
pub(super) fn adopted(
    store: &Store,
    record: &Record,
    roots: &[PathBuf],
    undone: &mut Undone,
) -> Result<(), AdoptionError> {
    let snapshot = store.load()?;
    for name in &record.documents {
        document(store, &snapshot, record, name, undone)?;
    }
    for name in &record.overrides {
        fields(store, &snapshot, record, name, undone)?;
    }
    let identity = store.identity().map(|known| known.identity);
    for name in record.documents.iter().chain(&record.overrides) {
        for area in [Area::Applied, Area::Status] {
            remove(&store.path(&Place::new(area, Kind::BgpSession, name)))?;
        }
        for root in roots {
            let fragment = root.join("sessions").join(format!("{name}.conf"));
            let Some(identity) = &identity else { continue };
            if restore::is_marked(&fragment, identity) {
                remove(&fragment)?;
                undone.done.push(format!("removed {}", fragment.display()));
            } else if restore::is_edited(&fragment, identity) {
                undone.kept.push(edited_since(&fragment));
            }
        }
    }
    record::remove(store.dir())
}

/// Removes a document that the adoption wrote, with its secret. One that was changed since is moved aside.
fn document(
    store: &Store,
    snapshot: &Snapshot,
    record: &Record,
    name: &ObjectName,
    undone: &mut Undone,
) -> Result<(), AdoptionError> {
    if snapshot
        .overrides
        .contains_key(&(Kind::BgpSession, name.clone()))
    {
        let kept = format!("the override of sessions/{name}, which nothing uses any more");
        undone.kept.push(kept);
    }
    let path = store.path(&Place::new(Area::Documents, Kind::BgpSession, name));
    let Some(slot) = snapshot.sessions.get(name) else {
        return Ok(());
    };
    let now = slot.as_ref().ok();
    let now = now.and_then(|stored| serde_json::to_value(&stored.document.spec).ok());
    let written = record.written.documents.get(name);
    if written.is_some() && now.as_ref() != written {
        let aside = restore::aside(&path, record);
        fs::rename(&path, &aside).map_err(AdoptionError::file("move away", &path))?;
        undone.kept.push(format!(
            "sessions/{name} was changed since: {}",
            moved(&path, &aside)
        ));
        return Ok(());
    }
    remove(&path)?;
    remove(&store.dir().join(SECRETS).join(format!("{name}.psk")))?;
    undone
        .done
        .push(format!("removed the document sessions/{name}"));
    Ok(())
}

/// Removes the fields that the adoption wrote from the override of a synced session.
fn fields(
    store: &Store,
    snapshot: &Snapshot,
    record: &Record,
    name: &ObjectName,
    undone: &mut Undone,
) -> Result<(), AdoptionError> {
    let key = (Kind::BgpSession, name.clone());
    let stored = match snapshot.overrides.get(&key) {
        None => return Ok(()),
        Some(Ok(stored)) => stored,
        Some(Err(error)) => {
            let kept = format!("the override of sessions/{name}, which is invalid: {error}");
            undone.kept.push(kept);
            return Ok(());
        }
    };
    let mut document = crate::document::Document::clone(&stored.document);
    let least = json!({"tunnel": {"adopt": true}});
    let written = record.written.overrides.get(name).or(least.as_object());
    let changed = written.map(|written| without(&mut document.spec.set, written));
    let changed = changed.unwrap_or_default();
    let of = format!("the override of sessions/{name}");
    let kept = changed
        .kept
        .iter()
        .map(|it| format!("{it} of {of} was changed since"));
    undone.kept.extend(kept);
    if document.spec.set.is_empty() && !document.spec.paused {
        store.remove_override(Kind::BgpSession, name)?;
        undone.done.push(format!("removed {of}"));
    } else if !changed.removed.is_empty() {
        store.write_override(Kind::BgpSession, &document)?;
        let fields = changed.removed.join(", ");
        undone.done.push(format!("removed {fields} from {of}"));
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), AdoptionError> {
    let removed = file::remove(path);
    removed
        .map(drop)
        .map_err(AdoptionError::file("remove", path))
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::{record, write};
    use super::*;
    use crate::observed::bird::mark::marked;

    /// An adoption of a router whose BIRD had one file of this agent.
    struct Case {
        _folder: tempfile::TempDir,
        store: Store,
        bird: PathBuf,
        record: Record,
    }

    impl Case {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().canonicalize().unwrap();
            let store = Store::open(&root.join("state")).unwrap();
            let bird = root.join("bird");
            let mut case = Self {
                _folder: folder,
                store,
                bird,
                record: record(),
            };
            write(&case.path(), &case.text("before"));
            let mut tree = Tree::default();
            tree.list(&case.bird, &[]).unwrap();
            std::fs::create_dir_all(record::folder(case.store.dir())).unwrap();
            case.record.files = tree.copy(case.store.dir()).unwrap();
            case
        }

        fn path(&self) -> PathBuf {
            self.bird.join("moenet/x.conf")
        }

        fn text(&self, text: &str) -> String {
            marked(text, self.store.identity().map(|it| it.identity).as_ref())
        }

        fn undo(&self) -> Undone {
            let mut undone = Undone::default();
            let roots = [self.bird.clone()];
            everything(&self.store, &self.record, &roots, &mut undone).unwrap();
            undone
        }
    }

    #[test]
    fn announced_copy_in_the_directory_of_bird_stays() {
        let case = Case::new();
        write(&case.path(), "of the operator");
        let undone = case.undo();
        let copy = restore::aside(&case.path(), &case.record);
        assert!(
            undone.kept[0].contains(&copy.display().to_string()),
            "{undone:?}"
        );
        assert_eq!(std::fs::read_to_string(copy).unwrap(), case.text("before"));
    }

    #[test]
    fn edited_files_in_the_directory_of_bird_stay() {
        let case = Case::new();
        let path = |name: &str| case.bird.join("moenet").join(name);
        let text = case.text("of the agent\n");
        let edited = format!("{text}of the operator");
        write(&path("x.conf"), &edited);
        write(&path("new.conf"), &edited);
        write(&path("intact.conf"), &text);
        let undone = case.undo();
        for name in ["x.conf", "new.conf"] {
            let path = path(name);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), edited, "{name}");
            let told = path.display().to_string();
            assert!(
                undone.kept.iter().any(|kept| kept.starts_with(&told)),
                "{undone:?}"
            );
        }
        assert!(!path("intact.conf").exists());
    }
}
