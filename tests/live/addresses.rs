//! Addresses that the router has or must reach: no peer, endpoint or loopback takes them.

use crate::lab::cli::agent;
use crate::lab::control_plane::Answer;
use crate::lab::hands::condition;
use crate::lab::neighbour::Neighbour;
use crate::lab::router;
use crate::lab::wireguard::KeyPair;
use crate::lab::world::{World, interface, session, uuid};
use crate::lab::{contains, wait_until};
use serde_json::{Value, json};

/// An uplink with gateways of both families, one of which leads to everything.
const UPLINK: &str = "ip link add up0 type veth peer name up1 && ip link set up1 up && ip link set up0 up && \
    ip addr add 10.99.0.2/24 dev up0 && ip -6 addr add fd99::2/64 dev up0 nodad && \
    ip route add 203.0.113.0/24 via 10.99.0.1 && ip -6 route add 2001:db8:77::/48 via fd99::1";

/// A session without a neighbour.
fn lonely(number: u32, fields: &Value) -> Value {
    let mut session = json!({
        "uuid": uuid(number), "asn": 4_242_421_000 + number, "status": 4, "interface": interface(number),
        "ipv6LinkLocal": format!("fe80::1:{number}"), "credential": {"publicKey": KeyPair::new().public}
    });
    for (key, value) in fields.as_object().unwrap() {
        session[key] = value.clone();
    }
    session
}

/// The neighbours' sessions and further ones.
fn list(world: &World, further: &[Value]) {
    let all: Vec<Value> = world
        .sessions()
        .into_iter()
        .chain(further.iter().cloned())
        .collect();
    world.control_plane.sessions(&all);
}

/// Gives the Control Plane a name in the router's namespace, and returns its address.
fn name_control_plane(world: &World) -> String {
    let authority = world.control_plane.url.trim_start_matches("http://");
    let (host, port) = authority.split_once(':').unwrap();
    let hosts = world.router.path("hosts");
    std::fs::write(&hosts, format!("127.0.0.1 localhost\n{host} cp.lab\n")).unwrap();
    world
        .router
        .inside
        .shell(&format!("mount --bind {} /etc/hosts", hosts.display()));
    let url = format!("http://cp.lab:{port}");
    world
        .router
        .edit_configuration(|config| config["controlPlane"]["url"] = url.into());
    host.to_owned()
}

#[test]
fn peer_with_host_address_is_rejected_and_host_stays_connected() {
    let mut world = World::new(1);
    world.router.inside.shell(UPLINK);
    let resolv = world.router.path("resolv.conf");
    std::fs::write(&resolv, "nameserver 172.20.0.53\n").unwrap();
    world.router.inside.shell(&format!(
        "mount --bind {} /etc/resolv.conf",
        resolv.display()
    ));
    let control_plane = name_control_plane(&world);
    let policy = router::policy_with(&json!({"extraRanges": [format!("{control_plane}/32")]}));
    world
        .control_plane
        .answer("bird-config", Answer::Json(policy));
    world.router.start_agent();
    world.wait_established();

    list(
        &world,
        &[
            lonely(2, &json!({"ipv4": "10.99.0.1"})),
            lonely(3, &json!({"ipv6": "fd99::1"})),
            lonely(4, &json!({"ipv4": "172.20.0.53"})),
            lonely(5, &json!({"ipv4": control_plane})),
            lonely(6, &json!({"ipv4": "10.99.0.2"})),
            lonely(7, &json!({"ipv4": "172.20.0.54"})),
        ],
    );
    world.wait_reported(&uuid(2), 2, "10.99.0.1 is a gateway of this host");
    world.wait_reported(&uuid(3), 2, "fd99::1 is a gateway of this host");
    world.wait_reported(&uuid(4), 2, "172.20.0.53 is a name server's address");
    world.wait_reported(&uuid(5), 2, "is the Control Plane's address");
    world.wait_reported(&uuid(6), 2, "10.99.0.2 is an address of this host");
    world.wait_reported(&uuid(7), 1, "");

    for (address, device) in [
        ("10.99.0.1", "up0"),
        ("fd99::1", "up0"),
        (&control_plane, "cp0"),
    ] {
        let route = world
            .router
            .inside
            .shell(&format!("ip route get {address}"));
        contains(&route, &format!("dev {device}")).unwrap();
    }
    world.wait_polls("sessions", 2);
    world.neighbours[0].wait_established(10);
}

