//! The restoration of the files that an adoption has changed, byte for byte.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::files::{MOST_BYTES, hash, is_for_operators, is_of_mount};
use super::{AdoptionError, Undone, record};
use crate::adopt::record::{FileBefore, Record};
use crate::document::{Kind, OverrideSpec, parse};
use crate::model::Identity;
use crate::observed::bird::mark::{self, Mark};
use crate::store::{Area, Place, SYNCED, is_bookkeeping};
use crate::util::file::{self, Writer};
use crate::util::fs;

/// Restores the files that are still as the agent left them, with owner and mode. An edit by another stays, and the text before
/// the adoption is written beside it. Returns the files with these texts.
pub(super) fn all(
    state: &Path,
    record: &Record,
    is_marked: impl Fn(&Path) -> bool,
    undone: &mut Undone,
) -> Result<Vec<PathBuf>, AdoptionError> {
    let (folder, mut beside) = (record::folder(state), Vec::new());
    // Documents before the copies of the sync, which prove that no operator edited them.
    for before in record.files.iter().rev() {
        let copy = folder.join(&before.copy);
        let content =
            file::read_unlinked(&copy, MOST_BYTES).map_err(AdoptionError::file("read", &copy))?;
        let path = &before.path;
        let (now, is_same) = found(before, &content);
        if is_same {
            continue;
        }
        if !is_as_left(state, record, path, now.as_deref(), &is_marked) {
            let what = if now.is_some() { "changed" } else { "removed" };
            let mut kept = format!("{} was {what} since", path.display());
            if now.as_ref() != Some(&content)
                && let Some(old) = put_beside(before, record, &content)?
            {
                kept += &format!("; its text before the adoption is in {}", old.display());
                beside.push(old);
            }
            undone.kept.push(kept);
            continue;
        }
        if !is_real(path) {
            let kept = format!("{}: a folder of it is a symbolic link now", path.display());
            undone.kept.push(kept);
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dirs(parent, 0o755).map_err(AdoptionError::file("create", parent))?;
        }
        let written = put(path, before, &content);
        written.map_err(AdoptionError::file("restore", path))?;
        undone.done.push(format!("restored {}", path.display()));
    }
    Ok(beside)
}

/// Returns the content of a file, and whether it is as it was before, with owner and mode.
fn found(before: &FileBefore, content: &[u8]) -> (Option<Vec<u8>>, bool) {
    let now = file::open_unlinked(&before.path).and_then(|opened| {
        let found = (opened.1.mode() & 0o7777, opened.1.uid(), opened.1.gid());
        Ok((file::bytes(opened, MOST_BYTES)?, found))
    });
    let Ok((now, (mode, owner, group))) = now else {
        return (None, false);
    };
    let meta = (before.mode, before.owner, before.group);
    let is_same = now == content && (mode, before.owner.and(Some(owner)), group) == meta;
    (Some(now), is_same)
}

/// Returns whether a file that differs is still as the agent left it. In a place where operators write too, only what the
/// adoption or the sync wrote proves that: an edit may be older than the end of the pass.
fn is_as_left(
    state: &Path,
    record: &Record,
    path: &Path,
    now: Option<&[u8]>,
    is_marked: impl Fn(&Path) -> bool,
) -> bool {
    let left = record.files_left.get(path);
    let is_left = left == now.map(hash).as_ref();
    match path.strip_prefix(state) {
        Err(_) => (left.is_none() || is_left) && (!fs::exists(path) || is_marked(path)),
        Ok(relative) if is_bookkeeping(relative) => true,
        Ok(relative) if is_for_operators(relative) => {
            is_synced(state, record, relative, now)
                || now.is_some_and(|now| is_written(record, relative, now))
        }
        Ok(_) => is_left,
    }
}

/// Returns whether a document is as the sync left it: it equals its copy, or the sync removed both.
fn is_synced(state: &Path, record: &Record, relative: &Path, now: Option<&[u8]>) -> bool {
    let copy = state.join(SYNCED).join(relative);
    let was_synced = record.files.iter().any(|before| before.path == copy);
    let copy = file::read_unlinked(&copy, MOST_BYTES).ok();
    was_synced && copy.as_deref() == now
}

/// Returns whether a file has the override that the adoption wrote there. It writes no document in the place of another.
fn is_written(record: &Record, relative: &Path, now: &[u8]) -> bool {
    let mut written = record.written.overrides.iter();
    let wrote = written.find(|(name, _)| {
        Place::new(Area::Overrides, Kind::BgpSession, name).relative() == relative
    });
    let now = std::str::from_utf8(now).ok();
    let now = now.and_then(|now| parse::<OverrideSpec>(now).ok());
    wrote
        .zip(now)
        .is_some_and(|((_, set), now)| now.spec.set == *set && !now.spec.paused)
}

/// Writes the text before the adoption beside an edited file; `None`: the folder cannot be written.
fn put_beside(
    before: &FileBefore,
    record: &Record,
    content: &[u8],
) -> Result<Option<PathBuf>, AdoptionError> {
    let path = aside(&before.path, record);
    match put(&path, before, content) {
        Err(error) if is_of_mount(&error) || error.kind() == ErrorKind::NotFound => Ok(None),
        written => written
            .map(|()| Some(path.clone()))
            .map_err(AdoptionError::file("write", path)),
    }
}

/// Returns the place beside a file or folder for what must not be lost.
pub(super) fn aside(path: &Path, record: &Record) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".undone-{}", record.begun.as_second()));
    PathBuf::from(name)
}

