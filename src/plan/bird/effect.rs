//! The effect of a new text on running BGP sessions, as measured on 2.0.12, 2.17, 2.20, 3.1 and 3.4: a session is
//! kept when only filters, limits, preferences or its description change, and restarts for every other change.
//! Unmeasured changes count as a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Deref;

use super::BaseFiles;
use crate::observed::bird::outline::{Block, CHANNELS, Outline, Statement};
use crate::util::sorted::Sorted as _;

/// Statements of a session that can change without a restart, by their first words.
const KEPT: [&[&str]; 4] = [&["description"], &["debug"], &["check", "link"], &["bfd"]];
/// The same for statements of a channel.
const KEPT_IN_CHANNEL: [&[&str]; 13] = [
    &["import", "filter"],
    &["import", "where"],
    &["import", "all"],
    &["import", "none"],
    &["import", "limit"],
    &["receive", "limit"],
    &["export", "filter"],
    &["export", "where"],
    &["export", "all"],
    &["export", "none"],
    &["export", "limit"],
    &["preference"],
    &["next", "hop", "self"],
];

/// The effect of loading a text on sessions; empty for one that only reloads routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    sessions: BTreeMap<Reset, Hit>,
}

/// BGP sessions that a step takes down, at least for a moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reset {
    Every,
    /// The sessions of a template.
    OfTemplate(String),
    /// One session, by its name in BIRD.
    Named(String),
    /// The sessions in a link that is replaced.
    InLink(String),
}

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every => f.write_str("every BGP session"),
            Self::OfTemplate(name) => write!(f, "every session of {name}"),
            Self::Named(name) | Self::InLink(name) => f.write_str(name),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hit {
    /// It goes down and comes back, because of these options.
    Restarts(BTreeSet<String>),
    /// It goes down and stays down, as the text says.
    Disabled,
    /// It no longer exists.
    Ends,
}

impl Effect {
    /// Returns the effect of one session's new text.
    pub(super) fn between(old: &str, new: &str) -> Self {
        let (old, new) = (Outline::of(old), Outline::of(new));
        let sessions = bgp(&old).filter_map(|before| {
            let after = bgp(&new).find(|after| is_same(before, after));
            Some((who(before)?, hit(before, after)?))
        });
        Self {
            sessions: sessions.sorted_map(),
        }
    }

    /// Returns the effect of a new text that all sessions share. `named` are the words in sessions outside their
    /// filters, which only a changed constant needs: one among them has the effect of a changed value.
    pub(super) fn of_shared(
        old: &str,
        new: &str,
        named: &impl Deref<Target = BTreeSet<String>>,
    ) -> Self {
        let mut effect = Self::between(old, new);
        let (old, new) = (Outline::of(old), Outline::of(new));
        let changed: BTreeSet<_> = differing(&old.globals, &new.globals)
            .filter_map(|s| global(s, named))
            .sorted_set();
        if !changed.is_empty() {
            effect.sessions.insert(Reset::Every, Hit::Restarts(changed));
        }
        effect
    }
}

impl Effect {
    /// Returns the sessions that go down.
    pub(crate) fn resets(&self) -> impl Iterator<Item = &Reset> {
        self.sessions.keys()
    }
}

/// Formats as `, which restarts a (hold time) and ends b`; empty without an effect.
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (session, hit)) in self.sessions.iter().enumerate() {
            f.write_str(if number == 0 { ", which " } else { " and " })?;
            match hit {
                Hit::Restarts(options) => {
                    let options: Vec<_> = options.iter().map(String::as_str).collect();
                    write!(f, "restarts {session} ({})", options.join(", "))?;
                }
                Hit::Disabled => write!(f, "takes {session} down")?,
                Hit::Ends => write!(f, "ends {session}")?,
            }
        }
        Ok(())
    }
}

/// Returns the words in sessions and their templates, except in filters.
pub(super) fn named_by_sessions(files: &BaseFiles) -> BTreeSet<String> {
    let outlines: Vec<_> = files.values().map(|text| Outline::of(text)).collect();
    let statements = outlines
        .iter()
        .flat_map(bgp)
        .flat_map(|block| &block.statements);
    let words = statements
        .filter(|statement| !is_kept(statement))
        .flat_map(|statement| &statement.words);
    words.map(|word| (*word).to_owned()).sorted_set()
}

fn bgp<'o, 'a>(outline: &'o Outline<'a>) -> impl Iterator<Item = &'o Block<'a>> {
    outline.blocks.iter().filter(|block| block.class == "bgp")
}

fn is_same(before: &Block<'_>, after: &Block<'_>) -> bool {
    (before.is_template, before.name) == (after.is_template, after.name)
}

fn who(block: &Block<'_>) -> Option<Reset> {
    let name = block.name?.to_owned();
    Some(match block.is_template {
        true => Reset::OfTemplate(name),
        false => Reset::Named(name),
    })
}

