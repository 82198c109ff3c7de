use crate::document::{Continent, Location};

/// Pairs of continents with direct cables of moderate length between them; every other pair is far.
const NEIGHBOURS: [(Continent, Continent); 4] = [
    (Continent::Eu, Continent::As),
    (Continent::Eu, Continent::Na),
    (Continent::As, Continent::Na),
    (Continent::As, Continent::Oc),
];

/// Returns the neighbouring continents of one. `OTHER` has no neighbours.
pub(super) fn neighbouring(continent: Continent) -> Vec<u32> {
    let other = |(a, b): &(Continent, Continent)| match continent {
        c if c == *a => Some(b.number()),
        c if c == *b => Some(a.number()),
        _ => None,
    };
    NEIGHBOURS.iter().filter_map(other).collect()
}

/// Returns the region number: the configured one, else DN42's number of the subregion.
pub(super) fn region(location: &Location) -> Option<u32> {
    let given = location.region_code.filter(|code| *code != 0);
    given.or_else(|| location.subregion.map(|region| region.number().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_neighbours_is_mutual() {
        for a in Continent::ALL {
            for b in Continent::ALL {
                assert_eq!(
                    neighbouring(a).contains(&b.number()),
                    neighbouring(b).contains(&a.number())
                );
            }
            assert!(!neighbouring(a).contains(&a.number()));
        }
    }
}
