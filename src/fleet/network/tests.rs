use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::model::PublicKey;
use crate::wire::reference::decode_mesh;

const NETWORK_FILE: &str = "\
asn: 4242420998
prefixes: {ipv4: 172.23.105.176/28, ipv6: fd48:4da8:420::/48}
regions:
  ap: {continent: AS, subregion: AS_E, regionCode: 101}
  eu: {continent: EU, subregion: EU}
  us: {continent: NA, subregion: NA_W, bandwidth: 100M}
";

fn files(network: &str, routers: &[(&str, &str)]) -> FleetFiles {
    let routers = routers
        .iter()
        .map(|(name, text)| (format!("routers/{name}.yaml"), (*text).to_owned()));
    let network = (NETWORK.to_owned(), network.to_owned());
    routers.chain([network]).collect()
}

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

/// A key of its own for each id.
fn key(id: u16) -> PublicKey {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    PublicKey::new(bytes)
}

fn keys(network: &Network) -> MeshKeys {
    let routers = network.routers();
    routers
        .map(|(_, router)| (router.id, key(router.id)))
        .collect()
}

fn peers(network: &Network, router: &ObjectName) -> Vec<Value> {
    let answer = network.mesh(router, &keys(network)).unwrap();
    answer["peers"].as_array().unwrap().clone()
}

fn names(items: &[Value], field: &str) -> Vec<String> {
    items
        .iter()
        .map(|item| item[field].as_str().unwrap().to_owned())
        .collect()
}

fn ibgp(network: &Network, router: &str) -> Vec<String> {
    let answer = network.bird_config(&name(router)).unwrap();
    names(answer["ibgpPeers"].as_array().unwrap(), "nodeName")
}

fn broken(files: &FleetFiles) -> Vec<String> {
    let found = Network::read(files).expect_err("a broken rule");
    found.iter().map(ToString::to_string).collect()
}

const THREE: [(&str, &str); 3] = [
    ("de1", "{id: 2, region: eu, address: de1.example.net}"),
    (
        "jp1",
        "{id: 1, region: ap, address: 192.0.2.1, bandwidth: 1G}",
    ),
    ("us1", "{id: 3, region: us}"),
];

#[test]
fn each_error_names_its_place_and_rule() {
    let one = |text| {
        files(
            NETWORK_FILE,
            &[("jp1", "{id: 1, region: ap}"), ("jp2", text)],
        )
    };
    for (files, wanted) in [
        (
            files("asn: 0", &[]),
            "network.yaml:1:6: asn: invalid AS number 0",
        ),
        (
            files("asn: 64512\nmesch: {}", &[]),
            "network.yaml:2:8: mesch: unknown field `mesch`, did you mean `mesh`?",
        ),
        (one("{}"), "routers/jp2.yaml: `id` is missing"),
        (
            one("{id: 0}"),
            "routers/jp2.yaml:1:6: id: must be 1..65535, not 0",
        ),
        (
            one("{id: 1}"),
            "routers/jp2.yaml:1:6: id: 1 is also that of jp1",
        ),
        (
            one("id: 2\nloopbackIpv4: 172.23.105.177"),
            "routers/jp2.yaml:2:15: loopbackIpv4: 172.23.105.177 is also that of jp1",
        ),
        (
            one("id: 2\nlinkLocal: fe80::998:1"),
            "routers/jp2.yaml:2:12: linkLocal: fe80::998:1 is also that of jp1",
        ),
        (
            one("{id: 2, region: mars}"),
            "region: network.yaml has no region mars; it has ap, eu, us",
        ),
        (
            one("{id: 2, tokenHashes: [hunter2]}"),
            "tokenHashes[0]: must be sha256:",
        ),
        (
            one("id: 2\nmesh: {links: {jp1: {listenPort: 0}}}"),
            "routers/jp2.yaml:2:34: mesh.links.jp1.listenPort:",
        ),
        (one("{id: 42100}"), "are over 65535"),
        (
            files("asn: 64512", &[("jp1", "{id: 1}")]),
            "no loopback address",
        ),
        (
            files(
                "{asn: 64512, prefixes: {ipv4: 172.20.0.0/28}}",
                &[("jp1", "{id: 16}")],
            ),
            "16 does not fit into 172.20.0.0/28",
        ),
        (
            files(
                "asn: 64512\nmesh: {topology: hub}",
                &[("a", "{id: 1, loopbackIpv6: 'fd00::1'}")],
            ),
            "network.yaml:2:18: mesh.topology: no router has type: rr",
        ),
        (
            files("asn: 64512\nmesh: {topology: ring}", &[]),
            "mesh.ring: the topology ring needs",
        ),
        (
            files(NETWORK_FILE, &[(".x", "{id: 1}")]),
            "routers/.x.yaml: invalid name",
        ),
    ] {
        let found = broken(&files);
        assert!(
            found.iter().any(|line| line.contains(wanted)),
            "{wanted}: {found:#?}"
        );
        assert!(!found.concat().contains("hunter2"), "{found:?}");
    }
}

