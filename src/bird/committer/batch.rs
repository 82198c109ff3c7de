//! The requests of one gather time, and the callers that wait for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::observed::bird::{LiveTree, Texts, Tree};
use crate::ports::{BaseError, CommitError, Committed, Fragment, FragmentError};

type FragmentReply = oneshot::Sender<Result<Committed, FragmentError>>;
type BaseReply = oneshot::Sender<Result<Committed, BaseError>>;
type ConvergeReply = oneshot::Sender<Result<Committed, Arc<CommitError>>>;
type LiveReply = oneshot::Sender<Result<Arc<LiveTree>, Arc<CommitError>>>;

/// A request from a handle to the task.
pub(super) enum Request {
    Fragment {
        name: String,
        fragment: Option<Fragment>,
        reply: FragmentReply,
    },
    Base {
        files: Texts,
        reply: BaseReply,
    },
    /// The requests before this one are all that belong together.
    AllRequested,
    Converge {
        reply: ConvergeReply,
    },
    Live {
        reply: LiveReply,
    },
}

/// The requested changes, without their callers.
#[derive(Default)]
pub(super) struct Wishes {
    /// All base files, if they change.
    pub(super) base: Option<Texts>,
    /// The fragments to set, or to remove (`None`).
    pub(super) fragments: BTreeMap<String, Option<Fragment>>,
}

impl Wishes {
    /// Returns the tree with the requested changes and without the stale fragments.
    pub(super) fn applied_to(&self, tree: &Tree, stale: &BTreeSet<String>) -> Tree {
        let mut wanted = tree.clone();
        wanted.fragments.retain(|name, _| !stale.contains(name));
        wanted.base = self.base.clone().unwrap_or(wanted.base);
        for (name, fragment) in &self.fragments {
            match fragment {
                Some(fragment) => {
                    drop(wanted.fragments.insert(name.clone(), fragment.text.clone()))
                }
                None => drop(wanted.fragments.remove(name)),
            }
        }
        wanted
    }
}

/// The result of the requested changes.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) fragments: BTreeMap<String, FragmentError>,
    /// The error that rejected the base.
    pub(super) base: Option<BaseError>,
    /// The result for all other changes.
    pub(super) rest: Result<Committed, Arc<CommitError>>,
}

impl Outcome {
    /// Returns the outcome of a batch of which nothing was committed.
    pub(super) fn failed(error: Arc<CommitError>) -> Self {
        Self {
            fragments: BTreeMap::new(),
            base: None,
            rest: Err(error),
        }
    }
}

/// The callers that wait for a result.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    fragments: Vec<(String, FragmentReply)>,
    bases: Vec<BaseReply>,
    converges: Vec<ConvergeReply>,
}

impl Waiters {
    /// Whether no change was requested.
    pub(super) fn is_empty(&self) -> bool {
        self.fragments.is_empty() && self.bases.is_empty() && self.converges.is_empty()
    }

    /// Sends the outcome to every caller. A caller that has gone away is ignored.
    pub(super) fn answer(self, outcome: &Outcome) {
        for (name, reply) in self.fragments {
            let refused = outcome.fragments.get(&name).cloned().map(Err);
            let _ = reply.send(refused.unwrap_or_else(|| outcome.rest.clone().map_err(Into::into)));
        }
        for reply in self.bases {
            let refused = outcome.base.clone().map(Err);
            let _ = reply.send(refused.unwrap_or_else(|| outcome.rest.clone().map_err(Into::into)));
        }
        for reply in self.converges {
            let _ = reply.send(outcome.rest.clone());
        }
    }
}

/// Adds a request to a batch. One without a change adds no waiter.
pub(super) fn add(request: Request, wishes: &mut Wishes, waiters: &mut Waiters) {
    match request {
        Request::Fragment {
            name,
            fragment,
            reply,
        } => {
            wishes.fragments.insert(name.clone(), fragment);
            waiters.fragments.push((name, reply));
        }
        Request::Base { files, reply } => {
            wishes.base = Some(files);
            waiters.bases.push(reply);
        }
        Request::Converge { reply } => waiters.converges.push(reply),
        Request::AllRequested | Request::Live { .. } => {}
    }
}
