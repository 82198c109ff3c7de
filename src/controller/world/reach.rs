//! Computes the addresses that the router has, or must reach: no peer and no loopback may claim one of them
//! (docs/contract/session.md#addresses-of-peers, docs/contract/node-policy-mesh.md#node).
//!
//! An applied address keeps its place: names resolve differently and the settings of the host change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Inputs;
use crate::document::{
    BgpSessionSpec, IbgpPeerSpec, Kind, MeshPeerSpec, NodeSpec, RoutingPolicySpec, Spec,
};
use crate::effective::{FieldError, Router};
use crate::model::{AddressRange, Endpoint, Host, InterfaceName, ObjectName};
use crate::sources::HostAddresses;
use crate::store::{AppliedDocument, Snapshot};

/// How the router uses an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// The router has the address.
    Own,
    /// A router of the same network has the address.
    Internal,
    /// The router must reach the address.
    Needed,
    /// Routes use the address as their gateway, out of this interface.
    Gateway(InterfaceName),
}

/// Addresses that no peer may claim, each with its uses and their descriptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    uses: BTreeMap<IpAddr, BTreeSet<(Use, String)>>,
    /// The peer addresses that sessions have applied.
    peers: BTreeMap<IpAddr, BTreeSet<ObjectName>>,
    /// The addresses of endpoints that are names.
    names: BTreeMap<Endpoint, BTreeSet<IpAddr>>,
    /// Facts of the host that could not be read, each with the reason.
    pub unread: Vec<String>,
}

/// The result of comparing an object's addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The fields that are refused.
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

impl From<HostAddresses> for Reach {
    fn from(host: HostAddresses) -> Self {
        let mut reach = Self {
            names: host.names,
            unread: host.unread,
            ..Self::default()
        };
        for address in host.control_plane {
            reach.add(address, Use::Needed, "the Control Plane's address");
        }
        for address in host.name_servers {
            reach.add(address, Use::Needed, "a name server's address");
        }
        for address in host.own {
            reach.add(address, Use::Own, "an address of this host");
        }
        for (interface, gateway) in host.gateways {
            reach.add(gateway, Use::Gateway(interface), "a gateway of this host");
        }
        reach
    }
}

impl Reach {
    /// Adds a use of an address. Link-local addresses belong to their link and are left out.
    pub fn add(&mut self, address: IpAddr, of: Use, what: impl Into<String>) {
        let address = address.to_canonical();
        let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !is_link_local && !address.is_unspecified() {
            self.uses
                .entry(address)
                .or_default()
                .insert((of, what.into()));
        }
    }

    /// Sets the resolved addresses of an endpoint with a name.
    pub fn name(&mut self, endpoint: &Endpoint, addresses: BTreeSet<IpAddr>) {
        self.names.insert(endpoint.clone(), addresses);
    }

    /// Returns the addresses of endpoints with names.
    pub(super) fn names(&self) -> &BTreeMap<Endpoint, BTreeSet<IpAddr>> {
        &self.names
    }

    /// Returns the known addresses of an endpoint.
    fn addresses(&self, endpoint: &Endpoint) -> BTreeSet<IpAddr> {
        match endpoint.host {
            Host::Address(address) => [address.to_canonical()].into(),
            Host::Name(_) => self.names.get(endpoint).cloned().unwrap_or_default(),
        }
    }

    fn endpoint(&mut self, endpoint: &Endpoint, kind: Kind, name: &ObjectName) {
        let what = match &endpoint.host {
            Host::Address(_) => format!("the endpoint of {}/{name}", kind.folder()),
            Host::Name(host) => format!("the endpoint {host} of {}/{name}", kind.folder()),
        };
        for address in self.addresses(endpoint) {
            self.add(address, Use::Needed, what.clone());
        }
    }

    /// Adds loopback addresses of another router of this network.
    fn loopbacks(&mut self, addresses: impl Iterator<Item = IpAddr>, what: &str) {
        for address in addresses {
            self.add(
                address,
                Use::Internal,
                format!("the loopback address of {what}"),
            );
        }
    }

