use std::fmt;

/// A call to the Control Plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// All BGP sessions of this router.
    Sessions,
    /// The peers of the backbone.
    Mesh,
    /// The identity of this router.
    Config,
    /// The routing policy and the internal BGP neighbours.
    BirdConfig,
    /// The agent's health.
    Heartbeat,
    /// The state of the sessions.
    Report,
    /// A session's change of status.
    Modify,
    /// The question whether the router may drain; an addition to the API.
    Drain,
}

impl Call {
    /// Every call, in the order of the variants.
    pub const ALL: [Self; 8] = [
        Self::Sessions,
        Self::Mesh,
        Self::Config,
        Self::BirdConfig,
        Self::Heartbeat,
        Self::Report,
        Self::Modify,
        Self::Drain,
    ];

    /// Returns the word for labels of metrics, log fields and `/status`: `sessions`, `bird-config`, `heartbeat`, ….
    pub fn word(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Mesh => "mesh",
            Self::Config => "config",
            Self::BirdConfig => "bird-config",
            Self::Heartbeat => "heartbeat",
            Self::Report => "report",
            Self::Modify => "modify",
            Self::Drain => "drain",
        }
    }

    /// Returns whether the call is a post; the others fetch.
    pub fn is_post(self) -> bool {
        matches!(
            self,
            Self::Heartbeat | Self::Report | Self::Modify | Self::Drain
        )
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
            Self::Drain => "ask whether the router may drain",
        })
    }
}
