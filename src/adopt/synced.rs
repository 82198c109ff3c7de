//! Interfaces that a document of the Control Plane describes too: an override takes them over in place of a document.

use serde_json::{Map, Value, json};

use super::map::{Adopted, Adoption};
use super::report::{Finding, Outcome};
use crate::document::{BgpSessionSpec, Document, OverrideSpec};
use crate::model::InterfaceName;
use crate::util::sorted::Sorted as _;

/// Parts of a specification in which the running interface wins until the operator removes the override.
const PARTS: [&str; 2] = ["tunnel", "address"];
/// A field that names a file of the state directory, not a setting.
const FILE: &str = "presharedKeyFile";

impl Adoption {
    /// Replaces documents by overrides where a synced document has the interface.
    pub fn beside<'a>(
        &mut self,
        synced: impl Iterator<Item = &'a Document<BgpSessionSpec>> + Clone,
    ) {
        let mut replaced = Vec::new();
        for adopted in &mut self.documents {
            let mut synced = synced.clone().filter(|it| it.metadata.uid.is_some());
            let Some(interface) = adopted.interface().cloned() else {
                continue;
            };
            let same = synced.find(|document| is_of(document, &interface));
            if let Some(document) = same {
                adopted.over = Some(over(document, adopted));
                replaced.push((interface, document.metadata.name.clone()));
            }
        }
        for (interface, name) in replaced {
            self.replace(&format!("interface {interface}"), || {
                format!(
                    "override of sessions/{name}, which the Control Plane lists; its `set` holds what runs otherwise"
                )
            });
        }
    }

    /// Replaces the reason of what is taken over.
    fn replace(&mut self, subject: &str, reason: impl Fn() -> String) {
        let findings = std::mem::take(&mut self.findings);
        let new = findings.into_iter().map(|finding| {
            let is_it = finding.outcome == Outcome::Taken && finding.subject == subject;
            match is_it {
                true => Finding {
                    reason: reason(),
                    ..finding
                },
                false => finding,
            }
        });
        self.findings = new.sorted_set();
    }
}

/// Returns whether a document is for this interface; without a name it is `wg_<asn>`.
fn is_of(document: &Document<BgpSessionSpec>, interface: &InterfaceName) -> bool {
    let spec = &document.spec;
    match &spec.tunnel.interface {
        Some(named) => named == interface,
        None => interface.as_str() == format!("wg_{}", spec.asn),
    }
}

/// Returns the override with which a synced document takes over what runs.
fn over(document: &Document<BgpSessionSpec>, adopted: &Adopted) -> Document<OverrideSpec> {
    let of = |spec: &BgpSessionSpec| serde_json::to_value(spec).unwrap_or_default();
    let (synced, running) = (of(&document.spec), of(&adopted.document.spec));
    let mut set = Map::new();
    for part in PARTS {
        let running = running[part].as_object().into_iter().flatten();
        let differs = |(key, value): &(&String, &Value)| {
            key.as_str() != FILE && synced[part].get(key.as_str()) != Some(*value)
        };
        let fields: Map<_, _> = running
            .filter(differs)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !fields.is_empty() {
            set.insert(part.to_owned(), fields.into());
        }
    }
    if let Some(tunnel) = set
        .entry("tunnel")
        .or_insert_with(|| json!({}))
        .as_object_mut()
    {
        tunnel.insert("adopt".to_owned(), true.into());
    }
    let spec = OverrideSpec {
        reason: "adopted: the interface ran before this agent".to_owned(),
        target_kind: None,
        expires_at: None,
        paused: false,
        set,
    };
    Document::new(document.metadata.name.clone(), None, 0, spec)
}

/// Fields of a patch that were removed, and those that were not, because they have another value.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    pub removed: Vec<String>,
    pub kept: Vec<String>,
}

/// Removes the fields of a patch that still have the value that was written.
pub fn without(set: &mut Map<String, Value>, written: &Map<String, Value>) -> Changed {
    let mut changed = Changed::default();
    remove(set, written, "", &mut changed);
    changed
}

fn remove(
    set: &mut Map<String, Value>,
    written: &Map<String, Value>,
    parent: &str,
    changed: &mut Changed,
) {
    for (key, value) in written {
        let path = format!("{parent}{key}");
        let is_empty = match (set.get_mut(key), value) {
            (None, _) => continue,
            (Some(Value::Object(part)), Value::Object(written)) => {
                remove(part, written, &format!("{path}."), changed);
                part.is_empty()
            }
            (Some(now), written) if now == written => {
                changed.removed.push(path);
                true
            }
            (Some(_), _) => {
                changed.kept.push(path);
                false
            }
        };
        if is_empty {
            set.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str, uid: Option<&str>, tunnel: Value) -> Document<BgpSessionSpec> {
        let spec = json!({
            "asn": 4_242_421_001_u32,
            "tunnel": tunnel,
            "address": {"peerLinkLocal": "fe80::1"},
        });
        let uid = uid.map(|uid| uid.parse().unwrap());
        let spec = serde_json::from_value(spec).unwrap();
        Document::new(name.parse().unwrap(), uid, 1, spec)
    }

    fn adoption() -> Adoption {
        let tunnel = json!({"interface": "wg1", "adopt": true, "mtu": 1420, "presharedKeyFile": "secrets/wg1.psk"});
        let adopted = Adopted {
            document: document("wg1", None, tunnel),
            preshared_key: None,
            over: None,
        };
        Adoption {
            documents: vec![adopted],
            ..Adoption::default()
        }
    }

    #[test]
    fn synced_document_gets_an_override_with_what_differs() {
        let synced = document(
            "peer",
            Some("abc"),
            json!({"interface": "wg1", "mtu": 1400}),
        );
        let mut adoption = adoption();
        adoption.beside([synced].iter());
        let over = adoption.documents[0].over.as_ref().unwrap();
        assert_eq!(over.metadata.name.as_str(), "peer");
        let want = json!({"tunnel": {"adopt": true, "mtu": 1420}});
        assert_eq!(Value::Object(over.spec.set.clone()), want);
        assert_eq!(adoption.documents[0].name().as_str(), "peer");
    }

    #[test]
    fn only_the_written_fields_are_removed() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let written = object(json!({"tunnel": {"adopt": true, "mtu": 1420, "listenPort": 1}}));
        let mut set = object(json!({
            "tunnel": {"adopt": true, "mtu": 1380, "persistentKeepalive": 5},
            "description": "mine",
        }));
        let changed = without(&mut set, &written);
        assert_eq!(changed.removed, ["tunnel.adopt"]);
        assert_eq!(changed.kept, ["tunnel.mtu"]);
        let left =
            json!({"tunnel": {"mtu": 1380, "persistentKeepalive": 5}, "description": "mine"});
        assert_eq!(Value::Object(set), left);
        let mut own = written.clone();
        without(&mut own, &written);
        assert!(own.is_empty());
    }

    #[test]
    fn other_interface_and_operators_document_are_no_reason() {
        let other = document("peer", Some("abc"), json!({"interface": "wg2"}));
        let own = document("own", None, json!({"interface": "wg1"}));
        let unnamed = document("unnamed", Some("def"), json!({}));
        let mut adoption = adoption();
        adoption.beside([other, own, unnamed].iter());
        assert!(adoption.documents[0].over.is_none());
    }
}
