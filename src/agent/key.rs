//! The router's WireGuard key. A missing file never means a new key: neighbours know the old one.
//!
//! A key is created only on a router that has never had one: no record of its public half in the state
//! directory, no applied object, and no link in the kernel that carries our mark.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Parts;
use crate::kernel::keys::{self, KeyError};
use crate::model::{PrivateKey, PublicKey, RouterKey};
use crate::plan::kernel_view::KernelView;
use crate::store::Store;
use crate::telemetry::chain;

/// The record of the public key, below the state directory.
const FILE: &str = "public-key";
/// How often the file is read.
const LOOK: Duration = Duration::from_secs(1);

/// The key in use, and what is known of its file.
#[derive(Debug)]
pub(crate) struct KeyFile {
    path: PathBuf,
    store: Arc<Store>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    key: RouterKey,
    /// Whether this router has never had a key, so that one may be created.
    never_had: bool,
    /// The key that neighbours knew at the last start.
    recorded: Option<PublicKey>,
    /// Whether the file could not be read at the last look either: a file that is being replaced may be
    /// missing or half written for a moment.
    doubtful: bool,
}

impl KeyFile {
    /// Reads the key and its record. Writes nothing. Blocks. `starts`: whether an agent starts, and no plan is made.
    pub(super) fn open(
        path: PathBuf,
        store: Arc<Store>,
        kernel: Option<&KernelView>,
        starts: bool,
    ) -> Self {
        let history = History::of(&store, kernel);
        let key = match keys::load(&path) {
            Ok(Some(private)) => available(private),
            // A plan shows the steps of the first start, with a placeholder for the key that it creates.
            Ok(None) if history.never_had && !starts => available(PrivateKey::new([1; 32])),
            found => RouterKey::Missing {
                why: why(&path, found.err(), history.last, history.never_had),
                last: history.last,
            },
        };
        let state = State {
            key,
            never_had: history.never_had,
            recorded: history.last,
            doubtful: false,
        };
        Self {
            path,
            store,
            state: Mutex::new(state),
        }
    }

    /// The key in use.
    pub(crate) fn current(&self) -> RouterKey {
        self.state().key.clone()
    }

    /// Whether the first start of the agent will create the key.
    pub(crate) fn is_to_be_created(&self) -> bool {
        self.state().never_had && !self.path.exists()
    }

    /// Logs a key that is missing or changed since the last run, and creates one on a router that has never
    /// had one. Blocks.
    pub(super) fn begin(&self) {
        self.look();
        let state = self.state();
        match (&state.key, state.recorded) {
            (RouterKey::Missing { last, why }, _) => log_missing(*last, why),
            (RouterKey::Available { public, .. }, Some(old)) if old != *public => {
                log_replaced(old, *public);
            }
            _ => {}
        }
    }

    /// Reads the file again. Returns whether the key in use is another one. Blocks.
    fn look(&self) -> bool {
        let found = keys::load(&self.path);
        let mut state = self.state();
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
                return false;
            }
            found => {
                let last = state.key.public();
                let why = why(&self.path, found.err(), last, state.never_had);
                RouterKey::Missing { last, why }
            }
        };
        self.record(&after, &mut state);
        if after == state.key {
            return false;
        }
        log_change(&state.key, &after);
        state.key = after;
        true
    }

    /// Records the public half: the key comes first, so that a crash in between leaves no record without a key.
    fn record(&self, key: &RouterKey, state: &mut State) {
        let RouterKey::Available { public, .. } = key else {
            return;
        };
        state.never_had = false;
        if let Err(error) = self.store.keep(FILE, &format!("{public}\n"))
            && !error.is_transient()
        {
            warn!(file = FILE, error = %chain(&error), "the record of our public key was not written");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is never left half changed, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of earlier keys of this router.
struct History {
    never_had: bool,
    last: Option<PublicKey>,
}

impl History {
    fn of(store: &Store, kernel: Option<&KernelView>) -> Self {
        let record = store.kept(FILE);
        let recorded = || record.as_ref().ok()?.as_ref()?.trim().parse().ok();
        let links = kernel.map(|view| view.links.values());
        let mut ours = links
            .into_iter()
            .flatten()
            .filter(|link| link.mark.is_ours())
            .filter_map(|link| link.wireguard.as_ref()?.public_key);
        let in_kernel = ours.next();
        let applied_nothing = || store.load().is_ok_and(|found| found.applied.is_empty());
        Self {
            never_had: matches!(record, Ok(None)) && in_kernel.is_none() && applied_nothing(),
            last: recorded().or(in_kernel),
        }
    }
}

fn available(private: PrivateKey) -> RouterKey {
    RouterKey::Available {
        public: keys::public_key(&private),
        private,
    }
}

/// Why the private key is missing, and what to do.
fn why(
    path: &std::path::Path,
    error: Option<KeyError>,
    last: Option<PublicKey>,
    never_had: bool,
) -> String {
    let file = path.display();
    let found = error.map_or_else(|| format!("{file} does not exist"), |error| chain(&error));
    let key = last.map_or_else(String::new, |key| format!(" of public key {key}"));
    if never_had {
        return format!(
            "the WireGuard private key is missing: {found}; make {file} writable, or put a key there \
             (`wg genkey`)"
        );
    }
    format!(
        "the WireGuard private key{key} is missing: {found}; put the key back in {file}. Until then tunnels keep \
         the key that the kernel has, and new tunnels cannot be configured"
    )
}

fn log_missing(last: Option<PublicKey>, why: &str) {
    let public_key = last.map(|key| key.to_string());
    error!(public_key, why, "WireGuard private key missing");
}

fn log_change(before: &RouterKey, after: &RouterKey) {
    match (before, after) {
        (RouterKey::Available { .. }, RouterKey::Missing { last, why }) => log_missing(*last, why),
        (_, RouterKey::Missing { .. }) => {}
        (_, RouterKey::Available { public, .. }) => match before.public() {
            Some(old) if old != *public => log_replaced(old, *public),
            _ => info!(public_key = %public, "WireGuard private key available"),
        },
    }
}

fn log_replaced(old: PublicKey, new: PublicKey) {
    warn!(%old, %new, "WireGuard private key changed; every peer needs the new public key");
}

/// Reads the file every second; a key that returns or changes is used without a restart.
pub(super) async fn watch(parts: Arc<Parts>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let key = Arc::clone(&parts.maker.key);
        if super::reload::blocking(move || key.look()).await {
            parts.context.reports.reload();
        }
    }
}
