//! Facts of an object's status that follow from the desired state and the applied record. Pure.

use serde::Deserialize as _;
use serde_json::Value;

use crate::desired::{Desired, Object};
use crate::document::Kind;
use crate::model::{AdminState, PublicKey};
use crate::observed::bird::{BirdProblem, BirdState, Peer, Protocol};
use crate::status::{Expected, Service};
use crate::store::AppliedDocument;

/// Returns the expected BGP sessions: the wanted ones, or the applied ones of an object that stays as it is.
fn expected(object: &Object, applied: Option<&AppliedDocument>) -> Vec<Expected> {
    match object.wanted() {
        Some(wanted) => wanted.expected(),
        None => {
            let protocols = applied.iter().flat_map(|it| &it.applied.protocols);
            let expected = protocols.map(|protocol| Expected {
                protocol: protocol.clone(),
                address: None,
                source: None,
            });
            expected.collect()
        }
    }
}

/// The BGP sessions of an object as BIRD runs them.
pub struct Sessions {
    pub protocols: Vec<Protocol>,
    pub expected: Vec<Expected>,
    /// That the operator's configuration runs one of them.
    pub outside: Option<BirdProblem>,
}

/// Returns the protocols of the expected sessions. A session with the same neighbour that BIRD runs from outside the
/// agent's files takes the place of one that is not established.
pub fn sessions(
    desired: &Desired,
    object: &Object,
    bird: &BirdState,
    applied: Option<&AppliedDocument>,
) -> Sessions {
    let mut expected = expected(object, applied);
    let (mut protocols, mut outside) = (Vec::new(), None);
    for session in &mut expected {
        let own = bird.protocol(&session.protocol);
        let own_is_up = own.is_some_and(Protocol::is_established);
        let other = (!own_is_up).then(|| peer_of(desired, object, session));
        let other = other.flatten().and_then(|peer| bird.outside(peer));
        match other.filter(|other| own.is_none() || other.is_established()) {
            Some(other) => {
                session.protocol.clone_from(&other.name);
                let runs = || bird.live.main.runs_outside(&other.name);
                outside.get_or_insert_with(|| bird.live.left_alone().unwrap_or_else(runs));
                protocols.push(other.clone());
            }
            None => protocols.extend(own.cloned()),
        }
    }
    Sessions {
        protocols,
        expected,
        outside,
    }
}

fn peer_of<'a>(desired: &Desired, object: &'a Object, session: &Expected) -> Option<Peer<'a>> {
    let own = desired.router.as_ref().ok().map(|router| router.asn.get());
    Some(Peer {
        address: session.address?,
        interface: object.link().map(|link| link.interface.as_str()),
        asn: object.asn().or(own)?,
    })
}

/// Returns the WireGuard peer: the wanted one, or the applied one of an object that stays as it is.
pub fn peer(object: &Object, applied: Option<&AppliedDocument>) -> Option<PublicKey> {
    if let Some(wanted) = object.wanted() {
        return wanted.link()?.peer;
    }
    let spec = applied?.applied.spec.as_ref()?;
    let key = spec.text_at("/tunnel/publicKey");
    key.or_else(|| spec.text_at("/publicKey"))?.parse().ok()
}

/// Returns whether an object is meant to carry traffic. `drained`: whether BIRD has loaded a drain.
pub(super) fn service(
    desired: &Desired,
    object: &Object,
    drained: impl FnOnce() -> bool,
) -> Service {
    let maintenance = desired.maintenance;
    // A held object does not change, even if its document is absent.
    if object.held.is_none()
        && let Some(off) = off(desired, object)
    {
        return off;
    }
    if object.kind == Kind::BgpSession && maintenance.ebgp_disabled {
        return Service::ClosedByMaintenance;
    }
    if !object.kind.has_protocols() {
        return Service::Enabled;
    }
    let alone = spec_at(object, "/bgp/drained") == Some(Value::Bool(true));
    let maintenance = maintenance.enabled.then_some(maintenance.since);
    match (maintenance, alone) {
        (None, false) => Service::Enabled,
        _ => Service::Drained {
            maintenance,
            loaded: drained(),
        },
    }
}

fn off(desired: &Desired, object: &Object) -> Option<Service> {
    let wanted =
        spec_at(object, "/adminState").and_then(|state| AdminState::deserialize(state).ok());
    match (wanted, object.admin_state) {
        (_, AdminState::Absent) | (Some(AdminState::Absent), _) => Some(Service::Absent),
        (Some(AdminState::Pending), _) | (None, AdminState::Pending) => {
            Some(Service::PendingReview)
        }
        (Some(AdminState::Disabled), _) | (None, AdminState::Disabled) => Some(Service::Disabled),
        // The backbone can be off for two further reasons; see the desired state's `peers`.
        (Some(AdminState::Enabled), AdminState::Disabled | AdminState::Pending) => {
            let id = spec_at(object, "/nodeId").and_then(|id| id.as_u64());
            let router = desired.router.as_ref().ok();
            let is_own = router.is_some_and(|router| Some(u64::from(router.id)) == id);
            Some(if is_own {
                Service::OwnNode
            } else {
                Service::MeshDisabled
            })
        }
        (_, AdminState::Enabled) => None,
    }
}

fn spec_at(object: &Object, pointer: &str) -> Option<Value> {
    object.spec.as_ref()?.at(pointer)
}
