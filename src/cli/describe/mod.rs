//! `describe`: one object in full: the origin of each field, its status document, and live probes. The status is the
//! agent's own; while the agent does not run, the same function makes it from an observation of this command.

mod print;
mod probes;
mod reach;

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCompleter;
use jiff::Timestamp;
use serde::Serialize;

use super::api::Agent;
use super::objects;
use super::offline::Offline;
use super::{Arguments, Outcome, block_on, complete, documents, history, output};
use crate::config::Config;
use crate::controller::provenance::{self, Field};
use crate::desired::Object;
use crate::document::{Condition, ConditionType, Kind, Phase, StatusBody, TunnelStatus};
use crate::effective::Origin;
use crate::history::{History, LoggedCommit};
use crate::model::ObjectName;
use crate::status::{Cause, Conditions, causes, is_up, state_word};
use crate::store::{Area, Place};
use probes::{Probe, Target};

/// One object in full.
#[derive(Debug, Args)]
pub struct Describe {
    /// The object: sessions/wg_1, mesh/hk1, ibgp/hk1, node, policy; a name alone where it is the only one
    #[arg(value_name = "KIND/NAME", add = ArgValueCompleter::new(complete::names))]
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
    override_: Option<OverrideLine>,
    fields: Vec<Field>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Tunnel>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bgp: Vec<Bgp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    last_steps: Vec<String>,
    /// Live probes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    probes: Vec<Probe>,
    /// Conditions and probes that need an action, root cause first.
    why: Vec<Cause>,
}

/// The override in effect.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OverrideLine {
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
        let agent = Agent::find(&config).await;
        let offline = Offline::look(config).await?;
        if Kind::from_word(&self.name) == Some(Kind::Maintenance) {
            return maintenance(&offline, &agent);
        }
        match objects::find(&offline.desired, &offline.snapshot, &self.name) {
            Ok(object) => Ok(described(&offline, &object, &agent).await),
            // Objects that the Control Plane lists but that do not decode have only a status.
            Err(error) => self.by_status(&offline, &agent).await.ok_or(error),
        }
    }

    async fn by_status(&self, offline: &Offline, agent: &Agent) -> Option<Described> {
        for (kind, name) in history::places(&self.name) {
            let recorded = || recorded(offline, kind, &name);
            if let Some(status) = agent.status(&kind.path(&name)).await.or_else(recorded) {
                return Some(Described {
                    object: kind.path(&name),
                    up: Some(false),
                    agent_running: agent.is_running(),
                    ..of_status(status, Vec::new())
                });
            }
        }
        None
    }
}

/// Describes maintenance: drained or not, according to the document.
fn maintenance(offline: &Offline, agent: &Agent) -> anyhow::Result<Described> {
    let name = Place::single(Area::Documents, Kind::Maintenance).name;
    let loaded = documents::all(&offline.snapshot).remove(&(Kind::Maintenance, name.clone()));
    let loaded = loaded.ok_or_else(|| objects::unknown(name.as_str(), []))?;
    let mut described = Described {
        object: Kind::Maintenance.path(&name),
        agent_running: agent.is_running(),
        ..Described::default()
    };
    match loaded {
        Ok((_, spec)) => {
            described.document_from = Some(Origin::Operator);
            described.fields = provenance::of_document(&spec, Origin::Operator);
        }
        Err(error) => {
            let mut conditions = Conditions::new(&[], Timestamp::now());
            conditions.set(ConditionType::Accepted, false, "Invalid", error.to_string());
            let conditions = conditions.into_vec();
            let status = StatusBody {
                conditions,
                ..StatusBody::default()
            };
            described.why = causes(&status, Vec::new());
        }
    }
    Ok(described)
}

/// Returns the status in the state directory.
fn recorded(offline: &Offline, kind: Kind, name: &ObjectName) -> Option<StatusBody> {
    let document = offline.parts.shared.context.store.read_status(kind, name);
    document.map(|document| document.status)
}

