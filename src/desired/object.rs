use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::document::{DocumentError, Kind, PackedSpec};
use crate::effective::{Claim, InternalNeighbour, MeshTunnel, Session};
use crate::model::{
    AdminState, Endpoint, InterfaceName, ObjectKey, ObjectName, Port, PublicKey, Uid,
};
use crate::render::Shared;
use crate::status::{Acceptance, Expected, Hold};
use crate::store::AppliedOverride;
use crate::util::sorted::Sorted as _;

/// Objects of all kinds, by their keys: first the sessions, then the backbone tunnels, then the internal neighbours.
pub type Objects = BTreeMap<ObjectKey, Object>;

/// One object: its wanted state, and whether its documents were accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub kind: Kind,
    pub name: ObjectName,
    /// The uid that marks the object's resources.
    pub uid: Uid,
    /// The uid in the applied marks, if the Control Plane has given the object another uuid since.
    pub formerly: Option<Uid>,
    pub generation: u64,
    pub intent: Intent,
    pub admin_state: AdminState,
    /// Whether its documents were accepted.
    pub acceptance: Acceptance,
    /// Every error of documents that were not accepted.
    pub faults: Vec<DocumentError>,
    /// An address clash in which the applied address is older: it stays.
    pub remark: Option<String>,
    /// The whole specification, defaults filled in; the content of `applied/` after the apply.
    pub spec: Option<PackedSpec>,
    /// Fields that an override changes, each with the document's value.
    pub overridden: BTreeMap<String, Value>,
    /// The override's reason.
    pub reason: Option<String>,
    /// Time at which the override ends.
    pub expires_at: Option<Timestamp>,
    /// The reason why the object is paused: the agent observes and plans, and writes nothing.
    pub paused: Option<String>,
    /// Why its removal does not happen now, if no document wants it.
    pub held: Option<Hold>,
    /// Whether an override exists that cannot be read: a paused object stays paused.
    pub override_unreadable: bool,
    /// Whether a document exists.
    pub documented: bool,
    /// Whether the document is the operator's own.
    pub operator_owned: bool,
}

/// The intent for an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    Present(Wanted),
    /// The object must be removed.
    Absent,
    /// The applied state stays.
    Stay,
}

/// A wanted object, resolved.
#[derive(Clone, PartialEq, Eq)]
pub enum Wanted {
    /// An external peering.
    Session(
        Arc<Session>,
        /** Its text for BIRD; `None` while it cannot be rendered: then BIRD's file stays as it is. */
         Option<Arc<str>>,
    ),
    Mesh(Box<MeshTunnel>),
    /// An internal neighbour; its text is in the files that all sessions share.
    Ibgp(Box<InternalNeighbour>),
}

impl From<MeshTunnel> for Wanted {
    fn from(tunnel: MeshTunnel) -> Self {
        Self::Mesh(Box::new(tunnel))
    }
}

impl From<InternalNeighbour> for Wanted {
    fn from(neighbour: InternalNeighbour) -> Self {
        Self::Ibgp(Box::new(neighbour))
    }
}

/// Omits the text, which may contain a password.
impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(session, _) => session.fmt(f),
            Self::Mesh(tunnel) => tunnel.fmt(f),
            Self::Ibgp(neighbour) => neighbour.fmt(f),
        }
    }
}

/// The tunnel of a wanted session or backbone peer.
#[derive(Debug, Clone, Copy)]
pub struct WantedLink<'a> {
    pub interface: &'a InterfaceName,
    /// The agent's UDP port, for WireGuard.
    pub listen_port: Option<Port>,
    /// The address on which the peer listens.
    pub endpoint: Option<&'a Endpoint>,
    /// The peer's key, for WireGuard.
    pub peer: Option<PublicKey>,
}

impl Wanted {
    /// Returns the tunnel; an internal neighbour has none.
    pub fn link(&self) -> Option<WantedLink<'_>> {
        match self {
            Self::Session(session, _) => Some(WantedLink {
                interface: &session.tunnel.interface,
                listen_port: session.tunnel.listen_port,
                endpoint: session.tunnel.endpoint.as_ref(),
                peer: session.tunnel.peer,
            }),
            Self::Mesh(tunnel) => Some(WantedLink {
                interface: &tunnel.interface,
                listen_port: Some(tunnel.listen_port),
                endpoint: tunnel.endpoint.as_ref(),
                peer: Some(tunnel.peer),
            }),
            Self::Ibgp(_) => None,
        }
    }

    /// Returns the names of its BGP protocols in BIRD.
    pub fn protocols(&self) -> BTreeSet<String> {
        match self {
            Self::Session(session, _) => {
                let neighbours = session.neighbours.iter();
                neighbours
                    .map(|neighbour| neighbour.protocol.clone())
                    .sorted_set()
            }
            Self::Mesh(_) => BTreeSet::new(),
            Self::Ibgp(neighbour) => BTreeSet::from([neighbour.protocol.clone()]),
        }
    }

    /// Returns the expected BGP sessions.
    pub fn expected(&self) -> Vec<Expected> {
        match self {
            Self::Session(session, _) => {
                let neighbours = session.neighbours.iter();
                let expected = neighbours.map(|neighbour| Expected {
                    protocol: neighbour.protocol.clone(),
                    address: Some(neighbour.address),
                    source: Some(neighbour.source),
                });
                expected.collect()
            }
            Self::Mesh(_) => Vec::new(),
            Self::Ibgp(neighbour) => vec![Expected {
                protocol: neighbour.protocol.clone(),
                address: Some(neighbour.address),
                source: Some(neighbour.source),
            }],
        }
    }

    /// Returns the address to probe: a session's first neighbour, or the peer's address in a backbone tunnel; and
    /// whether it is reached through the object's own link.
    pub fn probed(&self) -> Option<(IpAddr, bool)> {
        match self {
            Self::Session(session, _) => {
                let address = session.neighbours.first()?.address;
                Some((address, session.multihop.is_none()))
            }
            Self::Mesh(tunnel) => Some((tunnel.link_local.get().into(), true)),
            Self::Ibgp(_) => None,
        }
    }

    /// Adds the object to those with a text in the files that all sessions share.
    pub fn share<'a>(&'a self, shared: &mut Shared<'a>) {
        match self {
            Self::Session(..) => {}
            Self::Mesh(tunnel) => shared.mesh_interfaces.push(&tunnel.interface),
            Self::Ibgp(neighbour) => shared.ibgp.push(neighbour),
        }
    }

    /// Returns what no other object may have.
    pub fn claims(&self) -> BTreeSet<Claim> {
        match self {
            Self::Session(session, _) => session.claims(),
            Self::Mesh(tunnel) => tunnel.claims(),
            Self::Ibgp(neighbour) => BTreeSet::from([Claim::Protocol(neighbour.protocol.clone())]),
        }
    }
}

