//! Translates the messages of the YAML library and of serde into the terms of operators.

/// Translates an error of the library about a value. `field` is its path, `raw` the text of the value.
pub(crate) fn plain(text: &str, field: &str, raw: Option<&str>) -> String {
    let found = raw.map(str::trim).filter(|raw| !raw.is_empty());
    if text.starts_with("multiple YAML documents") {
        return "one document a file: a second one begins after `---`".to_owned();
    }
    if text.starts_with("cannot deserialize null into string") || text == NULL_TEXT {
        return no_text(field);
    }
    if let Some(rest) = text
        .strip_prefix("invalid type: ")
        .or_else(|| text.strip_prefix("invalid value: "))
        && let Some((unexpected, expected)) = rest.rsplit_once(", expected ")
    {
        let (wanted, found) = (wanted(expected), found_words(unexpected));
        return match (wanted.as_str(), found.as_str()) {
            (TEXT, "nothing") => no_text(field),
            (MAPPING, "nothing") => format!("expected {MAPPING}, its fields indented below it"),
            (_, "nothing") => {
                format!("expected {wanted}, found no value (a # begins a comment)")
            }
            _ => format!("expected {wanted}, found {found}"),
        };
    }
    match text {
        "expected mapping start" => {
            return format!("expected {MAPPING}, its fields indented below it");
        }
        "expected sequence start" => return "expected a list".to_owned(),
        _ => {}
    }
    if let Some(kind) = text.strip_prefix("invalid ") {
        let kind = kind.split_whitespace().next().unwrap_or(kind);
        let wanted = wanted(kind);
        if wanted != kind {
            return match found {
                Some(found) => format!("expected {wanted}, found {}", crate::model::shown(found)),
                None => format!("expected {wanted}"),
            };
        }
    }
    if text.contains("strict boolean") || text.starts_with("invalid boolean") {
        let found = found.unwrap_or("this");
        return format!("expected {BOOLEAN}, found {}", crate::model::shown(found));
    }
    match text
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split_once('`'))
    {
        Some(("reason", _)) => REASON.to_owned(),
        Some((missing, _)) => format!("`{missing}` is missing"),
        None => text.to_owned(),
    }
}

const TEXT: &str = "a text";
const MAPPING: &str = "a mapping";
const BOOLEAN: &str = "true or false";
const REASON: &str = "a reason is needed (a # begins a comment)";
const NULL_TEXT: &str = "cannot deserialize null into string; use Option<String>";

fn no_text(field: &str) -> String {
    if field == "reason" || field.ends_with(".reason") {
        return REASON.to_owned();
    }
    "expected a text, found no value (a # begins a comment)".to_owned()
}

/// Translates the type that the library expected.
fn wanted(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "integer" => {
            "a whole number without quotes".to_owned()
        }
        "f32" | "f64" | "float" => "a number without quotes".to_owned(),
        "a boolean" | "boolean" | "bool" => BOOLEAN.to_owned(),
        "a string" | "path string" | "string" | "str" => TEXT.to_owned(),
        "a map" | "mapping" | "map" => MAPPING.to_owned(),
        "a sequence" | "sequence" => "a list".to_owned(),
        other if other.starts_with("struct ") || other.starts_with("internally tagged") => {
            MAPPING.to_owned()
        }
        other if other.starts_with("enum ") || other.starts_with("variant") => "a word".to_owned(),
        other => other.to_owned(),
    }
}

/// Translates the type that the library found.
fn found_words(unexpected: &str) -> String {
    let quoted = |rest: &str| rest.trim_matches('`').to_owned();
    match unexpected.split_once(' ') {
        _ if matches!(unexpected, "unit value" | "null" | "Option value") => "nothing".to_owned(),
        _ if unexpected == "map" => MAPPING.to_owned(),
        _ if unexpected == "sequence" => "a list".to_owned(),
        Some(("string", text)) => format!("the text {text}"),
        Some(("integer" | "boolean", value)) => quoted(value),
        Some(("floating", rest)) => quoted(rest.trim_start_matches("point ")),
        _ => unexpected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn words_of_the_library_become_words_of_the_trade() {
        for (text, field, ours) in [
            (
                "invalid type: string \"1380\", expected u16",
                "spec.set.tunnel.mtu",
                "expected a whole number without quotes, found the text \"1380\"",
            ),
            (
                "invalid type: floating point `64512.1`, expected u32",
                "asn",
                "expected a whole number without quotes, found 64512.1",
            ),
            (
                "invalid type: unit value, expected a string",
                "spec.reason",
                "a reason is needed (a # begins a comment)",
            ),
            (
                "invalid type: unit value, expected a map",
                "spec.set",
                "expected a mapping, its fields indented below it",
            ),
            (
                "invalid type: integer `1`, expected a boolean",
                "spec.paused",
                "expected true or false, found 1",
            ),
            ("missing field `asn`", "spec", "`asn` is missing"),
            (
                "invalid MTU 70000: use 1280..9000",
                "x",
                "invalid MTU 70000: use 1280..9000",
            ),
        ] {
            assert_eq!(plain(text, field, None), ours);
        }
    }
}
