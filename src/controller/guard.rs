use std::collections::BTreeSet;

use crate::config::MaxRemovals;
use crate::document::Kind;
use crate::model::ObjectName;

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
        let why = "the state directory is new, or a folder of it is missing or cannot be read, so that a \
                   document that is not there may still be wanted; a complete list from the Control Plane \
                   or `moenet-agent approve` settles it";
        return Held {
            keys: absent.clone(),
            why: why.to_owned(),
        };
    }
    let waiting: BTreeSet<K> = absent.difference(approved).cloned().collect();
    let (number, limit) = (waiting.len(), limit.of(total));
    let why = format!(
        "{number} of the {total} in force would go at once, and guard.maxRemovals lets {limit} go; \
         `moenet-agent approve` lets them pass"
    );
    Held {
        keys: if number > limit {
            waiting
        } else {
            BTreeSet::new()
        },
        why,
    }
}

/// The names of this kind among the approved objects.
pub(super) fn approved(objects: &BTreeSet<String>, kind: Kind) -> BTreeSet<ObjectName> {
    let named = |object: &String| {
        object
            .strip_prefix(kind.folder())?
            .strip_prefix('/')?
            .parse()
            .ok()
    };
    objects.iter().filter_map(named).collect()
}

/// Removals that must wait, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held<K> {
    /// The objects.
    pub(super) keys: BTreeSet<K>,
    /// Why.
    pub(super) why: String,
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
        assert!(
            held(&keys(10), &keys(10), 10, MaxRemovals::default(), true)
                .keys
                .is_empty()
        );
    }

    #[test]
    fn an_approval_is_for_objects_of_its_kind() {
        let objects = ["sessions/a", "mesh/b", "a", "orphan/c"]
            .map(str::to_owned)
            .into();
        assert_eq!(
            approved(&objects, Kind::BgpSession),
            BTreeSet::from(["a".parse().unwrap()])
        );
        assert_eq!(
            approved(&objects, Kind::MeshPeer),
            BTreeSet::from(["b".parse().unwrap()])
        );
    }

    #[test]
    fn nothing_is_removed_on_an_incomplete_listing() {
        assert_eq!(
            held(&keys(1), &keys(1), 10, MaxRemovals::Number(100), false).keys,
            keys(1)
        );
    }
}
