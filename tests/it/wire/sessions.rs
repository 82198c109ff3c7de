//! `GET sessions` (docs/contract/session.md): an example, leniency, strictness, and lists that are not complete.

use moenet_agent::model::{AdminState, Extension, PeeringPolicy, TunnelType};
use moenet_agent::wire::{Dialect, Listing, SessionItem, WireError, WireStatus};
use serde_json::{Value, json};

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OTHER: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn session() -> Value {
    json!({
        "uuid": "abc-123", "asn": 4242421080u32, "status": 1, "ipv6": "fe80::1", "ipv6LinkLocal": "fe80::2",
        "mtu": 1420, "interface": "wg_4242421080", "endpoint": "example.com:51820",
        "credential": {"publicKey": KEY}
    })
}

fn with(patch: Value) -> Value {
    let mut value = session();
    for (key, field) in patch.as_object().unwrap() {
        value[key] = field.clone();
    }
    value
}

fn list(items: Value) -> Listing<SessionItem> {
    Dialect::Reference
        .decode_sessions(json!({"sessions": items}).to_string().as_bytes())
        .unwrap()
}

fn one(patch: Value) -> SessionItem {
    let listing = list(json!([with(patch.clone())]));
    assert!(listing.complete);
    assert!(
        listing.rejected.is_empty(),
        "{patch}: {:?}",
        listing.rejected
    );
    listing.items.into_iter().next().unwrap()
}

fn refused(patch: Value) -> String {
    let listing = list(json!([with(patch.clone())]));
    assert!(listing.items.is_empty(), "{patch}");
    assert!(listing.complete, "{patch}");
    listing.rejected[0].to_string()
}

#[test]
fn the_session_of_the_reference_decodes() {
    let item = one(json!({}));
    let spec = item.spec.unwrap();
    assert_eq!(item.uid.as_str(), "abc-123");
    assert_eq!(item.status, WireStatus::Active);
    assert_eq!(item.name_hint.unwrap().as_str(), "wg_4242421080");
    assert_eq!(spec.admin_state, AdminState::Enabled);
    assert_eq!(spec.asn.get(), 4242421080);
    assert_eq!(spec.address.peer_link_local.unwrap().to_string(), "fe80::2");
    assert_eq!(spec.address.peer_ipv6, None);
    assert_eq!(
        spec.tunnel.endpoint.unwrap().to_string(),
        "example.com:51820"
    );
    assert_eq!(spec.tunnel.public_key.unwrap().to_string(), KEY);
    assert_eq!(spec.bgp.policy, PeeringPolicy::Full);
    assert_eq!(spec.bgp.extensions, None);
}

#[test]
fn an_empty_list_is_complete_and_empty() {
    let listing = list(json!([]));
    assert!(listing.complete && listing.items.is_empty() && listing.rejected.is_empty());
}

#[test]
fn number_for_a_text_is_refused() {
    for key in ["interface", "name", "description", "endpoint", "policy"] {
        let listing = list(json!([with(json!({ key: 7 }))]));
        assert!(listing.items.is_empty() && listing.complete, "{key}");
        assert_eq!(listing.rejected[0].field, key);
    }
    let listing = list(json!([with(json!({"uuid": 17}))]));
    assert!(listing.items.is_empty() && !listing.complete);
}

#[test]
fn numbers_as_texts_mean_the_same() {
    let item = one(json!({"asn": "4242421080", "status": "4", "mtu": "1380", "port": "5000"}));
    let spec = item.spec.unwrap();
    assert_eq!(item.status, WireStatus::QueuedForSetup);
    assert_eq!(spec.tunnel.mtu.unwrap().get(), 1380);
    assert_eq!(spec.tunnel.listen_port.unwrap().get(), 5000);
    assert_eq!(
        one(json!({"mtu": 1380.0}))
            .spec
            .unwrap()
            .tunnel
            .mtu
            .unwrap()
            .get(),
        1380
    );
}

#[test]
fn null_is_as_good_as_absent_for_every_optional_field() {
    let optional = [
        "interface",
        "ipv6",
        "mtu",
        "endpoint",
        "name",
        "description",
        "ipv4",
        "presharedKey",
        "listenPort",
        "port",
        "type",
        "extensions",
        "policy",
        "password",
        "multihop",
        "importLimit",
        "exportLimit",
    ];
    for key in optional {
        one(json!({ key: null }));
    }
    assert_eq!(
        one(json!({"interface": null})).name_hint.unwrap().as_str(),
        "wg_4242421080"
    );
}

#[test]
fn the_name_of_an_interface_holds_every_as_number() {
    let item = one(json!({"interface": null, "asn": 4294967294u32}));
    assert_eq!(item.name_hint.unwrap().as_str(), "wg_4294967294");
}

