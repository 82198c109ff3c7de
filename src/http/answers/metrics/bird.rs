//! BIRD, and how far the origins of routes can be validated.

use super::Registry;

use super::super::LocalApi;
use super::{gauge, gauges, signed};

pub(super) fn bird(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let bird = api.context.observer.last_bird();
    gauge(
        registry,
        "moenet_agent_bird_up",
        "1 while BIRD answers on its socket",
        i64::from(bird.is_running()),
    )?;
    origins(api, registry)
}

/// How far the origins of routes can be validated.
fn origins(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let of = api.context.desired().origins;
    let now = api
        .sources
        .roas
        .facts()
        .under(of.servers, of.rejects_unknown);
    let roas = gauges(
        registry,
        "moenet_agent_roas",
        "Route origin authorisations",
        &["source", "family"],
    )?;
    for (source, count) in [("rpki", now.roas.live), ("cache", now.roas.kept)] {
        roas.with_label_values(&[source, "ipv4"])
            .set(signed(count.ipv4 as u64));
        roas.with_label_values(&[source, "ipv6"])
            .set(signed(count.ipv6 as u64));
    }
    let servers = gauges(
        registry,
        "moenet_agent_rpki_servers",
        "RPKI servers of the policy",
        &["state"],
    )?;
    servers
        .with_label_values(&["listed"])
        .set(signed(now.servers as u64));
    servers
        .with_label_values(&["answering"])
        .set(signed(now.roas.answering.unwrap_or(0) as u64));
    let alarm = now.verdict().is_alarm();
    gauge(
        registry,
        "moenet_agent_roa_alarm",
        "1 while the ROA table is empty or nearly empty",
        i64::from(alarm),
    )
}
