use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{file, router};
use crate::desired::{Desired, Object, Refused, testing::desired};
use crate::document::DocumentError;
use crate::status::Acceptance;
use crate::store::{Snapshot, Store};

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

/// A value at a path of the document; `None` removes the field.
type Change = (&'static str, Option<Value>);

fn session() -> Value {
    json!({
        "apiVersion": "moenet.work/v1", "kind": "BgpSession", "metadata": {"name": "one"},
        "spec": {
            "asn": 4_242_421_080_u32, "description": "a peer",
            "tunnel": {"publicKey": KEY, "mtu": 1420, "endpoint": "a.example:51820"},
            "address": {"peerLinkLocal": "fe80::1080"}, "bgp": {"policy": "full"}
        }
    })
}

fn mesh() -> Value {
    json!({
        "apiVersion": "moenet.work/v1", "kind": "MeshPeer", "metadata": {"name": "two"},
        "spec": {"nodeId": 2, "publicKey": KEY}
    })
}

/// Invalid and valid changes of a session's document.
fn session_changes() -> impl Strategy<Value = Change> {
    prop::sample::select(vec![
        ("/spec/asn", Some(json!(0))),
        ("/spec/asn", Some(json!("4242421080"))),
        ("/spec/asn", Some(json!(4_242_420_998_u32))),
        ("/spec/asn", None),
        ("/spec/description", Some(json!(7))),
        ("/spec/colour", Some(json!("red"))),
        ("/spec/tunnel", Some(json!(5))),
        ("/spec/tunnel/mtu", Some(json!(1))),
        ("/spec/tunnel/mtuu", Some(json!(1420))),
        ("/spec/tunnel/publicKey", None),
        ("/spec/tunnel/publicKey", Some(json!("short"))),
        ("/spec/tunnel/endpoint", Some(json!("a b:1"))),
        ("/spec/tunnel/interface", Some(json!("a/b"))),
        ("/spec/tunnel/presharedKeyFile", Some(json!("/etc/x"))),
        ("/spec/address/peerLinkLocal", None),
        ("/spec/address/peerLinkLocal", Some(json!("fe80::998:1"))),
        ("/spec/address/peerIpv4", Some(json!("192.0.2.1"))),
        ("/spec/address/peerIpv6", Some(json!("fd42::9"))),
        ("/spec/bgp/policy", Some(json!("friend"))),
        ("/spec/bgp/extensions", Some(json!(["mp-bgp", "x"]))),
        ("/spec/bgp/importLimit", Some(json!(0))),
        ("/spec/adminState", Some(json!("Sometimes"))),
        ("/metadata/name", Some(json!("other"))),
        ("/metadata/generation", Some(json!("x"))),
        ("/kind", Some(json!("MeshPeer"))),
        ("/apiVersion", Some(json!("moenet.work/v2"))),
        ("/spec", None),
    ])
}

fn mesh_changes() -> impl Strategy<Value = Change> {
    prop::sample::select(vec![
        ("/spec/nodeId", None),
        ("/spec/nodeId", Some(json!("x"))),
        ("/spec/publicKey", Some(json!(KEY.replace('x', "!")))),
        ("/spec/mtu", Some(json!(70_000))),
        ("/spec/linkLocal", Some(json!("fe80::998:1"))),
        ("/spec/listenPort", Some(json!(0))),
    ])
}

/// Patches of overrides, valid and invalid.
fn overrides() -> impl Strategy<Value = Value> {
    let sets = vec![
        json!({"tunnel": {"mtu": 1380}}),
        json!({"tunnel": {"mtu": 1, "endpoint": "x"}}),
        json!({"tunnel": {"mtuu": 1380}}),
        json!({"adminState": "Absent"}),
        json!({"adminState": "Absent", "asn": 0}),
        json!({"asn": null}),
        json!({"bgp": {"extensions": ["x"]}}),
        json!({"tunnel": {"publicKey": null}}),
        json!({"nodeId": "x"}),
        json!([]),
    ];
    let spec = (prop::sample::select(sets), any::<bool>(), 0..4u8);
    spec.prop_map(|(set, paused, fault)| match fault {
        0 => json!({"set": set, "paused": paused}),
        1 => json!({"reason": " ", "set": set, "expires": "never"}),
        _ => json!({"reason": "test", "set": set, "paused": paused}),
    })
}

fn changed(mut document: Value, changes: &[Change]) -> Value {
    for (path, value) in changes {
        let Some((parent, field)) = path.rsplit_once('/') else {
            continue;
        };
        if let Some(Value::Object(parent)) = document.pointer_mut(parent) {
            match value {
                Some(value) => drop(parent.insert(field.to_owned(), value.clone())),
                None => drop(parent.remove(field)),
            }
        }
    }
    document
}

/// Returns why the agent rejects each object, according to the desired state that it uses.
fn refusals(desired: &Desired) -> Vec<String> {
    let documents = &desired.router_documents;
    let single = [&documents.node.acceptance, &documents.policy.acceptance];
    let single = single
        .into_iter()
        .filter_map(|acceptance| match acceptance {
            Acceptance::Invalid(why) => Some(why.clone()),
            _ => None,
        });
    let objects = desired.objects.values().filter_map(Object::refused);
    single.chain(objects.map(str::to_owned)).collect()
}

struct Case {
    _folder: tempfile::TempDir,
    store: Store,
    files: Vec<PathBuf>,
}

impl Case {
    fn new(files: &[(&str, &Value)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.confirm().unwrap();
        let write = |(path, document): &(&str, &Value)| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, serde_json::to_string_pretty(document).unwrap()).unwrap();
            path
        };
        let files = files.iter().map(write).collect();
        Self {
            _folder: folder,
            store,
            files,
        }
    }

    fn load(&self) -> (Arc<Snapshot>, Desired) {
        let snapshot = self.store.load().unwrap();
        (snapshot, desired(&self.store, &Refused::default()))
    }
}

