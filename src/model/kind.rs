use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

    /// Returns where the specification of a tunnel has its endpoint, as a JSON pointer.
    pub(crate) fn endpoint_field(self) -> &'static str {
        match self {
            Self::BgpSession => "/tunnel/endpoint",
            _ => "/endpoint",
        }
    }

    /// Returns whether an object of this kind has protocols of its own in BIRD.
    pub(crate) fn has_protocols(self) -> bool {
        match self {
            Self::Node | Self::BgpSession | Self::IbgpPeer => true,
            Self::RoutingPolicy | Self::Maintenance | Self::MeshPeer | Self::Override => false,
        }
    }

    /// Returns the name of an object for people: `sessions/wg_1`; `node` for a kind with one document.
    pub fn path(self, name: impl fmt::Display) -> String {
        match self.is_single() {
            true => self.folder().to_owned(),
            false => format!("{}/{name}", self.folder()),
        }
    }

    /// Returns whether a router has one document of this kind, at the top of the state directory.
    pub fn is_single(self) -> bool {
        matches!(self, Self::Node | Self::RoutingPolicy | Self::Maintenance)
    }

    /// Returns the kind for a word of an operator, in the singular or plural: `sessions`, `session`, `BgpSession`,
    /// `bgpsessions`, `mesh`, `policies`, ….
    pub fn from_word(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        let is_word = |one: &str| {
            let rest = word.strip_prefix(one.trim_end_matches('y'));
            rest.is_some_and(|rest| match one.ends_with('y') {
                true => ["y", "ies"].contains(&rest),
                false => ["", "s"].contains(&rest),
            })
        };
        Self::ALL.into_iter().find(|kind| {
            let folder = kind.folder().trim_end_matches('s');
            is_word(folder) || is_word(&kind.to_string().to_ascii_lowercase())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_words_in_singular_and_plural() {
        let words = [
            (Kind::Node, ["node", "nodes", "Node"]),
            (
                Kind::RoutingPolicy,
                ["policies", "routingpolicies", "RoutingPolicy"],
            ),
            (
                Kind::Maintenance,
                ["maintenance", "maintenances", "Maintenance"],
            ),
            (Kind::BgpSession, ["session", "bgpsessions", "BgpSession"]),
            (Kind::MeshPeer, ["mesh", "meshpeers", "meshpeer"]),
            (Kind::IbgpPeer, ["ibgp", "ibgppeers", "IbgpPeer"]),
            (Kind::Override, ["override", "overrides", "Override"]),
        ];
        for (kind, words) in words {
            assert_eq!(Kind::from_word(kind.folder()), Some(kind));
            assert_eq!(words.map(Kind::from_word), [Some(kind); 3]);
        }
        let none = ["", "s", "polic", "policys", "sessionss", "bgp"];
        assert_eq!(none.map(Kind::from_word), [None; 6]);
    }
}
