//! The documents of the repository: the sample state directory, and the examples.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use moenet_agent::desired::node_uid;
use moenet_agent::document::{
    BgpSessionSpec, Condition, Document, IbgpPeerSpec, Kind, MeshPeerSpec, Metadata, NodeSpec,
    OverrideSpec, PackedSpec, RoutingPolicySpec, Spec, StatusBody, StatusDocument, check_document,
    parse, parse_value, to_yaml,
};
use moenet_agent::effective::{Defaults, Router, Secrets, Session, merge};
use moenet_agent::model::{AdminState, Endpoint, PresharedKey, Secret, Uid};
use moenet_agent::observed::Mark;
use moenet_agent::observed::bird::{BgpState, ProtocolState};
use moenet_agent::observed::kernel::{KernelView, Link, LinkKind, WireGuard, WireGuardPeer};
use moenet_agent::plan::{ObjectObservation, WantedTunnel, plan_session};
use moenet_agent::status::{
    Acceptance, BirdFacts, Expected, Facts, ObjectFacts, Service, TunnelFacts, assess,
};
use moenet_agent::store::{AppliedBody, AppliedDocument, AppliedOverride, Area, Place};
use serde_json::Value;

use super::{file, named_schema, repository};
use crate::support::{our_key, router_key};

/// Every YAML file below a folder.
fn documents(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(documents(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn state() -> PathBuf {
    repository().join("state")
}

/// All that have a schema: other examples are fleets, which are written as the Control Plane's API is.
fn samples() -> Vec<PathBuf> {
    let mut all = documents(&state());
    all.extend(documents(&repository().join("examples/documents")));
    all.push(repository().join("examples/demo/config.yaml"));
    all
}

/// The name of the schema that fits the document's place and content.
fn schema_of(path: &Path, document: &Value) -> String {
    for (folder, schema) in [("status", "Status"), ("applied", "Applied")] {
        if path.starts_with(state().join(folder)) {
            return schema.to_owned();
        }
    }
    if document.get("kind").is_none() {
        return "Config".to_owned();
    }
    // An override's place says what it is about; an example has no place, and is about a session.
    if document["kind"] == "Override" {
        return "BgpSessionOverride".to_owned();
    }
    document["kind"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn every_sample_is_valid_and_names_its_schema() {
    let samples = samples();
    assert!(samples.len() >= 21, "samples are missing");
    for path in samples {
        let text = fs::read_to_string(&path).unwrap();
        let document: Value =
            parse_value(&text).unwrap_or_else(|error| panic!("{}", error.in_file(&path)));
        let name = schema_of(&path, &document);
        let named =
            named_schema(&path).unwrap_or_else(|| panic!("{} names no schema", path.display()));
        assert_eq!(
            named.canonicalize().ok(),
            file(&name).canonicalize().ok(),
            "{}",
            path.display()
        );
        keeps_to(&path, &named, &document);
        let read = match name.as_str() {
            "Status" => parse_value::<StatusDocument>(&text).map(drop),
            "Applied" => parse_value::<AppliedDocument>(&text).map(drop),
            "Config" => moenet_agent::config::parse(&text).map(drop),
            "BgpSessionOverride" => check_document(Kind::Override, &text),
            kind => check_document(Kind::from_word(kind).unwrap(), &text),
        };
        read.unwrap_or_else(|error| panic!("{}", error.in_file(&path)));
    }
}

fn keeps_to(path: &Path, schema: &Path, document: &Value) {
    let schema: Value = serde_json::from_str(&fs::read_to_string(schema).unwrap()).unwrap();
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap();
    let errors: Vec<_> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error} at {}", path.display(), error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
fn sample_document_has_the_name_of_its_file() {
    for path in documents(&state()) {
        let document: Value = parse_value(&fs::read_to_string(&path).unwrap()).unwrap();
        let name = document["metadata"]["name"].as_str().unwrap();
        let kind = Kind::from_word(document["kind"].as_str().unwrap()).unwrap();
        let below = path.strip_prefix(state()).unwrap().to_str().unwrap();
        let own = format!("{}/{name}.yaml", kind.folder());
        let good = match kind {
            Kind::Override => {
                below.starts_with("overrides/") && below.ends_with(&format!("/{name}.yaml"))
            }
            single if single.is_single() => {
                below == format!("{}.yaml", single.folder())
                    || below == format!("applied/{name}.yaml")
            }
            _ => {
                below == own
                    || below == format!("status/{own}")
                    || below == format!("applied/{own}")
            }
        };
        assert!(good, "{below} holds {kind} {name}");
    }
}

fn load<S: Spec>(path: &str) -> Document<S> {
    parse(&fs::read_to_string(state().join(path)).unwrap()).unwrap()
}

/// The sample's sessions with their overrides, by name.
fn sessions() -> BTreeMap<String, (Document<BgpSessionSpec>, BgpSessionSpec)> {
    let mut sessions = BTreeMap::new();
    for path in documents(&state().join("sessions")) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let document: Document<BgpSessionSpec> = load(&format!("sessions/{name}.yaml"));
        let override_ = format!("overrides/sessions/{name}.yaml");
        let spec = if state().join(&override_).exists() {
            merge(&document.spec, &load::<OverrideSpec>(&override_).spec.set)
                .unwrap()
                .spec
        } else {
            document.spec.clone()
        };
        sessions.insert(name, (document, spec));
    }
    sessions
}

/// The sessions among the examples.
fn examples() -> Vec<Document<BgpSessionSpec>> {
    let texts = documents(&repository().join("examples/documents"))
        .into_iter()
        .map(|path| fs::read_to_string(path).unwrap());
    texts.filter_map(|text| parse(&text).ok()).collect()
}

/// The secrets that the samples name.
fn secrets() -> Secrets {
    let psk = PresharedKey::new([5; 32]).to_base64();
    Secrets::from([
        ("secrets/classic.psk".to_owned(), psk),
        (
            "secrets/classic.bgp".to_owned(),
            Secret::new("not a real one".to_owned()),
        ),
    ])
}

#[test]
fn sample_sessions_plan_on_a_fresh_router() {
    let node: Document<NodeSpec> = load("node.yaml");
    let router = Router::new(node.metadata.name.as_str(), &node.spec, our_key());
    let mut all: Vec<_> = sessions().into_values().collect();
    all.extend(
        examples()
            .into_iter()
            .map(|document| (document.clone(), document.spec)),
    );
    assert!(all.len() >= 5, "samples are missing");
    for (document, spec) in all {
        let name = &document.metadata.name;
        let filled = spec.filled(&router, &Defaults::default());
        let session =
            Session::resolve(name, &document.uid(), &filled, &router, &secrets()).unwrap();
        let steps = plan_on_nothing(&session);
        assert!(steps[0].starts_with("create "), "{steps:?}");
        assert!(steps[0].ends_with(&format!(
            "link {0} (tunnel.interface: want {0}, have (none))",
            session.tunnel.interface
        )));
    }
}

fn plan_on_nothing(session: &Session) -> Vec<String> {
    let kernel = KernelView::default();
    let resolved = session.tunnel.endpoint.as_ref().and_then(Endpoint::address);
    let tunnel = WantedTunnel::of_session(session, &router_key(), resolved).unwrap();
    let now = "2026-11-23T20:00:00Z".parse().unwrap();
    let seen = ObjectObservation {
        formerly: None,
        kernel: &kernel,
        creating: None,
        resolved,
        endpoint_changed: false,
        gives_way: false,
        now,
        fragment: None,
    };
    let plan = plan_session(&session.name, &tunnel, "", &seen).unwrap();
    plan.steps.iter().map(ToString::to_string).collect()
}

#[test]
fn the_sample_status_tells_what_the_sample_override_does() {
    for (name, (document, spec)) in sessions() {
        let text =
            fs::read_to_string(state().join(format!("status/sessions/{name}.yaml"))).unwrap();
        let status: StatusDocument = parse_value(&text).unwrap();
        assert_eq!(
            status.status.observed_generation,
            document.metadata.generation
        );
        assert_eq!(status.metadata.uid, document.metadata.uid);
        assert_eq!(!status.status.overridden.is_empty(), document.spec != spec);
    }
}

/// The sample's node as a router.
fn router() -> Router {
    let node: Document<NodeSpec> = load("node.yaml");
    Router::new(node.metadata.name.as_str(), &node.spec, our_key())
}

/// Holds the sample of `applied/` to what the agent would have written. `UPDATE_SCHEMAS=1` writes it anew.
#[track_caller]
fn in_effect<S: Spec>(document: &Document<S>, name: &str, uid: Uid, body: AppliedBody) {
    let metadata = Metadata {
        name: name.parse().unwrap(),
        uid: Some(uid),
        generation: document.metadata.generation,
    };
    let applied = AppliedDocument::new(S::KIND, metadata, body);
    let place = Place::new(Area::Applied, S::KIND, &applied.metadata.name).relative();
    let up = "../".repeat(place.components().count());
    let text = format!(
        "# yaml-language-server: $schema={up}schemas/Applied.json\n{}",
        to_yaml(&applied).unwrap()
    );
    let file = state().join(&place);
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &text).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&file).unwrap_or_default(),
        text,
        "{}",
        place.display()
    );
}

#[test]
fn sample_applied_records_are_what_the_agent_writes() {
    for (name, (document, spec)) in sessions() {
        let override_: Document<OverrideSpec> = load(&format!("overrides/sessions/{name}.yaml"));
        let filled = spec.filled(&router(), &Defaults::default());
        let merged = merge(&document.spec, &override_.spec.set).unwrap();
        let body = AppliedBody {
            interfaces: [filled.tunnel.interface.clone().unwrap()].into(),
            protocols: [format!("ebgp_{name}")].into(),
            overridden: Some(AppliedOverride {
                reason: override_.spec.reason.clone(),
                expires_at: override_.spec.expires_at,
                fields: merged.overridden.into_keys().collect(),
            }),
            spec: PackedSpec::of(&filled).ok(),
            ..AppliedBody::default()
        };
        in_effect(&document, &name, document.uid(), body);
    }
    let whole = |spec: Value, interface: &str| AppliedBody {
        interfaces: interface.parse().into_iter().collect(),
        spec: Some(PackedSpec::from(&spec)),
        ..AppliedBody::default()
    };
    let node: Document<NodeSpec> = load("node.yaml");
    in_effect(
        &node,
        "node",
        node_uid(),
        whole(serde_json::to_value(&node.spec).unwrap(), "dummy0"),
    );
    let policy: Document<RoutingPolicySpec> = load("policy.yaml");
    let uid = Uid::local("policy", &"policy".parse().unwrap());
    in_effect(
        &policy,
        "policy",
        uid,
        whole(serde_json::to_value(&policy.spec).unwrap(), ""),
    );
    let mesh: Document<MeshPeerSpec> = load("mesh/hk1.yaml");
    in_effect(
        &mesh,
        "hk1",
        mesh.uid(),
        whole(serde_json::to_value(&mesh.spec).unwrap(), "mesh_hk1"),
    );
    let ibgp: Document<IbgpPeerSpec> = load("ibgp/hk1.yaml");
    let body = whole(serde_json::to_value(&ibgp.spec).unwrap(), "");
    in_effect(
        &ibgp,
        "hk1",
        ibgp.uid(),
        AppliedBody {
            protocols: ["ibgp_hk1".to_owned()].into(),
            ..body
        },
    );
}

/// A session that is up, as the kernel and BIRD show it.
#[test]
fn the_sample_status_has_the_conditions_that_the_agent_writes() {
    let text = fs::read_to_string(state().join("status/sessions/wg_4242421080.yaml")).unwrap();
    let sample: StatusDocument = parse_value(&text).unwrap();
    let peer = our_key();
    let at: jiff::Timestamp = "2026-11-23T20:00:00Z".parse().unwrap();
    let seen = WireGuardPeer {
        last_handshake: Some(at),
        ..WireGuardPeer::default()
    };
    let wireguard = WireGuard {
        peers: BTreeMap::from([(peer, seen.into())]),
        ..WireGuard::default()
    };
    let link = Link {
        index: 1,
        kind: LinkKind::WireGuard,
        mtu: 1380,
        up: true,
        mark: Mark::None,
        addrgen_none: true,
        addresses: BTreeSet::new(),
        routes: BTreeSet::new(),
        wireguard: Some(wireguard),
        gre: None,
        unread: None,
        learnt: false,
        sysctls: BTreeMap::new(),
    };
    let protocols = [moenet_agent::observed::bird::Protocol {
        name: "ebgp_x".into(),
        proto: "BGP".into(),
        table: None,
        state: ProtocolState::Up,
        since: Some(1_795_480_697),
        info: "Established".into(),
        description: None,
        message: None,
        bgp: Some(moenet_agent::observed::bird::Bgp {
            state: BgpState::Established,
            ..Default::default()
        }),
        rpki: None,
        channels: Vec::new(),
    }];
    let expected = [Expected {
        protocol: "ebgp_x".into(),
        address: None,
        source: None,
    }];
    let bird = BirdFacts {
        blocked: None,
        outside: None,
        down: None,
        loaded: true,
        refused: None,
        trouble: None,
        protocols: &protocols,
        expected: &expected,
        our_asn: None,
        their_asn: None,
    };
    let facts = Facts {
        now: at,
        object: ObjectFacts {
            path: "sessions/wg_4242421080",
            generation: 7,
            acceptance: Acceptance::Valid,
            remark: None,
            admin_state: AdminState::Enabled,
            service: Service::Enabled,
            operator_owned: false,
            paused: None,
            held: None,
            overridden: sample.status.overridden.clone(),
        },
        applied: true,
        error: None,
        tunnel: Some(TunnelFacts {
            link: Some(&link),
            peer: Some(peer),
            missing: None,
            name: None,
            route: None,
            babel: None,
        }),
        bird: Some(bird),
        rtt_ms: None,
        loss: None,
        steps: Vec::new(),
        before: &StatusBody::default(),
    };
    let written = assess(&facts);
    let words = |status: &StatusBody| -> Vec<_> {
        let one = |c: &Condition| {
            (
                c.condition_type,
                c.status,
                c.reason.clone(),
                c.message.clone(),
            )
        };
        status.conditions.iter().map(one).collect()
    };
    assert_eq!(words(&sample.status), words(&written));
    assert_eq!(sample.status.phase, written.phase);
}
