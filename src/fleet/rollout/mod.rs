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
use self::record::{digest, texts};
use self::step::{Event, Facts, step};
use super::network::{FleetFiles, Network};
use super::store::Store;
use crate::http::ApiError;
use crate::intervals::{FLEET_DRAIN_KEPT, FLEET_ROLLOUT_POLL};
use crate::model::ObjectName;
use crate::util::task::blocking;
use crate::util::text::bounded;

/// The code of a refused drain.
const DRAIN_REFUSED: &str = "DRAIN_REFUSED";

/// How often a drain is tried while other instances write the record.
const DRAIN_TRIES: usize = 5;

/// The changes of a fleet that are on their way.
pub(super) struct Rollouts {
    store: Arc<dyn Store>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    looked: Option<Instant>,
    /// Whether the record was read.
    is_read: bool,
    record: FleetRecord,
    /// The files that routers without the change get, while there is one.
    before: Option<Arc<FleetFiles>>,
}

/// The newest description.
#[derive(Clone)]
pub(super) struct Newest {
    pub(super) files: Arc<FleetFiles>,
    pub(super) network: Arc<Network>,
}

impl Rollouts {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        let state = Mutex::default();
        Self { store, state }
    }

    /// Returns the files of the description that a router gets, if it is not the newest one.
    pub(super) fn before(&self, router: &ObjectName) -> Option<Arc<FleetFiles>> {
        let state = self.state.lock();
        let before = state.before.as_ref()?;
        (!state.record.has_change(router)).then(|| Arc::clone(before))
    }

    /// Returns whether the record was read a moment ago.
    pub(super) fn is_recent(&self) -> bool {
        let looked = self.state.lock().looked;
        looked.is_some_and(|at| at.elapsed() < FLEET_ROLLOUT_POLL)
    }

    /// Makes the next step of a change. Returns whether `newest` is decided on, so that it may be served; if not, there
    /// are newer files, or another instance decided at this moment.
    ///
    /// # Errors
    /// The record cannot be read or written. Nothing changes.
    pub(super) async fn look(&self, newest: &Newest) -> Result<bool, ApiError> {
        {
            let mut state = self.state.lock();
            state.looked = Some(Instant::now());
            if newest.network.rollout().is_none() && state.is_read && state.before.is_none() {
                // Only drains use the record.
                return Ok(true);
            }
        }
        let record = self.store.record().await?;
        // Another instance may have decided on files that this one has not read yet.
        let files = self.store.network().await?;
        if !files.is_some_and(|files| Arc::ptr_eq(&files, &newest.files)) {
            return Ok(false);
        }
        let measures = self.measures(&observed(&record, newest)).await?;
        let (next, event) = decide(record.clone(), newest, measures).await;
        if next != record && !self.store.set_record(&next).await? {
            return Ok(false);
        }
        if let Some(event) = &event {
            log(event);
        }
        self.take(next, newest);
        Ok(true)
    }

    fn take(&self, record: FleetRecord, newest: &Newest) {
        let mut state = self.state.lock();
        let accepted = record.accepted.as_ref();
        state.before = accepted
            .filter(|accepted| **accepted != texts(&newest.files))
            .map(|accepted| {
                Arc::new(
                    accepted
                        .iter()
                        .map(|(p, t)| (p.as_str(), t.as_str()))
                        .collect(),
                )
            });
        state.record = record;
        state.is_read = true;
    }

    async fn measures(
        &self,
        routers: &BTreeSet<ObjectName>,
    ) -> Result<BTreeMap<ObjectName, Measure>, ApiError> {
        let mut measures = BTreeMap::new();
        for router in routers {
            let posts = self.store.posts(router).await?;
            measures.insert(router.clone(), Measure::of(&posts));
        }
        Ok(measures)
    }

    /// Permits a router to drain, or says which budget forbids it.
    ///
    /// # Errors
    /// A budget would be broken, or the record cannot be read or written.
    pub(super) async fn drain(
        &self,
        network: &Network,
        router: &ObjectName,
        force: bool,
    ) -> Result<(), ApiError> {
        for _ in 0..DRAIN_TRIES {
            let mut record = self.store.record().await?;
            let now = Timestamp::now();
            record.forget_drains(now, FLEET_DRAIN_KEPT);
            let routers = network.routers().map(|(name, _)| name.clone()).collect();
            let measures = self.measures(&routers).await?;
            let refusal = budget::refusal(network, router, &record, &measures, now);
            match refusal {
                Some(why) if !force => return Err(drain_refused(&why)),
                Some(why) => tracing::warn!(%router, why, "drain forced against a budget"),
                None => tracing::info!(%router, "drain permitted"),
            }
            record.permit(router, now);
            if self.store.set_record(&record).await? {
                return Ok(());
            }
        }
        Err(ApiError::internal(
            "other routers ask to drain at the same moment; retry",
        ))
    }
}

/// Returns the routers whose posts the next step reads.
fn observed(record: &FleetRecord, newest: &Newest) -> BTreeSet<ObjectName> {
    match record.observed(&digest(&texts(&newest.files))) {
        Some(routers) => routers,
        None => newest
            .network
            .routers()
            .map(|(name, _)| name.clone())
            .collect(),
    }
}

/// Makes the next step, on a thread for long work: a change compares all answers of all routers.
async fn decide(
    mut record: FleetRecord,
    newest: &Newest,
    measures: BTreeMap<ObjectName, Measure>,
) -> (FleetRecord, Option<Event>) {
    let newest = newest.clone();
    let now = Timestamp::now();
    blocking(move || {
        let Some(spec) = newest.network.rollout() else {
            record.clear();
            return (record, None);
        };
        let before = record.accepted.as_ref().and_then(|accepted| {
            let files: FleetFiles = accepted
                .iter()
                .map(|(p, t)| (p.as_str(), t.as_str()))
                .collect();
            Network::read(&files).ok()
        });
        let concerned = || match &before {
            Some(before) => waves::concerned(before, &newest.network),
            None => newest
                .network
                .routers()
                .map(|(name, _)| name.clone())
                .collect(),
        };
        let facts = Facts {
            texts: &texts(&newest.files),
            spec,
            concerned: &concerned,
            measures: &measures,
            now,
        };
        let event = step(&mut record, &facts);
        (record, event)
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
            "change of the network taken back; every router gets the description of before. Correct the description"
        ),
        Event::Withdrawn => tracing::info!("change of the network withdrawn by its operators"),
    }
}

fn drain_refused(why: &str) -> ApiError {
    let message = format!("{why}; wait until another router is back, or drain with --force");
    ApiError::new(StatusCode::CONFLICT, DRAIN_REFUSED, message)
}

#[cfg(test)]
mod tests;