fn texts(problems: Vec<DocumentError>) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn an_override(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "moenet.work/v1", "kind": "Override", "metadata": {"name": name}, "spec": spec
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn validate_refuses_all_that_run_refuses_in_the_same_words(
        session_changes in prop::collection::vec(session_changes(), 0..4),
        mesh_changes in prop::collection::vec(mesh_changes(), 0..2),
        of_session in overrides(),
        of_mesh in overrides(),
        of_policy in overrides(),
        which in 0..8u8,
    ) {
        let one = changed(session(), &session_changes);
        let two = changed(mesh(), &mesh_changes);
        let on_one = an_override("one", &of_session);
        let on_two = an_override("two", &of_mesh);
        let on_policy = an_override("policy", &of_policy);
        let policy = json!({
            "apiVersion": "moenet.work/v1", "kind": "RoutingPolicy", "metadata": {"name": "policy"}, "spec": {}
        });
        let mut files = vec![("sessions/one.yaml", &one), ("mesh/two.yaml", &two), ("policy.yaml", &policy)];
        for (bit, file) in [
            (1, ("overrides/sessions/one.yaml", &on_one)),
            (2, ("overrides/mesh/two.yaml", &on_two)),
            (4, ("overrides/policy.yaml", &on_policy)),
        ] {
            if which & bit != 0 {
                files.push(file);
            }
        }
        let case = Case::new(&files);
        let (snapshot, desired) = case.load();

        let whole = texts(router::problems(&snapshot, &desired));
        let refused = refusals(&desired);
        for why in refused.iter().chain(&desired.problems) {
            prop_assert!(whole.iter().any(|text| text.ends_with(why)), "{why}\nis not in {whole:#?}");
        }
        prop_assert_eq!(whole.is_empty(), refused.is_empty() && desired.problems.is_empty(), "{:#?}", whole);

        // A single file is rejected for every rule that depends only on that file.
        let each: Vec<String> = case.files.iter().flat_map(|it| texts(file::problems(it))).collect();
        for error in &snapshot.problems {
            prop_assert!(each.contains(&error.to_string()), "{error}\nis not in {each:#?}");
        }
        for problem in &each {
            prop_assert!(whole.iter().any(|text| text.ends_with(problem.as_str())), "{problem}\nis not in {whole:#?}");
        }
    }
}

#[test]
fn all_problems_of_a_file_are_listed_with_their_places() {
    let changes = [
        ("/spec/tunnel/mtu", Some(json!(1))),
        ("/spec/colour", Some(json!("red"))),
        ("/spec/bgp/policy", Some(json!("friend"))),
    ];
    let document = changed(session(), &changes);
    let case = Case::new(&[("sessions/one.yaml", &document)]);
    let found = texts(file::problems(&case.files[0]));
    assert_eq!(found.len(), 3, "{found:#?}");
    let prefix = format!("{}:", case.files[0].display());
    for text in &found {
        let place = text.strip_prefix(&prefix).unwrap();
        let line = place.split(':').next().unwrap();
        assert!(line.parse::<u32>().is_ok(), "{text}");
    }
}

#[test]
fn all_contradictions_of_a_session_are_listed() {
    let changes = [
        ("/spec/asn", Some(json!(4_242_420_998_u32))),
        ("/spec/tunnel/publicKey", None),
        ("/spec/address/peerLinkLocal", Some(json!("fe80::998:1"))),
        ("/spec/address/peerIpv6", Some(json!("2001:db8::1"))),
    ];
    let document = changed(session(), &changes);
    let case = Case::new(&[("sessions/one.yaml", &document)]);
    let (snapshot, desired) = case.load();
    let found = texts(router::problems(&snapshot, &desired));
    for field in [
        "spec.asn: ",
        "spec.tunnel.publicKey: ",
        "spec.address.peerLinkLocal: ",
        "spec.address.peerIpv6: ",
    ] {
        assert!(
            found.iter().any(|text| text.contains(field)),
            "{field}: {found:#?}"
        );
    }
}
