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
    let verdict = check_peer(&name("a"), &spec, &reach(), &[], Some(&spec));
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
        let wanted = "spec.tunnel.endpoint: fd42::9 is the applied peer address of sessions/other";
        assert!(why.starts_with(wanted), "{why}");
        let verdict = check_peer(&name("a"), &new, &reach, &[], Some(&new));
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
