use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::ledger::{Ledger, Removal, signed};
use super::{HeldChange, Rules, shown};
use crate::config::MaxRemovals;
use crate::document::Kind;
use crate::model::{ObjectName, Uid};
use crate::status::Hold;
use crate::util::sorted::Sorted as _;

/// The documents' verdict on one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Wanted,
    /// A document disables the object, or deletes it explicitly.
    Leaving,
    /// No document has the object.
    Absent,
}

/// One object of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The documents' verdict on it.
    pub fate: Fate,
    pub applied: bool,
    /// Whether the applied object is operator-owned, without a `uid`.
    pub operators: bool,
    /// Whether its document may have been lost, with no list of the Control Plane to disprove that.
    pub undisproved: bool,
}

const REMOVAL: &str = "removal";

impl Ledger {
    /// Judges the removals of one kind. Returns those that do not happen now, and records the others.
    pub fn removals(
        &mut self,
        kind: Kind,
        members: &BTreeMap<ObjectName, Member>,
        rules: &Rules<'_>,
    ) -> BTreeMap<ObjectName, Hold> {
        let object = |name: &ObjectName| format!("{}/{name}", kind.folder());
        self.leave(kind, members, rules);
        if let Some(why) = rules.no_verdict() {
            let absent = members.iter().filter(|(_, member)| member.is_absent());
            return absent
                .map(|(name, _)| (name, object(name)))
                .filter(|(_, object)| !self.is_under_way(object))
                .map(|(name, object)| {
                    let before = self.held_before(&object).filter(|_| why == Hold::Settling);
                    (name.clone(), before.unwrap_or_else(|| why.clone()))
                })
                .sorted_map();
        }
        self.forget(rules.window, rules.now);
        let undisproved = members.iter().filter(|(name, member)| {
            member.is_absent() && member.undisproved && !self.is_under_way(&object(name))
        });
        let undisproved: BTreeMap<_, _> = undisproved
            .map(|(name, _)| (name.clone(), Hold::Approval(UNDISPROVED.to_owned())))
            .sorted_map();
        let members: BTreeMap<String, Member> = members
            .iter()
            .filter(|(_, member)| !member.operators && !member.undisproved)
            .map(|(name, member)| (object(name), *member))
            .sorted_map();
        self.follow(kind, &members, rules);
        let waiting = self.waiting(&members);
        let held = self.judge(kind, &members, &waiting, rules);
        held.into_iter()
            .filter_map(|(object, why)| {
                let (_, name) = object.split_once('/')?;
                Some((name.parse().ok()?, Hold::Approval(why)))
            })
            .chain(undisproved)
            .sorted_map()
    }

    /// Returns the hold of a removal that was judged before.
    fn held_before(&self, object: &String) -> Option<Hold> {
        let entry = self.held.get(object)?;
        Some(Hold::Approval(entry.reason.clone()))
    }

    /// Updates the ledger's entries of these objects.
    fn follow(&mut self, kind: Kind, members: &BTreeMap<String, Member>, rules: &Rules<'_>) {
        let prefix = format!("{}/", kind.folder());
        let of_kind = |object: &String| object.starts_with(&prefix);
        for (_, removal) in self
            .removed
            .iter_mut()
            .filter(|(object, _)| of_kind(object))
            .filter(|(object, _)| !members.get(*object).is_some_and(Member::is_absent))
        {
            removal.done = true;
        }
        for (object, member) in members {
            if member.fate == Fate::Wanted && !member.applied {
                self.added.entry(object.clone()).or_insert(rules.now);
            }
        }
        let window = signed(rules.window);
        let removed = &self.removed;
        self.added.retain(|object, at| {
            let young = rules.now.duration_since(*at) < window;
            match members.get(object) {
                Some(member) => !member.applied || young,
                None => !of_kind(object) || (young && removed.contains_key(object)),
            }
        });
        self.held.retain(|object, _| {
            !of_kind(object)
                || (members.get(object).is_some_and(Member::is_absent)
                    && !self.leaving.contains(object))
        });
    }

    /// Returns whether a removal was allowed and is not complete. A later list does not revoke it half-way, because
    /// a partly removed object would be created again.
    fn is_under_way(&self, object: &String) -> bool {
        let allowed = self.removed.get(object).is_some_and(|it| !it.done);
        allowed || self.leaving.contains(object)
    }

