//! `schema`: the JSON Schema of a kind.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::output::{self, Format};
use super::{Arguments, Outcome};
use crate::document::{self, Kind};
use crate::util::schemas;

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

/// Returns the names of all schemas, which are those of their files.
pub(super) fn names() -> Vec<String> {
    let kinds = Kind::ALL.map(|kind| kind.to_string());
    let overrides = Kind::ALL.map(|kind| format!("{kind}Override"));
    let overrides = overrides.into_iter().filter(|name| schemas::is_known(name));
    let others = [
        "Status",
        "Applied",
        "Config",
        "FleetNetwork",
        "FleetRouter",
        "FleetSession",
        "FleetOwner",
    ];
    let others = others.map(str::to_owned);
    kinds.into_iter().chain(overrides).chain(others).collect()
}

/// Generates every schema, by its name, from the types. The program has the results, `util::schemas`; tests compare them.
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
    let found = names()
        .into_iter()
        .find(|name| name.eq_ignore_ascii_case(&word));
    found.ok_or_else(|| UnknownSchema(names().join(", ")))
}

/// No schema has the requested name.
#[derive(Debug, thiserror::Error)]
#[error("there are {0}")]
struct UnknownSchema(String);

impl Schema {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        // A schema has no table.
        let format = match arguments.output {
            Format::Yaml => Format::Yaml,
            _ => Format::Json,
        };
        output::unredacted_value(format, &schemas::value(&self.kind))?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generated_schema_has_its_name() {
        let generated = schemas().into_iter().map(|(name, _)| name);
        assert_eq!(names(), generated.collect::<Vec<_>>());
    }
}
