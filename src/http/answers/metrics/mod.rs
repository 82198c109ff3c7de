//! Metrics for Prometheus (docs/contract/local-api.md#metrics). Built for each scrape, so that no
//! series of a removed session remains.

mod agent;
mod bird;
mod control_plane;
mod objects;
mod overrides;
mod process;

use prometheus::{GaugeVec, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::{LocalApi, counts};
use crate::controller::overrides::of as overrides_of;

pub(super) use process::Process;

pub(super) fn text(api: &LocalApi, process: Option<&Process>) -> String {
    let registry = Registry::new();
    let (desired, statuses) = (api.context.desired(), api.context.statuses.all());
    let counts = counts(&desired, |key| Some(statuses.get(key)?.phase));
    // Names and labels are constants here, so registration does not fail; a failed metric would be
    // missing, and a test checks each.
    let _ = objects::counted(&counts, &registry);
    let _ = objects::info(&desired, &registry);
    let _ = objects::statuses(&statuses, &registry);
    let _ = overrides::overridden(&overrides_of(&desired), &registry);
    let _ = agent::health(api, &desired, &statuses, &registry);
    let _ = agent::state(api, &registry);
    let _ = agent::work(api, &registry);
    let _ = agent::writes(api, &registry);
    let _ = agent::requests(&registry);
    let _ = bird::bird(api, &registry);
    let _ = control_plane::control_plane(api, &registry);
    let _ = process::process(process, &registry);
    TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap_or_default()
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}

fn real(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<GaugeVec> {
    let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}

fn gauge(registry: &Registry, name: &str, help: &str, value: i64) -> prometheus::Result<()> {
    let gauge = IntGauge::new(name, help)?;
    gauge.set(value);
    registry.register(Box::new(gauge))
}

fn counter(registry: &Registry, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
    let counter = IntCounter::new(name, help)?;
    counter.inc_by(value);
    registry.register(Box::new(counter))
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
