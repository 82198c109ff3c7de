//! `explain`: a field of a document or of the configuration, from its schema.

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCompleter;
use clap_complete::engine::CompletionCandidate;
use serde_json::{Value, json};

use super::fields::{Field, Schema};
use super::schema::names;
use super::{Arguments, Outcome, complete, output};
use crate::document::Kind;
use crate::util::schemas;

/// A field of a document or of the configuration.
#[derive(Debug, Args)]
pub struct Explain {
    /// A kind or `config`, and the path of a field: bgpsession.tunnel.mtu
    #[arg(value_name = "KIND[.FIELD…]", add = ArgValueCompleter::new(completed))]
    path: String,
    /// List the fields below it at every depth
    #[arg(long)]
    recursive: bool,
}

impl Explain {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let mut words = self.path.split('.').filter(|word| !word.is_empty());
        let (name, root) = schema(words.next().unwrap_or_default())?;
        let found = descend(&name, Schema::of(&root), words)?;
        if !output::value(arguments.output, &value(&found))? {
            print(&name, &found, self.recursive);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A found field: its path in the document, and its schema.
struct Found<'a> {
    path: Vec<String>,
    is_required: bool,
    schema: Schema<'a>,
}

/// Returns the schema that a word names, and its name.
fn schema(word: &str) -> anyhow::Result<(String, Value)> {
    let known = Kind::from_word(word).map(|kind| kind.to_string());
    let name = known.unwrap_or_else(|| word.to_owned());
    let mut names = names().into_iter();
    match names.find(|known| known.eq_ignore_ascii_case(&name)) {
        Some(name) => {
            let value = schemas::value(&name);
            Ok((name, value))
        }
        None => anyhow::bail!("no kind {word:?}; there are {}", self::names().join(", ")),
    }
}

/// The fields of a document that a path may leave out.
const BODIES: [&str; 3] = ["spec", "status", "applied"];

/// Follows the words of a path. The first one may name a field of the specification.
fn descend<'a, 'w>(
    name: &str,
    root: Schema<'a>,
    words: impl Iterator<Item = &'w str>,
) -> anyhow::Result<Found<'a>> {
    let mut found = Found {
        path: Vec::new(),
        is_required: false,
        schema: root,
    };
    for word in words {
        let fields = found.schema.fields();
        let body = fields
            .iter()
            .find(|field| found.path.is_empty() && BODIES.contains(&field.name.as_str()));
        if let Some(body) = body.filter(|_| pick(&fields, word).is_none()) {
            found.path.push(body.name.clone());
            found.schema = body.schema.clone();
        }
        let fields = found.schema.fields();
        let Some(field) = pick(&fields, word) else {
            return Err(unknown(name, &found.path, word, &fields));
        };
        found.path.push(field.name.clone());
        found.is_required = field.is_required;
        found.schema = field.schema.clone();
    }
    Ok(found)
}

/// Completes a kind, and below it one field after the other.
fn completed(current: &OsStr) -> Vec<CompletionCandidate> {
    let text = current.to_string_lossy().into_owned();
    let Some((parent, _)) = text.rsplit_once('.') else {
        let kinds = names().into_iter().map(|name| name.to_lowercase());
        return complete::starting_with(current, kinds);
    };
    let fields = fields(parent).into_iter();
    complete::starting_with(current, fields.map(|field| format!("{parent}.{field}")))
}

/// Returns the names of the fields below a path, as `bgpsession.tunnel`; none for an unknown one.
fn fields(path: &str) -> Vec<String> {
    let mut words = path.split('.');
    let Ok((name, root)) = schema(words.next().unwrap_or_default()) else {
        return Vec::new();
    };
    let Ok(found) = descend(&name, Schema::of(&root), words) else {
        return Vec::new();
    };
    let fields = found.schema.fields().into_iter();
    let own = |field: Field<'_>| match found.path.is_empty() && field.name == "spec" {
        true => field
            .schema
            .fields()
            .into_iter()
            .map(|field| field.name)
            .collect(),
        false => vec![field.name],
    };
    fields.flat_map(own).collect()
}

fn pick<'f, 'a>(fields: &'f [Field<'a>], word: &str) -> Option<&'f Field<'a>> {
    let mut fields = fields.iter();
    fields.find(|field| field.name.eq_ignore_ascii_case(word))
}

fn unknown(name: &str, path: &[String], word: &str, fields: &[Field<'_>]) -> anyhow::Error {
    let at = std::iter::once(name).chain(path.iter().map(String::as_str));
    let at = at.collect::<Vec<_>>().join(".");
    let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
    match names.is_empty() {
        true => anyhow::anyhow!("{at} has no fields, so there is no {word}"),
        false => anyhow::anyhow!("{at} has no field {word}; it has {}", names.join(", ")),
    }
}

/// Returns the facts of a field, for a program.
fn value(found: &Found<'_>) -> Value {
    let schema = &found.schema;
    let values = schema.values().into_iter();
    let values: Vec<_> = values
        .map(|(word, description)| json!({"value": word, "description": description}))
        .collect();
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| {
            json!({
                "name": field.name,
                "type": field.schema.type_name(),
                "required": field.is_required,
                "description": field.schema.description(),
            })
        })
        .collect();
    json!({
        "field": found.path.join("."),
        "type": schema.type_name(),
        "required": found.is_required,
        "range": schema.range(),
        "default": schema.default(),
        "example": schema.example(),
        "description": schema.description(),
        "values": values,
        "fields": fields,
    })
}

fn print(name: &str, found: &Found<'_>, recursive: bool) {
    let schema = &found.schema;
    let word = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let required = found.is_required.then(|| ", required".to_owned());
    let field = match found.path.is_empty() {
        true => String::new(),
        false => found.path.join("."),
    };
    let lines = [
        ("KIND", Some(name.to_owned())),
        ("FIELD", Some(field).filter(|field| !field.is_empty())),
        (
            "TYPE",
            Some(schema.type_name() + &required.unwrap_or_default()),
        ),
        ("RANGE", schema.range()),
        ("DEFAULT", schema.default().map(word)),
        ("EXAMPLE", schema.example().map(word)),
    ];
    for (title, text) in lines {
        if let Some(text) = text {
            output::line(format_args!("{title:<9}{text}"));
        }
    }
    output::line(format_args!("\n{}", schema.description()));
    let values = schema.values();
    if !values.is_empty() {
        output::line("\nVALUES");
    }
    for (word, description) in values {
        output::line(format!("  {word:<16} {description}").trim_end());
    }
    if !schema.fields().is_empty() {
        output::line("\nFIELDS");
    }
    list(schema, 1, recursive);
}

/// Prints the fields of an object, and those below them if asked.
fn list(schema: &Schema<'_>, depth: usize, recursive: bool) {
    for field in schema.fields() {
        let indent = "  ".repeat(depth);
        let required = if field.is_required { ", required" } else { "" };
        output::line(format_args!(
            "{indent}{} <{}{required}>",
            field.name,
            field.schema.type_name()
        ));
        if recursive {
            list(&field.schema, depth + 1, true);
        } else {
            output::line(format_args!("{indent}  {}", field.schema.description()));
        }
    }
}
