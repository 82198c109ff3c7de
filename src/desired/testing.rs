//! Desired states for unit tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Desired, Inputs, Material, Reach, Refused};
use crate::desired::guard::Ledger;
use crate::model::{PrivateKey, RouterKey};
use crate::store::Store;

/// Returns the desired state of a state directory, on a router without any other state.
pub(crate) fn desired(store: &Store, refused: &Refused) -> Desired {
    desired_beside(store, refused, &Reach::default())
}

/// Returns the same desired state on a host with these addresses.
pub(crate) fn desired_beside(store: &Store, refused: &Refused, reach: &Reach) -> Desired {
    let config = "{node: {name: jp1, id: 1, asn: 4242420998, loopbackIpv6: 'fd48:4242:420::1'}}";
    let renderer = crate::render::Renderer::new(&BTreeMap::new()).unwrap();
    let config = crate::config::parse(config).unwrap();
    let key = RouterKey::Available {
        private: PrivateKey::new([200; 32]),
        public: crate::model::PublicKey::new([200; 32]),
    };
    let material = Material {
        refused: refused.clone(),
        reach: reach.clone(),
        ..Material::new(Arc::new(config), key, Arc::new(renderer))
    };
    Desired::build(&Inputs {
        sessions: &super::SessionCache::default(),
        snapshot: &store.load().unwrap(),
        material: &material,
        guard: crate::desired::guard::Input {
            ledger: &Ledger::default(),
            now: jiff::Timestamp::UNIX_EPOCH,
            writable: true,
        },
        now: jiff::Timestamp::UNIX_EPOCH,
    })
}
