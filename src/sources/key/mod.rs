//! The router's WireGuard key. A missing file never means a new key: neighbours know the old one.
//!
//! The agent creates a key only on a router that has never had one: no record of its public half in
//! the state directory, no applied object, and no link in the kernel with this agent's mark.

mod copied;

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::intervals::KEY_POLL;
use crate::kernel::keys::{self, KeyError};
use crate::model::{PrivateKey, PublicKey, RouterKey};
use crate::observed::kernel::KernelView;
use crate::store::Store;
use crate::telemetry::{chain, failed};
use crate::util::file::Stamp;
use crate::util::fs;
use crate::util::notices::Notices;
use crate::util::task::blocking;

/// File with the public key, below the state directory.
const FILE: &str = "public-key";
/// A second record of the public key, in directories of earlier builds.
const OLDER: &str = ".public-key";

/// The key in use, and the state of its file.
#[derive(Debug)]
pub(crate) struct KeyFile {
    path: PathBuf,
    store: Arc<Store>,
    state: Mutex<State>,
    /// Signals another key, or another state of its file.
    changed: Notify,
    /// The mode of a file that other users may read.
    exposed: Notices,
}

#[derive(Debug)]
struct State {
    key: RouterKey,
    /// This router has never had a key, so the agent may create one.
    never_had: bool,
    /// The key that neighbours knew at the last start.
    recorded: Option<PublicKey>,
    /// Why the state directory looks like a copy of another host's. Until that is resolved the
    /// record stays that of the other host, so that the next start detects the copy too.
    copied: Option<String>,
    /// The last read of the file failed too: a file that is being replaced may be missing or incomplete for a moment.
    doubtful: bool,
    /// The record is of the key in use.
    is_recorded: bool,
    /// The files of the key and of its record when they were last found as they should be.
    sound: Option<[Stamp; 2]>,
}

impl KeyFile {
    /// Reads the key and its record. Writes nothing. Blocks. `starts`: whether an agent starts, as opposed to a plan.
    pub(crate) fn open(
        path: PathBuf,
        store: Arc<Store>,
        kernel: Option<&KernelView>,
        starts: bool,
    ) -> Self {
        let history = History::of(&store, kernel);
        let key = match keys::load(&path) {
            Ok(Some(private)) => available(private),
            // A plan shows the steps of the first start, with a placeholder for the key that the start creates.
            Ok(None) if history.never_had && !starts => available(PrivateKey::new([1; 32])),
            found => missing(&path, found.err(), history.last, history.never_had),
        };
        let state = State {
            key,
            never_had: history.never_had,
            recorded: recorded(&store),
            copied: None,
            doubtful: false,
            is_recorded: false,
            sound: None,
        };
        let file = Self {
            path,
            store,
            state: Mutex::new(state),
            changed: Notify::new(),
            exposed: Notices::default(),
        };
        file.warn_if_exposed();
        file
    }

    fn warn_if_exposed(&self) {
        let path = self.path.display();
        for mode in self.exposed.news(keys::mode_for_others(&self.path)).new {
            warn!(%path, %mode, "other users may read this WireGuard private key; run `chmod 600 {path}`");
        }
    }

    pub(crate) fn current(&self) -> RouterKey {
        self.state.lock().key.clone()
    }

    /// Why the state directory looks like a copy of another host's.
    pub(crate) fn copied(&self) -> Option<String> {
        self.state.lock().copied.clone()
    }

    /// Finds out whether the state directory looks like a copy of another host's.
    pub(crate) async fn find_copy(&self) {
        let (recorded, ours) = {
            let state = self.state.lock();
            (state.recorded, state.key.public())
        };
        if let Some(ours) = ours.filter(|_| self.store.is_writable()) {
            let copied = copied::look(&self.store, recorded, ours).await;
            self.state.lock().copied = copied;
        }
    }

