//! Commits: the content at the moment when a cause was recorded, as a stream for `git fast-import`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::intervals::OTHER_GIT_WAIT;
use crate::redact::redact;
use crate::store::{APPROVED, Area, BRANCH, IDENTITY, Place, is_moving, moved};
use crate::util::file::{self, Stamp};

use super::{CommitId, History, HistoryError};

/// The author of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    /// The Control Plane, through the sync.
    ControlPlane,
    /// The agent: an apply, an expiry.
    Agent,
    /// A person, through an editor or the local API.
    Operator {
        /// The person's name.
        name: String,
    },
}

impl Author {
    /// Returns the operator with this user ID, with the name in `/etc/passwd`.
    pub fn operator(uid: u32) -> Self {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let named = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        Self::Operator {
            name: named.unwrap_or_else(|| format!("uid {uid}")),
        }
    }

    /// Returns `Name <address>`, in characters that Git accepts.
    fn identity(&self) -> String {
        let name = match self {
            Self::ControlPlane => "Control Plane",
            Self::Agent => "moenet-agent",
            Self::Operator { name } => name,
        };
        let plain = |c: char| !c.is_control() && !matches!(c, '<' | '>');
        let name: String = name.chars().filter(|c| plain(*c)).take(80).collect();
        let name = if name.trim().is_empty() {
            "operator"
        } else {
            name.trim()
        };
        let address: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .collect();
        format!("{name} <{address}@localhost>")
    }
}

/// The files that a cause changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paths {
    /// These files, relative to the state directory, with their content when the cause is recorded.
    Some(Vec<PathBuf>),
    /// These files, with this content; `None`: the file was deleted. The current content on the disk is ignored.
    Exactly(Contents),
    /// All files of the history that are missing when the commit is made.
    Gone,
    /// All files that differ from the history when the commit is made.
    All,
}

impl FromIterator<Place> for Paths {
    fn from_iter<I: IntoIterator<Item = Place>>(places: I) -> Self {
        Self::Some(places.into_iter().map(|place| place.relative()).collect())
    }
}

/// One cause, which becomes one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The author of the change.
    pub author: Author,
    /// The changed files.
    pub paths: Paths,
    /// The summary, one line.
    pub subject: String,
    /// Each step with its reason. No secrets.
    pub body: Vec<String>,
}

/// The content of files at one moment; `None`: the file did not exist.
pub type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Decides which contents may enter the history, for files whose path below the state directory is allowed.
pub type Accepts = fn(&Path, &[u8]) -> bool;

/// A cause with the content of its files.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) cause: Cause,
    /// `None`: the content of the cause's paths when the commit is made.
    pub(super) contents: Option<Contents>,
}