    /// Records the removals that the window does not count: approved ones, and those of operator-owned objects. Each
    /// stays recorded until the object is gone or wanted again, because neither the file of approvals nor the listing
    /// can be read while Git has moved the tree.
    fn leave(&mut self, kind: Kind, members: &BTreeMap<ObjectName, Member>, rules: &Rules<'_>) {
        let prefix = format!("{}/", kind.folder());
        let judges = rules.no_verdict().is_none();
        let absent: BTreeMap<String, &Member> = members
            .iter()
            .filter(|(_, member)| member.is_absent())
            .map(|(name, member)| (format!("{prefix}{name}"), member))
            .sorted_map();
        // An incomplete listing does not prove that an object is gone.
        self.leaving.retain(|object| {
            !judges || !object.starts_with(&prefix) || absent.contains_key(object)
        });
        let leaves = |(object, member): &(String, &Member)| {
            let operators = judges && member.operators && !member.undisproved;
            operators || rules.approved.contains(object)
        };
        let leaving = absent.into_iter().filter(leaves);
        self.leaving.extend(leaving.map(|(object, _)| object));
    }

    /// Returns the removals that are not in progress.
    fn waiting(&self, members: &BTreeMap<String, Member>) -> BTreeSet<String> {
        members
            .iter()
            .filter(|(_, member)| member.is_absent())
            .map(|(object, _)| object.clone())
            .filter(|object| !self.is_under_way(object))
            .sorted_set()
    }

    /// Holds all waiting removals, or only those that were held before; the others are allowed and counted.
    fn judge(
        &mut self,
        kind: Kind,
        members: &BTreeMap<String, Member>,
        waiting: &BTreeSet<String>,
        rules: &Rules<'_>,
    ) -> BTreeMap<String, String> {
        let tripped = self.trips(kind, members, waiting, rules);
        let mut held = BTreeMap::new();
        for object in waiting {
            let before = self.held.get(object).map(|entry| entry.reason.clone());
            match before.or_else(|| tripped.clone()) {
                Some(reason) => {
                    let entry = HeldChange {
                        change: REMOVAL.to_owned(),
                        reason: reason.clone(),
                        since: rules.now,
                    };
                    self.held.entry(object.clone()).or_insert(entry);
                    held.insert(object.clone(), reason);
                }
                None if !rules.writable => drop(held.insert(object.clone(), UNWRITABLE.to_owned())),
                None => {
                    let removal = Removal {
                        at: rules.now,
                        done: false,
                    };
                    self.removed.insert(object.clone(), removal);
                }
            }
        }
        held
    }

    /// Returns the reason why none of the waiting removals is allowed.
    fn trips(
        &self,
        kind: Kind,
        members: &BTreeMap<String, Member>,
        waiting: &BTreeSet<String>,
        rules: &Rules<'_>,
    ) -> Option<String> {
        if waiting.is_empty() {
            return None;
        }
        let prefix = format!("{}/", kind.folder());
        let of_kind = |object: &&String| object.starts_with(&prefix);
        let removed: BTreeSet<&String> = self.removed.keys().filter(of_kind).sorted_set();
        let base = self.base(&prefix, members, &removed, rules);
        // The objects that would remain without the waiting removals.
        let stays = |(object, member): &(&String, &Member)| {
            member.applied && member.fate != Fate::Leaving && {
                waiting.contains(*object) || !member.is_absent()
            }
        };
        let left: BTreeSet<&String> = members
            .iter()
            .filter(stays)
            .map(|(object, _)| object)
            .sorted_set();
        let old: BTreeSet<&String> = left.intersection(&base).copied().sorted_set();
        let goes = |all: &BTreeSet<&String>| all.iter().all(|object| waiting.contains(*object));
        if goes(&left) || (!old.is_empty() && goes(&old)) {
            let (word, total) = (kind.plural(), waiting.len());
            return Some(format!(
                "it would remove every one of the {word} that the Control Plane gave this router ({total} now)"
            ));
        }
        let counted = removed.union(&waiting.iter().sorted_set()).count();
        let (window, total) = (shown(rules.window), base.len());
        let allowed = rules.max_removals.of(total);
        if counted > allowed {
            return Some(format!(
                "{counted} of {total} {} would be removed within {window}, and guard.maxRemovals allows {allowed}",
                kind.plural()
            ));
        }
        self.lost.map(|_| {
            format!("held.yaml was missing or could not be read, so the removals of the last {window} are unknown")
        })
    }

