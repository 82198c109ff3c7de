//! `describe`: one object in full: the origin of each field, the observed state, and why it is not up.

mod facts;
mod fields;
mod print;
mod reach;
mod why;

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::api::Api;
use super::objects;
use super::offline::Offline;
use super::{Arguments, Outcome, block_on, documents, history, output};
use crate::config::Config;
use crate::controller::world::Object;
use crate::document::{
    Condition, ConditionStatus, ConditionType, Kind, Phase, StatusBody, TunnelStatus,
};
use crate::effective::Origin;
use crate::history::History;
use crate::intervals::DAEMON_CHECK;
use crate::model::ObjectName;
use crate::store::{Area, Place};
use fields::Field;
use why::Cause;

/// One object in full.
#[derive(Debug, Args)]
pub struct Describe {
    /// The object: sessions/wg_1, mesh/hk1, ibgp/hk1, node, policy; a name alone where it is the only one
    #[arg(value_name = "KIND/NAME")]
    name: String,
}

/// An object in full. The names of its fields are part of the interface for programs.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    /// `sessions/wg_1`
    object: String,
    /// Whether it works as intended; absent for node and policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    up: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
    /// Whether the daemon answers; otherwise, conditions and last steps are older.
    agent_running: bool,
    /// The author of the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    document_from: Option<Origin>,
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    exception: Option<Exception>,
    fields: Vec<Field>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Tunnel>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bgp: Vec<Bgp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    last_steps: Vec<String>,
    /// Why it is not up, root cause first; for an object that is up, its warnings.
    why: Vec<Cause>,
}

/// The override in effect.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Exception {
    /// The path below the state directory.
    file: String,
    reason: String,
    /// Its last author, according to the history.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    paused: bool,
}

/// The current state of the tunnel.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tunnel {
    interface: String,
    up: bool,
    mtu: u32,
    addresses: Vec<String>,
    #[serde(flatten)]
    peer: Option<TunnelStatus>,
}

/// The current state of a BGP session.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bgp {
    protocol: String,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    neighbour: Option<String>,
    routes_imported: u64,
    routes_exported: u64,
    last_error: Option<String>,
}

