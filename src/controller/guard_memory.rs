//! Keeps the guard's memory on disk and from one desired state to the next.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::desired::guard::{Input, Ledger};
use crate::document::{DocumentError, parse_list, to_yaml};
use crate::store::{HELD, Store, StoreError};
use crate::telemetry::chain;
use crate::util::fs;
use crate::util::notices::Notices;

/// The guard's ledger in `held.yaml`, and the guard's clock.
#[derive(Debug)]
pub struct GuardMemory {
    started: (Timestamp, Instant),
    state: Mutex<State>,
    unwritten: Notices,
}

#[derive(Debug, Clone)]
struct State {
    ledger: Arc<Ledger>,
    writable: bool,
}

impl GuardMemory {
    /// Reads `held.yaml`. `wall` is the wall clock's time: from here on the guard's clock only counts up.
    pub fn open(store: &Store, wall: Timestamp) -> Self {
        let ledger = match read(store) {
            Ok(ledger) => ledger.resumed(wall),
            Err(error) => {
                warn!(
                    file = HELD,
                    error = chain(&error),
                    "the guard's record cannot be read; removals wait for approval until guard.window is over"
                );
                Ledger::lost(wall)
            }
        };
        Self {
            started: (wall, Instant::now()),
            state: Mutex::new(State {
                ledger: Arc::new(ledger),
                writable: true,
            }),
            unwritten: Notices::default(),
        }
    }

    /// Returns the guard's time: the wall clock's time at the agent's start, plus the time since then.
    pub fn now(&self) -> Timestamp {
        let (wall, started) = self.started;
        SignedDuration::try_from(started.elapsed())
            .ok()
            .and_then(|elapsed| wall.checked_add(elapsed).ok())
            .unwrap_or(wall)
    }

    /// Makes the guard's next decision from its memory.
    pub fn recall<T>(&self, decide: impl FnOnce(&Input<'_>) -> T) -> T {
        let State { ledger, writable } = self.state.lock().clone();
        decide(&Input {
            ledger: &ledger,
            now: self.now(),
            writable,
        })
    }

    /// Returns whether the next decision starts from this ledger, which is on disk.
    pub fn remembers(&self, ledger: &Ledger) -> bool {
        let state = self.state.lock();
        state.writable && *state.ledger == *ledger
    }

    /// Writes the ledger of a decision, before the decision takes effect. Returns whether the decision is valid: if
    /// the ledger cannot be written, the guard must decide again, and holds the removals it would forget.
    pub fn remember(&self, store: &Store, ledger: &Ledger) -> bool {
        let State {
            ledger: before,
            writable,
        } = self.state.lock().clone();
        // A tool that cleans the directory also removes this file. The first record is written before anything is applied:
        // a run that ends after its first pass must leave one, or the next start takes it for lost.
        let is_there = || fs::symlink_metadata(store.dir().join(HELD)).is_ok();
        if *before == *ledger && writable && is_there() {
            return true;
        }
        let written = write(store, ledger);
        let is_valid = written.is_ok() || !writable;
        {
            let mut state = self.state.lock();
            state.writable = written.is_ok();
            if state.writable {
                state.ledger = Arc::new(ledger.clone());
            }
        }
        self.log(written);
        is_valid
    }

    /// Logs that the ledger cannot be written, and that it can again, once each.
    fn log(&self, written: Result<(), LedgerError>) {
        match (self.unwritten.edge(written.is_err()), written) {
            (Some(true), Err(error)) => warn!(
                file = HELD,
                error = chain(&error),
                "the guard's record cannot be written; removals wait until it can"
            ),
            (Some(false), _) => info!(file = HELD, "the guard's record can be written again"),
            _ => {}
        }
    }
}

const HEAD: &str = "# Written by moenet-agent: changes that wait for `moenet-agent approve`, and the removals and additions\n\
                    # that guard.window counts. Do not edit; `moenet-agent approve --list` shows it.\n";

/// Reads the ledger from disk. A missing or empty file is an empty ledger only where nothing was ever applied:
/// `git clean` removes the file, and a power cut leaves an empty file.
fn read(store: &Store) -> Result<Ledger, LedgerError> {
    let text = store.kept(HELD)?;
    match text.filter(|text| !text.trim().is_empty()) {
        Some(text) => Ok(parse_list(&text)?),
        None if !store.has_applied() => Ok(Ledger::default()),
        None => Err(LedgerError::Missing),
    }
}

/// The reason why the ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
enum LedgerError {
    #[error("the file is missing or empty")]
    Missing,
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn write(store: &Store, ledger: &Ledger) -> Result<(), LedgerError> {
    let text = format!("{HEAD}{}", to_yaml(ledger)?);
    let added = ledger.added.clone();
    let only_added = Ledger {
        added,
        ..Ledger::default()
    };
    let written = match *ledger == only_added {
        true => store.keep_lightly(HELD, &text),
        false => store.keep(HELD, &text),
    };
    Ok(written.map(drop)?)
}
