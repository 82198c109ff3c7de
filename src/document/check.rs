//! Reads values as specifications. Documents, overrides and their merge are read by the same function, so that a
//! value is refused with the same text in each of them.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::fault::Fault;
use super::reason::{Found, Reason, Wanted};
use super::value::{Parsed, Scalars};
use super::{ApiVersion, Kind, Spec, with_spec};

/// Largest number of problems that are listed for one value.
const MANY: usize = 100;

/// Reads a value as a type.
///
/// # Errors
/// The first field that the type does not accept.
pub(crate) fn read<T: DeserializeOwned>(value: &Value, scalars: Scalars) -> Result<T, Fault> {
    T::deserialize(Parsed { value, scalars }).map_err(|mut fault| {
        let is_reason = fault.path.last().is_some_and(|field| field == "reason");
        // A comment in place of a reason is a frequent mistake.
        if let Reason::Type {
            wanted: Wanted::Text,
            found: Found::Nothing,
        } = fault.reason
            && is_reason
        {
            fault.reason = Reason::Missing("reason");
        }
        fault
    })
}

/// Returns every field of a value that a type does not accept.
pub(crate) fn faults<T: DeserializeOwned>(
    value: Value,
    sample: &Value,
    scalars: Scalars,
) -> Vec<Fault> {
    read_rest::<T>(&value, sample, scalars).1
}

/// Reads a value as a type without the fields that it does not accept, and returns these. It reads the type
/// repeatedly, each time with the last wrong field removed, or replaced by the field of `sample`, which has the
/// required fields. `None`: a required field without a sample is wrong.
pub(crate) fn read_rest<T: DeserializeOwned>(
    value: &Value,
    sample: &Value,
    scalars: Scalars,
) -> (Option<T>, Vec<Fault>) {
    let mut value = Cow::Borrowed(value);
    let (mut found, mut repaired) = (Vec::new(), BTreeSet::new());
    while found.len() < MANY {
        let fault = match read::<T>(&value, scalars) {
            Ok(read) => return (Some(read), found),
            Err(fault) => fault,
        };
        let path = fault.repaired_path();
        let is_repaired = repair(value.to_mut(), &path, sample);
        found.push(fault);
        if !is_repaired || !repaired.insert(path) {
            break;
        }
    }
    (None, found)
}

/// Sets the sample's value at a path, or removes the value at the path. `false`: neither is possible.
fn repair(value: &mut Value, path: &[String], sample: &Value) -> bool {
    let Some((last, parent)) = path.split_last() else {
        return false;
    };
    let sample = sample.pointer(&pointer(path)).cloned();
    match (value.pointer_mut(&pointer(parent)), sample) {
        (Some(Value::Object(fields)), Some(sample)) => {
            fields.insert(last.clone(), sample);
            true
        }
        (Some(Value::Object(fields)), None) => fields.remove(last).is_some(),
        (Some(Value::Array(items)), _) => match last.parse() {
            Ok(index) if index < items.len() => {
                items.remove(index);
                true
            }
            _ => false,
        },
        _ => false,
    }
}

/// Returns a JSON pointer (RFC 6901).
fn pointer(path: &[String]) -> String {
    let escaped = path
        .iter()
        .map(|key| key.replace('~', "~0").replace('/', "~1"));
    escaped.fold(String::new(), |pointer, key| format!("{pointer}/{key}"))
}

/// Checks whether a value is a specification of this kind.
///
/// # Errors
/// The field and its error, without values that may be secret.
pub(crate) fn check_spec(kind: Kind, spec: &Value) -> Result<(), Fault> {
    with_spec!(kind, S => read::<S>(spec, Scalars::Typed).map(drop))
}

/// Returns the shortest valid specification of a kind.
pub fn minimal(kind: Kind) -> Value {
    with_spec!(kind, S => S::minimal())
}

/// Returns the shortest valid document of a kind.
pub(super) fn sample(kind: Kind) -> Value {
    json!({
        "apiVersion": ApiVersion::V1.as_str(), "kind": kind.to_string(),
        "metadata": {"name": "sample"}, "spec": minimal(kind)
    })
}

/// Checks whether a patch sets only fields of a kind, to valid values: merged over the shortest valid document of
/// the kind, it makes a valid specification.
///
/// # Errors
/// As [`check_spec`].
pub(crate) fn check_patch(kind: Kind, patch: &Map<String, Value>) -> Result<(), Fault> {
    let mut spec = minimal(kind);
    json_patch::merge(&mut spec, &Value::Object(patch.clone()));
    check_spec(kind, &spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{BgpSessionSpec, MeshPeerSpec, OverrideSpec};

    #[test]
    fn every_wrong_field_is_listed() {
        let spec = json!({
            "asn": 0, "description": 7, "colour": "red", "tunnel": {"mtu": 1, "endpoint": "a b", "interface": "wg_1"},
            "bgp": {"extensions": ["mp-bgp", "x"], "policy": 5}
        });
        let faults = faults::<BgpSessionSpec>(spec, &minimal(Kind::BgpSession), Scalars::AsWritten);
        let fields: BTreeSet<String> = faults.iter().map(|fault| fault.field("spec")).collect();
        let wanted = [
            "spec.asn",
            "spec.bgp.extensions[1]",
            "spec.bgp.policy",
            "spec.colour",
            "spec.tunnel.endpoint",
            "spec.tunnel.mtu",
        ];
        assert_eq!(fields.into_iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn fields_after_an_empty_reason_are_listed() {
        let spec = json!({"reason": null, "expiresAt": "tomorrow", "sett": {}});
        let faults = faults::<OverrideSpec>(spec, &json!({"reason": "sample"}), Scalars::AsWritten);
        let fields: BTreeSet<String> = faults.iter().map(|fault| fault.field("spec")).collect();
        let wanted = ["spec.expiresAt", "spec.reason", "spec.sett"];
        assert_eq!(fields.into_iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn missing_fields_are_listed_one_by_one() {
        let faults =
            faults::<MeshPeerSpec>(json!({"mtu": 1}), &minimal(Kind::MeshPeer), Scalars::Typed);
        let texts: BTreeSet<String> = faults.iter().map(Fault::to_string).collect();
        let wanted = [
            "spec.mtu: invalid MTU 1: use 1280..9000",
            "spec: `nodeId` is missing",
            "spec: `publicKey` is missing",
        ];
        assert_eq!(texts.into_iter().collect::<Vec<_>>(), wanted);
    }
}