    /// Returns the objects that were applied when the window began. On a router that is being set up there were
    /// none, so the objects that existed before the first removal count.
    fn base<'a>(
        &self,
        prefix: &str,
        members: &'a BTreeMap<String, Member>,
        removed: &BTreeSet<&'a String>,
        rules: &Rules<'_>,
    ) -> BTreeSet<&'a String> {
        let applied = members.iter().filter(|(_, member)| member.applied);
        let all: BTreeSet<&String> = applied
            .map(|(object, _)| object)
            .chain(removed.iter().copied())
            .sorted_set();
        let window = signed(rules.window);
        let before = |at: Timestamp| rules.now.duration_since(at) >= window;
        let is_old = |object: &&&String| self.added.get(**object).copied().is_none_or(before);
        let old: BTreeSet<&String> = all.iter().filter(is_old).copied().sorted_set();
        if !old.is_empty() {
            return old;
        }
        let removals = self.removed.iter().map(|(object, it)| (object, it.at));
        let waits = self.held.iter().map(|(object, it)| (object, it.since));
        let disturbances = removals.chain(waits);
        let first = disturbances
            .filter(|(object, _)| object.starts_with(prefix))
            .map(|(_, at)| at)
            .min();
        let undisturbed = |object: &&String| first.is_none_or(|first| self.added[*object] < first);
        all.into_iter().filter(undisturbed).sorted_set()
    }
}

impl Rules<'_> {
    /// Returns the reason why objects without a document cannot be judged.
    fn no_verdict(&self) -> Option<Hold> {
        match (self.complete, self.settled) {
            (false, _) => Some(Hold::Approval(INCOMPLETE.to_owned())),
            (true, false) => Some(Hold::Settling),
            (true, true) => None,
        }
    }
}

impl Member {
    /// Returns whether the object is applied and has no document.
    fn is_absent(&self) -> bool {
        self.applied && self.fate == Fate::Absent
    }
}

const INCOMPLETE: &str = "the state directory is new, or a folder of it is missing or cannot be \
                          read, so a missing document may still be wanted; a complete list from \
                          the Control Plane decides that, `moenet-agent approve` removes this \
                          object, and `approve --all` all of them";
const UNDISPROVED: &str = "its document is missing, and the state directory was lost or lacked a \
                           folder; the Control Plane's lists do not cover objects of the operator";
const UNWRITABLE: &str = "held.yaml cannot be written, so the guard could not remember the removal";

/// Links that carry the agent's mark and that neither a document nor a record has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unrecorded {
    /// Links to remove.
    pub go: BTreeSet<Uid>,
    /// Held links, each with the reason.
    pub held: BTreeMap<Uid, String>,
}

/// Judges links without a record. `earlier` are those with the mark of a lost directory, which no record can
/// disprove; `known` is the number of links that objects have. No ledger counts them: they come from a crash or a
/// lost record, never from a list of the Control Plane.
pub fn unrecorded(
    links: &BTreeSet<Uid>,
    earlier: &BTreeSet<Uid>,
    known: usize,
    limit: MaxRemovals,
    approved: &BTreeSet<String>,
    complete: bool,
) -> Unrecorded {
    let is_approved = |uid: &&Uid| approved.contains(&format!("orphan/{uid}"));
    let waiting: BTreeSet<&Uid> = links.iter().filter(|uid| !is_approved(uid)).sorted_set();
    let (number, total) = (waiting.len(), known + links.len());
    let allowed = limit.of(total);
    let why = |uid: &Uid| {
        if !waiting.contains(uid) {
            return None;
        }
        if !complete {
            return Some(INCOMPLETE.to_owned());
        }
        if uid.is_local() {
            let why = "the link belonged to a document of the operator, which the Control Plane's \
                       lists do not cover";
            return Some(why.to_owned());
        }
        if earlier.contains(uid) {
            let why = "the link belonged to the lost state directory, and no document names it";
            return Some(why.to_owned());
        }
        if known == 0 {
            return Some("it would remove every tunnel that carries the agent's mark".to_owned());
        }
        (number > allowed).then(|| {
            format!("{number} of {total} tunnels have no record, and guard.maxRemovals allows {allowed} to go")
        })
    };
    let mut found = Unrecorded::default();
    for uid in links {
        match why(uid) {
            Some(why) => drop(found.held.insert(uid.clone(), why)),
            None => drop(found.go.insert(uid.clone())),
        }
    }
    found
}
