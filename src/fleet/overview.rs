//! What the routers of a fleet have posted last, beside what the files want of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::FleetError;
use super::audit::AuditEntry;
use super::described::Described;
use super::history::RouterHistory;
use super::posts::{Post, Posts, served_status};
use super::review::Review;
use super::rollout::RolloutView;
use super::source::Source;
use super::store::directory::is_followed;
use super::store::git::{Git, GitView};
use super::store::{POSTS_AT_ONCE, Store};
use crate::http::ApiError;
use crate::model::{ObjectName, Uid};
use crate::util::sorted::Sorted as _;
use crate::wire::reference::identity;
use crate::wire::{Call, Heartbeat, PeerState, Report, WireStatus};

/// A router, as it showed itself last.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouterView {
    /// The name of the router.
    pub(crate) router: ObjectName,
    /// The arrival of its newest post.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(crate) last_seen: Option<Timestamp>,
    /// The version of its agent.
    pub(crate) version: Option<String>,
    /// Seconds since its agent started, at the newest heartbeat.
    pub(crate) uptime: Option<u64>,
    /// Whether it is drained.
    pub(crate) drained: bool,
    /// The number of changes that wait for an operator of the router.
    pub(crate) held: u64,
    /// The sessions of its files, and the tunnels that it reports.
    pub(crate) sessions: Vec<SessionView>,
    /// Why its files or posts cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// The errors in the files of its sessions; of these files, what was valid last is served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) file_errors: Vec<String>,
}

/// A session of a router, as the router showed it last.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionView {
    /// The identity of the session, or of the tunnel.
    pub(crate) uuid: Uid,
    /// The name in its file, or that of its link.
    pub(crate) name: Option<String>,
    /// The AS number of the neighbour.
    pub(crate) asn: Option<u64>,
    /// The status that is served; absent for a tunnel, and once a removal is confirmed.
    pub(crate) status: Option<WireStatus>,
    /// The state of its BGP session; absent before the first report.
    pub(crate) state: Option<PeerState>,
    /// The round-trip time through the tunnel, in milliseconds.
    pub(crate) rtt_ms: Option<f64>,
    /// The routes that the router takes from the neighbour.
    pub(crate) routes_imported: Option<u64>,
    /// The routes that the router announces to the neighbour.
    pub(crate) routes_exported: Option<u64>,
    /// The reason that the router gave for its error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// What an operator reviews; absent for a session that does not wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) review: Option<Review>,
}

impl RouterView {
    /// Returns the number of sessions with this status.
    pub(crate) fn with_status(&self, status: WireStatus) -> usize {
        let sessions = self.sessions.iter();
        sessions.filter(|it| it.status == Some(status)).count()
    }

    /// Returns the errors of the router itself, without those of sessions that it could not set up.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &String> {
        self.error.iter().chain(&self.file_errors)
    }

    /// Returns the number of errors of the router and of its sessions.
    pub(crate) fn errors(&self) -> usize {
        self.with_status(WireStatus::Error) + self.problems().count()
    }

    /// Returns the number of reported sessions by state.
    pub(crate) fn states(&self) -> BTreeMap<&'static str, usize> {
        let mut states = BTreeMap::new();
        for state in self.sessions.iter().filter_map(|session| session.state) {
            *states.entry(state.word()).or_default() += 1;
        }
        states
    }
}

/// Returns all routers of a fleet, in the order of their names.
///
/// # Errors
/// The fleet cannot be opened, or its description has an error: a part of the routers is no fleet.
pub(crate) async fn routers(source: &Source) -> Result<Vec<RouterView>, FleetError> {
    let store = source.open().await?;
    let described = Described::new(Arc::clone(&store));
    let routers = all(&*store, &described).await;
    match described.error().await {
        Some(error) => Err(FleetError::Invalid(error)),
        None => Ok(routers),
    }
}

/// Returns what a router was served; `None`: it is not in the fleet.
///
/// # Errors
/// The fleet cannot be opened, or the history cannot be read.
pub(crate) async fn history(
    source: &Source,
    router: &ObjectName,
) -> Result<Option<RouterHistory>, FleetError> {
    let store = source.open().await?;
    let served = store.served(router).await.map_err(FleetError::Record)?;
    // Also of a router that was removed.
    let is_known = match served.is_empty() {
        false => true,
        true => {
            let door = Described::new(store).door(router).await;
            door.map_err(FleetError::Record)?.is_some()
        }
    };
    let router = router.clone();
    Ok(is_known.then_some(RouterHistory { router, served }))
}

/// Returns how far a change of the network has come.
///
/// # Errors
/// The fleet cannot be opened, or the record cannot be read.
pub(crate) async fn rollout(source: &Source) -> Result<RolloutView, FleetError> {
    let record = source.open().await?.record().await;
    record.map(RolloutView::of).map_err(FleetError::Record)
}