#[test]
fn two_sides_that_contradict_are_refused() {
    let one = "{id: 1, mesh: {links: {b: {mtu: 1380}}}}";
    let found = broken(&files(
        NETWORK_FILE,
        &[
            ("a", one),
            ("b", "{id: 2, mesh: {links: {a: {mtu: 1400}}}}"),
        ],
    ));
    assert!(
        found[0].contains("1380 here and 1400 in routers/b.yaml"),
        "{found:?}"
    );
    let ports = "{id: 1, mesh: {links: {b: {listenPort: 23458}}}}";
    let found = broken(&files(
        NETWORK_FILE,
        &[("a", ports), ("b", "{id: 2}"), ("c", "{id: 3}")],
    ));
    assert!(
        found[0].contains("mesh.links.b.listenPort: 23458 is also the port for c"),
        "{found:?}"
    );
}

#[test]
fn an_unknown_key_never_removes_a_peer() {
    let network = Network::read(&files(NETWORK_FILE, &THREE)).unwrap();
    let mut keys = keys(&network);
    keys.remove(&2);
    let answer = network.mesh(&name("jp1"), &keys).unwrap();
    let peers = answer["peers"].as_array().unwrap();
    assert_eq!(names(peers, "name"), ["de1", "us1"]);
    assert_eq!(peers[0].get("publicKey"), None);
    let body = Value::Object(answer).to_string();
    let listing = decode_mesh(body.as_bytes()).unwrap();
    // The agent keeps the tunnel to a rejected peer, and removes that to one that is not listed.
    assert!(listing.complete);
    assert_eq!(listing.rejected[0].node_id, Some(2));
    assert_eq!(listing.items.len(), 1);
}

#[test]
fn a_broken_router_file_derives_nothing() {
    let mut files = files(NETWORK_FILE, &THREE);
    files.insert("routers/de1.yaml", "id: [");
    assert!(Network::read(&files).is_err());
}

#[test]
fn unusable_or_renamed_file_is_an_error() {
    for (path, wanted) in [
        (
            "routers/de1.yml",
            "routers/de1.yml: not routers/<router>.yaml",
        ),
        ("routers/de1.yaml.off", "routers/de1.yaml.off: not routers/"),
        (
            "routers/more/de1.yaml",
            "routers/more/de1.yaml: not routers/",
        ),
        ("sessions/alice.yaml", "sessions/alice.yaml: not sessions/"),
    ] {
        let mut files = files(NETWORK_FILE, &THREE);
        files.remove("routers/de1.yaml");
        files.insert(path, "{id: 2, region: eu}");
        let found = broken(&files);
        assert!(found[0].starts_with(wanted), "{path}: {found:?}");
    }
    let mut files = files(NETWORK_FILE, &THREE);
    files.fault("network.yaml", "cannot be read");
    files.fault("sessions/jp1/alice.yaml", "a link to nothing");
    files.insert("routers/README.md", "# no router");
    files.insert("routers/.de1.yaml.swp", "\u{1}");
    assert_eq!(broken(&files), ["network.yaml: cannot be read"]);
    files.remove("network.yaml");
    files.insert("network.yaml", NETWORK_FILE);
    assert!(
        Network::read(&files).is_ok(),
        "a session is no part of the structure"
    );
    let found = findings(&files).1;
    assert!(
        found
            .iter()
            .any(|one| one.to_string() == "sessions/jp1/alice.yaml: a link to nothing"),
        "{found:?}"
    );
}

