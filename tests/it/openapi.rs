//! The descriptions of both APIs: on disk as the code makes them, whole, and true of both servers' answers. Every
//! answer in `http` and `fleet` is checked too (`support::openapi`).

use std::fs;

use serde_json::Value;

use crate::support::openapi::CONTROL_PLANE;

fn descriptions() -> [(&'static str, Value); 2] {
    [
        ("openapi-local", moenet_agent::http::openapi()),
        ("openapi-control-plane", moenet_agent::fleet::openapi()),
    ]
}

#[test]
fn descriptions_on_disk_are_what_the_code_says() {
    for (name, document) in descriptions() {
        let path = format!("{}/schemas/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == text,
            "schemas/{name}.json is out of date; UPDATE_SCHEMAS=1 writes it"
        );
    }
}

fn walk<'a>(value: &'a Value, seen: &mut impl FnMut(&'a Value)) {
    seen(value);
    match value {
        Value::Object(fields) => fields.values().for_each(|value| walk(value, seen)),
        Value::Array(items) => items.iter().for_each(|value| walk(value, seen)),
        _ => {}
    }
}

#[test]
fn every_reference_has_a_target() {
    for (name, document) in descriptions() {
        assert_eq!(document["openapi"], "3.1.0", "{name}");
        walk(&document, &mut |value| {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else {
                return;
            };
            let target = document.pointer(reference.strip_prefix('#').unwrap());
            assert!(target.is_some(), "{name}: {reference}");
        });
    }
}

#[test]
fn every_field_of_a_body_is_explained() {
    for (name, document) in descriptions() {
        for (schema, body) in document["components"]["schemas"].as_object().unwrap() {
            for (field, about) in body["properties"].as_object().into_iter().flatten() {
                let explained = about.get("description").is_some() || about.get("$ref").is_some();
                assert!(explained, "{name}: {schema}.{field}");
            }
        }
    }
}

/// The bodies of the reference, and of `docs/contract/control-plane.md#leniency`.
#[test]
fn described_items_are_what_agents_accept() {
    let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    let session = |more: &str| {
        format!(
            r#"{{"sessions":[{{"uuid":"abc-123","asn":4242421080,"status":1,"ipv6LinkLocal":"fe80::2",
            "endpoint":"example.com:51820","credential":{{"publicKey":"{key}"}}{more}}}]}}"#
        )
    };
    for more in [
        "",
        r#","mtu":"1420","listenPort":"21080","importLimit":0"#,
        r#","extensions":["mp-bgp"],"policy":"peer","multihop":2,"description":null"#,
        r#","extensions":"mp-bgp, extended-nexthop","password":"x","interface":"wg_x""#,
    ] {
        let text = session(more);
        let body = serde_json::from_str(&text).unwrap();
        assert_eq!(CONTROL_PLANE.errors("Sessions", &body), [""; 0], "{more}");
        let read = moenet_agent::wire::reference::decode_sessions(text.as_bytes()).unwrap();
        assert_eq!(read.items.len(), 1, "{more}: {:?}", read.rejected);
    }
    for more in [
        r#","mtu":1"#,
        r#","mtu":"x""#,
        r#","policy":"all""#,
        r#","status":6"#,
        r#","ipv4":5"#,
        r#","multihop":"many""#,
        r#","credential":7"#,
    ] {
        let text = session(more);
        let body = serde_json::from_str(&text).unwrap();
        assert!(
            !CONTROL_PLANE.errors("Sessions", &body).is_empty(),
            "{more}"
        );
        let read = moenet_agent::wire::reference::decode_sessions(text.as_bytes()).unwrap();
        assert_eq!(read.items.len(), 0, "{more}");
    }
}
