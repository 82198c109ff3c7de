use std::collections::BTreeSet;
use std::fmt;

use super::Rules;
use super::ledger::{HeldChange, Ledger};
use crate::document::NodeSpec;

/// The object whose change is held, as `approve` names it.
pub const NODE: &str = "node";

/// A change of the node that resets every session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityChange {
    /// The fields that change, each with the value in effect and the new one, as `asn 1 -> 2`.
    fields: Vec<(&'static str, String, String)>,
}

impl fmt::Display for IdentityChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (field, have, want)) in self.fields.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{field} {have} -> {want}")?;
        }
        Ok(())
    }
}

type Field = (&'static str, fn(&NodeSpec) -> String);

/// The fields that every session depends on.
const IDENTITY: [Field; 5] = [
    ("id", |node| node.id.to_string()),
    ("asn", |node| node.asn.to_string()),
    ("loopbackIpv4", |node| shown(node.loopback_ipv4.as_ref())),
    ("loopbackIpv6", |node| shown(node.loopback_ipv6.as_ref())),
    ("linkLocal", |node| shown(node.link_local.as_ref())),
];

fn shown(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "(none)".to_owned(), ToString::to_string)
}

/// Returns the differences between the node in effect and the desired node, among the fields that reset every
/// session. `operators` are fields that the operator sets or has set, in the configuration or by an override: a
/// change of these is the operator's own action.
pub fn identity_change(
    applied: &NodeSpec,
    desired: &NodeSpec,
    operators: &BTreeSet<String>,
) -> Option<IdentityChange> {
    let changed = |(field, value): &Field| {
        let (have, want) = (value(applied), value(desired));
        let differs = have != want && !operators.contains(&format!("spec.{field}"));
        differs.then_some((*field, have, want))
    };
    let fields: Vec<_> = IDENTITY.iter().filter_map(changed).collect();
    (!fields.is_empty()).then_some(IdentityChange { fields })
}

impl IdentityChange {
    /// Returns the line of `approved` that allows exactly this change.
    pub fn approval(&self) -> String {
        format!("{NODE} {self}")
    }

    /// Returns the desired node with every field of this change at its value in effect.
    #[must_use]
    pub fn without(&self, mut desired: NodeSpec, applied: &NodeSpec) -> NodeSpec {
        for (field, _, _) in &self.fields {
            match *field {
                "id" => desired.id = applied.id,
                "asn" => desired.asn = applied.asn,
                "loopbackIpv4" => desired.loopback_ipv4 = applied.loopback_ipv4,
                "loopbackIpv6" => desired.loopback_ipv6 = applied.loopback_ipv6,
                _ => desired.link_local = applied.link_local,
            }
        }
        desired
    }
}

impl Ledger {
    /// Judges a change of the node. Returns the reason if the change is held. An approved change stays approved until it
    /// is in effect or another one is wanted: half-way back would reset every session twice.
    pub fn node(&mut self, change: Option<&IdentityChange>, rules: &Rules<'_>) -> Option<String> {
        let line = change.map(IdentityChange::approval);
        let is_approved =
            |line: &String| rules.approved.contains(line) || self.node.as_ref() == Some(line);
        self.node = line.filter(is_approved);
        let Some(change) = change.filter(|_| self.node.is_none()) else {
            self.held.remove(NODE);
            return None;
        };
        let reason = "it resets every session, mesh tunnel and internal neighbour".to_owned();
        let text = change.to_string();
        // A different change is held since now.
        self.held
            .retain(|object, entry| object != NODE || entry.change == text);
        let entry = HeldChange {
            change: text,
            reason: reason.clone(),
            since: rules.now,
        };
        self.held.entry(NODE.to_owned()).or_insert(entry);
        Some(reason)
    }
}
