//! The description of a network, and what each router gets from it. Pure.
//!
//! `network.yaml` and `routers/<name>.yaml` are the structure: if one of them has an error, nothing is derived, because
//! a router that is left out of the structure would be removed from all others. A session has a file of its own, and an
//! error in it affects that session only.

mod answers;
mod care;
mod files;
mod findings;
mod owner;
mod owner_files;
mod read;
mod rules;
mod spec;
mod token;
mod topology;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

pub use answers::Tunnel;
pub(super) use answers::session;
pub use care::{Budgets, Gates, Percent, RolloutSpec, Wave};
pub use files::{
    FleetFiles, NETWORK, OWNERS, RESERVED, ROUTERS, SESSIONS, is_ignored, is_structure,
    maintenance_path, owner_path, router_path, session_path,
};
pub use findings::findings;
pub use owner::{OwnerLimits, OwnerSpec};
pub use spec::{NetworkSpec, RouterSpec, schemas};
pub use token::{TokenFields, TokenHash};
pub use topology::Named;

use crate::model::{LinkLocal, ObjectName, PublicKey};

/// The last public key that each router posted, by its id.
pub type MeshKeys = BTreeMap<u16, PublicKey>;

/// A network whose structure is valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    spec: NetworkSpec,
    /// Shared with the network of an earlier moment, in which a file is the same.
    routers: BTreeMap<ObjectName, Arc<RouterSpec>>,
    index: topology::Index,
}

impl Network {
    /// Returns a router by its name.
    pub fn router(&self, name: &ObjectName) -> Option<&RouterSpec> {
        self.routers.get(name).map(Arc::as_ref)
    }

    /// Returns whether there is a router of this name, which may be no valid one.
    fn has(&self, name: &str) -> bool {
        name.parse()
            .is_ok_and(|name| self.routers.contains_key(&name))
    }

    /// Returns why a router without any session is not served, if it had this number of sessions before that were not
    /// deleted: their folder may not be mounted.
    pub fn lost_sessions(&self, name: &ObjectName, before: usize) -> Option<String> {
        let router = self.router(name)?;
        (before > 0 && !router.allow_no_sessions).then(|| {
            format!(
                "{SESSIONS}/{name}/ has no file, and sessions ({before}) that it had before were not deleted: restore their \
                 files, or set allowNoSessions: true in {} to remove them",
                router_path(name)
            )
        })
    }

    fn named(&self, name: &ObjectName) -> Option<Named<'_>> {
        self.routers.get_key_value(name).map(named)
    }

    /// Returns all routers by their names.
    pub fn routers(&self) -> impl Iterator<Item = Named<'_>> {
        self.routers.iter().map(named)
    }

    /// Returns how a change reaches the routers; `None`: at once.
    pub fn rollout(&self) -> Option<&RolloutSpec> {
        self.spec.rollout.as_ref()
    }

    /// Returns how many routers may be out of service.
    pub fn budgets(&self) -> &Budgets {
        &self.spec.budgets
    }

    /// Returns the tokens of each router.
    pub fn tokens(&self) -> impl Iterator<Item = (ObjectName, TokenFields)> {
        self.routers.iter().map(|(name, router)| {
            let fields = TokenFields {
                token: router.token.clone(),
                token_file: router.token_file.clone(),
                token_hashes: router.token_hashes.clone(),
            };
            (name.clone(), fields)
        })
    }

    /// Returns the loopback IPv4 address of a router: the given one, else the network's prefix and the id.
    fn loopback_ipv4(&self, router: &RouterSpec) -> Option<Ipv4Addr> {
        router.loopback_ipv4.or_else(|| {
            let net = self.spec.prefixes.ipv4?;
            let room = 1u64 << (32 - net.prefix_len());
            let bits = u32::from(net.network()) | u32::from(router.id);
            (u64::from(router.id) < room).then(|| Ipv4Addr::from(bits))
        })
    }

    /// Returns the loopback IPv6 address of a router, as for IPv4.
    fn loopback_ipv6(&self, router: &RouterSpec) -> Option<Ipv6Addr> {
        router.loopback_ipv6.or_else(|| {
            let net = self.spec.prefixes.ipv6?;
            let bits = u32::from(128 - net.prefix_len());
            let fits = bits >= 16 || u32::from(router.id) < 1 << bits;
            fits.then(|| Ipv6Addr::from(u128::from(net.network()) | u128::from(router.id)))
        })
    }

    /// Returns the link-local address of a router in every tunnel.
    fn link_local(&self, router: &RouterSpec) -> LinkLocal {
        router
            .link_local
            .unwrap_or_else(|| LinkLocal::derived(self.spec.asn, router.id))
    }
}

fn named<'n>((name, router): (&'n ObjectName, &'n Arc<RouterSpec>)) -> Named<'n> {
    (name, router)
}

#[cfg(test)]
mod tests;
