//! Converts documents to text and back. The only file that names the YAML crate.

mod edit;

use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_yaml::granit_parser::{self, ErrorKind};
use serde_yaml::{DefaultMessageFormatter, MessageFormatter as _};

use super::check::{faults, read, sample};
use super::error::DocumentError;
use super::fault::Fault;
use super::reason::Reason;
use super::value::Scalars;
use super::{ApiVersion, Document, Kind, Spec, with_spec};

pub use edit::{Edit, EditError, edit};

/// Size limit of a document that is read, in bytes. Real documents are below 4 KiB.
const MAX_BYTES: usize = 256 * 1024;

/// Size limit of a file that lists all sessions of a router, in bytes; a session takes about 400.
const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;
/// Largest number of scalars, sequences and mappings in a document.
const MAX_NODES: usize = 50_000;
/// Largest number of them, counted with the ends of sequences and mappings, that aliases may add.
const MAX_REPLAYED: usize = 5000;
/// Size limit in bytes to which aliases may expand a document, if each alias repeated the whole text.
const MAX_GROWN: usize = 8 * 1024 * 1024;
/// Largest number of scalars, sequences and mappings in such a file: as many as a real file of that size has.
/// The library's own limits are for one document (250 000), and a list of twenty thousand sessions is longer.
const MAX_LIST_NODES: usize = 2_000_000;

/// The part of a document that determines how to read the rest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
}

/// The reader that converts one version of a kind's documents to the latest version.
pub struct Reader<D> {
    /// The version, as in `apiVersion`.
    pub version: &'static str,
    /// Reads a document that names this version.
    pub read: fn(&str) -> Result<D, DocumentError>,
}

/// Parses a document of this kind, of any version that this agent supports.
///
/// # Errors
/// Reports line, column, field and the error: not YAML, another kind or version, an unknown field (with the nearest
/// known one), or a value that breaks the rule of its type.
pub fn parse<S: Spec>(text: &str) -> Result<Document<S>, DocumentError> {
    // The head alone takes as long as the whole document, and only an error needs it.
    if let Ok(document) = parse_document::<Document<S>>(text)
        && document.kind == S::KIND
    {
        return Ok(document);
    }
    parse_versions(
        text,
        S::KIND,
        &[Reader {
            version: ApiVersion::V1.as_str(),
            read: parse_document,
        }],
    )
}

/// Checks whether a text is a document of this kind.
///
/// # Errors
/// As [`parse`].
pub fn check_document(kind: Kind, text: &str) -> Result<(), DocumentError> {
    with_spec!(kind, S => parse::<S>(text).map(drop))
}

/// Parses a document of this kind with the reader of its version. The head is read first: a later version may have
/// fields that are unknown here, and the message must be about the version.
///
/// # Errors
/// As [`parse`]; the error for a version without a reader names all supported versions.
pub fn parse_versions<D>(
    text: &str,
    kind: Kind,
    readers: &[Reader<D>],
) -> Result<D, DocumentError> {
    let head: Head = parse_value(text)?;
    let Some(reader) = readers
        .iter()
        .find(|reader| reader.version == head.api_version)
    else {
        let known = readers
            .iter()
            .map(|reader| reader.version)
            .collect::<Vec<_>>()
            .join(" and ");
        let message = format!(
            "apiVersion: {} is not supported, only {known}; correct it, or upgrade the agent",
            crate::model::shown(&head.api_version)
        );
        return Err(DocumentError {
            field: "apiVersion".into(),
            location: line_of(text, "apiVersion"),
            ..DocumentError::whole(message)
        });
    };
    if head.kind != kind.to_string() {
        let found = crate::model::shown(&head.kind);
        return Err(DocumentError {
            field: "kind".into(),
            location: line_of(text, "kind"),
            ..DocumentError::whole(format!(
                "kind: a document in this folder must be a {kind}, not {found}"
            ))
        });
    }
    (reader.read)(text)
}

/// Returns every error in the text of a document: first the error of [`parse`], then every other field that its
/// type does not accept.
pub(crate) fn problems<S: Spec>(text: &str) -> Vec<DocumentError> {
    let Err(first) = parse::<S>(text) else {
        return Vec::new();
    };
    let faults =
        value(text).map(|value| faults::<Document<S>>(value, &sample(S::KIND), Scalars::AsWritten));
    placed(text, first, faults.unwrap_or_default())
}

/// Returns the value of a document's text, with the scalars as [`parse`] reads them.
///
/// # Errors
/// As [`parse`].
pub(crate) fn value(text: &str) -> Result<serde_json::Value, DocumentError> {
    parse_document(text)
}

/// Returns an error and the faults of other fields, each with its location in the text.
pub(crate) fn placed(text: &str, first: DocumentError, faults: Vec<Fault>) -> Vec<DocumentError> {
    let is_first = |fault: &Fault| fault.field("") == first.field;
    let known = faults.iter().position(is_first);
    let others = faults.iter().enumerate();
    let others = others.filter(|(index, _)| Some(*index) != known);
    let others: Vec<_> = others.map(|(_, fault)| error_at(text, fault)).collect();
    std::iter::once(first).chain(others).collect()
}

