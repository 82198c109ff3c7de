//! Metrics for Prometheus (docs/contract/local-api.md#metrics). Built for each scrape, so that no
//! series of a removed session remains.

use prometheus::{GaugeVec, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use serde_json::Value;

use super::status::{self, Statuses};
use super::{LocalApi, counts};
use crate::control_plane::State;
use crate::controller::{OverrideView, overrides};
use crate::document::{Kind, StatusBody};
use crate::status::Health;
use crate::util::version::{COMMIT, VERSION};
use crate::util::{exec, file, fs};

pub(super) fn text(api: &LocalApi) -> String {
    let registry = Registry::new();
    // Names and labels are constants here, so registration does not fail; a failed metric would be
    // missing, and a test checks each.
    let _ = sessions(api, &registry);
    let _ = objects(api, &registry);
    let _ = health(api, &registry);
    let _ = overridden(&overrides::of(&api.context.desired()), &registry);
    let _ = writes(api, &registry);
    let _ = work(api, &registry);
    let _ = process(&registry);
    let _ = state(api, &registry);
    let _ = origins(api, &registry);
    TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap_or_default()
}

fn sessions(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let desired = api.context.desired();
    let statuses = api.context.statuses.all();
    let counts = counts(&desired, |key| statuses.get(key).cloned());
    let by_status = gauges(
        registry,
        "moenet_agent_sessions_total",
        "Total BGP sessions",
        &["status"],
    )?;
    for (word, count) in [
        ("active", counts.active),
        ("error", counts.error),
        ("pending", counts.pending),
    ] {
        by_status.with_label_values(&[word]).set(signed(count));
    }
    Ok(())
}

/// Health of the agent, and objects by phase.
fn health(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let (desired, statuses) = (api.context.desired(), api.context.statuses.all());
    let help = "1 for the status of the agent, as in /status";
    let by_status = gauges(registry, "moenet_agent_health", help, &["status"])?;
    let (now, _) = status::health(api, &desired, &statuses);
    for health in [Health::Ok, Health::Degraded, Health::Failed] {
        by_status
            .with_label_values(&[&health.to_string()])
            .set(i64::from(health == now));
    }
    by_phase(&statuses, registry)
}

fn by_phase(statuses: &Statuses, registry: &Registry) -> prometheus::Result<()> {
    let help = "Objects by kind and phase, as `get` shows them";
    let objects = gauges(registry, "moenet_agent_objects", help, &["kind", "phase"])?;
    for (key, status) in status::counted(statuses) {
        let object = key.to_string();
        let kind = object.split('/').next().unwrap_or_default();
        objects
            .with_label_values(&[kind, &status.phase.to_string()])
            .inc();
    }
    Ok(())
}

/// Overridden fields by session, with both values: as numbers where possible, and as labels of a
/// series whose value is always 1, the Prometheus convention for text. One series for each field
/// and value in effect, so their number is bounded by the operator's own overrides.
fn overridden(overrides: &[OverrideView], registry: &Registry) -> prometheus::Result<()> {
    let labels = ["session", "field"];
    let help = "1 for each field of the session that an override sets";
    let set = gauges(registry, "moenet_agent_session_overridden", help, &labels)?;
    let help = "Values of overridden fields that are numbers: here, and as the document says";
    let name = "moenet_agent_session_overridden_value";
    let values = GaugeVec::new(Opts::new(name, help), &["session", "field", "source"])?;
    registry.register(Box::new(values.clone()))?;
    let help = "Always 1; the overridden field's value here, and as the document says";
    let info_labels = ["session", "field", "here", "document"];
    let info = gauges(
        registry,
        "moenet_agent_session_overridden_info",
        help,
        &info_labels,
    )?;
    let help = "Fields of the session that an override sets";
    let count = gauges(
        registry,
        "moenet_agent_session_overridden_fields",
        help,
        &["session"],
    )?;
    let help = "1 while an override pauses the session";
    let paused = gauges(registry, "moenet_agent_session_paused", help, &["session"])?;
    let help = "When the override of the session expires";
    let ends = gauges(
        registry,
        "moenet_agent_session_override_expires_timestamp_seconds",
        help,
        &["session"],
    )?;
    for one in overrides {
        // As in all other series: a session by its name, other objects with their kind.
        let session = one.object.strip_prefix("sessions/").unwrap_or(&one.object);
        count
            .with_label_values(&[session])
            .set(signed(one.fields.len() as u64));
        paused
            .with_label_values(&[session])
            .set(i64::from(one.paused));
        if let Some(end) = one.expires_at {
            ends.with_label_values(&[session]).set(end.as_second());
        }
        for field in &one.fields {
            set.with_label_values(&[session, &field.field]).set(1);
            let (here, document) = (label(&field.value), label(&field.document));
            info.with_label_values(&[session, &field.field, &here, &document])
                .set(1);
            for (source, value) in [("here", &field.value), ("document", &field.document)] {
                if let Some(number) = number(value) {
                    values
                        .with_label_values(&[session, &field.field, source])
                        .set(number);
                }
            }
        }
    }
    Ok(())
}

fn objects(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let gauges = ObjectGauges::new(registry)?;
    for (key, status) in api.context.statuses.all() {
        match Kind::of(&key) {
            Some((Kind::BgpSession, name)) => gauges.set(name.as_str(), &status),
            Some(_) => gauges.set(&key.to_string(), &status),
            None => {}
        }
    }
    Ok(())
}

/// The series of each object.
struct ObjectGauges {
    up: IntGaugeVec,
    imported: IntGaugeVec,
    exported: IntGaugeVec,
    received: IntGaugeVec,
    sent: IntGaugeVec,
    rtt: GaugeVec,
    lost: GaugeVec,
}

impl ObjectGauges {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let labels = ["session"];
        let whole = |name: &str, help: &str| {
            let name = format!("moenet_agent_session_{name}");
            gauges(registry, &name, help, &labels)
        };
        let real = |name: &str, help: &str| {
            let name = format!("moenet_agent_session_{name}");
            let gauge = GaugeVec::new(Opts::new(name, help), &labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            up: whole("established", "1 while BGP is established")?,
            imported: whole("routes_imported", "Routes taken")?,
            exported: whole("routes_exported", "Routes announced")?,
            received: whole("received_bytes", "Bytes received in the tunnel")?,
            sent: whole("sent_bytes", "Bytes sent in the tunnel")?,
            rtt: real("rtt_seconds", "Round-trip time to the peer")?,
            lost: real("loss_ratio", "Share of lost echoes to the peer, 0 to 1")?,
        })
    }

    fn set(&self, name: &str, status: &StatusBody) {
        let whole = |gauge: &IntGaugeVec, value: i64| gauge.with_label_values(&[name]).set(value);
        if let Some(bgp) = &status.bgp {
            whole(&self.up, i64::from(bgp.state == "established"));
            whole(&self.imported, signed(bgp.routes_imported));
            whole(&self.exported, signed(bgp.routes_exported));
        }
        if let Some(tunnel) = &status.tunnel {
            whole(&self.received, signed(tunnel.rx_bytes));
            whole(&self.sent, signed(tunnel.tx_bytes));
        }
        if let Some(share) = status.loss {
            self.lost.with_label_values(&[name]).set(share);
        }
        if let Some(milliseconds) = status.rtt_ms {
            let gauge = self.rtt.with_label_values(&[name]);
            gauge.set(milliseconds / 1000.0);
        }
    }
}