#[test]
fn name_in_both_layouts_is_an_error() {
    let mut files = files(NETWORK_FILE, &THREE);
    files.insert("hk1/router.yaml", "token: x");
    files.insert("routers/router.yaml", "{id: 9, region: eu}");
    assert!(Network::read(&files).is_ok());
    files.insert("de1/router.yaml", "token: x");
    let found = broken(&files);
    assert_eq!(
        found,
        ["routers/de1.yaml: de1 has also de1/router.yaml; remove one of the two"]
    );
}

#[test]
fn reflectors_that_are_all_disabled_are_an_error() {
    let off = "{id: 1, type: rr, mesh: {enabled: false}}";
    for (mesh, field) in [("topology: hub", "topology"), ("ibgp: reflectors", "ibgp")] {
        let network = format!("{NETWORK_FILE}mesh: {{{mesh}}}\n");
        let found = broken(&files(&network, &[("a", off), ("b", "{id: 2}")]));
        assert!(
            found[0].contains(&format!("mesh.{field}: every router with type: rr has")),
            "{found:?}"
        );
        let more = [("a", off), ("b", "{id: 2}"), ("c", "{id: 3, type: rr}")];
        assert!(Network::read(&files(&network, &more)).is_ok());
    }
}

#[test]
fn link_local_address_is_told_to_peers() {
    let one = "{id: 1, linkLocal: 'fe80::1:1', address: a.example.net}";
    let network = Network::read(&files(NETWORK_FILE, &[("a", one), ("b", "{id: 2}")])).unwrap();
    assert_eq!(peers(&network, &name("b"))[0]["linkLocal"], "fe80::1:1");
    assert_eq!(peers(&network, &name("a"))[0]["linkLocal"], Value::Null);
}

#[test]
fn loopback_families_and_link_names_are_checked() {
    let network = "asn: 64512";
    let routers = [
        ("a", "{id: 1, token: x, loopbackIpv4: 172.20.0.1}"),
        (
            "frankfurt1-23",
            "{id: 2, token: x, address: b.example, loopbackIpv6: 'fd00::2'}",
        ),
        (
            "frankfurt12345",
            "{id: 23, token: x, address: c.example, loopbackIpv6: 'fd00::3'}",
        ),
        (
            "x",
            "{id: 4, token: x, address: d.example, loopbackIpv6: 'fd00::4', loopbackIpv4: 172.20.0.4, mesh: {links: {a: {interface: mesh_frankfu-23}}}}",
        ),
    ];
    let files = files(network, &routers);
    let network = Network::read(&files).unwrap();
    let found: Vec<String> = network
        .weak_points(&files)
        .iter()
        .map(ToString::to_string)
        .collect();
    for wanted in [
        "routers/a.yaml: a and frankfurt1-23 have no loopback addresses of one family",
        "mesh.links.frankfurt12345.interface: mesh_frankfu-23 is also the link to a",
    ] {
        assert!(
            found.iter().any(|line| line.contains(wanted)),
            "{wanted}: {found:#?}"
        );
    }
}

