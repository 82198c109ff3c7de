use std::fmt;
use std::str::FromStr;

use super::reference;
use super::{
    Heartbeat, Listing, MeshItem, Modify, NodeItem, PolicyItem, Report, SessionItem, WireError,
};

/// How the Control Plane speaks: `controlPlane.dialect` (docs/contract/control-plane.md#dialect). Nothing is guessed
/// per field, because under another dialect's numbering ACTIVE means "tear down".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// As docs/contract/control-plane.md describes; the only one for now.
    #[default]
    Reference,
}

/// A call to the Control Plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// All BGP sessions of this router.
    Sessions,
    /// The peers of the backbone.
    Mesh,
    /// Who this router is.
    Config,
    /// The routing policy and the internal BGP neighbours.
    BirdConfig,
    /// The agent's health.
    Heartbeat,
    /// What the sessions do.
    Report,
    /// A session's change of status.
    Modify,
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

impl Call {
    /// Every call, in the order of the variants.
    pub const ALL: [Self; 7] = [
        Self::Sessions,
        Self::Mesh,
        Self::Config,
        Self::BirdConfig,
        Self::Heartbeat,
        Self::Report,
        Self::Modify,
    ];

    /// The word for labels of metrics, log fields and `/status`: `sessions`, `bird-config`, `heartbeat`, ….
    pub fn word(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Mesh => "mesh",
            Self::Config => "config",
            Self::BirdConfig => "bird-config",
            Self::Heartbeat => "heartbeat",
            Self::Report => "report",
            Self::Modify => "modify",
        }
    }

    /// Whether the call posts something; the others fetch.
    pub fn is_post(self) -> bool {
        matches!(self, Self::Heartbeat | Self::Report | Self::Modify)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sessions => "fetch the sessions",
            Self::Mesh => "fetch the mesh peers",
            Self::Config => "fetch the node's configuration",
            Self::BirdConfig => "fetch the routing policy",
            Self::Heartbeat => "post the heartbeat",
            Self::Report => "post the report",
            Self::Modify => "post a session's status",
        })
    }
}

impl Dialect {
    /// The segments of a call's path, below `controlPlane.url`; none is encoded yet.
    pub fn segments(self, router: &str, call: Call) -> [&str; 3] {
        match self {
            Self::Reference => reference::segments(router, call),
        }
    }

    /// Reads the sessions.
    ///
    /// # Errors
    /// The body is not a whole list; one bad item is no error but in [`Listing::rejected`].
    pub fn decode_sessions(self, body: &[u8]) -> Result<Listing<SessionItem>, WireError> {
        match self {
            Self::Reference => reference::decode_sessions(body),
        }
    }

    /// Reads the peers of the backbone.
    ///
    /// # Errors
    /// As [`Dialect::decode_sessions`].
    pub fn decode_mesh(self, body: &[u8]) -> Result<Listing<MeshItem>, WireError> {
        match self {
            Self::Reference => reference::decode_mesh(body),
        }
    }

    /// Reads who this router is.
    ///
    /// # Errors
    /// The body has no node, or a field of it breaks a rule; the field is named.
    pub fn decode_config(self, body: &[u8]) -> Result<NodeItem, WireError> {
        match self {
            Self::Reference => reference::decode_config(body),
        }
    }

    /// Reads the routing policy.
    ///
    /// # Errors
    /// The body has no policy, or a field of it breaks a rule; the field is named.
    pub fn decode_policy(self, body: &[u8]) -> Result<PolicyItem, WireError> {
        match self {
            Self::Reference => reference::decode_policy(body),
        }
    }

    /// Whether the code of an error says that a session does not exist.
    pub fn is_session_gone(self, code: &str) -> bool {
        match self {
            Self::Reference => code == reference::SESSION_NOT_FOUND,
        }
    }

    /// Checks the answer to a post, whose status was 2xx.
    ///
    /// # Errors
    /// It is an error envelope or a page for people, and so acknowledges nothing.
    pub fn decode_acknowledgement(self, body: &[u8]) -> Result<(), WireError> {
        match self {
            Self::Reference => super::body::acknowledgement(body),
        }
    }

    /// The body of a heartbeat.
    pub fn encode_heartbeat(self, heartbeat: &Heartbeat) -> Vec<u8> {
        encode(heartbeat)
    }

    /// The body of a report.
    pub fn encode_report(self, report: &Report) -> Vec<u8> {
        encode(report)
    }

    /// The body of a change of status.
    pub fn encode_modify(self, modify: &Modify) -> Vec<u8> {
        encode(modify)
    }
}

/// Our bodies are structs of texts and numbers, which always have a form in JSON.
fn encode(body: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}