/// Counters of the agent's changes since its start; all are constant while nothing changes.
fn writes(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let bird = api.committer.counters();
    counter(
        registry,
        "moenet_agent_netlink_writes_total",
        "Changes requested from the kernel",
        api.kernel_counters.total(),
    )?;
    counter(
        registry,
        "moenet_agent_firewall_writes_total",
        "Changes requested from nftables",
        api.context.firewall.writes(),
    )?;
    counter(
        registry,
        "moenet_agent_bird_reloads_total",
        "Configurations loaded into BIRD",
        bird.configures(),
    )?;
    counter(
        registry,
        "moenet_agent_bird_file_writes_total",
        "Files written for BIRD",
        bird.writes(),
    )?;
    counter(
        registry,
        "moenet_agent_bird_checks_total",
        "Configurations checked with bird -p",
        bird.checks(),
    )?;
    counter(
        registry,
        "moenet_agent_state_writes_total",
        "Files written in the state directory",
        api.context.store.writes(),
    )?;
    let calls = api
        .sync
        .as_ref()
        .map(|sync| sync.client.counters().snapshot())
        .unwrap_or_default();
    let opts = Opts::new(
        "moenet_agent_control_plane_requests_total",
        "Requests to the Control Plane, by outcome",
    );
    let requests = prometheus::IntCounterVec::new(opts, &["outcome"])?;
    registry.register(Box::new(requests.clone()))?;
    for (word, count) in calls {
        requests.with_label_values(&[word]).inc_by(count);
    }
    Ok(())
}

