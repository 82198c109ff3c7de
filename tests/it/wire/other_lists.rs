//! `GET mesh`, `GET config`, `GET bird-config`, and what is posted.

use moenet_agent::document::{Continent, MeshPeerSpec, Region};
use moenet_agent::model::NodeType;
use moenet_agent::wire::{
    Call, Dialect, Heartbeat, Listing, Modify, PeerItem, PeerState, PolicyItem, Report,
    SessionReport, WireError, WireStatus,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const D: Dialect = Dialect::Reference;

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn peer() -> Value {
    json!({
        "nodeId": 2, "name": "hk1", "endpoint": "hk.moenet.work:23456", "publicKey": KEY,
        "loopbackIpv4": "172.23.105.178", "loopbackIpv6": "fd48:4242:420::2"
    })
}

fn mesh(peers: Value) -> Listing<PeerItem<MeshPeerSpec>> {
    D.decode_mesh(&bytes(&json!({ "peers": peers }))).unwrap()
}

#[test]
fn the_mesh_of_the_reference_decodes() {
    let listing = mesh(json!([peer()]));
    assert!(listing.complete && listing.rejected.is_empty());
    let item = &listing.items[0];
    assert_eq!((item.name.as_str(), item.spec.node_id), ("hk1", 2));
    assert_eq!(
        item.spec.loopback_ipv4.unwrap().to_string(),
        "172.23.105.178"
    );
    assert_eq!((item.spec.uuid.as_ref(), item.spec.is_rr), (None, None));
}

#[test]
fn name_and_node_name_are_one_optional_field() {
    for (patch, name) in [
        (
            json!({"nodeId": "2", "nodeName": "hk1", "publicKey": KEY}),
            "hk1",
        ),
        (
            json!({"nodeId": 2, "publicKey": KEY, "isRr": true, "mtu": 1400, "listenPort": 7}),
            "node2",
        ),
        (
            json!({"nodeId": 2, "name": "../hk", "publicKey": KEY}),
            "hk",
        ),
    ] {
        let listing = mesh(json!([patch]));
        assert_eq!(
            listing.items[0].name.as_str().trim_matches('-'),
            name,
            "{:?}",
            listing.rejected
        );
    }
}

#[test]
fn peers_of_one_id_or_one_name_are_refused() {
    let ids = mesh(json!([peer(), peer()]));
    assert_eq!(
        (ids.items.len(), ids.rejected.len(), ids.complete),
        (0, 2, false)
    );
    let mut third = peer();
    third["nodeId"] = json!(3);
    let names = mesh(json!([peer(), third]));
    assert_eq!(
        (names.items.len(), names.rejected.len(), names.complete),
        (0, 2, true)
    );
    assert_eq!(names.rejected[1].node_id, Some(3));
    assert!(!mesh(json!([{"name": "x"}])).complete);
    assert!(!mesh(json!([null])).complete);
    assert_eq!(mesh(json!([{"nodeId": 2}])).rejected[0].field, "publicKey");
}

#[test]
fn the_node_of_the_reference_decodes_with_loopbacks_as_given() {
    let body = json!({"node": {
        "id": 1, "name": "jp1", "region": "ap-northeast", "asn": 4242420998u32,
        "loopbackIpv4": "172.23.105.177", "loopbackIpv6": "fd48:4242:420::1"
    }, "features": {}});
    let item = D.decode_config(&bytes(&body)).unwrap();
    assert_eq!(
        (item.name.as_str(), item.spec.id, item.spec.asn.get()),
        ("jp1", 1, 4242420998)
    );
    assert_eq!(
        item.spec.loopback_ipv6.unwrap().to_string(),
        "fd48:4242:420::1"
    );
    assert_eq!(item.spec.link_local().to_string(), "fe80::998:1");
}

#[test]
fn node_without_id_or_asn_names_the_missing_field() {
    for (node, field) in [
        (json!({"id": 0, "name": "a", "asn": 1}), "node.id"),
        (json!({"id": 1, "name": "a"}), "node.asn"),
        (
            json!({"id": 1, "name": "a", "asn": 1, "loopbackIpv4": "x"}),
            "node.loopbackIpv4",
        ),
    ] {
        let error = D
            .decode_config(&bytes(&json!({ "node": node })))
            .unwrap_err();
        assert!(error.to_string().starts_with(field), "{error}");
    }
    assert!(matches!(
        D.decode_config(b"{}"),
        Err(WireError::Missing { key: "node" })
    ));
}

fn policy() -> Value {
    json!({
        "configHash": "abc123",
        "node": {
            "id": 1, "name": "jp1", "type": "edge", "bandwidth": "1G", "regionCode": 101,
            "continentLc": "LC_ORIGIN_AS", "subregionLc": "LC_REGION_AS_E",
            "regionCommunity": "DN42_REGION_AS_E", "bandwidthCommunity": "DN42_BW_1G_PLUS"
        },
        "policy": {
            "dn42As": "4242420998", "dn42Ipv4Prefix": "172.23.105.176/28",
            "dn42Ipv6Prefix": "fd48:4da8:420::/48",
            "rpkiServers": [{"host": "rpki.burble.dn42", "port": 8283}],
            "ebgpImportLimit": 10000, "ebgpExportLimit": 100, "asPathMaxLen": 10
        },
        "ibgpPeers": [{"nodeId": 2, "nodeName": "hk1", "loopbackIpv6": "fd48:4242:420::2", "isRr": true}]
    })
}

fn changed(pointer: &str, value: Value) -> Result<PolicyItem, WireError> {
    let mut body = policy();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap()[key] = value;
    D.decode_policy(&bytes(&body))
}

#[test]
fn the_policy_of_the_reference_decodes() {
    let item = D.decode_policy(&bytes(&policy())).unwrap();
    let location = &item.spec.location;
    assert_eq!(item.spec.node_type, NodeType::Edge);
    assert_eq!(
        (location.continent, location.subregion),
        (Some(Continent::As), Some(Region::AsE))
    );
    assert_eq!(
        (location.region_community, location.region_code),
        (Some(Region::AsE), Some(101))
    );
    assert_eq!(location.bandwidth.unwrap().mbit(), 1000);
    assert_eq!(
        item.spec.prefixes.ipv4.unwrap().to_string(),
        "172.23.105.176/28"
    );
    assert_eq!(
        item.spec.rpki.servers[0].host.to_string(),
        "rpki.burble.dn42"
    );
    assert_eq!(item.spec.limits.as_path_max_len, Some(10));
    assert_eq!(item.asn.unwrap().get(), 4242420998);
    assert!(item.notes.is_empty());
    let ibgp = item.ibgp.unwrap();
    assert!(ibgp.complete && ibgp.items[0].spec.is_rr);
    assert_eq!(ibgp.items[0].name.as_str(), "hk1");
}

#[test]
fn absent_ibgp_key_changes_nothing_empty_list_removes_all() {
    assert_eq!(changed("/ibgpPeers", json!(null)).unwrap().ibgp, None);
    let empty = changed("/ibgpPeers", json!([])).unwrap().ibgp.unwrap();
    assert!(empty.complete && empty.items.is_empty());
    let unreadable = changed("/ibgpPeers", json!("...")).unwrap();
    assert_eq!(unreadable.ibgp, None);
    assert_eq!(unreadable.bad[0].field, "ibgpPeers");
    let bad = changed("/ibgpPeers", json!([{"nodeId": 2}]))
        .unwrap()
        .ibgp
        .unwrap();
    assert!(bad.complete && bad.rejected.len() == 1);
}

#[test]
fn zero_limit_means_the_default_and_not_zero_routes() {
    for key in [
        "asPathMaxLen",
        "ebgpImportLimit",
        "ebgpExportLimit",
        "ibgpImportLimit",
    ] {
        let limits = changed(&format!("/policy/{key}"), json!(0))
            .unwrap()
            .spec
            .limits;
        assert!(!format!("{limits:?}").contains("Some(0)"));
    }
    assert_eq!(
        changed("/policy/asPathMaxLen", json!(null))
            .unwrap()
            .spec
            .limits
            .as_path_max_len,
        None
    );
}

#[test]
fn bad_field_of_policy_costs_only_that_field() {
    let good = changed("/configHash", json!("abc123")).unwrap().spec;
    for (pointer, value) in [
        ("/node/continentLc", json!("LC_ORIGIN_MOON")),
        ("/node/subregionLc", json!("DN42_REGION_AS_E")),
        ("/node/regionCommunity", json!("DN42_REGION_MARS")),
        ("/node/regionCode", json!(-1)),
        ("/node/bandwidthCommunity", json!("DN42_BW_FAST")),
        ("/node/bandwidth", json!("fast")),
        ("/node/country", json!(1000)),
        ("/node/type", json!("core")),
        ("/policy/dn42As", json!("AS1")),
        ("/policy/ebgpImportLimit", json!(-1)),
        ("/policy/asPathMaxLen", json!("ten")),
        ("/policy/rejectUnknownRoa", json!("maybe")),
        ("/policy/extraRanges", json!("2001:db8::/32")),
        ("/policy/extraRanges", json!(["2001:db8::1/32"])),
        ("/configHash", json!({})),
        (
            "/policy/rpkiServers",
            json!([{"host": "rpki.burble.dn42", "port": 8283}, {"host": "a b", "port": 1}]),
        ),
    ] {
        let item = changed(pointer, value).unwrap();
        let field = pointer[1..].replace('/', ".");
        assert_eq!(item.bad.len(), 1, "{pointer}: {:?}", item.bad);
        assert!(item.bad[0].field.starts_with(&field), "{:?}", item.bad);
        assert_eq!(item.spec.prefixes, good.prefixes, "{pointer}");
        assert_eq!(item.spec.rpki.servers, good.rpki.servers, "{pointer}");
        assert_eq!(item.with_last_good(&good), good, "{pointer}");
    }
}

#[test]
fn filters_are_never_made_from_half_a_policy() {
    for (pointer, value) in [
        ("/policy/dn42Ipv4Prefix", json!("172.23.105.177/28")),
        ("/policy/dn42Ipv6Prefix", json!("fd48:4da8:420::1/48")),
        ("/policy/dn42Ipv4Prefix", json!("172.23.105.176")),
        ("/policy/rpkiServers", json!("rpki.burble.dn42")),
        ("/node", json!("edge")),
    ] {
        let error = changed(pointer, value).unwrap_err().to_string();
        assert!(
            error.starts_with(&pointer[1..].replace('/', ".")),
            "{pointer}: {error}"
        );
    }
    let hostile = changed(
        "/policy/rpkiServers",
        json!([{"host": "a\"; } evil", "port": 1}]),
    )
    .unwrap_err();
    assert!(
        hostile
            .to_string()
            .starts_with("policy.rpkiServers[0].host: "),
        "{hostile}"
    );
}

#[test]
fn the_bandwidth_counts_and_its_community_stands_in() {
    let derived = changed("/node/bandwidth", json!(null)).unwrap();
    assert_eq!(derived.spec.location.bandwidth.unwrap().to_string(), "1G");
    let odd = changed("/node/bandwidth", json!("100M")).unwrap();
    assert_eq!(odd.spec.location.bandwidth.unwrap().to_string(), "100M");
    assert_eq!(odd.notes.len(), 1);
}

#[test]
fn what_is_posted_has_the_fields_of_the_reference() {
    let json_of = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
    let heartbeat = Heartbeat {
        version: "1.2.0".into(),
        uptime: 3600,
        mesh_public_key: Some(KEY.parse().unwrap()),
        drained: None,
        held: None,
        lists: Default::default(),
    };
    let want = json!({"version": "1.2.0", "uptime": 3600, "meshPublicKey": KEY});
    assert_eq!(json_of(D.encode_heartbeat(&heartbeat)), want);
    let session = |rtt_ms| SessionReport {
        uuid: "abc-123".parse().unwrap(),
        rtt_ms,
        loss: None,
        routes_imported: 150,
        routes_exported: 10,
        state: PeerState::Established,
    };
    let mut sessions: Vec<_> = [Some(25.0), Some(25.123), Some(f64::NAN), None]
        .map(session)
        .into();
    sessions[3].loss = Some(2.0 / 3.0);
    let report = json_of(D.encode_report(&Report { sessions }));
    let want = json!({"uuid": "abc-123", "rtt_ms": 25, "routes_imported": 150, "routes_exported": 10,
        "state": "established"});
    assert_eq!(report["sessions"][0], want);
    assert_eq!(report["sessions"][1]["rtt_ms"], json!(25.1));
    assert_eq!(report["sessions"][2]["rtt_ms"], Value::Null);
    assert_eq!(
        (
            &report["sessions"][3]["rtt_ms"],
            &report["sessions"][3]["loss"]
        ),
        (&Value::Null, &json!(0.667))
    );
    let modify = Modify {
        uuid: "abc-123".parse().unwrap(),
        status: WireStatus::Active,
        error: None,
    };
    assert_eq!(
        json_of(D.encode_modify(&modify)),
        json!({"uuid": "abc-123", "status": 1, "error": null})
    );
    assert_eq!("OpenSent".parse::<PeerState>(), Ok(PeerState::OpenSent));
    assert_eq!(
        serde_json::to_value(PeerState::OpenConfirm).unwrap(),
        "openconfirm"
    );
}

#[test]
fn paths_follow_the_reference_the_only_dialect() {
    assert_eq!(
        D.segments("jp1", Call::BirdConfig),
        ["agent", "jp1", "bird-config"]
    );
    assert_eq!("reference".parse::<Dialect>(), Ok(D));
    assert!("Reference".parse::<Dialect>().is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let words = [
        "uuid",
        "asn",
        "status",
        "abc",
        "1",
        "wg_1",
        "fe80::1",
        KEY,
        "192.0.2.1/32",
        "",
        "é",
        "{\"a\":",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(words.to_vec()).prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    let keys = [
        "uuid",
        "asn",
        "status",
        "interface",
        "ipv6",
        "ipv6LinkLocal",
        "mtu",
        "endpoint",
        "credential",
        "publicKey",
        "presharedKey",
        "type",
        "extensions",
        "policy",
        "nodeId",
        "name",
        "node",
        "peers",
        "sessions",
        "rpkiServers",
        "host",
        "port",
        "ibgpPeers",
        "bandwidth",
        "regionCommunity",
        "error",
    ];
    let key = proptest::sample::select(keys.to_vec()).prop_map(str::to_owned);
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::hash_map(key.clone(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn decode_all(body: &[u8]) {
    let _ = D
        .decode_sessions(body)
        .map(|listing| format!("{listing:?}"));
    let _ = D.decode_mesh(body).map(|listing| format!("{listing:?}"));
    let _ = D.decode_config(body);
    let _ = D.decode_policy(body);
    let _ = moenet_agent::wire::reference::decode_modify(body);
    let _ = moenet_agent::wire::error_body(body);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        decode_all(&body);
    }

    #[test]
    fn no_json_makes_it_panic_and_every_item_is_counted(value in any_json()) {
        decode_all(&bytes(&value));
        for key in ["sessions", "peers", "node", "policy"] {
            decode_all(&bytes(&json!({ key: value.clone(), "node": value.clone() })));
        }
        if let Value::Array(items) = &value {
            let listing = D.decode_sessions(&bytes(&json!({ "sessions": value }))).unwrap();
            prop_assert_eq!(listing.items.len() + listing.rejected.len(), items.len());
            let unknown = listing.rejected.iter().any(|rejected| rejected.uid.is_none());
            prop_assert!(!(unknown && listing.complete));
        }
    }
}
