//! The texts that BIRD reads: one file a session, and the files they share.

use std::collections::BTreeMap;

use super::{Action, Drift, Plan, Step};

/// The files that all sessions share, by their paths below BIRD's directory.
pub type BaseFiles = BTreeMap<String, String>;

/// A session's file: the reason names the first line that differs, without its text, which may hold a
/// password.
pub(super) fn fragment(name: &str, want: &str, have: Option<&str>) -> Option<Step> {
    if have == Some(want) {
        return None;
    }
    let because = match have {
        Some(have) => Drift::new("bird.session", "its new text", changed_lines(want, have)),
        None => Drift::missing("bird.session", "its file"),
    };
    Some(Step { action: Action::WriteFragment { name: name.to_owned(), text: want.to_owned() }, because })
}

pub(super) fn removal(name: &str, have: Option<&str>) -> Option<Step> {
    have?;
    let because = Drift::surplus("bird.session", "its file");
    Some(Step { action: Action::RemoveFragment { name: name.to_owned() }, because })
}

/// "another line 4" or "other lines 4 to 9".
fn changed_lines(want: &str, have: &str) -> String {
    let (want, have): (Vec<_>, Vec<_>) = (want.lines().collect(), have.lines().collect());
    let first = want.iter().zip(&have).take_while(|(a, b)| a == b).count();
    let common_end = want.iter().rev().zip(have.iter().rev()).take_while(|(a, b)| a == b).count();
    let last = have.len().saturating_sub(common_end).max(first + 1);
    if last == first + 1 {
        format!("another line {last}")
    } else {
        format!("other lines {} to {last}", first + 1)
    }
}

/// What brings the shared files from what is on disk to what is wanted.
pub fn plan_base(want: &BaseFiles, have: &BaseFiles) -> Plan {
    let mut plan = Plan::default();
    plan.extend(want.iter().filter_map(|(path, text)| {
        let because = match have.get(path) {
            Some(there) if there == text => return None,
            Some(there) => Drift::new("bird.file", "its new text", changed_lines(text, there)),
            None => Drift::missing("bird.file", path),
        };
        Some(Step { action: Action::WriteBase { path: path.clone(), text: text.clone() }, because })
    }));
    plan.extend(have.keys().filter(|path| !want.contains_key(*path)).map(|path| Step {
        action: Action::RemoveBase { path: path.clone() },
        because: Drift::surplus("bird.file", path),
    }));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_text_is_told_by_its_lines_and_not_by_its_words() {
        let step = fragment("a", "one\nsecret 2\nthree\n", Some("one\nsecret 1\nthree\n")).unwrap();
        assert_eq!(
            step.to_string(),
            "write BIRD session a (bird.session: want its new text, have another line 2)"
        );
        assert_eq!(changed_lines("a\nb\nc\nd", "a\nx\ny\nd"), "other lines 2 to 3");
        assert_eq!(changed_lines("a\nb", "a"), "another line 2");
    }

    #[test]
    fn equal_texts_need_nothing() {
        assert!(fragment("a", "x", Some("x")).is_none());
        assert!(removal("a", None).is_none());
        let files = BaseFiles::from([("bird.conf".into(), "x".into())]);
        assert!(plan_base(&files, &files).is_empty());
    }
}
