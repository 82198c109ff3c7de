//! The objects, in one pass over their statuses.

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts};

use super::Registry;

use super::super::status::{Statuses, is_counted};
use super::{gauges, overrides::text_label, real, signed};
use crate::desired::{Desired, Wanted};
use crate::document::{BgpStatus, ConditionStatus, Kind, StatusBody, TunnelStatus};
use crate::http::SessionCounts;
use crate::model::ObjectKey;

/// Sessions by state, under the name of the API's reference.
pub(super) fn counted(counts: &SessionCounts, registry: &Registry) -> prometheus::Result<()> {
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

/// The texts of each session and backbone tunnel, as labels of a series whose value is always 1: other series are
/// joined with it by `session`.
pub(super) fn info(desired: &Desired, registry: &Registry) -> prometheus::Result<()> {
    let info = gauges(
        registry,
        "moenet_agent_session_info",
        "Always 1; the peer's AS number and description, and the name of the interface",
        &["session", "asn", "description", "interface"],
    )?;
    for object in desired.objects.values() {
        let (asn, description, interface) = match object.wanted() {
            Some(Wanted::Session(session, _)) => (
                session.asn.get().to_string(),
                text_label(&session.description),
                &session.tunnel.interface,
            ),
            Some(Wanted::Mesh(tunnel)) => (String::new(), String::new(), &tunnel.interface),
            Some(Wanted::Ibgp(_)) | None => continue,
        };
        let key = object.key();
        let labels = [&series(&key), &asn, &description, interface.as_str()];
        info.with_label_values(&labels).set(1);
    }
    Ok(())
}

pub(super) fn statuses(statuses: &Statuses, registry: &Registry) -> prometheus::Result<()> {
    let vectors = Vectors::new(registry)?;
    for (key, status) in statuses {
        if is_counted(key) {
            vectors.count(&key.to_string(), status);
        }
        if Kind::of(key).is_some() {
            vectors.set(&series(key), status);
        }
    }
    Ok(())
}

/// Returns the value of the label `session`: a session's name, and other objects with their kind.
fn series(key: &ObjectKey) -> String {
    match Kind::of(key) {
        Some((Kind::BgpSession, name)) => name.as_str().to_owned(),
        _ => key.to_string(),
    }
}

/// The series of each object.
struct Vectors {
    objects: IntGaugeVec,
    conditions: IntGaugeVec,
    established: IntGaugeVec,
    state: IntGaugeVec,
    since: IntGaugeVec,
    imported: IntGaugeVec,
    exported: IntGaugeVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    handshake: IntGaugeVec,
    rtt: GaugeVec,
    lost: GaugeVec,
}

impl Vectors {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let name = |name: &str| format!("moenet_agent_session_{name}");
        let whole = |word: &str, help: &str| gauges(registry, &name(word), help, &["session"]);
        let bytes = |word: &str, help: &str| {
            let counters = IntCounterVec::new(Opts::new(name(word), help), &["session"])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        Ok(Self {
            objects: gauges(
                registry,
                "moenet_agent_objects",
                "Objects by kind and phase, as `get` shows them",
                &["kind", "phase"],
            )?,
            conditions: gauges(
                registry,
                "moenet_agent_condition",
                "1 while the condition of the object is True, 0 while it is False; none while it is Unknown",
                &["object", "type"],
            )?,
            established: whole("established", "1 while BGP is established")?,
            state: gauges(
                registry,
                &name("bgp_state"),
                "1 for the state of the BGP session; other states have no series",
                &["session", "state"],
            )?,
            since: whole(
                "bgp_state_since_timestamp_seconds",
                "When the BGP session entered its state",
            )?,
            imported: whole("routes_imported", "Routes taken")?,
            exported: whole("routes_exported", "Routes announced")?,
            received: bytes("received_bytes_total", "Bytes received in the tunnel")?,
            sent: bytes("sent_bytes_total", "Bytes sent in the tunnel")?,
            handshake: whole(
                "last_handshake_timestamp_seconds",
                "When the tunnel's last handshake was",
            )?,
            rtt: real(
                registry,
                &name("rtt_seconds"),
                "Round-trip time to the peer",
                &["session"],
            )?,
            lost: real(
                registry,
                &name("loss_ratio"),
                "Share of lost echoes to the peer, 0 to 1",
                &["session"],
            )?,
        })
    }

    /// Counts the object, whose name is the key, and sets its conditions.
    fn count(&self, key: &str, status: &StatusBody) {
        let kind = key.split('/').next().unwrap_or_default();
        let phase = status.phase.to_string();
        self.objects.with_label_values(&[kind, &phase]).inc();
        for condition in &status.conditions {
            let value = match condition.status {
                ConditionStatus::True => 1,
                ConditionStatus::False => 0,
                ConditionStatus::Unknown => continue,
            };
            let about = format!("{:?}", condition.condition_type);
            self.conditions.with_label_values(&[key, &about]).set(value);
        }
    }

    fn set(&self, name: &str, status: &StatusBody) {
        if let Some(bgp) = &status.bgp {
            self.set_bgp(name, bgp);
        }
        if let Some(tunnel) = &status.tunnel {
            self.set_tunnel(name, tunnel);
        }
        if let Some(share) = status.loss {
            self.lost.with_label_values(&[name]).set(share);
        }
        if let Some(milliseconds) = status.rtt_ms {
            let gauge = self.rtt.with_label_values(&[name]);
            gauge.set(milliseconds / 1000.0);
        }
    }

    fn set_bgp(&self, name: &str, bgp: &BgpStatus) {
        let set = |gauge: &IntGaugeVec, value: i64| gauge.with_label_values(&[name]).set(value);
        set(&self.established, i64::from(bgp.state == "established"));
        set(&self.imported, signed(bgp.routes_imported));
        set(&self.exported, signed(bgp.routes_exported));
        self.state.with_label_values(&[name, &bgp.state]).set(1);
        if let Some(since) = bgp.since {
            set(&self.since, since.as_second());
        }
    }

    fn set_tunnel(&self, name: &str, tunnel: &TunnelStatus) {
        let labels = [name];
        let (received, sent) = (&self.received, &self.sent);
        received.with_label_values(&labels).inc_by(tunnel.rx_bytes);
        sent.with_label_values(&labels).inc_by(tunnel.tx_bytes);
        if let Some(at) = tunnel.last_handshake {
            let gauge = self.handshake.with_label_values(&labels);
            gauge.set(at.as_second());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Condition, ConditionType, Phase};
    use std::sync::Arc;

    fn series_of(registry: Registry) -> Vec<String> {
        let text = registry.text();
        let series = text.lines().filter(|line| !line.starts_with('#'));
        series.map(str::to_owned).collect()
    }

    fn key(kind: Kind, name: &str) -> ObjectKey {
        kind.key(&name.parse().unwrap())
    }

    #[test]
    fn objects_are_counted_by_kind_and_phase() {
        let with = |phase| {
            Arc::new(StatusBody {
                phase,
                ..StatusBody::default()
            })
        };
        let statuses = Statuses::from([
            (key(Kind::BgpSession, "wg_1"), with(Phase::Established)),
            (key(Kind::BgpSession, "wg_2"), with(Phase::Established)),
            (key(Kind::MeshPeer, "hk1"), with(Phase::Error)),
            (ObjectKey::Router, with(Phase::Configured)),
            (ObjectKey::Firewall, with(Phase::Configured)),
        ]);
        let registry = Registry::new();
        super::statuses(&statuses, &registry).unwrap();
        assert_eq!(
            series_of(registry),
            [
                r#"moenet_agent_objects{kind="mesh",phase="Error"} 1"#,
                r#"moenet_agent_objects{kind="node",phase="Configured"} 1"#,
                r#"moenet_agent_objects{kind="sessions",phase="Established"} 2"#,
            ]
        );
    }

    #[test]
    fn unknown_conditions_have_no_series() {
        let condition = |condition_type, status| Condition {
            condition_type,
            status,
            reason: "Word".to_owned(),
            message: String::new(),
            next_action: None,
            last_transition_time: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        let status = StatusBody {
            conditions: vec![
                condition(ConditionType::Accepted, ConditionStatus::True),
                condition(ConditionType::BgpEstablished, ConditionStatus::False),
                condition(ConditionType::HandshakeRecent, ConditionStatus::Unknown),
            ],
            ..StatusBody::default()
        };
        let registry = Registry::new();
        let all = Statuses::from([(key(Kind::BgpSession, "wg_1"), Arc::new(status))]);
        super::statuses(&all, &registry).unwrap();
        assert_eq!(
            series_of(registry)[..2],
            [
                r#"moenet_agent_condition{object="sessions/wg_1",type="Accepted"} 1"#,
                r#"moenet_agent_condition{object="sessions/wg_1",type="BgpEstablished"} 0"#,
            ]
        );
    }

    #[test]
    fn session_shows_state_bytes_and_handshake() {
        let status = StatusBody {
            tunnel: Some(TunnelStatus {
                last_handshake: "2026-01-01T00:00:00Z".parse().ok(),
                rx_bytes: 7,
                tx_bytes: 9,
                endpoint: None,
            }),
            bgp: Some(BgpStatus {
                state: "active".to_owned(),
                since: "2026-01-01T00:00:01Z".parse().ok(),
                ..BgpStatus::default()
            }),
            ..StatusBody::default()
        };
        let registry = Registry::new();
        let all = Statuses::from([(key(Kind::BgpSession, "wg_1"), Arc::new(status))]);
        super::statuses(&all, &registry).unwrap();
        let found = series_of(registry);
        for line in [
            r#"established{session="wg_1"} 0"#,
            r#"bgp_state{session="wg_1",state="active"} 1"#,
            r#"bgp_state_since_timestamp_seconds{session="wg_1"} 1767225601"#,
            r#"last_handshake_timestamp_seconds{session="wg_1"} 1767225600"#,
            r#"received_bytes_total{session="wg_1"} 7"#,
            r#"sent_bytes_total{session="wg_1"} 9"#,
        ] {
            let line = format!("moenet_agent_session_{line}");
            assert!(found.contains(&line), "no {line} in {found:#?}");
        }
    }
}