#[test]
fn unknown_fields_are_ignored() {
    one(json!({"lastSeen": {"deep": [1, 2]}, "Status": 5, "state": "x"}));
}

#[test]
fn credential_is_an_object_json_text_or_bare_key() {
    for credential in [
        json!({"publicKey": KEY}),
        json!(format!("{{\"publicKey\":\"{KEY}\"}}")),
        json!(KEY),
    ] {
        let spec = one(json!({"credential": credential})).spec.unwrap();
        assert_eq!(spec.tunnel.public_key.unwrap().to_string(), KEY);
    }
}

#[test]
fn preshared_key_is_read_from_both_places_and_stays_separate() {
    for patch in [
        json!({"credential": {"publicKey": KEY, "presharedKey": OTHER}}),
        json!({"presharedKey": OTHER}),
        json!({"credential": format!("{{\"publicKey\":\"{KEY}\",\"presharedKey\":\"{OTHER}\"}}")}),
    ] {
        let item = one(patch);
        assert_eq!(
            item.preshared_key.as_ref().unwrap().to_base64().expose(),
            OTHER
        );
        assert!(!format!("{item:?}").contains(OTHER));
    }
    let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(
        one(json!({"presharedKey": zeros})).preshared_key.is_none(),
        "zeros mean none to the kernel"
    );
}

#[test]
fn no_error_shows_a_secret() {
    for patch in [
        json!({"presharedKey": "hunter2"}),
        json!({"password": "hunter2\u{7}"}),
        json!({"credential": {"publicKey": "hunter2"}}),
        json!({"credential": "hunter2"}),
        json!({"credential": "{\"presharedKey\": \"hunter2\""}),
    ] {
        let listing = list(json!([with(patch.clone())]));
        assert_eq!(listing.rejected.len(), 1, "{patch}");
        assert!(!format!("{listing:?}").contains("hunter2"), "{listing:?}");
    }
}

#[test]
fn no_error_shows_a_secret_of_another_type() {
    for patch in [
        json!({"presharedKey": {"key": "hunter2"}}),
        json!({"password": ["hunter2"]}),
        json!({"credential": ["hunter2"]}),
        json!({"credential": {"publicKey": ["hunter2"]}}),
        json!({"credential": {"publicKey": KEY, "presharedKey": {"hunter2": "hunter2"}}}),
        json!({"credential": "{\"publicKey\": {\"hunter2\": 1}}"}),
        json!({"type": ["hunter2"], "extensions": {"hunter2": 1}}),
        json!({"password": 7, "mtu": ["hunter2"]}),
    ] {
        let listing = list(json!([with(patch.clone())]));
        assert_eq!(listing.rejected.len(), 1, "{patch}");
        assert!(!format!("{listing:?}").contains("hunter2"), "{listing:?}");
    }
}

#[test]
fn field_of_lower_precedence_breaks_no_session() {
    let spec = one(json!({"listenPort": 30000, "port": 0, "description": "text", "name": 7}));
    let spec = spec.spec.unwrap();
    assert_eq!(spec.tunnel.listen_port.unwrap().get(), 30000);
    let credential = json!({"publicKey": KEY, "presharedKey": OTHER});
    let item = one(json!({"credential": credential, "presharedKey": "x"}));
    assert_eq!(item.preshared_key.unwrap().to_base64().expose(), OTHER);
    assert!(refused(json!({"port": 0})).starts_with("port: "));
    assert!(refused(json!({"presharedKey": "x"})).starts_with("presharedKey: "));
}

#[test]
fn uuid_and_status_are_named_before_other_fields() {
    for (patch, field) in [
        (json!({"mtu": 1, "status": 6}), "status"),
        (json!({"asn": 0, "uuid": ""}), "uuid"),
    ] {
        let listing = list(json!([with(patch)]));
        assert_eq!(listing.rejected[0].field, field);
    }
}

#[test]
fn the_peers_addresses_take_their_places() {
    let address = |patch| one(patch).spec.unwrap().address;
    let only_v6 = address(json!({"ipv6LinkLocal": null}));
    assert_eq!(only_v6.peer_link_local.unwrap().to_string(), "fe80::1");
    assert_eq!(only_v6.peer_ipv6, None);
    let ula = address(json!({"ipv6": "fd00:1080::1", "ipv4": "172.20.0.1/32"}));
    assert_eq!(ula.peer_ipv6.unwrap().to_string(), "fd00:1080::1");
    assert_eq!(ula.peer_link_local.unwrap().to_string(), "fe80::2");
    assert_eq!(ula.peer_ipv4.unwrap().to_string(), "172.20.0.1");
    let v4 = address(json!({"ipv6": null, "ipv6LinkLocal": null, "ipv4": "172.20.0.1"}));
    assert_eq!((v4.peer_link_local, v4.peer_ipv6), (None, None));
}

