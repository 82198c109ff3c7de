//! `describe` for a person.

use super::{Bgp, Described, Field, Tunnel};
use crate::cli::diff::shown;
use crate::cli::get::ago;
use crate::cli::output;

pub(super) fn print(described: &Described) {
    let phase = described.phase.map(|phase| format!("{phase:?}"));
    let phase = phase.as_deref().map(output::shade).unwrap_or_default();
    output::line(format_args!("{}  {phase}", described.object));
    if let Some(reason) = &described.reason {
        let end = described.override_expires_at.map(|end| format!(", until {end}")).unwrap_or_default();
        output::line(format_args!("Overridden: {reason}{end}"));
    }
    let rows = described.fields.iter().map(field);
    section("Specification", Some(output::table(&["FIELD", "VALUE", "FROM"], rows)));
    conditions(described);
    described.tunnel.iter().for_each(tunnel);
    described.bgp.iter().for_each(bgp);
    list("Last steps", &described.last_steps);
    list(title(described), &described.why);
}

/// What the chain explains.
fn title(described: &Described) -> &'static str {
    let established = described.bgp.iter().all(|bgp| bgp.state == "Established");
    match described.bgp.is_empty() {
        _ if described.object.starts_with("mesh/") => "Why it is not up",
        false if established => "What needs an eye",
        _ => "Why it is not Established",
    }
}

fn section(title: &str, body: Option<impl std::fmt::Display>) {
    output::line(format_args!("\n{title}"));
    body.iter().for_each(output::line);
}

fn list(title: &str, items: &[String]) {
    if !items.is_empty() {
        section(title, None::<&str>);
        items.iter().for_each(|item| output::line(format_args!("  {item}")));
    }
}

fn field(field: &Field) -> Vec<String> {
    let origin = match &field.document {
        Some(document) => format!("{} (the document says {})", field.origin, shown(document)),
        None => field.origin.to_string(),
    };
    vec![field.field.clone(), shown(&field.value), origin]
}

fn conditions(described: &Described) {
    if described.conditions.is_empty() {
        return;
    }
    let rows = described.conditions.iter().map(|condition| {
        vec![
            format!("{:?}", condition.condition_type),
            format!("{:?}", condition.status),
            condition.reason.clone(),
            ago(condition.last_transition_time),
            condition.message.clone(),
        ]
    });
    section("Conditions", Some(output::table(&["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"], rows)));
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
        bgp.neighbour.as_deref().unwrap_or("nobody"),
        output::shade(&bgp.state),
        bgp.routes_imported,
        bgp.routes_exported
    ));
    bgp.last_error.iter().for_each(|error| output::line(format_args!("  last error: {error}")));
}
