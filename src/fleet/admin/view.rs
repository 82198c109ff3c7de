//! What the pages show.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use jiff::Timestamp;
use serde::Serialize;

use super::super::network::Tunnel;
use super::super::overview::{RouterView, SessionView};
use super::Role;
use crate::model::ObjectName;
use crate::util::sorted::Sorted as _;
use crate::wire::{PeerState, WireStatus};

/// Most routers of a map: the tunnels of more are too many to tell apart.
pub(super) const MAP_MAX: usize = 60;

/// The radius of the circle of routers in the map.
const RADIUS: f64 = 300.0;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FleetPage<'r> {
    can_write: bool,
    routers: Vec<Row<'r>>,
    /// The sessions that wait for an operator.
    review: Vec<Waiting<'r>>,
    map: Option<Map<'r>>,
    /// Why the newest description of the network is not served.
    error: Option<&'r str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'r> {
    router: &'r ObjectName,
    last_seen: Option<Timestamp>,
    version: Option<&'r str>,
    sessions: usize,
    established: usize,
    drained: bool,
    held: u64,
    errors: usize,
    error: Option<&'r str>,
}

#[derive(Serialize)]
struct Waiting<'r> {
    router: &'r ObjectName,
    session: &'r SessionView,
}

#[derive(Serialize)]
struct Map<'r> {
    nodes: Vec<Node<'r>>,
    links: Vec<Link>,
}

#[derive(Serialize)]
struct Node<'r> {
    name: &'r ObjectName,
    x: f64,
    y: f64,
}

#[derive(Serialize)]
struct Link {
    from: (f64, f64),
    to: (f64, f64),
    title: String,
    state: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouterPage<'r> {
    can_write: bool,
    router: &'r RouterView,
}

/// Returns the view of a fleet with the tunnels of its network.
pub(super) fn fleet<'r>(
    (routers, error): (&'r [RouterView], Option<&'r str>),
    tunnels: Option<&[Tunnel]>,
    role: Role,
) -> FleetPage<'r> {
    let waits = |it: &&SessionView| it.status == Some(WireStatus::PendingReview);
    let review = routers.iter().flat_map(|router| {
        let sessions = router.sessions.iter().filter(waits);
        sessions.map(|session| Waiting {
            router: &router.router,
            session,
        })
    });
    FleetPage {
        can_write: role == Role::Write,
        routers: routers.iter().map(row).collect(),
        review: review.collect(),
        map: tunnels.map(|tunnels| map(routers, tunnels)),
        error,
    }
}

/// Returns the view of a router.
pub(super) fn router(router: &RouterView, role: Role) -> RouterPage<'_> {
    RouterPage {
        can_write: role == Role::Write,
        router,
    }
}

fn row(router: &RouterView) -> Row<'_> {
    Row {
        router: &router.router,
        last_seen: router.last_seen,
        version: router.version.as_deref(),
        sessions: router.sessions.len(),
        established: router
            .states()
            .get("established")
            .copied()
            .unwrap_or_default(),
        drained: router.drained,
        held: router.held,
        errors: router.errors(),
        error: router.problems().next().map(String::as_str),
    }
}

/// Places the routers on a circle, with a line for each tunnel.
fn map<'r>(routers: &'r [RouterView], tunnels: &[Tunnel]) -> Map<'r> {
    let step = TAU / routers.len().max(1) as f64;
    let place = |index: usize| {
        let angle = step * index as f64;
        let at = |part: f64| (part * RADIUS * 10.0).round() / 10.0;
        (at(angle.sin()), at(-angle.cos()))
    };
    let places: BTreeMap<&ObjectName, (f64, f64)> = routers
        .iter()
        .enumerate()
        .map(|(index, it)| (&it.router, place(index)))
        .sorted_map();
    let link = |tunnel: &Tunnel| {
        let Tunnel { one, other, uuid } = tunnel;
        let ends = routers
            .iter()
            .filter(|it| it.router == *one || it.router == *other);
        let reported = ends
            .flat_map(|it| &it.sessions)
            .filter(|it| it.uuid == *uuid);
        let state = state(reported.filter_map(|it| it.state));
        Some(Link {
            from: *places.get(one)?,
            to: *places.get(other)?,
            title: format!("{one} – {other}: {state}"),
            state,
        })
    };
    Map {
        links: tunnels.iter().filter_map(link).collect(),
        nodes: places
            .iter()
            .map(|(name, (x, y))| Node { name, x: *x, y: *y })
            .collect(),
    }
}

/// Returns the state of a tunnel from the reports of its ends.
fn state(reported: impl Iterator<Item = PeerState>) -> &'static str {
    let mut found = "unknown";
    for state in reported {
        if state != PeerState::Established {
            return "down";
        }
        found = "up";
    }
    found
}
