/// Decodes bytes from BIRD: lossily, with every control character replaced by `U+FFFD`, so that the
/// text is safe for a log or a terminal. Tabs are kept: `show route all` indents with them.
pub(crate) fn decode(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    // Nearly all of BIRD's lines, of which there are many.
    let is_plain = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    match text.bytes().all(is_plain) {
        true => text.into_owned(),
        false => text.chars().map(printable).collect(),
    }
}

fn printable(c: char) -> char {
    if c != '\t' && c.is_control() {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

/// Returns the first `most` characters of a text, with `…` where it was cut.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_printable_text() {
        assert_eq!(
            decode(b"a\x1b[31m\xff\tb\r"),
            "a\u{fffd}[31m\u{fffd}\tb\u{fffd}"
        );
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("ééé", 2), "éé…");
        assert_eq!(cut("éé", 2), "éé");
    }
}
