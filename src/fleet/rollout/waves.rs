//! Which routers a change concerns, and in which waves they get it.

use std::collections::BTreeSet;

use super::super::network::{MeshKeys, Network, RolloutSpec, Wave};
use crate::model::ObjectName;
use crate::util::sorted::Sorted as _;

/// Returns the routers of both descriptions that get other answers from the newer one. Sessions do not count: a
/// router's list of sessions concerns that router only, and is served at once.
pub(super) fn concerned(before: &Network, after: &Network) -> BTreeSet<ObjectName> {
    let keys = MeshKeys::default();
    let differs = |name: &ObjectName| {
        before.config(name) != after.config(name)
            || before.bird_config(name) != after.bird_config(name)
            || before.mesh(name, &keys) != after.mesh(name, &keys)
    };
    let both = after.routers().map(|(name, _)| name);
    let both = both.filter(|name| before.router(name).is_some());
    both.filter(|name| differs(name)).cloned().sorted_set()
}

/// Returns the routers of each wave, without empty waves.
pub(super) fn waves(spec: &RolloutSpec, concerned: &BTreeSet<ObjectName>) -> Vec<Vec<ObjectName>> {
    let mut left = concerned.clone();
    let mut waves = Vec::new();
    for wave in &spec.waves {
        let routers: Vec<ObjectName> = match wave {
            Wave::Routers(names) => names
                .iter()
                .filter(|name| left.contains(*name))
                .cloned()
                .collect(),
            Wave::Share(share) => {
                let reached = concerned.len() - left.len();
                let wanted = share.of(concerned.len()).saturating_sub(reached);
                left.iter().take(wanted).cloned().collect()
            }
        };
        for name in &routers {
            left.remove(name);
        }
        waves.push(routers);
    }
    waves.push(left.into_iter().collect());
    waves.retain(|wave| !wave.is_empty());
    waves
}
