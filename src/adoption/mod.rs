//! Adoption of a running router: a record before the first change, one pass, a watch, and the way back.
//!
//! | file | holds |
//! |---|---|
//! | `record` | the record on disk |
//! | `files` | copies of files, and their restoration |
//! | `undone` | the report of an undo |
//! | `machine` | the identity of this machine |
//! | `watch` | looks at sessions and tunnels meanwhile |
//! | `units` | systemd units that configure the same interfaces |
//! | `undo` | the way back, the same one for a loss, a kill and `adopt --undo` |
//!
//! BIRD is never reloaded: the sessions run on from the operator's files (docs/decisions/0013-adopt.md).

mod error;
mod files;
mod machine;
mod record;
mod undo;
mod undone;
pub(crate) mod units;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;

use crate::adopt::record::{Placed, named};
use crate::adopt::{Adopted, Baseline, LinkSettings, Phase, Record, Written};
use crate::agent::{Parts, Signals, build, fetch_once, run_pass};
use crate::config::Config;
use crate::controller::Missing;
use crate::document::Kind;
use crate::intervals::ADOPT_LOOK;
use crate::kernel::LinuxKernel;
use crate::model::{Address, InterfaceName, ObjectKey, ObjectName};
use crate::observed::kernel::{KernelView, Link};
use crate::ports::Kernel as _;
use crate::store::{Area, Place, Store, StoreError};
use crate::util::fs;
use crate::util::task::blocking;

pub(crate) use error::AdoptionError;
use files::Tree;
pub(crate) use undone::Undone;
use watch::Watch;