#[test]
fn weak_points_are_found_and_served() {
    let mut files = files(
        NETWORK_FILE,
        &[
            ("a", "{id: 1, mesh: {links: {gone: {mtu: 1400}}}}"),
            ("b", "{id: 2, token: x, tokenFile: y}"),
        ],
    );
    files.insert("sessions/c/alice.yaml", "{}");
    let network = Network::read(&files).unwrap();
    let found: Vec<String> = network
        .weak_points(&files)
        .iter()
        .map(ToString::to_string)
        .collect();
    for wanted in [
        "routers/a.yaml: no token: a needs token, tokenFile or tokenHashes",
        "mesh.links.gone: no other router has this name",
        "neither a nor b has an address",
        "give only one of token, tokenFile and tokenHashes",
        "sessions/c/alice.yaml: no router gets this session",
    ] {
        assert!(
            found.iter().any(|line| line.contains(wanted)),
            "{wanted}: {found:#?}"
        );
    }
}

/// Each case is a folder with the files of a fleet and `wanted.json`.
#[test]
fn answers_are_as_recorded() {
    let network = Network::read(&files(NETWORK_FILE, &THREE)).unwrap();
    let jp1 = name("jp1");
    assert_eq!(
        Value::Object(network.config(&jp1).unwrap()),
        json!({"node": {
            "id": 1, "name": "jp1", "region": "ap", "asn": 4242420998u32,
            "loopbackIpv4": "172.23.105.177", "loopbackIpv6": "fd48:4da8:420::1"
        }})
    );
    assert_eq!(
        peers(&network, &jp1),
        [
            json!({
                "nodeId": 2, "name": "de1", "endpoint": "de1.example.net:23456", "publicKey": key(2),
                "listenPort": 23457, "loopbackIpv4": "172.23.105.178", "loopbackIpv6": "fd48:4da8:420::2",
                "uuid": "mesh-1-2"
            }),
            json!({
                "nodeId": 3, "name": "us1", "publicKey": key(3), "listenPort": 23458,
                "loopbackIpv4": "172.23.105.179", "loopbackIpv6": "fd48:4da8:420::3", "uuid": "mesh-1-3"
            }),
        ]
    );
    let policy = network.bird_config(&jp1).unwrap();
    assert_eq!(
        policy["node"],
        json!({
            "id": 1, "name": "jp1", "type": "edge", "bandwidth": "1G", "regionCode": 101,
            "continentLc": "LC_ORIGIN_AS", "subregionLc": "LC_REGION_AS_E", "regionCommunity": "DN42_REGION_AS_E"
        })
    );
    assert_eq!(
        policy["policy"],
        json!({
            "dn42As": 4242420998u32, "dn42Ipv4Prefix": "172.23.105.176/28", "dn42Ipv6Prefix": "fd48:4da8:420::/48"
        })
    );
    assert_eq!(
        policy["ibgpPeers"][0],
        json!({
            "nodeId": 2, "nodeName": "de1", "loopbackIpv4": "172.23.105.178",
            "loopbackIpv6": "fd48:4da8:420::2", "isRr": false
        })
    );
}

