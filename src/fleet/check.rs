//! Finds everything that an agent would reject in the answers of one router, before the agent gets them. Pure.
//!
//! An answer consists of independent units: a session, a mesh peer, the node, the policy. An
//! invalid unit never affects another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::effective::{self, Claim, Claimant, Defaults, Router, Secrets, Session, conflicts};
use crate::model::{InterfaceName, ObjectName, PublicKey};
use crate::wire::reference::{Part, answer_key, top_keys, unknown_key};
use crate::wire::{
    Call, Dialect, FieldError, PolicyItem, Rejected, SessionItem, WireError, WireStatus,
};

/// A problem and its path in the file: `["sessions", "2", "mtuu"]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    pub(super) path: Vec<String>,
    pub(super) message: String,
}

/// A part of an answer that is validated independently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// The key in the answer, and the index in a list.
    pub(super) place: (&'static str, Option<usize>),
    /// Distinguishes it from the other units of the answer; `None` without a usable identity.
    pub(super) identity: Option<String>,
    /// Whether it only requests a removal: after that there is no version of it to return to.
    pub(super) leaving: bool,
    pub(super) problems: Vec<Problem>,
}

/// Returns all units of an answer with their problems. `node` is the router's own `node`, for rules that depend on it.
pub(super) fn units(call: Call, answer: &Map<String, Value>, node: Option<&Value>) -> Vec<Unit> {
    match call {
        Call::Sessions => sessions(list(answer, "sessions"), node),
        Call::Mesh => peers("peers", list(answer, "peers"), Part::MeshPeer, mesh_peer),
        Call::Config => single(answer, "node", Part::Node, node_errors)
            .into_iter()
            .collect(),
        Call::BirdConfig => single(answer, "node", Part::PolicyNode, |node| {
            policy_errors(&json!({"policy": {}, "node": node}))
        })
        .into_iter()
        .chain(single(answer, "policy", Part::Policy, |policy| {
            policy_errors(&json!({ "policy": policy }))
        }))
        .chain(peers(
            "ibgpPeers",
            list(answer, "ibgpPeers"),
            Part::IbgpPeer,
            ibgp_peer,
        ))
        .collect(),
        Call::Heartbeat | Call::Report | Call::Modify | Call::Drain => Vec::new(),
    }
}

/// Finds misspelled keys next to the list or object of the answer.
pub(super) fn stray_keys(call: Call, answer: &Map<String, Value>) -> Vec<Problem> {
    let known = top_keys(call);
    let stray = answer.keys().filter(|key| !known.contains(&key.as_str()));
    stray
        .map(|key| problem(vec![key.clone()], unknown_key(key.clone(), key, known)))
        .collect()
}

/// Checks that the answer has the list or object that an agent expects.
pub(super) fn shape(call: Call, answer: &Map<String, Value>) -> Option<Problem> {
    let (key, array) = answer_key(call)?;
    let wanted = match (answer.get(key), array) {
        (Some(Value::Array(_)), true) | (Some(Value::Object(_)), false) => return None,
        (_, true) => "a list; an empty one is []",
        (_, false) => "a mapping",
    };
    Some(Problem {
        path: vec![key.to_owned()],
        message: format!("`{key}` is missing or not {wanted}"),
    })
}

fn list<'a>(answer: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    answer
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn sessions(items: &[Value], node: Option<&Value>) -> Vec<Unit> {
    let decoded: Vec<_> = items.iter().map(session).collect();
    let mut units: Vec<Unit> = items
        .iter()
        .zip(&decoded)
        .enumerate()
        .map(|(index, (item, decoded))| {
            let status = decoded.as_ref().map(|item| item.status);
            let leaving = status == Ok(WireStatus::QueuedForDelete);
            let errors = match decoded {
                // A removal needs only the identity.
                Ok(_) if leaving => Vec::new(),
                Ok(_) => Part::Session.unknown_keys(item),
                Err(error) => vec![error.clone()],
            };
            let unit = unit("sessions", Some(index), text(item, "uuid"), errors);
            Unit { leaving, ..unit }
        })
        .collect();
    repeated(&mut units, "uuid");
    if let Some(router) = node.and_then(router) {
        for (index, (field, message)) in rejected(&decoded, &router) {
            let mut path = vec!["sessions".to_owned(), index.to_string()];
            path.extend(field.map(str::to_owned));
            if let Some(unit) = units.get_mut(index) {
                unit.problems.push(Problem { path, message });
            }
        }
    }
    units
}

