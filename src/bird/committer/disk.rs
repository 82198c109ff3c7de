//! Reads, writes atomically and removes the files. Blocking; called off the runtime's threads.

use std::collections::BTreeSet;
use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::changes::FileChanges;
use super::files::{Content, MAX_BYTES, Seen, failed, read_file};
use super::{main_file, names, owned};
use crate::bird::counters::BirdCounters;
use crate::observed::Ownership;
use crate::observed::bird::mark::Mark;
use crate::observed::bird::tree::{GENERATION, MAIN, SESSIONS, TREE, fragment_at};
use crate::observed::bird::{LiveTree, MainFile};
use crate::ports::CommitError;
use crate::util::file::{self, QUARANTINED, Staged, Stamp, Writer};
use crate::util::fs;

/// These files hold passwords: the owner writes, the group reads, others have no access.
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;
/// Depth limit of base files below `moenet/`.
const DEEPEST: usize = 3;

/// Reads the live files. Only `*.conf` files with names that the agent could use count, as in BIRD's glob. Bytes that
/// are not UTF-8 are replaced, and so never equal the wanted text. If the
/// directory belongs to another agent, only that fact is returned.
pub(super) fn read(
    directory: &Path,
    manages_main: bool,
    ownership: &Ownership,
    seen: &Seen,
) -> Result<LiveTree, CommitError> {
    let mut live = LiveTree::default();
    if let Some(content) = seen.read_file(&directory.join(GENERATION))? {
        keep(&mut live, GENERATION.to_owned(), content, ownership);
    }
    main_file::read(directory, manages_main, ownership, seen, &mut live)?;
    read_directory(directory, TREE, DEEPEST, ownership, seen, &mut live)?;
    if live.in_use().is_some() {
        return Ok(LiveTree {
            others: live.others,
            main: MainFile {
                path: directory.join(MAIN),
                managed: manages_main,
                ..MainFile::default()
            },
            ..LiveTree::default()
        });
    }
    Ok(live)
}

fn read_directory(
    root: &Path,
    relative: &str,
    depth: usize,
    ownership: &Ownership,
    seen: &Seen,
    live: &mut LiveTree,
) -> Result<(), CommitError> {
    let directory = root.join(relative);
    let entries = match seen.read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed("list", &directory))?,
    };
    for entry in entries {
        let entry = entry.map_err(failed("list", &directory))?;
        let kind = entry.file_type().map_err(failed("read", &entry.path()))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let path = format!("{relative}/{name}");
        if relative == SESSIONS && is_quarantined(&name) {
            live.quarantined.insert(path);
            continue;
        }
        if relative == SESSIONS
            && is_read_by_bird(&name)
            && !(names::is_part(&name) && kind.is_file())
        {
            let strange = root.join(&path);
            seen.note(&strange);
            let read = seen.check(file::read(&strange, MAX_BYTES));
            keep_strange(live, path, read);
            continue;
        }
        if !names::is_part(&name) {
            continue;
        }
        if kind.is_dir() && depth > 0 && relative != SESSIONS {
            read_directory(root, &path, depth - 1, ownership, seen, live)?;
        } else if kind.is_file() && name.ends_with(".conf") && path != GENERATION {
            let content = seen.read_file(&root.join(&path))?;
            let content = content.unwrap_or_else(|| String::new().into());
            keep(live, path, content, ownership);
        }
    }
    Ok(())
}

fn is_quarantined(name: &str) -> bool {
    !is_read_by_bird(name) && name.contains(&format!(".conf{QUARANTINED}"))
}

/// Returns whether BIRD's glob over the session files matches this name.
fn is_read_by_bird(name: &str) -> bool {
    name.ends_with(".conf") && !name.starts_with('.')
}

/// Records a directory entry of the session files that cannot be the agent's: a link, or a name that no session has.
fn keep_strange(live: &mut LiveTree, path: String, read: io::Result<Vec<u8>>) {
    match read {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            live.tree.foreign.insert(path, text);
        }
        Err(error) if is_lasting(&error) => drop(live.unusable.insert(path)),
        // A temporary disk error makes no file invalid.
        Err(_) => {}
    }
}

fn is_lasting(error: &io::Error) -> bool {
    // A link that leads to nothing, through a file, or back to itself.
    let leads_nowhere = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    let leads_nowhere = leads_nowhere.map(Errno::raw_os_error);
    let number = error.raw_os_error();
    file::is_unusable(error.kind()) || number.is_some_and(|number| leads_nowhere.contains(&number))
}

/// Returns whether a file may still be written: it changed less than `quiet` ago, or is no longer the judged text.
pub(super) fn may_be_incomplete(file: &Path, judged: &str, quiet: Duration) -> bool {
    let age = Stamp::at(file).and_then(|stamp| stamp.age());
    let is_young = age.is_some_and(|age| age < quiet);
    is_young || !read_file(file).is_ok_and(|now| now.as_deref() == Some(judged))
}

