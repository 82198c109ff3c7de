//! Commits: the content at the moment when a cause was recorded, as a stream for `git fast-import`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::intervals::OTHER_GIT_WAIT;
use crate::redact::redact;
use crate::store::{BRANCH, IDENTITY, Place};
use crate::util::fs;

use super::tree::{Contents, Tree, is_kept};
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
    pub author: Author,
    /// The changed files.
    pub paths: Paths,
    /// The summary, one line.
    pub subject: String,
    /// Each step with its reason. No secrets.
    pub body: Vec<String>,
}

/// A cause with the content of its files.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) cause: Cause,
    /// `None`: the content of the cause's paths when the commit is made.
    pub(super) contents: Option<Contents>,
}

impl Recorded {
    /// Reads the files of a cause. Blocks.
    pub(super) fn new(tree: &Tree, cause: Cause) -> Self {
        let contents = match &cause.paths {
            Paths::All | Paths::Gone => None,
            Paths::Some(paths) => Some(tree.read(paths.iter().cloned())),
            Paths::Exactly(exactly) => {
                let mut kept = exactly.clone();
                kept.retain(|path, content| {
                    is_kept(path) && tree.is_accepted(path, content.as_deref())
                });
                Some(kept)
            }
        };
        Self { cause, contents }
    }
}

impl History {
    /// Commits the changes of a cause. `None`: nothing changed.
    ///
    /// # Errors
    /// Git fails. The files are unchanged; a later commit with [`Paths::All`] catches up.
    pub async fn commit(&self, cause: Cause) -> Result<Option<CommitId>, HistoryError> {
        let recorded = self.files(move |tree| Recorded::new(tree, cause)).await;
        self.commit_recorded(&recorded).await
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
                Some(self.files(Tree::at_rest).await?)
            }
        };
        let tip = self.tip().await?;
        let mut wanted = match (&recorded.contents, &recorded.cause.paths) {
            (Some(contents), _) => contents.clone(),
            (None, Paths::Gone) => {
                let known = self.known_paths(tip.as_ref()).await?;
                let mut gone = self.files(move |tree| tree.read(known)).await;
                gone.retain(|_, content| content.is_none());
                gone
            }
            (None, _) => {
                let known = self.known_paths(tip.as_ref()).await?;
                let read =
                    |tree: &Tree| tree.read(known.into_iter().chain(tree.on_disk(Path::new(""))));
                self.files(read).await
            }
        };
        // Recorded with the next cause: an identity alone is not a cause.
        let identity = self.files(|tree| tree.read([PathBuf::from(IDENTITY)]));
        let identity = identity.await;
        wanted.extend(identity.into_iter().filter(|(_, text)| text.is_some()));
        if let Some(at_rest) = at_rest
            && self.files(Tree::at_rest).await? != at_rest
        {
            return Err(self.tree.moved("being changed by another git"));
        }
        let mut changed = self.changed(tip.as_ref(), wanted).await?;
        if changed.keys().all(|path| path == Path::new(IDENTITY)) {
            return Ok(None);
        }
        if tip.is_none() {
            changed.extend(
                self.files(|tree| tree.read([PathBuf::from(".gitignore")]))
                    .await,
            );
            changed.retain(|_, content| content.is_some());
        }
        let stream = stream(&recorded.cause, tip.as_ref(), &changed);
        let import = ["fast-import", "--quiet", "--done", "--date-format=raw"];
        if let Err(error) = self.git.feed("commit", &import, stream).await {
            self.files(Tree::remove_leftovers).await;
            return Err(error);
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.index_behind.store(true, Ordering::Relaxed);
        self.tip().await
    }

    /// Waits for a limited time while another git holds the index, because it may be changing the
    /// tree. A lock that was created manually delays the commit only for that time.
    async fn wait_for_git(&self) {
        let begun = Instant::now();
        while self.files(Tree::is_moving).await && begun.elapsed() < OTHER_GIT_WAIT {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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
