//! Files of the state directory and of its repository, as the history needs them. Its work blocks.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::intervals::{GIT_LOCK_STALE, GIT_LOCK_YOUNG, PACK_CHECK};
use crate::store::{
    APPROVED, Area, BRANCH, IDENTITY, IndexWrite, Place, is_id, is_moving, moved, state_directory,
};
use crate::util::file::{self, Stamp, Writer};
use crate::util::fs;
use crate::util::sorted::Sorted as _;

use super::{CommitId, GITIGNORE, HistoryError, LOOSE, PACKS};

/// Size limit of lists of references and of their logs, in bytes.
const MAX_LOG: u64 = 64 * 1024 * 1024;

/// The name of a repository until it is complete.
const NEW_REPOSITORY: &str = ".git.new";
/// The configuration of a new repository.
const CONFIG: &str = "\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
\tlogallrefupdates = true
";
/// The file whose time is that of the last check whether to pack.
const PACKED: &str = "moenet-packed";

/// The newest commit, as the repository's files name it.
pub(super) enum Newest {
    Commit(CommitId),
    /// The repository has no commit yet.
    NoCommit,
    /// The branch is in a format that only git reads, or damaged.
    AskGit,
}

/// The content of files at one moment; `None`: the file did not exist.
pub type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Decides which contents may enter the history, for files whose path below the state directory is allowed.
type Accepting = dyn Fn(&Path, &[u8]) -> bool + Send + Sync;

/// The decision of a history, shared by its handles.
#[derive(Clone)]
pub(super) struct Accepts(pub(super) Arc<Accepting>);

impl fmt::Debug for Accepts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accepts")
    }
}

/// The files of the history that are not documents.
pub const FILES: [&str; 4] = [".gitignore", "README.md", APPROVED, IDENTITY];

/// Returns whether the history keeps a file. An allow list, so that no other file can enter: no
/// observations, reports or secrets.
pub(super) fn is_kept(path: &Path) -> bool {
    FILES.iter().any(|name| path == Path::new(name))
        || Place::parse(path).is_some_and(|place| place.area != Area::Status)
}

/// The state directory.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) dir: PathBuf,
    /// Identity of the directory when this value was created: nothing is written into another one.
    pub(super) directory: Option<String>,
    pub(super) accepts: Accepts,
}

