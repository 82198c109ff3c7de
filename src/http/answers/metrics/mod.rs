//! Metrics for Prometheus (docs/contract/local-api.md#metrics). Built for each scrape, so that no
//! series of a removed session remains.

mod agent;
mod bird;
mod control_plane;
mod objects;
mod overrides;
mod process;

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{GaugeVec, IntCounter, IntGauge, IntGaugeVec, Opts, TextEncoder};

use super::{LocalApi, counts};
use crate::controller::overrides::of as overrides_of;

pub(super) use process::Process;

/// A metric, and what it means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Metric {
    pub(crate) name: String,
    /// `counter`, `gauge` or `histogram`.
    pub(crate) kind: &'static str,
    pub(crate) labels: Vec<String>,
    pub(crate) help: String,
}

/// The metrics of one scrape.
#[derive(Default)]
pub(crate) struct Registry {
    collectors: RefCell<Vec<(String, Box<dyn Collector>)>>,
    /// All of them, also those that have no series now.
    metrics: RefCell<Vec<Metric>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn register(&self, collector: Box<dyn Collector>) -> prometheus::Result<()> {
        let families = collector.collect();
        let kind = match families.first().map(MetricFamily::get_field_type) {
            Some(MetricType::COUNTER) => "counter",
            Some(MetricType::HISTOGRAM) => "histogram",
            _ => "gauge",
        };
        let metrics = collector.desc().into_iter().map(|about| Metric {
            name: about.fq_name.clone(),
            kind,
            labels: about.variable_labels.clone(),
            help: about.help.clone(),
        });
        let mut known = self.metrics.borrow_mut();
        let first = known.len();
        known.extend(metrics);
        let name = known.get(first).map(|metric| metric.name.clone());
        let mut collectors = self.collectors.borrow_mut();
        collectors.push((name.unwrap_or_default(), collector));
        Ok(())
    }

    /// Returns the text of all metrics, by name. The families of a thousand sessions are many times larger than their
    /// text, so each one is dropped before the next is made.
    pub(crate) fn text(self) -> String {
        let mut text = String::new();
        let mut collectors = self.collectors.into_inner();
        collectors.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (_, collector) in collectors {
            // It sorts the series.
            let family = prometheus::Registry::new();
            let _ = family.register(collector);
            let _ = TextEncoder::new().encode_utf8(&family.gather(), &mut text);
        }
        text
    }

    /// Returns every metric, by name.
    pub(crate) fn metrics(self) -> Vec<Metric> {
        let mut all = self.metrics.into_inner();
        all.sort();
        all
    }
}

pub(super) fn text(api: &LocalApi, process: Option<&Process>) -> String {
    filled(api, process).text()
}

/// Returns every metric, by name.
pub(super) fn all(api: &LocalApi, process: Option<&Process>) -> Vec<Metric> {
    filled(api, process).metrics()
}

fn filled(api: &LocalApi, process: Option<&Process>) -> Registry {
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
    registry
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
