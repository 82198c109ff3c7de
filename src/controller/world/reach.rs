//! Addresses that the router has, or must reach: no peer may claim one of them
//! (docs/contract/session.md#addresses-of-peers).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Inputs;
use crate::document::{BgpSessionSpec, Kind, RoutingPolicySpec};
use crate::effective::{FieldError, Router};
use crate::model::{AddressRange, Endpoint, ObjectName};
use crate::store::AppliedDocument;

/// Addresses that a peer may not claim, each with what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach(pub BTreeMap<IpAddr, String>);

impl Reach {
    /// Adds an address; what is known of it already stays.
    pub fn add(&mut self, address: IpAddr, what: impl Into<String>) {
        self.0
            .entry(address.to_canonical())
            .or_insert_with(|| what.into());
    }

    fn endpoint(&mut self, endpoint: Option<&Endpoint>, kind: Kind, name: &ObjectName) {
        if let Some(address) = endpoint.and_then(Endpoint::address) {
            self.add(
                address.ip(),
                format!("the endpoint of {}/{name}", kind.folder()),
            );
        }
    }

    /// The host's addresses, and those that documents, the node and the policy name.
    pub(super) fn of(
        inputs: &Inputs<'_>,
        router: Option<&Router>,
        policy: &RoutingPolicySpec,
    ) -> Self {
        let (mut reach, snapshot) = (inputs.reach.clone(), inputs.snapshot);
        let loopbacks = router.map(|router| {
            let v4 = router.loopback_ipv4.map(IpAddr::V4);
            v4.into_iter().chain(router.loopback_ipv6.map(IpAddr::V6))
        });
        for address in loopbacks.into_iter().flatten() {
            reach.add(address, "our own address");
        }
        for (name, stored) in valid(&snapshot.sessions) {
            reach.endpoint(stored.tunnel.endpoint.as_ref(), Kind::BgpSession, name);
        }
        for (name, spec) in valid(&snapshot.mesh) {
            reach.endpoint(spec.endpoint.as_ref(), Kind::MeshPeer, name);
            let v4 = spec.loopback_ipv4.map(IpAddr::V4);
            for address in v4.into_iter().chain(spec.loopback_ipv6.map(IpAddr::V6)) {
                reach.add(address, format!("the loopback address of mesh/{name}"));
            }
        }
        for (name, spec) in valid(&snapshot.ibgp) {
            let v4 = spec.loopback_ipv4.map(IpAddr::V4);
            for address in v4.into_iter().chain(spec.loopback_ipv6.map(IpAddr::V6)) {
                reach.add(address, format!("the loopback address of ibgp/{name}"));
            }
        }
        for server in &policy.rpki.servers {
            let endpoint = server.endpoint();
            let resolved = inputs.rpki.get(&endpoint).and_then(|known| known.address);
            if let Some(address) = endpoint.address().or(resolved) {
                reach.add(address.ip(), format!("the RPKI server {}", server.host));
            }
        }
        reach
    }
}

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

/// The peer's addresses that are not link-local, each with its field. A link-local address belongs to its
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

/// Refuses a peer's address that is outside the ranges of peers, or that the router has or must reach. An
/// address that is already applied keeps its place: resolved names and the host's settings may change.
pub(super) fn check_peer(
    spec: &BgpSessionSpec,
    reach: &Reach,
    extra: &[AddressRange],
    applied: Option<&AppliedDocument>,
) -> Result<(), FieldError> {
    let before = applied.and_then(|applied| applied.applied.spec.clone());
    let before = before.and_then(|spec| serde_json::from_value::<BgpSessionSpec>(spec).ok());
    let held: BTreeSet<IpAddr> = before
        .iter()
        .flat_map(peer_addresses)
        .map(|(_, address)| address)
        .collect();
    for (field, address) in peer_addresses(spec).filter(|(_, address)| !held.contains(address)) {
        if !is_allowed(address, extra) {
            let ranges = if address.is_ipv4() {
                "172.20.0.0/14, 10.0.0.0/8"
            } else {
                "fe80::/10, fc00::/7"
            };
            let reason = format!(
                "{address} is in none of {ranges} and policy.extraRanges; give the peer another address, or add \
                 its range to the policy"
            );
            return Err(FieldError::new(field, reason));
        }
        if let Some(what) = reach.0.get(&address) {
            let reason = format!("{address} is {what}; give the peer another address");
            return Err(FieldError::new(field, reason));
        }
    }
    Ok(())
}

/// Whether an address may be a peer's or a loopback's.
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
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(field: &str, address: &str) -> BgpSessionSpec {
        let spec = json!({"asn": 4_242_421_080_u32, "address": {field: address}, "tunnel": {"type": "wireguard"}});
        serde_json::from_value(spec).unwrap()
    }

    fn judge(field: &str, address: &str, extra: &[&str]) -> Result<(), String> {
        let mut reach = Reach::default();
        reach.add("172.20.0.53".parse().unwrap(), "a name server's address");
        reach.add("fd00::1".parse().unwrap(), "the endpoint of sessions/x");
        let extra: Vec<_> = extra.iter().map(|range| range.parse().unwrap()).collect();
        check_peer(&spec(field, address), &reach, &extra, None).map_err(|error| error.to_string())
    }

    #[test]
    fn peer_addresses_are_in_the_ranges_of_peers() {
        for (field, address) in [
            ("peerIpv4", "172.20.1.1"),
            ("peerIpv4", "10.9.9.9"),
            ("peerIpv6", "fd42::9"),
            ("peerIpv6", "fe80::1"),
            ("peerLinkLocal", "fe80::1"),
        ] {
            assert_eq!(judge(field, address, &[]), Ok(()), "{address}");
        }
        for (field, address) in [
            ("peerIpv4", "172.24.0.1"),
            ("peerIpv4", "192.0.2.1"),
            ("peerIpv4", "127.0.0.1"),
            ("peerIpv6", "2001:db8::1"),
        ] {
            let why = judge(field, address, &[]).unwrap_err();
            assert!(
                why.starts_with(&format!("spec.address.{field}: {address} is in none")),
                "{why}"
            );
            let extra = [
                "192.0.2.0/24",
                "172.24.0.0/16",
                "127.0.0.0/8",
                "2001:db8::/32",
            ];
            assert_eq!(judge(field, address, &extra), Ok(()), "{address}");
        }
    }

    #[test]
    fn peer_never_claims_what_the_router_must_reach() {
        let why = judge("peerIpv4", "172.20.0.53", &[]).unwrap_err();
        assert!(why.contains("a name server's address"), "{why}");
        let why = judge("peerIpv6", "fd00::1", &[]).unwrap_err();
        assert!(why.contains("the endpoint of sessions/x"), "{why}");
    }
}
