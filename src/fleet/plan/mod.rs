//! `fleet plan`: what a change of the files changes on each router. Both sides are built as an agent builds its wanted
//! state, and compared. No server, kernel or BIRD is needed.

mod answers;
mod compare;
mod documents;
mod wanted;

use std::path::Path;

use super::finding::Finding;
use super::network::{FleetFiles, Network, router_path, session};
use crate::document::DocumentError;
use crate::model::ObjectName;
use crate::plan::{Mark, Reset};
use crate::render::RenderError;
use crate::sync::plan::PortBases;
use crate::util::progress;
use crate::wire::WireStatus;
use crate::wire::reference::written_status;

use answers::{Answers, answers};
use documents::Documents;
use wanted::Agent;

/// A failure to compare two fleets.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The new files are not valid.
    #[error("the fleet is not valid, so its plan is unknown:\n{}", super::finding::lines(.0))]
    Invalid(Vec<Finding>),
    /// Nothing is derived from the files before.
    #[error("the files before the change are not valid; compare with the last valid commit:\n{}", super::finding::lines(.0))]
    InvalidBefore(Vec<Finding>),
    #[error("the templates of this program: {0}")]
    Templates(RenderError),
    #[error("router {router}: {source}")]
    Router {
        router: String,
        source: Box<DocumentError>,
    },
}

/// The change of one object of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectChange {
    pub router: String,
    /// The router and the object, as `jp1/sessions/wg_4242421080`.
    pub object: String,
    pub steps: Vec<Step>,
}

/// A part of a change, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub(crate) mark: Mark,
    pub(crate) action: String,
    pub(crate) field: String,
    pub(crate) want: String,
    pub(crate) have: String,
    /// The BGP sessions that go down.
    pub(crate) resets: Vec<Reset>,
}

/// Returns what changes on the routers when the files change. A session that was not valid before counts as new.
///
/// # Errors
/// The new files are not valid, or nothing can be derived from those before.
pub fn plan(before: &FleetFiles, after: &FleetFiles) -> Result<Vec<ObjectChange>, PlanError> {
    let problems = super::validate::findings(after).problems;
    if !problems.is_empty() {
        return Err(PlanError::Invalid(problems));
    }
    let lost = lost_sessions(before, after);
    if !lost.is_empty() {
        return Err(PlanError::Invalid(lost));
    }
    let before = answers(before).map_err(PlanError::InvalidBefore)?;
    let after = answers(after).map_err(PlanError::Invalid)?;
    let agent = Agent::new()?;
    let none = Answers::new();
    let mut changes = Vec::new();
    for (done, (router, wanted)) in after.iter().enumerate() {
        progress::count(done, after.len());
        let had = before.get(router);
        if had == Some(wanted) {
            continue;
        }
        changes.extend(had.is_none().then(|| compare::new_router(router)));
        let old = agent.documents(router, Documents::default(), had.unwrap_or(&none))?;
        let new = agent.documents(router, old.0.clone(), wanted)?;
        changes.extend(compare::objects(router, &old.1, &new.1));
    }
    let gone = before.keys().filter(|router| !after.contains_key(*router));
    changes.extend(gone.map(|router| compare::removed_router(router)));
    Ok(changes)
}

/// Returns an error for each router that has lost all its sessions, although they were not deleted one by one: a server
/// would not serve it.
fn lost_sessions(before: &FleetFiles, after: &FleetFiles) -> Vec<Finding> {
    let Ok(network) = Network::read(after) else {
        return Vec::new();
    };
    let lost = |(name, _): (&ObjectName, _)| {
        if after.sessions_of(name).next().is_some() {
            return None;
        }
        let kept = before.sessions_of(name).filter(|(path, text)| {
            let session = text.ok().and_then(|text| session(path, text).ok());
            session.is_some_and(|it| written_status(&it) != Some(WireStatus::QueuedForDelete))
        });
        let why = network.lost_sessions(name, kept.count())?;
        Some(Finding::whole(Path::new(&router_path(name)), why))
    };
    network.routers().filter_map(lost).collect()
}

impl Agent {
    /// Returns the documents of a router after a fetch, and the wanted state.
    fn documents(
        &self,
        router: &str,
        before: Documents,
        answers: &Answers,
    ) -> Result<(Documents, crate::desired::Desired), PlanError> {
        let config = Self::config(router)?;
        let bases = PortBases {
            sessions: config.wireguard.listen_port_base,
            mesh: config.mesh.listen_port_base,
        };
        let documents = before.synced(answers, bases);
        let desired = self.wanted(config, &documents);
        Ok((documents, desired))
    }
}
