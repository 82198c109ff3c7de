use std::collections::BTreeSet;

use crate::config::MaxRemovals;

/// Which removals may go now. Absence is proved only by a complete listing, and even then more than a
/// few at once wait for a human (semantics, section 6, rule 1).
///
/// `absent` are the objects that are in force and that no document wants; `total` is how many are in
/// force; `approved` are those that `moenet-agent approve` let pass.
pub(super) fn held<K: Ord + Clone>(
    absent: &BTreeSet<K>,
    approved: &BTreeSet<K>,
    total: usize,
    limit: MaxRemovals,
    complete: bool,
) -> Held<K> {
    if !complete {
        return Held { keys: absent.clone(), why: "the state directory cannot be listed completely" };
    }
    let waiting: BTreeSet<K> = absent.difference(approved).cloned().collect();
    let keys = if waiting.len() > limit.of(total) { waiting } else { BTreeSet::new() };
    Held { keys, why: "more removals at once than guard.maxRemovals; `moenet-agent approve` lets them pass" }
}

/// Removals that must wait, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held<K> {
    /// The objects.
    pub(super) keys: BTreeSet<K>,
    /// Why.
    pub(super) why: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(n: u32) -> BTreeSet<u32> {
        (0..n).collect()
    }

    #[test]
    fn a_few_removals_pass_and_many_wait() {
        let limit = MaxRemovals::default();
        let none = BTreeSet::new();
        assert!(held(&keys(3), &none, 10, limit, true).keys.is_empty());
        assert_eq!(held(&keys(4), &none, 10, limit, true).keys, keys(4));
        assert!(held(&keys(30), &none, 100, limit, true).keys.is_empty());
        assert_eq!(held(&keys(31), &none, 100, limit, true).keys, keys(31));
    }

    #[test]
    fn approved_removals_pass() {
        assert!(held(&keys(10), &keys(10), 10, MaxRemovals::default(), true).keys.is_empty());
    }

    #[test]
    fn nothing_is_removed_on_an_incomplete_listing() {
        assert_eq!(held(&keys(1), &keys(1), 10, MaxRemovals::Number(100), false).keys, keys(1));
    }
}