impl Describe {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let described = block_on(self.look(config))?;
        if !output::value(arguments.output, &described)? {
            print::print(&described);
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn look(&self, config: Config) -> anyhow::Result<Described> {
        let agent_runs = agent_runs(&config).await;
        let offline = Offline::look(config).await?;
        if Kind::from_word(&self.name) == Some(Kind::Maintenance) {
            return maintenance(&offline, agent_runs);
        }
        match objects::find(&offline.world, &offline.snapshot, &self.name) {
            Ok(object) if object.kind.is_single() => {
                Ok(single(&offline, &object, agent_runs).await)
            }
            Ok(object) => Ok(described(&offline, &object, agent_runs).await),
            // Objects that the Control Plane lists but that do not decode have only a status.
            Err(error) => self.by_status(&offline, agent_runs).ok_or(error),
        }
    }

    fn by_status(&self, offline: &Offline, agent_runs: bool) -> Option<Described> {
        let mut places = history::places(&self.name).into_iter();
        let found =
            places.find_map(|(kind, name)| Some((kind, status(offline, kind, &name)?, name)));
        let (kind, status, name) = found?;
        let object = format!("{}/{name}", kind.folder());
        Some(Described {
            up: Some(false),
            ..of_status(object, status, agent_runs)
        })
    }
}

/// Returns whether the daemon answers on its local API.
async fn agent_runs(config: &Config) -> bool {
    let Ok(api) = Api::new(config) else {
        return false;
    };
    tokio::time::timeout(DAEMON_CHECK, api.get("/healthz"))
        .await
        .is_ok_and(|answer| answer.is_ok())
}

/// Describes the node and the policy: their applied state, and the problems of their documents.
async fn single(offline: &Offline, object: &Object, agent_runs: bool) -> Described {
    let described = of_status_of(offline, object.kind, &object.name, agent_runs);
    let document = documents::all(&offline.snapshot).remove(&(object.kind, object.name.clone()));
    let refused = object.refused().map(Cause::invalid);
    let unread = document
        .iter()
        .filter_map(|loaded| loaded.as_ref().err())
        .map(|error| error.to_string());
    let unread = unread.map(|error| Cause::invalid(&error)).next();
    // Without a daemon the status may hold an error that has been fixed since.
    let noted = if agent_runs {
        described.why
    } else {
        Vec::new()
    };
    let why = refused.or(unread).map_or(noted, |cause| vec![cause]);
    let waits = (object.kind == Kind::Node).then(|| node_waits(offline));
    let why = waits.into_iter().flatten().chain(why).collect();
    let owner = if object.operator_owned {
        Origin::Operator
    } else {
        Origin::ControlPlane
    };
    Described {
        document_from: document.is_some().then_some(owner),
        exception: exception(offline, object).await,
        fields: fields::of_object(object, document.as_ref()),
        why,
        ..described
    }
}

/// Returns the causes that hold the whole node.
fn node_waits(offline: &Offline) -> Vec<Cause> {
    let identity = offline.world.router.as_ref().err();
    let identity = identity.map(|why| Cause::waiting(why));
    let bird = offline.bird.down.as_ref();
    identity
        .into_iter()
        .chain(bird.map(|why| Cause::bird_down(why)))
        .collect()
}

/// Describes maintenance: drained or not, according to the document.
fn maintenance(offline: &Offline, agent_runs: bool) -> anyhow::Result<Described> {
    let name = Place::single(Area::Documents, Kind::Maintenance).name;
    let loaded = documents::all(&offline.snapshot).remove(&(Kind::Maintenance, name.clone()));
    let loaded = loaded.ok_or_else(|| {
        anyhow::anyhow!("there is no maintenance.yaml, so the router is not drained; `moenet-agent maintenance start` drains it")
    })?;
    let described = of_status_of(offline, Kind::Maintenance, &name, agent_runs);
    Ok(match loaded {
        Ok((_, spec)) => Described {
            document_from: Some(Origin::Operator),
            fields: fields::of_document(&spec, Origin::Operator),
            ..described
        },
        Err(error) => Described {
            why: vec![Cause::invalid(&error.to_string())],
            ..described
        },
    })
}

/// Describes a singleton object by the daemon's status; empty before the first pass.
fn of_status_of(
    offline: &Offline,
    kind: Kind,
    name: &ObjectName,
    agent_running: bool,
) -> Described {
    let object = kind.folder().to_owned();
    match status(offline, kind, name) {
        Some(status) => of_status(object, status, agent_running),
        None => Described {
            object,
            agent_running,
            ..Described::default()
        },
    }
}

/// Describes an object by the daemon's status.
fn of_status(object: String, status: StatusBody, agent_running: bool) -> Described {
    let refused = |c: &Condition| {
        c.condition_type == ConditionType::Accepted && c.status == ConditionStatus::False
    };
    let cause = match status.conditions.iter().any(refused) {
        true => Cause::invalid,
        false => Cause::not_configured,
    };
    Described {
        object,
        agent_running,
        phase: Some(status.phase),
        conditions: status.conditions,
        last_steps: status.last_steps,
        why: status.last_error.iter().map(|error| cause(error)).collect(),
        ..Described::default()
    }
}

fn status(offline: &Offline, kind: Kind, name: &ObjectName) -> Option<StatusBody> {
    offline
        .parts
        .context
        .store
        .read_status(kind, name)
        .map(|document| document.status)
}

async fn described(offline: &Offline, object: &Object, agent_running: bool) -> Described {
    let status = status(offline, object.kind, &object.name);
    let wanted = facts::wanted(offline, object);
    let facts = facts::gather(offline, object, &wanted, status.as_ref(), agent_running).await;
    let document = documents::all(&offline.snapshot).remove(&(object.kind, object.name.clone()));
    let phase = status.as_ref().map(|status| status.phase);
    let status = status.unwrap_or_default();
    let owner = if object.operator_owned {
        Origin::Operator
    } else {
        Origin::ControlPlane
    };
    Described {
        object: object.path(),
        up: Some(facts.documents.off.is_none() && why::is_up(&facts)),
        phase,
        agent_running,
        document_from: document.is_some().then_some(owner),
        exception: exception(offline, object).await,
        fields: fields::of_object(object, document.as_ref()),
        conditions: status.conditions,
        tunnel: tunnel(offline, object, &wanted),
        bgp: bgp(offline, &wanted),
        last_steps: status.last_steps,
        why: why::chain(&facts),
    }
}

/// Returns the override in effect, and its author; an unreadable history gives no author.
async fn exception(offline: &Offline, object: &Object) -> Option<Exception> {
    let reason = object.reason.clone()?;
    let file = Place::new(Area::Overrides, object.kind, &object.name).relative();
    let history = History::new(offline.parts.context.store.dir());
    let last = history
        .log(std::slice::from_ref(&file), 1)
        .await
        .unwrap_or_default()
        .pop();
    Some(Exception {
        file: file.display().to_string(),
        reason,
        since: last.as_ref().map(|entry| entry.time),
        by: last.map(|entry| entry.author),
        expires_at: object.expires_at,
        paused: object.paused.is_some(),
    })
}

fn tunnel(offline: &Offline, object: &Object, wanted: &facts::Wanted<'_>) -> Option<Tunnel> {
    let (name, link) = facts::link(offline, object)?;
    let peer = facts::peer(link, wanted).map(|peer| TunnelStatus {
        last_handshake: peer.last_handshake,
        rx_bytes: peer.rx_bytes,
        tx_bytes: peer.tx_bytes,
        endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
    });
    Some(Tunnel {
        interface: name.to_string(),
        up: link.up,
        mtu: link.mtu,
        addresses: link.addresses.iter().map(ToString::to_string).collect(),
        peer,
    })
}

fn bgp(offline: &Offline, wanted: &facts::Wanted<'_>) -> Vec<Bgp> {
    let names = wanted
        .protocols
        .iter()
        .map(|neighbour| neighbour.protocol.clone())
        .collect();
    let protocols = offline.bird.protocols(&names).into_iter().map(|protocol| {
        let routes = || {
            protocol
                .channels
                .iter()
                .filter_map(|channel| channel.routes)
        };
        let bgp = protocol.bgp.clone().unwrap_or_default();
        Bgp {
            state: facts::state_word(&bgp.state),
            since: protocol
                .since
                .and_then(|since| Timestamp::from_second(since).ok()),
            neighbour: bgp.neighbor_address,
            routes_imported: routes().map(|routes| routes.imported).sum(),
            routes_exported: routes().map(|routes| routes.exported).sum(),
            last_error: bgp.last_error,
            protocol: protocol.name,
        }
    });
    protocols.collect()
}
