//! `fleet add`: a router or a session in files of their own.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::init::{answered, optional};
use super::{Changed, Directory, missing};
use crate::cli::{Arguments, Outcome, commented, terminal};
use crate::fleet::{Changes, Must, TokenHash, router_path, session_path};
use crate::model::{
    Bandwidth, Endpoint, Host, InterfaceName, LinkLocal, ObjectName, Port, PublicKey,
};
use crate::util::{file, random, schemas};
use crate::wire::WireStatus;

const ROUTER_HEAD: &str = "\
# yaml-language-server: $schema=/usr/share/moenet-agent/schemas/FleetRouter.json
#
# A router. Fields without a value are derived from network.yaml and the id.
";

const SESSION_HEAD: &str = "\
# yaml-language-server: $schema=/usr/share/moenet-agent/schemas/FleetSession.json
#
# A session of a router with a neighbour.
";

#[derive(Debug, Subcommand)]
pub(super) enum Add {
    /// Add a router to a network, with a new token, which is shown once
    ///
    /// Writes routers/NAME.yaml with every field and its description. Nothing is written unless all files of the fleet
    /// are valid with it.
    #[command(after_help = "\
Example:
  moenet-agent fleet add router hk1 --address hk1.example.net --region ap-east --fleet ./fleet")]
    Router(Router),
    /// Add a session to a router
    ///
    /// Writes sessions/ROUTER/NAME.yaml with every field and its description, or adds an item to the sessions.yaml of
    /// a router with a folder of its own. Asks for missing values on a terminal.
    #[command(after_help = "\
Example:
  moenet-agent fleet add session jp1 alice --asn 4242421080 --link-local fe80::1080 \\
    --public-key xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg= \\
    --endpoint alice.example.net:51820 --fleet ./fleet")]
    Session(Box<Session>),
}

#[derive(Debug, Args)]
pub(super) struct Router {
    /// The name of the router
    #[arg(value_name = "NAME")]
    name: ObjectName,
    #[command(flatten)]
    fleet: Directory,
    /// The number of the router. Default: one more than the largest
    #[arg(long)]
    id: Option<u16>,
    /// The region, a name of `regions` in network.yaml
    #[arg(long)]
    region: Option<String>,
    /// Name or address at which other routers reach it
    #[arg(long)]
    address: Option<Host>,
    /// The role in the backbone: edge, rr or client
    #[arg(long = "type", value_name = "TYPE")]
    node_type: Option<String>,
    /// Bandwidth of the uplink
    #[arg(long)]
    bandwidth: Option<Bandwidth>,
    /// Loopback IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    loopback_ipv4: Option<Ipv4Addr>,
    /// Loopback IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    loopback_ipv6: Option<Ipv6Addr>,
}

#[derive(Debug, Args)]
pub(super) struct Session {
    /// The router
    #[arg(value_name = "ROUTER")]
    router: ObjectName,
    /// The name of the session's file
    #[arg(value_name = "NAME")]
    name: ObjectName,
    #[command(flatten)]
    fleet: Directory,
    /// The neighbour's AS number
    #[arg(long)]
    asn: Option<u32>,
    /// The neighbour's WireGuard public key
    #[arg(long, value_name = "KEY")]
    public_key: Option<PublicKey>,
    /// A file with the preshared key
    #[arg(long, value_name = "FILE")]
    preshared_key_file: Option<PathBuf>,
    /// Where the neighbour listens; without it, the neighbour calls
    #[arg(long)]
    endpoint: Option<Endpoint>,
    /// The neighbour's link-local address
    #[arg(long, value_name = "ADDRESS")]
    link_local: Option<LinkLocal>,
    /// The neighbour's IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ipv6: Option<Ipv6Addr>,
    /// The neighbour's IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ipv4: Option<Ipv4Addr>,
    /// The port to listen on
    #[arg(long, value_name = "PORT")]
    listen_port: Option<Port>,
    /// MTU of the tunnel
    #[arg(long)]
    mtu: Option<u16>,
    /// The name of the link
    #[arg(long)]
    interface: Option<InterfaceName>,
    /// Let the session wait for `fleet accept`
    #[arg(long)]
    review: bool,
}