/// Counters of the process: what it asks the system for.
fn process(registry: &Registry) -> prometheus::Result<()> {
    counter(
        registry,
        "moenet_agent_fsyncs_total",
        "Flushes of files, directories and file systems to the disk by the agent itself",
        file::flushes(),
    )?;
    counter(
        registry,
        "moenet_agent_files_opened_total",
        "Files and directories opened",
        fs::opened(),
    )?;
    counter(
        registry,
        "moenet_agent_programs_total",
        "Programs started, such as bird -p and git",
        exec::started(),
    )
}

/// Counters of the controller's work.
fn work(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let pulse = &api.context.pulse;
    let (passes, plans) = pulse.counts();
    counter(
        registry,
        "moenet_agent_desired_builds_total",
        "Builds of the desired state",
        pulse.builds(),
    )?;
    counter(
        registry,
        "moenet_agent_observations_total",
        "Observations of the whole kernel",
        api.context.observer.observations(),
    )?;
    counter(
        registry,
        "moenet_agent_passes_total",
        "Passes of the controller, each with one observation",
        passes,
    )?;
    counter(
        registry,
        "moenet_agent_plans_total",
        "Plans of one object each, made in passes",
        plans,
    )
}

fn state(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let info = gauges(
        registry,
        "moenet_agent_build_info",
        "Version and commit",
        &["version", "commit"],
    )?;
    info.with_label_values(&[VERSION, COMMIT]).set(1);
    breakers(api, registry)?;
    calls(api, registry)?;
    gauge(
        registry,
        "moenet_agent_held_changes",
        "Changes that wait for moenet-agent approve",
        signed(api.context.held().len() as u64),
    )?;
    counter(
        registry,
        "moenet_agent_log_lines_dropped_total",
        "Log lines that could not be written",
        crate::telemetry::lost_lines(),
    )?;
    let drained = api.context.desired().maintenance.enabled;
    gauge(
        registry,
        "moenet_agent_maintenance",
        "1 while the router is drained",
        i64::from(drained),
    )?;
    let uptime = api.started.elapsed().as_secs();
    gauge(
        registry,
        "moenet_agent_uptime_seconds",
        "Since the agent started",
        signed(uptime),
    )?;
    let outbox = api.sync.as_ref().and_then(|sync| sync.outbox.as_ref());
    let waiting = outbox.map_or(0, |outbox| outbox.waiting() as u64);
    gauge(
        registry,
        "moenet_agent_outbox_pending",
        "Reports not acknowledged yet",
        signed(waiting),
    )?;
    let troubled = i64::from(api.context.store.trouble().is_some());
    let help = "1 while the state directory cannot be read or written";
    gauge(registry, "moenet_agent_state_broken", help, troubled)?;
    let broken = api.context.history_problem().is_some();
    gauge(
        registry,
        "moenet_agent_history_broken",
        "1 while the history cannot be written",
        i64::from(broken),
    )
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

/// Maximum length of a value in a label, in characters.
const LABEL: usize = 80;

/// Formats a value as a label: one line of bounded length.
fn label(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let mut kept: String = text
        .chars()
        .take(LABEL)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(LABEL).is_some() {
        kept.push('…');
    }
    kept
}

/// Returns a value as a gauge; `None` for texts.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(on) => Some(f64::from(u8::from(*on))),
        value => value.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::OverriddenField;
    use crate::document::Phase;
    use crate::model::ObjectKey;
    use serde_json::json;

    #[test]
    fn only_numbers_and_switches_are_gauges() {
        assert_eq!(number(&json!(1380)), Some(1380.0));
        assert_eq!(number(&json!(true)), Some(1.0));
        for text in [json!("1380"), json!(null), json!(["a"])] {
            assert_eq!(number(&text), None, "{text}");
        }
    }

    #[test]
    fn objects_are_counted_by_kind_and_phase() {
        let with = |phase| StatusBody {
            phase,
            ..StatusBody::default()
        };
        let key = |kind: Kind, name: &str| kind.key(&name.parse().unwrap());
        let statuses = Statuses::from([
            (key(Kind::BgpSession, "wg_1"), with(Phase::Established)),
            (key(Kind::BgpSession, "wg_2"), with(Phase::Established)),
            (key(Kind::MeshPeer, "hk1"), with(Phase::Error)),
            (ObjectKey::Router, with(Phase::Configured)),
            (ObjectKey::Firewall, with(Phase::Configured)),
        ]);
        let registry = Registry::new();
        by_phase(&statuses, &registry).unwrap();
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let series: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            series,
            [
                r#"moenet_agent_objects{kind="mesh",phase="Error"} 1"#,
                r#"moenet_agent_objects{kind="node",phase="Configured"} 1"#,
                r#"moenet_agent_objects{kind="sessions",phase="Established"} 2"#,
            ]
        );
    }

    #[test]
    fn an_override_shows_both_values_as_numbers_and_as_labels() {
        let field = |field: &str, value, document| OverriddenField {
            field: field.into(),
            value,
            document,
        };
        let one = OverrideView {
            object: "sessions/wg_1".into(),
            reason: "a \"reason\"".into(),
            expires_at: "2027-01-31T00:00:00Z".parse().ok(),
            paused: false,
            fields: vec![
                field("spec.tunnel.mtu", json!(1380), json!(1420)),
                field("spec.tunnel.endpoint", json!("198.51.100.7:1"), json!(null)),
                field(
                    "spec.description",
                    json!(format!("\"a\nb\" {}", "c".repeat(500))),
                    json!("d"),
                ),
            ],
        };
        let registry = Registry::new();
        overridden(&[one], &registry).unwrap();
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            r#"moenet_agent_session_overridden{field="spec.tunnel.mtu",session="wg_1"} 1"#,
            r#"moenet_agent_session_overridden{field="spec.tunnel.endpoint",session="wg_1"} 1"#,
            r#"moenet_agent_session_overridden_value{field="spec.tunnel.mtu",session="wg_1",source="here"} 1380"#,
            r#"moenet_agent_session_overridden_value{field="spec.tunnel.mtu",session="wg_1",source="document"} 1420"#,
            r#"moenet_agent_session_overridden_info{document="1420",field="spec.tunnel.mtu",here="1380",session="wg_1"} 1"#,
            r#"moenet_agent_session_overridden_info{document="",field="spec.tunnel.endpoint",here="198.51.100.7:1",session="wg_1"} 1"#,
            r#"moenet_agent_session_overridden_fields{session="wg_1"} 3"#,
            r#"moenet_agent_session_paused{session="wg_1"} 0"#,
            r#"moenet_agent_session_override_expires_timestamp_seconds{session="wg_1"} 1801353600"#,
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no {line} in\n{text}"
            );
        }
        assert!(!text.contains("reason"), "{text}");
        assert!(
            text.contains(r#"here="\"a b\" ccc"#) && !text.contains(&"c".repeat(100)),
            "{text}"
        );
        assert_eq!(text.matches("overridden_value{").count(), 2, "{text}");
    }
}