    /// Returns the addresses of the host, and those that documents, overrides, records and the policy name.
    pub(super) fn of(inputs: &Inputs<'_>, policy: &RoutingPolicySpec) -> Self {
        let (mut reach, snapshot) = (inputs.reach.clone(), inputs.snapshot);
        for (kind, name, endpoint) in endpoints(snapshot) {
            reach.endpoint(&endpoint, kind, &name);
        }
        for (name, spec) in valid(&snapshot.mesh).chain(&recorded(snapshot, Kind::MeshPeer)) {
            let spec: &MeshPeerSpec = spec;
            reach.loopbacks(
                mesh_addresses(spec).map(|(_, it)| it),
                &format!("mesh/{name}"),
            );
        }
        for (name, spec) in valid(&snapshot.ibgp) {
            reach.loopbacks(
                ibgp_addresses(spec).map(|(_, it)| it),
                &format!("ibgp/{name}"),
            );
        }
        for server in &policy.rpki.servers {
            let endpoint = server.endpoint();
            let resolved = inputs.rpki.get(&endpoint).and_then(|known| known.address);
            if let Some(address) = endpoint.address().or(resolved) {
                let what = format!("the RPKI server {}", server.host);
                reach.add(address.ip(), Use::Needed, what);
            }
        }
        for (name, spec) in recorded::<BgpSessionSpec>(snapshot, Kind::BgpSession) {
            for (_, address) in peer_addresses(&spec) {
                reach.peers.entry(address).or_default().insert(name.clone());
            }
        }
        reach
    }

    /// Adds the addresses of the router itself.
    pub(super) fn add_own(&mut self, router: &Router) {
        let v4 = router.loopback_ipv4.map(IpAddr::V4);
        for address in v4.into_iter().chain(router.loopback_ipv6.map(IpAddr::V6)) {
            self.add(address, Use::Own, "our own address");
        }
    }

