//! The files `network.yaml` and `routers/<name>.yaml` as types.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::care::{Budgets, RolloutSpec};
use super::owner::{OwnerLimits, OwnerSpec};
use super::token::TokenHash;
use crate::document::{Location, OwnPrefixes, root_schema};
use crate::model::{
    Asn, Bandwidth, Endpoint, Host, InterfaceName, LinkLocal, Mtu, NodeType, ObjectName, Port,
    PublicKey, Secret,
};
use crate::wire::reference::shapes;

/// Returns the schemas of the files by their names.
pub fn schemas() -> [(&'static str, Value); 4] {
    [
        ("FleetNetwork", root_schema::<NetworkSpec>("FleetNetwork")),
        ("FleetRouter", root_schema::<RouterSpec>("FleetRouter")),
        (
            "FleetSession",
            root_schema::<shapes::Session>("FleetSession"),
        ),
        ("FleetOwner", root_schema::<OwnerSpec>("FleetOwner")),
    ]
}

/// The network, from which the Control Plane derives what each router gets.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// The AS number of the network.
    pub asn: Asn,
    /// The network's own prefixes. Loopback addresses are derived from them: the prefix and the router's id.
    #[serde(default)]
    pub prefixes: OwnPrefixes,
    /// The regions by name, with the communities of their routers.
    #[serde(default)]
    #[schemars(example = serde_json::json!({"ap-northeast": {"continent": "AS", "subregion": "AS_E", "regionCode": 101}}))]
    pub regions: BTreeMap<String, Location>,
    /// The routing policy of all routers, with the fields of `policy` in `GET bird-config`. AS number and prefixes are
    /// derived.
    #[serde(default)]
    #[schemars(with = "shapes::Policy")]
    pub policy: Map<String, Value>,
    /// The backbone.
    #[serde(default)]
    pub mesh: MeshSpec,
    /// Gives a change to a few routers first. Default: all routers get a change at once.
    #[serde(default)]
    pub rollout: Option<RolloutSpec>,
    /// How many routers may be out of service. Default: no limit.
    #[serde(default)]
    pub budgets: Budgets,
    /// What the owners of AS numbers, those with a file in owners/, may ask for.
    #[serde(default)]
    pub owners: OwnerLimits,
}

/// The backbone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MeshSpec {
    /// Which routers have a tunnel between them.
    pub topology: Topology,
    /// The regions in the order of the ring, for the topology `ring`.
    #[schemars(example = ["ap-northeast", "eu-west", "us-west"])]
    pub ring: Vec<String>,
    /// Which routers have an internal BGP session. Default: `reflectors` for the topology `hub`, else `full`.
    #[schemars(example = &"reflectors")]
    pub ibgp: Option<Ibgp>,
    /// A router listens for a peer on this port plus the id of the peer.
    #[schemars(range(min = 1))]
    pub port_base: u16,
    /// MTU of the tunnels. Default: 1420.
    #[schemars(extend("default" = 1420))]
    pub mtu: Option<Mtu>,
}

impl Default for MeshSpec {
    fn default() -> Self {
        Self {
            topology: Topology::Full,
            ring: Vec::new(),
            ibgp: None,
            port_base: 23_455,
            mtu: None,
        }
    }
}

/// Which routers have a tunnel between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// Each two.
    #[default]
    Full,
    /// Those of one region, and those of neighbouring regions in `ring`.
    Ring,
    /// A route reflector (`type: rr`) and every other router.
    Hub,
}

/// Which routers have an internal BGP session between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ibgp {
    /// Each two.
    Full,
    /// A route reflector (`type: rr`) and every other router.
    Reflectors,
}

