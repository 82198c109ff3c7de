use std::collections::BTreeMap;

use crate::model::{ObjectName, PublicKey};

/// The public keys of the routers' tunnels, from their heartbeats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeshKeys {
    /// The last key of each router, by its id.
    pub known: BTreeMap<u16, PublicKey>,
    /// Whether every key that was ever served is among them. Only then does a missing key mean that no router has
    /// a tunnel to this one yet.
    pub is_complete: bool,
}

/// A peer may have a tunnel already, and its key is unknown. Without the peer, the list would remove that tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "mesh key of {0} is unknown, and so are the keys that were served before: start the agent of {0}, or set \
     mesh.publicKey or mesh.enabled: false in routers/{0}.yaml"
)]
pub struct UnknownKey(pub ObjectName);
