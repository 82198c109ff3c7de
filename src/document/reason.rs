//! The reason why a type does not accept a value, and its words.

use std::fmt;

use serde::de::Unexpected;
use serde_json::Value;

use crate::model::shown;

/// The reason why a type does not accept a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A value of another type.
    Type { wanted: Wanted, found: Found },
    /// A required field without a value.
    Missing(&'static str),
    UnknownField {
        field: String,
        known: &'static [&'static str],
    },
    /// A word that is not of the known ones.
    UnknownWord {
        word: String,
        known: &'static [&'static str],
    },
    /// A rule of the type, in its own words.
    Rule(String),
}

/// The type that a field has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    Text,
    Whole,
    Number,
    Boolean,
    Mapping,
    List,
    Word,
    /// A type in the words of its reader.
    Other(String),
}

/// The value in place of one of that type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Text(String),
    /// A number or a boolean.
    Bare(String),
    Mapping,
    List,
}

impl From<&Value> for Found {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Nothing,
            Value::String(text) => Self::Text(text.clone()),
            Value::Bool(_) | Value::Number(_) => Self::Bare(value.to_string()),
            Value::Object(_) => Self::Mapping,
            Value::Array(_) => Self::List,
        }
    }
}

impl From<Unexpected<'_>> for Found {
    fn from(found: Unexpected<'_>) -> Self {
        match found {
            Unexpected::Unit | Unexpected::Option => Self::Nothing,
            Unexpected::Str(text) => Self::Text(text.to_owned()),
            Unexpected::Bool(value) => Self::Bare(value.to_string()),
            Unexpected::Unsigned(number) => Self::Bare(number.to_string()),
            Unexpected::Signed(number) => Self::Bare(number.to_string()),
            Unexpected::Float(number) => Self::Bare(number.to_string()),
            Unexpected::Map => Self::Mapping,
            Unexpected::Seq => Self::List,
            other => Self::Bare(other.to_string()),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a text",
            Self::Whole => "a whole number without quotes",
            Self::Number => "a number without quotes",
            Self::Boolean => "true or false",
            Self::Mapping => "a mapping",
            Self::List => "a list",
            Self::Word => "a word",
            Self::Other(text) => text,
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no value (a # begins a comment)"),
            Self::Text(text) => write!(f, "the text {}", shown(text)),
            Self::Bare(text) => f.write_str(text),
            Self::Mapping => f.write_str("a mapping"),
            Self::List => f.write_str("a list"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A text in place of a mapping may be a secret, so it is not shown.
            Self::Type {
                wanted: wanted @ Wanted::Mapping,
                ..
            } => write!(f, "expected {wanted}, its fields indented below it"),
            Self::Type { wanted, found } => write!(f, "expected {wanted}, found {found}"),
            Self::Missing("reason") => f.write_str("a reason is needed (a # begins a comment)"),
            Self::Missing(field) => write!(f, "`{field}` is missing"),
            Self::UnknownField { field, known } => f.write_str(&unknown_field(field, known)),
            Self::UnknownWord { word, known } => {
                write!(f, "must be {}, not {}", known.join(" or "), shown(word))
            }
            Self::Rule(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Reason {}

/// Returns the words for an unknown field, with the nearest of the known ones.
pub(crate) fn unknown_field(field: &str, known: &[&str]) -> String {
    let distance =
        |known: &str| strsim::damerau_levenshtein(&field.to_lowercase(), &known.to_lowercase());
    let near = known.iter().map(|known| (distance(known), known));
    let near = near.filter(|(distance, known)| *distance <= 1 + known.len() / 3);
    match near.min() {
        Some((_, nearest)) => format!("unknown field `{field}`, did you mean `{nearest}`?"),
        None => format!(
            "unknown field `{field}`, expected one of `{}`",
            known.join("`, `")
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reasons_are_in_words_of_the_trade() {
        let found = |wanted, value: Value| {
            let found = Found::from(&value);
            Reason::Type { wanted, found }.to_string()
        };
        for (words, ours) in [
            (
                found(Wanted::Whole, json!("1380")),
                "expected a whole number without quotes, found the text \"1380\"",
            ),
            (
                found(Wanted::Whole, json!(64512.1)),
                "expected a whole number without quotes, found 64512.1",
            ),
            (
                found(Wanted::Mapping, json!(null)),
                "expected a mapping, its fields indented below it",
            ),
            (
                found(Wanted::Mapping, json!("hunter2")),
                "expected a mapping, its fields indented below it",
            ),
            (
                found(Wanted::Boolean, json!(1)),
                "expected true or false, found 1",
            ),
            (Reason::Missing("asn").to_string(), "`asn` is missing"),
            (
                Reason::UnknownWord {
                    word: "a\nb".to_owned(),
                    known: &["gre", "ip6gre"],
                }
                .to_string(),
                "must be gre or ip6gre, not \"a\\nb\"",
            ),
            (
                unknown_field("sett", &["reason", "set"]),
                "unknown field `sett`, did you mean `set`?",
            ),
            (
                unknown_field("colour", &["reason", "set"]),
                "unknown field `colour`, expected one of `reason`, `set`",
            ),
        ] {
            assert_eq!(words, ours);
        }
    }
}