/// Returns the agent's status of an object, or, without an agent, that of this observation.
pub(super) async fn current(offline: &Offline, object: &Object, agent: &Agent) -> StatusBody {
    match agent.status(&object.path()).await {
        Some(status) => status,
        None => {
            let before = recorded(offline, object.kind, &object.name);
            offline.status(object, &before.unwrap_or_default())
        }
    }
}

/// Returns the parts that the status and the probes have.
fn of_status(status: StatusBody, probes: Vec<Probe>) -> Described {
    Described {
        phase: Some(status.phase),
        why: causes(&status, probes::failed(&probes)),
        conditions: status.conditions,
        last_steps: status.last_steps,
        probes,
        ..Described::default()
    }
}

async fn described(offline: &Offline, object: &Object, agent: &Agent) -> Described {
    let agent_running = agent.is_running();
    let status = current(offline, object, agent).await;
    let document = documents::all(&offline.snapshot).remove(&(object.kind, object.name.clone()));
    let said = document.as_ref().and_then(|loaded| loaded.as_ref().ok());
    let said = said.map(|(_, spec)| spec);
    let owner = if object.operator_owned {
        Origin::Operator
    } else {
        Origin::ControlPlane
    };
    let described = Described {
        object: object.path(),
        agent_running,
        document_from: document.is_some().then_some(owner),
        override_: override_(offline, object).await,
        fields: provenance::of_object(object, said, matches!(document, Some(Err(_)))),
        ..Described::default()
    };
    if object.kind.is_single() {
        return described.with(of_status(status, Vec::new()));
    }
    let (up, target) = (is_up(&status), Target::new(offline, object));
    let quiet = probes::is_quiet(&status, up);
    let probes = target.probe(agent_running, quiet).await;
    Described {
        up: Some(up),
        tunnel: tunnel(&target),
        bgp: bgp(offline, object),
        ..described.with(of_status(status, probes))
    }
}

impl Described {
    /// Takes over the parts that the status and the probes have.
    fn with(self, of: Self) -> Self {
        Self {
            phase: of.phase,
            why: of.why,
            conditions: of.conditions,
            last_steps: of.last_steps,
            probes: of.probes,
            ..self
        }
    }
}

/// Returns the override in effect, and its author; an unreadable history gives no author.
async fn override_(offline: &Offline, object: &Object) -> Option<OverrideLine> {
    let reason = object.reason.clone()?;
    let file = Place::new(Area::Overrides, object.kind, &object.name).relative();
    let last = commit_of(offline, object, &file).await;
    Some(OverrideLine {
        file: file.display().to_string(),
        reason,
        since: last.as_ref().map(|entry| entry.time),
        by: last.map(|entry| entry.author),
        expires_at: object.expires_at,
        paused: object.paused.is_some(),
    })
}

/// Returns the commit of the override, unless the history has not recorded the file as it is now.
async fn commit_of(offline: &Offline, object: &Object, file: &Path) -> Option<LoggedCommit> {
    let history = History::new(offline.parts.shared.context.store.dir());
    let last = history.log(&[file.to_owned()], 1).await.ok()?.pop()?;
    let text = history.committed_at(last.id.as_str(), file).await.ok()?;
    let key = (object.kind, object.name.clone());
    let now = offline.snapshot.overrides.get(&key)?.as_ref().ok()?;
    (text.as_deref() == Some(&*now.text)).then_some(last)
}

fn tunnel(target: &Target<'_>) -> Option<Tunnel> {
    let (name, link) = target.link?;
    Some(Tunnel {
        interface: name.to_string(),
        up: link.up,
        mtu: link.mtu,
        addresses: link.addresses.iter().map(ToString::to_string).collect(),
        peer: target.peer.map(|peer| TunnelStatus {
            last_handshake: peer.last_handshake,
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
            endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
        }),
    })
}

fn bgp(offline: &Offline, object: &Object) -> Vec<Bgp> {
    let protocols = offline
        .sessions(object)
        .protocols
        .into_iter()
        .map(|protocol| {
            let state = state_word(&protocol).to_owned();
            let routes = || protocol.channels.iter().filter_map(|it| it.routes);
            let bgp = protocol.bgp.clone().unwrap_or_default();
            Bgp {
                state,
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
