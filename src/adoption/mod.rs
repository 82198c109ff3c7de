//! Adoption of a running router: a record before the first change, one pass, a watch, and the way back.
//!
//! | file | holds |
//! |---|---|
//! | `before` | what the router is before the first change |
//! | `record` | the record on disk |
//! | `files`, `restore` | copies of files, and their restoration |
//! | `machine` | the identity of this machine |
//! | `pass` | the pass that takes the links over, and the check of its result |
//! | `watch` | looks at sessions and tunnels meanwhile |
//! | `units` | systemd units that configure the same interfaces |
//! | `recorded` | the undo of an adoption that another process began |
//! | `undo`, `state` | the way back, the same one for a loss, a kill and `adopt --undo`; its part for files |
//! | `undone` | the report of an undo |
//!
//! BIRD is never reloaded: the sessions run on from the operator's files (docs/decisions/0013-adopt.md).

mod before;
mod error;
mod files;
mod machine;
mod pass;
mod record;
mod recorded;
mod restore;
mod state;
mod undo;
mod undone;
pub(crate) mod units;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use crate::adopt::record::Placed;
use crate::adopt::{Adopted, Baseline, Phase, Record};
use crate::agent::{Parts, Signals, build};
use crate::config::Config;
use crate::controller::Missing;
use crate::document::Kind;
use crate::intervals::ADOPT_LOOK;
use crate::kernel::LinuxKernel;
use crate::ports::Kernel as _;
use crate::store::{Store, StoreError};
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;

pub(crate) use error::AdoptionError;
pub(crate) use recorded::{interruptions_of_undo, recorded, undo_interrupted, undo_recorded};
use undo::Undo;
pub(crate) use undone::Undone;
use watch::Watch;

/// The specifications of documents, by their places.
pub(crate) type Documents = BTreeMap<String, Value>;

/// What is taken over.
#[derive(Debug, Clone)]
pub(crate) struct Takeover {
    pub(crate) documents: Vec<Adopted>,
    /// All documents of the plan, those of the Control Plane too.
    pub(crate) planned: Documents,
    /// Addresses that the plan adds.
    pub(crate) added: BTreeSet<Placed>,
    /// The names of the sysctls of all links together that the plan sets.
    pub(crate) sysctls: BTreeSet<String>,
    /// Enabled units that configure the same interfaces.
    pub(crate) enabled: BTreeSet<String>,
    /// Whether to disable them at the end.
    pub(crate) disables: bool,
    /// How long the sessions are watched.
    pub(crate) watch: Duration,
    /// The share of a session's prefixes that may be lost, in percent.
    pub(crate) max_loss: u8,
}

/// An adoption that has begun: it is recorded, and nothing is changed yet.
pub(crate) struct Adoption {
    parts: Arc<Parts>,
    record: Record,
    takeover: Takeover,
    watch: Watch,
    signals: Signals,
    /// The end of the pass.
    applied: Option<Instant>,
}

impl Adoption {
    /// Records everything that the adoption may change.
    ///
    /// # Errors
    /// When something cannot be recorded; then nothing was changed.
    pub(crate) async fn begin(config: Config, takeover: Takeover) -> Result<Self, AdoptionError> {
        let signals = Signals::listen().map_err(AdoptionError::Signals)?;
        build::check(&config).map_err(Box::new)?;
        Missing::look(&config).await.map_err(Box::new)?;
        let (opened, bird) = (config.clone(), config.bird.directory.clone());
        let (store, tree, existed) = blocking(move || before::open(&opened, &bird)).await?;
        let ownership = build::ownership(&store).await;
        let kernel = LinuxKernel::new(build::kernel_options(&config, ownership));
        let view = kernel.observe().await?;
        let links = before::links(&kernel, &view, &takeover).await?;
        let watch = Watch::begin(&config, kernel, &takeover).await?;
        let begun = Timestamp::now();
        let mut record = Record {
            begun,
            deadline: begun + jiff::SignedDuration::try_from(takeover.watch).unwrap_or_default(),
            phase: Phase::Applying,
            machine: blocking(machine::identity).await,
            documents: before::names(&takeover, false),
            overrides: before::names(&takeover, true),
            written: before::written(&takeover),
            state_existed: existed,
            links,
            left: BTreeMap::new(),
            added: before::missing(&takeover.added, &view),
            all: before::all(&takeover, &view),
            all_left: BTreeMap::new(),
            enabled: takeover.enabled.clone(),
            units: BTreeSet::new(),
            files: Vec::new(),
            files_left: BTreeMap::new(),
            made: BTreeMap::new(),
            folders: tree.folders.clone(),
        };
        let directory = store.dir().to_owned();
        let record = blocking(move || {
            record::create_folder(&directory)?;
            record.files = tree.copy(&directory)?;
            record::write(&directory, &record).map(|()| record)
        })
        .await?;
        let directory = store.dir().to_owned();
        let parts = match Parts::with_store(config, store).await {
            Ok(parts) => Arc::new(parts),
            // Nothing was changed, so nothing is to be undone.
            Err(error) => {
                blocking(move || record::remove(&directory)).await?;
                return Err(Box::new(error).into());
            }
        };
        parts.shared.context.observer.wait_for_bird();
        Ok(Self {
            parts,
            record,
            takeover,
            watch,
            signals,
            applied: None,
        })
    }

    /// Returns the sessions and tunnels before the first change.
    pub(crate) fn baseline(&self) -> &Baseline {
        self.watch.baseline()
    }

