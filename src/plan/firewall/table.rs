//! The agent's table in libnftables-json(5): how it is written, and how the existing table differs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Ruleset;
use crate::model::{Identity, InterfaceName};
use crate::observed::Ownership;
use crate::observed::mark::{AGENT, identity_in};
use crate::plan::Drift;
use crate::util::sorted::Sorted as _;

pub(super) const FAMILY: &str = "inet";
/// The table's name. On a host with several agents, all but one have [`own_name`] instead.
pub const NAME: &str = "moenet_agent";
const PORTS: &str = "tunnel_ports";
const INTERFACES: &str = "tunnel_interfaces";
/// Number of differences that a reason lists.
const SHOWN: usize = 8;

impl Ruleset {
    /// Returns the commands of one transaction for `nft -j`: the whole table in place of the existing one.
    ///
    /// If no table of the name was seen, it is created, which fails when another agent was faster.
    pub fn transaction(&self, name: &str, replace: bool) -> Value {
        let table = json!({"table": {"family": FAMILY, "name": name}});
        // "add" makes the "delete" valid when there is no table yet (nft(8), "TABLES").
        let mut commands = match replace {
            true => vec![
                json!({"add": table}),
                json!({"delete": table}),
                json!({"add": table}),
            ],
            false => vec![json!({"create": table})],
        };
        commands.extend(
            self.objects()
                .into_iter()
                .map(|object| json!({"add": in_table(name, object)})),
        );
        json!({"nftables": commands})
    }

    /// Returns the contents of the table in their normal form, in an order in which they can be added.
    pub(super) fn objects(&self) -> Vec<Value> {
        let ports: Vec<_> = self.ports().iter().map(|port| port.get()).collect();
        let interfaces: Vec<_> = self.interfaces().map(InterfaceName::as_str).collect();
        vec![
            set(PORTS, "inet_service", json!(ports)),
            set(INTERFACES, "ifname", json!(interfaces)),
            chain("input", 0),
            // Before `filter`, as `priority mangle` is: packets that another table accepts are clamped too.
            chain("forward", -150),
            chain("output", -150),
            self.rule(
                "input",
                &[
                    matches(payload("udp", "dport"), "==", set_ref(PORTS)),
                    accept(),
                ],
            ),
            // Both directions: `rt mtu` takes the smaller of the MTU of the route onward and of the route
            // back (get_tcpmss in net/netfilter/nft_rt.c), so that the SYN-ACK that comes out of a tunnel
            // is clamped too; and it never raises the value (nft_exthdr_tcp_set_eval).
            self.clamp("forward", "oifname"),
            self.clamp("forward", "iifname"),
            self.clamp("output", "oifname"),
        ]
    }

    /// Returns a rule with the agent's mark in its comment. `nft` 1.0.6 drops the comments of tables and sets from its
    /// JSON,
    /// in both directions; it keeps those of rules (measured).
    fn rule(&self, chain: &str, statements: &[Value]) -> Value {
        json!({"rule": {"chain": chain, "comment": self.mark, "expr": statements}})
    }

    /// `<direction> @tunnel_interfaces tcp flags syn tcp option maxseg size set rt mtu`
    fn clamp(&self, chain: &str, direction: &str) -> Value {
        let maxseg = json!({"tcp option": {"name": "maxseg", "field": "size"}});
        self.rule(
            chain,
            &[
                matches(
                    json!({"meta": {"key": direction}}),
                    "==",
                    set_ref(INTERFACES),
                ),
                matches(payload("tcp", "flags"), "in", json!("syn")),
                json!({"mangle": {"key": maxseg, "value": {"rt": {"key": "mtu"}}}}),
            ],
        )
    }
}

/// Returns the name of the table if another agent on this host has [`NAME`].
pub fn own_name(identity: &Identity) -> String {
    format!("{NAME}_{identity}")
}

/// Returns whether an agent's table may have this name.
pub fn may_be_agents(name: &str) -> bool {
    name.strip_prefix(NAME).is_some_and(|rest| {
        rest.is_empty()
            || rest
                .strip_prefix('_')
                .is_some_and(|id| id.parse::<Identity>().is_ok())
    })
}

/// Returns a table name as `nft` writes it: `inet moenet_agent`.
pub fn with_family(name: &str) -> String {
    format!("{FAMILY} {name}")
}

