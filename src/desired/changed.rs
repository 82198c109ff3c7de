use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Desired, Object};
use crate::document::Kind;
use crate::model::{ObjectKey, ObjectName};
use crate::status::Acceptance;
use crate::store::{AppliedBody, AppliedDocument, Stored};
use crate::util::sorted::Sorted as _;

/// The applied records of a listing.
type Records = BTreeMap<(Kind, ObjectName), Arc<Stored<AppliedDocument>>>;

/// The keys in which a desired state differs from an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A fact that every plan depends on.
    Everything,
    Keys(BTreeSet<ObjectKey>),
}

impl Default for Changed {
    fn default() -> Self {
        Self::Keys(BTreeSet::new())
    }
}

impl Desired {
    /// Returns the keys whose plans may differ from those of an earlier desired state.
    pub fn changed_since(&self, before: &Self) -> Changed {
        // Every plan depends on these. `complete` decides about links without a record, which the router's key finds.
        let is_shared = self.router == before.router
            && self.key == before.key
            && self.maintenance == before.maintenance
            && self.complete == before.complete;
        if !is_shared {
            return Changed::Everything;
        }
        let is_new =
            |(key, object): &(&ObjectKey, &Object)| before.objects.get(key) != Some(object);
        let new = self.objects.iter().filter(is_new).map(|(key, _)| key);
        let is_gone = |key: &&ObjectKey| !self.objects.contains_key(*key);
        let gone = before.objects.keys().filter(is_gone);
        let mut changed: BTreeSet<_> = new.chain(gone).cloned().sorted_set();
        if self.firewall != before.firewall {
            changed.insert(ObjectKey::Firewall);
        }
        if !self.is_same_router(before) {
            changed.insert(ObjectKey::Router);
        }
        Changed::Keys(changed)
    }

    /// Returns whether records differ from earlier ones only in that objects are applied now, or begin to be, as this desired
    /// state wants them: then a desired state of the new records is the same. An object that was refused may be accepted now,
    /// because it clashed with what another one had applied, and an object with a new uuid no longer has the former one.
    pub fn foresaw(&self, before: &Records, now: &Records) -> bool {
        if before == now {
            return true;
        }
        let documents = self.router_documents.objects();
        let is_clear = |object: &Object| {
            object.acceptance == Acceptance::Valid
                && object.remark.is_none()
                && object.formerly.is_none()
        };
        let all = || self.objects.values().chain(&documents);
        let is_foreseen = |(key, record): (&(Kind, ObjectName), &Arc<Stored<AppliedDocument>>)| {
            let find = |object: &&Object| (object.kind, &object.name) == (key.0, &key.1);
            let object = match self.object(key.0, &key.1) {
                Some(object) => Some(object),
                None => documents.iter().find(find),
            };
            let (applied, of) = (&record.document.applied, &record.document.metadata);
            let is_applied = |object: &Object| {
                applied.creating.is_none() && applied.spec == object.spec
                    || has_begun(applied, object)
            };
            object.is_some_and(|object| of.uid.as_ref() == Some(&object.uid) && is_applied(object))
        };
        let changed = now
            .iter()
            .filter(|(key, record)| before.get(*key) != Some(*record));
        all().all(is_clear)
            && before.keys().all(|key| now.contains_key(key))
            && changed.into_iter().all(is_foreseen)
    }

    /// Returns whether the plan and the status of the node itself, and those of the policy, are the same.
    fn is_same_router(&self, before: &Self) -> bool {
        self.router_documents == before.router_documents
            && self.base == before.base
            && self.loopback == before.loopback
            && self.firewall == before.firewall
            && self.moved == before.moved
            && self.remarks == before.remarks
            && self.origins == before.origins
            && self.rpki == before.rpki
            && self.bird == before.bird
            && self.main == before.main
            && self.templates == before.templates
            && self.approved == before.approved
            && self.has_tunnels() == before.has_tunnels()
            && self.has_done_with_tunnels() == before.has_done_with_tunnels()
    }
}

/// Returns whether a record has what is written before the first step of an object, and nothing else.
fn has_begun(applied: &AppliedBody, object: &Object) -> bool {
    let (Some(link), Some(wanted)) = (object.link(), object.wanted()) else {
        return false;
    };
    let claims = AppliedBody {
        interfaces: BTreeSet::from([link.interface.clone()]),
        creating: applied.creating.clone(),
        protocols: wanted.protocols(),
        ..AppliedBody::default()
    };
    *applied == claims
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::desired::testing::desired;
    use crate::desired::{Refused, Wanted};
    use crate::document::{Document, MeshPeerSpec, Metadata, RoutingPolicySpec, Spec};
    use crate::store::{Snapshot, Store};

    const KIND: Kind = Kind::MeshPeer;

    fn write<S: Spec>(store: &Store, name: &str, spec: Value) {
        let spec: S = serde_json::from_value(spec).unwrap();
        let uid = format!("uid-{name}").parse().ok();
        let document = Document::new(name.parse().unwrap(), uid, 1, spec);
        store.write_document(&document).unwrap();
    }

    fn record(store: &Store, object: &Object, applied: AppliedBody) -> std::sync::Arc<Snapshot> {
        let metadata = Metadata {
            name: object.name.clone(),
            uid: Some(object.uid.clone()),
            generation: 1,
        };
        let record = AppliedDocument::new(KIND, metadata, applied);
        store.write_applied(&record).unwrap();
        store.load().unwrap()
    }

    #[test]
    fn record_of_an_object_that_begins_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.confirm().unwrap();
        write::<RoutingPolicySpec>(&store, "policy", json!({}));
        let key = "DM06RLaHzdCGBYhFFvrUXIcyqJG1lZAMlPbWzwr4ajg=";
        let peer = json!({"nodeId": 2, "publicKey": key});
        write::<MeshPeerSpec>(&store, "de1", peer);
        let before = store.load().unwrap();
        let wanted = desired(&store, &Refused::default());
        let object = &wanted.objects[&KIND.key(&"de1".parse().unwrap())];
        let interface = object.link().unwrap().interface.clone();
        let claims = AppliedBody {
            interfaces: [interface.clone()].into(),
            creating: Some(interface),
            protocols: object.wanted().map(Wanted::protocols).unwrap(),
            ..AppliedBody::default()
        };
        let begun = record(&store, object, claims.clone());
        assert!(wanted.foresaw(&before.applied, &begun.applied));
        let made = desired(&store, &Refused::default());
        assert_eq!(made.changed_since(&wanted), Changed::default());
        assert_eq!(made.objects, wanted.objects);

        let done = AppliedBody {
            creating: None,
            spec: object.spec.clone(),
            ..claims.clone()
        };
        let done = record(&store, object, done);
        assert!(wanted.foresaw(&begun.applied, &done.applied));

        let elsewhere = AppliedBody {
            interfaces: ["wg_1".parse().unwrap()].into(),
            ..claims
        };
        let elsewhere = record(&store, object, elsewhere);
        assert!(!wanted.foresaw(&before.applied, &elsewhere.applied));
    }
}
