mod outside;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use super::main_file::BirdProblem;
use super::protocols::Protocol;
use super::tree::LiveTree;
use super::version::Version;

pub use outside::{Outside, Peer};

/// State of BIRD at one moment.
#[derive(Debug, Clone, Default)]
pub struct BirdState {
    /// The version of the running daemon, while it answers.
    pub running: Option<Version>,
    pub installed: Option<Version>,
    /// The reason why it does not answer; absent while it answers, and before the first observation.
    pub down: Option<String>,
    /// Its protocols, sorted by name.
    pub protocols: Arc<[Protocol]>,
    /// The interfaces with a Babel neighbour; `None` where BIRD does not run Babel.
    pub babel: Option<BTreeSet<String>>,
    /// The files in its directory; as last read while they cannot be read.
    pub live: Arc<LiveTree>,
    /// The reason why the files could not be read.
    pub files_error: Option<String>,
    /// Whether the daemon has loaded exactly these files.
    pub loaded: bool,
    /// Whether the files were never read.
    pub unread: bool,
    /// Whether a command disabled any protocol, computed at the first use.
    pub has_disabled: OnceLock<bool>,
    /// The reason why BIRD accepts connections and does not answer.
    pub silent: Option<Silence>,
    /// Sessions that BIRD runs beside the agent's files, computed at the first use.
    pub outside: Outside,
}

/// Reason why nothing is known of a BIRD that may run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// The first observation has not ended.
    #[error("BIRD has not answered yet")]
    NotYet,
    /// BIRD accepts connections and does not answer; the error of the last observation, for messages only.
    #[error("{0}")]
    Failed(String),
}

impl BirdState {
    /// Records that BIRD did not answer, so that its sessions are unknown.
    pub(crate) fn set_silent(&mut self, why: String) {
        self.running = None;
        self.silent = Some(Silence::Failed(why.clone()));
        self.down = Some(why);
    }

    /// Takes over of the last observation the files that could not be read, and what was computed of files or protocols
    /// that are the same.
    pub fn remember(&mut self, last: &Self) {
        if self.files_error.is_some() {
            self.live = Arc::clone(&last.live);
            self.unread = last.unread;
        }
        if Arc::ptr_eq(&self.live, &last.live) {
            self.outside.ours = last.outside.ours.clone();
        }
        if Arc::ptr_eq(&self.protocols, &last.protocols) {
            self.outside.neighbours = last.outside.neighbours.clone();
        }
    }

    /// Returns why it is not known which files BIRD has now: a file that was not seen may be there.
    pub fn files_unknown(&self) -> Option<&str> {
        let unread = self.unread.then_some("BIRD's files have not been read yet");
        self.files_error.as_deref().or(unread)
    }

    /// Returns whether a command disabled any protocol.
    pub fn has_disabled(&self) -> bool {
        let any = || self.protocols.iter().any(Protocol::is_disabled_by_command);
        *self.has_disabled.get_or_init(any)
    }

    /// Returns whether BIRD answers.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Returns why BIRD does not answer.
    pub fn why_down(&self) -> &str {
        let why = self.down.as_deref();
        why.unwrap_or("BIRD does not answer on its control socket")
    }

    /// Returns the reason why nothing can be loaded into BIRD until an operator acts.
    pub fn blocked(&self) -> Option<BirdProblem> {
        const SHARED: [&str; 3] = ["Device", "Kernel", "Direct"];
        // If the main file does not include the agent's tree, the running protocols come from that main file.
        let running = self.protocols.iter();
        let running = running.filter(|protocol| !SHARED.contains(&protocol.proto.as_str()));
        self.live
            .blocked(running.map(|protocol| protocol.name.as_str()))
    }

    /// Returns whether nothing but the operator's main file keeps the agent's files from being loaded.
    pub fn waits_for_include(&self) -> bool {
        self.live.main.is_separate() && self.live.in_use().is_none()
    }

    /// Returns the protocols with these names.
    pub fn protocols(&self, names: &BTreeSet<String>) -> Vec<Protocol> {
        let found = names.iter().filter_map(|name| self.protocol(name));
        found.cloned().collect()
    }

    /// Returns the protocol with this name.
    pub fn protocol(&self, name: &str) -> Option<&Protocol> {
        let by_name = |protocol: &Protocol| protocol.name.as_str().cmp(name);
        let index = self.protocols.binary_search_by(by_name).ok()?;
        self.protocols.get(index)
    }
}