/// Sorts a file below `moenet/` by its mark.
fn keep(live: &mut LiveTree, path: String, content: Content, ownership: &Ownership) {
    let mark = content.mark();
    if let Some(whose) = owned::other_agent(&mark, ownership) {
        live.others.insert(path.clone(), whose);
        live.tree.foreign.insert(path, content.whole());
        return;
    }
    let text = match mark {
        Mark::Complete {
            intact, identity, ..
        } => {
            live.marks.insert(path.clone(), content.line);
            if !ownership.is_current(identity.as_ref()) {
                live.unmarked.insert(path.clone());
            }
            if !intact {
                live.edited.insert(path.clone());
            }
            content.text
        }
        Mark::Missing if path != GENERATION && owned::is_foreign(&path, &content.whole(), live) => {
            live.tree.foreign.insert(path, content.whole());
            return;
        }
        Mark::Missing | Mark::Old => {
            live.unmarked.insert(path.clone());
            if !live.is_of_old_build() {
                live.edited.insert(path.clone());
            }
            content.whole().into()
        }
    };
    match fragment_at(&path) {
        Some(name) => drop(live.tree.fragments.insert(name.to_owned(), text)),
        None if path == GENERATION => live.generation = Some(text.to_string()),
        None => drop(live.tree.base.insert(path, text)),
    }
}

/// Installs the changes: each file atomically, and the generation last.
///
/// All temporary files are written and flushed before any is renamed, so that the live tree is neither the old nor the
/// new one for as short a time as possible.
///
/// A foreign file is left unchanged, and then no file changes. A file that was edited is kept as a copy.
pub(super) fn apply(
    root: &Path,
    live: &LiveTree,
    ownership: &Ownership,
    changes: &FileChanges,
    group: Option<u32>,
    counters: &BirdCounters,
) -> Result<(), CommitError> {
    create_directories(root, group)?;
    let _lock = Lock::take(root)?;
    let written = changes.write.iter().map(|(path, _)| path);
    let copies = owned::copies(root, live, ownership, written.chain(&changes.remove))?;
    create_directories(&root.join(SESSIONS), group)?;
    // Under the lock, such files are of a run that was ended; they may hold the password of a removed session.
    for folder in [root, &root.join(TREE), &root.join(SESSIONS)] {
        file::sweep(folder);
    }
    let staged = stage(root, changes, group)?;
    copies.iter().try_for_each(|copy| copy.make())?;
    let mut touched = BTreeSet::new();
    // Removals come before the generation for the same reason that the generation is written last.
    let generation = root.join(GENERATION);
    let (last, first): (Vec<_>, Vec<_>) = staged
        .into_iter()
        .partition(|staged| staged.path() == generation);
    for staged in first {
        touched.insert(replace(staged, counters)?);
    }
    for path in &changes.remove {
        touched.extend(remove(&root.join(path), counters)?);
    }
    for staged in last {
        touched.insert(replace(staged, counters)?);
    }
    let touched = touched.iter().map(PathBuf::as_path);
    file::sync_folders(touched).map_err(failed("flush", root))
}

/// The lock on BIRD's directory while files change: a second agent that starts at the same moment sees the files of
/// the first instead of an empty directory.
struct Lock(File);

impl Lock {
    fn take(root: &Path) -> Result<Self, CommitError> {
        let directory = fs::open_dir(root).map_err(failed("open", root))?;
        match directory.try_lock() {
            Ok(()) => Ok(Self(directory)),
            Err(TryLockError::WouldBlock) => {
                let busy = io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "another process changes files there",
                );
                Err(failed("lock", root)(busy))
            }
            // On a file system without locks, other agents cannot be detected.
            Err(TryLockError::Error(_)) => Ok(Self(directory)),
        }
    }
}

impl Drop for Lock {
    /// A process that is just being started holds a copy of every open file for a moment, and the lock with it.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Returns the writer of BIRD's files.
pub(super) fn writer(group: Option<u32>) -> Writer {
    Writer::new(FILE_MODE).group(group)
}

/// Writes all files under temporary names, and flushes them together.
fn stage(
    root: &Path,
    changes: &FileChanges,
    group: Option<u32>,
) -> Result<Vec<Staged>, CommitError> {
    let stage_one = |(path, text): &(String, String)| {
        let path = root.join(path);
        create_directories(parent(&path), group)?;
        let staged = writer(group).light().stage(&path, text.as_bytes());
        staged.map_err(failed("write", &path))
    };
    let staged: Vec<_> = changes
        .write
        .iter()
        .map(stage_one)
        .collect::<Result<_, _>>()?;
    file::flush(&staged).map_err(failed("flush", root))?;
    Ok(staged)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Renames a file to its final name, and returns the directory.
fn replace(staged: Staged, counters: &BirdCounters) -> Result<PathBuf, CommitError> {
    let path = staged.path().to_owned();
    staged.replace().map_err(failed("replace", &path))?;
    counters.count_write();
    Ok(parent(&path).to_owned())
}

fn remove(path: &Path, counters: &BirdCounters) -> Result<Option<PathBuf>, CommitError> {
    if !file::remove_file(path).map_err(failed("remove", path))? {
        return Ok(None);
    }
    counters.count_write();
    Ok(path.parent().map(Path::to_owned))
}

/// Creates the missing parts of a directory. BIRD rejects a glob in a directory that does not exist.
pub(super) fn create_directories(path: &Path, group: Option<u32>) -> Result<(), CommitError> {
    if fs::is_dir(path) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_directories(parent, group)?;
    }
    match fs::create_dir(path, DIRECTORY_MODE) {
        // Another thread created it first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        result => result.map_err(failed("create", path))?,
    }
    fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
        .map_err(failed("restrict", path))?;
    give(path, group)
}

/// Sets the group of a path. A process that is not root may not, but then BIRD is likely the same user.
fn give(path: &Path, group: Option<u32>) -> Result<(), CommitError> {
    match fs::set_group(path, group) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            Err(failed("give to the group", path)(error))
        }
        _ => Ok(()),
    }
}