fn session(item: &Value) -> Result<SessionItem, FieldError> {
    let body = json!({ "sessions": [item] }).to_string();
    let listing = Dialect::Reference
        .decode_sessions(body.as_bytes())
        .map_err(WireError::into_field)?;
    let rejected = listing.rejected.into_iter().next();
    match (listing.items.into_iter().next(), rejected) {
        (Some(item), None) => Ok(item),
        (_, Some(rejected)) => Err(rejected.into_field()),
        (None, None) => Err(FieldError {
            field: String::new(),
            message: "is not a session".to_owned(),
        }),
    }
}

/// Returns the router that the agent will be, as far as the file defines it. Only the agent knows
/// its WireGuard key; the key here is equal to no peer's.
fn router(node: &Value) -> Option<Router> {
    let body = json!({ "node": node }).to_string();
    let item = Dialect::Reference.decode_config(body.as_bytes()).ok()?;
    Some(Router::new(&item.name, &item.spec, PublicKey::new([0; 32])))
}

/// A field of the API, and why it is refused.
type Refused = (Option<&'static str>, String);

/// Returns the sessions that break a rule across objects, by index: own addresses, and conflicting
/// claims of two sessions.
fn rejected(
    decoded: &[Result<SessionItem, FieldError>],
    router: &Router,
) -> BTreeMap<usize, Refused> {
    let mut rejected = BTreeMap::new();
    let (mut claimants, mut indices) = (Vec::new(), Vec::new());
    for (index, item) in decoded.iter().enumerate() {
        let Ok(item) = item else { continue };
        match resolve(item, router) {
            Some(Ok(session)) => {
                indices.push(index);
                claimants.push(Claimant {
                    name: format!("session {}", item.uid),
                    uid: item.uid.clone(),
                    claims: session.claims(),
                    holds: BTreeSet::new(),
                });
            }
            Some(Err(error)) => drop(rejected.insert(index, refused(&error))),
            None => {}
        }
    }
    let clashes = conflicts(&claimants);
    for (claimant, index) in claimants.iter().zip(indices) {
        if let Some(clash) = clashes.get(&claimant.name) {
            rejected.insert(index, (claimed(&clash.claim), clash.to_string()));
        }
    }
    rejected
}

/// Returns the error of a document's field at the field of the API from which the document has it.
fn refused(error: &effective::FieldError) -> Refused {
    let field = match error.field.as_str() {
        "spec.asn" => "asn",
        "spec.tunnel.endpoint" => "endpoint",
        "spec.tunnel.interface" => "interface",
        "spec.tunnel.publicKey" | "spec.tunnel.presharedKeyFile" => "credential",
        "spec.address.peerLinkLocal" => "ipv6LinkLocal",
        "spec.address.peerIpv4" => "ipv4",
        "spec.address.peerIpv6" => "ipv6",
        "spec.bgp.passwordFile" => "password",
        _ => return (None, error.to_string()),
    };
    let reason = crate::model::without_keys(&error.reason);
    (Some(field), reason.into_owned())
}

/// Returns the field that gives what a session claims.
fn claimed(claim: &Claim) -> Option<&'static str> {
    match claim {
        Claim::Interface(_) => Some("interface"),
        Claim::ListenPort(_) => Some("listenPort"),
        Claim::Address(address) if address.is_ipv4() => Some("ipv4"),
        Claim::Address(_) => Some("ipv6"),
        Claim::Protocol(_) => None,
    }
}

/// Returns what a session claims on its router; nothing for one that is not configured.
pub(super) fn claims(item: &Value, node: Option<&Value>) -> BTreeSet<Claim> {
    let decoded = session(item).ok();
    let resolved = decoded
        .zip(node.and_then(router))
        .and_then(|(item, router)| resolve(&item, &router));
    match resolved {
        Some(Ok(session)) => session.claims(),
        Some(Err(_)) | None => BTreeSet::new(),
    }
}

