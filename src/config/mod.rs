//! The agent's own configuration: one YAML file, a few environment variables.
//!
//! Unknown keys are errors that name file, line and the nearest known key. The defaults are defined next to the
//! fields.

mod listen;
mod live;
mod load;
mod rules;
mod source;
mod token;
mod values;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::{AddressRange, Asn, InterfaceName, LinkLocal, Secret};

pub use listen::Listen;
pub(crate) use live::{LiveConfig, is_reloadable};
pub use load::parse;
pub(crate) use load::{ConfigError, Environment, load};
pub(crate) use load::{check, found, problems};
pub(crate) use source::Source;
pub use token::TokenSource;
pub(crate) use token::{TokenError, TokenNews};
pub use values::Backend;
pub(crate) use values::{Interval, LogFormat, MaxRemovals};

/// The whole configuration.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Who this router is.
    pub node: Node,
    /// Where the desired state comes from. Absent: the state directory alone.
    #[serde(default)]
    pub control_plane: Option<ControlPlane>,
    /// The local API.
    #[serde(default)]
    pub server: Server,
    /// The state directory.
    #[serde(default)]
    pub state: State,
    /// BIRD.
    #[serde(default)]
    pub bird: Bird,
    /// Tunnels.
    #[serde(default)]
    pub wireguard: WireGuard,
    /// The backbone.
    #[serde(default)]
    pub mesh: Mesh,
    /// The node's own addresses.
    #[serde(default)]
    pub loopback: LoopbackInterface,
    /// The agent's table in nftables.
    #[serde(default)]
    pub firewall: Firewall,
    /// Protection against bulk removals.
    #[serde(default)]
    pub guard: Guard,
    /// Draining.
    #[serde(default)]
    pub maintenance: Maintenance,
    /// Round-trip times.
    #[serde(default)]
    pub probe: Probe,
    /// Log lines.
    #[serde(default)]
    pub log: Log,
    /// The file that this was read from.
    #[serde(skip)]
    pub source: Source,
}

/// Returns the schema of the configuration, as `schemas/Config.json` holds it.
pub fn schema() -> serde_json::Value {
    crate::document::root_schema::<Config>("Config")
}

/// Who this router is. What is given here wins over `GET config`, and with `id` and `asn` a router
/// needs no Control Plane at all.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// The `:router` of the API.
    #[schemars(example = &"jp1")]
    pub name: String,
    /// Number of the router in its network.
    #[serde(default)]
    #[schemars(range(min = 1), example = 1)]
    pub id: Option<u16>,
    /// This router's AS number.
    #[serde(default)]
    pub asn: Option<Asn>,
    /// The router's place.
    #[serde(default)]
    #[schemars(example = "ap-northeast")]
    pub region: Option<String>,
    /// The loopback IPv4 address.
    #[serde(default)]
    #[schemars(example = "172.23.105.177")]
    pub loopback_ipv4: Option<Ipv4Addr>,
    /// The loopback IPv6 address.
    #[serde(default)]
    #[schemars(example = "fd48:4242:420::1")]
    pub loopback_ipv6: Option<Ipv6Addr>,
    /// This router's side of every tunnel. Default: derived from ASN and node id.
    #[serde(default)]
    pub link_local: Option<LinkLocal>,
}

/// The dialect of the Control Plane's wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// As docs/contract/control-plane.md describes.
    #[default]
    Reference,
}

/// Where the desired state comes from.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlPlane {
    /// Its URL, without `/agent`.
    #[schemars(example = "https://api.moenet.work")]
    pub url: String,
    /// The bearer token.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = "a-long-random-text")]
    pub token: Option<Secret<String>>,
    /// A file that holds the token, in place of `token`; read again when it changes.
    #[serde(default)]
    #[schemars(example = "/run/credentials/moenet-agent.service/token")]
    pub token_file: Option<PathBuf>,
    /// The dialect of its API.
    #[serde(default)]
    #[schemars(extend("default" = "reference"))]
    pub dialect: Dialect,
    /// Longest time for one request.
    #[serde(default = "Interval::seconds::<15>")]
    #[schemars(extend("default" = 15))]
    pub request_timeout: Interval,
    /// Time between heartbeats.
    #[serde(default = "Interval::seconds::<30>")]
    #[schemars(extend("default" = 30))]
    pub heartbeat_interval: Interval,
    /// Time between fetches of the sessions.
    #[serde(default = "Interval::seconds::<60>")]
    #[schemars(extend("default" = 60))]
    pub sync_interval: Interval,
    /// Time between fetches of the mesh.
    #[serde(default = "Interval::seconds::<120>")]
    #[schemars(extend("default" = 120))]
    pub mesh_interval: Interval,
    /// Time between fetches of the node. Default: `birdConfigInterval`.
    #[serde(default)]
    #[schemars(example = 300)]
    pub config_interval: Option<Interval>,
    /// Time between fetches of the routing policy.
    #[serde(default = "Interval::seconds::<300>")]
    #[schemars(extend("default" = 300))]
    pub bird_config_interval: Interval,
    /// Time between reports.
    #[serde(default = "Interval::seconds::<60>")]
    #[schemars(extend("default" = 60))]
    pub metric_interval: Interval,
    /// Attempts after a failed one.
    #[serde(default = "three")]
    #[schemars(extend("default" = 3))]
    pub max_retries: u32,
    /// First pause before such an attempt, in milliseconds.
    #[serde(default = "thousand")]
    #[schemars(extend("default" = 1000))]
    pub retry_initial_delay: u64,
}

