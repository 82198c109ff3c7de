//! `describe` as text.

use serde_json::Value;

use super::{Bgp, Described, Field, OverrideLine, Tunnel};
use crate::cli::diff::shown;
use crate::cli::get::ago;
use crate::cli::output;
use crate::effective::Origin;

pub(super) fn print(described: &Described) {
    let phase = described.phase.map(|phase| format!("{phase:?}"));
    let phase = phase.as_deref().map(output::shade).unwrap_or_default();
    let stale = if described.phase.is_some() && !described.agent_running {
        "  the agent does not answer; observed by this command"
    } else {
        ""
    };
    output::line(format_args!("{}  {phase}{stale}", described.object));
    described.override_.iter().for_each(override_);
    let said = match described.document_from {
        Some(Origin::Operator) => "its document",
        _ => "the Control Plane",
    };
    let rows = described.fields.iter().map(|one| field(one, said));
    section(
        "Specification",
        Some(output::table(&["FIELD", "VALUE", "FROM"], rows)),
    );
    conditions(described);
    described.tunnel.iter().for_each(tunnel);
    described.bgp.iter().for_each(bgp);
    list("Last steps", &described.last_steps);
    probes(described);
    verdict(described);
}

/// `Overridden by root since 2026-11-23T20:00:00Z, until 2027-01-31T00:00:00Z: their side is on PPPoE`
fn override_(override_: &OverrideLine) {
    let verb = if override_.paused {
        "Paused"
    } else {
        "Overridden"
    };
    let by = override_
        .by
        .as_ref()
        .map(|by| format!(" by {by}"))
        .unwrap_or_default();
    let since = override_
        .since
        .map(|since| format!(" since {since}"))
        .unwrap_or_default();
    let end = override_
        .expires_at
        .map(|end| format!(", until {end}"))
        .unwrap_or_default();
    output::line(format_args!(
        "{verb}{by}{since}{end}: {}  ({})",
        override_.reason, override_.file
    ));
}

/// The answer comes last, next to the prompt.
fn verdict(described: &Described) {
    let title = match (described.up, described.why.is_empty()) {
        (Some(true), true) => {
            return output::line(format_args!("\nIt is up{}.", summary(described)));
        }
        (Some(true), false) => format!("It is up{}. Warnings", summary(described)),
        (Some(false), _) => "Why it is not up, root cause first".to_owned(),
        (None, true) => return,
        (None, false) => "What is wrong".to_owned(),
    };
    section(&title, None::<&str>);
    for (number, cause) in (1..).zip(&described.why) {
        let (about, reason, message) = (&cause.about, &cause.reason, &cause.message);
        output::line(format_args!("  {number}. {about} ({reason}): {message}"));
        cause
            .next_action
            .iter()
            .for_each(|action| output::line(format_args!("     → {action}")));
    }
}

/// Returns since when it is up, and its traffic.
fn summary(described: &Described) -> String {
    let since = described.bgp.iter().filter_map(|bgp| bgp.since).max();
    let since = since
        .map(|since| format!(" for {}", ago(since)))
        .unwrap_or_default();
    let sum = |count: fn(&Bgp) -> u64| described.bgp.iter().map(count).sum::<u64>();
    let routes = match described.bgp.is_empty() {
        true => String::new(),
        false => {
            format!(
                ": {} routes in, {} out",
                sum(|bgp| bgp.routes_imported),
                sum(|bgp| bgp.routes_exported)
            )
        }
    };
    format!("{since}{routes}")
}

fn section(title: &str, body: Option<impl std::fmt::Display>) {
    output::line(format_args!("\n{title}"));
    body.iter().for_each(output::line);
}

fn list(title: &str, items: &[String]) {
    if !items.is_empty() {
        section(title, None::<&str>);
        items
            .iter()
            .for_each(|item| output::line(format_args!("  {item}")));
    }
}

fn field(field: &Field, said: &str) -> Vec<String> {
    let origin = match &field.document {
        Some(Value::Null) => format!("{} ({said} does not set it)", field.origin),
        Some(document) => format!("{} ({said} says {})", field.origin, shown(document)),
        None => field.origin.to_string(),
    };
    vec![field.field.clone(), shown(&field.value), origin]
}

fn conditions(described: &Described) {
    if described.conditions.is_empty() {
        return;
    }
    // The causes have their messages at the end, with the next action.
    let is_cause = |text: &String| described.why.iter().any(|cause| cause.message == *text);
    let rows = described.conditions.iter().map(|condition| {
        let message = Some(&condition.message).filter(|text| !is_cause(text));
        vec![
            format!("{:?}", condition.condition_type),
            format!("{:?}", condition.status),
            condition.reason.clone(),
            ago(condition.last_transition_time),
            message.cloned().unwrap_or_default(),
        ]
    });
    section(
        "Conditions",
        Some(output::table(
            &["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"],
            rows,
        )),
    );
}

fn probes(described: &Described) {
    if described.probes.is_empty() {
        return;
    }
    section("Live probes", None::<&str>);
    for probe in &described.probes {
        let state = if probe.good { "" } else { "failed: " };
        output::line(format_args!("  {}: {state}{}", probe.probe, probe.message));
    }
}

fn tunnel(tunnel: &Tunnel) {
    let up = if tunnel.up { "up" } else { "down" };
    section("Tunnel now", None::<&str>);
    output::line(format_args!(
        "  {} is {up}, MTU {}, {}",
        tunnel.interface,
        tunnel.mtu,
        tunnel.addresses.join(" ")
    ));
    let Some(peer) = &tunnel.peer else { return };
    let handshake = match peer.last_handshake {
        Some(at) => format!("{} ago", ago(at)),
        None => "never".to_owned(),
    };
    let endpoint = peer.endpoint.as_deref().unwrap_or("not known");
    output::line(format_args!(
        "  last handshake {handshake}, {} bytes in, {} bytes out, endpoint {endpoint}",
        peer.rx_bytes, peer.tx_bytes
    ));
}

fn bgp(bgp: &Bgp) {
    section("BGP now", None::<&str>);
    output::line(format_args!(
        "  {} with {} is {}: {} routes in, {} out",
        bgp.protocol,
        bgp.neighbour.as_deref().unwrap_or("an unknown neighbour"),
        output::shade(&bgp.state),
        bgp.routes_imported,
        bgp.routes_exported
    ));
    bgp.last_error
        .iter()
        .for_each(|error| output::line(format_args!("  last error: {error}")));
}
