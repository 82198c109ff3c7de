//! `schema`: the JSON Schema of a kind.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::output::{self, Format};
use super::{Arguments, Outcome};
use crate::config::Config;
use crate::document::{self, Kind};

/// The JSON Schema of a kind.
#[derive(Debug, Args)]
pub struct Schema {
    /// Node, RoutingPolicy, Maintenance, BgpSession, MeshPeer, IbgpPeer, Override, status or config
    #[arg(value_parser = known)]
    kind: What,
}

/// What there is a schema of.
#[derive(Debug, Clone, Copy)]
enum What {
    Kind(Kind),
    Status,
    Config,
}

fn known(word: &str) -> Result<What, String> {
    let kinds = || Kind::ALL.map(|kind| kind.to_string()).join(", ");
    match (word.to_ascii_lowercase().as_str(), Kind::from_word(word)) {
        ("status", _) => Ok(What::Status),
        ("config" | "configuration", _) => Ok(What::Config),
        (_, Some(kind)) => Ok(What::Kind(kind)),
        _ => Err(format!("there are {}, status, config", kinds())),
    }
}

impl Schema {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let schema: Value = match self.kind {
            What::Kind(kind) => document::schema(kind),
            What::Status => document::status_schema(),
            What::Config => schemars::schema_for!(Config).to_value(),
        };
        // A schema has no table.
        let format = if arguments.output == Format::Table { Format::Json } else { arguments.output };
        output::value(format, &schema)?;
        Ok(ExitCode::SUCCESS)
    }
}