fn put(path: &Path, before: &FileBefore, content: &[u8]) -> io::Result<()> {
    let writer = Writer::new(before.mode).owner(before.owner);
    writer.group(Some(before.group)).replace(path, content)
}

/// Returns whether no folder on the way to a file is a symbolic link. Recorded paths had none.
fn is_real(path: &Path) -> bool {
    let mut folders = path.ancestors().skip(1);
    let nearest = folders.find(|folder| fs::symlink_metadata(folder).is_ok());
    nearest.is_some_and(|folder| fs::canonicalize(folder).is_ok_and(|real| real == folder))
}

/// Returns whether a file is as this state directory's agent wrote it.
pub(super) fn is_marked(path: &Path, identity: &Identity) -> bool {
    is_intact(path, identity) == Some(true)
}

/// Returns whether a file of this state directory's agent was edited since: an edit takes no mark away.
pub(super) fn is_edited(path: &Path, identity: &Identity) -> bool {
    is_intact(path, identity) == Some(false)
}

/// Returns whether a file with the mark of this state directory has the agent's text; `None`: it has no such mark.
fn is_intact(path: &Path, identity: &Identity) -> Option<bool> {
    let bytes = file::read_unlinked(path, MOST_BYTES).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    match mark::read(&text) {
        Mark::Complete {
            identity: Some(of),
            intact,
            ..
        } if of == *identity => Some(intact),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::super::files::tests::{record, write};
    use super::super::files::{Tree, hashes};
    use super::*;

    #[test]
    fn restoration_follows_no_symbolic_link() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (state, bird, other) = (root.join("state"), root.join("bird"), root.join("other"));
        std::fs::create_dir_all(&other).unwrap();
        write(&bird.join("moenet/a.conf"), "before");
        let mut record = record();
        let mut tree = Tree::default();
        tree.list(&bird, &[]).unwrap();
        std::fs::create_dir_all(super::record::folder(&state)).unwrap();
        record.files = tree.copy(&state).unwrap();
        std::fs::remove_dir_all(bird.join("moenet")).unwrap();
        symlink(&other, bird.join("moenet")).unwrap();
        let mut undone = Undone::default();
        all(&state, &record, |_| true, &mut undone).unwrap();
        assert!(undone.kept[0].contains("symbolic link"), "{undone:?}");
        assert!(!other.join("a.conf").exists());
        std::fs::remove_file(bird.join("moenet")).unwrap();
        all(&state, &record, |_| true, &mut undone).unwrap();
        let text = std::fs::read_to_string(bird.join("moenet/a.conf")).unwrap();
        assert_eq!(text, "before");
    }

    /// Copies every file of a state directory into the record, as at the begin of an adoption.
    fn begin(state: &Path) -> Record {
        let mut record = record();
        let mut tree = Tree::default();
        tree.list(state, &[]).unwrap();
        std::fs::create_dir_all(super::record::folder(state)).unwrap();
        record.files = tree.copy(state).unwrap();
        record
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn edit_of_the_watch_survives_the_undo() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().canonicalize().unwrap();
        let path = |name: &str| state.join(name);
        let edited = [
            "approved",
            "node.yaml",
            "overrides/sessions/a.yaml",
            "sessions/synced.yaml",
        ];
        for name in edited.iter().chain(&[".synced/sessions/synced.yaml"]) {
            write(&path(name), "before");
        }
        let mut record = begin(&state);
        for name in &edited[1..] {
            write(&path(name), "of the operator, during the pass");
        }
        record.files_left = hashes(&state, &record);
        write(&path(edited[0]), "of the operator, after the pass");
        let mut undone = Undone::default();
        let beside = all(&state, &record, |_| true, &mut undone).unwrap();
        assert_eq!(beside.len(), edited.len(), "{undone:?}");
        for name in edited {
            assert!(text(&path(name)).starts_with("of the operator"), "{name}");
            let old = aside(&path(name), &record);
            assert_eq!(
                (text(&old).as_str(), beside.contains(&old)),
                ("before", true)
            );
            let told = format!(
                "{} was changed since; its text before",
                path(name).display()
            );
            assert!(undone.kept.iter().any(|kept| kept.starts_with(&told)));
        }
    }

    #[test]
    fn files_of_adoption_and_sync_are_restored() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().canonicalize().unwrap();
        let path = |name: &str| state.join(name);
        let files = [
            ".synced/sessions/synced.yaml",
            ".synced/sessions/departed.yaml",
            "approved",
            "overrides/sessions/a.yaml",
            "sessions/departed.yaml",
            "sessions/synced.yaml",
            "status/node.yaml",
        ];
        for name in files {
            write(&path(name), "before");
        }
        let mut record = begin(&state);
        for name in [files[0], files[2], files[5], files[6]] {
            write(&path(name), "of the agent");
        }
        for name in [files[1], files[4]] {
            std::fs::remove_file(path(name)).unwrap();
        }
        let set = json!({"tunnel": {"adopt": true}});
        let set = set.as_object().unwrap();
        let over = "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {name: a}\nspec:\n  reason: adopted\n  set: {tunnel: \
                    {adopt: true}}\n";
        write(&path(files[3]), over);
        let overrides = &mut record.written.overrides;
        overrides.insert("a".parse().unwrap(), set.clone());
        record.files_left = hashes(&state, &record);
        let mut undone = Undone::default();
        let beside = all(&state, &record, |_| true, &mut undone).unwrap();
        assert_eq!((beside, undone.kept.len()), (vec![], 0), "{undone:?}");
        for name in files {
            assert_eq!(text(&path(name)), "before", "{name}");
        }
    }
}
