//! Which protocols a text defines. Pure.
//!
//! After a restart of the agent the fragments on disk are known by their texts alone, and a commit
//! that removes one must not take its sessions for innocent ones that went down.

/// The names of the protocols that a configuration text defines at its top level.
pub fn protocols_in(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some((token, after)) = token(rest) {
        rest = after;
        match token {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ if depth > 0 => continue,
            ";" => words.clear(),
            word => {
                words.push(word);
                continue;
            }
        }
        names.extend(named(&words));
        words.clear();
    }
    names
}

/// `protocol bgp NAME …`; `protocol device` and `protocol bgp from T` have none of their own.
fn named(words: &[&str]) -> Option<String> {
    let start = words.iter().position(|word| *word == "protocol")?;
    let name = words.get(start + 2).filter(|name| **name != "from")?;
    Some(name.trim_matches('\'').to_owned())
}

/// The next token and what is after it; comments and blanks are passed over.
fn token(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let skip = |end: Option<usize>| token(&text[end.unwrap_or(text.len())..]);
    if text.starts_with('#') {
        return skip(text.find('\n'));
    }
    if text.starts_with("/*") {
        return skip(text.find("*/").map(|end| end + 2));
    }
    let first = text.chars().next()?;
    let end = match first {
        '"' | '\'' => text[1..].find(first).map_or(text.len(), |end| end + 2),
        c if is_word(c) => text.find(|c| !is_word(c)).unwrap_or(text.len()),
        c => c.len_utf8(),
    };
    Some(text.split_at(end))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
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
        "#;
        assert_eq!(protocols_in(text), ["moe_a", "moe-b.c", "moe_s"]);
    }

    proptest! {
        #[test]
        fn random_texts_never_panic(text: String, noise in "[{}'\"#/*a ;\n]*") {
            protocols_in(&text);
            protocols_in(&noise);
        }
    }
}
