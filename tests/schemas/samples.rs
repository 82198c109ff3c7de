//! The documents of the repository: the sample state directory, and the examples.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use moenet_agent::document::{
    BgpSessionSpec, Document, Kind, NodeSpec, OverrideSpec, StatusDocument, parse, parse_value,
};
use moenet_agent::effective::{Defaults, Router, Secrets, Session, merge};
use moenet_agent::model::{Endpoint, PresharedKey, Secret};
use moenet_agent::plan::kernel_view::KernelView;
use moenet_agent::plan::{BirdView, Desired, Observed, TunnelView, WantedTunnel, plan};
use serde_json::Value;

use super::rules::parse_as;
use super::{file, named_schema, repository};
use crate::support::{our_key, private_key};

/// Every YAML file below a folder.
fn documents(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(documents(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn state() -> PathBuf {
    repository().join("state")
}

/// All that have the form of a document, and so a schema: other examples are configuration and fleets.
fn samples() -> Vec<PathBuf> {
    let mut all = documents(&state());
    all.extend(documents(&repository().join("examples/documents")));
    all
}

/// The name of the schema that fits the document's place and content.
fn schema_of(path: &Path, document: &Value) -> String {
    if path.starts_with(state().join("status")) {
        return "Status".to_owned();
    }
    document["kind"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn every_sample_names_its_schema_keeps_to_it_and_is_read() {
    let samples = samples();
    assert!(samples.len() >= 8, "samples are missing");
    for path in samples {
        let text = fs::read_to_string(&path).unwrap();
        let document: Value = parse_value(&text).unwrap_or_else(|error| panic!("{}", error.in_file(&path)));
        let name = schema_of(&path, &document);
        let named = named_schema(&path).unwrap_or_else(|| panic!("{} names no schema", path.display()));
        assert_eq!(named.canonicalize().ok(), file(&name).canonicalize().ok(), "{}", path.display());
        keeps_to(&path, &named, &document);
        let read = match name.as_str() {
            "Status" => parse_value::<StatusDocument>(&text).map(drop),
            kind => parse_as(Kind::from_word(kind).unwrap(), &text),
        };
        read.unwrap_or_else(|error| panic!("{}", error.in_file(&path)));
    }
}

fn keeps_to(path: &Path, schema: &Path, document: &Value) {
    let schema: Value = serde_json::from_str(&fs::read_to_string(schema).unwrap()).unwrap();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let errors: Vec<_> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error} at {}", path.display(), error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
fn a_document_of_the_state_directory_has_the_name_of_its_file() {
    for path in documents(&state()) {
        let document: Value = parse_value(&fs::read_to_string(&path).unwrap()).unwrap();
        let name = document["metadata"]["name"].as_str().unwrap();
        let kind = Kind::from_word(document["kind"].as_str().unwrap()).unwrap();
        let below = path.strip_prefix(state()).unwrap().to_str().unwrap();
        let own = format!("{}/{name}.yaml", kind.folder());
        let good = match kind {
            Kind::Override => below.starts_with("overrides/") && below.ends_with(&format!("/{name}.yaml")),
            single if single.is_single() => below == format!("{}.yaml", single.folder()),
            _ => below == own || below == format!("status/{own}") || below == format!("applied/{own}"),
        };
        assert!(good, "{below} holds {kind} {name}");
    }
}

fn load<S: moenet_agent::document::Spec>(path: &str) -> Document<S> {
    parse(&fs::read_to_string(state().join(path)).unwrap()).unwrap()
}

/// The sample's sessions with their overrides, by name.
fn sessions() -> BTreeMap<String, (Document<BgpSessionSpec>, BgpSessionSpec)> {
    let mut sessions = BTreeMap::new();
    for path in documents(&state().join("sessions")) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let document: Document<BgpSessionSpec> = load(&format!("sessions/{name}.yaml"));
        let exception = format!("overrides/sessions/{name}.yaml");
        let spec = if state().join(&exception).exists() {
            merge(&document.spec, &load::<OverrideSpec>(&exception).spec.set).unwrap().spec
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
        ("secrets/classic.bgp".to_owned(), Secret::new("not a real one".to_owned())),
    ])
}

#[test]
fn sessions_of_the_state_directory_and_of_the_examples_plan_on_a_fresh_router() {
    let node: Document<NodeSpec> = load("node.yaml");
    let router = Router::new(node.metadata.name.as_str(), &node.spec, our_key());
    let mut all: Vec<_> = sessions().into_values().collect();
    all.extend(examples().into_iter().map(|document| (document.clone(), document.spec)));
    assert!(all.len() >= 5, "samples are missing");
    for (document, spec) in all {
        let name = &document.metadata.name;
        let filled = spec.filled(&router, &Defaults::default());
        let session = Session::resolve(name, &document.uid(), &filled, &router, &secrets()).unwrap();
        let steps = plan_on_nothing(&session);
        assert!(steps[0].starts_with("create "), "{steps:?}");
        assert!(steps[0].ends_with(&format!(
            "link {0} (tunnel.interface: want {0}, have nothing)",
            session.tunnel.interface
        )));
    }
}

fn plan_on_nothing(session: &Session) -> Vec<String> {
    let kernel = KernelView::default();
    let resolved = session.tunnel.endpoint.as_ref().and_then(Endpoint::address);
    let tunnel = WantedTunnel::of_session(session, &private_key(), our_key(), resolved).unwrap();
    let now = "2026-11-23T20:00:00Z".parse().unwrap();
    let view = TunnelView {
        kernel: &kernel,
        creating: None,
        resolved,
        endpoint_changed: false,
        gives_way: false,
        now,
    };
    let desired = Desired::Present { tunnel: &tunnel, fragment: "" };
    let seen = Observed { tunnel: view, bird: BirdView::default() };
    let plan = plan(&session.name, &session.uid, &desired, &seen).unwrap();
    plan.steps.iter().map(ToString::to_string).collect()
}

#[test]
fn the_sample_status_tells_what_the_sample_override_does() {
    for (name, (document, spec)) in sessions() {
        let text = fs::read_to_string(state().join(format!("status/sessions/{name}.yaml"))).unwrap();
        let status: StatusDocument = parse_value(&text).unwrap();
        assert_eq!(status.status.observed_generation, document.metadata.generation);
        assert_eq!(status.metadata.uid, document.metadata.uid);
        assert_eq!(!status.status.overridden.is_empty(), document.spec != spec);
    }
}