/// Returns the commands of one transaction for `nft -j` that delete the table.
pub fn deletion(name: &str) -> Value {
    let table = json!({"table": {"family": FAMILY, "name": name}});
    // "add" first, so that a table that has already gone is no error.
    json!({"nftables": [{"add": table}, {"delete": table}]})
}

fn set(name: &str, of: &str, elements: Value) -> Value {
    normal(&json!({"set": {"name": name, "type": of, "elem": elements}}))
}

fn chain(hook: &str, priority: i32) -> Value {
    json!({"chain": {"name": hook, "type": "filter", "hook": hook, "prio": priority, "policy": "accept"}})
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

/// Adds the name of its table to one of the agent's objects.
pub(super) fn in_table(name: &str, mut object: Value) -> Value {
    for body in object
        .as_object_mut()
        .into_iter()
        .flat_map(|kinds| kinds.values_mut())
    {
        body["family"] = json!(FAMILY);
        body["table"] = json!(name);
    }
    object
}

/// Returns the names among these objects, as `nft -j list tables` prints them, that an agent's table may have.
pub fn listed_names(tables: &[Value]) -> BTreeSet<String> {
    let name = |object: &Value| {
        let family = object.pointer("/table/family")?;
        let name = object.pointer("/table/name")?.as_str()?;
        (family == FAMILY && may_be_agents(name)).then(|| name.to_owned())
    };
    tables.iter().filter_map(name).sorted_set()
}

/// Returns the foreign chains, as `nft -j list chains` prints them, that drop input or forwarded packets
/// by policy.
pub fn dropping(chains: &[Value]) -> Vec<String> {
    let name = |object: &Value| {
        let text = |key: &str| {
            object
                .pointer(&format!("/chain/{key}"))
                .and_then(Value::as_str)
        };
        let drops = text("policy")? == "drop" && matches!(text("hook")?, "input" | "forward");
        drops.then(|| {
            Some(format!(
                "{} {} {}",
                text("family")?,
                text("table")?,
                text("name")?
            ))
        })?
    };
    chains.iter().filter_map(name).collect()
}

/// Owner of a table with the agent's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// This state directory.
    Ours,
    /// Another agent on this host, or one of an earlier build that no record here names.
    AnotherAgents,
    /// Not an agent.
    Strangers,
}

/// An observed table with the agent's name, in normal form.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    objects: Vec<Value>,
    /// The ruleset that a version of nft is known to list in exactly these words.
    pub(crate) spelled: Option<Ruleset>,
}

impl Table {
    /// Parses the objects that `nft -j list table` prints.
    pub fn parse(listing: &[Value]) -> Self {
        let about =
            |object: &&Value| object.get("metainfo").is_none() && object.get("table").is_none();
        let mut objects: Vec<_> = listing.iter().filter(about).map(normal).collect();
        sort(&mut objects);
        Self {
            objects,
            spelled: None,
        }
    }

    /// Returns the owner of the table, by the comments of its rules.
    pub fn whose(&self, ownership: &Ownership) -> Whose {
        let comments = self
            .objects
            .iter()
            .filter_map(|object| object.pointer("/rule/comment")?.as_str());
        let identities: BTreeSet<_> = comments.clone().filter_map(identity_in).sorted_set();
        let earlier = comments.clone().any(|comment| comment == AGENT) || self.is_flushed();
        let ours = identities.iter().any(|identity| ownership.owns(identity));
        match (ours, identities.is_empty()) {
            (true, _) => Whose::Ours,
            (false, false) => Whose::AnotherAgents,
            // An earlier build wrote no identity, and a flushed table has no rules to show one.
            (false, true) if earlier && (ownership.firewall || ownership.succeeds.unnamed) => {
                Whose::Ours
            }
            (false, true) if earlier => Whose::AnotherAgents,
            (false, true) => Whose::Strangers,
        }
    }

    /// Returns whether these are exactly the agent's sets and chains.
    fn is_flushed(&self) -> bool {
        let names: BTreeSet<_> = self.objects.iter().map(label).sorted_set();
        let ours: BTreeSet<_> = Ruleset::default()
            .objects()
            .iter()
            .filter(|object| object.get("rule").is_none())
            .map(label)
            .sorted_set();
        names == ours
    }

    /// Returns whether the other table holds the same objects.
    pub fn same_as(&self, other: &Self) -> bool {
        self.objects == other.objects
    }

