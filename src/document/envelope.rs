use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{ObjectKey, ObjectName, Uid};

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

/// The kind of a document.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Kind {
    /// Who this router is.
    Node,
    /// Filters, limits, RPKI and classes.
    RoutingPolicy,
    /// Drained or not.
    Maintenance,
    /// One external peering.
    BgpSession,
    /// One backbone tunnel.
    MeshPeer,
    /// One internal BGP neighbour.
    IbgpPeer,
    /// An operator's override.
    Override,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Node,
        Self::RoutingPolicy,
        Self::Maintenance,
        Self::BgpSession,
        Self::MeshPeer,
        Self::IbgpPeer,
        Self::Override,
    ];

    /// Returns the kinds with many documents.
    pub fn many() -> impl Iterator<Item = Self> {
        let many = |kind: &Self| !kind.is_single() && *kind != Self::Override;
        Self::ALL.into_iter().filter(many)
    }

    /// Returns the folder of a kind with many documents, or the file (without `.yaml`) of a kind with one.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::RoutingPolicy => "policy",
            Self::Maintenance => "maintenance",
            Self::BgpSession => "sessions",
            Self::MeshPeer => "mesh",
            Self::IbgpPeer => "ibgp",
            Self::Override => "overrides",
        }
    }

    /// Returns the key of the object of this kind and name. Maintenance and overrides are no objects of their own;
    /// they belong to the node.
    pub fn key(self, name: &ObjectName) -> ObjectKey {
        match self {
            Self::BgpSession => ObjectKey::Session(name.clone()),
            Self::MeshPeer => ObjectKey::Mesh(name.clone()),
            Self::IbgpPeer => ObjectKey::Ibgp(name.clone()),
            Self::RoutingPolicy => ObjectKey::Policy,
            Self::Node | Self::Maintenance | Self::Override => ObjectKey::Router,
        }
    }

    /// Returns kind and name of a key's object; `None` for keys of the whole router and of links without a record.
    pub fn of(key: &ObjectKey) -> Option<(Self, &ObjectName)> {
        match key {
            ObjectKey::Session(name) => Some((Self::BgpSession, name)),
            ObjectKey::Mesh(name) => Some((Self::MeshPeer, name)),
            ObjectKey::Ibgp(name) => Some((Self::IbgpPeer, name)),
            ObjectKey::Router | ObjectKey::Policy | ObjectKey::Firewall | ObjectKey::Orphan(_) => {
                None
            }
        }
    }

    /// Returns the word for an object of this kind in the log.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::BgpSession => "session",
            Self::MeshPeer => "backbone tunnel",
            Self::IbgpPeer => "internal neighbour",
            Self::Node | Self::RoutingPolicy | Self::Maintenance | Self::Override => "node",
        }
    }

    /// Returns the word for many objects of this kind.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::BgpSession => "sessions",
            Self::MeshPeer => "mesh tunnels",
            Self::IbgpPeer => "internal neighbours",
            Self::Node | Self::RoutingPolicy | Self::Maintenance | Self::Override => "objects",
        }
    }

    /// Returns whether an object of this kind has a tunnel of its own.
    pub(crate) fn has_tunnel(self) -> bool {
        match self {
            Self::BgpSession | Self::MeshPeer => true,
            Self::IbgpPeer
            | Self::Node
            | Self::RoutingPolicy
            | Self::Maintenance
            | Self::Override => false,
        }
    }

    /// Returns the name of an object for people: `sessions/wg_1`; `node` for a kind with one document.
    pub fn path(self, name: &ObjectName) -> String {
        match self.is_single() {
            true => self.folder().to_owned(),
            false => format!("{}/{name}", self.folder()),
        }
    }

    /// Returns whether a router has one document of this kind, at the top of the state directory.
    pub fn is_single(self) -> bool {
        matches!(self, Self::Node | Self::RoutingPolicy | Self::Maintenance)
    }

    /// Returns the kind for a word of an operator: `sessions`, `session`, `BgpSession`, `bgpsession`, `mesh`, ….
    pub fn from_word(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| {
            let folder = kind.folder();
            word == folder
                || word == folder.trim_end_matches('s')
                || word == kind.to_string().to_ascii_lowercase()
        })
    }
}

/// A new kind goes before the last one, and into the list of all.
const _: () = assert!(Kind::ALL.len() == Kind::Override as usize + 1);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The specification of a kind.
pub trait Spec: Serialize + DeserializeOwned + JsonSchema + Clone + PartialEq + fmt::Debug {
    /// The kind that it specifies.
    const KIND: Kind;

    /// Returns the shortest valid specification.
    fn minimal() -> Value;

    /// Returns `set` of an override, as an example in the schema; `None`: the kind has no overrides.
    fn patch_example() -> Option<Value>;
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
