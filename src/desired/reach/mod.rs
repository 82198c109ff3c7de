//! Computes the addresses that the router has, or must reach: no peer and no loopback may claim one of them
//! (docs/contract/session.md#addresses-of-peers, docs/contract/node-policy-mesh.md#node).
//!
//! An applied address keeps its place: names resolve differently and the settings of the host change.

mod addresses;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use addresses::{Reach, Use};

use super::{AppliedSpecs, Inputs};
use crate::document::{
    BgpSessionSpec, IbgpPeerSpec, Kind, MeshPeerSpec, NodeSpec, RoutingPolicySpec, Spec,
};
use crate::effective::{FieldError, Router};
use crate::model::{AddressRange, Endpoint, ObjectName};
use crate::store::{AppliedDocument, Snapshot};
use crate::util::sorted::Sorted as _;

/// The result of comparing an object's addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) refused: Vec<FieldError>,
    /// Clashes of applied addresses, which keep their place.
    pub(super) remarks: Vec<String>,
}

impl Verdict {
    /// Refuses a field, or only adds a remark if the address is already applied.
    fn add(&mut self, field: &str, reason: String, is_applied: bool) {
        match is_applied {
            true => self.remarks.push(format!(
                "{field}: {reason}; the address is applied and stays"
            )),
            false => self.refused.push(FieldError::new(field, reason)),
        }
    }

    /// Returns the remarks as one text.
    pub(super) fn remark(self) -> Option<String> {
        (!self.remarks.is_empty()).then(|| self.remarks.join("; "))
    }
}

impl Reach {
    /// Returns the addresses of the host, and those that documents, overrides, records and the policy name.
    pub(super) fn of(
        inputs: &Inputs<'_>,
        policy: &RoutingPolicySpec,
        applied: &AppliedSpecs<'_>,
    ) -> Self {
        let (mut reach, snapshot) = (inputs.material.reach.clone(), inputs.snapshot);
        for (kind, name, endpoint) in endpoints(snapshot, applied) {
            reach.endpoint(&endpoint, kind, &name);
        }
        for (name, spec) in valid(&snapshot.mesh).chain(&recorded(snapshot, Kind::MeshPeer)) {
            let spec: &MeshPeerSpec = spec;
            reach.loopbacks(
                mesh_addresses(spec).map(|(_, it)| it),
                &Kind::MeshPeer.path(name),
            );
        }
        for (name, spec) in valid(&snapshot.ibgp) {
            reach.loopbacks(
                ibgp_addresses(spec).map(|(_, it)| it),
                &Kind::IbgpPeer.path(name),
            );
        }
        for server in &policy.rpki.servers {
            let endpoint = server.endpoint();
            let resolved = inputs
                .material
                .rpki
                .get(&endpoint)
                .and_then(|known| known.address);
            if let Some(address) = endpoint.address().map(|it| it.ip()).or(resolved) {
                let what = format!("the RPKI server {}", server.host);
                reach.add(address, Use::Needed, what);
            }
        }
        for (name, spec) in applied.all() {
            for (_, address) in peer_addresses(spec) {
                reach.peers.entry(address).or_default().insert(name.clone());
            }
        }
        reach
    }

    /// Adds the addresses of the router itself.
    pub(super) fn add_own(&mut self, router: &Router) {
        let v4 = router.loopback_ipv4.map(IpAddr::V4);
        for address in v4.into_iter().chain(router.loopback_ipv6.map(IpAddr::V6)) {
            self.add(address, Use::Own, "this router's own address");
        }
    }
}

/// Returns the specifications of valid documents.
fn valid<S>(
    slots: &BTreeMap<ObjectName, crate::store::Slot<S>>,
) -> impl Iterator<Item = (&ObjectName, &S)> {
    let stored = |(name, slot)| -> Option<(&ObjectName, &S)> {
        let slot: &crate::store::Slot<S> = slot;
        slot.as_ref()
            .ok()
            .map(|stored| (name, &stored.document.spec))
    };
    slots.iter().filter_map(stored)
}

/// Returns the specifications of applied records.
fn recorded<S: Spec>(snapshot: &Snapshot, kind: Kind) -> BTreeMap<ObjectName, S> {
    let records = snapshot.applied.iter();
    let records = records.filter(|((of, _), _)| *of == kind);
    records
        .filter_map(|((_, name), stored)| Some((name.clone(), applied_spec(&stored.document)?)))
        .sorted_map()
}

/// Returns the specification of an applied record.
fn applied_spec<S: Spec>(applied: &AppliedDocument) -> Option<S> {
    applied.applied.spec.as_ref()?.read().ok()
}