    /// Waits until the key, or the state of its file, changes. For one caller at a time; cancel-safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Reads the file again and again until the agent stops; a key that returns or changes is used without a restart.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(KEY_POLL) => {}
            }
            let key = Arc::clone(&self);
            if blocking(move || key.look()).await {
                self.changed.notify_one();
            }
        }
    }

    /// Returns whether the first start of the agent will create the key.
    pub(crate) fn is_to_be_created(&self) -> bool {
        self.state.lock().never_had && !fs::exists(&self.path)
    }

    /// Logs a key that changed since the last run, and creates one on a router that has never had a key. Blocks.
    pub(crate) fn begin(&self) {
        self.upgrade();
        if let Err(error) = keys::sweep(&self.path) {
            warn!(path = %self.path.display(), %error, "unfinished private key file not removed");
        }
        self.look();
        let state = self.state.lock();
        if let (RouterKey::Available { public, .. }, Some(old)) = (&state.key, state.recorded)
            && old != *public
        {
            log_replaced(old, *public);
        }
    }

    /// Merges the two records that earlier builds kept.
    fn upgrade(&self) {
        let Ok(Some(older)) = self.store.kept(OLDER) else {
            return;
        };
        let kept = match self.store.kept(FILE) {
            Ok(None) => self.store.keep(FILE, &older).map(drop),
            _ => Ok(()),
        };
        if let Err(error) = kept.and_then(|()| self.store.forget(OLDER)) {
            warn!(file = OLDER, error = %chain(&error), "record of an earlier build not upgraded; trying again at the next start");
        }
    }

    /// Reads the file again if it changed. Returns whether the key in use changed, or the directory is no longer a copy.
    /// Blocks.
    fn look(&self) -> bool {
        let stamps = self.stamps();
        if stamps.is_some() && self.state.lock().sound == stamps {
            return false;
        }
        let is_changed = self.read();
        let mut state = self.state.lock();
        let is_sound = state.is_recorded && !state.doubtful && state.copied.is_none();
        state.sound = stamps.filter(|all| is_sound && all.iter().all(Stamp::is_settled));
        is_changed
    }

    /// Returns the stamps of the key and of its record, if there are both.
    fn stamps(&self) -> Option<[Stamp; 2]> {
        let record = Stamp::at_unlinked(&self.store.dir().join(FILE))?;
        Some([Stamp::at(&self.path)?, record])
    }

    fn read(&self) -> bool {
        let found = keys::load(&self.path);
        self.warn_if_exposed();
        let mut state = self.state.lock();
        let settled = state.copied.is_some() && matches!(self.store.kept(FILE), Ok(None));
        if settled {
            info!(
                file = FILE,
                "record of the other host's key deleted; the state directory is this host's"
            );
            state.copied = None;
        }
        let found = match found {
            Ok(None) if state.never_had && self.store.is_writable() => {
                keys::create(&self.path).map(Some)
            }
            found => found,
        };
        let after = match found {
            Ok(Some(private)) => {
                state.doubtful = false;
                available(private)
            }
            _ if state.key.missing().is_none() && !std::mem::replace(&mut state.doubtful, true) => {
                return settled;
            }
            found => {
                let last = state.key.public();
                missing(&self.path, found.err(), last, state.never_had)
            }
        };
        self.record(&after, &mut state);
        if after == state.key {
            return settled;
        }
        log_change(&state.key, &after);
        state.key = after;
        true
    }

    /// Records the public half. The key is written first, so that a crash in between leaves no record without a key.
    fn record(&self, key: &RouterKey, state: &mut State) {
        state.is_recorded = false;
        let RouterKey::Available { public, .. } = key else {
            return;
        };
        state.never_had = false;
        if state.copied.is_some() {
            return;
        }
        // Without the record, the next start makes it again from the key.
        match self.store.keep_lightly(FILE, &format!("{public}\n")) {
            Ok(_) => state.is_recorded = true,
            Err(error) => failed(error.class(), &FILE, &error, "public key not recorded"),
        }
    }
}

/// Evidence of earlier keys of this router.
struct History {
    never_had: bool,
    last: Option<PublicKey>,
}

impl History {
    fn of(store: &Store, kernel: Option<&KernelView>) -> Self {
        let none = |file| matches!(store.kept(file), Ok(None));
        let links = kernel.map(|view| view.links.values());
        let mut ours = links
            .into_iter()
            .flatten()
            .filter(|link| link.mark.is_ours())
            .filter_map(|link| link.wireguard.as_ref()?.public_key);
        let in_kernel = ours.next();
        let applied_nothing = || store.load().is_ok_and(|found| found.applied.is_empty());
        Self {
            never_had: none(FILE) && none(OLDER) && in_kernel.is_none() && applied_nothing(),
            last: recorded(store).or(in_kernel),
        }
    }
}

fn recorded(store: &Store) -> Option<PublicKey> {
    let of = |file| store.kept(file).ok()??.trim().parse().ok();
    of(FILE).or_else(|| of(OLDER))
}

fn available(private: PrivateKey) -> RouterKey {
    RouterKey::Available {
        public: keys::public_key(&private),
        private,
    }
}

/// Returns why the private key is missing, with the advice for the operator.
fn missing(
    path: &std::path::Path,
    error: Option<KeyError>,
    last: Option<PublicKey>,
    never_had: bool,
) -> RouterKey {
    let file = path.display();
    let denied = error.as_ref().is_some_and(KeyError::is_denied);
    let found = error.map_or_else(|| format!("{file} does not exist"), |error| chain(&error));
    let key = last.map_or_else(String::new, |key| format!(" of public key {key}"));
    let why = match never_had {
        true => format!(
            "the WireGuard private key is missing: {found}; make {file} writable, or put a key there \
             (`wg genkey`)"
        ),
        false => format!(
            "the WireGuard private key{key} is missing: {found}; put the key back in {file}. Until then tunnels keep \
             the key that the kernel has, and new tunnels cannot be configured"
        ),
    };
    RouterKey::Missing { last, why, denied }
}

fn log_change(before: &RouterKey, after: &RouterKey) {
    if let (Some(old), RouterKey::Available { public, .. }) = (before.public(), after)
        && old != *public
    {
        log_replaced(old, *public);
    }
}

fn log_replaced(old: PublicKey, new: PublicKey) {
    warn!(old_public_key = %old, new_public_key = %new, "WireGuard private key changed; every peer needs the new public key");
}
