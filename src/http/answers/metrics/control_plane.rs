//! Calls to the Control Plane.

use prometheus::{IntCounterVec, Opts};

use super::Registry;

use super::super::LocalApi;
use super::{gauge, gauges, signed};
use crate::control_plane::State;

pub(super) fn control_plane(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    breakers(api, registry)?;
    calls(api, registry)?;
    requests(api, registry)?;
    let outbox = api.sync.as_ref().and_then(|sync| sync.outbox.as_ref());
    let waiting = outbox.map_or(0, |outbox| outbox.waiting() as u64);
    gauge(
        registry,
        "moenet_agent_outbox_pending",
        "Reports not acknowledged yet",
        signed(waiting),
    )
}

/// Requests by outcome: `ok`, or the class of the error.
fn requests(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let calls = api
        .sync
        .as_ref()
        .map(|sync| sync.client.counters().snapshot())
        .unwrap_or_default();
    let opts = Opts::new(
        "moenet_agent_control_plane_requests_total",
        "Requests to the Control Plane, by outcome",
    );
    let requests = IntCounterVec::new(opts, &["outcome"])?;
    registry.register(Box::new(requests.clone()))?;
    for (word, count) in calls {
        requests.with_label_values(&[word]).inc_by(count);
    }
    Ok(())
}

fn breaker(
    registry: &Registry,
    name: &str,
    help: &str,
    now: Option<State>,
) -> prometheus::Result<()> {
    let breaker = gauges(registry, name, help, &["state"])?;
    for state in [State::Closed, State::Open, State::HalfOpen] {
        let is_now = now.unwrap_or(State::Closed) == state;
        breaker
            .with_label_values(&[&state.to_string()])
            .set(i64::from(is_now));
    }
    Ok(())
}

/// The circuit breakers of the calls to the Control Plane.
fn breakers(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let client = api.sync.as_ref().map(|sync| &sync.client);
    let name = "moenet_agent_circuit_breaker";
    let help = "1 for the state of the fetches' breaker";
    let fetches = client.map(|client| client.breaker());
    breaker(registry, name, help, fetches)?;
    let name = "moenet_agent_post_circuit_breaker";
    let help = "1 for the state of the posts' breaker";
    let posts = client.map(|client| client.post_breaker());
    breaker(registry, name, help, posts)
}

/// Health of each call to the Control Plane.
fn calls(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let name = "moenet_agent_control_plane_last_success_timestamp_seconds";
    let help = "When the call to the Control Plane last succeeded, since the agent started";
    let success = gauges(registry, name, help, &["call"])?;
    let name = "moenet_agent_control_plane_consecutive_failures";
    let help = "How often the call to the Control Plane failed since it last succeeded";
    let failures = gauges(registry, name, help, &["call"])?;
    for (call, health) in api.calls.all() {
        let label = [call.word()];
        if let Some(at) = health.last_success {
            success.with_label_values(&label).set(at.as_second());
        }
        let count = u64::from(health.consecutive_failures);
        failures.with_label_values(&label).set(signed(count));
    }
    Ok(())
}
