//! The public keys of the routers' tunnels, as they post them. A key is not forgotten while the server runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::network::{MeshKeys, Network};
use super::store::{PostedKeys, Store};
use crate::http::ApiError;
use crate::model::{ObjectName, PublicKey};
use crate::util::notices::Notices;
use crate::util::sorted::Sorted as _;

/// The keys that were posted.
#[derive(Default)]
pub(super) struct KnownKeys {
    keys: Mutex<Keys>,
    notices: Notices<String>,
}

#[derive(Default)]
struct Keys {
    seen: Option<Arc<PostedKeys>>,
    known: PostedKeys,
    /// The network whose warnings were logged, with these keys.
    checked: Option<Arc<Network>>,
}

impl KnownKeys {
    /// Reads the newest keys, and logs what is wrong between those of the newest network.
    ///
    /// # Errors
    /// The store cannot be read, and never was.
    pub(super) async fn look(
        &self,
        network: &Arc<Network>,
        store: &dyn Store,
    ) -> Result<(), ApiError> {
        let posted = store.mesh_keys().await;
        let mut keys = self.keys.lock();
        match posted {
            Ok(posted) => keys.take(posted),
            Err(error) if keys.seen.is_none() => return Err(error),
            // The keys of before are served, as the rest of the fleet.
            Err(_) => {}
        }
        if !keys.is_checked(network) {
            for warning in self.notices.new_in(warnings(network, &keys.known)) {
                tracing::warn!(error = %warning, "mesh key of a router is missing or doubtful");
            }
            keys.checked = Some(Arc::clone(network));
        }
        Ok(())
    }

    /// Returns the last key of each neighbour of a router, by its id.
    pub(super) fn of(&self, network: &Network, router: &ObjectName) -> MeshKeys {
        let keys = self.keys.lock();
        let neighbours = network.neighbours(router);
        neighbours
            .filter_map(|(name, router)| Some((router.id, *keys.known.get(name)?)))
            .sorted_map()
    }
}

impl Keys {
    fn is_checked(&self, network: &Arc<Network>) -> bool {
        let checked = self.checked.as_ref();
        checked.is_some_and(|checked| Arc::ptr_eq(checked, network))
    }

    fn take(&mut self, posted: Arc<PostedKeys>) {
        if self
            .seen
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, &posted))
        {
            return;
        }
        for (router, key) in &*posted {
            let before = self.known.insert(router.clone(), *key);
            if before.is_some_and(|before| before != *key) {
                tracing::warn!(%router, %key, "mesh key of a router changed; its peers get the new one");
            }
        }
        self.seen = Some(posted);
        self.checked = None;
    }
}

/// Returns what is wrong between the keys of the routers.
fn warnings(network: &Network, posted: &PostedKeys) -> Vec<String> {
    let mut owners: BTreeMap<PublicKey, &ObjectName> = BTreeMap::new();
    let mut found = Vec::new();
    for (name, router) in network.routers() {
        let posted = posted.get(name);
        let given = router.mesh.public_key;
        if let (Some(given), Some(posted)) = (given, posted)
            && given != *posted
        {
            found.push(format!(
                "routers/{name}.yaml has mesh.publicKey {given}, and {name} posts {posted}; correct or remove the one in the file"
            ));
        }
        let Some(key) = given.or(posted.copied()) else {
            if network.has_tunnels(name) {
                found.push(format!(
                    "{name} has posted no heartbeat, so that no router builds a tunnel to it, and one that has a tunnel keeps it: \
                     start the agent of {name}, or set mesh.publicKey in routers/{name}.yaml"
                ));
            }
            continue;
        };
        if let Some(owner) = owners.insert(key, name) {
            found.push(format!(
                "{owner} and {name} have the mesh key {key}; a key belongs to one router: remove the copied one, and its agent makes another"
            ));
        }
    }
    found
}

/// Returns the key in a heartbeat.
pub(super) fn key_in(heartbeat: &Value) -> Option<PublicKey> {
    heartbeat.get("meshPublicKey")?.as_str()?.parse().ok()
}
