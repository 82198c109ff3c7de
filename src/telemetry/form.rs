//! The forms of a log line: for people, logfmt, JSON, and the journal's own.

use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};
use serde_json::{Map, Value};
use tracing::Level;

use super::event::Line;

/// Size limit of a text in the journal's form, in bytes: a datagram of the journal takes about 200 kB.
const TEXT_MAX: usize = 32 * 1024;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For people, on a terminal.
    People { colour: bool },
    /// `key=value` pairs, for people and programs.
    Logfmt,
    /// A flat JSON object.
    Json,
    /// Fields of the journal (systemd.journal-fields(7)), one datagram a line.
    Journal,
}

impl Form {
    /// Returns the bytes of a line, with the line's end.
    pub(super) fn encode(self, line: &Line) -> Vec<u8> {
        match self {
            Self::People { colour } => people(line, colour).into_bytes(),
            Self::Logfmt => logfmt(line).into_bytes(),
            Self::Json => json(line).into_bytes(),
            Self::Journal => journal(line),
        }
    }
}

fn people(line: &Line, colour: bool) -> String {
    let of = |style: Style| if colour { style } else { Style::new() };
    let (dim, italic) = (of(Style::new().dimmed()), of(Style::new().italic()));
    let level = of(Style::new().fg_color(Some(level_colour(line.level).into())));
    let mut text = format!(
        "{dim}{}{dim:#} {level}{:>5}{level:#} ",
        line.time, line.level
    );
    if let Some(library) = line.library {
        let _ = write!(text, "{dim}{library}:{dim:#} ");
    }
    let _ = write!(text, "{}", printable(&line.message));
    for (name, value) in &line.fields {
        let _ = write!(
            text,
            " {italic}{name}{italic:#}{dim}={dim:#}{}",
            Quoted(value)
        );
    }
    text.push('\n');
    text
}

fn level_colour(level: Level) -> AnsiColor {
    match level {
        Level::ERROR => AnsiColor::Red,
        Level::WARN => AnsiColor::Yellow,
        Level::INFO => AnsiColor::Green,
        Level::DEBUG => AnsiColor::Blue,
        Level::TRACE => AnsiColor::Magenta,
    }
}

fn logfmt(line: &Line) -> String {
    let message = Value::from(line.message.as_str());
    let mut text = format!(
        "time={} level={} msg={}",
        line.time,
        line.level,
        Quoted(&message)
    );
    if let Some(library) = line.library {
        let _ = write!(text, " library={library}");
    }
    for (name, value) in &line.fields {
        let _ = write!(text, " {}={}", key(name), Quoted(value));
    }
    text.push('\n');
    text
}

/// The keys that every line has.
const OWN: [&str; 5] = ["time", "level", "msg", "message", "library"];

/// Returns the key of a field; one that every line has gets an underscore.
fn key(name: &str) -> String {
    let own = OWN.contains(&name);
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') {
            c
        } else {
            '_'
        }
    };
    let mut key: String = name.chars().map(safe).collect();
    if own {
        key.push('_');
    }
    key
}

fn json(line: &Line) -> String {
    let mut object = Map::new();
    object.insert("time".into(), line.time.to_string().into());
    object.insert("level".into(), line.level.as_str().into());
    object.insert("message".into(), line.message.as_str().into());
    object.extend(
        line.library
            .map(|library| ("library".into(), library.into())),
    );
    let fields = line.fields.iter();
    object.extend(fields.map(|(name, value)| (key(name), value.clone())));
    format!("{}\n", Value::Object(object))
}

/// A name is capital letters, digits and underscores, and begins with a letter; other fields begin with the program's
/// name, so that none of the journal's own is overwritten.
fn journal(line: &Line) -> Vec<u8> {
    let mut entry = Vec::new();
    let mut add = |name: &str, value: &str| {
        let end = value.floor_char_boundary(TEXT_MAX);
        let value = &value.as_bytes()[..end];
        // With the length, a value may have any bytes.
        entry.extend(name.as_bytes());
        entry.push(b'\n');
        entry.extend((value.len() as u64).to_le_bytes());
        entry.extend(value);
        entry.push(b'\n');
    };
    let mut message = printable(&line.message);
    for (name, value) in &line.fields {
        let _ = write!(message, " {}={}", key(name), Quoted(value));
    }
    add("MESSAGE", &message);
    add("PRIORITY", priority(line.level));
    add("SYSLOG_IDENTIFIER", "moenet-agent");
    if let Some(library) = line.library {
        add("MOENET_LIBRARY", library);
    }
    for (name, value) in &line.fields {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        add(&journal_field(name), &text);
    }
    entry
}

/// `object` is `OBJECT` and `asn` is `ASN`; the others are `MOENET_CAUSE`, ….
fn journal_field(name: &str) -> String {
    let upper = key(name).to_ascii_uppercase().replace(['.', '-'], "_");
    match name {
        "object" | "asn" => upper,
        _ => format!("MOENET_{upper}"),
    }
}

/// Returns the priority of syslog(3).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// A value of logfmt. A text is always quoted, other values never.
struct Quoted<'a>(&'a Value);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value::String(text) = self.0 else {
            return write!(f, "{}", self.0);
        };
        f.write_char('"')?;
        for c in text.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                '\r' => f.write_str("\\r")?,
                c if crate::model::is_visible(c) => f.write_char(c)?,
                c => write!(f, "\\u{{{:x}}}", u32::from(c))?,
            }
        }
        f.write_char('"')
    }
}

