//! Gives a change of the network to a few routers first, and takes it back if they lose something; and permits drains
//! within the network's budgets (docs/contract/fleet.md#rollouts).

mod budget;
mod measure;
mod record;
mod step;
mod view;
mod waves;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use jiff::Timestamp;
use parking_lot::Mutex;

pub(super) use self::record::FleetRecord;
pub(crate) use self::view::RolloutView;

use self::measure::Measure;
use self::record::{Texts, digest, texts};
use self::step::{Event, Facts, end, step};
use super::audit::AuditEntry;
use super::commit::FleetCommit;
use super::network::{Budgets, FleetFiles, Network};
use super::store::{POSTS_AT_ONCE, STORE_UNAVAILABLE, Store};
use crate::http::{ApiError, Client};
use crate::intervals::FLEET_ROLLOUT_POLL;
use crate::model::ObjectName;
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;
use crate::util::text::bounded;

/// The code of a refused drain.
const DRAIN_REFUSED: &str = "DRAIN_REFUSED";

/// How often a drain is tried while other instances write the record.
const DRAIN_TRIES: usize = 5;

/// The changes of a fleet that are on their way.
pub(super) struct Rollouts {
    store: Arc<dyn Store>,
    /// Held while one decision is made.
    deciding: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    looked: Option<Instant>,
    /// Whether the record was read.
    is_read: bool,
    record: FleetRecord,
    /// What routers without the change get, while there is one.
    before: Option<Description>,
}

/// A valid description of the network.
#[derive(Clone)]
pub(super) struct Description {
    pub(super) files: Arc<FleetFiles>,
    pub(super) network: Arc<Network>,
}

impl Description {
    fn of(texts: &Texts) -> Result<Self, ApiError> {
        let texts = texts
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()));
        let files: FleetFiles = texts.collect();
        let network = Network::read(&files).map_err(|found| {
            let why = found.first().map(ToString::to_string).unwrap_or_default();
            ApiError::internal(format!(
                "the description from before the change: {why}; remove `rollout` from network.yaml to end the change"
            ))
        })?;
        Ok(Self {
            files: Arc::new(files),
            network: Arc::new(network),
        })
    }
}

impl Rollouts {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            deciding: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// Returns the description that a router gets, if it is not the newest one.
    pub(super) fn before(&self, router: &ObjectName) -> Option<Description> {
        let state = self.state.lock();
        let before = state.before.as_ref()?;
        (!state.record.has_change(router)).then(|| before.clone())
    }

    /// Returns whether any router may get an earlier description.
    pub(super) fn has_before(&self) -> bool {
        self.state.lock().before.is_some()
    }

    /// Returns whether the record was read a moment ago.
    pub(super) fn is_recent(&self) -> bool {
        let looked = self.state.lock().looked;
        looked.is_some_and(|at| at.elapsed() < FLEET_ROLLOUT_POLL)
    }

    /// Makes the next step of a change. `seen` are the newest files, which may be invalid. Returns whether `newest`, the
    /// last valid description, is decided on, so that it may be served; if not, there are newer files, or another
    /// instance decided at this moment.
    ///
    /// # Errors
    /// The record cannot be read or written. Nothing changes.
    pub(super) async fn look(
        &self,
        newest: &Description,
        seen: &Arc<FleetFiles>,
    ) -> Result<bool, ApiError> {
        let _deciding = self.deciding.lock().await;
        let known = {
            let mut state = self.state.lock();
            state.looked = Some(Instant::now());
            if newest.network.rollout().is_none() && state.is_read && state.before.is_none() {
                // Only drains use the record.
                return Ok(true);
            }
            let accepted = state.record.accepted.clone();
            accepted.zip(state.before.clone())
        };
        let record = self.store.record().await?;
        // Another instance may have decided on files that this one has not read yet.
        match self.store.network().await {
            Ok(Some(files)) if Arc::ptr_eq(&files, seen) => {}
            // Files that cannot be read now do not stop a change that is on its way.
            Err(_) if self.state.lock().is_read => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(false),
        }
        let commit = self.store.commit();
        let observed = observed(&record, newest);
        let measures = self.measures(&newest.network, &observed).await;
        let decided = decide(record.clone(), newest.clone(), known, measures).await?;
        if decided.record != record {
            let entry = decided.event.as_ref().map(|event| entry(event, commit));
            if !self.store.set_record(&decided.record, entry).await? {
                return Ok(false);
            }
        }
        if let Some(event) = &decided.event {
            log(event);
        }
        let mut state = self.state.lock();
        state.before = decided.before;
        state.record = decided.record;
        state.is_read = true;
        Ok(true)
    }

