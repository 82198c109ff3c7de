//! Overrides are merge patches (RFC 7396). What that promises, on specifications as routers have them.
use std::collections::BTreeMap;

use moenet_agent::document::{BgpSessionSpec, OverrideSpec};
use moenet_agent::effective::{difference, leaves, merge};
use moenet_agent::store::edited_in_place;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

type Fields = Vec<(&'static str, Option<Value>)>;

fn section(fields: Fields) -> Value {
    let given = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.collect())
}

fn one_of(values: &'static [&'static str]) -> impl Strategy<Value = Option<Value>> {
    prop::option::of(prop::sample::select(values).prop_map(Value::from))
}

fn number(range: std::ops::Range<u32>) -> impl Strategy<Value = Option<Value>> {
    prop::option::of(range.prop_map(Value::from))
}

fn tunnel() -> impl Strategy<Value = Value> {
    let keys = &[
        "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
        "8KZP3Ggwk3R8j8YVOAaYqvn1BWq0ZPVFvdaPfhBsQ3E=",
    ];
    let endpoints = &["example.com:51820", "[2001:db8::1]:1", "192.0.2.1:65535"];
    let files = &["secrets/a.psk", "secrets/b.psk"];
    let parts = (
        one_of(&["wg_1", "wg.2-x"]),
        number(1..65536),
        number(1280..9001),
        one_of(keys),
        one_of(endpoints),
        one_of(files),
        number(1..65536),
        prop::option::of(Just(Value::from(true))),
    );
    parts.prop_map(
        |(interface, port, mtu, key, endpoint, file, keepalive, adopt)| {
            section(vec![
                ("interface", interface),
                ("listenPort", port),
                ("mtu", mtu),
                ("publicKey", key),
                ("endpoint", endpoint),
                ("presharedKeyFile", file),
                ("persistentKeepalive", keepalive),
                ("adopt", adopt),
            ])
        },
    )
}

fn address() -> impl Strategy<Value = Value> {
    let parts = (
        one_of(&["fe80::2", "fe80::abcd:1"]),
        one_of(&["fd00::2"]),
        one_of(&["172.20.0.1", "10.0.0.1"]),
    );
    parts.prop_map(|(link_local, v6, v4)| {
        section(vec![
            ("peerLinkLocal", link_local),
            ("peerIpv6", v6),
            ("peerIpv4", v4),
        ])
    })
}

fn bgp() -> impl Strategy<Value = Value> {
    let extensions = prop::option::of(prop::sample::subsequence(
        vec!["extended-nexthop", "mp-bgp"],
        0..=2,
    ));
    let parts = (
        extensions,
        one_of(&["full", "peer", "downstream", "upstream"]),
        number(2..256),
        number(1..100_000),
    );
    parts.prop_map(|(extensions, policy, multihop, limit)| {
        section(vec![
            ("extensions", extensions.map(Value::from)),
            ("policy", policy),
            ("multihop", multihop),
            ("importLimit", limit),
        ])
    })
}

/// A specification as the sync or an operator may write one.
fn specification() -> impl Strategy<Value = BgpSessionSpec> {
    let description = prop::option::of("[ -~]{1,20}".prop_map(Value::from));
    let state = one_of(&["Enabled", "Disabled", "Pending", "Absent"]);
    (1..u32::MAX, description, state, tunnel(), address(), bgp()).prop_map(
        |(asn, description, state, tunnel, address, bgp)| {
            let fields = vec![
                ("asn", Some(asn.into())),
                ("description", description),
                ("adminState", state),
                ("tunnel", Some(tunnel)),
                ("address", Some(address)),
                ("bgp", Some(bgp)),
            ];
            serde_json::from_value(section(fields)).unwrap()
        },
    )
}

fn value(spec: &BgpSessionSpec) -> Value {
    serde_json::to_value(spec).unwrap()
}

fn patch(from: &BgpSessionSpec, to: &BgpSessionSpec) -> Map<String, Value> {
    difference(&value(from), &value(to))
        .as_object()
        .cloned()
        .unwrap()
}

fn override_(set: Map<String, Value>) -> OverrideSpec {
    OverrideSpec {
        reason: "x".into(),
        target_kind: None,
        expires_at: None,
        paused: false,
        set,
    }
}

fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    value.pointer(&format!("/{}", path.replace('.', "/")))
}

/// Whether one path is the other, or leads into it.
fn touch(a: &str, b: &str) -> bool {
    let leads =
        |a: &str, b: &str| b == a || b.strip_prefix(a).is_some_and(|rest| rest.starts_with('.'));
    leads(a, b) || leads(b, a)
}

proptest! {
    #[test]
    fn difference_as_override_turns_first_document_into_second(
        first in specification(), second in specification()
    ) {
        let merged = merge(&first, &patch(&first, &second)).unwrap();
        prop_assert_eq!(merged.spec, second);
    }

    #[test]
    fn override_is_recorded_by_field_with_the_document_value(
        first in specification(), second in specification()
    ) {
        let patch = patch(&first, &second);
        let merged = merge(&first, &patch).unwrap();
        let before = value(&first);
        let patch = Value::Object(patch);
        let expected: BTreeMap<String, Value> = leaves(&patch)
            .keys()
            .map(|path| (format!("spec.{path}"), at(&before, path).cloned().unwrap_or_default()))
            .collect();
        prop_assert_eq!(&merged.overridden, &expected);
        // What no override names is the document's, and each that is named differs from it.
        let after = value(&merged.spec);
        for (path, theirs) in leaves(&before) {
            let named = merged.overridden.contains_key(&format!("spec.{path}"));
            prop_assert_eq!(named, at(&after, &path) != Some(theirs), "{}", path);
        }
    }

    #[test]
    fn an_override_applied_twice_is_applied_once(first in specification(), second in specification()) {
        let patch = patch(&first, &second);
        let once = merge(&first, &patch).unwrap().spec;
        prop_assert_eq!(&merge(&once, &patch).unwrap().spec, &once);
    }

    #[test]
    fn merge_of_disjoint_overrides_is_associative_and_commutative(
        document in specification(), mtu in 1280u32..9001, limit in 1u32..1000, text in "[a-z]{1,8}"
    ) {
        let (a, b, c) = (json!({"tunnel": {"mtu": mtu}}), json!({"bgp": {"importLimit": limit}}), json!({"description": text}));
        let apply = |patches: &[&Value]| {
            let mut found = value(&document);
            patches.iter().for_each(|patch| json_patch::merge(&mut found, patch));
            found
        };
        let grouped = |one: &Value, two: &Value| {
            let mut both = one.clone();
            json_patch::merge(&mut both, two);
            both
        };
        let all = apply(&[&a, &b, &c]);
        prop_assert_eq!(&apply(&[&c, &a, &b]), &all);
        prop_assert_eq!(&apply(&[&grouped(&a, &b), &c]), &all);
        prop_assert_eq!(&apply(&[&a, &grouped(&b, &c)]), &all);
    }

    #[test]
    fn manual_edit_wins_over_override_and_keeps_its_rest(
        synced in specification(), before in specification(), edited in specification()
    ) {
        let there = patch(&synced, &before);
        let edit = Value::Object(patch(&synced, &edited));
        let kept = edited_in_place(&value(&synced), &value(&edited), Some(&override_(there.clone())));
        let Some(kept) = kept else { prop_assert_eq!(synced, edited); return Ok(()) };
        let mut found = value(&synced);
        json_patch::merge(&mut found, &Value::Object(kept.set));
        let (wanted, earlier) = (value(&edited), value(&before));
        for path in leaves(&edit).keys() {
            prop_assert_eq!(at(&found, path), at(&wanted, path), "{} of the edit", path);
        }
        let there = Value::Object(there);
        let edits = leaves(&edit);
        for path in leaves(&there).keys().filter(|path| !edits.keys().any(|edit| touch(path, edit))) {
            prop_assert_eq!(at(&found, path), at(&earlier, path), "{} of the override", path);
        }
    }
}

/// The one case in which merge patches do not compose: a section taken away by one and filled by the next
/// keeps what it had. Specifications always have all their sections, so no difference of two takes one away.
#[test]
fn no_difference_of_two_specifications_takes_a_section_away() {
    let spec: BgpSessionSpec = serde_json::from_value(json!({"asn": 1})).unwrap();
    for section in ["tunnel", "address", "bgp"] {
        assert!(value(&spec)[section].is_object(), "{section}");
    }
}
