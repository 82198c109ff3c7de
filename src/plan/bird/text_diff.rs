//! The difference between two BIRD texts as a unified diff, without secrets.

use similar::TextDiff;

/// Lines that begin with one of these show their quoted texts.
const SHOWS: [&str; 4] = ["description", "interface", "protocol", "include"];
/// Words of lines that are hidden.
const HIDES: [&str; 4] = ["password", "secret", "key", "hex"];
/// Takes the place of a text that may be a secret.
const HIDDEN: &str = "(hidden)";

/// Returns the unified diff of a file; empty if only hidden texts differ.
pub(crate) fn text_diff(file: &str, old: &str, new: &str) -> String {
    let (old, new) = (masked(old), masked(new));
    let diff = TextDiff::from_lines(old.as_str(), new.as_str());
    let mut unified = diff.unified_diff();
    unified
        .context_radius(3)
        .header(&format!("a/{file}"), &format!("b/{file}"));
    unified.to_string()
}

fn masked(text: &str) -> String {
    let lines = text.lines().map(|line| masked_line(line) + "\n");
    lines.collect()
}

fn masked_line(line: &str) -> String {
    let code = line.trim_start();
    let lower = code.to_ascii_lowercase();
    if let Some(word) = HIDES.iter().find(|word| lower.contains(*word)) {
        let indent = &line[..line.len() - code.len()];
        return format!("{indent}{word} {HIDDEN};");
    }
    if !line.contains('"') || SHOWS.iter().any(|start| code.starts_with(start)) {
        return line.to_owned();
    }
    let parts = line.split('"').enumerate();
    let parts = parts.map(|(number, part)| if number % 2 == 1 { HIDDEN } else { part });
    parts.collect::<Vec<_>>().join("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diff_has_context_and_both_sides() {
        let diff = text_diff("x.conf", "a;\nb;\nc;\n", "a;\nB;\nc;\n");
        assert!(
            diff.starts_with("--- a/x.conf\n+++ b/x.conf\n@@ "),
            "{diff}"
        );
        assert!(diff.contains("\n a;\n-b;\n+B;\n c;\n"), "{diff}");
    }

    #[test]
    fn secrets_are_hidden_wherever_they_are() {
        let old = "  password \"hunter1\";\n \"hunter2\";\nkeys { id 1 { 0xhunter3 }};\n";
        let new = "  password \"hunter4\";\n \"hunter5\";\ndescription \"a peer\";\n";
        let diff = text_diff("x.conf", old, new);
        assert!(!diff.contains("hunter"), "{diff}");
        assert!(diff.contains("+description \"a peer\";"), "{diff}");
        assert!(diff.contains("-key (hidden);"), "{diff}");
    }
}