impl Add {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        match self {
            Self::Router(router) => router.run(arguments),
            Self::Session(session) => session.run(arguments),
        }
    }
}

impl Router {
    fn run(&self, arguments: &Arguments) -> Outcome {
        let mut changes = Changes::begin(&self.fleet.dir)?;
        anyhow::ensure!(
            changes.files().has_network(),
            "{} has no network.yaml; `moenet-agent fleet init` writes one",
            self.fleet.dir.display()
        );
        let token = random::token();
        let id = match self.id {
            Some(id) => id,
            None => changes.next_id().context("no id is free; give --id")?,
        };
        let values = given(json!({
            "id": id,
            "region": self.region,
            "address": self.address,
            "type": self.node_type,
            "bandwidth": self.bandwidth,
            "loopbackIpv4": self.loopback_ipv4,
            "loopbackIpv6": self.loopback_ipv6,
            "tokenHashes": [TokenHash::of(&token)],
        }));
        let text = commented::fields(ROUTER_HEAD, &schemas::value("FleetRouter"), &values);
        changes.create(&router_path(&self.name), text)?;
        let next = format!(
            "the token is shown only here. Next, on the router: write it to a file, and run `moenet-agent init --name {} \
             --control-plane URL --token-file FILE`",
            self.name
        );
        Changed::write(changes, Must::BeValid, (Some(token), next), arguments)
    }
}

impl Session {
    fn run(&self, arguments: &Arguments) -> Outcome {
        let mut changes = Changes::begin(&self.fleet.dir)?;
        let is_folder = changes.is_folder(&self.router)?;
        let values = self.values()?;
        match is_folder {
            true => changes.add_listed(&self.router, Value::Object(values))?,
            false => {
                let text =
                    commented::fields(SESSION_HEAD, &schemas::value("FleetSession"), &values);
                changes.create(&session_path(&self.router, &self.name), text)?;
            }
        }
        let next = match self.review {
            true => format!(
                "next: `moenet-agent fleet accept {}/{}`",
                self.router, self.name
            ),
            false => format!("{} sets it up at its next poll", self.router),
        };
        Changed::write(changes, Must::BeValid, (None, next), arguments)
    }

    fn values(&self) -> anyhow::Result<Map<String, Value>> {
        let can_answer = terminal::is_possible();
        let (mut asn, mut public_key) = (self.asn, self.public_key);
        let (mut endpoint, mut link_local) = (self.endpoint.clone(), self.link_local);
        if can_answer && asn.is_none() {
            asn = Some(answered("AS number of the neighbour")?);
            public_key = match public_key {
                None => Some(answered("WireGuard public key of the neighbour")?),
                key => key,
            };
            if endpoint.is_none() {
                endpoint = optional("Where the neighbour listens (empty: the neighbour calls)")?;
            }
            let has_address = link_local.is_some() || self.ipv6.is_some() || self.ipv4.is_some();
            if !has_address {
                link_local = Some(answered("Link-local address of the neighbour")?);
            }
        }
        let asn = asn
            .ok_or_else(|| missing("nothing was written: the AS number is missing; give --asn"))?;
        let preshared_key = self.preshared_key_file.as_ref().map(|path| {
            let text = file::read_text(path, file::TOKEN);
            text.with_context(|| format!("read {}", path.display()))
        });
        let preshared_key = preshared_key.transpose()?;
        let status = match self.review {
            true => WireStatus::PendingReview,
            false => WireStatus::QueuedForSetup,
        };
        let credential = given(json!({
            "publicKey": public_key,
            "presharedKey": preshared_key.as_deref().map(str::trim),
        }));
        Ok(given(json!({
            "uuid": random::uuid()?,
            "status": status.number(),
            "name": self.name,
            "asn": asn,
            "interface": self.interface,
            "endpoint": endpoint,
            "credential": (!credential.is_empty()).then_some(credential),
            "listenPort": self.listen_port,
            "mtu": self.mtu,
            "ipv6LinkLocal": link_local,
            "ipv6": self.ipv6,
            "ipv4": self.ipv4,
        })))
    }
}

/// Returns the fields that have a value.
fn given(fields: Value) -> Map<String, Value> {
    let mut fields = match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.retain(|_, value| !value.is_null());
    fields
}
