use std::fmt;
use std::str::FromStr;

use super::reference;
use super::{
    Call, DrainWish, Heartbeat, Listing, Modify, NodeItem, PeerItem, PolicyItem, Report,
    SessionItem, WireError,
};
use crate::document::MeshPeerSpec;

/// The protocol variant of the Control Plane: `controlPlane.dialect` (docs/contract/control-plane.md#dialect).
/// Nothing is guessed per field, because under another dialect's numbering ACTIVE means "tear down".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// The dialect of docs/contract/control-plane.md; the only one for now.
    #[default]
    Reference,
}

/// The configuration names a dialect that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("controlPlane.dialect: {0} is unknown; the only dialect is \"reference\"")]
pub struct UnknownDialect(String);

impl FromStr for Dialect {
    type Err = UnknownDialect;
    fn from_str(text: &str) -> Result<Self, UnknownDialect> {
        match text {
            "reference" => Ok(Self::Reference),
            other => Err(UnknownDialect(crate::model::shown(other))),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reference")
    }
}

impl Dialect {
    /// Returns the segments of a call's path, below `controlPlane.url`, before encoding.
    pub fn segments(self, router: &str, call: Call) -> [&str; 3] {
        match self {
            Self::Reference => reference::segments(router, reference::endpoint(call)),
        }
    }

    /// Returns the same of the revision of all lists.
    pub fn revision_segments(self, router: &str) -> [&str; 3] {
        match self {
            Self::Reference => reference::segments(router, reference::REVISION),
        }
    }

    /// Reads the revision of all lists.
    ///
    /// # Errors
    /// The body has no revision.
    pub fn decode_revision(self, body: &[u8]) -> Result<String, WireError> {
        match self {
            Self::Reference => reference::decode_revision(body),
        }
    }

    /// Reads the sessions.
    ///
    /// # Errors
    /// The body is not a whole list; one bad item is no error but is listed in [`Listing::rejected`].
    pub fn decode_sessions(self, body: &[u8]) -> Result<Listing<SessionItem>, WireError> {
        match self {
            Self::Reference => reference::decode_sessions(body),
        }
    }

    /// Reads the peers of the backbone.
    ///
    /// # Errors
    /// As [`Dialect::decode_sessions`].
    pub fn decode_mesh(self, body: &[u8]) -> Result<Listing<PeerItem<MeshPeerSpec>>, WireError> {
        match self {
            Self::Reference => reference::decode_mesh(body),
        }
    }

    /// Reads the identity of this router.
    ///
    /// # Errors
    /// The body has no node, or a field of it breaks a rule; the error names the field.
    pub fn decode_config(self, body: &[u8]) -> Result<NodeItem, WireError> {
        match self {
            Self::Reference => reference::decode_config(body),
        }
    }

    /// Reads the routing policy.
    ///
    /// # Errors
    /// The body has no policy, or a field of it breaks a rule; the error names the field.
    pub fn decode_policy(self, body: &[u8]) -> Result<PolicyItem, WireError> {
        match self {
            Self::Reference => reference::decode_policy(body),
        }
    }

    /// Returns whether an error code means that a session does not exist.
    pub fn is_session_gone(self, code: &str) -> bool {
        match self {
            Self::Reference => code == reference::SESSION_NOT_FOUND,
        }
    }

    /// Checks the answer to a post, whose status was 2xx.
    ///
    /// # Errors
    /// The body is an error envelope or an HTML page, and so acknowledges nothing.
    pub fn decode_acknowledgement(self, body: &[u8]) -> Result<(), WireError> {
        match self {
            Self::Reference => super::body::acknowledgement(body),
        }
    }

    /// Returns the body of a heartbeat.
    pub fn encode_heartbeat(self, heartbeat: &Heartbeat) -> Vec<u8> {
        encode(heartbeat)
    }

    /// Returns the body of a report.
    pub fn encode_report(self, report: &Report) -> Vec<u8> {
        encode(report)
    }

    /// Returns the body of the question whether the router may drain.
    pub fn encode_drain(self, wish: &DrainWish) -> Vec<u8> {
        encode(wish)
    }

    /// Returns the body of a change of status.
    pub fn encode_modify(self, modify: &Modify) -> Vec<u8> {
        encode(modify)
    }
}

/// Encodes a body. The agent's bodies are structs of texts and numbers, which always have a form in JSON.
fn encode(body: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}