#[test]
fn optional_extras_are_taken() {
    let spec = one(json!({
        "name": "short", "description": "Example Networks", "extensions": "mp-bgp, extended-nexthop",
        "policy": "downstream", "listenPort": 30000, "port": 1, "multihop": 2, "importLimit": "500",
        "exportLimit": 0, "password": "s3cret"
    }));
    assert_eq!(spec.password.as_ref().unwrap().expose(), "s3cret");
    let spec = spec.spec.unwrap();
    assert_eq!(spec.description.as_deref(), Some("Example Networks"));
    assert_eq!(spec.bgp.extensions.unwrap().len(), 2);
    assert_eq!(spec.bgp.policy, PeeringPolicy::Downstream);
    assert_eq!(spec.tunnel.listen_port.unwrap().get(), 30000);
    assert_eq!(
        (
            spec.bgp.multihop,
            spec.bgp.import_limit,
            spec.bgp.export_limit
        ),
        (Some(2), Some(500), None)
    );
    let spec = one(json!({"name": "n".repeat(2000), "extensions": ["mp-bgp"]}))
        .spec
        .unwrap();
    assert_eq!(spec.description.unwrap().len(), 1000);
    assert!(spec.bgp.extensions.unwrap().contains(&Extension::MpBgp));
}

#[test]
fn a_gre_tunnel_needs_no_key_and_no_port() {
    for (kind, endpoint, want) in [
        ("gre", "192.0.2.1", "192.0.2.1:47"),
        ("gre", "gre.example.com", "gre.example.com:47"),
        ("gre", "gre.example.com:5", "gre.example.com:5"),
        ("ip6gre", "2001:db8::1", "[2001:db8::1]:47"),
    ] {
        let spec = one(json!({"type": kind, "endpoint": endpoint, "credential": null}))
            .spec
            .unwrap();
        assert_ne!(spec.tunnel.tunnel_type, TunnelType::Wireguard);
        assert_eq!(spec.tunnel.endpoint.unwrap().to_string(), want);
    }
    for (kind, endpoint) in [
        ("gre", json!(null)),
        ("gre", json!("2001:db8::1")),
        ("ip6gre", json!("192.0.2.1")),
        ("gre", json!("a b")),
    ] {
        assert!(refused(json!({"type": kind, "endpoint": endpoint})).starts_with("endpoint: "));
    }
}

#[test]
fn a_broken_field_is_named_as_the_wire_names_it() {
    for (patch, field) in [
        (json!({"asn": 0}), "asn"),
        (json!({"asn": "AS1"}), "asn"),
        (json!({"asn": null}), "asn"),
        (json!({"mtu": 70000}), "mtu"),
        (json!({"mtu": "big"}), "mtu"),
        (json!({"interface": "../x"}), "interface"),
        (json!({"interface": "wg_42424210800123"}), "interface"),
        (json!({"ipv6": "fe80::1%eth0"}), "ipv6"),
        (json!({"ipv6LinkLocal": "fd00::1"}), "ipv6LinkLocal"),
        (json!({"ipv4": "172.20.0.1/24"}), "ipv4"),
        (json!({"endpoint": "a\nPostUp = x:1"}), "endpoint"),
        (json!({"endpoint": ""}), "endpoint"),
        (json!({"credential": {}}), "credential.publicKey"),
        (json!({"credential": null}), "credential.publicKey"),
        (
            json!({"credential": {"publicKey": "c2hvcnQ="}}),
            "credential.publicKey",
        ),
        (json!({"credential": [KEY]}), "credential"),
        (
            json!({"credential": {"publicKey": KEY, "presharedKey": "x"}}),
            "credential.presharedKey",
        ),
        (json!({"listenPort": 0}), "listenPort"),
        (json!({"type": "openvpn"}), "type"),
        (json!({"policy": "FULL"}), "policy"),
        (json!({"extensions": ["add-path"]}), "extensions"),
        (json!({"extensions": [1]}), "extensions"),
        (json!({"multihop": 256}), "multihop"),
        (
            json!({"ipv6": null, "ipv6LinkLocal": null}),
            "ipv6LinkLocal",
        ),
    ] {
        let error = refused(patch.clone());
        assert!(error.starts_with(&format!("{field}: ")), "{patch}: {error}");
    }
}

#[test]
fn one_bad_item_never_spoils_the_list() {
    let listing = list(json!([
        with(json!({"mtu": 1})),
        with(json!({"uuid": "b", "interface": "wg_b"}))
    ]));
    assert!(listing.complete);
    assert_eq!(listing.items.len(), 1);
    let rejected = &listing.rejected[0];
    assert_eq!(rejected.uid.as_ref().unwrap().as_str(), "abc-123");
    assert_eq!(
        rejected.interface.as_ref().unwrap().as_str(),
        "wg_4242421080"
    );
    assert!(rejected.reportable);
}