impl ControlPlane {
    /// Returns the bearer token, from `token` or `tokenFile`.
    pub fn token_source(&self) -> TokenSource {
        TokenSource::new(self.token.as_ref(), self.token_file.as_deref())
    }

    /// Returns the time between fetches of the node.
    pub fn config_interval(&self) -> std::time::Duration {
        self.config_interval
            .unwrap_or(self.bird_config_interval)
            .get()
    }
}

fn three() -> u32 {
    3
}

fn thousand() -> u64 {
    1000
}

/// The local API.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Server {
    /// `127.0.0.1:24368`, `:24368` for every address, or `unix:/path`.
    #[schemars(extend("default" = "127.0.0.1:24368"))]
    pub listen: Listen,
    /// The bearer token; needed for an address that is not loopback.
    #[schemars(with = "Option<String>", example = "a-long-random-text")]
    pub token: Option<Secret<String>>,
    /// A file that holds the token, in place of `token`; read again when it changes.
    #[schemars(example = "/run/credentials/moenet-agent.service/api-token")]
    pub token_file: Option<PathBuf>,
    /// The unix socket for read verbs of members of `readGroup`.
    #[schemars(extend("default" = READ_SOCKET))]
    pub read_socket: PathBuf,
    /// The group that may use `get`, `describe`, `status`, `plan`, `events`, `history`, `explain` and `wait` without root.
    /// Default: `moenet-agent`, which the packages create.
    #[schemars(example = "moenet-agent")]
    pub read_group: Option<String>,
    /// Prefixes of reverse proxies: from them the last address of `X-Forwarded-For` or `Forwarded` is the client by which
    /// limits count. `127.0.0.1/32` and `::1/128` include unix sockets; every local user can write these headers then.
    #[schemars(example = ["127.0.0.1/32", "::1/128"])]
    pub trusted_proxies: Vec<AddressRange>,
    /// The looking glass at `/looking-glass`; off without it.
    pub looking_glass: Option<LookingGlass>,
}

/// The looking glass.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LookingGlass {
    /// Its bearer token, which opens nothing else.
    #[schemars(with = "Option<String>", example = "another-long-random-text")]
    pub token: Option<Secret<String>>,
    /// A file that holds the token, in place of `token`; read again when it changes.
    #[schemars(example = "/run/credentials/moenet-agent.service/glass-token")]
    pub token_file: Option<PathBuf>,
}

impl LookingGlass {
    /// Returns the token, from `token` or `tokenFile`.
    pub fn token_source(&self) -> TokenSource {
        TokenSource::new(self.token.as_ref(), self.token_file.as_deref())
    }
}

/// The socket for read verbs.
pub(crate) const READ_SOCKET: &str = "/run/moenet-agent/read.sock";

/// The group that may use it.
pub(crate) const READ_GROUP: &str = "moenet-agent";

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: Listen::default(),
            token: None,
            token_file: None,
            read_socket: READ_SOCKET.into(),
            read_group: None,
            trusted_proxies: Vec::new(),
            looking_glass: None,
        }
    }
}

impl Server {
    /// Returns the bearer token, from `token` or `tokenFile`.
    pub fn token_source(&self) -> TokenSource {
        TokenSource::new(self.token.as_ref(), self.token_file.as_deref())
    }
}

/// The state directory.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct State {
    /// Where it is.
    #[schemars(extend("default" = "/var/lib/moenet-agent/state"))]
    pub directory: PathBuf,
    /// Where the JSON Schemas are: when this folder is there, the documents that the agent writes name their
    /// schema in the first line, so that editors complete and check them.
    #[schemars(extend("default" = "/usr/share/moenet-agent/schemas"))]
    pub schemas: PathBuf,
}

impl Default for State {
    fn default() -> Self {
        Self {
            directory: "/var/lib/moenet-agent/state".into(),
            schemas: "/usr/share/moenet-agent/schemas".into(),
        }
    }
}