/// Returns the error of a fault, with the location of its field or of the nearest field above.
fn error_at(text: &str, fault: &Fault) -> DocumentError {
    let path: Vec<&str> = fault.path.iter().map(String::as_str).collect();
    let location = (1..=path.len())
        .rev()
        .find_map(|end| locate(text, path.get(..end)?));
    let location = location.or_else(|| beginning(text));
    DocumentError {
        location,
        ..DocumentError::at_field(fault.field(""), &fault.reason.to_string())
    }
}

/// Returns the location of a top-level field, if the field begins its own line, as in every document that is not
/// written as JSON.
fn line_of(text: &str, field: &str) -> Option<(u64, u64)> {
    let is_it = |line: &str| {
        line.strip_prefix(field)
            .is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    let line = text.lines().position(is_it)?;
    u64::try_from(line).ok().map(|line| (line + 1, 1))
}

/// Parses like [`parse_value`], but reads `no` and `007` as texts, also where a field accepts any value: an
/// override's field is read like the same field of a document.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_document<T: DeserializeOwned>(text: &str) -> Result<T, DocumentError> {
    let options = serde_yaml::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
    };
    parse_within(text, MAX_BYTES, bounded(text, options))
}

/// Parses any YAML (and so JSON) text into a type; an error has its location.
///
/// # Errors
/// As [`parse`].
pub fn parse_value<T: DeserializeOwned>(text: &str) -> Result<T, DocumentError> {
    parse_within(text, MAX_BYTES, bounded(text, serde_yaml::options! {}))
}

/// Returns the options for a single document.
fn bounded(text: &str, mut options: serde_yaml::Options) -> serde_yaml::Options {
    options.with_snippet = false;
    options.budget = budget(MAX_NODES);
    options.alias_limits = alias_limits((MAX_GROWN / text.len().max(1)).min(MAX_REPLAYED));
    options
}

/// Parses like [`parse_value`] a file that lists all sessions of a router and may be much longer.
///
/// # Errors
/// As [`parse`].
pub fn parse_list<T: DeserializeOwned>(text: &str) -> Result<T, DocumentError> {
    let options = serde_yaml::options! {
        with_snippet: false,
        budget: budget(MAX_LIST_NODES),
        // Every item may merge a mapping of defaults.
        alias_limits: alias_limits(text.len().max(MAX_REPLAYED)),
    };
    parse_within(text, MAX_LIST_BYTES, options)
}

/// Returns the limits on the expansion of a text: aliases multiply values and texts, so that 400 bytes can ask for
/// hundreds of megabytes.
fn budget(max_nodes: usize) -> Option<serde_yaml::Budget> {
    serde_yaml::budget! {
        max_nodes: max_nodes,
        max_events: 3 * max_nodes,
        max_merge_keys: max_nodes,
        // The replay limits bound the expansion by aliases; users share one mapping of defaults among a thousand
        // items.
        enforce_alias_anchor_ratio: false,
    }
}

fn alias_limits(max_replayed: usize) -> serde_yaml::options::AliasLimits {
    let mut limits = serde_yaml::options::AliasLimits::default();
    limits.max_total_replayed_events = max_replayed;
    limits
}

fn parse_within<T: DeserializeOwned>(
    text: &str,
    max_bytes: usize,
    options: serde_yaml::Options,
) -> Result<T, DocumentError> {
    if text.len() > max_bytes {
        return Err(DocumentError::whole(format!(
            "larger than {max_bytes} bytes, the limit of a document"
        )));
    }
    if text.trim().is_empty() {
        return Err(DocumentError::whole("the file is empty"));
    }
    if text.contains('\0') {
        return Err(DocumentError::whole(
            "holds NUL bytes: half-written, or not text",
        ));
    }
    let text = without_closing(text);
    let read = serde_yaml::with_deserializer_from_str_with_options(text, options.clone(), |yaml| {
        T::deserialize(yaml)
    });
    read.map_err(|error| explained::<T>(text, options, &error))
}

/// Returns the error of a text that the library does not read as a type. One that is YAML is read again as a value,
/// whose reader has typed errors.
fn explained<T: DeserializeOwned>(
    text: &str,
    options: serde_yaml::Options,
    error: &serde_yaml::Error,
) -> DocumentError {
    match value_of(text, options).map(|value| read::<T>(&value, Scalars::AsWritten)) {
        Err(no_yaml) => no_yaml,
        // Of an unknown field the library gives the key.
        Ok(Err(fault)) if matches!(fault.reason, Reason::UnknownField { .. }) => DocumentError {
            location: located("", error).location,
            ..error_at(text, &fault)
        },
        Ok(Err(fault)) => error_at(text, &fault),
        Ok(Ok(_)) => located("", error),
    }
}

/// Reads a text as a value; the error names the field at which it stops to be YAML.
fn value_of(text: &str, options: serde_yaml::Options) -> Result<serde_json::Value, DocumentError> {
    let mut field = String::new();
    let read = serde_yaml::with_deserializer_from_str_with_options(text, options, |yaml| {
        serde_path_to_error::deserialize(yaml).map_err(|error| {
            field = error.path().to_string();
            error.into_inner()
        })
    });
    // The library shows a question mark for a part that it had not read yet.
    let field = match field.as_str() {
        "." | "?" => "",
        field => field.trim_end_matches(".?"),
    };
    read.map_err(|error| located(field, &error))
}