impl Tree {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            directory: state_directory(dir),
            accepts: Accepts(Arc::new(|_, _| true)),
        }
    }

    /// Repairs a repository and removes stale locks. Returns whether there is a repository.
    pub(super) fn prepare(&self) -> Result<bool, HistoryError> {
        // An unmounted disk leaves an empty folder behind; a repository in it would be hidden below the disk.
        if self.directory.is_some() && state_directory(&self.dir) != self.directory {
            return Err(HistoryError::Away {
                dir: self.dir.clone(),
            });
        }
        if fs::symlink_metadata(self.git_dir()).is_err() {
            return Ok(false);
        }
        self.remove_stale_locks();
        self.repair_head();
        self.repair_branch();
        Ok(true)
    }

    /// Repairs a `HEAD` without a target, as a power failure leaves it, with which git does not
    /// recognize the repository. It only names the checked-out branch, so rewriting it loses
    /// nothing.
    fn repair_head(&self) {
        let head = self.git_dir().join("HEAD");
        let good = match file::read(&head, file::DOCUMENT) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                text.trim_end()
                    .strip_prefix("ref: refs/")
                    .is_some_and(|rest| !rest.trim().is_empty())
                    || is_id(text.trim_end())
            }
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        };
        let whole =
            fs::is_dir(self.git_dir().join("objects")) && fs::is_dir(self.git_dir().join("refs"));
        if !good && whole {
            tracing::warn!(head = %head.display(), "repaired history: HEAD pointed to a missing \
                                                    branch");
            let _ = Writer::new(0o644).replace(&head, format!("ref: {BRANCH}\n").as_bytes());
        }
    }

    /// Repairs a branch without a valid commit ID, as a power failure leaves it too. Git keeps the
    /// previous position in the branch's log; if the repository's objects are lost as well, the
    /// next commit finds it broken.
    fn repair_branch(&self) {
        let branch = self.git_dir().join(BRANCH);
        let Ok(bytes) = file::read(&branch, file::DOCUMENT) else {
            return;
        };
        if is_id(String::from_utf8_lossy(&bytes).trim_end()) {
            return;
        }
        let noted =
            file::read(&self.git_dir().join("logs").join(BRANCH), MAX_LOG).unwrap_or_default();
        let noted = String::from_utf8_lossy(&noted);
        let ids = noted
            .lines()
            .rev()
            .filter_map(|line| line.split(' ').nth(1));
        if let Some(id) = ids
            .filter(|id| is_id(id))
            .find(|id| id.bytes().any(|byte| byte != b'0'))
        {
            tracing::warn!(branch = %branch.display(), "repaired history: the branch pointed to a \
                                                        missing commit");
            let _ = Writer::new(0o644).replace(&branch, format!("{id}\n").as_bytes());
        }
    }

    /// Replaces the index by that of a commit, unless another git holds it, an operator's git operation is in progress, or
    /// another commit is the newest by now: `false`.
    ///
    /// # Errors
    /// The index cannot be written.
    pub(super) fn write_index(&self, bytes: &[u8], of: &CommitId) -> Result<bool, HistoryError> {
        let (index, lock) = (
            self.git_dir().join("index"),
            self.git_dir().join("index.lock"),
        );
        if self.is_operators_turn() {
            return Ok(false);
        }
        self.remove_stale_locks();
        let Some(write) = IndexWrite::begin(&self.dir) else {
            return Ok(false);
        };
        let mut file = match fs::open(&lock, File::options().write(true).create_new(true)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            opened => opened.map_err(HistoryError::io("create", &lock))?,
        };
        // No other git commits while the lock is held; before, one may have.
        if matches!(self.newest(), Newest::Commit(newest) if newest != *of) {
            let _ = fs::remove_file(&lock);
            return Ok(false);
        }
        let written = file
            .write_all(bytes)
            .and_then(|()| fs::rename(&lock, &index));
        if let Err(error) = written {
            let _ = fs::remove_file(&lock);
            return Err(HistoryError::io("write", &index)(error));
        }
        write.done();
        Ok(true)
    }

    pub(super) fn has_repository(&self) -> bool {
        fs::is_dir(self.git_dir())
    }

    /// Returns whether an operator's git operation is in progress.
    fn is_operators_turn(&self) -> bool {
        let git_dir = self.git_dir();
        let busy = [
            "MERGE_HEAD",
            "CHERRY_PICK_HEAD",
            "REVERT_HEAD",
            "rebase-merge",
            "rebase-apply",
            "BISECT_LOG",
        ];
        busy.iter().any(|name| fs::exists(git_dir.join(name))) || moved(&self.dir).is_some()
    }

    pub(super) fn git_dir(&self) -> PathBuf {
        self.dir.join(".git")
    }

    /// Creates an empty repository, in the format whose branch [`Self::newest`] reads: whole or not at all.
    ///
    /// # Errors
    /// The repository cannot be written.
    pub(super) fn begin(&self) -> Result<(), HistoryError> {
        let new = self.dir.join(NEW_REPOSITORY);
        let _ = fs::remove_dir_all(&new);
        for folder in ["objects/info", "objects/pack", "refs/heads", "refs/tags"] {
            let path = new.join(folder);
            fs::create_dirs_below(&self.dir, &path, 0o755)
                .map_err(HistoryError::io("create", &path))?;
        }
        let head = format!("ref: {BRANCH}\n");
        for (name, text) in [("HEAD", head.as_str()), ("config", CONFIG), (PACKED, "")] {
            let path = new.join(name);
            fs::write(&path, text).map_err(HistoryError::io("write", &path))?;
        }
        let git_dir = self.git_dir();
        fs::rename(&new, &git_dir).map_err(HistoryError::io("create", &git_dir))?;
        self.write_ignore()
    }

    fn write_ignore(&self) -> Result<(), HistoryError> {
        let ignore = self.dir.join(".gitignore");
        if fs::symlink_metadata(&ignore).is_ok() {
            return Ok(());
        }
        let writer = Writer::new(0o644).light();
        let written = writer.replace(&ignore, GITIGNORE.as_bytes());
        written.map_err(HistoryError::io("write", &ignore))
    }

    /// Returns the newest commit of the branch, as the repository's files name it.
    pub(super) fn newest(&self) -> Newest {
        let git_dir = self.git_dir();
        if !fs::is_dir(&git_dir) || fs::exists(git_dir.join("reftable")) {
            return Newest::AskGit;
        }
        let text = match file::read_text(&git_dir.join(BRANCH), file::DOCUMENT) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match self.packed_branch() {
                    Ok(Some(id)) => Newest::Commit(id),
                    Ok(None) => Newest::NoCommit,
                    Err(_) => Newest::AskGit,
                };
            }
            Err(_) => return Newest::AskGit,
        };
        match text.trim_end() {
            id if is_id(id) => Newest::Commit(CommitId::known(id.to_owned())),
            _ => Newest::AskGit,
        }
    }

    /// Returns whether the history's branch exists, as a file or packed.
    ///
    /// # Errors
    /// The list of packed branches cannot be read.
    pub(super) fn has_branch(&self) -> Result<bool, HistoryError> {
        if fs::exists(self.git_dir().join(BRANCH)) {
            return Ok(true);
        }
        let packed = self.packed_branch();
        let packed = packed.map_err(HistoryError::io("read packed-refs in", &self.git_dir()))?;
        Ok(packed.is_some())
    }

    /// Returns the packed branch.
    fn packed_branch(&self) -> io::Result<Option<CommitId>> {
        let packed = match file::read_text(&self.git_dir().join("packed-refs"), MAX_LOG) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            packed => packed?,
        };
        let mut lines = packed.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(id, name)| *name == BRANCH && is_id(id));
        Ok(found.map(|(id, _)| CommitId::known(id.to_owned())))
    }

    /// Quarantines the repository.
    pub(super) fn quarantine(&self) -> Result<PathBuf, HistoryError> {
        let broken = self.git_dir();
        file::quarantine(&broken, "the repository is broken")
            .map_err(HistoryError::io("quarantine", &broken))
    }

    /// Returns whether it was checked lately whether to pack the repository.
    pub(super) fn was_packed_lately(&self) -> bool {
        let found = fs::metadata(self.packed()).and_then(|found| found.modified());
        let age = found.ok().and_then(|at| at.elapsed().ok());
        age.is_some_and(|age| age < PACK_CHECK)
    }

    /// Returns whether a git packs now: it holds this file until it ends, and takes over that of one that died.
    pub(super) fn is_being_packed(&self) -> bool {
        fs::exists(self.git_dir().join("gc.pid"))
    }

    pub(super) fn note_packed(&self) -> Result<(), HistoryError> {
        let stamp = self.packed();
        fs::write(&stamp, "").map_err(HistoryError::io("write", &stamp))
    }

    fn packed(&self) -> PathBuf {
        self.git_dir().join(PACKED)
    }

    /// Returns whether the repository has many loose objects or packs.
    pub(super) fn needs_packing(&self) -> bool {
        let objects = self.git_dir().join("objects");
        let count = |folder: &str, ending: &str| {
            let entries = fs::read_dir(objects.join(folder))
                .into_iter()
                .flatten()
                .flatten();
            let names = entries.map(|entry| entry.file_name());
            names
                .filter(|name| name.as_encoded_bytes().ends_with(ending.as_bytes()))
                .count()
        };
        let loose = || (0..=u8::MAX).map(|start| count(&format!("{start:02x}"), ""));
        count("pack", ".pack") > PACKS || loose().sum::<usize>() > LOOSE
    }

    /// Returns the index while the tree is that of the history's branch; content that is read
    /// between two calls with the same result is of that tree.
    pub(super) fn at_rest(&self) -> Result<Option<Stamp>, HistoryError> {
        if let Some(at) = moved(&self.dir) {
            return Err(self.moved(at));
        }
        Ok(Stamp::at_unlinked(&self.dir.join(".git/index")))
    }

    /// Returns whether another git may be changing the tree.
    pub(super) fn is_moving(&self) -> bool {
        is_moving(&self.dir, Duration::ZERO)
    }

    pub(super) fn moved(&self, at: impl Into<String>) -> HistoryError {
        HistoryError::Moved {
            dir: self.dir.clone(),
            at: at.into(),
        }
    }

    /// Reads files. Leaves out a file that cannot be read, is not a regular file of a document's size,
    /// or is not accepted: the history then neither changes nor loses it.
    pub(super) fn read(&self, paths: impl IntoIterator<Item = PathBuf>) -> Contents {
        let read = |path: PathBuf| {
            content(&self.dir.join(&path))
                .ok()
                .map(|content| (path, content))
        };
        let kept = paths.into_iter().filter(|path| is_kept(path));
        kept.filter_map(read)
            .filter(|(path, content)| self.is_accepted(path, content.as_deref()))
            .sorted_map()
    }

    /// Returns whether a content may enter the history. A deletion always may.
    pub(super) fn is_accepted(&self, path: &Path, content: Option<&[u8]>) -> bool {
        content.is_none_or(|bytes| (self.accepts.0)(path, bytes))
    }

    /// Lists the files below a folder that the history keeps. A folder that cannot be listed has none,
    /// and the history keeps its files, unless a file is proved to be deleted.
    pub(super) fn on_disk(&self, folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.dir.join(folder))
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = folder.join(entry.file_name());
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_kept(&path) {
                found.push(path);
            } else if is_folder && !hidden && folder.components().count() < 2 {
                found.extend(self.on_disk(&path));
            }
        }
        found
    }

    /// Removes what imports leave that fail or are killed; on a full disk each attempt leaves some.
    pub(super) fn remove_leftovers(&self) {
        let packs = self.git_dir().join("objects/pack");
        remove_named(&self.git_dir(), "fast_import_crash_", Duration::ZERO);
        // A recent one may belong to an operator's own git.
        remove_named(&packs, "tmp_pack_", GIT_LOCK_STALE);
        // Such a file keeps its pack from being packed with others, and a second pack from taking its name.
        let entries = fs::read_dir(packs).into_iter().flatten().flatten();
        let keeps = entries.map(|entry| entry.path());
        for keep in keeps.filter(|path| path.extension().is_some_and(|end| end == "keep")) {
            if file::read_text(&keep, file::DOCUMENT).is_ok_and(|by| by == "fast-import") {
                let _ = fs::remove_file(keep);
            }
        }
    }

    /// Returns whether any lock exists.
    pub(super) fn is_locked(&self) -> bool {
        self.locks().any(|lock| fs::symlink_metadata(lock).is_ok())
    }

    fn locks(&self) -> impl Iterator<Item = PathBuf> {
        let git_dir = self.git_dir();
        let branch = format!("{BRANCH}.lock");
        let others = ["index.lock", "HEAD.lock", "config.lock", "packed-refs.lock"];
        let names = others.map(str::to_owned).into_iter().chain([branch]);
        names.map(move |name| git_dir.join(name))
    }

    /// Removes locks without a holder.
    fn remove_stale_locks(&self) {
        for lock in self.locks().filter(|lock| is_stale(lock, &self.dir)) {
            tracing::warn!(lock = %lock.display(), "removing the lock of a git that has ended");
            let _ = fs::remove_file(lock);
        }
    }
}

fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match file::read_unlinked(path, file::DOCUMENT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the files of a folder whose names have this prefix and that are older than this.
fn remove_named(folder: &Path, start: &str, older: Duration) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|found| found.modified()).ok();
        let age = modified
            .and_then(|at| at.elapsed().ok())
            .unwrap_or_default();
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(start.as_bytes())
            && age >= older
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_stale(lock: &Path, repository: &Path) -> bool {
    let modified = fs::symlink_metadata(lock)
        .and_then(|found| found.modified())
        .ok();
    let Some(age) = modified.and_then(|at| at.elapsed().ok()) else {
        return false;
    };
    age > GIT_LOCK_STALE || (age > GIT_LOCK_YOUNG && !git_runs_in(repository))
}

/// Returns whether a git may run in this directory; `true` if that is unknown.
fn git_runs_in(repository: &Path) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return true;
    };
    let mut processes = processes.flatten().map(|process| process.path());
    processes.any(|process| {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        name.starts_with("git") && may_work_in(&process, repository)
    })
}

/// Returns whether a process has this directory as its working directory, or names it in its arguments or its
/// environment. A process that cannot be read may; one that has ended and was not waited for has no arguments.
fn may_work_in(process: &Path, repository: &Path) -> bool {
    if fs::read(process.join("cmdline")).is_ok_and(|arguments| arguments.is_empty()) {
        return false;
    }
    let names = |file: &str| {
        let Ok(text) = fs::read(process.join(file)) else {
            return fs::exists(process);
        };
        let name = repository.as_os_str().as_encoded_bytes();
        text.windows(name.len()).any(|part| part == name)
    };
    let is_inside = match fs::read_link(process.join("cwd")) {
        Ok(folder) => folder.starts_with(repository),
        Err(_) => fs::exists(process),
    };
    is_inside || names("cmdline") || names("environ")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_a_git_in_this_directory_holds_its_lock() {
        let (state, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let program = elsewhere.path().join("git");
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        for (folder, holds) in [(elsewhere.path(), false), (state.path(), true)] {
            let mut git = Command::new(&program)
                .arg("60")
                .current_dir(folder)
                .spawn()
                .unwrap();
            // The name follows a moment after the program.
            let end = std::time::Instant::now() + Duration::from_secs(10);
            while holds && !git_runs_in(state.path()) && std::time::Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(git_runs_in(state.path()), holds);
            git.kill().unwrap();
            git.wait().unwrap();
        }
        assert!(!git_runs_in(state.path()));
    }

    fn begun(folder: &Path) -> Tree {
        let tree = Tree::new(folder);
        tree.begin().unwrap();
        tree
    }

    #[test]
    fn removed_state_directory_is_not_made_by_a_new_repository() {
        let home = tempfile::tempdir().unwrap();
        let state = home.path().join("state");
        assert!(Tree::new(&state).begin().is_err());
        assert!(!state.exists());
    }

    fn id(digit: &str) -> CommitId {
        CommitId::known(digit.repeat(40))
    }

    #[test]
    fn index_of_an_older_commit_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let tree = begun(folder.path());
        let (index, lock) = (
            tree.git_dir().join("index"),
            tree.git_dir().join("index.lock"),
        );
        // An operator's commit came after the agent read the newest one.
        std::fs::write(
            tree.git_dir().join(BRANCH),
            format!("{}\n", id("b").as_str()),
        )
        .unwrap();
        assert!(!tree.write_index(b"old", &id("a")).unwrap());
        assert!(!index.exists() && !lock.exists());
        assert!(tree.write_index(b"new", &id("b")).unwrap());
        assert_eq!(std::fs::read(index).unwrap(), b"new");
    }

    #[test]
    fn unreadable_list_of_branches_is_no_missing_branch() {
        let folder = tempfile::tempdir().unwrap();
        let tree = begun(folder.path());
        assert!(matches!(tree.newest(), Newest::NoCommit));
        std::fs::create_dir(tree.git_dir().join("packed-refs")).unwrap();
        assert!(matches!(tree.newest(), Newest::AskGit));
        tree.has_branch().unwrap_err();
    }
}
