//! Changes of one value in a YAML text. Everything else stays as it is: comments, order, quotes, line ends.

use std::ops::Range;

use super::granit_parser::{Event, Parser, Span, StructureStyle};
use super::{DocumentError, parse_list};
use serde_json::Value;

/// The reason why a text cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The text is no YAML.
    #[error(transparent)]
    Invalid(#[from] DocumentError),
    /// The path does not exist, or a part of it has another type.
    #[error("{0} does not exist in the file; change the file in an editor")]
    Missing(String),
    /// The changed text would mean something else: an alias, a block text, or a list in an unusual form.
    #[error("{0} is written in a form that only an editor can change")]
    Form(String),
}

/// A change of the value at a path; an item of a list is named by its index.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// Sets a field; adds it if its mapping does not have it.
    Set(Value),
    /// Adds an item to the end of a list; creates the list if its mapping does not have it.
    Push(Value),
    /// Removes a field or an item, with the rest of its lines.
    Remove,
}

/// The byte order mark, which some editors write.
const MARK: char = '\u{feff}';

/// Changes a text.
///
/// # Errors
/// The result would not be the same values with this one change; then nothing is changed.
pub fn edit(text: &str, path: &[&str], change: &Edit) -> Result<String, EditError> {
    // The parser counts no byte order mark, so its places would be wrong.
    if let Some(text) = text.strip_prefix(MARK) {
        return Ok(format!("{MARK}{}", edit(text, path, change)?));
    }
    let mut wanted: Value = parse_list(text)?;
    let missing = || EditError::Missing(path.join("."));
    let form = || EditError::Form(path.join("."));
    change_value(&mut wanted, path, change).ok_or_else(missing)?;
    let root = Node::read(text).ok_or_else(form)?;
    let changed = change_text(text, &root, path, change).ok_or_else(form)?;
    let leaving = match change {
        Edit::Remove => root.lines(text, path).unwrap_or_default(),
        Edit::Set(_) | Edit::Push(_) => 0..0,
    };
    let is_whole = || has_comments(&changed, text, &leaving) == Some(true);
    match parse_list::<Value>(&changed) {
        Ok(found) if found == wanted && is_whole() => Ok(changed),
        Ok(_) | Err(_) => Err(form()),
    }
}

/// Returns whether a changed text has all comments of the text before, except those in the lines that leave. `None`: one
/// of them is no YAML.
fn has_comments(changed: &str, before: &str, leaving: &Range<usize>) -> Option<bool> {
    let changed = comments(changed)?;
    let mut found = changed.iter().map(|(_, text)| text).peekable();
    for (at, text) in comments(before)? {
        if found.next_if(|found| **found == text).is_none() && !leaving.contains(&at) {
            return Some(false);
        }
    }
    Some(found.peek().is_none())
}

/// Returns the comments of a text, with their places.
fn comments(text: &str) -> Option<Vec<(usize, String)>> {
    let mut found = Vec::new();
    for event in Parser::new_from_str(text) {
        if let (Event::Comment(comment, _), span) = event.ok()? {
            found.push((span.start.byte_offset()?, comment.into_owned()));
        }
    }
    Some(found)
}

fn change_value(value: &mut Value, path: &[&str], change: &Edit) -> Option<()> {
    let (last, parents) = path.split_last()?;
    let parent = parents.iter().try_fold(value, |value, key| match value {
        Value::Object(fields) => fields.get_mut(*key),
        Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })?;
    match (parent, change) {
        (Value::Object(fields), Edit::Set(value)) => {
            fields.insert((*last).to_owned(), value.clone());
        }
        (Value::Object(fields), Edit::Push(item)) => {
            let list = fields.entry(*last).or_insert_with(|| Value::Array(vec![]));
            list.as_array_mut()?.push(item.clone());
        }
        (Value::Object(fields), Edit::Remove) => drop(fields.remove(*last)?),
        (Value::Array(items), Edit::Remove) => {
            let index = last.parse().ok().filter(|index| *index < items.len())?;
            items.remove(index);
        }
        _ => return None,
    }
    Some(())
}

