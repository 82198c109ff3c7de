//! Finds the changes that make a tree fail its check.
//!
//! BIRD stops at the first error, and does not always name the file to blame: a duplicate name is reported where it is
//! read second, which can be the fragment that existed first; a missing bracket is reported in the file that follows;
//! and a function that a new base lacks is reported in an unchanged fragment. Therefore the changed fragments are
//! checked with the base alone first, in small groups: a thousand fragments with a hundred faults take a few hundred
//! checks of a few files. A fault that only shows together with other files is found by bisection.

use std::collections::{BTreeMap, BTreeSet};

use super::batch::Wishes;
use super::stage::{Stage, StageError};
use crate::bird::check::Checker;
use crate::observed::bird::tree::fragment_at;
use crate::observed::bird::{Diagnostic, LiveTree, Tree};
use crate::ports::{BaseError, CheckError, CommitError, FragmentError};
use crate::util::sorted::Sorted as _;

/// Number of changed fragments that are checked together: large enough that starting the parser costs little, small
/// enough that a fault in one repeats little work.
const GROUP: usize = 32;

/// The changes to exclude before the next attempt.
#[derive(Debug)]
pub(super) enum Blame {
    Fragments(BTreeMap<String, FragmentError>),
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

/// The input for finding the failing changes.
pub(super) struct Trial<'a> {
    pub(super) stage: &'a Stage,
    pub(super) checker: &'a Checker,
    pub(super) live: &'a LiveTree,
    /// The tree on disk as the agent wrote it, before the requested changes.
    pub(super) before: &'a Tree,
    pub(super) wishes: &'a Wishes,
}

/// Result of a check: the parser's reason for a rejection, with the path of the file that it names.
type Verdict = Result<(), (Option<String>, Diagnostic)>;

/// Returns a tree without its fragments.
fn base_of(tree: &Tree) -> Tree {
    Tree {
        fragments: BTreeMap::new(),
        ..tree.clone()
    }
}

impl Trial<'_> {
    /// Checks the wanted tree, and returns the changes to blame if it fails.
    pub(super) async fn check(&self, wanted: &Tree) -> Result<Vec<Diagnostic>, Blame> {
        let (path, otherwise) = match self.stage.check(wanted, self.live, self.checker).await {
            Ok(warnings) => return Ok(warnings),
            Err(StageError::Refused { path, what }) => (path, CommitError::Tree(what)),
            Err(StageError::Failed(error)) if is_crash(&error) => (None, error),
            Err(StageError::Failed(error)) => return Err(Blame::All(error)),
        };
        let blamed = self.blame(wanted, path, otherwise).await;
        Err(blamed.unwrap_or_else(Blame::All))
    }

    async fn blame(
        &self,
        wanted: &Tree,
        mut path: Option<String>,
        mut otherwise: CommitError,
    ) -> Result<Blame, CommitError> {
        if let CommitError::Tree(what) = &otherwise {
            if let Some(blame) = self.foreign().await? {
                return Ok(blame);
            }
            // A fragment that ends within a statement is reported in the file that includes it.
            let named = path.as_deref().map(fragment_at);
            if named == Some(None)
                && self.wishes.base.is_some()
                && self.verdict(&base_of(wanted)).await?.is_err()
            {
                let what = what.clone();
                return Ok(Blame::Base(BaseError::Refused { what }));
            }
        }
        let mut faulty = self.faulty_alone(wanted).await?;
        loop {
            if !faulty.is_empty() {
                let mut rest = wanted.clone();
                rest.fragments.retain(|name, _| !faulty.contains_key(name));
                match self.verdict(&rest).await? {
                    Ok(()) => return Ok(refused(faulty)),
                    Err((named, what)) => (path, otherwise) = (named, CommitError::Tree(what)),
                }
            }
            // A changed fragment that fails only together with others, such as the second of one name.
            let named = path.as_deref().and_then(fragment_at);
            match (named, &otherwise) {
                (Some(name), CommitError::Tree(what))
                    if self.wishes.fragments.contains_key(name) && !faulty.contains_key(name) =>
                {
                    faulty.insert(name.to_owned(), what.clone());
                }
                _ if faulty.is_empty() => return self.together(path, otherwise).await,
                _ => return Ok(refused(faulty)),
            }
        }
    }

    /// Blames a file that is not the agent's. BIRD reports a file that ends within a statement where the next file
    /// begins, so these files are added one at a time to the live tree without them.
    async fn foreign(&self) -> Result<Option<Blame>, CommitError> {
        let mut tree = self.before.clone();
        let foreign = std::mem::take(&mut tree.foreign);
        if foreign.is_empty() || self.verdict(&tree).await?.is_err() {
            return Ok(None);
        }
        for (path, text) in foreign {
            tree.foreign.insert(path.clone(), text);
            if let Err((_, what)) = self.verdict(&tree).await? {
                let name = fragment_at(&path).map(str::to_owned);
                return Ok(name.map(|name| Blame::Stale(name, what)));
            }
        }
        Ok(None)
    }

    /// Returns the changed fragments that the parser rejects with the base alone. None if it rejects the base.
    async fn faulty_alone(
        &self,
        wanted: &Tree,
    ) -> Result<BTreeMap<String, Diagnostic>, CommitError> {
        let base = base_of(wanted);
        let mut faulty = BTreeMap::new();
        let changed = self.wishes.fragments.iter();
        let texts: Vec<_> = changed
            .filter_map(|(name, fragment)| Some((name.as_str(), &*fragment.as_ref()?.text)))
            .collect();
        if texts.is_empty() || self.verdict(&base).await?.is_err() {
            return Ok(faulty);
        }
        for group in texts.chunks(GROUP) {
            self.faulty_in(&base, group.to_vec(), &mut faulty).await?;
        }
        Ok(faulty)
    }

    /// Adds the fragments of a group that the parser rejects with the base alone.
    async fn faulty_in(
        &self,
        base: &Tree,
        mut group: Vec<(&str, &str)>,
        faulty: &mut BTreeMap<String, Diagnostic>,
    ) -> Result<(), CommitError> {
        while let Err((path, _)) = self.verdict(&with(base, &group)).await? {
            let mut found = None;
            for at in suspects(path.as_deref(), &group) {
                if let Err((_, what)) = self.verdict(&with(base, &group[at..=at])).await? {
                    found = Some((at, what));
                    break;
                }
            }
            // Without a fragment that fails alone, the fault shows only together with others.
            let Some((at, what)) = found else { break };
            faulty.insert(group.remove(at).0.to_owned(), what);
        }
        Ok(())
    }

    /// Blames a change that fails only together with other files: the base, or the first change that makes the live
    /// tree fail with all changes before it. If the live tree itself is broken, the fragment named by BIRD is blamed.
    async fn together(
        &self,
        path: Option<String>,
        otherwise: CommitError,
    ) -> Result<Blame, CommitError> {
        if !self.before.is_blank() && self.verdict(self.before).await?.is_err() {
            let named = path.as_deref().and_then(fragment_at).map(str::to_owned);
            return Ok(match (named, otherwise) {
                (Some(name), CommitError::Tree(what)) => Blame::Stale(name, what),
                (_, otherwise) => Blame::All(otherwise),
            });
        }
        if self.wishes.base.is_some()
            && let Err((_, what)) = self.verdict(&self.first(0)).await?
        {
            return Ok(Blame::Base(BaseError::Refused { what }));
        }
        let (mut good, mut bad) = (0, self.wishes.fragments.len());
        let Err((_, mut why)) = self.verdict(&self.first(bad)).await? else {
            return Ok(Blame::All(otherwise));
        };
        while bad - good > 1 {
            let middle = usize::midpoint(good, bad);
            match self.verdict(&self.first(middle)).await? {
                Ok(()) => good = middle,
                Err((_, what)) => (bad, why) = (middle, what),
            }
        }
        let name = self.wishes.fragments.keys().nth(good);
        Ok(match name {
            Some(name) => refused([(name.clone(), why)].into()),
            None => Blame::All(otherwise),
        })
    }

    /// Returns the live tree with the requested base and the first of the requested fragments.
    fn first(&self, count: usize) -> Tree {
        let fragments = self.wishes.fragments.iter().take(count);
        let wishes = Wishes {
            base: self.wishes.base.clone(),
            fragments: fragments
                .map(|(name, fragment)| (name.clone(), fragment.clone()))
                .sorted_map(),
        };
        wishes.applied_to(self.before, &BTreeSet::new())
    }

    /// Checks a tree. A text that crashes the parser is rejected.
    async fn verdict(&self, tree: &Tree) -> Result<Verdict, CommitError> {
        match self.stage.check(tree, self.live, self.checker).await {
            Ok(_) => Ok(Ok(())),
            Err(StageError::Refused { path, what }) => Ok(Err((path, what))),
            Err(StageError::Failed(error)) if is_crash(&error) => {
                let what = Diagnostic {
                    message: crate::telemetry::chain(&error),
                    ..Diagnostic::default()
                };
                Ok(Err((None, what)))
            }
            Err(StageError::Failed(error)) => Err(error),
        }
    }
}

