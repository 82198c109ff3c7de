//! Protocols that a command disabled (`birdc disable`) and that the agent's files define.

use std::collections::BTreeSet;

use crate::observed::bird::Protocol;
use crate::observed::bird::outline::{Block, Outline};
use crate::plan::{Action, Drift, Step};
use crate::util::sorted::Sorted as _;

/// Returns the names of the protocols that texts define, except those that the text itself disables.
pub fn enabled_in<'a>(texts: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let named = |block: &Block<'_>| block.name.map(str::to_owned);
    let of = |text| -> Vec<String> {
        let blocks = Outline::of(text).blocks;
        let mut wanted: Vec<_> = blocks.iter().filter(|block| !block.is_template).collect();
        wanted.retain(|block| !is_disabled(block));
        wanted.into_iter().filter_map(named).collect()
    };
    texts.into_iter().flat_map(of).sorted_set()
}

fn is_disabled(block: &Block<'_>) -> bool {
    let mut statements = block.statements.iter().filter(|s| s.channel.is_none());
    statements.any(|statement| match statement.words.as_slice() {
        ["disabled", rest @ ..] => !matches!(rest.first(), Some(&("no" | "off"))),
        _ => false,
    })
}

/// Enables those of these protocols that a command disabled. `pause` tells the operator how to keep one down.
pub fn plan_enable(wanted: &BTreeSet<String>, have: &[Protocol], pause: &str) -> Vec<Step> {
    let disabled = have
        .iter()
        .filter(|protocol| wanted.contains(&protocol.name) && protocol.is_disabled_by_command());
    let step = |protocol: &Protocol| Step {
        action: Action::EnableProtocol {
            name: protocol.name.clone(),
        },
        because: Drift::new(
            "bird.protocol",
            "enabled",
            format!("disabled by a command{pause}"),
        ),
    };
    disabled.map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabled_text_is_no_drift() {
        let text = "protocol bgp a { disabled; } protocol bgp b { disabled no; } template bgp t { } \
                    protocol device c { } protocol bgp d { disabled yes; }";
        let wanted: Vec<_> = enabled_in([text]).into_iter().collect();
        assert_eq!(wanted, ["b", "c"]);
    }
}