/// Returns the changes of a fleet's files and the decisions about it that servers and imports made, the newest last.
///
/// # Errors
/// The fleet cannot be opened, or the entries cannot be read.
pub(crate) async fn audit(source: &Source) -> Result<Vec<AuditEntry>, FleetError> {
    let entries = source.open().await?.audit().await;
    entries.map_err(FleetError::Record)
}

/// Returns what the server of a directory follows; `None`: its files.
///
/// # Errors
/// The state that the server wrote cannot be read.
pub(crate) fn followed(dir: &Path) -> Result<Option<GitView>, FleetError> {
    match is_followed(dir) {
        true => Ok(Some(Git::of_server(dir.to_owned())?.view())),
        false => Ok(None),
    }
}

/// Returns all routers of a store, in the order of their names.
pub(super) async fn all(store: &dyn Store, described: &Described) -> Vec<RouterView> {
    let revisions = described.revisions().await;
    let routers: Vec<ObjectName> = revisions.keys().cloned().collect();
    let mut views = Vec::new();
    for routers in routers.chunks(POSTS_AT_ONCE) {
        let posts = store.posts_of(routers).await;
        for (router, posts) in routers.iter().zip(posts) {
            views.push(view(described, router.clone(), posts).await);
        }
    }
    views
}

async fn view(
    described: &Described,
    router: ObjectName,
    posts: Result<Posts, ApiError>,
) -> RouterView {
    let written = described.written(&router, Call::Sessions).await;
    let error = posts.as_ref().err().or(written.as_ref().err());
    let error = error.map(ApiError::to_string);
    let posts = posts.unwrap_or_default();
    let file_errors = match &written {
        Ok(written) => described.session_errors(&router, written).await,
        // Among them is the error.
        Err(_) => Vec::new(),
    };
    let items = written.ok().and_then(|written| {
        let items = written.answer.get("sessions").and_then(Value::as_array);
        items.cloned()
    });
    let heartbeat: Option<Heartbeat> = posts.heartbeat.as_ref().and_then(Post::read);
    let seen = [&posts.heartbeat, &posts.report];
    let seen = seen.into_iter().flatten().map(|post| post.received_at);
    let statuses = posts.sessions.values().map(|posted| posted.at);
    RouterView {
        last_seen: seen.chain(statuses).max(),
        uptime: heartbeat.as_ref().map(|it| it.uptime),
        drained: heartbeat
            .as_ref()
            .is_some_and(|it| it.drained == Some(true)),
        held: heartbeat
            .as_ref()
            .and_then(|it| it.held)
            .unwrap_or_default(),
        version: heartbeat.map(|it| it.version),
        sessions: sessions(&items.unwrap_or_default(), &posts),
        router,
        error,
        file_errors,
    }
}

/// Returns one session of the files for its owner; `None` without an identity.
pub(super) fn session(item: &Value, posts: &Posts) -> Option<SessionView> {
    let uuid = identity(item)?;
    let views = sessions(std::slice::from_ref(item), posts);
    let view = views.into_iter().find(|view| view.uuid == uuid)?;
    Some(SessionView {
        review: None,
        ..view
    })
}

/// Returns the sessions of the files, then what the router reports besides: the tunnels of the backbone.
fn sessions(items: &[Value], posts: &Posts) -> Vec<SessionView> {
    let report: Option<Report> = posts.report.as_ref().and_then(Post::read);
    let reported = report.map(|report| report.sessions).unwrap_or_default();
    let mut reported: BTreeMap<Uid, _> = reported
        .into_iter()
        .map(|session| (session.uuid.clone(), session))
        .sorted_map();
    let mut views = Vec::new();
    for item in items {
        let Some(uuid) = identity(item) else { continue };
        let state = reported.remove(&uuid);
        let text = |key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
        let posted = posts.sessions.get(uuid.as_str());
        let status = served_status(item, &posts.sessions).flatten();
        let failed = posted.filter(|_| status == Some(WireStatus::Error));
        views.push(SessionView {
            name: text("name").or_else(|| text("interface")),
            asn: item.get("asn").and_then(Value::as_u64),
            status,
            error: failed.and_then(|posted| posted.error.clone()),
            review: Review::of(item),
            ..of_report(uuid, state)
        });
    }
    let others = reported.into_iter();
    views.extend(others.map(|(uuid, session)| of_report(uuid, Some(session))));
    views
}

fn of_report(uuid: Uid, session: Option<crate::wire::SessionReport>) -> SessionView {
    let session = session.as_ref();
    SessionView {
        uuid,
        name: None,
        asn: None,
        status: None,
        state: session.map(|it| it.state),
        rtt_ms: session.and_then(|it| it.rtt_ms),
        routes_imported: session.map(|it| it.routes_imported),
        routes_exported: session.map(|it| it.routes_exported),
        error: None,
        review: None,
    }
}