/// `None`: the session will not be configured, and claims nothing.
fn resolve(item: &SessionItem, router: &Router) -> Option<Result<Session, effective::FieldError>> {
    if !item.status.takes_error() {
        return None;
    }
    let spec = item.spec.as_ref()?.filled(router, &Defaults::default());
    let name = item.name_hint.as_ref().map(InterfaceName::as_str);
    let name = ObjectName::sanitised(name.unwrap_or_default());
    Some(Session::resolve(
        &name,
        &item.uid,
        &spec,
        router,
        &Secrets::new(),
    ))
}

fn peers(
    key: &'static str,
    items: &[Value],
    part: Part,
    decode: fn(&Value) -> Vec<FieldError>,
) -> Vec<Unit> {
    let units = items.iter().enumerate().map(|(index, item)| {
        let mut errors = decode(item);
        errors.extend(part.unknown_keys(item));
        unit(key, Some(index), text(item, "nodeId"), errors)
    });
    let mut units: Vec<Unit> = units.collect();
    repeated(&mut units, "nodeId");
    units
}

fn mesh_peer(item: &Value) -> Vec<FieldError> {
    let body = json!({ "peers": [item] }).to_string();
    match Dialect::Reference.decode_mesh(body.as_bytes()) {
        Ok(listing) => listing
            .rejected
            .into_iter()
            .map(Rejected::into_field)
            .collect(),
        Err(error) => vec![error.into_field()],
    }
}

fn ibgp_peer(item: &Value) -> Vec<FieldError> {
    match decode_policy(&json!({ "policy": {}, "ibgpPeers": [item] })) {
        Ok(policy) => policy
            .ibgp
            .into_iter()
            .flat_map(|listing| listing.rejected)
            .map(Rejected::into_field)
            .collect(),
        Err(error) => vec![error.into_field()],
    }
}

fn single(
    answer: &Map<String, Value>,
    key: &'static str,
    part: Part,
    decode: impl Fn(&Value) -> Vec<FieldError>,
) -> Option<Unit> {
    let value = answer.get(key)?;
    let errors = decode(value).into_iter().map(|error| FieldError {
        field: error
            .field
            .strip_prefix(key)
            .map_or(error.field.as_str(), |rest| rest.trim_start_matches('.'))
            .to_owned(),
        ..error
    });
    let errors = errors.chain(part.unknown_keys(value)).collect();
    Some(unit(key, None, Some(key.to_owned()), errors))
}

fn node_errors(node: &Value) -> Vec<FieldError> {
    let body = json!({ "node": node }).to_string();
    let decoded = Dialect::Reference.decode_config(body.as_bytes());
    decoded
        .err()
        .map(WireError::into_field)
        .into_iter()
        .collect()
}

fn policy_errors(answer: &Value) -> Vec<FieldError> {
    match decode_policy(answer) {
        Ok(policy) => policy
            .bad
            .into_iter()
            .map(|rejected| FieldError {
                field: rejected.field,
                message: rejected.message,
            })
            .collect(),
        Err(error) => vec![error.into_field()],
    }
}

fn decode_policy(answer: &Value) -> Result<PolicyItem, WireError> {
    Dialect::Reference.decode_policy(answer.to_string().as_bytes())
}

fn unit(
    key: &'static str,
    index: Option<usize>,
    identity: Option<String>,
    errors: Vec<FieldError>,
) -> Unit {
    let mut place = vec![key.to_owned()];
    place.extend(index.map(|index| index.to_string()));
    let problems = errors.into_iter().map(|error| {
        let mut path = place.clone();
        path.extend(segments(&error.field));
        problem(path, error)
    });
    Unit {
        place: (key, index),
        identity,
        leaving: false,
        problems: problems.collect(),
    }
}

fn problem(path: Vec<String>, error: FieldError) -> Problem {
    Problem {
        path,
        message: error.message,
    }
}