#[test]
fn explicit_values_win_over_derived_ones() {
    let network = format!(
        "{NETWORK_FILE}policy: {{asPathMaxLen: 9, ebgpImportLimit: 5000}}\nmesh: {{mtu: 1400, portBase: 30000}}\n"
    );
    let one = "{id: 1, region: us, loopbackIpv6: 'fd00::1', linkLocal: 'fe80::1', policy: {asPathMaxLen: 7}, location: {country: 392}, \
               mesh: {links: {b: {listenPort: 40000, mtu: 1300, interface: backbone0}}}}";
    let other = format!(
        "{{id: 2, address: 'fd00::2', mesh: {{publicKey: {}, links: {{a: {{endpoint: 'a.example:1'}}}}}}}}",
        key(9)
    );
    let network = Network::read(&files(&network, &[("a", one), ("b", &other)])).unwrap();
    let (a, b) = (
        &peers(&network, &name("a"))[0],
        &peers(&network, &name("b"))[0],
    );
    assert_eq!(
        [
            &a["endpoint"],
            &a["listenPort"],
            &a["mtu"],
            &a["interface"],
            &a["publicKey"]
        ],
        [
            &json!("[fd00::2]:30001"),
            &json!(40000),
            &json!(1300),
            &json!("backbone0"),
            &json!(key(9))
        ]
    );
    assert_eq!(
        [
            &b["endpoint"],
            &b["listenPort"],
            &b["mtu"],
            &b["loopbackIpv6"],
            &b["interface"]
        ],
        [
            &json!("a.example:1"),
            &json!(30001),
            &json!(1300),
            &json!("fd00::1"),
            &Value::Null
        ]
    );
    let policy = network.bird_config(&name("a")).unwrap();
    assert_eq!(
        [
            &policy["policy"]["asPathMaxLen"],
            &policy["policy"]["ebgpImportLimit"]
        ],
        [7, 5000]
    );
    assert_eq!(
        [&policy["node"]["bandwidth"], &policy["node"]["country"]],
        [&json!("100M"), &json!(392)]
    );
    assert_eq!(
        network.config(&name("a")).unwrap()["node"]["linkLocal"],
        "fe80::1"
    );
}

#[test]
fn topologies_choose_tunnels_and_sessions() {
    let ring =
        format!("{NETWORK_FILE}  xx: {{}}\nmesh: {{topology: ring, ring: [ap, eu, us, xx]}}\n");
    let routers = [
        ("ap1", "{id: 1, region: ap, type: rr}"),
        ("ap2", "{id: 2, region: ap}"),
        ("eu1", "{id: 3, region: eu}"),
        ("us1", "{id: 4, region: us}"),
        ("xx1", "{id: 5, region: xx}"),
    ];
    let network = Network::read(&files(&ring, &routers)).unwrap();
    let tunnels = |router: &str| names(&peers(&network, &name(router)), "name");
    assert_eq!(tunnels("ap1"), ["ap2", "eu1", "xx1"]);
    assert_eq!(tunnels("us1"), ["eu1", "xx1"]);
    assert_eq!(
        ibgp(&network, "us1"),
        ["ap1", "ap2", "eu1", "xx1"],
        "the backbone reaches all loopbacks"
    );

    let hub = format!("{NETWORK_FILE}  xx: {{}}\nmesh: {{topology: hub}}\n");
    let network = Network::read(&files(&hub, &routers)).unwrap();
    let tunnels = |router: &str| names(&peers(&network, &name(router)), "name");
    assert_eq!(tunnels("ap1"), ["ap2", "eu1", "us1", "xx1"]);
    assert_eq!(
        (tunnels("eu1"), ibgp(&network, "eu1")),
        (vec!["ap1".into()], vec!["ap1".into()])
    );
    assert_eq!(peers(&network, &name("eu1"))[0]["isRr"], true);

    let left = [
        routers[0],
        ("ap2", "{id: 2, mesh: {enabled: false}}"),
        ("eu1", "{id: 3, mesh: {links: {ap1: {enabled: false}}}}"),
    ];
    let network = Network::read(&files(NETWORK_FILE, &left)).unwrap();
    assert_eq!(
        names(&peers(&network, &name("ap1")), "name"),
        Vec::<String>::new()
    );
    assert_eq!(ibgp(&network, "ap1"), ["eu1"]);
}

prop_compose! {
    fn any_router()(
        id in 1u16..400, region in 0usize..3, rr in any::<bool>(), has_address in any::<bool>(),
        port in proptest::option::of(40_000u16..60_000), peer in 0usize..8, mtu in proptest::option::of(1280u16..1420),
    ) -> (u16, String) {
        let address = if has_address { format!("address: r{id}.example.net, ") } else { String::new() };
        let values = [port.map(|port| format!("listenPort: {port}")), mtu.map(|mtu| format!("mtu: {mtu}"))];
        let values: Vec<String> = values.into_iter().flatten().collect();
        let text = format!(
            "{{id: {id}, region: {}, type: {}, {address}mesh: {{links: {{r{peer}: {{{}}}}}}}}}",
            ["ap", "eu", "us"][region], if rr { "rr" } else { "edge" }, values.join(", ")
        );
        (id, text)
    }
}

