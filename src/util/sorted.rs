//! Collects into maps and sets of the standard library, which sorts before it builds one: 4 kB of code for each type.

use std::collections::{BTreeMap, BTreeSet};

/// Collects by insertion, whose code the map or set has anyway.
pub(crate) trait Sorted: Iterator + Sized {
    /// Returns a map; of equal keys the last value counts.
    fn sorted_map<K: Ord, V>(self) -> BTreeMap<K, V>
    where
        Self: Iterator<Item = (K, V)>,
    {
        let mut map = BTreeMap::new();
        map.extend(self);
        map
    }

    fn sorted_set(self) -> BTreeSet<Self::Item>
    where
        Self::Item: Ord,
    {
        let mut set = BTreeSet::new();
        set.extend(self);
        set
    }
}

impl<I: Iterator> Sorted for I {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_and_sets_equal_collected_ones() {
        let items = [(3, 'a'), (1, 'b'), (3, 'c'), (2, 'd')];
        assert_eq!(items.into_iter().sorted_map(), BTreeMap::from(items));
        assert_eq!(items.into_iter().sorted_set(), BTreeSet::from(items));
    }
}
