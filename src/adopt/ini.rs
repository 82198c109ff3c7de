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

/// A line that is neither a section nor an entry of one. Its text may be a part of a secret: only its number is kept.
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
        let pair = content
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()))
            // The end of a wrapped WireGuard key has nothing behind its `=`.
            .filter(|(key, value)| is_key(key) && !value.is_empty());
        match (pair, sections.last_mut()) {
            (Some((key, value)), Some(section)) => section.entries.push(Entry {
                key: key.to_owned(),
                value: value.to_owned(),
                line,
            }),
            _ => unread.push(Unread { line }),
        }
    }
    (sections, unread)
}

/// Returns whether a text can be a key's name. It is shown, so a WireGuard key without its name must not pass for one:
/// that has 43 characters before its `=`.
fn is_key(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(allowed)
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

    #[test]
    fn malformed_line_is_no_key() {
        let secret = "A".repeat(43);
        let long = "k".repeat(33);
        for line in [
            format!("PresharedKey {secret}="),
            format!("{secret}="),
            format!("{long} = 1"),
            "= 1".to_owned(),
            "Preshared/Key = 1".to_owned(),
            "c2VjcmV0=".to_owned(),
        ] {
            let (sections, unread) = read(&format!("[Peer]\n{line}\n"));
            assert_eq!(sections[0].entries, [], "{line}");
            assert_eq!(unread, [Unread { line: 2 }], "{line}");
        }
    }
}