fn is_crash(error: &CommitError) -> bool {
    matches!(error, CommitError::Check(CheckError::Crashed { .. }))
}

/// Returns the positions of a group in the order of suspicion: the fragment that BIRD names, and the one before it, which
/// may lack a bracket. The last one may, if BIRD names another file. Then all others.
fn suspects(path: Option<&str>, group: &[(&str, &str)]) -> Vec<usize> {
    let named = path.and_then(fragment_at);
    let named = named.and_then(|name| group.iter().position(|(it, _)| *it == name));
    let mut order: Vec<usize> = match named {
        Some(at) => [Some(at), at.checked_sub(1)]
            .into_iter()
            .flatten()
            .collect(),
        None => group.len().checked_sub(1).into_iter().collect(),
    };
    let others = (0..group.len()).filter(|at| !order.contains(at));
    let others: Vec<_> = others.collect();
    order.extend(others);
    order
}

/// Returns a tree with these fragments.
fn with(base: &Tree, fragments: &[(&str, &str)]) -> Tree {
    let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).into());
    Tree {
        fragments: fragments.iter().map(owned).sorted_map(),
        ..base.clone()
    }
}

fn refused(faulty: BTreeMap<String, Diagnostic>) -> Blame {
    let error = |(name, what): (String, Diagnostic)| {
        let error = FragmentError::Refused {
            name: name.clone(),
            what,
        };
        (name, error)
    };
    Blame::Fragments(faulty.into_iter().map(error).sorted_map())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_fragment_and_the_one_before_are_checked_first() {
        let group = [("a", ""), ("b", ""), ("c", "")];
        assert_eq!(
            suspects(Some("moenet/sessions/c.conf"), &group),
            [2, 1, 0],
            "named"
        );
        assert_eq!(suspects(Some("moenet/sessions/a.conf"), &group), [0, 1, 2]);
        assert_eq!(suspects(Some("moenet/main.conf"), &group), [2, 0, 1]);
        assert_eq!(suspects(None, &group[..1]), [0]);
    }
}