impl Object {
    /// Returns the neighbour's AS number in the document.
    pub fn asn(&self) -> Option<u32> {
        if let Some(session) = self.session() {
            return Some(session.asn.get());
        }
        let asn = self.spec.as_ref()?.at("/asn")?.as_u64()?;
        u32::try_from(asn).ok()
    }

    /// Returns `sessions/wg_1`; for node and policy, the word alone.
    pub fn path(&self) -> String {
        self.kind.path(&self.name)
    }

    pub fn key(&self) -> ObjectKey {
        self.kind.key(&self.name)
    }

    /// Returns the resolved object, if it is wanted.
    pub fn wanted(&self) -> Option<&Wanted> {
        match &self.intent {
            Intent::Present(wanted) => Some(wanted),
            Intent::Absent | Intent::Stay => None,
        }
    }

    /// Returns the wanted tunnel.
    pub fn link(&self) -> Option<WantedLink<'_>> {
        self.wanted()?.link()
    }

    /// Returns the endpoint of the wanted tunnel.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.link()?.endpoint
    }

    /// Returns the wanted session.
    pub fn session(&self) -> Option<&Session> {
        match self.wanted()? {
            Wanted::Session(session, _) => Some(session),
            _ => None,
        }
    }

    /// Returns the wanted backbone tunnel.
    pub fn mesh(&self) -> Option<&MeshTunnel> {
        match self.wanted()? {
            Wanted::Mesh(tunnel) => Some(tunnel),
            _ => None,
        }
    }

    /// Returns its own text for BIRD, if it is wanted and could be rendered.
    pub fn text(&self) -> Option<&Arc<str>> {
        match self.wanted()? {
            Wanted::Session(_, text) => text.as_ref(),
            _ => None,
        }
    }

    /// Returns why its documents are not applied, if they are not.
    pub fn refused(&self) -> Option<&str> {
        match &self.acceptance {
            Acceptance::Invalid(why) | Acceptance::Clash(why) => Some(why),
            Acceptance::Valid | Acceptance::Waiting(_) => None,
        }
    }

    /// Returns the override that applies to the object, for the applied record.
    pub(crate) fn override_(&self) -> Option<AppliedOverride> {
        let fields = self.overridden.keys().cloned().collect();
        self.reason.clone().map(|reason| AppliedOverride {
            reason,
            expires_at: self.expires_at,
            fields,
        })
    }

    /// Returns whether the object is paused, or its override cannot be read and may pause it.
    pub(crate) fn may_be_paused(&self) -> bool {
        self.paused.is_some() || self.override_unreadable
    }

    /// Returns the reason why nothing is written. An unreadable override may be the one that pauses the object, so
    /// a paused object stays paused until a readable override ends the pause.
    pub(crate) fn hands_off(&self, paused: bool) -> Option<String> {
        let doubtful = paused && self.override_unreadable;
        self.paused
            .clone()
            .or_else(|| doubtful.then(|| "its override cannot be read".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_session_prints_no_text_for_bird() {
        let spec = serde_json::json!({
            "asn": 4_242_421_080_u32, "address": {"peerLinkLocal": "fe80::1"},
            "tunnel": {"publicKey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="}
        });
        let spec: crate::document::BgpSessionSpec = serde_json::from_value(spec).unwrap();
        let node =
            serde_json::json!({"id": 1, "asn": 4_242_420_998_u32, "loopbackIpv6": "fd00::1"});
        let node = serde_json::from_value(node).unwrap();
        let router = crate::effective::Router::new("jp1", &node, None);
        let filled = spec.filled(&router, &crate::effective::Defaults::default());
        let (name, uid) = ("a".parse().unwrap(), "a".parse().unwrap());
        let session = Session::resolve(&name, &uid, &filled, &router, &BTreeMap::new()).unwrap();
        let text = Some("password \"hunter2\";".into());
        let intent = Intent::Present(Wanted::Session(Arc::new(session), text));
        let shown = format!("{intent:?}");
        assert!(
            shown.contains("4242421080") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
