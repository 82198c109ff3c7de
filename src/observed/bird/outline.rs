//! The outline of a configuration text: its protocols and templates, and their statements. Pure,
//! and total: a text that BIRD would reject has an outline too.
//!
//! After a restart of the agent, the fragments on disk are known only by their texts, and a commit
//! that removes one must not count its sessions among unchanged ones that went down.

/// The definitions of a text, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline<'a> {
    /// Protocols and templates.
    pub blocks: Vec<Block<'a>>,
    /// Statements outside blocks, such as `router id 192.0.2.1`.
    pub globals: Vec<Statement<'a>>,
}

/// One protocol or template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block<'a> {
    /// A template is not a session.
    pub is_template: bool,
    /// `bgp`, `static`, …
    pub class: &'a str,
    /// Its name; `None` if BIRD assigns one.
    pub name: Option<&'a str>,
    /// Its statements; those of channels are listed one by one.
    pub statements: Vec<Statement<'a>>,
    /// Its last word, usually the closing brace, as a part of the text.
    pub end: &'a str,
}

/// One statement, without the semicolon. It includes text in braces, except for channels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Statement<'a> {
    /// The channel that contains it, such as `ipv4`.
    pub channel: Option<&'a str>,
    /// Its words, without comments and blanks.
    pub words: Vec<&'a str>,
}

/// Words that open a channel.
pub const CHANNELS: [&str; 2] = ["ipv4", "ipv6"];

impl<'a> Outline<'a> {
    pub fn of(text: &'a str) -> Self {
        let mut found = Self::default();
        let mut tokens = Tokens(text);
        while let Some(statement) = tokens.statement() {
            match Block::of(&statement) {
                Some(block) => found.blocks.push(block),
                None if statement.words.is_empty() => {}
                None => found.globals.push(statement),
            }
        }
        found
    }

    /// Returns the paths and patterns that the text includes, outside its blocks.
    pub fn includes(&self) -> impl Iterator<Item = &'a str> {
        self.globals
            .iter()
            .filter_map(|statement| match statement.words.as_slice() {
                ["include", path, ..] => Some(path.trim_matches('"')),
                _ => None,
            })
    }
}

impl<'a> Block<'a> {
    /// Parses `protocol bgp NAME from TEMPLATE { … }`; `protocol device` and `protocol bgp from T` have no name.
    fn of(statement: &Statement<'a>) -> Option<Self> {
        let start = statement
            .words
            .iter()
            .position(|word| matches!(*word, "protocol" | "template"))?;
        let (kind, rest) = statement.words[start..].split_first()?;
        // `timeformat protocol "%s";` has no body.
        let open = rest.iter().position(|word| *word == "{")?;
        let (head, body) = rest.split_at(open);
        // `protocol ospf v3 NAME`, `protocol rip ng NAME`
        let is_version = |word: &&str| matches!(*word, "v2" | "v3" | "ng");
        let has_version = matches!(head.first(), Some(&("ospf" | "rip")));
        let at = 1 + usize::from(has_version && head.get(1).is_some_and(is_version));
        let name = head.get(at).filter(|name| **name != "from");
        let mut statements = Vec::new();
        body_of(None, body.get(1..).unwrap_or_default(), &mut statements);
        // The parent template is one of the block's statements.
        statements.extend(
            head.iter()
                .position(|word| *word == "from")
                .map(|at| Statement {
                    channel: None,
                    words: head[at..].to_vec(),
                }),
        );
        Some(Self {
            is_template: *kind == "template",
            class: head.first().copied().unwrap_or_default(),
            name: name.map(|name| name.trim_matches('\'')),
            statements,
            end: rest.last().copied().unwrap_or_default(),
        })
    }
}

/// Collects the statements of a body, up to its closing brace; those inside channels get the channel.
fn body_of<'a>(channel: Option<&'a str>, words: &[&'a str], found: &mut Vec<Statement<'a>>) {
    let (mut depth, mut start) = (0_usize, 0);
    for (at, word) in words.iter().enumerate() {
        match *word {
            "{" => depth += 1,
            "}" if depth == 0 => return,
            "}" => depth -= 1,
            ";" if depth == 0 => {
                add(channel, &words[start..at], found);
                start = at + 1;
            }
            _ => {}
        }
    }
}

fn add<'a>(channel: Option<&'a str>, words: &[&'a str], found: &mut Vec<Statement<'a>>) {
    match words {
        [] => {}
        [name, rest @ ..] if channel.is_none() && CHANNELS.contains(name) => {
            found.push(Statement {
                channel: None,
                words: vec![name],
            });
            body_of(Some(name), rest.get(1..).unwrap_or_default(), found);
        }
        words => found.push(Statement {
            channel,
            words: words.to_vec(),
        }),
    }
}