/// Returns the endpoints that documents, records and overrides name, each with its object. Their names are looked up
/// even if the object is refused: a refusal for an address holds only while the address is known.
fn endpoints(snapshot: &Snapshot, applied: &AppliedSpecs<'_>) -> Vec<(Kind, ObjectName, Endpoint)> {
    let of_session = |(name, spec): (&ObjectName, &BgpSessionSpec)| {
        let endpoint = spec.tunnel.endpoint.clone()?;
        Some((Kind::BgpSession, name.clone(), endpoint))
    };
    let of_mesh = |(name, spec): (&ObjectName, &MeshPeerSpec)| {
        Some((Kind::MeshPeer, name.clone(), spec.endpoint.clone()?))
    };
    let sessions = valid(&snapshot.sessions)
        .chain(applied.all())
        .filter_map(of_session);
    let mesh = valid(&snapshot.mesh).filter_map(of_mesh);
    sessions
        .chain(mesh)
        .chain(recorded_endpoints(snapshot, applied))
        .chain(overridden_endpoints(snapshot))
        .collect()
}

/// Returns the endpoints of the other applied records.
fn recorded_endpoints(
    snapshot: &Snapshot,
    applied: &AppliedSpecs<'_>,
) -> impl Iterator<Item = (Kind, ObjectName, Endpoint)> {
    let is_parsed = |kind: Kind, name| kind == Kind::BgpSession && applied.get(name).is_some();
    let records = snapshot.applied.iter();
    let records =
        records.filter(move |((kind, name), _)| kind.has_tunnel() && !is_parsed(*kind, name));
    records.filter_map(|((kind, name), stored)| {
        let spec = stored.document.applied.spec.as_ref()?;
        let endpoint = spec.text_at(kind.endpoint_field())?;
        Some((*kind, name.clone(), endpoint.parse().ok()?))
    })
}

/// Returns the endpoints that overrides set.
fn overridden_endpoints(snapshot: &Snapshot) -> impl Iterator<Item = (Kind, ObjectName, Endpoint)> {
    let overrides = snapshot.overrides.iter();
    overrides.filter_map(|((kind, name), slot)| {
        let set = &slot.as_ref().ok()?.document.spec.set;
        let mut field = kind.endpoint_field().split('/').skip(1);
        let value = set.get(field.next()?)?;
        let value = field.try_fold(value, |value, part| value.get(part))?;
        Some((*kind, name.clone(), value.as_str()?.parse().ok()?))
    })
}

/// Returns the peer's addresses that are not link-local, each with its field. A link-local address belongs to its
/// interface, and two sessions may share one.
pub(super) fn peer_addresses(
    spec: &BgpSessionSpec,
) -> impl Iterator<Item = (&'static str, IpAddr)> + use<> {
    let v4 = spec.address.peer_ipv4.map(IpAddr::V4);
    let v6 = spec.address.peer_ipv6.map(|address| address.get());
    let v6 = v6.filter(|address| !address.is_unicast_link_local());
    let v4 = v4.map(|address| ("spec.address.peerIpv4", address));
    v4.into_iter()
        .chain(v6.map(|address| ("spec.address.peerIpv6", IpAddr::V6(address))))
}

/// Returns the loopback addresses of a peer of the backbone, each with its field.
pub(super) fn mesh_addresses(
    spec: &MeshPeerSpec,
) -> impl Iterator<Item = (&'static str, IpAddr)> + use<> {
    loopbacks(
        spec.loopback_ipv4.map(IpAddr::V4),
        spec.loopback_ipv6.map(IpAddr::V6),
    )
}

/// Returns the loopback addresses of an internal neighbour, each with its field.
pub(super) fn ibgp_addresses(
    spec: &IbgpPeerSpec,
) -> impl Iterator<Item = (&'static str, IpAddr)> + use<> {
    loopbacks(
        spec.loopback_ipv4.map(IpAddr::V4),
        spec.loopback_ipv6.map(IpAddr::V6),
    )
}

fn loopbacks(
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
) -> impl Iterator<Item = (&'static str, IpAddr)> {
    let v4 = v4.map(|address| ("spec.loopbackIpv4", address));
    v4.into_iter()
        .chain(v6.map(|address| ("spec.loopbackIpv6", address)))
}

/// Compares a peer's addresses and endpoint with the addresses that the router has or must reach.
pub(super) fn check_peer(
    name: &ObjectName,
    spec: &BgpSessionSpec,
    reach: &Reach,
    extra: &[AddressRange],
    before: Option<&BgpSessionSpec>,
) -> Verdict {
    let held: BTreeSet<IpAddr> = before
        .into_iter()
        .flat_map(peer_addresses)
        .map(|(_, address)| address)
        .sorted_set();
    let interface = spec.tunnel.interface.as_ref();
    let through_its_own_tunnel =
        |of: &Use| matches!(of, Use::Gateway(out) if Some(out) == interface);
    let mut verdict = Verdict::default();
    for (field, address) in peer_addresses(spec) {
        let used = reach.find(address, |of| !through_its_own_tunnel(of));
        let reason = if !is_allowed(address, extra) {
            out_of_range(
                address,
                "fe80::/10, fc00::/7",
                "give the peer another address",
            )
        } else if let Some(what) = used {
            format!("{address} is {what}; give the peer another address")
        } else {
            continue;
        };
        verdict.add(field, reason, held.contains(&address));
    }
    let endpoint = spec.tunnel.endpoint.as_ref();
    let is_applied = before.is_some_and(|before| before.tunnel.endpoint.as_ref() == endpoint);
    let why = endpoint.and_then(|it| leads_into_tunnel(it, Some(name), reach));
    if let Some(reason) = why {
        verdict.add("spec.tunnel.endpoint", reason, is_applied);
    }
    verdict
}