fn hit(before: &Block<'_>, after: Option<&Block<'_>>) -> Option<Hit> {
    let Some(after) = after else {
        return (!before.is_template).then_some(Hit::Ends);
    };
    let is_disabled = |block: &Block<'_>| block.statements.iter().any(|s| s.words == ["disabled"]);
    match (is_disabled(before), is_disabled(after)) {
        // It is already down, or comes up with this change.
        (true, _) => return None,
        (false, true) => return Some(Hit::Disabled),
        (false, false) => {}
    }
    let restart =
        differing(&before.statements, &after.statements).filter(|statement| !is_kept(statement));
    let options: BTreeSet<_> = restart.map(option).sorted_set();
    (!options.is_empty()).then_some(Hit::Restarts(options))
}

/// Returns the statements that one side has more often than the other.
fn differing<'s, 'a>(
    old: &'s [Statement<'a>],
    new: &'s [Statement<'a>],
) -> impl Iterator<Item = &'s Statement<'a>> {
    let surplus = |of: &'s [Statement<'a>], than: &'s [Statement<'a>]| {
        of.iter().filter(move |statement| !than.contains(statement))
    };
    surplus(old, new).chain(surplus(new, old))
}

fn is_kept(statement: &Statement<'_>) -> bool {
    let kept: &[&[&str]] = if statement.channel.is_some() {
        &KEPT_IN_CHANNEL
    } else {
        &KEPT
    };
    kept.iter().any(|words| statement.words.starts_with(words))
}

/// Returns the name of an option: its words up to the first value. The word after `password` is never
/// shown.
fn option(statement: &Statement<'_>) -> String {
    let most = if statement.words.first() == Some(&"password") {
        1
    } else {
        4
    };
    let words = statement
        .words
        .iter()
        .take_while(|word| is_name(word))
        .take(most)
        .copied();
    statement
        .channel
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

fn is_name(word: &str) -> bool {
    let is_value = matches!(word, "on" | "off" | "yes" | "no");
    !is_value && (CHANNELS.contains(&word) || word.chars().all(|c| c.is_ascii_lowercase()))
}

/// Returns the part of a global statement that restarts every session: the router ID, and constants that sessions name.
fn global(
    statement: &Statement<'_>,
    named: &impl Deref<Target = BTreeSet<String>>,
) -> Option<String> {
    match statement.words.as_slice() {
        ["router", "id", ..] => Some("router id".to_owned()),
        ["hostname", ..] => Some("hostname".to_owned()),
        ["define", name, ..] if named.contains(*name) => Some((*name).to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "protocol bgp a from t { description \"x\"; neighbor fe80::1 as 1; hold time 90; \
                           password \"one\"; ipv4 { import table on; import limit 9 action block; \
                           import filter { link(1, 2); accept; }; }; }";

    fn told(from: &str, to: &str) -> String {
        Effect::between(SESSION, &SESSION.replace(from, to)).to_string()
    }

    #[test]
    fn what_only_reloads_routes_is_no_effect() {
        for (from, to) in [
            ("link(1", "link(2"),
            ("limit 9", "limit 8"),
            ("\"x\"", "\"y\""),
            (" action block", ""),
        ] {
            assert_eq!(told(from, to), "", "{from} became {to}");
        }
        assert_eq!(
            Effect::between("", SESSION).to_string(),
            "",
            "a new session disturbs no other"
        );
    }

    #[test]
    fn what_restarts_a_session_is_named_without_its_value() {
        assert_eq!(
            told("hold time 90", "hold time 60"),
            ", which restarts a (hold time)"
        );
        assert_eq!(told("\"one\"", "\"two\""), ", which restarts a (password)");
        assert_eq!(told("as 1", "as 2"), ", which restarts a (neighbor)");
        assert_eq!(
            told("import table on; ", ""),
            ", which restarts a (ipv4 import table)"
        );
        assert_eq!(
            told("from t", "from u"),
            ", which restarts a (from t, from u)"
        );
        let more = SESSION.replace("ipv4 {", "ipv6 { import all; }; ipv4 {");
        assert_eq!(
            Effect::between(SESSION, &more).to_string(),
            ", which restarts a (ipv6)"
        );
    }

    #[test]
    fn a_session_that_goes_down_is_told() {
        assert_eq!(
            told("hold time", "disabled; hold time"),
            ", which takes a down"
        );
        assert_eq!(told("bgp a", "bgp b"), ", which ends a");
        let disabled = SESSION.replace("hold time", "disabled; hold time");
        assert_eq!(Effect::between(&disabled, SESSION).to_string(), "");
    }

    #[test]
    fn what_all_sessions_share_hits_all_of_them() {
        let files = BaseFiles::from([(
            "bgp.conf".into(),
            "template bgp t { local as OURS; }".into(),
        )]);
        let named = Box::new(named_by_sessions(&files));
        let told = |old: &str, new: &str| Effect::of_shared(old, new, &named).to_string();
        assert_eq!(
            told("define OURS = 1;", "define OURS = 2;"),
            ", which restarts every BGP session (OURS)"
        );
        assert_eq!(told("define OTHER = 1;", "define OTHER = 2;"), "");
        assert_eq!(
            told("router id 1.1.1.1;", "router id 1.1.1.2;"),
            ", which restarts every BGP session (router id)"
        );
        let template = |hold: u8| format!("template bgp t {{ hold time {hold}; }}");
        assert_eq!(
            told(&template(1), &template(2)),
            ", which restarts every session of t (hold time)"
        );
        assert_eq!(told("", &template(2)), "");
    }
}
