//! Which routers have tunnels and internal sessions between them. The answer for two routers depends on these two and
//! on network.yaml only, so that another router changes no link.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Network;
use super::spec::{Ibgp, LinkSpec, NetworkSpec, RouterSpec, Topology};
use crate::model::{NodeType, ObjectName};

/// A router with its name.
pub type Named<'n> = (&'n ObjectName, &'n RouterSpec);

/// The routers among which the peers of one are, so that it is not compared with all others. Each list is in the order
/// of the names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Index {
    /// Those of each region of the ring, in its order.
    ring: Vec<Vec<Entry>>,
    /// The place of each region in the ring.
    pub(super) places: BTreeMap<String, usize>,
    reflectors: Vec<Entry>,
}

type Entry = (ObjectName, Arc<RouterSpec>);

impl Index {
    pub(super) fn new(spec: &NetworkSpec, routers: &BTreeMap<ObjectName, Arc<RouterSpec>>) -> Self {
        let mut regions: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
        for (name, router) in routers {
            if let Some(region) = &router.region {
                let entry = (name.clone(), Arc::clone(router));
                regions.entry(region).or_default().push(entry);
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
            reflectors: reflectors
                .map(|(name, router)| (name.clone(), Arc::clone(router)))
                .collect(),
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
        let own = self.named(name);
        own.is_some_and(|own| self.tunnel_peers(own).next().is_some())
    }

    /// Returns the routers whose files change the answers of a router, beside its own; one may come twice.
    pub fn neighbours<'n>(&'n self, of: &ObjectName) -> impl Iterator<Item = Named<'n>> {
        let of = self.named(of).into_iter();
        of.flat_map(|of| self.tunnel_peers(of).chain(self.ibgp_peers(of)))
    }

    pub(super) fn ibgp(&self) -> Ibgp {
        let mesh = &self.spec.mesh;
        mesh.ibgp.unwrap_or(match mesh.topology {
            Topology::Hub => Ibgp::Reflectors,
            Topology::Full | Topology::Ring => Ibgp::Full,
        })
    }

    /// Returns the routers of a router's region and of those beside it in the ring, in the order of their names.
    fn near(&self, router: &RouterSpec) -> Vec<Named<'_>> {
        let ring = &self.index.ring;
        let place = |region: &String| self.index.places.get(region).copied();
        let Some(place) = router.region.as_ref().and_then(place) else {
            return Vec::new();
        };
        let beside = [place, place + 1, place + ring.len() - 1];
        let regions = beside.map(|place| &ring[place % ring.len()]);
        let mut near: Vec<_> = regions.into_iter().flatten().map(named).collect();
        // Stable, which merges what is in order already.
        near.sort_by_key(|router| router.0);
        // In a short ring, two of the regions are the same.
        near.dedup_by_key(|router| router.0);
        near
    }

    /// Returns those with which a router is connected through reflectors; `None`: all.
    fn for_reflections(&self, router: &RouterSpec) -> Option<Vec<Named<'_>>> {
        (!is_reflector(router)).then(|| self.index.reflectors.iter().map(named).collect())
    }

    /// Returns these routers; `None`: all, in the order of their names.
    fn among<'n>(&'n self, some: Option<Vec<Named<'n>>>) -> impl Iterator<Item = Named<'n>> {
        let all = some.is_none().then(|| self.routers());
        some.into_iter().flatten().chain(all.into_iter().flatten())
    }
}

fn named((name, router): &Entry) -> Named<'_> {
    (name, router)
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
