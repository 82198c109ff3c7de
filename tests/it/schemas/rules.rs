//! What the schema refuses, the parser refuses too, so that an editor and the agent are of one mind.

use moenet_agent::document::{DocumentError, Kind, check_document, minimal, schema};
use serde_json::{Value, json};

fn document(kind: Kind, spec: &Value) -> Value {
    json!({"apiVersion": "moenet.work/v1", "kind": kind.to_string(), "metadata": {"name": "x"}, "spec": spec})
}

/// The smallest document with one more field, given by its path.
fn with(kind: Kind, path: &str, value: Value) -> Value {
    let mut spec = minimal(kind);
    let mut at = &mut spec;
    for part in path.split('.') {
        at = &mut at[part];
    }
    *at = value;
    document(kind, &spec)
}

fn judge(kind: Kind, document: &Value) -> (bool, Result<(), DocumentError>) {
    let schema = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema(kind))
        .unwrap();
    (
        schema.is_valid(document),
        check_document(kind, &document.to_string()),
    )
}

#[test]
fn the_smallest_documents_pass_both() {
    for kind in Kind::ALL {
        let (schema, parser) = judge(kind, &document(kind, &minimal(kind)));
        assert!(schema, "{kind}: the schema refuses it");
        parser.unwrap();
    }
}

#[test]
fn parser_rejects_schema_violations_and_names_the_field() {
    use Kind::{BgpSession, IbgpPeer, MeshPeer, Node, Override, RoutingPolicy};
    let cases = [
        (Node, "id", json!(0)),
        (Node, "id", json!(65536)),
        (Node, "asn", json!(0)),
        (Node, "asn", json!("4242420998x")),
        (Node, "loopbackIpv4", json!("172.23.105.1777")),
        (Node, "linkLocal", json!("fd00::1")),
        (BgpSession, "adminState", json!("enabled")),
        (BgpSession, "description", json!(["text"])),
        (BgpSession, "tunnel.type", json!("vxlan")),
        (BgpSession, "tunnel.interface", json!("../../etc/cron.d/x")),
        (BgpSession, "tunnel.interface", json!("all")),
        (BgpSession, "tunnel.mtu", json!(1279)),
        (BgpSession, "tunnel.listenPort", json!(0)),
        (BgpSession, "tunnel.publicKey", json!("short")),
        (BgpSession, "tunnel.presharedKeyFile", json!("/etc/shadow")),
        (
            BgpSession,
            "tunnel.presharedKeyFile",
            json!("secrets/../../x"),
        ),
        (BgpSession, "tunnel.endpoint", json!("no port")),
        (BgpSession, "tunnel.persistentKeepalive", json!(65536)),
        (BgpSession, "address.peerLinkLocal", json!("2001:db8::1")),
        (BgpSession, "address.peerIpv4", json!("::1")),
        (BgpSession, "bgp.passwordFile", json!("../password")),
        (BgpSession, "asn", json!(23456)),
        (BgpSession, "asn", json!(65535)),
        (BgpSession, "asn", json!(4_294_967_295_u32)),
        (BgpSession, "bgp.multihop", json!(1)),
        (BgpSession, "bgp.importLimit", json!(0)),
        (BgpSession, "bgp.exportLimit", json!(0)),
        (BgpSession, "bgp.extensions", json!(["add-path"])),
        (MeshPeer, "nodeId", json!(0)),
        (MeshPeer, "loopbackIpv6", json!("1.2.3.4")),
        (IbgpPeer, "nodeId", json!(0)),
        (RoutingPolicy, "location.country", json!(0)),
        (RoutingPolicy, "location.country", json!(1000)),
        (RoutingPolicy, "location.bandwidth", json!("fast")),
        (RoutingPolicy, "prefixes.ipv4", json!("172.20.0.0")),
        (
            RoutingPolicy,
            "rpki.servers",
            json!([{"host": "", "port": 8282}]),
        ),
        (
            RoutingPolicy,
            "rpki.servers",
            json!([{"host": "rpki.example.dn42", "port": 0}]),
        ),
        (
            RoutingPolicy,
            "rpki.servers",
            json!([{"host": "a b", "port": 8282}]),
        ),
        (RoutingPolicy, "extraRanges", json!(["everywhere"])),
        (RoutingPolicy, "limits.asPathMaxLen", json!(0)),
        (RoutingPolicy, "limits.ebgpImport", json!(0)),
        (Override, "reason", json!("")),
        (Override, "expiresAt", json!("tomorrow")),
        (Override, "set", json!([])),
    ];
    let mut wrong = Vec::new();
    for (kind, path, value) in cases {
        let (schema, parser) = judge(kind, &with(kind, path, value.clone()));
        let named = parser
            .as_ref()
            .err()
            .is_some_and(|error| error.field.starts_with(&format!("spec.{path}")));
        if schema || !named {
            wrong.push(format!(
                "{kind} {path} {value}: schema takes it: {schema}, parser: {parser:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_mistyped_field_is_refused_by_both() {
    for kind in Kind::ALL {
        let (schema, parser) = judge(kind, &with(kind, "adminstate", json!("Enabled")));
        assert!(!schema && parser.is_err(), "{kind}");
    }
}

#[test]
fn a_document_of_another_kind_is_refused_by_both() {
    let (schema, parser) = judge(Kind::Node, &document(Kind::MeshPeer, &minimal(Kind::Node)));
    assert!(!schema);
    assert_eq!(parser.unwrap_err().field, "kind");
}