/// Returns the line of a text, from 1, in which a part of it begins.
pub fn line_of(text: &str, part: &str) -> usize {
    let offset = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Returns the file patterns that a configuration text includes.
pub fn includes_in(text: &str) -> Vec<String> {
    let outline = Outline::of(text);
    let inside = outline.blocks.iter().flat_map(|block| &block.statements);
    let pattern = |statement: &Statement<'_>| match statement.words[..] {
        ["include", pattern] => Some(pattern.trim_matches('"').to_owned()),
        _ => None,
    };
    outline
        .globals
        .iter()
        .chain(inside)
        .filter_map(pattern)
        .collect()
}

/// Returns the names of the protocols that a configuration text defines.
pub fn protocols_in(text: &str) -> Vec<String> {
    let blocks = Outline::of(text)
        .blocks
        .into_iter()
        .filter(|block| !block.is_template);
    blocks
        .filter_map(|block| block.name.map(str::to_owned))
        .collect()
}

/// The remaining text, read token by token.
struct Tokens<'a>(&'a str);

impl<'a> Tokens<'a> {
    /// Returns the next statement of the top level, which ends at its semicolon or with its braces.
    fn statement(&mut self) -> Option<Statement<'a>> {
        let (mut words, mut depth) = (Vec::new(), 0_usize);
        for token in self.by_ref() {
            match token {
                ";" if depth == 0 => {
                    return Some(Statement {
                        channel: None,
                        words,
                    });
                }
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            words.push(token);
            if token == "}" && depth == 0 {
                return Some(Statement {
                    channel: None,
                    words,
                });
            }
        }
        (!words.is_empty()).then_some(Statement {
            channel: None,
            words,
        })
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    /// Returns the next token; skips comments and blanks.
    fn next(&mut self) -> Option<&'a str> {
        loop {
            let text = self.0.trim_ascii_start();
            let comment = match text.as_bytes() {
                [b'#', ..] => text.find('\n'),
                [b'/', b'*', ..] => text.find("*/").map(|end| end + 2),
                _ => {
                    let (token, rest) = text.split_at(token_end(text)?);
                    self.0 = rest;
                    return Some(token);
                }
            };
            self.0 = &text[comment.unwrap_or(text.len())..];
        }
    }
}

fn token_end(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    Some(match (first, word_end(text)) {
        ('"' | '\'', _) => text[1..].find(first).map_or(text.len(), |end| end + 2),
        (c, 0) => c.len_utf8(),
        (_, end) => end,
    })
}

/// Returns the length of the word that a text begins with. Each byte of a word is a character.
fn word_end(text: &str) -> usize {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let end = text.bytes().position(|byte| !is_word(&byte));
    end.unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn protocols_are_found_where_bird_would_find_them() {
        let text = r#"
            # protocol bgp no1 {}
            /* protocol bgp no2 {} */ define X = "protocol bgp no3 {";
            template bgp t { description "}"; }
            function f() { if (1 = 2) then { return; } }
            protocol device { scan time 10; }
            protocol bgp moe_a from t { neighbor fe80::1%'wg-a' as 1; ipv4 { import all; }; }
            protocol bgp 'moe-b.c' { }
            protocol static moe_s
            { ipv4; }
            protocol bgp from t { }
            protocol ospf v3 { }
            protocol rip ng moe_r { }
        "#;
        assert_eq!(protocols_in(text), ["moe_a", "moe-b.c", "moe_s", "moe_r"]);
    }

    #[test]
    fn channels_are_opened_and_filters_are_not() {
        let text = "router id 1.2.3.4; protocol bgp a from t { hold time 90; \
                    ipv4 { import filter { if x then { y; } accept; }; import table on; }; ipv6; }";
        let outline = Outline::of(text);
        assert_eq!(outline.globals.len(), 1);
        let told = |statement: &Statement<'_>| {
            format!(
                "{}: {}",
                statement.channel.unwrap_or("-"),
                statement.words.join(" ")
            )
        };
        let statements: Vec<_> = outline.blocks[0].statements.iter().map(told).collect();
        let filter = "ipv4: import filter { if x then { y ; } accept ; }";
        assert_eq!(
            statements,
            [
                "-: hold time 90",
                "-: ipv4",
                filter,
                "ipv4: import table on",
                "-: ipv6",
                "-: from t"
            ]
        );
    }

    #[test]
    fn includes_and_lines_are_found() {
        let text = "log syslog all;\ninclude \"a/*.conf\";\n# include \"no\";\nprotocol static {\n include \"b\";\n}\n";
        assert_eq!(includes_in(text), ["a/*.conf", "b"]);
        assert_eq!(line_of(text, Outline::of(text).blocks[0].class), 4);
    }

    proptest! {
        #[test]
        fn random_texts_never_panic(text: String, noise in "[{}'\"#/*a ;\n]*|(protocol |bgp |ipv4 |[{};])*") {
            protocols_in(&text);
            protocols_in(&noise);
            includes_in(&noise);
        }
    }
}
