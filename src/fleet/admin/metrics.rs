//! Metrics for Prometheus, built for each scrape.

use jiff::Timestamp;
use prometheus::{GaugeVec, Opts};

use super::super::GitView;
use super::super::overview::RouterView;
use crate::http::{ApiError, Metric, Registry};

/// Returns the metrics of a fleet.
///
/// # Errors
/// A fault of this program: a metric is declared twice.
pub(super) fn text(
    routers: &[RouterView],
    is_refused: bool,
    git: Option<&GitView>,
) -> Result<String, ApiError> {
    let registry = filled(routers, is_refused, git);
    let registry = registry.map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(registry.text())
}

/// Returns every metric, by name.
///
/// # Errors
/// A fault of this program: a metric is declared twice.
pub(crate) fn all() -> prometheus::Result<Vec<Metric>> {
    Ok(filled(&[], false, None)?.metrics())
}

fn filled(
    routers: &[RouterView],
    is_refused: bool,
    git: Option<&GitView>,
) -> prometheus::Result<Registry> {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str, labels: &[&str]| gauge(&registry, name, help, labels);
    let router = ["router"];
    let fleet = gauge("moenet_fleet_routers", "Routers of the fleet.", &[])?;
    let about = "Time of the newest post of a router; 0 before its first one, absent while its posts cannot be read.";
    let seen = gauge("moenet_fleet_last_seen_timestamp_seconds", about, &router)?;
    let about = "Sessions and tunnels of a router by the state in its newest report.";
    let states = gauge("moenet_fleet_sessions", about, &["router", "state"])?;
    let about = "Whether a router is drained.";
    let drained = gauge("moenet_fleet_drained", about, &router)?;
    let about = "Changes of a router that wait for an operator.";
    let held = gauge("moenet_fleet_held", about, &router)?;
    let about = "Whether files of a router have an error, or its posts cannot be read; without a router: whether the newest \
                 description of the network is not served.";
    let errors = gauge("moenet_fleet_unreadable", about, &router)?;
    let flag = |set: bool| f64::from(u8::from(set));
    fleet
        .with_label_values::<&str>(&[])
        .set(routers.len() as f64);
    errors.with_label_values(&[""]).set(flag(is_refused));
    let about = "Whether the newest commit of the followed Git reference is not served.";
    let refused = gauge("moenet_fleet_commit_refused", about, &[])?;
    if let Some(git) = git {
        refused
            .with_label_values::<&str>(&[])
            .set(flag(!git.errors.is_empty()));
    }
    for view in routers {
        let name = [view.router.as_str()];
        errors
            .with_label_values(&name)
            .set(flag(view.problems().next().is_some()));
        if view.error.is_some() && view.last_seen.is_none() {
            // Its posts are not known: it is not a router that never posted.
            continue;
        }
        let at = view.last_seen.map_or(0, Timestamp::as_second);
        seen.with_label_values(&name).set(at as f64);
        drained.with_label_values(&name).set(flag(view.drained));
        held.with_label_values(&name).set(view.held as f64);
        for (state, count) in view.states() {
            let labels = [view.router.as_str(), state];
            states.with_label_values(&labels).set(count as f64);
        }
    }
    Ok(registry)
}

fn gauge(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<GaugeVec> {
    let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}
