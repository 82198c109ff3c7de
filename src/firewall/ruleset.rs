//! What our table must hold, and how what is there differs from it. Pure.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Value, json};

use crate::model::{InterfaceName, Port};
use crate::plan::kernel_view::{KernelView, Link, LinkKind, Mark};

/// The one table that is ours, as `nft` writes it.
pub const TABLE: &str = "inet moenet_agent";

const FAMILY: &str = "inet";
const NAME: &str = "moenet_agent";
const PORTS: &str = "tunnel_ports";
const INTERFACES: &str = "tunnel_interfaces";

/// What the firewall is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The UDP ports to accept.
    pub ports: BTreeSet<Port>,
    /// The tunnels whose TCP connections get a fitting MSS.
    pub interfaces: BTreeSet<InterfaceName>,
}

impl Ruleset {
    /// The ruleset for the tunnels that really are there: the ports that our WireGuard links listen
    /// on now, whatever some document wants, and all our tunnel links.
    pub fn in_use(view: &KernelView) -> Self {
        let tunnels = || view.links.iter().filter(|(_, link)| is_our_tunnel(link));
        Self {
            ports: tunnels().filter_map(|(_, link)| link.wireguard.as_ref()?.listen_port).collect(),
            interfaces: tunnels().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// The commands of one transaction for `nft -j`: the table as a whole in place of what is there.
    pub(super) fn transaction(&self) -> Value {
        let table = json!({"table": {"family": FAMILY, "name": NAME}});
        // "add" makes the "delete" valid when there is no table yet (nft(8), "TABLES").
        let mut commands = vec![json!({"add": table}), json!({"delete": table}), json!({"add": table})];
        commands.extend(self.objects().into_iter().map(|object| json!({"add": in_table(object)})));
        json!({"nftables": commands})
    }

    /// The contents of the table in their normal form, in an order in which they can be added.
    fn objects(&self) -> Vec<Value> {
        let ports: Vec<_> = self.ports.iter().map(|port| port.get()).collect();
        let interfaces: Vec<_> = self.interfaces.iter().map(InterfaceName::as_str).collect();
        let mut objects = vec![
            set(PORTS, "inet_service", json!(ports)),
            set(INTERFACES, "ifname", json!(interfaces)),
            chain("input", 0),
            // Before `filter`, as `priority mangle` is: whatever another table accepts is clamped.
            chain("forward", -150),
            chain("output", -150),
        ];
        objects.push(rule("input", &[matches(payload("udp", "dport"), "==", set_ref(PORTS)), accept()]));
        // Both directions: `rt mtu` takes the smaller of the MTU of the route onward and of the route
        // back (get_tcpmss in net/netfilter/nft_rt.c), so that the SYN-ACK that comes out of a tunnel
        // is clamped too; and it never raises the value (nft_exthdr_tcp_set_eval).
        objects.push(clamp("forward", "oifname"));
        objects.push(clamp("forward", "iifname"));
        objects.push(clamp("output", "oifname"));
        objects
    }
}

fn is_our_tunnel(link: &Link) -> bool {
    use LinkKind::{Gre, Ip6Gre, Tun, WireGuard};
    matches!(link.mark, Mark::Ours(_)) && matches!(link.kind, WireGuard | Tun | Gre | Ip6Gre)
}

fn set(name: &str, of: &str, elements: Value) -> Value {
    normal(&json!({"set": {"name": name, "type": of, "elem": elements}}))
}

fn chain(hook: &str, priority: i32) -> Value {
    json!({"chain": {"name": hook, "type": "filter", "hook": hook, "prio": priority, "policy": "accept"}})
}

fn rule(chain: &str, statements: &[Value]) -> Value {
    json!({"rule": {"chain": chain, "expr": statements}})
}

/// `<direction> @tunnel_interfaces tcp flags syn tcp option maxseg size set rt mtu`
fn clamp(chain: &str, direction: &str) -> Value {
    let maxseg = json!({"tcp option": {"name": "maxseg", "field": "size"}});
    rule(
        chain,
        &[
            matches(json!({"meta": {"key": direction}}), "==", set_ref(INTERFACES)),
            matches(payload("tcp", "flags"), "in", json!("syn")),
            json!({"mangle": {"key": maxseg, "value": {"rt": {"key": "mtu"}}}}),
        ],
    )
}

fn matches(left: Value, op: &str, right: Value) -> Value {
    json!({"match": {"op": op, "left": left, "right": right}})
}

fn payload(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

fn set_ref(name: &str) -> Value {
    json!(format!("@{name}"))
}

fn accept() -> Value {
    json!({"accept": null})
}

/// An object of ours with the table it goes into.
fn in_table(mut object: Value) -> Value {
    for body in object.as_object_mut().into_iter().flat_map(|kinds| kinds.values_mut()) {
        body["family"] = json!(FAMILY);
        body["table"] = json!(NAME);
    }
    object
}

/// Our table as it was read, in normal form.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    objects: Vec<Value>,
    /// The ruleset that a version of nft is known to write back in just these words.
    pub(super) spelled: Option<Ruleset>,
}

impl Table {
    /// From the objects that `nft -j list table` prints.
    pub(super) fn parse(listing: &[Value]) -> Self {
        let about = |object: &&Value| object.get("metainfo").is_none() && object.get("table").is_none();
        let mut objects: Vec<_> = listing.iter().filter(about).map(normal).collect();
        sort(&mut objects);
        Self { objects, spelled: None }
    }

    /// Whether the other table holds the same objects.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.objects == other.objects
    }

    /// Whether this can be the ruleset in other words: everything but the words of the rules agrees.
    pub(super) fn may_spell(&self, wanted: &Ruleset) -> bool {
        let outline = |objects: &[Value]| objects.iter().map(without_expressions).collect::<Vec<_>>();
        outline(&self.objects) == outline(&sorted(wanted))
    }

    /// How the table differs from what is wanted, in words; none when it does not.
    pub fn difference(&self, wanted: &Ruleset) -> Option<String> {
        let expected = sorted(wanted);
        if self.objects == expected || self.spelled.as_ref() == Some(wanted) {
            return None;
        }
        let lacks = |one: &[Value], other: &[Value]| {
            one.iter().filter(|object| !other.contains(object)).map(label).collect::<BTreeSet<_>>()
        };
        let mut names = lacks(&expected, &self.objects);
        names.extend(lacks(&self.objects, &expected));
        let names: Vec<_> = names.into_iter().collect();
        Some(if names.is_empty() {
            "its rules are in another order".to_owned()
        } else {
            format!("{} differ", names.join(", "))
        })
    }
}

fn sorted(wanted: &Ruleset) -> Vec<Value> {
    let mut objects = wanted.objects();
    sort(&mut objects);
    objects
}

/// By kind and name; the rules of one chain keep their order, which has a meaning.
fn sort(objects: &mut [Value]) {
    objects.sort_by_cached_key(label);
}

/// "set tunnel_ports", "chain input", "rules of forward".
fn label(object: &Value) -> String {
    let Some((kind, body)) = object.as_object().and_then(|kinds| kinds.iter().next()) else {
        return "something unknown".to_owned();
    };
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind == "rule" { format!("rules of {}", text("chain")) } else { format!("{kind} {}", text("name")) }
}

fn without_expressions(object: &Value) -> Value {
    if object.get("rule").is_some() { json!(label(object)) } else { object.clone() }
}

/// The parts of an object that mean something; handles and comments do not. An object of a kind that
/// we never make stays whole, and so is a difference.
fn normal(object: &Value) -> Value {
    let keys: &[&str] = match object.as_object().and_then(|kinds| kinds.keys().next()).map(String::as_str) {
        Some("set") => &["name", "type", "flags", "timeout", "elem"],
        Some("chain") => &["name", "type", "hook", "prio", "policy"],
        Some("rule") => &["chain", "expr"],
        _ => return object.clone(),
    };
    let mut object = object.clone();
    for body in object.as_object_mut().into_iter().flat_map(|kinds| kinds.values_mut()) {
        let Some(body) = body.as_object_mut() else { continue };
        body.retain(|key, _| keys.contains(&key.as_str()));
        if let Some(Value::Array(elements)) = body.get_mut("elem") {
            elements.sort_by_cached_key(ToString::to_string);
        }
        // nft leaves the key out when a set is empty.
        if body.get("elem").is_some_and(|elements| elements.as_array().is_some_and(Vec::is_empty)) {
            body.remove("elem");
        }
    }
    object
}

/// One change of the firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirewallAction {
    /// Put the table in place of what is there.
    Install(Ruleset),
    /// Delete the table.
    Remove,
}

impl fmt::Display for FirewallAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Install(ruleset) => write!(
                f,
                "write nftables table {TABLE} for {} UDP ports and {} tunnels",
                ruleset.ports.len(),
                ruleset.interfaces.len()
            ),
            Self::Remove => write!(f, "delete nftables table {TABLE}"),
        }
    }
}

/// A change and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallStep {
    /// What to do.
    pub action: FirewallAction,
    /// What differs.
    pub because: String,
}

/// Compares what is wanted (nothing, when the firewall is disabled) with what is there.
pub fn plan(wanted: Option<&Ruleset>, found: Option<&Table>) -> Option<FirewallStep> {
    let (action, because) = match (wanted, found) {
        (None, None) => return None,
        (None, Some(_)) => (FirewallAction::Remove, "the firewall is disabled".to_owned()),
        (Some(wanted), None) => (FirewallAction::Install(wanted.clone()), "it is not there".to_owned()),
        (Some(wanted), Some(found)) => (FirewallAction::Install(wanted.clone()), found.difference(wanted)?),
    };
    Some(FirewallStep { action, because })
}

#[cfg(test)]
mod tests;
