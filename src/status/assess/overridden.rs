//! Names the overrides that may cause a bad condition.

use super::Facts;
use crate::document::{ConditionStatus, ConditionType as About};
use crate::status::Conditions;

/// The fields that decide where the tunnel's packets go and whether the other end accepts them.
const TUNNEL: &[&str] = &[
    "spec.tunnel.type",
    "spec.tunnel.interface",
    "spec.tunnel.listenPort",
    "spec.tunnel.publicKey",
    "spec.tunnel.presharedKeyFile",
    "spec.tunnel.endpoint",
    "spec.tunnel.localAddress",
    "spec.interface",
    "spec.listenPort",
    "spec.publicKey",
    "spec.endpoint",
];

/// Returns the fields that a condition follows from.
fn fields(about: About) -> &'static [&'static str] {
    match about {
        About::InService => &["spec.adminState", "spec.nodeId", "spec.bgp.drained"],
        About::Accepted => &[
            "spec.tunnel.interface",
            "spec.tunnel.listenPort",
            "spec.interface",
            "spec.listenPort",
        ],
        About::EndpointResolved
        | About::EndpointRouted
        | About::TunnelConfigured
        | About::HandshakeRecent => TUNNEL,
        About::BgpEstablished => &[
            "spec.asn",
            "spec.address",
            "spec.bgp.extensions",
            "spec.bgp.multihop",
            "spec.bgp.passwordFile",
        ],
        About::WithinLimits => &["spec.bgp.importLimit", "spec.bgp.exportLimit"],
        _ => &[],
    }
}

fn follows_from(about: About, field: &str) -> bool {
    let is = |prefix: &&str| {
        let rest = field.strip_prefix(*prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    fields(about).iter().any(is)
}

/// Adds each overridden field to the next action of the first condition that follows from it.
pub(super) fn add(facts: &Facts<'_>, conditions: &mut Conditions<'_>) {
    let mut left = facts.object.overridden.clone();
    for condition in conditions.all_mut() {
        if condition.status != ConditionStatus::False {
            continue;
        }
        let about = condition.condition_type;
        let these: Vec<String> = left
            .extract_if(.., |field| follows_from(about, field))
            .collect();
        if these.is_empty() {
            continue;
        }
        let (object, fields) = (facts.object.path, these.join(", "));
        let hint = format!(
            "an override sets {fields}: `moenet-agent diff {object}` shows both values, delete \
             overrides/{object}.yaml to end it"
        );
        let action = condition.next_action.take();
        condition.next_action =
            Some(action.map_or(hint.clone(), |action| format!("{action}; {hint}")));
    }
}
