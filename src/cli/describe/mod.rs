//! `describe`: one object in full: where each field comes from, what is really there, and why it is not
//! Established.

mod facts;
mod print;
mod why;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::documents::{self, Loaded};
use super::objects::{self, Object};
use super::offline::Offline;
use super::{Arguments, Outcome, block_on, output};
use crate::document::{Condition, Kind, Phase, StatusBody, TunnelStatus};
use crate::effective::{Origin, leaves};
use crate::store::{Area, Place};

/// One object in full.
#[derive(Debug, Args)]
pub struct Describe {
    /// The object: sessions/wg_1, mesh/hk1, ibgp/hk1, node, policy; a name alone where it is the only one
    #[arg(value_name = "KIND/NAME")]
    name: String,
}

/// An object in full.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    object: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    override_expires_at: Option<jiff::Timestamp>,
    fields: Vec<Field>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Tunnel>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bgp: Vec<Bgp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    last_steps: Vec<String>,
    /// Why it is not Established, root cause first.
    why: Vec<String>,
}

/// One field and where it comes from.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Field {
    field: String,
    value: Value,
    origin: Origin,
    /// What the document says, where an override says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Value>,
}

/// The tunnel as it is now.
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

/// A BGP session as it is now.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bgp {
    protocol: String,
    state: String,
    neighbour: Option<String>,
    routes_imported: u64,
    routes_exported: u64,
    last_error: Option<String>,
}

impl Describe {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let offline = block_on(Offline::look(config))?;
        let described = match self.single() {
            Some(kind) => single(&offline, kind)?,
            None => described(&offline, &objects::find(&offline.world, &self.name)?),
        };
        if !output::value(arguments.output, &described)? {
            print::print(&described);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The kind of an object that there is one of.
    fn single(&self) -> Option<Kind> {
        let word = self.name.split('/').next()?;
        Kind::from_word(word).filter(|kind| kind.is_single())
    }
}

/// The node, the policy, maintenance: what the document says.
fn single(offline: &Offline, kind: Kind) -> anyhow::Result<Described> {
    let name = Place::single(Area::Documents, kind).name;
    let loaded = documents::all(&offline.snapshot).remove(&(kind, name.clone()));
    let (metadata, spec) = loaded.ok_or_else(|| anyhow::anyhow!("there is no {}.yaml", kind.folder()))??;
    let origin = if metadata.uid.is_none() { Origin::Operator } else { Origin::ControlPlane };
    let fields = leaves(&spec).into_iter().map(|(path, value)| Field {
        field: format!("spec.{path}"),
        value: value.clone(),
        origin,
        document: None,
    });
    let fields = fields.collect();
    let status = status(offline, kind, &name).unwrap_or_default();
    Ok(Described {
        object: kind.folder().to_owned(),
        phase: None,
        reason: None,
        override_expires_at: None,
        fields,
        conditions: status.conditions,
        tunnel: None,
        bgp: Vec::new(),
        last_steps: status.last_steps,
        why: status.last_error.into_iter().collect(),
    })
}

fn status(offline: &Offline, kind: Kind, name: &crate::model::ObjectName) -> Option<StatusBody> {
    offline.parts.context.store.read_status(kind, name).map(|document| document.status)
}

fn described(offline: &Offline, object: &Object<'_>) -> Described {
    let status = status(offline, object.kind, object.name);
    let wanted = facts::wanted(offline, object);
    let why = why::chain(&facts::gather(offline, object, &wanted, status.as_ref()));
    let document = documents::all(&offline.snapshot).remove(&(object.kind, object.name.clone()));
    let phase = status.as_ref().map(|status| status.phase);
    let status = status.unwrap_or_default();
    Described {
        object: object.path(),
        phase,
        reason: object.reason.map(str::to_owned),
        override_expires_at: object.expires_at,
        fields: fields(object, document.as_ref()),
        conditions: status.conditions,
        tunnel: tunnel(offline, object, &wanted),
        bgp: bgp(offline, &wanted),
        last_steps: status.last_steps,
        why,
    }
}

/// The effective specification's leaves, each with its origin.
fn fields(object: &Object<'_>, document: Option<&Loaded>) -> Vec<Field> {
    let said = document.and_then(|loaded| loaded.as_ref().ok()).map(|(_, spec)| spec);
    let said_leaves = said.map(leaves).unwrap_or_default();
    let theirs = if object.operator_owned { Origin::Operator } else { Origin::ControlPlane };
    let Some(spec) = object.spec.or(said) else { return Vec::new() };
    let field = |(path, value): (String, &Value)| {
        let field = format!("spec.{path}");
        let before = object.overridden.get(&field).cloned();
        let origin = match &before {
            Some(_) => Origin::Override,
            None if said_leaves.contains_key(&path) => theirs,
            None => Origin::Default,
        };
        Field { field, value: value.clone(), origin, document: before }
    };
    leaves(spec).into_iter().map(field).collect()
}

fn tunnel(offline: &Offline, object: &Object<'_>, wanted: &facts::Wanted<'_>) -> Option<Tunnel> {
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
    let names = wanted.protocols.iter().map(|(name, _)| name.clone()).collect();
    let protocols = offline.bird.protocols(&names).into_iter().map(|protocol| {
        let routes = || protocol.channels.iter().filter_map(|channel| channel.routes);
        let bgp = protocol.bgp.clone().unwrap_or_default();
        Bgp {
            state: format!("{:?}", bgp.state),
            neighbour: bgp.neighbor_address,
            routes_imported: routes().map(|routes| routes.imported).sum(),
            routes_exported: routes().map(|routes| routes.exported).sum(),
            last_error: bgp.last_error,
            protocol: protocol.name,
        }
    });
    protocols.collect()
}
