//! `schema`: the JSON Schema of a kind.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::output::{self, Format};
use super::{Arguments, Outcome};
use crate::document::{self, Kind};

/// The JSON Schema of a kind.
#[derive(Debug, Args)]
pub struct Schema {
    #[arg(value_parser = known, help = kinds())]
    kind: String,
}

fn kinds() -> String {
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Override);
    let kinds: Vec<_> = kinds.map(|kind| kind.to_string()).collect();
    format!(
        "{}; an override of one, as BgpSessionOverride, or Override for any; Status, Applied or Config; FleetNetwork, \
         FleetRouter, FleetSession or FleetOwner",
        kinds.join(", ")
    )
}

/// Returns every schema by its name, which is that of its file in `schemas/`.
pub fn schemas() -> Vec<(String, Value)> {
    let kinds = Kind::ALL
        .into_iter()
        .map(|kind| (kind.to_string(), document::schema(kind)));
    let overrides = Kind::ALL.into_iter();
    let overrides = overrides
        .filter_map(|kind| Some((format!("{kind}Override"), document::override_schema(kind)?)));
    let others = [
        ("Status".to_owned(), document::status_schema()),
        ("Applied".to_owned(), crate::store::applied_schema()),
        ("Config".to_owned(), crate::config::schema()),
    ];
    let fleet = crate::fleet::schemas().map(|(name, schema)| (name.to_owned(), schema));
    kinds.chain(overrides).chain(others).chain(fleet).collect()
}

/// Returns the name of the requested schema: `BgpSession`, `sessions`, `config`, ….
fn known(word: &str) -> Result<String, UnknownSchema> {
    let word = match word.to_ascii_lowercase().as_str() {
        "configuration" => "config".to_owned(),
        lower => Kind::from_word(lower).map_or_else(|| lower.to_owned(), |kind| kind.to_string()),
    };
    let names = || schemas().into_iter().map(|(name, _)| name);
    let found = names().find(|name| name.eq_ignore_ascii_case(&word));
    found.ok_or_else(|| UnknownSchema(names().collect::<Vec<_>>().join(", ")))
}

/// No schema has the requested name.
#[derive(Debug, thiserror::Error)]
#[error("there are {0}")]
struct UnknownSchema(String);

impl Schema {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let found = schemas().into_iter().find(|(name, _)| *name == self.kind);
        // A schema has no table.
        let format = match arguments.output {
            Format::Yaml => Format::Yaml,
            _ => Format::Json,
        };
        output::unredacted_value(format, &found.map(|(_, schema)| schema))?;
        Ok(ExitCode::SUCCESS)
    }
}