/// A router. What it omits is derived from the network and the id.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouterSpec {
    /// The number of the router, 1..65535. It never changes; give no later router the id of one that was removed.
    #[serde(deserialize_with = "node_id")]
    #[schemars(range(min = 1), example = 1)]
    pub id: u16,
    /// The region, a name of `regions` in network.yaml.
    #[serde(default)]
    #[schemars(example = "ap-northeast")]
    pub region: Option<String>,
    /// Name or address at which other routers reach this one. Without it, only this router calls.
    #[serde(default)]
    pub address: Option<Host>,
    /// The role in the backbone.
    #[serde(default, rename = "type")]
    pub node_type: NodeType,
    /// Bandwidth of the uplink.
    #[serde(default)]
    pub bandwidth: Option<Bandwidth>,
    /// Where the router is, field by field instead of the region's.
    #[serde(default)]
    pub location: Location,
    /// The loopback IPv4 address. Default: the network's prefix and the id, if the id fits.
    #[serde(default)]
    #[schemars(example = "172.23.105.177")]
    pub loopback_ipv4: Option<Ipv4Addr>,
    /// The loopback IPv6 address. Default: the network's prefix and the id.
    #[serde(default)]
    #[schemars(example = "fd48:4242:420::1")]
    pub loopback_ipv6: Option<Ipv6Addr>,
    /// The link-local address in every tunnel. Default: as the agent derives it from AS number and id.
    #[serde(default)]
    pub link_local: Option<LinkLocal>,
    /// Fields of the routing policy instead of the network's.
    #[serde(default)]
    #[schemars(with = "shapes::Policy")]
    pub policy: Map<String, Value>,
    /// This router in the backbone.
    #[serde(default)]
    pub mesh: RouterMesh,
    /// Lets the router have no session at all. Without it, an empty list is not served after one with sessions, unless
    /// `fleet delete` removed them: a folder that is not mounted looks the same. Default: no.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub allow_no_sessions: bool,
    /// The token. Better: `tokenHashes`.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = "a-long-random-text")]
    pub token: Option<Secret<String>>,
    /// A file with the token; a relative path is below the folder of this file.
    #[serde(default)]
    #[schemars(example = "../secrets/jp1.token")]
    pub token_file: Option<PathBuf>,
    /// The hashes of the tokens, two during a rotation: `sha256:` and what `printf %s TOKEN | sha256sum` prints.
    #[serde(default)]
    #[schemars(length(max = 2), example = ["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])]
    pub token_hashes: Vec<TokenHash>,
}

/// A router in the backbone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouterMesh {
    /// Whether the router has tunnels and internal sessions. Default: yes.
    #[schemars(extend("default" = true))]
    pub enabled: bool,
    /// The WireGuard public key. Default: the key in the router's heartbeats.
    pub public_key: Option<PublicKey>,
    /// Values for the tunnel to a peer, by the name of the peer, instead of derived ones.
    #[schemars(example = serde_json::json!({"hk1": {"mtu": 1380}}))]
    pub links: BTreeMap<ObjectName, LinkSpec>,
}

impl Default for RouterMesh {
    fn default() -> Self {
        Self {
            enabled: true,
            public_key: None,
            links: BTreeMap::new(),
        }
    }
}

/// The tunnel to a peer, as this router has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LinkSpec {
    /// Whether there is a tunnel. `false` on one side is enough to have none. Default: yes.
    #[schemars(extend("default" = true))]
    pub enabled: bool,
    /// Where this router calls the peer.
    pub endpoint: Option<Endpoint>,
    /// The port on which this router listens for the peer.
    pub listen_port: Option<Port>,
    /// MTU; on one side is enough.
    pub mtu: Option<Mtu>,
    /// The name of the link on this router.
    pub interface: Option<InterfaceName>,
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            endpoint: None,
            listen_port: None,
            mtu: None,
            interface: None,
        }
    }
}

fn node_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let id = i64::deserialize(deserializer)?;
    let fits = u16::try_from(id).ok().filter(|id| *id != 0);
    fits.ok_or_else(|| serde::de::Error::custom(format_args!("must be 1..65535, not {id}")))
}
