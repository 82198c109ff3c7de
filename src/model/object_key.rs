use std::fmt;

use super::{ObjectName, Uid};

/// The unit of a reconcile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// The node's own addresses, and the files that all sessions share.
    Router,
    /// The routing policy; reconciled together with the node.
    Policy,
    /// An external peering.
    Session(ObjectName),
    /// A backbone tunnel.
    Mesh(ObjectName),
    /// An internal neighbour.
    Ibgp(ObjectName),
    /// A link that carries the agent's mark and that no other key has.
    Orphan(Uid),
    /// The agent's table in nftables. It comes last, because it follows the tunnels of all others.
    Firewall,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router => f.write_str("node"),
            Self::Policy => f.write_str("policy"),
            Self::Session(name) => write!(f, "sessions/{name}"),
            Self::Mesh(name) => write!(f, "mesh/{name}"),
            Self::Ibgp(name) => write!(f, "ibgp/{name}"),
            Self::Orphan(uid) => write!(f, "orphan/{uid}"),
            Self::Firewall => f.write_str("firewall"),
        }
    }
}
