use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Desired, Object};
use crate::document::Kind;
use crate::model::{ObjectKey, ObjectName};
use crate::status::Acceptance;
use crate::store::{AppliedDocument, Stored};
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

    /// Returns whether records differ from earlier ones only in that objects are applied now as this desired state wants them:
    /// then a desired state of the new records is the same. An object that was refused may be accepted now, because it clashed
    /// with what another one had applied, and an object with a new uuid no longer has the former one.
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
            object.is_some_and(|object| {
                applied.creating.is_none()
                    && applied.spec == object.spec
                    && of.uid.as_ref() == Some(&object.uid)
            })
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