fn change_text(text: &str, root: &Node, path: &[&str], change: &Edit) -> Option<String> {
    let (last, parents) = path.split_last()?;
    let parent = parents.iter().try_fold(root, |node, key| node.child(key))?;
    let at = parent.position(last);
    match (change, at) {
        (Edit::Set(value), Some(at)) => Some(replaced(
            text,
            parent.value(at)?.range.clone(),
            &value.to_string(),
        )),
        (Edit::Set(value), None) => parent.add(text, &format!("{last}: {value}")),
        (Edit::Push(item), Some(at)) => parent.value(at)?.add(text, &item.to_string()),
        (Edit::Push(item), None) => parent.add(text, &format!("{last}: [{item}]")),
        (Edit::Remove, Some(at)) => parent.without(text, at),
        (Edit::Remove, None) => None,
    }
}

fn replaced(text: &str, range: Range<usize>, by: &str) -> String {
    let mut text = text.to_owned();
    text.replace_range(range, by);
    text
}

/// A value with its place in the text.
struct Node {
    range: Range<usize>,
    content: Content,
}

enum Content {
    Leaf,
    Sequence {
        is_flow: bool,
        items: Vec<Node>,
    },
    Mapping {
        is_flow: bool,
        fields: Vec<(String, Node, Node)>,
    },
}

impl Node {
    fn read(text: &str) -> Option<Self> {
        // Comments are events too.
        let is_part = |event: &Event<'_>| {
            event.is_node() || matches!(event, Event::SequenceEnd | Event::MappingEnd)
        };
        let mut events = Parser::new_from_str(text)
            .filter(|event| event.as_ref().is_ok_and(|(event, _)| is_part(event)));
        let mut events = || events.next()?.ok();
        let first = events()?;
        Self::of(text, first, &mut events)
    }

    fn of<'t>(
        text: &str,
        (event, span): (Event<'t>, Span),
        next: &mut dyn FnMut() -> Option<(Event<'t>, Span)>,
    ) -> Option<Self> {
        let start = span.start.byte_offset()?;
        let own_end = span.end.byte_offset()?;
        let (content, end) = match event {
            Event::SequenceStart(style, ..) => {
                let is_flow = style == StructureStyle::Flow;
                let mut items = Vec::new();
                let end = loop {
                    match next()? {
                        (Event::SequenceEnd, span) => break span,
                        event => items.push(Self::of(text, event, next)?),
                    }
                };
                let last = items.last().map(|item: &Self| item.range.end);
                let end = end_of(is_flow, end, last)?;
                (Content::Sequence { is_flow, items }, end)
            }
            Event::MappingStart(style, ..) => {
                let is_flow = style == StructureStyle::Flow;
                let mut fields = Vec::new();
                let end = loop {
                    match next()? {
                        (Event::MappingEnd, span) => break span,
                        (event, span) => {
                            let name = event.scalar()?.0.to_owned();
                            let key = Self::of(text, (event, span), next)?;
                            let value = Self::of(text, next()?, next)?;
                            fields.push((name, key, value));
                        }
                    }
                };
                let last = fields.last().map(|field: &(_, _, Self)| field.2.range.end);
                let end = end_of(is_flow, end, last)?;
                (Content::Mapping { is_flow, fields }, end)
            }
            // A block text ends where the next line begins.
            _ => (
                Content::Leaf,
                start + text.get(start..own_end)?.trim_end().len(),
            ),
        };
        Some(Self {
            range: start..end,
            content,
        })
    }

    /// Returns the lines of the value at a path, from its key on.
    fn lines(&self, text: &str, path: &[&str]) -> Option<Range<usize>> {
        let (last, parents) = path.split_last()?;
        let parent = parents.iter().try_fold(self, |node, key| node.child(key))?;
        let part = parent.parts().get(parent.position(last)?)?.clone();
        Some(part.start..line_end(text, part.end))
    }

    fn child(&self, key: &str) -> Option<&Self> {
        self.value(self.position(key)?)
    }

    /// Returns the index of a field or an item.
    fn position(&self, key: &str) -> Option<usize> {
        match &self.content {
            Content::Mapping { fields, .. } => fields.iter().position(|(name, ..)| name == key),
            Content::Sequence { items, .. } => key.parse().ok().filter(|at| *at < items.len()),
            Content::Leaf => None,
        }
    }

    fn value(&self, at: usize) -> Option<&Self> {
        match &self.content {
            Content::Mapping { fields, .. } => fields.get(at).map(|(.., value)| value),
            Content::Sequence { items, .. } => items.get(at),
            Content::Leaf => None,
        }
    }

    /// Returns the places of all fields or items.
    fn parts(&self) -> Vec<Range<usize>> {
        match &self.content {
            Content::Mapping { fields, .. } => fields
                .iter()
                .map(|(_, key, value)| key.range.start..value.range.end.max(key.range.end))
                .collect(),
            Content::Sequence { items, .. } => {
                items.iter().map(|item| item.range.clone()).collect()
            }
            Content::Leaf => Vec::new(),
        }
    }

    fn is_flow(&self) -> bool {
        matches!(
            self.content,
            Content::Sequence { is_flow: true, .. } | Content::Mapping { is_flow: true, .. }
        )
    }

    /// Returns the text with a field or an item more at the end.
    fn add(&self, text: &str, part: &str) -> Option<String> {
        let parts = self.parts();
        if self.is_flow() {
            return Some(match parts.last() {
                Some(last) => replaced(text, last.end..last.end, &format!(", {part}")),
                None => {
                    let inside = self.range.start + 1;
                    replaced(text, inside..inside, part)
                }
            });
        }
        let (first, last) = (parts.first()?, parts.last()?);
        let before = text.get(line_start(text, first.start)..first.start)?;
        let indent = match &self.content {
            Content::Sequence { .. } => before.to_owned(),
            // A mapping may begin behind the dash of an item.
            _ => " ".repeat(before.chars().count()),
        };
        Some(with_line(text, last.end, &format!("{indent}{part}")))
    }

    /// Returns the text without a field or an item.
    fn without(&self, text: &str, at: usize) -> Option<String> {
        let parts = self.parts();
        let part = parts.get(at)?.clone();
        if self.is_flow() {
            let range = match (parts.get(at + 1), at.checked_sub(1)) {
                (Some(next), _) => part.start..next.start,
                (None, Some(before)) => parts.get(before)?.end..part.end,
                (None, None) => part,
            };
            return Some(replaced(text, range, ""));
        }
        let start = line_start(text, part.start);
        let before = text.get(start..part.start)?;
        let is_own_line = before.chars().all(|c| c == ' ' || c == '-');
        (parts.len() > 1 && is_own_line)
            .then(|| replaced(text, start..line_end(text, part.end), ""))
    }
}

