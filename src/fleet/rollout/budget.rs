//! Whether a router may drain: how many are out of service already. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::network::Network;
use super::measure::Measure;
use super::record::FleetRecord;
use crate::intervals::FLEET_SILENT;
use crate::model::ObjectName;

/// Returns why a router must not drain now; `None` if it may.
pub(super) fn refusal(
    network: &Network,
    router: &ObjectName,
    record: &FleetRecord,
    measures: &BTreeMap<ObjectName, Measure>,
    now: Timestamp,
) -> Option<String> {
    let own = network.router(router)?;
    let budgets = network.budgets();
    let measure = |name: &ObjectName| measures.get(name).cloned().unwrap_or_default();
    let out = |name: &ObjectName| {
        let measure = measure(name);
        match (measure.drained, record.drains.contains_key(name)) {
            (true, _) => Some("is drained"),
            (_, true) => Some("is permitted to drain"),
            _ => (now.duration_since(measure.seen_at) > FLEET_SILENT).then_some("is silent"),
        }
    };
    let others = || network.routers().filter(|(name, _)| *name != router);
    if let (Some(most), Some(region)) = (budgets.out_per_region, &own.region) {
        let neighbours = others().filter(|(_, other)| other.region.as_ref() == Some(region));
        let out: Vec<String> = neighbours
            .filter_map(|(name, _)| Some(format!("{name} {}", out(name)?)))
            .collect();
        if out.len() >= most as usize {
            return Some(format!(
                "{} in region {region}, and budgets.outPerRegion is {most}",
                out.join(", ")
            ));
        }
    }
    let fewest = budgets.exits?;
    if !measure(router).is_exit {
        return None;
    }
    let exits: Vec<&ObjectName> = others()
        .map(|(name, _)| name)
        .filter(|name| out(name).is_none() && measure(name).is_exit)
        .collect();
    (exits.len() < fewest as usize).then(|| {
        let left = match &exits[..] {
            [] => "no exit".to_owned(),
            exits => exits
                .iter()
                .map(|name| name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        };
        format!("the own prefixes would keep {left}, and budgets.exits is {fewest}")
    })
}
