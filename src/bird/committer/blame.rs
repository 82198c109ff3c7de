//! Whose fault it is that a tree does not pass.
//!
//! Mostly BIRD names the file. But a name defined twice is reported where it is read second, which
//! may be the fragment that was there first; and a function that a new base no longer has is reported
//! in a fragment that nobody touched. Then the changes are tried one at a time upon the live tree.

use std::collections::{BTreeMap, BTreeSet};

use super::batch::Wishes;
use super::error::{BaseError, CommitError, FragmentError};
use super::stage::{Stage, StageError};
use super::tree::{LiveTree, Tree, fragment_at};
use crate::bird::check::Checker;
use crate::bird::diagnostics::Diagnostic;

/// Who is to be set aside before the next attempt.
#[derive(Debug)]
pub(super) enum Blame {
    /// A fragment that was to change.
    Fragment(String, FragmentError),
    /// Fragments that BIRD loaded without having the protocols they promised, with the names.
    Unverified(BTreeMap<String, Vec<String>>),
    /// The base that was to change.
    Base(BaseError),
    /// A fragment on disk that nobody changes, and which the installed BIRD does not understand.
    Stale(String, Diagnostic),
    /// Nobody in particular: nothing can be committed now.
    All(CommitError),
}

impl From<CommitError> for Blame {
    fn from(error: CommitError) -> Self {
        Self::All(error)
    }
}

/// What is needed to find the guilty one.
pub(super) struct Trial<'a> {
    pub(super) stage: &'a Stage,
    pub(super) checker: &'a Checker,
    pub(super) live: &'a LiveTree,
    /// The tree on disk as the agent wrote it, which the wishes change.
    pub(super) before: &'a Tree,
    pub(super) wishes: &'a Wishes,
}

impl Trial<'_> {
    /// Checks the wanted tree, and blames somebody if it does not pass.
    pub(super) async fn check(&self, wanted: &Tree) -> Result<Vec<Diagnostic>, Blame> {
        match self.stage.check(wanted, self.live, self.checker).await {
            Ok(warnings) => Ok(warnings),
            Err(StageError::Failed(CommitError::Check(error))) => {
                Err(self.one_by_one(None, error.into()).await)
            }
            Err(StageError::Failed(error)) => Err(Blame::All(error)),
            Err(StageError::Refused { path, what }) => match self.foreign().await {
                Some(blame) => Err(blame),
                None => Err(self.blame(path, what).await),
            },
        }
    }

    /// Blames a file that is not the agent's. One that ends in the middle of a statement is reported where the next
    /// file begins, so they are added one after the other to what is live without them.
    async fn foreign(&self) -> Option<Blame> {
        let mut tree = self.before.clone();
        let foreign = std::mem::take(&mut tree.foreign);
        if foreign.is_empty() || self.refusal(&tree).await.is_some() {
            return None;
        }
        for (path, text) in foreign {
            tree.foreign.insert(path.clone(), text);
            if let Some(what) = self.refusal(&tree).await {
                let name = fragment_at(&path).map(str::to_owned);
                return name.map(|name| Blame::Stale(name, what));
            }
        }
        None
    }

    /// Why BIRD's parser refuses a tree.
    async fn refusal(&self, tree: &Tree) -> Option<Diagnostic> {
        match self.stage.check(tree, self.live, self.checker).await {
            Err(StageError::Refused { what, .. }) => Some(what),
            Ok(_) | Err(StageError::Failed(_)) => None,
        }
    }

    async fn blame(&self, path: Option<String>, what: Diagnostic) -> Blame {
        let fragment = path.as_deref().and_then(fragment_at);
        match fragment {
            Some(name) if self.wishes.fragments.contains_key(name) => refused(name, what),
            None if path.is_some() && self.wishes.base.is_some() => {
                Blame::Base(BaseError::Refused { what })
            }
            named => {
                self.one_by_one(
                    named.map(|name| (name, &what)),
                    CommitError::Tree(what.clone()),
                )
                .await
            }
        }
    }

    /// Adds one change after the other to the live tree, the base first. If the live tree is broken
    /// itself, the fragment that BIRD named is.
    async fn one_by_one(
        &self,
        named: Option<(&str, &Diagnostic)>,
        otherwise: CommitError,
    ) -> Blame {
        if self
            .stage
            .check(self.before, self.live, self.checker)
            .await
            .is_err()
            && !self.before.is_blank()
        {
            return match named {
                Some((name, what)) => Blame::Stale(name.to_owned(), what.clone()),
                None => Blame::All(otherwise),
            };
        }
        if let Some(base) = &self.wishes.base {
            let alone = Wishes {
                base: Some(base.clone()),
                ..Wishes::default()
            };
            match self.try_alone(&alone).await {
                Ok(()) => {}
                Err(Some(what)) => return Blame::Base(BaseError::Refused { what }),
                Err(None) => return Blame::All(otherwise),
            }
        }
        for (name, fragment) in &self.wishes.fragments {
            let fragments = [(name.clone(), fragment.clone())].into();
            match self
                .try_alone(&Wishes {
                    base: self.wishes.base.clone(),
                    fragments,
                })
                .await
            {
                Ok(()) => {}
                Err(Some(what)) => return refused(name, what),
                Err(None) => return Blame::All(otherwise),
            }
        }
        Blame::All(otherwise)
    }

    /// `Err(Some)`: the parser refuses the tree or dies of it. `Err(None)`: it could not be checked.
    async fn try_alone(&self, wishes: &Wishes) -> Result<(), Option<Diagnostic>> {
        use crate::bird::check::CheckError::Crashed;
        let tree = wishes.applied_to(self.before, &BTreeSet::new());
        match self.stage.check(&tree, self.live, self.checker).await {
            Ok(_) => Ok(()),
            Err(StageError::Refused { what, .. }) => Err(Some(what)),
            Err(StageError::Failed(CommitError::Check(error @ Crashed { .. }))) => {
                Err(Some(Diagnostic {
                    message: error.to_string(),
                    ..Diagnostic::default()
                }))
            }
            Err(StageError::Failed(_)) => Err(None),
        }
    }
}

fn refused(name: &str, what: Diagnostic) -> Blame {
    Blame::Fragment(
        name.to_owned(),
        FragmentError::Refused {
            name: name.to_owned(),
            what,
        },
    )
}
