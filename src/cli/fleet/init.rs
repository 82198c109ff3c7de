//! `fleet init`: the description of a network.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::{Map, Value, json};

use super::{Changed, missing};
use crate::cli::{Arguments, Outcome, commented, terminal};
use crate::fleet::{Changes, Must};
use crate::model::ObjectName;
use crate::util::file::Writer;
use crate::util::{fs, schemas};

const HEAD: &str = "\
# yaml-language-server: $schema=/usr/share/moenet-agent/schemas/FleetNetwork.json
#
# The description of a network, from which each router gets its configuration. Every field is here with its default, or
# with an example: take the # at the start of a line away to set a field.
#
#   moenet-agent fleet add router NAME     adds a router, as routers/NAME.yaml
#   moenet-agent fleet validate            checks all files
";

/// Posts of routers are no part of the description.
const IGNORED: &str = "reported/\n";

/// Write the description of a network.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The fleet directory
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// AS number of the network
    #[arg(long)]
    asn: Option<u32>,
    /// The network's IPv4 prefix
    #[arg(long, value_name = "PREFIX")]
    ipv4: Option<Ipv4Net>,
    /// The network's IPv6 prefix
    #[arg(long, value_name = "PREFIX")]
    ipv6: Option<Ipv6Net>,
    /// Which routers have a tunnel between them: full, ring or hub
    #[arg(long, value_name = "TOPOLOGY")]
    topology: Option<String>,
    /// The regions, for the topology ring in the order of the ring: asia,europe
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    regions: Vec<ObjectName>,
}

impl Init {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let values = self.values()?;
        if self.topology.as_deref() == Some("ring") && self.regions.is_empty() {
            return Err(missing(
                "nothing was written: the topology ring joins regions; give --regions, in the order of the ring",
            ));
        }
        fs::create_dirs(&self.dir, 0o755)
            .with_context(|| format!("create {}", self.dir.display()))?;
        let mut changes = Changes::begin(&self.dir)?;
        let text = commented::fields(HEAD, &schemas::value("FleetNetwork"), &values);
        changes.create("network.yaml", text)?;
        changes.check(Must::BeValid)?;
        for folder in ["routers", "sessions"] {
            changes.create_folder(folder.as_ref())?;
        }
        let ignored = self.dir.join(".gitignore");
        Writer::new(0o644)
            .create(&ignored, IGNORED.as_bytes())
            .with_context(|| format!("write {}", ignored.display()))?;
        let next = format!(
            "next: `moenet-agent fleet add router NAME --fleet {}`",
            self.dir.display()
        );
        Changed::write(changes, Must::BeValid, (None, next), arguments)
    }

    /// Returns the values of the fields, asked for where they are missing and a person can answer.
    fn values(&self) -> anyhow::Result<Map<String, Value>> {
        let can_answer = terminal::is_possible();
        let asn = match self.asn {
            None if can_answer => Some(answered("AS number of your network")?),
            asn => asn,
        };
        let asn = asn
            .ok_or_else(|| missing("nothing was written: the AS number is missing; give --asn"))?;
        let (mut ipv4, mut ipv6) = (self.ipv4, self.ipv6);
        if can_answer && ipv4.is_none() && ipv6.is_none() {
            ipv4 = optional("IPv4 prefix of your network (empty: none)")?;
            ipv6 = optional("IPv6 prefix of your network (empty: none)")?;
        }
        let mut prefixes = Map::new();
        prefixes.extend(ipv4.map(|net| ("ipv4".to_owned(), json!(net))));
        prefixes.extend(ipv6.map(|net| ("ipv6".to_owned(), json!(net))));
        let mut values = Map::from_iter([("asn".to_owned(), json!(asn))]);
        values.extend((!prefixes.is_empty()).then(|| ("prefixes".to_owned(), prefixes.into())));
        let regions = self.regions.iter();
        let regions: Map<_, _> = regions.map(|it| (it.to_string(), json!({}))).collect();
        values.extend((!regions.is_empty()).then(|| ("regions".to_owned(), regions.into())));
        let mesh = self.topology.as_deref().map(|topology| match topology {
            "ring" => json!({"topology": topology, "ring": self.regions}),
            _ => json!({"topology": topology}),
        });
        values.extend(mesh.map(|mesh| ("mesh".to_owned(), mesh)));
        Ok(values)
    }
}

/// Asks until the answer is valid.
pub(super) fn answered<T>(question: &str) -> anyhow::Result<T>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    loop {
        match terminal::answer(question)
            .context("read an answer")?
            .parse()
        {
            Ok(value) => return Ok(value),
            Err(error) => terminal::write(&format!("{error}\n"))?,
        }
    }
}

/// Asks until the answer is valid or empty.
pub(super) fn optional<T>(question: &str) -> anyhow::Result<Option<T>>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    loop {
        let answer = terminal::answer(question).context("read an answer")?;
        if answer.is_empty() {
            return Ok(None);
        }
        match answer.parse() {
            Ok(value) => return Ok(Some(value)),
            Err(error) => terminal::write(&format!("{error}\n"))?,
        }
    }
}
