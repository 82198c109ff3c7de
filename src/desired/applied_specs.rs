use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::document::{BgpSessionSpec, Kind};
use crate::model::ObjectName;
use crate::store::{AppliedDocument, Snapshot, Stored};

/// The specifications that sessions have applied.
pub(super) struct AppliedSpecs<'a>(MutexGuard<'a, ParsedRecords>);

/// The applied records of sessions with their specifications. They stay from one desired state to the next, so that only
/// another record is parsed.
pub(super) type ParsedRecords =
    BTreeMap<ObjectName, (Arc<Stored<AppliedDocument>>, BgpSessionSpec)>;

impl<'a> AppliedSpecs<'a> {
    /// Returns the valid specifications of the applied records.
    pub(super) fn of(snapshot: &Snapshot, parsed: &'a Mutex<ParsedRecords>) -> Self {
        let mut parsed = parsed.lock();
        let mut count = 0;
        let records = snapshot.applied.iter();
        for ((_, name), record) in records.filter(|((kind, _), _)| *kind == Kind::BgpSession) {
            let known = parsed.get(name);
            if !known.is_some_and(|(known, _)| Arc::ptr_eq(known, record)) {
                let spec = record.document.applied.spec.as_ref();
                let Some(spec) = spec.and_then(|spec| spec.read().ok()) else {
                    parsed.remove(name);
                    continue;
                };
                parsed.insert(name.clone(), (Arc::clone(record), spec));
            }
            count += 1;
        }
        if parsed.len() > count {
            parsed.retain(|name, _| {
                snapshot
                    .applied
                    .contains_key(&(Kind::BgpSession, name.clone()))
            });
        }
        Self(parsed)
    }

    pub(super) fn get(&self, name: &ObjectName) -> Option<&BgpSessionSpec> {
        self.0.get(name).map(|(_, spec)| spec)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&ObjectName, &BgpSessionSpec)> {
        self.0.iter().map(|(name, (_, spec))| (name, spec))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a listing with these applied records, each with the AS number of its session.
    fn snapshot(records: &[(&str, Option<u32>)]) -> Snapshot {
        let record = |(name, asn): &(&str, Option<u32>)| {
            let spec = asn.map(|asn| serde_json::json!({"asn": asn}));
            let record = serde_json::json!({
                "apiVersion": "moenet.work/v1", "kind": "BgpSession", "metadata": {"name": name, "generation": 1},
                "applied": {"spec": spec},
            });
            let document: AppliedDocument = serde_json::from_value(record).unwrap();
            let stored = Stored {
                document: Arc::new(document),
                hash: Default::default(),
                path: name.into(),
                owner: 0,
                text: "".into(),
            };
            ((Kind::BgpSession, name.parse().unwrap()), Arc::new(stored))
        };
        let mut snapshot = Snapshot::default();
        snapshot.applied = records.iter().map(record).collect();
        snapshot
    }

    #[test]
    fn other_records_replace_those_of_the_last_listing() {
        let parsed = Mutex::default();
        let all = |snapshot: &Snapshot| {
            let specs = AppliedSpecs::of(snapshot, &parsed);
            let specs = specs
                .all()
                .map(|(name, spec)| (name.to_string(), spec.asn.get()));
            specs.collect::<Vec<_>>()
        };
        let pair = |name: &str, asn| (name.to_owned(), asn);
        assert_eq!(
            all(&snapshot(&[("a", Some(1)), ("b", Some(2))])),
            [pair("a", 1), pair("b", 2)]
        );
        assert_eq!(
            all(&snapshot(&[("a", Some(3)), ("b", None)])),
            [pair("a", 3)]
        );
        assert_eq!(all(&snapshot(&[("c", Some(4))])), [pair("c", 4)]);
        assert_eq!(all(&Snapshot::default()), []);
    }
}