#[test]
fn new_endpoint_inside_an_applied_tunnel_is_refused() {
    let mut world = World::new(1);
    let mut first = world.sessions().remove(0);
    first["ipv4"] = "172.20.1.9".into();
    world.control_plane.sessions(&[first.clone()]);
    world.router.start_agent();
    world.wait_established();
    world.wait_reported(&uuid(1), 1, "");
    let second = lonely(2, &json!({"endpoint": "172.20.1.9:51820"}));
    world.control_plane.sessions(&[first, second]);
    world.wait_reported(
        &uuid(2),
        2,
        "172.20.1.9 is the applied peer address of sessions/",
    );
    world.neighbours[0].wait_established(10);
    world.has_no_link(2).unwrap();

    // So is one of the backbone's.
    let peer = json!({
        "nodeId": 2, "name": "hk1", "endpoint": "172.20.1.9:51820", "publicKey": KeyPair::new().public,
        "loopbackIpv6": "fd48:4242:420::2"
    });
    let peers = Answer::Json(json!({"peers": [peer]}));
    world.control_plane.answer("mesh", peers);
    wait_until("the backbone's peer is rejected", 30, || {
        let accepted = condition(&world.status("mesh/hk1"), "Accepted");
        contains(
            &accepted.to_string(),
            "spec.endpoint: 172.20.1.9 is the applied peer address of sessions/",
        )
    });
    let links = world.router.inside.shell("ip -o link");
    assert!(!links.contains("mesh_hk1"), "{links}");
    world.neighbours[0].wait_established(10);
}

/// A neighbour that looks like another one: the same ASN and the same link-local address.
fn twin(number: u32) -> Neighbour {
    let mut twin = Neighbour::new(number);
    twin.asn = 4_242_421_001;
    twin.address = "fe80::1".into();
    twin
}

#[test]
fn sessions_may_share_the_gateways_link_local_address() {
    let mut world = World::new(0);
    world.router.inside.shell(UPLINK);
    world
        .router
        .inside
        .shell("ip -6 route add default via fe80::1 dev up0");
    for number in [1, 2] {
        world.join(twin(number), number, |neighbour, far| {
            neighbour.start_bird(&crate::lab::bird::version(), far);
        });
    }
    let mut sessions = Vec::new();
    for (number, neighbour) in (1..).zip(&world.neighbours) {
        let mut one = session(number, neighbour);
        one["listenPort"] = (21_000 + number).into();
        sessions.push(one);
    }
    world.control_plane.sessions(&sessions);
    world.router.start_agent();
    world.wait_established();
    for number in [1, 2] {
        world.wait_reported(&uuid(number), 1, "");
    }
    let route = world.router.inside.shell("ip -6 route show default");
    contains(&route, "default via fe80::1 dev up0").unwrap();
}

#[test]
fn loopback_that_the_host_must_reach_is_refused() {
    let mut world = World::new(1);
    world.router.inside.shell(UPLINK);
    let mut node = router::node();
    node["node"]["loopbackIpv4"] = "10.99.0.1".into();
    world
        .control_plane
        .answer("config", Answer::Json(node.clone()));
    world.router.start_agent();
    let why = world.wait_condition("node", "Accepted", "False", "Invalid");
    contains(
        &why,
        "spec.loopbackIpv4: 10.99.0.1 is a gateway of this host",
    )
    .unwrap();
    world.neighbours[0].wait_established(40);
    let addresses = || world.router.inside.shell("ip -o addr");
    assert!(
        !addresses().contains("inet 10.99.0.1/32"),
        "{}",
        addresses()
    );

    world
        .control_plane
        .answer("config", Answer::Json(router::node()));
    // The router was configured without a loopback of this family, so that a new one waits for approval.
    world.wait_condition("node", "ChangeHeld", "True", "GuardTripped");
    agent(&world.router, &["approve", "node"]).ended(0);
    wait_until("the good loopback is applied", 40, || {
        contains(&addresses(), "inet 172.23.105.177/32")
    });
    world.wait_condition("node", "Accepted", "True", "Valid");
    node["node"]["loopbackIpv4"] = "192.0.2.200".into();
    world.control_plane.answer("config", Answer::Json(node));
    let why = world.wait_condition("node", "Accepted", "False", "Invalid");
    contains(&why, "192.0.2.200 is in none of").unwrap();
    contains(&addresses(), "inet 172.23.105.177/32").unwrap();
    world.neighbours[0].wait_established(10);
}