#[test]
fn an_item_without_a_usable_uuid_makes_the_list_incomplete() {
    // The last ones are the names of our own links.
    let ours = ["local/node/loopback", "local/sessions/own", "mesh/2"].map(|uuid| json!(uuid));
    let none = [
        json!(null),
        json!(""),
        json!("a b"),
        json!({}),
        json!("x".repeat(129)),
    ];
    for uuid in none.into_iter().chain(ours) {
        let listing = list(json!([with(json!({"uuid": uuid}))]));
        assert!(!listing.complete, "{uuid}");
        assert!(!listing.rejected[0].reportable);
    }
    for item in [json!(null), json!(1), json!("abc-123"), json!([])] {
        let listing = list(json!([session(), item]));
        assert!(!listing.complete);
        assert_eq!(listing.items.len(), 1);
        assert_eq!(listing.rejected[0].field, "sessions[1]");
    }
}

#[test]
fn duplicate_uuid_rejects_both_sessions_and_marks_list_incomplete() {
    let listing = list(json!([
        session(),
        with(json!({"mtu": 1300})),
        with(json!({"uuid": "other"}))
    ]));
    assert!(!listing.complete);
    assert_eq!((listing.items.len(), listing.rejected.len()), (1, 2));
    assert!(listing.rejected.iter().all(|rejected| rejected.reportable));
    let listing = list(json!([session(), with(json!({"status": 5}))]));
    assert!(
        listing.rejected.iter().all(|rejected| !rejected.reportable),
        "ERROR would undo the removal"
    );
}

#[test]
fn ten_thousand_bad_items_are_reportable_by_their_own_uuids() {
    let bad = |number: usize| {
        let status = if number == 9_999 { 5 } else { 1 };
        json!({"uuid": format!("u{}", number % 9_999), "status": status, "asn": 0})
    };
    let listing = list((0..10_000).map(bad).collect());
    assert_eq!(listing.rejected.len(), 10_000);
    let others = listing.rejected.iter().filter(|it| !it.reportable);
    let uids: Vec<_> = others.map(|it| it.uid.as_ref().unwrap().as_str()).collect();
    assert_eq!(uids, ["u0", "u0"], "one of the two is to be removed");
}

#[test]
fn an_unknown_status_is_refused_and_not_reported() {
    for status in [
        json!(6),
        json!(-1),
        json!("ACTIVE"),
        json!(null),
        json!(1.5),
        json!(true),
    ] {
        let listing = list(json!([with(json!({"status": status}))]));
        assert!(listing.complete);
        assert_eq!(listing.rejected[0].field, "status");
        assert!(!listing.rejected[0].reportable, "{status}");
    }
}

#[test]
fn session_to_remove_needs_only_its_uuid() {
    let listing = list(json!([{"uuid": "gone", "status": 5}]));
    assert_eq!(listing.items[0].status, WireStatus::QueuedForDelete);
    assert_eq!(
        (&listing.items[0].spec, &listing.items[0].name_hint),
        (&None, &None)
    );
    let item = one(json!({"status": 5, "mtu": "broken", "credential": 7}));
    assert_eq!(item.spec, None);
    assert_eq!(item.name_hint.unwrap().as_str(), "wg_4242421080");
    let whole = one(json!({"status": 5}));
    assert_eq!(whole.spec.unwrap().admin_state, AdminState::Absent);
}

#[test]
fn broken_session_to_remove_is_not_reported_as_error() {
    for status in [0, 3] {
        let listing = list(json!([with(json!({"status": status, "mtu": 1}))]));
        assert!(!listing.rejected[0].reportable, "ERROR would bring it up");
    }
}

#[test]
fn half_a_body_is_truncated_and_never_shorter() {
    let whole = json!({"sessions": [session(), with(json!({"uuid": "b"}))]}).to_string();
    for end in 1..whole.len() {
        let error = Dialect::Reference
            .decode_sessions(&whole.as_bytes()[..end])
            .unwrap_err();
        assert!(
            matches!(error, WireError::Truncated { .. }),
            "{end}: {error}"
        );
    }
}

#[test]
fn item_of_a_list_is_named_by_its_wrong_type() {
    let said = refused(json!({"extensions": ["mp-bgp", 1]}));
    assert!(said.contains("must be a text, not a number"), "{said}");
}

#[test]
fn a_thousand_rejected_sessions_decode_in_no_time() {
    let items: Vec<Value> = (0..1000)
        .map(|n| with(json!({"uuid": format!("u{n}"), "mtu": 1})))
        .collect();
    let began = std::time::Instant::now();
    assert_eq!(list(json!(items)).rejected.len(), 1000);
    assert!(
        began.elapsed() < std::time::Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}