/// Replaces characters that could change the terminal, or end the line, by their escapes.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match crate::model::is_visible(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_default()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a line as logfmt has it: pairs with one blank between them, values quoted or without blanks and quotes.
    fn parse_logfmt(line: &str) -> Vec<(String, String)> {
        let mut rest = line.strip_suffix('\n').unwrap();
        let mut pairs = Vec::new();
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=').unwrap();
            let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            assert!(
                !name.is_empty() && name.chars().all(is_key),
                "{name:?} in {line}"
            );
            let (value, after) = match after.strip_prefix('"') {
                Some(inside) => quoted(inside),
                None => {
                    let end = after.find(' ').unwrap_or(after.len());
                    assert!(!after[..end].contains(['"', '=', '\\']), "{line}");
                    (after[..end].to_owned(), &after[end..])
                }
            };
            pairs.push((name.to_owned(), value));
            rest = after.strip_prefix(' ').unwrap_or(after);
            assert!(rest.len() < after.len() || after.is_empty(), "{line}");
        }
        pairs
    }

    fn quoted(inside: &str) -> (String, &str) {
        let mut value = String::new();
        let mut chars = inside.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return (value, &inside[at + 1..]),
                '\\' => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    't' => value.push('\t'),
                    'r' => value.push('\r'),
                    'u' => {
                        let code: String = chars
                            .by_ref()
                            .map(|(_, c)| c)
                            .take_while(|c| *c != '}')
                            .collect();
                        let code = u32::from_str_radix(code.trim_start_matches('{'), 16).unwrap();
                        value.push(char::from_u32(code).unwrap());
                    }
                    c => value.push(c),
                },
                c => {
                    assert!(!c.is_control());
                    value.push(c);
                }
            }
        }
        panic!("no end of {inside}");
    }

    fn parse_journal(mut entry: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while !entry.is_empty() {
            let end = entry.iter().position(|b| *b == b'\n').unwrap();
            let (name, after) = entry.split_at(end);
            let (length, after) = after[1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let (value, after) = after.split_at(length);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            fields.push((text(name), text(value)));
            entry = after.strip_prefix(b"\n").unwrap();
        }
        fields
    }

    fn line(message: &str, texts: &[&str]) -> Line {
        let names = ["object", "cause", "level", "error"];
        let texts = names
            .into_iter()
            .zip(texts.iter().map(|text| Value::from(*text)));
        let numbers = [
            ("asn", Value::from(4_242_421_080_u32)),
            ("done", true.into()),
        ];
        Line::new(Level::WARN, message, texts.chain(numbers).collect())
    }

    proptest! {
        #[test]
        fn every_form_keeps_hostile_texts_apart(message: String, texts in proptest::array::uniform4(any::<String>())) {
            let line = line(&message, &texts.each_ref().map(String::as_str));
            let [object, cause, level, error] = texts.map(|text| text.to_owned());

            let pairs = parse_logfmt(&logfmt(&line));
            let time = line.time.to_string();
            let expected = [
                ("time", time.as_str()), ("level", "WARN"), ("msg", &message), ("object", &object), ("cause", &cause),
                ("level_", &level), ("error", &error), ("asn", "4242421080"), ("done", "true"),
            ];
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            prop_assert_eq!(&pairs[..], &expected[..]);

            let text = json(&line);
            prop_assert_eq!(text.matches('\n').count(), 1);
            let object_: Value = serde_json::from_str(&text).unwrap();
            let is_flat = object_.as_object().unwrap().values().all(|value| !value.is_object() && !value.is_array());
            prop_assert!(is_flat);
            for (name, value) in [("message", &message), ("object", &object), ("level_", &level)] {
                prop_assert_eq!(object_[name].as_str().unwrap(), value);
            }
            prop_assert_eq!(&object_["asn"], 4_242_421_080_u32);

            let fields = parse_journal(&journal(&line));
            let of = |name: &str| {
                let found: Vec<_> = fields.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect();
                found.join("|")
            };
            prop_assert_eq!(of("PRIORITY"), "4");
            prop_assert_eq!(of("OBJECT"), object);
            prop_assert_eq!(of("ASN"), "4242421080");
            prop_assert_eq!(of("MOENET_CAUSE"), cause);
            let has_control = of("MESSAGE").chars().any(char::is_control);
            prop_assert!(!has_control);
        }
    }

    #[test]
    fn people_read_time_level_message_and_fields() {
        let text = people(
            &line("BGP session down", &["sessions/wg_1", "a \"b\"\u{1b}[2J"]),
            false,
        );
        let (_, rest) = text.split_once(' ').unwrap();
        assert_eq!(
            rest,
            " WARN BGP session down object=\"sessions/wg_1\" cause=\"a \\\"b\\\"\\u{1b}[2J\" asn=4242421080 done=true\n"
        );
    }

    #[test]
    fn long_texts_fit_into_a_datagram() {
        let long = "é".repeat(100_000);
        let entry = journal(&line(&long, &[&long, &long, "x", "y"]));
        assert!(entry.len() < 200_000, "{}", entry.len());
        assert_eq!(parse_journal(&entry).len(), 9);
    }
}
