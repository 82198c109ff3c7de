use std::fmt;

use super::{Kind, ObjectName, Uid};

/// The unit of a reconcile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// The node's own addresses, and the files that all sessions share.
    Router,
    /// The routing policy; reconciled together with the node.
    Policy,
    /// An object of a kind with many objects, in the order of the kinds; [`Kind::key`] makes it.
    Named(Kind, ObjectName),
    /// A link that carries the agent's mark and that no other key has.
    Orphan(Uid),
    /// The agent's table in nftables. It comes last, because it follows the tunnels of all others.
    Firewall,
}

impl Kind {
    /// Returns the key of the object of this kind and name. Maintenance and overrides are no objects of their own;
    /// they belong to the node.
    pub fn key(self, name: &ObjectName) -> ObjectKey {
        match self {
            Self::RoutingPolicy => ObjectKey::Policy,
            Self::Node | Self::Maintenance | Self::Override => ObjectKey::Router,
            kind => ObjectKey::Named(kind, name.clone()),
        }
    }

    /// Returns kind and name of a key's object; `None` for keys of the whole router and of links without a record.
    pub fn of(key: &ObjectKey) -> Option<(Self, &ObjectName)> {
        match key {
            ObjectKey::Named(kind, name) => Some((*kind, name)),
            ObjectKey::Router | ObjectKey::Policy | ObjectKey::Firewall | ObjectKey::Orphan(_) => {
                None
            }
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router => f.write_str("node"),
            Self::Policy => f.write_str("policy"),
            Self::Named(kind, name) => f.write_str(&kind.path(name)),
            Self::Orphan(uid) => write!(f, "orphan/{uid}"),
            Self::Firewall => f.write_str("firewall"),
        }
    }
}
