//! The texts that BIRD reads: one file per session, and the shared files.

use std::cell::LazyCell;

use super::{Action, Drift, Plan, Step};
use crate::observed::bird::Texts;

mod drift;
mod effect;
mod enable;
mod text_diff;

use drift::drift;
pub use effect::{Effect, Reset};
pub use enable::{enabled_in, plan_enable};
pub(crate) use text_diff::text_diff;

/// The files that all sessions share, by their paths below BIRD's directory.
pub type BaseFiles = Texts;

/// Plans a session's file.
pub(crate) fn fragment(name: &str, want: &str, have: Option<&str>) -> Option<Step> {
    if have == Some(want) {
        return None;
    }
    let action = Action::WriteFragment {
        name: name.to_owned(),
        text: want.into(),
        effect: have
            .map(|have| Effect::between(have, want))
            .unwrap_or_default(),
    };
    let because = have.map_or_else(
        || Drift::missing("bird.session", "its file"),
        |have| drift(want, have),
    );
    Some(Step { action, because })
}

pub(super) fn removal(name: &str, have: Option<&str>) -> Option<Step> {
    have?;
    let because = Drift::surplus("bird.session", "its file");
    Some(Step {
        action: Action::RemoveFragment {
            name: name.to_owned(),
        },
        because,
    })
}

/// Plans the changes from the shared files on disk to the wanted ones.
pub fn plan_base(want: &BaseFiles, have: &BaseFiles) -> Plan {
    // Of a thousand sessions each plans the shared files; at a start none of them is there.
    let named = LazyCell::new(|| effect::named_by_sessions(want));
    let mut plan = Plan::default();
    plan.extend(want.iter().filter_map(|(path, text)| {
        let there = have.get(path).map(|text| &**text);
        if there == Some(&**text) {
            return None;
        }
        let effect = there
            .map(|there| Effect::of_shared(there, text, &named))
            .unwrap_or_default();
        let because = match there {
            Some(there) => Drift {
                field: "bird.file",
                ..drift(text, there)
            },
            None => Drift::missing("bird.file", path),
        };
        Some(Step {
            action: Action::WriteBase {
                path: path.clone(),
                text: text.clone(),
                effect,
            },
            because,
        })
    }));
    plan.extend(
        have.keys()
            .filter(|path| !want.contains_key(*path))
            .map(|path| Step {
                action: Action::RemoveBase { path: path.clone() },
                because: Drift::surplus("bird.file", path),
            }),
    );
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_bird_text_names_its_effect_on_the_session() {
        let text = |hold: u8| format!("protocol bgp a {{\n  hold time {hold};\n}}\n");
        let step = fragment("a", &text(90), Some(&text(60))).unwrap();
        assert_eq!(
            step.to_string(),
            "write BIRD session a, which restarts a (hold time) \
             (bird.session: want hold time 90;, have hold time 60;)"
        );
    }

    #[test]
    fn equal_texts_need_nothing() {
        assert!(fragment("a", "x", Some("x")).is_none());
        assert!(removal("a", None).is_none());
        let files = BaseFiles::from([("bird.conf".into(), "x".into())]);
        assert!(plan_base(&files, &files).is_empty());
    }
}