/// Why a link is not taken over that no step failed for.
const NOT_MARKED: &str = "the pass did not mark it";

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
    /// Units to disable.
    pub(crate) units: BTreeSet<String>,
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
        let (store, tree, existed) = blocking(move || open(&opened, &bird)).await?;
        let ownership = build::ownership(&store).await;
        let kernel = LinuxKernel::new(build::kernel_options(&config, ownership));
        let view = kernel.observe().await?;
        let links = links(&kernel, &view, &takeover).await?;
        let watch = Watch::begin(&config, kernel, &takeover).await?;
        let begun = Timestamp::now();
        let mut record = Record {
            begun,
            deadline: begun + jiff::SignedDuration::try_from(takeover.watch).unwrap_or_default(),
            phase: Phase::Applying,
            machine: blocking(machine::identity).await,
            documents: names(&takeover, false),
            overrides: names(&takeover, true),
            written: written(&takeover),
            state_existed: existed,
            links,
            left: BTreeMap::new(),
            added: missing(&takeover.added, &view),
            all: named(&view.all),
            units: BTreeSet::new(),
            files: Vec::new(),
            files_left: BTreeMap::new(),
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
        let mut pass = Box::pin(pass(&self.parts, &self.takeover));
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
        done?;
        self.record_left().await?;
        seen
    }

    /// Records the links as the pass left them: an undo restores what still is so.
    async fn record_left(&mut self) -> Result<(), AdoptionError> {
        let kernel = self.watch.kernel();
        let view = kernel.observe().await?;
        for interface in self.record.links.keys() {
            if let Some(link) = view.links.get(interface) {
                let settings = settings(kernel, interface, link).await?;
                self.record.left.insert(interface.clone(), settings);
            }
        }
        self.save().await
    }

    /// Disables the units that configure the same interfaces, and returns the commands.
    ///
    /// # Errors
    /// When a unit cannot be disabled.
    pub(crate) async fn disable_units(&mut self) -> Result<Vec<String>, AdoptionError> {
        if self.takeover.units.is_empty() {
            return Ok(Vec::new());
        }
        self.record.units = self.takeover.units.clone();
        self.save().await?;
        let mut commands = Vec::new();
        for unit in &self.takeover.units {
            commands.push(units::switch(unit, false).await?);
        }
        Ok(commands)
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
            if now >= end && self.watch.is_heard_since(applied) {
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
        let record = self.record.clone();
        self.record.files_left = blocking(move || files::hashes(&record)).await;
        self.save().await
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// What could not be undone; the record stays, and the next start tries again.
    pub(crate) async fn undo(self) -> Result<Undone, AdoptionError> {
        let store = Arc::clone(&self.parts.shared.context.store);
        undo::undo(&self.parts.config, &store).await
    }

    async fn save(&self) -> Result<(), AdoptionError> {
        let directory = self.parts.shared.context.store.dir().to_owned();
        let record = self.record.clone();
        blocking(move || record::write(&directory, &record)).await
    }
}

/// Undoes an adoption that was interrupted, before anything else uses the state directory. Returns whether there was one.
///
/// # Errors
/// When it cannot be undone; nothing may start then.
pub(crate) async fn undo_interrupted(config: &Config) -> Result<bool, AdoptionError> {
    let directory = config.state.directory.clone();
    let record = blocking(move || {
        // Only the operator undoes a kept adoption, so its machine does not matter here.
        let record = record::read(&directory)?.filter(|it| it.phase == Phase::Applying);
        let checked = record
            .as_ref()
            .map(|it| record::check_machine(&directory, it));
        checked.transpose().map(|_| record)
    });
    let Some(record) = record.await? else {
        return Ok(false);
    };
    warn!(begun = %record.begun, deadline = %record.deadline, "undoing an interrupted adoption");
    let directory = config.state.directory.clone();
    let store = Arc::new(blocking(move || Store::open(&directory)).await?);
    // Under the lock: the adoption may have been kept meanwhile.
    let directory = store.dir().to_owned();
    let record = blocking(move || record::read(&directory)).await?;
    if record.is_none_or(|record| record.phase == Phase::Kept) {
        return Ok(false);
    }
    let undone = undo::undo(config, &store).await?;
    for kept in undone.kept {
        warn!(kept, "left alone");
    }
    Ok(true)
}

/// Returns the changes of the undo of the recorded adoption that interrupt a tunnel or reset a session.
///
/// # Errors
/// When the record, the state directory or the kernel cannot be read.
pub(crate) async fn interruptions_of_undo(config: &Config) -> Result<Vec<String>, AdoptionError> {
    let directory = config.state.directory.clone();
    let store = blocking(move || Store::open_read_only(&directory)).await?;
    undo::interruptions(config, &Arc::new(store)).await
}

/// Undoes the recorded adoption.
///
/// # Errors
/// When none is recorded, another process uses the state directory, or something cannot be undone.
pub(crate) async fn undo_recorded(config: &Config) -> Result<Undone, AdoptionError> {
    let directory = config.state.directory.clone();
    if recorded(config).await?.is_none() {
        return Err(AdoptionError::NoRecord { path: directory });
    }
    let store = blocking(move || Store::open(&directory)).await?;
    undo::undo(config, &Arc::new(store)).await
}

/// Returns the record of an adoption, if there is one.
///
/// # Errors
/// When it cannot be read, or is another machine's.
pub(crate) async fn recorded(config: &Config) -> Result<Option<Record>, AdoptionError> {
    let directory = config.state.directory.clone();
    blocking(move || {
        let record = record::read(&directory)?;
        let checked = record
            .as_ref()
            .map(|it| record::check_machine(&directory, it));
        checked.transpose().map(|_| record)
    })
    .await
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

/// Writes the documents, runs one pass, and checks that it took every link over.
async fn pass(parts: &Arc<Parts>, takeover: &Takeover) -> Result<(), AdoptionError> {
    fetch_once(parts).await.map_err(AdoptionError::Fetch)?;
    let context = &parts.shared.context;
    let (store, documents) = (Arc::clone(&context.store), takeover.documents.clone());
    let written = blocking(move || {
        write_documents(&store, &documents)?;
        specifications(&store)
    })
    .await?;
    if written != takeover.planned {
        return Err(AdoptionError::Changed);
    }
    run_pass(parts).await.map_err(Box::new)?;
    verify(parts, takeover).await
}

/// Checks by reading back that the pass took every link over, and that none of its steps failed: a later start of the agent
/// would try the step again, outside the watch.
async fn verify(parts: &Arc<Parts>, takeover: &Takeover) -> Result<(), AdoptionError> {
    let context = &parts.shared.context;
    let view = context.kernel.observe().await?;
    let statuses: BTreeMap<_, _> = context.statuses.all().into_iter().collect();
    for document in &takeover.documents {
        let (Some(interface), name) = (document.interface(), document.name()) else {
            continue;
        };
        let status = statuses.get(&ObjectKey::Named(Kind::BgpSession, name));
        let link = view.links.get(interface);
        let is_marked = link.is_some_and(|link| link.mark.is_ours());
        let why = status.and_then(|status| status.last_error.clone());
        if let Some(why) = why.or_else(|| (!is_marked).then(|| NOT_MARKED.to_owned())) {
            return Err(AdoptionError::NotTaken {
                interface: interface.clone(),
                why,
            });
        }
    }
    // The operator's main file does not load the agent's files yet.
    let bird = context.observer.bird(Instant::now()).await;
    let blocked = bird.blocked().map(|problem| problem.to_string());
    let failed = statuses.into_iter().find_map(|(object, status)| {
        let why = status.last_error?;
        (Some(&why) != blocked.as_ref()).then_some((object, why))
    });
    match failed {
        Some((object, why)) => Err(AdoptionError::Step {
            object: object.to_string(),
            why,
        }),
        None => Ok(()),
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
    Ok(specifications.collect())
}

/// Returns the sessions that get a document, or an override.
fn names(takeover: &Takeover, overridden: bool) -> BTreeSet<ObjectName> {
    let documents = takeover.documents.iter();
    let meant = documents.filter(|it| it.over.is_some() == overridden);
    meant.map(Adopted::name).collect()
}

/// Opens the state directory, after everything that exists was listed.
fn open(config: &Config, bird: &Path) -> Result<(Arc<Store>, Tree, bool), AdoptionError> {
    let state = &config.state.directory;
    let existed = fs::exists(state);
    let mut tree = Tree::default();
    let real = match existed {
        true => fs::canonicalize(state).map_err(AdoptionError::file("read", state))?,
        false => state.clone(),
    };
    if record::read(&real)?.is_some() {
        return Err(AdoptionError::Recorded { path: real });
    }
    tree.list(&real, &[real.join(".git"), record::folder(&real)])?;
    for root in bird_roots(bird) {
        tree.list(&root, &[])?;
    }
    let store = build::open(state, config.state.schemas.clone())?;
    Ok((Arc::new(store), tree, existed))
}

/// The files and folders of BIRD that the agent may change.
fn bird_roots(directory: &Path) -> [PathBuf; 2] {
    ["bird.conf", "moenet"].map(|name| directory.join(name))
}

/// Reads the links that are taken over.
async fn links(
    kernel: &LinuxKernel,
    view: &KernelView,
    takeover: &Takeover,
) -> Result<BTreeMap<InterfaceName, LinkSettings>, AdoptionError> {
    // An undo removes the links with the mark that were not there: none may be there before.
    if let Some((interface, _)) = view.links.iter().find(|(_, link)| link.mark.is_ours()) {
        return Err(AdoptionError::Marked {
            interface: interface.clone(),
        });
    }
    let mut links = BTreeMap::new();
    for interface in takeover.documents.iter().filter_map(Adopted::interface) {
        let link = view.links.get(interface);
        let link = link.ok_or_else(|| AdoptionError::Gone {
            interface: interface.clone(),
        })?;
        let settings = settings(kernel, interface, link).await?;
        links.insert(interface.clone(), settings);
    }
    Ok(links)
}

/// Returns the settings of a link with its sysctls and the routes through it.
async fn settings(
    kernel: &LinuxKernel,
    interface: &InterfaceName,
    link: &Link,
) -> Result<LinkSettings, AdoptionError> {
    let sysctls = kernel.sysctls(interface).await;
    let routes = kernel.operators_routes(interface).await?;
    Ok(LinkSettings::of(link, &sysctls, routes))
}

/// Returns the addresses that the plan adds and that are not there by now.
fn missing(added: &BTreeSet<Placed>, view: &KernelView) -> BTreeSet<Placed> {
    let is_there = |placed: &Placed| {
        let link = view.links.get(&placed.interface);
        link.is_some_and(|link| link.addresses.contains(&Address::from(&placed.address)))
    };
    let missing = added.iter().filter(|placed| !is_there(placed));
    missing.cloned().collect()
}

/// Returns the content of the documents and overrides that the adoption writes.
fn written(takeover: &Takeover) -> Written {
    let mut written = Written::default();
    for adopted in &takeover.documents {
        match &adopted.over {
            Some(over) => {
                let set = over.spec.set.clone();
                written.overrides.insert(adopted.name(), set);
            }
            None => {
                let place = Place::new(Area::Documents, Kind::BgpSession, &adopted.name());
                let spec = takeover.planned.get(&place.to_string());
                let spec = spec.cloned().unwrap_or_default();
                written.documents.insert(adopted.name(), spec);
            }
        }
    }
    written
}
