//! Which routers have tunnels and internal sessions between them. The answer for two routers depends on these two and
//! on network.yaml only, so that another router changes no link.

use super::Network;
use super::spec::{Ibgp, LinkSpec, RouterSpec, Topology};
use crate::model::{NodeType, ObjectName};

/// A router with its name.
pub type Named<'n> = (&'n ObjectName, &'n RouterSpec);

impl Network {
    /// Returns the routers to which a router has a tunnel.
    pub(super) fn tunnel_peers<'n>(&'n self, of: Named<'n>) -> impl Iterator<Item = Named<'n>> {
        let others = self.routers.iter().filter(move |other| other.0 != of.0);
        others.filter(move |other| self.has_tunnel(of, *other))
    }

    /// Returns the routers with which a router has an internal session.
    pub(super) fn ibgp_peers<'n>(&'n self, of: Named<'n>) -> impl Iterator<Item = Named<'n>> {
        let others = self.routers.iter().filter(move |other| other.0 != of.0);
        others.filter(move |other| self.has_session(of.1, other.1))
    }

    /// Returns whether a router has a tunnel to any other.
    pub fn has_tunnels(&self, name: &ObjectName) -> bool {
        let own = self.routers.get_key_value(name);
        own.is_some_and(|own| self.tunnel_peers(own).next().is_some())
    }

    /// Returns the routers whose files change the answers of a router, beside its own.
    pub fn neighbours<'n>(&'n self, of: Named<'n>) -> impl Iterator<Item = &'n ObjectName> {
        let others = self.routers.iter().filter(move |other| other.0 != of.0);
        others
            .filter(move |other| self.has_tunnel(of, *other) || self.has_session(of.1, other.1))
            .map(|other| other.0)
    }

    fn has_tunnel(&self, one: Named<'_>, other: Named<'_>) -> bool {
        let wanted = match self.spec.mesh.topology {
            Topology::Full => true,
            Topology::Ring => self.are_neighbours(one.1, other.1),
            Topology::Hub => is_reflector(one.1) || is_reflector(other.1),
        };
        let allows = |from: Named<'_>, to: Named<'_>| {
            from.1.mesh.enabled && link(from.1, to.0).is_none_or(|link| link.enabled)
        };
        wanted && allows(one, other) && allows(other, one)
    }

    fn has_session(&self, one: &RouterSpec, other: &RouterSpec) -> bool {
        let wanted = match self.ibgp() {
            Ibgp::Full => true,
            Ibgp::Reflectors => is_reflector(one) || is_reflector(other),
        };
        wanted && one.mesh.enabled && other.mesh.enabled
    }

    pub(super) fn ibgp(&self) -> Ibgp {
        let mesh = &self.spec.mesh;
        mesh.ibgp.unwrap_or(match mesh.topology {
            Topology::Hub => Ibgp::Reflectors,
            Topology::Full | Topology::Ring => Ibgp::Full,
        })
    }

    /// Returns whether two routers are in one region, or in neighbouring regions of the ring.
    fn are_neighbours(&self, one: &RouterSpec, other: &RouterSpec) -> bool {
        let ring = &self.spec.mesh.ring;
        let place = |router: &RouterSpec| {
            let region = router.region.as_ref()?;
            ring.iter().position(|name| name == region)
        };
        let (Some(one), Some(other)) = (place(one), place(other)) else {
            return false;
        };
        let apart = one.abs_diff(other);
        apart <= 1 || apart + 1 == ring.len()
    }
}

/// Returns the values that a router gives for its tunnel to a peer.
pub(super) fn link<'r>(router: &'r RouterSpec, peer: &ObjectName) -> Option<&'r LinkSpec> {
    router.mesh.links.get(peer)
}

pub(super) fn is_reflector(router: &RouterSpec) -> bool {
    router.node_type == NodeType::Rr
}
