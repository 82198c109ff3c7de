//! The reference pages of the book, from the schemas. A test writes them, and fails while they are out of date.

mod alerts;
mod conditions;
mod metrics;

use serde_json::Value;

use super::fields::{Field, Schema};
use crate::config;
use crate::document::Kind;
use crate::util::schemas;

/// Returns the reference pages, each with its name.
///
/// # Errors
/// The agent that lists its metrics could not be built.
pub fn reference() -> anyhow::Result<Vec<(String, String)>> {
    Ok(vec![
        ("configuration.md".to_owned(), configuration()),
        ("documents.md".to_owned(), documents()),
        ("conditions.md".to_owned(), conditions::page()),
        ("metrics.md".to_owned(), metrics::page()?),
        ("alerts.md".to_owned(), alerts::page()?),
    ])
}

fn configuration() -> String {
    let root = schemas::value("Config");
    let mut text = "# Configuration reference\n\n\
        Generated from `schemas/Config.json`. Environment, reload and the form of durations: \
        [the contract](../contract/configuration.md). \"reload\": `systemctl reload moenet-agent` applies the key, \
        without a restart.\n"
        .to_owned();
    for section in Schema::of(&root).fields() {
        text.push_str(&format!(
            "\n## {}\n\n{}\n\n",
            section.name,
            section.schema.description()
        ));
        text.push_str(&table(&section.name, "", &section.schema, &|path| {
            config::is_reloadable(path).then(|| "reload".to_owned())
        }));
    }
    text
}

fn documents() -> String {
    let mut text = "# Document reference\n\n\
        Generated from `schemas/`. Every document has `apiVersion: moenet.work/v1`, `kind`, and `metadata.name`; the \
        fields below are those of `spec`. `moenet-agent explain KIND.FIELD` prints one of them. Where the files are, and \
        who writes them: [the state directory](../contract/state-directory.md).\n"
        .to_owned();
    for kind in Kind::ALL {
        let root = schemas::value(&kind.to_string());
        let whole = Schema::of(&root);
        let spec = whole.fields().into_iter().find(|it| it.name == "spec");
        let Some(spec) = spec else { continue };
        text.push_str(&format!("\n## {kind}\n\n{}\n\n", whole.description()));
        text.push_str(&table("", "", &spec.schema, &|_| None));
    }
    text
}

/// Returns the fields of an object as a table; nested ones have a path.
fn table(
    section: &str,
    prefix: &str,
    schema: &Schema<'_>,
    note: &dyn Fn(&str) -> Option<String>,
) -> String {
    let head = "| key | type | default | description |\n|---|---|---|---|\n";
    format!("{head}{}", rows(section, prefix, schema, note))
}

fn rows(
    section: &str,
    prefix: &str,
    schema: &Schema<'_>,
    note: &dyn Fn(&str) -> Option<String>,
) -> String {
    let row = |field: Field<'_>| {
        let name = format!("{prefix}{}", field.name);
        let below = field.schema.fields();
        match below.is_empty() {
            true => {
                let path = format!("{section}.{name}");
                row(&name, &field, note(&path))
            }
            false => {
                let list = if field.schema.is_list() { "[]" } else { "" };
                rows(section, &format!("{name}{list}."), &field.schema, note)
            }
        }
    };
    schema.fields().into_iter().map(row).collect()
}

fn row(name: &str, field: &Field<'_>, note: Option<String>) -> String {
    let schema = &field.schema;
    let words = schema.values().into_iter();
    let words: Vec<_> = words.map(|(word, _)| format!("`{word}`")).collect();
    let kind = match words.as_slice() {
        [] => [Some(schema.type_name()), schema.range()],
        words => [Some(words.join(", ")), None],
    };
    let kind: Vec<_> = kind.into_iter().flatten().collect();
    let default = match (schema.default(), field.is_required) {
        (_, true) => "required".to_owned(),
        (Some(Value::String(text)), _) => format!("`{text}`"),
        (Some(value), _) => format!("`{value}`"),
        (None, _) => "–".to_owned(),
    };
    let note = note.map(|note| format!(" ({note})")).unwrap_or_default();
    let cells = [
        format!("`{name}`"),
        kind.join(", "),
        default,
        format!("{}{note}", schema.description()),
    ];
    self::cells(&cells)
}

/// Returns a row of a table.
fn cells(cells: &[String]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}
