//! Queries of the history.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::tree::is_kept;
use super::{CommitId, History, HistoryError};
use crate::store::BRANCH;
use crate::util::fs;
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;

/// One commit of a list.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LoggedCommit {
    pub id: CommitId,
    /// The commit's time.
    pub time: Timestamp,
    pub author: String,
    /// The summary, one line.
    pub subject: String,
    /// Each step with its reason.
    pub body: String,
}

impl History {
    /// Returns the content of a file in the newest commit.
    ///
    /// # Errors
    /// Git fails.
    pub async fn last_committed(&self, path: &Path) -> Result<Option<String>, HistoryError> {
        match self.tip().await? {
            Some(tip) => self.blob(&tip, path).await,
            None => Ok(None),
        }
    }

    /// Returns the files of the newest commit, by path.
    ///
    /// # Errors
    /// Git fails.
    pub async fn branch(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>, HistoryError> {
        let Some(tip) = self.tip().await? else {
            return Ok(BTreeMap::new());
        };
        let known = self.list(&tip).await?;
        let paths = known.paths().filter(|path| is_kept(path));
        let paths: Vec<PathBuf> = paths.cloned().collect();
        let blobs = self.blobs(&tip, &paths).await?;
        let found = paths.into_iter().zip(blobs);
        Ok(found
            .filter_map(|(path, blob)| Some((path, blob?)))
            .sorted_map())
    }

    /// Returns the content of a file in a commit. The commit is in Git's syntax: `HEAD~3`, `1a2b3c`.
    ///
    /// # Errors
    /// The commit does not exist, or git fails.
    pub async fn committed_at(
        &self,
        commit: &str,
        path: &Path,
    ) -> Result<Option<String>, HistoryError> {
        let commit = self.resolve(commit).await?;
        self.blob(&commit, path).await
    }

    /// Resolves a commit in Git's syntax.
    ///
    /// # Errors
    /// The commit does not exist.
    pub async fn resolve(&self, commit: &str) -> Result<CommitId, HistoryError> {
        let unknown = || HistoryError::NoCommit(commit.chars().take(80).collect());
        if commit.is_empty() || commit.contains(['\0', '\n']) {
            return Err(unknown());
        }
        let wanted = format!("{commit}^{{commit}}");
        let args = ["rev-parse", "-q", "--verify", "--end-of-options", &wanted];
        if let Some(found) = self.git.ask("find a commit", &args).await? {
            return Ok(CommitId::known(found));
        }
        let many = self.starting_with(commit).await?;
        Err(if many.len() > 1 {
            HistoryError::Ambiguous {
                start: commit.to_owned(),
                commits: many,
            }
        } else {
            unknown()
        })
    }

    /// Returns the commits whose IDs start with this text.
    async fn starting_with(&self, start: &str) -> Result<Vec<CommitId>, HistoryError> {
        if !start.bytes().all(|byte| byte.is_ascii_hexdigit()) || self.tip().await?.is_none() {
            return Ok(Vec::new());
        }
        let all = self
            .git
            .run("list the commits", &["rev-list", BRANCH])
            .await?;
        let all = String::from_utf8_lossy(&all);
        let found = all
            .lines()
            .filter(|id| id.starts_with(&start.to_ascii_lowercase()));
        Ok(found.map(|id| CommitId(id.to_owned())).collect())
    }

    /// Returns the newest commits, newest first; only those of `paths`, unless it is empty.
    ///
    /// # Errors
    /// Git fails.
    pub async fn log(
        &self,
        paths: &[PathBuf],
        limit: usize,
    ) -> Result<Vec<LoggedCommit>, HistoryError> {
        if self.tip().await?.is_none() {
            self.has_none_yet().await?;
            return Ok(Vec::new());
        }
        let limit = format!("--max-count={limit}");
        let mut args = vec![
            "log",
            "-z",
            "--format=%H%x1f%at%x1f%an%x1f%s%x1f%b",
            &limit,
            BRANCH,
            "--",
        ];
        for path in paths {
            args.push(
                path.to_str()
                    .ok_or_else(|| HistoryError::NotKept(path.clone()))?,
            );
        }
        let text = self.git.run("list the commits", &args).await?;
        Ok(String::from_utf8_lossy(&text)
            .split('\0')
            .filter_map(entry)
            .collect())
    }

    /// Checks that a history without a commit is a new one, and not an unreadable one.
    async fn has_none_yet(&self) -> Result<(), HistoryError> {
        let dir = self.tree.git_dir();
        let path = dir.clone();
        let found = match blocking(move || fs::symlink_metadata(path)).await {
            Ok(_) => self.git.run("read", &["rev-parse", "--git-dir"]).await,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(HistoryError::io("read", &dir)(error)),
        };
        match found {
            Ok(_) if self.is_sound().await? => Ok(()),
            Ok(_) => Err(HistoryError::Broken {
                dir,
                reason: "its branch points to a missing commit".to_owned(),
            }),
            Err(HistoryError::Git { reason, .. }) => Err(HistoryError::Broken { dir, reason }),
            Err(error) => Err(error),
        }
    }

    /// Returns git's name and version.
    ///
    /// # Errors
    /// Git is not installed, or fails.
    pub(crate) async fn version(&self) -> Result<String, HistoryError> {
        let text = self.git.run("tell its version", &["--version"]).await?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// Returns a commit, with its message and its diff.
    ///
    /// # Errors
    /// The commit does not exist, or git fails.
    pub async fn show(&self, commit: &str) -> Result<String, HistoryError> {
        let commit = self.resolve(commit).await?;
        let args = [
            "show",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--stat",
            "--patch",
            commit.as_str(),
        ];
        let text = self.git.run("show a commit", &args).await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    async fn blob(&self, commit: &CommitId, path: &Path) -> Result<Option<String>, HistoryError> {
        if !is_kept(path) {
            return Err(HistoryError::NotKept(path.to_owned()));
        }
        let blob = self
            .blobs(commit, &[path.to_owned()])
            .await?
            .pop()
            .flatten();
        Ok(blob.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Returns the contents of files in a commit, in the order of `paths`.
    pub(super) async fn blobs(
        &self,
        commit: &CommitId,
        paths: &[PathBuf],
    ) -> Result<Vec<Option<Vec<u8>>>, HistoryError> {
        let wanted: String = paths
            .iter()
            .map(|path| format!("{commit}:{}\n", path.display()))
            .collect();
        let answer = self
            .git
            .feed("read files", &["cat-file", "--batch"], wanted.into_bytes())
            .await?;
        let mut rest = answer.as_slice();
        Ok(paths.iter().map(|_| next_blob(&mut rest)).collect())
    }
}

/// Parses one answer of `git cat-file --batch`: `<id> blob <size>`, the content; or `<name> missing`.
fn next_blob(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (line, after) = (
        String::from_utf8_lossy(&rest[..end]).into_owned(),
        &rest[end + 1..],
    );
    *rest = after;
    let mut words = line.rsplit(' ');
    let size: usize = words.next()?.parse().ok()?;
    let kind = words.next()?.to_owned();
    let content = after.get(..size)?.to_vec();
    *rest = after.get(size + 1..).unwrap_or_default();
    (kind == "blob").then_some(content)
}

fn entry(text: &str) -> Option<LoggedCommit> {
    let mut fields = text.trim_start_matches('\n').splitn(5, '\u{1f}');
    let id = CommitId(fields.next()?.to_owned());
    let time = Timestamp::from_second(fields.next()?.parse().ok()?).ok()?;
    let (author, subject) = (fields.next()?.to_owned(), fields.next()?.to_owned());
    let body = fields.next()?.trim_end().to_owned();
    Some(LoggedCommit {
        id,
        time,
        author,
        subject,
        body,
    })
}
