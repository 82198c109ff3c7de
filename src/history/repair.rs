//! Repairs a repository that is missing, locked or broken.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::intervals::{GIT_LOCK_STALE, GIT_LOCK_YOUNG};
use crate::store::{BRANCH, IndexWrite, is_id, moved, state_directory};
use crate::util::file::{self, Writer};

use super::{CommitId, GITIGNORE, History, HistoryError};

/// Size limit of lists of references and of their logs, in bytes.
const MAX_LOG: u64 = 64 * 1024 * 1024;

impl History {
    /// Creates a missing repository, and removes stale locks.
    pub(super) async fn prepare(&self) -> Result<(), HistoryError> {
        // An unmounted disk leaves an empty folder behind; a repository in it would be hidden below the disk.
        if self.directory.is_some() && state_directory(&self.dir) != self.directory {
            return Err(HistoryError::Away {
                dir: self.dir.clone(),
            });
        }
        if fs::symlink_metadata(self.git_dir()).is_err() {
            return self.begin().await;
        }
        self.remove_stale_locks();
        self.repair_head();
        self.repair_branch();
        Ok(())
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
        let whole = self.git_dir().join("objects").is_dir() && self.git_dir().join("refs").is_dir();
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

    /// Returns the newest commit; `None` in a repository without commits.
    pub(super) async fn tip(&self) -> Result<Option<CommitId>, HistoryError> {
        let wanted = format!("{BRANCH}^{{commit}}");
        let tip = self
            .git
            .ask(
                "find the newest commit",
                &["rev-parse", "-q", "--verify", &wanted],
            )
            .await?;
        Ok(tip.map(CommitId::known))
    }

    /// Refreshes an index that may be behind to the newest commit, so that `git status` is correct.
    /// Does nothing while an operator's git operation is in progress, or HEAD is not at the
    /// history's branch.
    pub(super) async fn refresh_index(&self) {
        if !self.index_behind.load(Ordering::Relaxed) || self.is_operators_turn() {
            return;
        }
        self.remove_stale_locks();
        let Some(write) = IndexWrite::begin(&self.dir) else {
            return;
        };
        if let Err(error) = self
            .git
            .run("refresh the index", &["reset", "--quiet"])
            .await
        {
            tracing::debug!(%error, "commit written, index not updated; `git status` shows old \
                                     changes until the index can be written");
            return;
        }
        write.done();
        self.index_behind.store(false, Ordering::Relaxed);
    }

    /// As [`Self::refresh_index`], between commits.
    pub(super) async fn catch_up(&self) {
        if self.index_behind.load(Ordering::Relaxed) && self.git_dir().is_dir() {
            let _turn = self.turn.lock().await;
            self.refresh_index().await;
        }
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
        busy.iter().any(|name| git_dir.join(name).exists()) || moved(&self.dir).is_some()
    }

    fn git_dir(&self) -> PathBuf {
        self.dir.join(".git")
    }

    pub(super) async fn begin(&self) -> Result<(), HistoryError> {
        self.git
            .run(
                "begin a repository",
                &["init", "--quiet", "--initial-branch=main", "--template="],
            )
            .await?;
        let ignore = self.dir.join(".gitignore");
        if fs::symlink_metadata(&ignore).is_err() {
            let written = Writer::new(0o644).replace(&ignore, GITIGNORE.as_bytes());
            written.map_err(HistoryError::io("write", &ignore))?;
        }
        Ok(())
    }

    /// Returns whether the newest commit and its tree can be read, or there is no commit yet.
    pub(super) async fn is_sound(&self) -> Result<bool, HistoryError> {
        if self
            .git
            .ask("read", &["rev-parse", "--git-dir"])
            .await?
            .is_none()
        {
            return Ok(false);
        }
        if let Some(tip) = self.tip().await? {
            return Ok(self
                .git
                .ask("read", &["ls-tree", "-r", "-t", tip.as_str()])
                .await?
                .is_some());
        }
        // A repository without commits is sound; an existing branch without a commit is not.
        Ok(!self.git_dir().join(BRANCH).exists() && !self.has_packed_branch())
    }

    fn has_packed_branch(&self) -> bool {
        let packed =
            file::read_text(&self.git_dir().join("packed-refs"), MAX_LOG).unwrap_or_default();
        packed.lines().any(|line| line.ends_with(BRANCH))
    }

    /// Quarantines a broken repository as a whole. First checks that git itself works: a git that
    /// cannot print its version proves nothing about the repository.
    pub(super) async fn set_aside(&self) -> Result<PathBuf, HistoryError> {
        self.git.run("print its version", &["version"]).await?;
        let broken = self.git_dir();
        let quarantined = file::quarantine(&broken, "the repository is broken")
            .map_err(HistoryError::io("quarantine", &broken))?;
        tracing::error!(
            quarantine = %quarantined.display(),
            "history broken; repository quarantined and a new one started"
        );
        Ok(quarantined)
    }

    /// Removes leftovers of failed imports; on a full disk each attempt leaves some.
    pub(super) fn remove_leftovers(&self) {
        remove_named(&self.git_dir(), "fast_import_crash_", Duration::ZERO);
        // A recent one may belong to an operator's own git.
        remove_named(
            &self.git_dir().join("objects/pack"),
            "tmp_pack_",
            GIT_LOCK_STALE,
        );
    }

    /// Removes locks without a holder.
    fn remove_stale_locks(&self) {
        let git_dir = self.git_dir();
        let mut locks = vec![git_dir.join(format!("{BRANCH}.lock"))];
        locks.extend(
            ["index.lock", "HEAD.lock", "config.lock", "packed-refs.lock"]
                .map(|name| git_dir.join(name)),
        );
        for lock in locks.into_iter().filter(|lock| is_stale(lock, &self.dir)) {
            tracing::warn!(lock = %lock.display(), "removing the lock of a git that has ended");
            let _ = fs::remove_file(lock);
        }
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
            return process.exists();
        };
        let name = repository.as_os_str().as_encoded_bytes();
        text.windows(name.len()).any(|part| part == name)
    };
    let is_inside = match fs::read_link(process.join("cwd")) {
        Ok(folder) => folder.starts_with(repository),
        Err(_) => process.exists(),
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
}