/// BIRD.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Bird {
    /// Its control socket.
    #[schemars(extend("default" = "/run/bird/bird.ctl"))]
    pub control_socket: PathBuf,
    /// Its directory: `bird.conf` and `moenet/` below it are written here.
    #[schemars(extend("default" = "/etc/bird"))]
    pub directory: PathBuf,
    /// The program that checks a configuration (`bird -p`).
    #[schemars(extend("default" = "bird"))]
    pub binary: PathBuf,
    /// Whether the agent writes `bird.conf`. Otherwise the operator's file includes `moenet/main.conf`.
    #[schemars(extend("default" = true))]
    pub manage_main_config: bool,
    /// A directory whose files replace the built-in templates of the same names.
    #[schemars(example = "/etc/moenet-agent/templates")]
    pub templates: Option<PathBuf>,
    /// How long BIRD waits for the agent's confirmation of a configuration before it undoes the load.
    #[schemars(extend("default" = 30))]
    pub confirm_timeout: Interval,
}

impl Default for Bird {
    fn default() -> Self {
        Self {
            control_socket: "/run/bird/bird.ctl".into(),
            directory: "/etc/bird".into(),
            binary: "bird".into(),
            manage_main_config: true,
            templates: None,
            confirm_timeout: Interval::seconds::<30>(),
        }
    }
}

/// Tunnels.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WireGuard {
    /// This router's private key; created, mode 0600, only on a router that has never had one.
    #[schemars(extend("default" = "/etc/wireguard/private.key"))]
    pub private_key_path: PathBuf,
    /// Seconds between keepalives, 0 for none.
    #[schemars(extend("default" = 25))]
    pub persistent_keepalive_interval: u16,
    /// Where the search for a free port begins when the conventional one is taken.
    #[schemars(range(min = 1), extend("default" = 24000))]
    pub listen_port_base: u16,
    /// The WireGuard implementation.
    #[schemars(extend("default" = "auto"))]
    pub backend: Backend,
}

impl Default for WireGuard {
    fn default() -> Self {
        Self {
            private_key_path: "/etc/wireguard/private.key".into(),
            persistent_keepalive_interval: 25,
            listen_port_base: 24000,
            backend: Backend::Auto,
        }
    }
}

/// The backbone.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mesh {
    /// Whether its tunnels are configured.
    #[schemars(extend("default" = true))]
    pub enabled: bool,
    /// The prefix of its interface names.
    #[schemars(extend("default" = "mesh_"))]
    pub interface_prefix: String,
    /// The agent's port for a peer is the sum of this and the peer's node id.
    #[schemars(extend("default" = 23455))]
    pub listen_port_base: u16,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            enabled: true,
            interface_prefix: "mesh_".into(),
            listen_port_base: 23455,
        }
    }
}

/// The node's own addresses.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoopbackInterface {
    /// The interface they are on: a dummy device, made when missing, or `lo`. An existing device of another program
    /// is left as it is, and serves only if it has the addresses.
    #[schemars(extend("default" = "dummy0"))]
    pub interface: InterfaceName,
}

impl Default for LoopbackInterface {
    fn default() -> Self {
        Self {
            interface: values::dummy0(),
        }
    }
}

/// The agent's table in nftables.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Firewall {
    /// Whether there is one.
    pub enabled: bool,
}

/// Protection against bulk removals.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Guard {
    /// Most removals within the window without approval: a percentage of the objects of a kind (at least 1), or a
    /// number. Removing all of a kind always needs approval.
    #[schemars(extend("default" = "30%"))]
    pub max_removals: MaxRemovals,
    /// The time over which removals are counted.
    #[schemars(extend("default" = "1h"))]
    pub window: Interval,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            max_removals: MaxRemovals::default(),
            window: Interval::seconds::<3600>(),
        }
    }
}

/// Draining.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Maintenance {
    /// How long after maintenance began eBGP sessions are disabled. Absent: never.
    #[schemars(example = "1h")]
    pub disable_after: Option<Interval>,
}

/// Round-trip times.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Probe {
    /// Time between probes of a peer.
    #[schemars(extend("default" = 300))]
    pub interval: Interval,
    /// Echo requests a probe.
    #[schemars(range(min = 1, max = 100), extend("default" = 4))]
    pub count: u16,
    /// How long an answer may take.
    #[schemars(extend("default" = 5))]
    pub timeout: Interval,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            interval: Interval::seconds::<300>(),
            count: 4,
            timeout: Interval::seconds::<5>(),
        }
    }
}

/// Log lines.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Log {
    /// The lowest level that is logged; `RUST_LOG` wins.
    #[serde(deserialize_with = "level")]
    #[schemars(extend("default" = "info"))]
    pub level: String,
    /// Text for people or JSON for programs.
    #[schemars(extend("default" = "text"))]
    pub format: LogFormat,
}

/// Deserializes a level, or a filter as in `RUST_LOG`: `info,moenet_agent::bird=debug`.
fn level<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = String::deserialize(deserializer)?;
    let known = |part: &str| {
        let level = part.rsplit('=').next().unwrap_or(part).trim();
        LEVELS.contains(&level.to_ascii_lowercase().as_str())
    };
    if text.split(',').all(known) {
        return Ok(text);
    }
    Err(serde::de::Error::custom(format!(
        "invalid log level {}: use one of {}",
        crate::model::shown(&text),
        LEVELS.join(", ")
    )))
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::Text,
        }
    }
}
