//! Sections and entries of a text in the manner of `wg-quick` and systemd, each with its line.

/// One `[Section]`; a file may repeat it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub name: String,
    pub entries: Vec<Entry>,
}

/// One `Key = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: String,
    /// From 1.
    pub line: usize,
}

/// A line that is neither a section nor an entry of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    pub line: usize,
}

impl Section {
    /// Returns the values of a key; `wg-quick` ignores the case of keys.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Entry> {
        let is_key = move |entry: &&Entry| entry.key.eq_ignore_ascii_case(key);
        self.entries.iter().filter(is_key)
    }
}

/// Reads a text. A comment begins with `#` or `;` at the start of a line; `wg-quick` allows `#` after a value too.
pub fn read(text: &str) -> (Vec<Section>, Vec<Unread>) {
    let (mut sections, mut unread) = (Vec::<Section>::new(), Vec::new());
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.split(" #").next().unwrap_or_default().trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        let name = content
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(name) = name {
            sections.push(Section {
                name: name.trim().to_owned(),
                entries: Vec::new(),
            });
            continue;
        }
        match (content.split_once('='), sections.last_mut()) {
            (Some((key, value)), Some(section)) => section.entries.push(Entry {
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
                line,
            }),
            _ => unread.push(Unread { line }),
        }
    }
    (sections, unread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_lines() {
        let (sections, unread) = read("stray\n# c\n[Peer]\nPublicKey = a==\n\n[peer]\nnonsense\n");
        assert_eq!(sections.len(), 2);
        let key = sections[0].all("publickey").next().unwrap();
        assert_eq!((key.value.as_str(), key.line), ("a==", 4));
        assert_eq!(unread, [Unread { line: 1 }, Unread { line: 7 }]);
    }
}