/// Renames a file so that BIRD's glob does not match it.
pub(super) fn quarantine(path: &Path) -> Result<(), CommitError> {
    let why = "not the agent's, and BIRD cannot read it; correct the file and rename it back";
    let quarantined = file::quarantine(path, why);
    quarantined.map(drop).map_err(failed("quarantine", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::bird::mark;
    use std::fs;

    #[test]
    fn files_are_whole_and_private_and_strangers_stay() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let changes = FileChanges {
            write: vec![
                ("moenet/a/b.conf".into(), mark::marked("b", None)),
                ("moenet/sessions/x.conf".into(), mark::marked("x", None)),
            ],
            remove: vec!["moenet/gone.conf".into()],
        };
        let counters = BirdCounters::default();
        let (live, none) = (LiveTree::default(), Ownership::default());
        apply(root, &live, &none, &changes, None, &counters).unwrap();
        assert_eq!(counters.writes(), 2);
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("moenet/a/b.conf"), mode("moenet/a")), (0o640, 0o750));
        for stranger in [
            "moenet/sessions/.x.conf.tmp",
            "moenet/sessions/.y.conf",
            "moenet/note.txt",
        ] {
            fs::write(root.join(stranger), "stranger").unwrap();
        }
        let live = read(root, true, &none, &Seen::default()).unwrap();
        assert_eq!(
            live.tree.base,
            [("moenet/a/b.conf".into(), "b".into())].into()
        );
        assert_eq!(live.tree.fragments, [("x".into(), "x".into())].into());
        assert_eq!(live.generation, None);
    }

    #[test]
    fn read_error_of_a_moment_quarantines_nothing() {
        let unusable = |error: io::Error| {
            let mut live = LiveTree::default();
            keep_strange(&mut live, "moenet/sessions/a b.conf".to_owned(), Err(error));
            assert!(live.tree.foreign.is_empty() && live.quarantined.is_empty());
            !live.unusable.is_empty()
        };
        const EIO: i32 = 5;
        const EACCES: i32 = 13;
        const EMFILE: i32 = 24;
        const ESTALE: i32 = 116;
        for number in [EIO, EACCES, EMFILE, ESTALE] {
            let error = io::Error::from_raw_os_error(number);
            assert!(!unusable(error), "{number}");
        }
        // A directory and a pipe.
        for kind in [io::ErrorKind::IsADirectory, io::ErrorKind::InvalidInput] {
            assert!(unusable(kind.into()), "{kind}");
        }
    }

    #[test]
    fn link_that_leads_nowhere_is_unusable() {
        let root = tempfile::tempdir().unwrap();
        let sessions = root.path().join(SESSIONS);
        fs::create_dir_all(&sessions).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        for (name, target) in [
            ("nothing.conf", "../../nothing"),
            ("through.conf", "../../file/below"),
            ("loop.conf", "loop.conf"),
        ] {
            std::os::unix::fs::symlink(target, sessions.join(name)).unwrap();
        }
        let live = read(root.path(), true, &Ownership::default(), &Seen::default()).unwrap();
        assert_eq!(live.unusable.len(), 3, "{:?}", live.unusable);
    }

    #[test]
    fn unreadable_file_of_the_agent_fails_the_whole_read() {
        let root = tempfile::tempdir().unwrap();
        let sessions = root.path().join(SESSIONS);
        fs::create_dir_all(&sessions).unwrap();
        let large = File::create(sessions.join("wg_1.conf")).unwrap();
        large.set_len(MAX_BYTES + 1).unwrap();
        let error = read(root.path(), true, &Ownership::default(), &Seen::default()).unwrap_err();
        assert!(error.to_string().contains("wg_1.conf"), "{error}");
        assert_eq!(fs::read_dir(&sessions).unwrap().count(), 1);
        assert!(sessions.join("wg_1.conf").exists());
    }

    #[test]
    fn file_that_changed_since_it_was_judged_may_be_incomplete() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.conf");
        fs::write(&file, "half").unwrap();
        let (hour, none) = (Duration::from_secs(3600), Duration::ZERO);
        assert!(
            may_be_incomplete(&file, "half", hour),
            "it has just changed"
        );
        assert!(!may_be_incomplete(&file, "half", none));
        assert!(may_be_incomplete(&file, "ha", none));
        fs::remove_file(&file).unwrap();
        assert!(may_be_incomplete(&file, "half", none));
    }
}