/// Compares the addresses and the endpoint of a backbone peer with the addresses that the router has, and with those
/// that its sessions route into their tunnels.
pub(super) fn check_mesh(
    spec: &MeshPeerSpec,
    reach: &Reach,
    applied: Option<&AppliedDocument>,
) -> Verdict {
    let mut verdict = check_internal(spec, mesh_addresses, reach, applied);
    let before = applied.and_then(applied_spec::<MeshPeerSpec>);
    let is_applied = before.is_some_and(|before| before.endpoint == spec.endpoint);
    let endpoint = spec.endpoint.as_ref();
    if let Some(reason) = endpoint.and_then(|it| leads_into_tunnel(it, None, reach)) {
        verdict.add("spec.endpoint", reason, is_applied);
    }
    verdict
}

/// Returns the reason why packets to an endpoint would enter the tunnel of a session other than its `own`.
fn leads_into_tunnel(
    endpoint: &Endpoint,
    own: Option<&ObjectName>,
    reach: &Reach,
) -> Option<String> {
    reach.addresses(endpoint).into_iter().find_map(|address| {
        let other = reach
            .peers
            .get(&address)?
            .iter()
            .find(|it| Some(*it) != own)?;
        Some(format!(
            "{address} is the applied peer address of sessions/{other}, so packets to it enter that tunnel; give \
             another endpoint"
        ))
    })
}

/// Compares the addresses of a router of this network with this router's own.
pub(super) fn check_internal<S: Spec, I: Iterator<Item = (&'static str, IpAddr)>>(
    spec: &S,
    addresses: impl Fn(&S) -> I,
    reach: &Reach,
    applied: Option<&AppliedDocument>,
) -> Verdict {
    let before = applied.and_then(applied_spec::<S>);
    let held: BTreeSet<IpAddr> = before
        .iter()
        .flat_map(&addresses)
        .map(|(_, address)| address)
        .sorted_set();
    let mut verdict = Verdict::default();
    for (field, address) in addresses(spec) {
        if let Some(what) = reach.find(address.to_canonical(), |of| *of == Use::Own) {
            let reason = format!("{address} is {what}; give the peer another address");
            verdict.add(field, reason, held.contains(&address));
        }
    }
    verdict
}

/// Compares the node's loopback addresses with the addresses that the router must reach. An address that the host
/// already has stays reachable.
pub(super) fn check_loopbacks(
    node: &NodeSpec,
    reach: &Reach,
    extra: &[AddressRange],
    before: Option<&NodeSpec>,
) -> Verdict {
    let of = |node: &NodeSpec| {
        loopbacks(
            node.loopback_ipv4.map(IpAddr::V4),
            node.loopback_ipv6.map(IpAddr::V6),
        )
    };
    let held: BTreeSet<IpAddr> = before
        .into_iter()
        .flat_map(of)
        .map(|(_, it)| it)
        .sorted_set();
    let mut verdict = Verdict::default();
    for (field, address) in of(node) {
        let is_needed = |of: &Use| matches!(of, Use::Needed | Use::Gateway(_));
        let is_own = reach.find(address, |of| *of == Use::Own).is_some();
        let peer = reach.peers.get(&address).and_then(|names| names.first());
        let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let reason = if is_link_local || !is_allowed(address, extra) {
            out_of_range(
                address,
                "fc00::/7",
                "give the node another loopback address",
            )
        } else if let Some(what) = reach.find(address, is_needed).filter(|_| !is_own) {
            format!("{address} is {what}; give the node another loopback address")
        } else if let Some(name) = peer {
            format!(
                "{address} is the applied peer address of sessions/{name}; give the node another loopback address"
            )
        } else {
            continue;
        };
        verdict.add(field, reason, held.contains(&address));
    }
    verdict
}

fn out_of_range(address: IpAddr, v6: &str, action: &str) -> String {
    let ranges = match address {
        IpAddr::V4(_) => "172.20.0.0/14, 10.0.0.0/8",
        IpAddr::V6(_) => v6,
    };
    format!(
        "{address} is in none of {ranges} and policy.extraRanges; {action}, or add its range to the policy"
    )
}

/// Returns whether an address is allowed for a peer or a loopback.
pub(super) fn is_allowed(address: IpAddr, extra: &[AddressRange]) -> bool {
    let own = match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            first == 10 || (first == 172 && (20..24).contains(&second))
        }
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unique_local(),
    };
    own || extra.iter().any(|range| range.contains(address))
}

#[cfg(test)]
mod tests;
