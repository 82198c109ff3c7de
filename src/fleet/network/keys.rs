use std::collections::{BTreeMap, BTreeSet};

use crate::model::{ObjectName, PublicKey};

/// What is known of the keys and tunnels of a network's routers, for the list of one router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeshKeys {
    /// The last public key of each router, by its id.
    pub known: BTreeMap<u16, PublicKey>,
    /// The uuids in the newest report of the router that asks; `None` before its first report.
    pub tunnels: Option<BTreeSet<String>>,
}

/// A peer whose tunnel the router has, or may have, and whose key is unknown. Without the peer, the list would remove
/// that tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "mesh key of {0} is unknown, and the router may have a tunnel to it: start the agent of {0}, or set mesh.publicKey \
     or mesh.enabled: false in routers/{0}.yaml"
)]
pub struct UnknownKey(pub ObjectName);
