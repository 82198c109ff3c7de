use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Kind, ObjectName, Uid};

/// A document's schema version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The first version.
    #[default]
    #[serde(rename = "moenet.work/v1")]
    V1,
}

impl ApiVersion {
    /// Returns the version as written in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "moenet.work/v1",
        }
    }
}

/// The specification of a kind.
pub trait Spec:
    Serialize + DeserializeOwned + JsonSchema + Clone + PartialEq + fmt::Debug + 'static
{
    /// The kind that it specifies.
    const KIND: Kind;

    /// Returns the shortest valid specification.
    fn minimal() -> Value;

    /// Returns `set` of an override, as an example in the schema; `None`: the kind has no overrides.
    fn patch_example() -> Option<Value>;

    /// Returns the kind of the document that it overrides, if it is an override and says so.
    fn target(&self) -> Option<Kind> {
        None
    }
}

/// A document: what every file in the state directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document<S> {
    /// The document's schema version.
    pub api_version: ApiVersion,
    /// What the document is about.
    pub kind: Kind,
    /// The object's metadata.
    pub metadata: Metadata,
    /// The desired state.
    pub spec: S,
}

/// The object of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Its name; the file has the same.
    pub name: ObjectName,
    /// The Control Plane's identity of it. Absent: the document is the operator's own, and the sync
    /// leaves it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uid>,
    /// Counts the changes of the specification that came from the Control Plane.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<S: Spec> Document<S> {
    /// Returns a document of the latest version.
    pub fn new(name: ObjectName, uid: Option<Uid>, generation: u64, spec: S) -> Self {
        let metadata = Metadata {
            name,
            uid,
            generation,
        };
        Self {
            api_version: ApiVersion::V1,
            kind: S::KIND,
            metadata,
            spec,
        }
    }

    /// Returns the identity that marks this document's resources: its uid, or `local/<kind>/<name>`.
    pub fn uid(&self) -> Uid {
        let local = || Uid::local(S::KIND.folder(), &self.metadata.name);
        self.metadata.uid.clone().unwrap_or_else(local)
    }
}