    /// Returns what routers show. One whose posts cannot be read counts as silent.
    async fn measures(
        &self,
        network: &Network,
        routers: &BTreeSet<ObjectName>,
    ) -> BTreeMap<ObjectName, Measure> {
        let ids = network.routers().map(|(_, router)| router.id).sorted_set();
        let routers: Vec<ObjectName> = routers.iter().cloned().collect();
        let mut measures = BTreeMap::new();
        for routers in routers.chunks(POSTS_AT_ONCE) {
            let posts = self.store.posts_of(routers).await;
            for (router, posts) in routers.iter().zip(posts) {
                match posts {
                    Ok(posts) => drop(measures.insert(router.clone(), Measure::of(&posts, &ids))),
                    Err(error) => tracing::debug!(%router, %error, "posts of a router left out"),
                }
            }
        }
        measures
    }

    /// Permits a router to drain, or says which budget forbids it; one outside the network has no budgets. `by` is the
    /// client, and whether it forces the drain. A router that has the permission changes nothing.
    ///
    /// # Errors
    /// A budget would be broken, or the record cannot be read or written.
    pub(super) async fn drain(
        &self,
        network: Option<&Network>,
        router: &ObjectName,
        by: (Client, bool),
    ) -> Result<(), ApiError> {
        let (client, force) = by;
        let network = network.filter(|it| it.budgets() != &Budgets::default());
        if self
            .state
            .lock()
            .record
            .is_permitted(router, Timestamp::now())
        {
            return Ok(());
        }
        let _deciding = self.deciding.lock().await;
        for _ in 0..DRAIN_TRIES {
            let mut record = self.store.record().await?;
            let now = Timestamp::now();
            if record.is_permitted(router, now) {
                // Another request, or another instance, was permitted meanwhile.
                self.state.lock().record.drains = record.drains;
                return Ok(());
            }
            record.forget_drains(now);
            let broken = match network {
                Some(network) => self.broken_budget(network, router, &record, now).await,
                None => None,
            };
            if let Some(why) = broken.as_ref().filter(|_| !force) {
                return Err(drain_refused(why));
            }
            record.permit(router, now);
            let entry = AuditEntry::drain(router, client, broken.clone());
            if !self.store.set_record(&record, Some(entry)).await? {
                continue;
            }
            self.state.lock().record.drains = record.drains;
            match broken {
                Some(why) => {
                    tracing::warn!(%router, %client, why, "drain permitted by force although it breaks a budget");
                }
                None => tracing::info!(%router, %client, "drain permitted"),
            }
            return Ok(());
        }
        let why = "other routers ask at the same moment";
        match force {
            // Of an answer that decides nothing, a router only warns.
            true => Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                STORE_UNAVAILABLE,
                why,
            )),
            false => Err(drain_refused(why)),
        }
    }

    /// Returns the budget that a drain would break.
    async fn broken_budget(
        &self,
        network: &Network,
        router: &ObjectName,
        record: &FleetRecord,
        now: Timestamp,
    ) -> Option<String> {
        let routers = network.routers().map(|(name, _)| name.clone()).sorted_set();
        let measures = self.measures(network, &routers).await;
        budget::refusal(network, router, record, &measures, now)
    }
}

