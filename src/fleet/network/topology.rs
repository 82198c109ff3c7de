//! Which routers have tunnels and internal sessions between them. The answer for two routers depends on these two and
//! on network.yaml only, so that another router changes no link.

use std::collections::{BTreeMap, BTreeSet};

use super::Network;
use super::spec::{Ibgp, LinkSpec, NetworkSpec, RouterSpec, Topology};
use crate::model::{NodeType, ObjectName};
use crate::util::sorted::Sorted as _;

/// A router with its name.
pub type Named<'n> = (&'n ObjectName, &'n RouterSpec);

/// The routers among which the peers of one are, so that it is not compared with all others.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Index {
    /// Those of each region of the ring, in its order.
    ring: Vec<Vec<ObjectName>>,
    /// The place of each region in the ring.
    places: BTreeMap<String, usize>,
    reflectors: Vec<ObjectName>,
}

impl Index {
    pub(super) fn new(spec: &NetworkSpec, routers: &BTreeMap<ObjectName, RouterSpec>) -> Self {
        let mut regions: BTreeMap<&str, Vec<ObjectName>> = BTreeMap::new();
        for (name, router) in routers {
            if let Some(region) = &router.region {
                regions.entry(region).or_default().push(name.clone());
            }
        }
        let ring = &spec.mesh.ring;
        let mut places = BTreeMap::new();
        for (place, region) in ring.iter().enumerate() {
            // Of a region that is there twice, the first place counts.
            places.entry(region.clone()).or_insert(place);
        }
        let ring = ring.iter();
        let ring = ring.map(|region| regions.remove(region.as_str()).unwrap_or_default());
        let reflectors = routers.iter().filter(|(_, router)| is_reflector(router));
        Self {
            ring: ring.collect(),
            places,
            reflectors: reflectors.map(|(name, _)| name.clone()).collect(),
        }
    }
}

impl Network {
    /// Returns the routers to which a router has a tunnel.
    pub(super) fn tunnel_peers<'n>(&'n self, of: Named<'n>) -> impl Iterator<Item = Named<'n>> {
        let wanted = match self.spec.mesh.topology {
            Topology::Full => None,
            Topology::Ring => Some(self.near(of.1)),
            Topology::Hub => self.for_reflections(of.1),
        };
        let others = self.among(wanted).filter(move |other| other.0 != of.0);
        others.filter(move |other| allows_tunnel(of, *other))
    }

    /// Returns the routers with which a router has an internal session.
    pub(super) fn ibgp_peers<'n>(&'n self, of: Named<'n>) -> impl Iterator<Item = Named<'n>> {
        let wanted = match self.ibgp() {
            Ibgp::Full => None,
            Ibgp::Reflectors => self.for_reflections(of.1),
        };
        let others = self.among(wanted).filter(move |other| other.0 != of.0);
        others.filter(move |other| of.1.mesh.enabled && other.1.mesh.enabled)
    }

    /// Returns whether a router has a tunnel to any other.
    pub fn has_tunnels(&self, name: &ObjectName) -> bool {
        let own = self.routers.get_key_value(name);
        own.is_some_and(|own| self.tunnel_peers(own).next().is_some())
    }

    /// Returns the routers whose files change the answers of a router, beside its own; one may come twice.
    pub fn neighbours<'n>(&'n self, of: &ObjectName) -> impl Iterator<Item = Named<'n>> {
        let of = self.routers.get_key_value(of).into_iter();
        of.flat_map(|of| self.tunnel_peers(of).chain(self.ibgp_peers(of)))
    }

    pub(super) fn ibgp(&self) -> Ibgp {
        let mesh = &self.spec.mesh;
        mesh.ibgp.unwrap_or(match mesh.topology {
            Topology::Hub => Ibgp::Reflectors,
            Topology::Full | Topology::Ring => Ibgp::Full,
        })
    }

    /// Returns the routers of a router's region and of those beside it in the ring.
    fn near(&self, router: &RouterSpec) -> BTreeSet<&ObjectName> {
        let ring = &self.index.ring;
        let place = |region: &String| self.index.places.get(region).copied();
        let Some(place) = router.region.as_ref().and_then(place) else {
            return BTreeSet::new();
        };
        let beside = [place, place + 1, place + ring.len() - 1];
        let regions = beside.map(|place| &ring[place % ring.len()]);
        regions.into_iter().flatten().sorted_set()
    }

    /// Returns those with which a router is connected through reflectors; `None`: all.
    fn for_reflections(&self, router: &RouterSpec) -> Option<BTreeSet<&ObjectName>> {
        (!is_reflector(router)).then(|| self.index.reflectors.iter().sorted_set())
    }

    /// Returns the routers of these names, all without names, in the order of their names.
    fn among<'n>(
        &'n self,
        names: Option<BTreeSet<&'n ObjectName>>,
    ) -> impl Iterator<Item = Named<'n>> {
        let all = names.is_none().then(|| self.routers.iter());
        let named = names.into_iter().flatten();
        let named = named.filter_map(|name| self.routers.get_key_value(name));
        named.chain(all.into_iter().flatten())
    }
}

fn allows_tunnel(one: Named<'_>, other: Named<'_>) -> bool {
    let allows = |from: Named<'_>, to: Named<'_>| {
        from.1.mesh.enabled && link(from.1, to.0).is_none_or(|link| link.enabled)
    };
    allows(one, other) && allows(other, one)
}

/// Returns the values that a router gives for its tunnel to a peer.
pub(super) fn link<'r>(router: &'r RouterSpec, peer: &ObjectName) -> Option<&'r LinkSpec> {
    router.mesh.links.get(peer)
}

pub(super) fn is_reflector(router: &RouterSpec) -> bool {
    router.node_type == NodeType::Rr
}
