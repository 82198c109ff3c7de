use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a peering is carried.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TunnelType {
    /// A WireGuard tunnel.
    #[default]
    Wireguard,
    /// GRE over IPv4 (RFC 2784).
    Gre,
    /// GRE over IPv6 (RFC 7676).
    Ip6gre,
}

/// The administrative state of an object.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum AdminState {
    /// Configured, and drift is repaired.
    #[default]
    Enabled,
    /// Taken down; the document stays.
    Disabled,
    /// Not configured until an operator approves it.
    Pending,
    /// To be removed, and then forgotten.
    Absent,
}

/// A capability of the BGP session.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Extension {
    /// Both address families over one session (RFC 4760).
    MpBgp,
    /// IPv4 routes with an IPv6 next hop (RFC 8950).
    ExtendedNexthop,
}

/// The relation to the neighbour, which decides imports and exports.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PeeringPolicy {
    /// Transit both ways, DN42's custom.
    #[default]
    Full,
    /// Our own and our downstreams' routes go out; theirs come in.
    Peer,
    /// The neighbour buys from us: everything goes out.
    Downstream,
    /// We buy from the neighbour: our own and our downstreams' routes go out.
    Upstream,
}

/// The node's role in the backbone.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum NodeType {
    /// A router with external peerings.
    #[default]
    Edge,
    /// A route reflector.
    Rr,
    /// A client of the route reflectors.
    Client,
}

/// Implements `Display` with the text that serde writes, so that each variant has its spelling in
/// one place.
macro_rules! display_words {
    ($type:ty { $($variant:ident => $word:literal),* $(,)? }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),* })
            }
        }
    };
}

display_words!(TunnelType { Wireguard => "wireguard", Gre => "gre", Ip6gre => "ip6gre" });
display_words!(AdminState {
    Enabled => "Enabled", Disabled => "Disabled", Pending => "Pending", Absent => "Absent",
});
display_words!(PeeringPolicy {
    Full => "full", Peer => "peer", Downstream => "downstream", Upstream => "upstream",
});
display_words!(NodeType { Edge => "edge", Rr => "rr", Client => "client" });
display_words!(Extension { MpBgp => "mp-bgp", ExtendedNexthop => "extended-nexthop" });