    /// Returns whether this can be the ruleset in other words: everything except the words of the rules agrees.
    pub fn may_spell(&self, wanted: &Ruleset) -> bool {
        let outline =
            |objects: &[Value]| objects.iter().map(without_expressions).collect::<Vec<_>>();
        outline(&self.objects) == outline(&sorted(wanted))
    }

    /// Returns how the table differs from the wanted ruleset; `None` if it does not.
    pub fn difference(&self, wanted: &Ruleset) -> Option<Drift> {
        let expected = sorted(wanted);
        if self.objects == expected || self.spelled.as_ref() == Some(wanted) {
            return None;
        }
        let (want, have) = (atoms(&expected), atoms(&self.objects));
        let missing: BTreeSet<_> = want
            .difference(&have)
            .map(|(label, _)| label.clone())
            .sorted_set();
        let surplus: BTreeSet<_> = have
            .difference(&want)
            .map(|(label, _)| {
                if missing.contains(label) {
                    format!("other {label}")
                } else {
                    label.clone()
                }
            })
            .sorted_set();
        if missing.is_empty() && surplus.is_empty() {
            return Some(Drift::new(
                "firewall.table",
                "its rules in order",
                "another order",
            ));
        }
        Some(Drift::new(
            "firewall.table",
            listed(&missing),
            listed(&surplus),
        ))
    }
}

/// "port 21080, tunnel wg_1", or "(none)".
fn listed(names: &BTreeSet<String>) -> String {
    let shown: Vec<_> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len().checked_sub(SHOWN) {
        _ if names.is_empty() => "(none)".to_owned(),
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}

fn sorted(wanted: &Ruleset) -> Vec<Value> {
    let mut objects = wanted.objects();
    sort(&mut objects);
    objects
}

/// Sorts by kind and name; the rules of one chain keep their order, which has a meaning.
fn sort(objects: &mut [Value]) {
    objects.sort_by_cached_key(label);
}

/// "set tunnel_ports", "chain input", "rules of forward".
fn label(object: &Value) -> String {
    let Some((kind, body)) = object.as_object().and_then(|kinds| kinds.iter().next()) else {
        return "something unknown".to_owned();
    };
    let text = |key: &str| {
        body.get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    if kind == "rule" {
        format!("rules of {}", text("chain"))
    } else {
        format!("{kind} {}", text("name"))
    }
}

/// Splits the objects for a reason: each element of a set separately.
fn atoms(objects: &[Value]) -> BTreeSet<(String, String)> {
    let mut atoms = BTreeSet::new();
    for object in objects {
        let mut whole = object.clone();
        let elements = whole
            .pointer_mut("/set")
            .and_then(Value::as_object_mut)
            .and_then(|set| set.remove("elem"));
        let what = if object.pointer("/set/name") == Some(&json!(PORTS)) {
            "port"
        } else {
            "tunnel"
        };
        for element in elements.iter().filter_map(Value::as_array).flatten() {
            let text = element
                .as_str()
                .map_or_else(|| element.to_string(), str::to_owned);
            atoms.insert((format!("{what} {text}"), String::new()));
        }
        atoms.insert((label(object), whole.to_string()));
    }
    atoms
}

fn without_expressions(object: &Value) -> Value {
    if object.get("rule").is_some() {
        json!(label(object))
    } else {
        object.clone()
    }
}

/// Returns the significant parts of an object, without handles. An object of a kind that the agent never creates
/// is kept whole, and so counts as a difference.
fn normal(object: &Value) -> Value {
    let keys: &[&str] = match object
        .as_object()
        .and_then(|kinds| kinds.keys().next())
        .map(String::as_str)
    {
        Some("set") => &["name", "type", "flags", "timeout", "elem"],
        Some("chain") => &["name", "type", "hook", "prio", "policy"],
        Some("rule") => &["chain", "comment", "expr"],
        _ => return object.clone(),
    };
    let mut object = object.clone();
    for body in object
        .as_object_mut()
        .into_iter()
        .flat_map(|kinds| kinds.values_mut())
    {
        let Some(body) = body.as_object_mut() else {
            continue;
        };
        body.retain(|key, _| keys.contains(&key.as_str()));
        if let Some(Value::Array(elements)) = body.get_mut("elem") {
            elements.sort_by_cached_key(ToString::to_string);
        }
        // nft omits the key when a set is empty.
        if body
            .get("elem")
            .is_some_and(|elements| elements.as_array().is_some_and(Vec::is_empty))
        {
            body.remove("elem");
        }
    }
    object
}