/// Returns the end of a collection: of a flow collection its bracket, else the end of its last value.
fn end_of(is_flow: bool, end: Span, last: Option<usize>) -> Option<usize> {
    match is_flow {
        true => end.end.byte_offset(),
        false => last.or(end.start.byte_offset()),
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |end| end + 1)
}

/// Returns the start of the next line.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |end| at + end + 1)
}

/// Adds a line behind the one with this place, with the same line end.
fn with_line(text: &str, at: usize, line: &str) -> String {
    let end = line_end(text, at);
    let break_ = if text.contains('\r') { "\r\n" } else { "\n" };
    match text[..end].ends_with('\n') {
        true => replaced(text, end..end, &format!("{line}{break_}")),
        false => replaced(text, end..end, &format!("{break_}{line}{break_}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(text: &str, path: &str, value: Value) -> Result<String, EditError> {
        edit(
            text,
            &path.split('.').collect::<Vec<_>>(),
            &Edit::Set(value),
        )
    }

    fn push(text: &str, path: &str, value: Value) -> Result<String, EditError> {
        edit(
            text,
            &path.split('.').collect::<Vec<_>>(),
            &Edit::Push(value),
        )
    }

    fn remove(text: &str, path: &str) -> Result<String, EditError> {
        edit(text, &path.split('.').collect::<Vec<_>>(), &Edit::Remove)
    }

    #[test]
    fn one_value_changes_and_comments_stay() {
        for (text, changed) in [
            (
                "# a\nstatus: 3  # wait\nasn: 1\n",
                "# a\nstatus: 4  # wait\nasn: 1\n",
            ),
            ("{asn: 1, status: 3}", "{asn: 1, status: 4}"),
            ("asn: 1\r\nstatus: '3'\r\n", "asn: 1\r\nstatus: 4\r\n"),
            ("---\nstatus: 3\n---\n", "---\nstatus: 4\n---\n"),
            ("ü: é # ö\nstatus: 3\n", "ü: é # ö\nstatus: 4\n"),
            ("\u{feff}# a\nstatus: 3\n", "\u{feff}# a\nstatus: 4\n"),
            ("\u{feff}asn: 1\n", "\u{feff}asn: 1\nstatus: 4\n"),
            ("asn: 1 # last", "asn: 1 # last\nstatus: 4\n"),
            ("a:\n  b: 1\n\n# end\n", "a:\n  b: 1\nstatus: 4\n\n# end\n"),
            ("{}", "{status: 4}"),
        ] {
            assert_eq!(
                set(text, "status", json!(4)).as_deref(),
                Ok(changed),
                "{text}"
            );
        }
    }

    #[test]
    fn item_of_a_list_changes_alone() {
        let text = "sessions:\n  # first\n  - uuid: a\n    status: 3\n  - {uuid: b, status: 1} # b\n  - uuid: c\n";
        let changed = set(text, "sessions.1.status", json!(5)).unwrap();
        assert_eq!(changed, text.replace("status: 1", "status: 5"));
        let added = set(text, "sessions.2.status", json!(5)).unwrap();
        assert_eq!(added, format!("{text}    status: 5\n"));
        let removed = remove(text, "sessions.1").unwrap();
        assert_eq!(removed, text.replace("  - {uuid: b, status: 1} # b\n", ""));
    }

    #[test]
    fn lists_grow_and_shrink_in_both_notations() {
        let block = "id: 1\nhashes:\n  # old\n  - a # x\nlast: 1\n";
        let two = push(block, "hashes", json!("b")).unwrap();
        assert_eq!(two, block.replace("  - a # x\n", "  - a # x\n  - \"b\"\n"));
        let one = remove(&two, "hashes.0").unwrap();
        assert_eq!(one, "id: 1\nhashes:\n  # old\n  - \"b\"\nlast: 1\n");
        let flow = push("hashes: [a] # x\n", "hashes", json!("b")).unwrap();
        assert_eq!(flow, "hashes: [a, \"b\"] # x\n");
        assert_eq!(remove(&flow, "hashes.0").unwrap(), "hashes: [\"b\"] # x\n");
        assert_eq!(remove(&flow, "hashes.1").unwrap(), "hashes: [a] # x\n");
        assert_eq!(
            push("id: 1\n", "hashes", json!("b")).unwrap(),
            "id: 1\nhashes: [\"b\"]\n"
        );
    }

    #[test]
    fn field_is_removed_with_its_lines() {
        let text = "# top\ntoken: secret # x\nnode:\n  id: 1\n";
        assert_eq!(remove(text, "token").unwrap(), "# top\nnode:\n  id: 1\n");
        assert_eq!(remove("{token: x, id: 1}", "token").unwrap(), "{id: 1}");
        assert_eq!(remove("{id: 1, token: x}", "token").unwrap(), "{id: 1}");
        assert!(matches!(remove(text, "other"), Err(EditError::Missing(_))));
    }

    #[test]
    fn edit_that_would_lose_a_comment_is_refused() {
        let list = "a: [x, # first\n  y] # second\n";
        assert!(matches!(remove(list, "a.1"), Err(EditError::Form(_))));
        for block in ["a: |\n  text\n# note\nb: 1\n", "a: |\n  text\n\n# note\n"] {
            let changed = set(block, "a", json!(1));
            assert!(
                changed.clone().is_ok_and(|text| text.contains("# note")) || changed.is_err(),
                "{changed:?}"
            );
        }
        let folded = "a: >-\n  # no comment\nb: 1 # note\n";
        assert_eq!(remove(folded, "a").as_deref(), Ok("b: 1 # note\n"));
    }

    #[test]
    fn text_that_only_an_editor_can_change_is_refused() {
        for (text, path) in [
            ("a: &x 1\nb: *x\n", "a.b"),
            (
                "base: &x {status: 1}\nsessions: [*x]\n",
                "sessions.0.status",
            ),
            ("status:\n", "status.a"),
            ("- 1\n", "status"),
        ] {
            assert!(set(text, path, json!(4)).is_err(), "{text}");
        }
        assert!(matches!(
            set("a: [", "a", json!(1)),
            Err(EditError::Invalid(_))
        ));
    }
}