fn located(field: &str, error: &serde_yaml::Error) -> DocumentError {
    let location = error.location();
    DocumentError {
        location: location.map(|at| (at.line(), at.column())),
        ..DocumentError::at_field(field.to_owned(), &words(error))
    }
}

/// Returns the place of the first value of a text.
fn beginning(text: &str) -> Option<(u64, u64)> {
    let is_value = |line: &str| !line.is_empty() && !line.starts_with(['#', '%']) && line != "---";
    let mut lines = (1..).zip(text.lines());
    let (number, line) = lines.find(|(_, line)| is_value(line.trim()))?;
    let indent = line.chars().take_while(|c| c.is_whitespace()).count();
    Some((number, u64::try_from(indent).unwrap_or_default() + 1))
}

/// Returns the text without a final `---` that begins no second document.
fn without_closing(text: &str) -> &str {
    let is_empty = |text: &str| {
        let mut lines = text.lines().map(str::trim);
        lines.all(|line| line.is_empty() || line.starts_with('#'))
    };
    match text.rfind("\n---") {
        Some(at) if is_empty(&text[at + 4..]) && !is_empty(&text[..at]) => &text[..=at],
        _ => text,
    }
}

const TOO_DEEP: &str = "nested too deeply for a document";

/// Returns the reason why a text is no YAML. The library's own words are used where they are not about its options.
fn words(error: &serde_yaml::Error) -> String {
    use serde_yaml::{Error, ExternalMessageSource, budget::BudgetBreach};
    match error.without_snippet() {
        Error::AliasError { error, .. } => words(error),
        Error::MultipleDocuments { .. } => {
            "one document a file: a second one begins after `---`".to_owned()
        }
        Error::Budget {
            breach: BudgetBreach::Depth { .. },
            ..
        } => TOO_DEEP.to_owned(),
        Error::ExternalMessage { source, .. } if matches!(&**source, ExternalMessageSource::Parser(error) if *error.kind() == ErrorKind::RecursionLimitExceeded) => {
            TOO_DEEP.to_owned()
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => {
            "too many values for a document, its aliases expanded".to_owned()
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("duplicate key: {key}"),
        Error::DuplicateMappingKey { key: None, .. } => "duplicate key".to_owned(),
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "an alias (*) inside the value of its own anchor (&): write the value out".to_owned()
        }
        Error::UnknownAnchor { .. } => {
            "an alias (*) without an anchor (&) of its name above: write the value out".to_owned()
        }
        Error::MergeValueNotMapOrSeqOfMaps { .. } => {
            "<< needs a mapping, or a list of mappings".to_owned()
        }
        Error::UnsupportedTag { tag, .. } => format!("remove the tag {tag}"),
        Error::InvalidBinaryBase64 { .. }
        | Error::BinaryNotUtf8 { .. }
        | Error::TaggedScalarCannotDeserializeIntoString { .. } => {
            "remove the tag (!) of the value".to_owned()
        }
        Error::NonFiniteFloat { value, .. } => format!("{value} is no number here"),
        other => DefaultMessageFormatter.format_message(other).into_owned(),
    }
}

/// Returns the location of a field: line and column of its value, counted from 1. An item of a list is named by its
/// index from 0. `None`: the text does not have the field.
pub(crate) fn locate(text: &str, path: &[&str]) -> Option<(u64, u64)> {
    // The library reports locations only in its errors, so the text is read up to the field and refused there.
    let mut found = false;
    let options = serde_yaml::options! { with_snippet: false };
    let seek = serde_yaml::with_deserializer_from_str_with_options(text, options, |de| {
        Seek {
            path,
            found: &mut found,
        }
        .deserialize(de)
    });
    let error = seek.err().filter(|_| found)?;
    error.location().map(|at| (at.line(), at.column()))
}

/// Follows a path of keys, and fails at its end.
struct Seek<'a> {
    path: &'a [&'a str],
    found: &'a mut bool,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            *self.found = true;
            IgnoredAny::deserialize(de)?;
            return Err(serde::de::Error::custom("found"));
        }
        de.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a mapping or a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((first, path)) = self.path.split_first() else {
            return Ok(());
        };
        for _ in 0..first.parse::<usize>().unwrap_or(usize::MAX) {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        let found = self.found;
        seq.next_element_seed(Seek { path, found }).map(drop)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match self.path.split_first() {
                Some((first, path)) if *first == key => {
                    return map.next_value_seed(Seek {
                        path,
                        found: self.found,
                    });
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Writes a value as YAML, the same bytes for the same value.
///
/// # Errors
/// When the value has no form in YAML; this applies to none of the project's documents.
pub fn to_yaml<T: Serialize>(value: &T) -> Result<String, DocumentError> {
    serde_yaml::to_string(value).map_err(|error| DocumentError::whole(error.to_string()))
}

#[cfg(test)]
mod tests;
