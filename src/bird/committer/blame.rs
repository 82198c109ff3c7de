//! Finds the change that makes a tree fail its check.
//!
//! BIRD usually names the file. But a duplicate name is reported where it is read second, which can be the fragment
//! that
//! existed first; and a function that a new base lacks is reported in an unchanged fragment. In these cases the
//! changes are tried one at a time on the live tree.

use std::collections::{BTreeMap, BTreeSet};

use super::batch::Wishes;
use super::stage::{Stage, StageError};
use crate::bird::check::Checker;
use crate::observed::bird::tree::fragment_at;
use crate::observed::bird::{Diagnostic, LiveTree, Tree};
use crate::ports::{BaseError, CommitError, FragmentError};

/// The change to exclude before the next attempt.
#[derive(Debug)]
pub(super) enum Blame {
    Fragment(String, FragmentError),
    /// Fragments that BIRD loaded without the protocols they promised, with the names of these.
    Unverified(BTreeMap<String, Vec<String>>),
    Base(BaseError),
    /// An unchanged fragment on disk that the installed BIRD rejects.
    Stale(String, Diagnostic),
    /// No single change: nothing can be committed now.
    All(CommitError),
}

impl From<CommitError> for Blame {
    fn from(error: CommitError) -> Self {
        Self::All(error)
    }
}

/// The input for finding the failing change.
pub(super) struct Trial<'a> {
    pub(super) stage: &'a Stage,
    pub(super) checker: &'a Checker,
    pub(super) live: &'a LiveTree,
    /// The tree on disk as the agent wrote it, before the requested changes.
    pub(super) before: &'a Tree,
    pub(super) wishes: &'a Wishes,
}

impl Trial<'_> {
    /// Checks the wanted tree, and returns the change to blame if it fails.
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

    /// Blames a file that is not the agent's. BIRD reports a file that ends within a statement where the next file
    /// begins, so these files are added one at a time to the live tree without them.
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

    /// Returns why BIRD's parser rejects a tree.
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

    /// Adds one change at a time to the live tree, the base first. If the live tree itself is broken,
    /// the fragment named by BIRD is blamed.
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

    /// Checks some changes on the live tree. `Err(Some)`: the parser rejects the tree or crashes on it. `Err(None)`:
    /// the
    /// check could not run.
    async fn try_alone(&self, wishes: &Wishes) -> Result<(), Option<Diagnostic>> {
        use crate::ports::CheckError::Crashed;
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
