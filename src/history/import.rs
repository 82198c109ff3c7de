//! One `git fast-import` that makes one commit after the other, as long as commits come.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::redact::redact;
use crate::store::BRANCH;
use crate::util::exec::Dialogue;

use super::cause::{Author, Cause};
use super::listing::Listing;
use super::tree::{Contents, Tree};
use super::{CommitId, History, HistoryError};

const OPERATION: &str = "commit";

/// Moves the branch to the commit, and asks for the commit's ID.
const END: &[u8] = b"checkpoint\nget-mark :1\n";

/// What commits need, in the turn to commit.
#[derive(Debug, Default)]
pub(super) struct Writing {
    import: Option<Import>,
    /// The files of the newest commit, as it was when they were listed.
    listing: Option<Listing>,
}

/// A running `git fast-import`.
#[derive(Debug)]
struct Import {
    dialogue: Dialogue,
    /// Its last commit.
    tip: CommitId,
}

impl Writing {
    /// Whether a `git fast-import` of an earlier commit runs.
    pub(super) fn is_kept(&self) -> bool {
        self.import.is_some()
    }

    /// Takes the files of the newest commit, if they are known; [`Self::keep`] returns them.
    pub(super) fn take(&mut self, tip: Option<&CommitId>) -> Option<Listing> {
        self.listing.take().filter(|it| it.tip.as_ref() == tip)
    }

    pub(super) fn keep(&mut self, listing: Listing) {
        self.listing = Some(listing);
    }
}

impl History {
    /// Makes a commit with these changes. A `git fast-import` that does not know the newest commit is replaced.
    pub(super) async fn import(
        &self,
        writing: &mut Writing,
        tip: Option<&CommitId>,
        commit: Vec<u8>,
    ) -> Result<CommitId, HistoryError> {
        let is_current = writing.import.as_ref().map(|it| Some(&it.tip) == tip);
        if is_current == Some(false) {
            self.end_import(writing).await;
        }
        let mut dialogue = match writing.import.take() {
            Some(kept) => kept.dialogue,
            None => {
                self.files(Tree::remove_leftovers).await;
                self.git.start(OPERATION, &ARGUMENTS).await?
            }
        };
        let answer = match dialogue.ask(&[commit.as_slice(), END].concat()).await {
            Ok(answer) => answer.map(CommitId::known),
            Err(error) => return Err(self.git.failed(OPERATION, error).await),
        };
        match answer {
            // The branch stays where it is if another git holds its lock, or has moved it meanwhile.
            Some(tip) if self.newest().await?.as_ref() == Some(&tip) => {
                let import = Import {
                    dialogue,
                    tip: tip.clone(),
                };
                writing.import = Some(import);
                Ok(tip)
            }
            _ => Err(self.refused(dialogue).await),
        }
    }

    async fn refused(&self, dialogue: Dialogue) -> HistoryError {
        let ended = dialogue.end(b"done\n").await;
        self.files(Tree::remove_leftovers).await;
        match ended {
            Ok(output) => self.git.refused(OPERATION, &output),
            Err(error) => self.git.failed(OPERATION, error).await,
        }
    }

    /// Ends the `git fast-import` that waits for commits.
    pub(super) async fn end_import(&self, writing: &mut Writing) {
        let Some(import) = writing.import.take() else {
            return;
        };
        // At a regular end it moves the branch to its last commit once more, which would undo what another git did.
        let is_newest = matches!(self.newest().await, Ok(Some(tip)) if tip == import.tip);
        let end: &[u8] = if is_newest { b"done\n" } else { b"" };
        let _ = import.dialogue.end(end).await;
        self.files(Tree::remove_leftovers).await;
    }
}

const ARGUMENTS: [&str; 4] = ["fast-import", "--quiet", "--done", "--date-format=raw"];

/// Returns the commit in the format of `git fast-import`. All paths are of documents, so none needs quoting.
pub(super) fn stream(cause: &Cause, tip: Option<&CommitId>, changed: &Contents) -> Vec<u8> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let message = message(cause);
    let mut head = String::new();
    let (author, agent) = (cause.author.identity(), Author::Agent.identity());
    let _ = write!(
        head,
        "commit {BRANCH}\nmark :1\nauthor {author} {now} +0000\ncommitter {agent} {now} +0000\n"
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