/// Splits `credential.publicKey` and `rpkiServers[1].host` into a path.
fn segments(field: &str) -> impl Iterator<Item = String> {
    field
        .split(['.', '[', ']'])
        .filter(|segment| !segment.is_empty())
        .map(str::to_owned)
}

/// Reports units with the same identity, which contradict each other.
fn repeated(units: &mut [Unit], key: &str) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for identity in units.iter().filter_map(|unit| unit.identity.clone()) {
        *counts.entry(identity).or_default() += 1;
    }
    for unit in units {
        let Some(identity) = &unit.identity else {
            continue;
        };
        if counts.get(identity).is_some_and(|count| *count > 1) {
            let (list, index) = unit.place;
            let mut path = vec![list.to_owned()];
            path.extend(index.map(|index| index.to_string()));
            path.push(key.to_owned());
            unit.problems.push(Problem {
                path,
                message: format!(
                    "{} is used twice in this list; agents accept neither item",
                    crate::model::shown(identity)
                ),
            });
        }
    }
}

fn text(item: &Value, key: &str) -> Option<String> {
    match item.get(key)? {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    fn session(uuid: &str, change: &Value) -> Value {
        let mut item = json!({
            "uuid": uuid, "asn": 4242421080u32, "status": 1, "ipv6LinkLocal": "fe80::2",
            "interface": format!("wg_{uuid}"), "credential": {"publicKey": KEY},
            "listenPort": 20000 + uuid.len(),
        });
        for (key, value) in change.as_object().unwrap() {
            item[key] = value.clone();
        }
        item
    }

    fn problems(items: Vec<Value>) -> Vec<(usize, String, String)> {
        let node =
            json!({"id": 1, "name": "jp1", "asn": 4242420998u32, "loopbackIpv4": "172.23.105.177"});
        let answer = json!({ "sessions": items });
        units(Call::Sessions, answer.as_object().unwrap(), Some(&node))
            .into_iter()
            .enumerate()
            .flat_map(|(index, unit)| {
                let shown = |p: Problem| (index, p.path.join("."), p.message);
                unit.problems.into_iter().map(shown).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn valid_sessions_have_no_problem() {
        let found = problems(vec![session("a", &json!({})), session("bb", &json!({}))]);
        assert_eq!(found, []);
    }

    #[test]
    fn each_problem_names_its_place() {
        for (change, path, words) in [
            (json!({"status": 11}), "sessions.1.status", "11"),
            (
                json!({"mtuu": 1400}),
                "sessions.1.mtuu",
                "did you mean `mtu`?",
            ),
            (json!({"mtu": 100}), "sessions.1.mtu", "1280"),
            (json!({"uuid": "a"}), "sessions.1.uuid", "twice"),
            (
                json!({"interface": "wg_a"}),
                "sessions.1.interface",
                "interface wg_a",
            ),
            (json!({"asn": 0}), "sessions.1.asn", ""),
        ] {
            let found = problems(vec![session("a", &json!({})), session("bb", &change)]);
            let (_, place, message) = found.last().unwrap();
            assert_eq!(place, path, "{change}: {found:?}");
            assert!(message.contains(words), "{change}: {message}");
        }
    }

    #[test]
    fn a_session_to_be_deleted_needs_its_uuid_only() {
        assert_eq!(
            problems(vec![json!({"uuid": "old", "status": 5, "mtuu": 1})]),
            []
        );
    }

    #[test]
    fn policy_problems_stay_in_their_unit() {
        let answer = json!({
            "node": {"type": "edge"}, "policy": {"dn42Ipv4Prefix": "x"},
            "ibgpPeers": [{"nodeId": 2, "loopbackIpv6": "fd00::2"}, {"nodeId": 3}],
        });
        let units = units(Call::BirdConfig, answer.as_object().unwrap(), None);
        let bad: Vec<_> = units
            .iter()
            .filter(|unit| !unit.problems.is_empty())
            .map(|unit| (unit.place, unit.identity.as_deref()))
            .collect();
        assert_eq!(
            bad,
            [
                (("policy", None), Some("policy")),
                (("ibgpPeers", Some(1)), Some("3"))
            ]
        );
    }
}
