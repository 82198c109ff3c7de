//! Every case, read by five versions of BIRD.

use super::support::{BIRDS, Case, assert_silent, cases};
use proptest::prelude::*;

#[test]
fn every_case_loads_on_every_version_without_a_warning() {
    for (name, folder) in cases() {
        let case = Case::read(&folder);
        for (version, major, minor) in BIRDS {
            let files = case
                .render((major, minor))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_silent(version, &name, &files);
        }
    }
}

fn described(description: &str) -> Case {
    let mut case = Case::read(&cases()["basic"]);
    for session in case.sessions.values_mut() {
        session.description = Some(description.to_owned());
    }
    case
}

/// The text with every string emptied.
fn without_strings(text: &str) -> String {
    text.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

proptest! {
    #[test]
    fn no_description_changes_anything_outside_its_quotes(description in any::<String>()) {
        let plain = described("x").render((2, 17)).unwrap();
        let hostile = described(&description).render((2, 17)).unwrap();
        for (path, text) in &plain {
            prop_assert_eq!(without_strings(text), without_strings(&hostile[path]));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn bird_takes_any_description(description in "(\\PC|[\"\\\\;{}#/*'\n\r\t\u{0}\u{85}\u{2028}\u{202e}]){0,300}") {
        for (version, major, minor) in BIRDS {
            assert_silent(version, &format!("{description:?}"), &described(&description).render((major, minor)).unwrap());
        }
    }
}