fn any_network() -> impl Strategy<Value = (String, Vec<(u16, String)>)> {
    let topology = proptest::sample::select(vec!["full", "ring, ring: [ap, eu, us]", "hub"]);
    let routers = proptest::collection::vec(any_router(), 2..8);
    (topology, routers).prop_map(|(topology, routers)| {
        let mut seen = BTreeSet::new();
        let routers = routers.into_iter().filter(|router| seen.insert(router.0));
        (
            format!("{NETWORK_FILE}mesh: {{topology: {topology}}}\n"),
            routers.collect(),
        )
    })
}

fn network_of(network: &str, routers: &[(u16, String)]) -> Option<Network> {
    let named: Vec<(String, &str)> = routers
        .iter()
        .enumerate()
        .map(|(at, (_, text))| (format!("r{at}"), text.as_str()))
        .collect();
    let routers: Vec<(&str, &str)> = named
        .iter()
        .map(|(name, text)| (name.as_str(), *text))
        .collect();
    Network::read(&files(network, &routers)).ok()
}

/// All answers of a router, with its items by the node ids of peers.
fn answers(
    network: &Network,
    router: &ObjectName,
) -> (
    BTreeMap<u64, Value>,
    BTreeMap<u64, Value>,
    Map<String, Value>,
) {
    let by_id = |items: &[Value]| {
        items
            .iter()
            .map(|item| (item["nodeId"].as_u64().unwrap(), item.clone()))
            .collect()
    };
    let mut policy = network.bird_config(router).unwrap();
    let ibgp = policy.remove("ibgpPeers").unwrap();
    policy.extend(network.config(router).unwrap());
    (
        by_id(&peers(network, router)),
        by_id(ibgp.as_array().unwrap()),
        policy,
    )
}

proptest! {
    #[test]
    fn both_sides_of_every_tunnel_agree((text, routers) in any_network()) {
        let Some(network) = network_of(&text, &routers) else { return Ok(()) };
        for (own, router) in network.routers() {
            for peer in peers(&network, own) {
                let there = name(peer["name"].as_str().unwrap());
                let other = network.router(&there).unwrap();
                let back = peers(&network, &there);
                let back: Vec<&Value> = back.iter().filter(|item| item["nodeId"] == router.id).collect();
                prop_assert_eq!(back.len(), 1, "{} is not listed by {}", own, there);
                prop_assert_eq!(&back[0]["mtu"], &peer["mtu"]);
                prop_assert_eq!(&back[0]["uuid"], &peer["uuid"]);
                let called = other.address.as_ref().map(|host| format!("{host}:{}", back[0]["listenPort"]));
                prop_assert_eq!(peer["endpoint"].as_str().map(str::to_owned), called);
            }
        }
    }

    #[test]
    fn another_router_changes_no_link_and_no_address((text, routers) in any_network()) {
        let Some(network) = network_of(&text, &routers) else { return Ok(()) };
        let Some(before) = network_of(&text, &routers[..routers.len() - 1]) else { return Ok(()) };
        let last = u64::from(routers[routers.len() - 1].0);
        for (own, _) in before.routers() {
            let (mut mesh, mut ibgp, policy) = answers(&network, own);
            mesh.remove(&last);
            ibgp.remove(&last);
            prop_assert_eq!((mesh, ibgp, policy), answers(&before, own));
        }
    }

    #[test]
    fn hostile_files_never_panic(text in "\\PC*", other in "[a-z:{}, \\[\\]\n0-9]*") {
        let _ = Network::read(&files(&text, &[("a", &other)]));
        let _ = Network::read(&files("asn: 64512", &[("a", &other)]));
    }
}