impl Recorded {
    pub(super) fn new(dir: &Path, accepts: Accepts, cause: Cause) -> Self {
        let contents = match &cause.paths {
            Paths::All | Paths::Gone => None,
            Paths::Some(paths) => Some(contents(dir, accepts, paths.iter().cloned())),
            Paths::Exactly(exactly) => {
                let mut kept = exactly.clone();
                kept.retain(|path, content| {
                    is_kept(path) && is_accepted(accepts, path, content.as_deref())
                });
                Some(kept)
            }
        };
        Self { cause, contents }
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

/// Reads files. Leaves out a file that cannot be read, is not a regular file of a document's size,
/// or is not accepted: the history then neither changes nor loses it.
fn contents(dir: &Path, accepts: Accepts, paths: impl Iterator<Item = PathBuf>) -> Contents {
    let read = |path: PathBuf| {
        content(&dir.join(&path))
            .ok()
            .map(|content| (path, content))
    };
    let kept = paths.filter(|path| is_kept(path)).filter_map(read);
    kept.filter(|(path, content)| is_accepted(accepts, path, content.as_deref()))
        .collect()
}

/// Returns whether a content may enter the history. A deletion always may.
fn is_accepted(accepts: Accepts, path: &Path, content: Option<&[u8]>) -> bool {
    content.is_none_or(|bytes| accepts(path, bytes))
}

fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match file::read_unlinked(path, file::DOCUMENT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl History {
    /// Commits the changes of a cause. `None`: nothing changed.
    ///
    /// # Errors
    /// Git fails. The files are unchanged; a later commit with [`Paths::All`] catches up.
    pub async fn commit(&self, cause: Cause) -> Result<Option<CommitId>, HistoryError> {
        self.commit_recorded(&Recorded::new(&self.dir, self.accepts, cause))
            .await
    }

    pub(super) async fn commit_recorded(
        &self,
        recorded: &Recorded,
    ) -> Result<Option<CommitId>, HistoryError> {
        let _turn = self.turn.lock().await;
        self.prepare().await?;
        let committed = self.commit_prepared(recorded).await?;
        self.refresh_index().await;
        Ok(committed)
    }

    async fn commit_prepared(&self, recorded: &Recorded) -> Result<Option<CommitId>, HistoryError> {
        match self.try_commit(recorded).await {
            // Only an error of git itself may be the repository's fault; with a full disk the
            // repository is found sound.
            Err(HistoryError::Git { .. }) if !self.is_sound().await? => {
                let aside = self.set_aside().await?;
                self.begin().await?;
                let id = self.try_commit(recorded).await?;
                self.try_commit(&first_commit(&aside)).await?;
                Ok(id)
            }
            outcome => outcome,
        }
    }

    async fn try_commit(&self, recorded: &Recorded) -> Result<Option<CommitId>, HistoryError> {
        // Content that is read now must be from the branch's tree; recorded content is valid wherever HEAD is.
        let at_rest = match recorded.contents {
            Some(_) => None,
            None => {
                self.wait_for_git().await;
                Some(self.at_rest()?)
            }
        };
        let tip = self.tip().await?;
        let mut wanted = match (&recorded.contents, &recorded.cause.paths) {
            (Some(contents), _) => contents.clone(),
            (None, Paths::Gone) => {
                let mut gone = self.read(self.known_paths(tip.as_ref()).await?);
                gone.retain(|_, content| content.is_none());
                gone
            }
            (None, _) => {
                let known = self.known_paths(tip.as_ref()).await?;
                self.read(known.into_iter().chain(on_disk(&self.dir, Path::new(""))))
            }
        };
        // Recorded with the next cause: an identity alone is not a cause.
        let identity = self.read([PathBuf::from(IDENTITY)]);
        wanted.extend(identity.into_iter().filter(|(_, text)| text.is_some()));
        if let Some(at_rest) = at_rest
            && self.at_rest()? != at_rest
        {
            return Err(self.moved("being changed by another git"));
        }
        let mut changed = self.changed(tip.as_ref(), wanted).await?;
        if changed.keys().all(|path| path == Path::new(IDENTITY)) {
            return Ok(None);
        }
        if tip.is_none() {
            changed.extend(self.read([PathBuf::from(".gitignore")]));
            changed.retain(|_, content| content.is_some());
        }
        let stream = stream(&recorded.cause, tip.as_ref(), &changed);
        let import = ["fast-import", "--quiet", "--done", "--date-format=raw"];
        if let Err(error) = self.git.feed("commit", &import, stream).await {
            self.remove_leftovers();
            return Err(error);
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.index_behind.store(true, Ordering::Relaxed);
        self.tip().await
    }

    /// Returns the index while the tree is that of the history's branch; content that is read
    /// between two calls with the same result is of that tree.
    fn at_rest(&self) -> Result<Option<Stamp>, HistoryError> {
        if let Some(at) = moved(&self.dir) {
            return Err(self.moved(at));
        }
        Ok(Stamp::at_unlinked(&self.dir.join(".git/index")))
    }

    /// Waits for a limited time while another git holds the index, because it may be changing the
    /// tree. A lock that was created manually delays the commit only for that time.
    async fn wait_for_git(&self) {
        let begun = Instant::now();
        while is_moving(&self.dir, Duration::ZERO) && begun.elapsed() < OTHER_GIT_WAIT {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn moved(&self, at: impl Into<String>) -> HistoryError {
        HistoryError::Moved {
            dir: self.dir.clone(),
            at: at.into(),
        }
    }

    fn read(&self, paths: impl IntoIterator<Item = PathBuf>) -> Contents {
        contents(&self.dir, self.accepts, paths.into_iter())
    }

    /// Returns every document in the history.
    pub(super) async fn known_paths(
        &self,
        tip: Option<&CommitId>,
    ) -> Result<BTreeSet<PathBuf>, HistoryError> {
        let Some(tip) = tip else {
            return Ok(BTreeSet::new());
        };
        let listed = self
            .git
            .run(
                "list",
                &["ls-tree", "-r", "-z", "--name-only", tip.as_str()],
            )
            .await?;
        Ok(String::from_utf8_lossy(&listed)
            .split('\0')
            .map(PathBuf::from)
            .collect())
    }

    /// Removes contents that the history has already.
    async fn changed(
        &self,
        tip: Option<&CommitId>,
        mut wanted: Contents,
    ) -> Result<Contents, HistoryError> {
        let Some(tip) = tip else {
            wanted.retain(|_, content| content.is_some());
            return Ok(wanted);
        };
        let paths: Vec<PathBuf> = wanted.keys().cloned().collect();
        let mut kept = self.blobs(tip, &paths).await?.into_iter();
        wanted.retain(|_, content| kept.next().is_none_or(|kept| kept != *content));
        Ok(wanted)
    }
}

/// The commit that adds everything to a new repository.
fn first_commit(aside: &Path) -> Recorded {
    let name = aside.file_name().unwrap_or_default().display();
    let cause = Cause {
        author: Author::Agent,
        paths: Paths::All,
        subject: "Begin a new history".to_owned(),
        body: vec![format!(
            "The previous history was broken; it is kept as {name}."
        )],
    };
    Recorded {
        cause,
        contents: None,
    }
}

/// Lists the files below a folder that the history keeps. A folder that cannot be listed has none,
/// and the history keeps its files, unless a file is proved to be deleted.
fn on_disk(dir: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir.join(folder))
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
            found.extend(on_disk(dir, &path));
        }
    }
    found
}

/// Returns the commit in the format of `git fast-import`. All paths are of documents, so none needs quoting.
fn stream(cause: &Cause, tip: Option<&CommitId>, changed: &Contents) -> Vec<u8> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let message = message(cause);
    let mut head = String::new();
    let (author, agent) = (cause.author.identity(), Author::Agent.identity());
    let _ = write!(
        head,
        "commit {BRANCH}\nauthor {author} {now} +0000\ncommitter {agent} {now} +0000\n"
    );
    let _ = write!(head, "data {}\n{message}\n", message.len());
    if let Some(tip) = tip {
        let _ = writeln!(head, "from {tip}");
    }
    let mut stream = head.into_bytes();
    for (path, content) in changed {
        let path = path.display();
        match content {
            None => stream.extend(format!("D {path}\n").bytes()),
            Some(content) => {
                stream.extend(format!("M 100644 inline {path}\ndata {}\n", content.len()).bytes());
                stream.extend(content);
                stream.push(b'\n');
            }
        }
    }
    stream.extend(b"done\n");
    stream
}

/// Returns subject, empty line and body; without secrets and without characters that would end a
/// line or the text early.
fn message(cause: &Cause) -> String {
    let line = |text: &str| -> String {
        redact(text)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>()
            .trim_end()
            .to_owned()
    };
    let mut message = line(&cause.subject);
    message.push('\n');
    if !cause.body.is_empty() {
        message.push('\n');
    }
    for text in cause.body.iter().flat_map(|text| text.lines()) {
        message.push_str(&line(text));
        message.push('\n');
    }
    message
}
