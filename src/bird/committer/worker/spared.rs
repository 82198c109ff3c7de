use std::collections::{BTreeMap, BTreeSet};

use crate::bird::committer::blame::Blame;
use crate::bird::committer::written::Written;
use crate::observed::bird::tree::fragment_path;
use crate::ports::CommitError;

/// The files that stay although a running BIRD would reject them now. A file that BIRD has loaded, maybe with an
/// established session, must not be removed because another parser is installed. A BIRD that does not run cannot start
/// with it. A foreign file is removed, unless it replaced one of the agent's that is not written again now.
pub(super) struct Spared<'a> {
    /// Whether BIRD runs all of the agent's files on disk, so that none was replaced.
    pub(super) is_whole: bool,
    pub(super) foreign: &'a BTreeMap<String, String>,
    /// The fragments to write in place of such a file.
    pub(super) displaced: &'a BTreeSet<String>,
    pub(super) written: &'a Written,
}

impl Spared<'_> {
    pub(super) fn spare(&self, blame: Blame) -> Blame {
        match blame {
            Blame::Stale(name, what) if !self.goes(&name) => CommitError::Tree(what).into(),
            blame => blame,
        }
    }

    fn goes(&self, name: &str) -> bool {
        let path = fragment_path(name);
        let is_written = self.displaced.contains(name) || self.written.knows(&path);
        self.foreign.contains_key(&path) && (self.is_whole || is_written)
    }
}