    /// Returns a use of an address that forbids another one.
    fn find(&self, address: IpAddr, forbids: impl Fn(&Use) -> bool) -> Option<&str> {
        let mut uses = self.uses.get(&address)?.iter();
        uses.find(|(of, _)| forbids(of))
            .map(|(_, what)| what.as_str())
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
        .collect()
}

/// Returns the specification of an applied record.
fn applied_spec<S: Spec>(applied: &AppliedDocument) -> Option<S> {
    serde_json::from_value(applied.applied.spec.clone()?).ok()
}

/// Returns the endpoints that documents, records and overrides name, each with its object. Their names are looked up
/// even if the object is refused: a refusal for an address holds only while the address is known.
pub fn endpoints(snapshot: &Snapshot) -> Vec<(Kind, ObjectName, Endpoint)> {
    let of_session = |(name, spec): (&ObjectName, &BgpSessionSpec)| {
        let endpoint = spec.tunnel.endpoint.clone()?;
        Some((Kind::BgpSession, name.clone(), endpoint))
    };
    let of_mesh = |(name, spec): (&ObjectName, &MeshPeerSpec)| {
        Some((Kind::MeshPeer, name.clone(), spec.endpoint.clone()?))
    };
    let sessions = recorded(snapshot, Kind::BgpSession);
    let sessions = valid(&snapshot.sessions).chain(&sessions);
    let mesh = recorded(snapshot, Kind::MeshPeer);
    let mesh = valid(&snapshot.mesh).chain(&mesh);
    sessions
        .filter_map(of_session)
        .chain(mesh.filter_map(of_mesh))
        .chain(overridden_endpoints(snapshot))
        .collect()
}

/// Returns the endpoints that overrides set.
fn overridden_endpoints(snapshot: &Snapshot) -> impl Iterator<Item = (Kind, ObjectName, Endpoint)> {
    let overrides = snapshot.overrides.iter();
    overrides.filter_map(|((kind, name), slot)| {
        let set = &slot.as_ref().ok()?.document.spec.set;
        let value = match kind {
            Kind::BgpSession => set.get("tunnel")?.get("endpoint")?,
            _ => set.get("endpoint")?,
        };
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
    applied: Option<&AppliedDocument>,
) -> Verdict {
    let before = applied.and_then(applied_spec::<BgpSessionSpec>);
    let held: BTreeSet<IpAddr> = before
        .iter()
        .flat_map(peer_addresses)
        .map(|(_, address)| address)
        .collect();
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
        .collect();
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
    let held: BTreeSet<IpAddr> = before.into_iter().flat_map(of).map(|(_, it)| it).collect();
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
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(field: &str, address: &str) -> BgpSessionSpec {
        let spec = json!({"asn": 4_242_421_080_u32, "address": {field: address}, "tunnel": {"type": "wireguard"}});
        serde_json::from_value(spec).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn name(text: &str) -> ObjectName {
        text.parse().unwrap()
    }

    fn reach() -> Reach {
        let mut reach = Reach::default();
        let gateway = Use::Gateway("eth0".parse().unwrap());
        reach.add(
            address("172.20.0.53"),
            Use::Needed,
            "a name server's address",
        );
        reach.add(
            address("fd00::1"),
            Use::Needed,
            "the endpoint of sessions/x",
        );
        reach.add(address("10.0.0.1"), gateway, "a gateway of this host");
        reach.add(address("10.0.0.2"), Use::Own, "an address of this host");
        reach.add(address("fe80::53"), Use::Needed, "a name server's address");
        reach
    }

    fn applied(spec: &impl serde::Serialize, kind: Kind) -> AppliedDocument {
        serde_json::from_value(json!({
            "apiVersion": "moenet.work/v1", "kind": kind.to_string(), "metadata": {"name": "a"},
            "applied": {"spec": spec}
        }))
        .unwrap()
    }

    fn judge(field: &str, address: &str, extra: &[&str]) -> Result<(), String> {
        let extra: Vec<_> = extra.iter().map(|range| range.parse().unwrap()).collect();
        let verdict = check_peer(&name("a"), &spec(field, address), &reach(), &extra, None);
        match verdict.refused.first() {
            None => Ok(()),
            Some(error) => Err(error.to_string()),
        }
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
        for (field, address, what) in [
            ("peerIpv4", "172.20.0.53", "a name server's address"),
            ("peerIpv6", "fd00::1", "the endpoint of sessions/x"),
            ("peerIpv4", "10.0.0.1", "a gateway of this host"),
            ("peerIpv4", "10.0.0.2", "an address of this host"),
        ] {
            let why = judge(field, address, &[]).unwrap_err();
            assert!(why.contains(what), "{why}");
        }
        assert_eq!(
            judge("peerIpv6", "fe80::53", &[]),
            Ok(()),
            "belongs to its link"
        );
    }

    #[test]
    fn route_through_the_peers_own_tunnel_is_no_clash() {
        let mut own = spec("peerIpv4", "10.0.0.1");
        own.tunnel.interface = Some("eth0".parse().unwrap());
        assert_eq!(
            check_peer(&name("a"), &own, &reach(), &[], None),
            Verdict::default()
        );
    }

    #[test]
    fn applied_address_keeps_its_place_with_a_remark() {
        let spec = spec("peerIpv4", "172.20.0.53");
        let before = applied(&spec, Kind::BgpSession);
        let verdict = check_peer(&name("a"), &spec, &reach(), &[], Some(&before));
        assert_eq!(verdict.refused, []);
        let remark = verdict.remark().unwrap();
        assert!(
            remark.contains("172.20.0.53 is a name server's address"),
            "{remark}"
        );
    }

    #[test]
    fn new_endpoint_inside_an_applied_tunnel_is_refused() {
        let mut reach = Reach::default();
        reach
            .peers
            .insert(address("fd42::9"), [name("other")].into());
        let named: Endpoint = "peer.example.com:51820".parse().unwrap();
        reach.name(&named, [address("fd42::9")].into());
        let mut new = spec("peerLinkLocal", "fe80::1");
        for endpoint in [named, "[fd42::9]:51820".parse().unwrap()] {
            new.tunnel.endpoint = Some(endpoint);
            let verdict = check_peer(&name("a"), &new, &reach, &[], None);
            let why = verdict.refused[0].to_string();
            let wanted =
                "spec.tunnel.endpoint: fd42::9 is the applied peer address of sessions/other";
            assert!(why.starts_with(wanted), "{why}");
            let before = applied(&new, Kind::BgpSession);
            let verdict = check_peer(&name("a"), &new, &reach, &[], Some(&before));
            assert!(verdict.refused.is_empty() && verdict.remark().is_some());
        }
    }

    #[test]
    fn new_mesh_endpoint_inside_an_applied_tunnel_is_refused() {
        let mut reach = Reach::default();
        // A mesh peer may have the name of the session.
        reach.peers.insert(address("fd42::9"), [name("a")].into());
        let named: Endpoint = "hk1.example.com:51820".parse().unwrap();
        reach.name(&named, [address("fd42::9")].into());
        for endpoint in ["hk1.example.com:51820", "[fd42::9]:51820"] {
            let spec = json!({"nodeId": 2, "endpoint": endpoint, "publicKey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="});
            let spec: MeshPeerSpec = serde_json::from_value(spec).unwrap();
            let verdict = check_mesh(&spec, &reach, None);
            let why = verdict.refused[0].to_string();
            let wanted = "spec.endpoint: fd42::9 is the applied peer address of sessions/a";
            assert!(why.starts_with(wanted), "{why}");
            let before = applied(&spec, Kind::MeshPeer);
            let verdict = check_mesh(&spec, &reach, Some(&before));
            assert!(verdict.refused.is_empty() && verdict.remark().is_some());
        }
    }

    #[test]
    fn loopbacks_never_claim_what_the_router_must_reach() {
        let node = |v4: &str| -> NodeSpec {
            serde_json::from_value(json!({"id": 1, "asn": 4_242_420_998_u32, "loopbackIpv4": v4}))
                .unwrap()
        };
        let mut reach = reach();
        reach
            .peers
            .insert(address("10.0.0.3"), [name("peer")].into());
        for (v4, what) in [
            ("172.20.0.53", "a name server's address"),
            ("10.0.0.1", "a gateway of this host"),
            ("10.0.0.3", "the applied peer address of sessions/peer"),
            ("192.0.2.1", "in none of 172.20.0.0/14"),
        ] {
            let verdict = check_loopbacks(&node(v4), &reach, &[], None);
            let why = verdict.refused[0].to_string();
            assert!(
                why.starts_with(&format!("spec.loopbackIpv4: {v4} is ")),
                "{why}"
            );
            assert!(why.contains(what), "{why}");
            let verdict = check_loopbacks(&node(v4), &reach, &[], Some(&node(v4)));
            assert!(
                verdict.refused.is_empty() && verdict.remark().is_some(),
                "{v4}"
            );
        }
        assert_eq!(
            check_loopbacks(&node("10.0.0.2"), &reach, &[], None),
            Verdict::default()
        );
        let mut link_local = node("10.9.9.9");
        link_local.loopback_ipv6 = "fe80::1".parse().ok();
        let verdict = check_loopbacks(&link_local, &reach, &[], None);
        let why = verdict.refused[0].to_string();
        assert!(
            why.starts_with("spec.loopbackIpv6: fe80::1 is in none of fc00::/7"),
            "{why}"
        );
        let extra = ["192.0.2.0/24".parse().unwrap()];
        assert_eq!(
            check_loopbacks(&node("192.0.2.1"), &reach, &extra, None),
            Verdict::default()
        );
    }

    #[test]
    fn internal_peer_never_has_our_own_address() {
        let spec: IbgpPeerSpec =
            serde_json::from_value(json!({"nodeId": 2, "loopbackIpv4": "10.0.0.2"})).unwrap();
        let verdict = check_internal(&spec, ibgp_addresses, &reach(), None);
        let why = verdict.refused[0].to_string();
        assert!(
            why.starts_with("spec.loopbackIpv4: 10.0.0.2 is an address of this host"),
            "{why}"
        );
        let before = applied(&spec, Kind::IbgpPeer);
        let verdict = check_internal(&spec, ibgp_addresses, &reach(), Some(&before));
        assert!(verdict.refused.is_empty() && verdict.remark().is_some());
    }
}