/// Returns the routers whose posts the next step reads.
fn observed(record: &FleetRecord, newest: &Description) -> BTreeSet<ObjectName> {
    match record.observed(&digest(&texts(&newest.files))) {
        Some(routers) => routers,
        None => newest
            .network
            .routers()
            .map(|(name, _)| name.clone())
            .sorted_set(),
    }
}

/// A decision that is not stored yet.
struct Decided {
    record: FleetRecord,
    event: Option<Event>,
    before: Option<Description>,
}

/// Makes the next step, on a thread for long work: a change compares all answers of all routers. `known` is the accepted
/// description that was read before, with its texts.
async fn decide(
    mut record: FleetRecord,
    newest: Description,
    known: Option<(Texts, Description)>,
    measures: BTreeMap<ObjectName, Measure>,
) -> Result<Decided, ApiError> {
    let now = Timestamp::now();
    blocking(move || {
        let Some(spec) = newest.network.rollout() else {
            let (event, before) = (end(&mut record), None);
            return Ok(Decided {
                record,
                event,
                before,
            });
        };
        let texts = texts(&newest.files);
        let accepted = record
            .accepted
            .clone()
            .filter(|accepted| *accepted != texts);
        let before = match (accepted, known) {
            (None, _) => None,
            (Some(accepted), Some((texts, known))) if accepted == texts => Some(known),
            (Some(accepted), _) => Some(Description::of(&accepted)?),
        };
        let concerned = || match &before {
            Some(before) => waves::concerned(&before.network, &newest.network),
            None => BTreeSet::new(),
        };
        let facts = Facts {
            texts: &texts,
            spec,
            concerned: &concerned,
            measures: &measures,
            now,
        };
        let event = step(&mut record, &facts);
        let is_accepted = record.accepted.as_ref() == Some(&texts);
        let before = before.filter(|_| !is_accepted);
        Ok(Decided {
            record,
            event,
            before,
        })
    })
    .await
}

fn log(event: &Event) {
    match event {
        Event::Wave(wave, of, routers) => {
            let routers = routers.iter().map(ToString::to_string);
            let routers = bounded(routers, "routers").join(" ");
            tracing::info!(
                wave,
                of,
                routers,
                "change of the network reaches a wave of routers"
            );
        }
        Event::Complete => tracing::info!("change of the network reached all routers"),
        Event::TakenBack(why) => tracing::warn!(
            why,
            "change of the network rolled back; every router gets the previous description. Correct the description"
        ),
        Event::Withdrawn => tracing::info!("change of the network withdrawn by its operators"),
        Event::Ended(taken_back) => tracing::warn!(
            taken_back,
            "rollout ended by its removal from network.yaml; every router gets the newest description"
        ),
    }
}

/// Returns the entry of the audit.
fn entry(event: &Event, commit: Option<FleetCommit>) -> AuditEntry {
    let (what, why) = match event {
        Event::Wave(wave, of, routers) => {
            let routers = bounded(routers.iter().map(ToString::to_string), "routers");
            (format!("wave {wave} of {of}"), Some(routers.join(" ")))
        }
        Event::Complete => ("complete".to_owned(), None),
        Event::TakenBack(why) => ("take back".to_owned(), Some(why.clone())),
        Event::Withdrawn => ("withdraw".to_owned(), None),
        Event::Ended(taken_back) => {
            let why = taken_back.as_ref();
            let why = why.map(|why| format!("the change had been taken back: {why}"));
            ("end rollout".to_owned(), why)
        }
    };
    AuditEntry::step(&what, why, commit)
}

fn drain_refused(why: &str) -> ApiError {
    let message = format!("{why}; wait until another router is back, or drain with --force");
    ApiError::new(StatusCode::CONFLICT, DRAIN_REFUSED, message)
}

#[cfg(test)]
mod tests;
