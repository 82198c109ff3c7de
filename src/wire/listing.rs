use std::fmt;

use serde_json::Value;

use super::{FieldError, WireStatus};
use crate::document::{BgpSessionSpec, IbgpPeerSpec, NodeSpec, RoutingPolicySpec};
use crate::model::{Asn, InterfaceName, ObjectName, PresharedKey, Secret, Uid};

/// The Control Plane's list. Absence from it means removal only when it is `complete`.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing<T> {
    pub items: Vec<T>,
    /// The items that are present but invalid: their applied state stays.
    pub rejected: Vec<Rejected>,
    /// Whether every item has a usable identity of its own. If not, the absence of an item removes nothing.
    pub complete: bool,
}

/// An item that is present but invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its identity, when readable.
    pub uid: Option<Uid>,
    /// Its node id, when it is a peer of the backbone or of iBGP and the number is readable.
    pub node_id: Option<u16>,
    /// Its name, when it is a peer of the backbone or of iBGP and has one.
    pub name: Option<ObjectName>,
    /// Its status, when readable.
    pub status: Option<WireStatus>,
    /// Its interface, when readable.
    pub interface: Option<InterfaceName>,
    /// The invalid field, as the wire names it: `credential.publicKey`.
    pub field: String,
    /// The error of the field.
    pub message: String,
    /// Whether the agent reports ERROR to the Control Plane. It does not for an unknown status, nor for a status
    /// that must not be overwritten: ERROR means "keep trying", so a disabled session would come up.
    pub reportable: bool,
}

impl Rejected {
    /// Returns the invalid field.
    pub fn into_field(self) -> FieldError {
        FieldError {
            field: self.field,
            message: self.message,
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// One BGP session (docs/contract/session.md).
#[derive(Debug, Clone, PartialEq)]
pub struct SessionItem {
    pub uid: Uid,
    /// The status in the Control Plane.
    pub status: WireStatus,
    /// The interface that it names, else `wg_<asn>`: a good name for its document. `None` only when `spec` is
    /// `None`.
    pub name_hint: Option<InterfaceName>,
    /// Its specification. `None` only for a session that must be removed and whose other fields do not decode: a
    /// removal needs only the identity.
    pub spec: Option<BgpSessionSpec>,
    /// The preshared key, which no document contains.
    pub preshared_key: Option<PresharedKey>,
    /// The BGP password, which no document contains.
    pub password: Option<Secret<String>>,
}

/// One peer of the backbone, or one internal BGP neighbour. Its identity is its node id.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerItem<S> {
    /// Its name, else `node<id>`.
    pub name: ObjectName,
    pub spec: S,
}

/// The identity of this router.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeItem {
    /// The router's name.
    pub name: String,
    pub spec: NodeSpec,
}

/// The routing policy, and the internal neighbours that come with it.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyItem {
    /// A hint; the agent compares the document itself.
    pub config_hash: Option<String>,
    /// The network's AS number. For comparison only: the router's comes from `GET config`.
    pub asn: Option<Asn>,
    pub spec: RoutingPolicySpec,
    /// The internal neighbours; `None` means no change, an empty list means no neighbours.
    pub ibgp: Option<Listing<PeerItem<IbgpPeerSpec>>>,
    /// Suspicious values without an effect, for the log.
    pub notes: Vec<String>,
    /// Fields that do not decode; the policy is used without them.
    pub bad: Vec<RejectedField>,
}

/// A field of the policy that does not decode and that the filters do not depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedField {
    /// The field, as the Control Plane names it.
    pub field: String,
    pub message: String,
    /// JSON pointer of the field in the document's specification; empty for a field that has none of its own.
    pub spec: &'static str,
}

impl fmt::Display for RejectedField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl PolicyItem {
    /// Returns the policy with the last good value in each field that does not decode.
    #[must_use]
    pub fn with_last_good(&self, last_good: &RoutingPolicySpec) -> RoutingPolicySpec {
        let (Ok(mut spec), Ok(before)) = (
            serde_json::to_value(&self.spec),
            serde_json::to_value(last_good),
        ) else {
            return self.spec.clone();
        };
        for rejected in self.bad.iter().filter(|rejected| !rejected.spec.is_empty()) {
            let Some((parent, key)) = rejected.spec.rsplit_once('/') else {
                continue;
            };
            let (Some(value), Some(Value::Object(parent))) =
                (before.pointer(rejected.spec), spec.pointer_mut(parent))
            else {
                continue;
            };
            parent.insert(key.to_owned(), value.clone());
        }
        serde_json::from_value(spec).unwrap_or_else(|_| self.spec.clone())
    }
}
