//! JSON Schema (draft 2020-12) of the documents, and the nearest known field for a mistyped one.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::{
    BgpSessionSpec, Document, IbgpPeerSpec, Kind, MaintenanceSpec, MeshPeerSpec, NodeSpec, OverrideSpec,
    RoutingPolicySpec, Spec, StatusDocument,
};

/// The schema of a kind's documents, as `schemas/<Kind>.json` holds it.
pub fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Node => of::<NodeSpec>(),
        Kind::RoutingPolicy => of::<RoutingPolicySpec>(),
        Kind::Maintenance => of::<MaintenanceSpec>(),
        Kind::BgpSession => of::<BgpSessionSpec>(),
        Kind::MeshPeer => of::<MeshPeerSpec>(),
        Kind::IbgpPeer => of::<IbgpPeerSpec>(),
        Kind::Override => of::<OverrideSpec>(),
    }
}

/// The schema of the documents below `status/`, as `schemas/Status.json` holds it.
pub fn status_schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<StatusDocument>().to_value();
    schema["title"] = json!("Status");
    schema
}

fn of<S: Spec>() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Document<S>>().to_value();
    schema["title"] = json!(S::KIND.to_string());
    // The envelope's type allows every kind; a document in its place has one.
    schema["properties"]["kind"] =
        json!({"const": S::KIND.to_string(), "description": "What the document is about."});
    schema
}

/// Adds "did you mean …?" to "unknown field `x`, expected one of a, b", as serde and the YAML crate
/// word it.
pub(crate) fn with_nearest(message: &str) -> String {
    nearest(message).unwrap_or_else(|| message.to_owned())
}

fn nearest(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (unknown, known) = rest.split_once("`, expected ")?;
    let known = known.trim_start_matches("one of ").split(", ").map(|word| word.trim_matches('`'));
    let (_, nearest) = known
        .map(|known| (strsim::damerau_levenshtein(&unknown.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 3)
        .min()?;
    Some(format!("unknown field `{unknown}`, did you mean `{nearest}`?"))
}