    /// Writes the documents, runs one pass, and checks that it took every link over. Watches meanwhile; the pass ends before
    /// the loss is returned, so that nothing changes during the undo.
    ///
    /// # Errors
    /// When a document cannot be written or a link was not taken over, and as [`Self::watch`].
    pub(crate) async fn apply(&mut self) -> Result<(), AdoptionError> {
        let mut pass = Box::pin(pass::run(&self.parts, &mut self.record, &self.takeover));
        let mut seen = Ok(());
        let done = loop {
            let look = async {
                look(&mut self.watch, &mut self.signals).await?;
                pause(&mut self.signals, Instant::now() + ADOPT_LOOK).await
            };
            tokio::select! {
                done = &mut pass => break done,
                looked = look, if seen.is_ok() => seen = looked,
            }
        };
        drop(pass);
        self.applied = Some(Instant::now());
        // Also after a pass that failed: an undo removes what it wrote.
        let noted = pass::note_made(&self.parts.shared.context.store, &mut self.record).await;
        done.and(noted)?;
        self.record_left().await?;
        seen
    }

    /// Records links, sysctls and files as the pass left them: an undo restores what still is so.
    async fn record_left(&mut self) -> Result<(), AdoptionError> {
        let kernel = self.watch.kernel();
        let view = kernel.observe().await?;
        for interface in self.record.links.keys() {
            if let Some(link) = view.links.get(interface) {
                let settings = before::settings(kernel, interface, link).await?;
                self.record.left.insert(interface.clone(), settings);
            }
        }
        self.record.all_left = before::all(&self.takeover, &view);
        let (record, state) = (self.record.clone(), self.state_directory());
        self.record.files_left = blocking(move || files::hashes(&state, &record)).await;
        self.save().await
    }

    /// Watches until the time is over and every tunnel has passed something since the pass.
    ///
    /// # Errors
    /// The loss for which the adoption is to be undone, a signal, or a BIRD or kernel that cannot be read.
    pub(crate) async fn watch(&mut self) -> Result<(), AdoptionError> {
        let begun = Instant::now();
        let (applied, end) = (self.applied.unwrap_or(begun), begun + self.takeover.watch);
        loop {
            look(&mut self.watch, &mut self.signals).await?;
            let now = Instant::now();
            if now >= end && !self.watch.is_in_doubt() && self.watch.is_heard_since(applied) {
                return Ok(());
            }
            let next = now + ADOPT_LOOK;
            let next = if now < end { next.min(end) } else { next };
            pause(&mut self.signals, next).await?;
        }
    }

    /// Records that the adoption is kept, so that no start undoes it.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub(crate) async fn keep(&mut self) -> Result<(), AdoptionError> {
        self.record.phase = Phase::Kept;
        self.save().await
    }

    /// Disables the units of a kept adoption that configure the same interfaces, and returns the command; `None`: there are
    /// none.
    ///
    /// # Errors
    /// When they cannot be disabled.
    pub(crate) async fn disable_units(&mut self) -> Result<Option<String>, AdoptionError> {
        if !self.takeover.disables || self.takeover.enabled.is_empty() {
            return Ok(None);
        }
        // Before the command: an undo enables what a kill leaves disabled.
        self.record.units = self.takeover.enabled.clone();
        self.save().await?;
        units::switch(&self.record.units, false).await.map(Some)
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// What could not be undone; the record stays, and the next start tries again.
    pub(crate) async fn undo(self) -> Result<Undone, AdoptionError> {
        let store = &self.parts.shared.context.store;
        let undo = Undo::open(&self.parts.config, store).await?;
        undo.run(&self.parts.config).await
    }

    fn state_directory(&self) -> PathBuf {
        self.parts.shared.context.store.dir().to_owned()
    }

    async fn save(&self) -> Result<(), AdoptionError> {
        record::save(&self.parts.shared.context.store, &self.record).await
    }
}

/// Writes adopted documents with their secrets.
///
/// # Errors
/// When one cannot be written.
pub(crate) fn write_documents(store: &Store, adopted: &[Adopted]) -> Result<(), StoreError> {
    for adopted in adopted {
        if let Some(over) = &adopted.over {
            store.write_override(Kind::BgpSession, over)?;
            continue;
        }
        let name = adopted.document.spec.tunnel.preshared_key_file.as_ref();
        if let (Some(name), Some(key)) = (name, &adopted.preshared_key) {
            store.write_secret(name, &key.to_base64())?;
        }
        store.write_document(&adopted.document)?;
    }
    Ok(())
}

/// Looks once, unless a signal ends it.
async fn look(watch: &mut Watch, signals: &mut Signals) -> Result<(), AdoptionError> {
    tokio::select! {
        looked = watch.look() => looked,
        () = signals.ended() => Err(AdoptionError::Interrupted),
    }
}

/// Waits until a time, unless a signal ends it.
async fn pause(signals: &mut Signals, until: Instant) -> Result<(), AdoptionError> {
    tokio::select! {
        () = tokio::time::sleep_until(until) => Ok(()),
        () = signals.ended() => Err(AdoptionError::Interrupted),
    }
}

/// Returns every document of a state directory; an invalid one counts as null.
///
/// # Errors
/// The directory cannot be listed.
pub(crate) fn specifications(store: &Store) -> Result<Documents, StoreError> {
    let snapshot = store.load()?;
    let documents = snapshot.documents();
    let specifications = documents.map(|(place, slot)| {
        let spec = slot.map_or(Value::Null, |document| document.spec());
        (place.to_string(), spec)
    });
    Ok(specifications.sorted_map())
}
