mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::document::{Kind, NodeSpec};
use crate::model::{ObjectName, Uid};
use crate::status::Hold;

const KIND: Kind = Kind::BgpSession;
const HOUR: Duration = Duration::from_secs(3600);

fn name(number: u32) -> ObjectName {
    format!("s{number}").parse().unwrap()
}

fn object(number: u32) -> String {
    format!("sessions/s{number}")
}

const APPLIED: Member = Member {
    fate: Fate::Wanted,
    applied: true,
    operators: false,
    undisproved: false,
};
const ABSENT: Member = Member {
    fate: Fate::Absent,
    ..APPLIED
};
const NEW: Member = Member {
    applied: false,
    ..APPLIED
};
const LEAVING: Member = Member {
    fate: Fate::Leaving,
    ..APPLIED
};

/// A router and a guard, with a clock that the test advances.
struct Router {
    members: BTreeMap<ObjectName, Member>,
    ledger: Ledger,
    approved: BTreeSet<String>,
    limit: MaxRemovals,
    now: Timestamp,
    complete: bool,
    settled: bool,
    writable: bool,
}

impl Router {
    /// Returns a router with this number of sessions that were applied long ago.
    fn new(sessions: u32) -> Self {
        Self {
            members: (0..sessions)
                .map(|number| (name(number), APPLIED))
                .collect(),
            ledger: Ledger::default(),
            approved: BTreeSet::new(),
            limit: MaxRemovals::default(),
            now: Timestamp::UNIX_EPOCH,
            complete: true,
            settled: true,
            writable: true,
        }
    }

    fn set(&mut self, numbers: impl IntoIterator<Item = u32>, member: Member) {
        let members = numbers.into_iter().map(|number| (name(number), member));
        self.members.extend(members);
    }

    fn applied(&self) -> usize {
        self.members.values().filter(|it| it.applied).count()
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Builds one desired state and returns the held objects; all other absent or leaving objects are removed, and new ones
    /// are applied.
    fn turn(&mut self) -> BTreeSet<ObjectName> {
        let held = self.judge();
        self.members
            .retain(|name, it| it.fate == Fate::Wanted || held.contains_key(name));
        self.members.values_mut().for_each(|it| it.applied = true);
        held.into_keys().collect()
    }

    /// Returns the held objects, with the reasons; the other removals are in progress afterwards.
    fn judge(&mut self) -> BTreeMap<ObjectName, Hold> {
        let rules = Rules {
            max_removals: self.limit,
            window: HOUR,
            approved: &self.approved,
            complete: self.complete,
            settled: self.settled,
            writable: self.writable,
            now: self.now,
        };
        self.ledger.removals(KIND, &self.members, &rules)
    }
}

#[test]
fn removal_under_way_goes_on_while_files_change() {
    for operators in [false, true] {
        for (settled, complete) in [(false, true), (true, false)] {
            let mut router = Router::new(8);
            let gone = Member {
                operators,
                ..ABSENT
            };
            router.set([0], gone);
            assert_eq!(router.judge(), BTreeMap::new());
            (router.settled, router.complete) = (settled, complete);
            router.set([1], gone);
            let held = router.judge();
            assert_eq!(held.keys().cloned().collect::<Vec<_>>(), [name(1)]);
            assert_eq!(held[&name(1)] == Hold::Settling, complete, "{held:?}");
        }
    }
}

#[test]
fn held_removal_needs_the_same_approval_while_files_change() {
    let mut router = Router::new(2);
    router.set(0..2, ABSENT);
    let held = router.judge();
    assert!(held[&name(0)].approval().is_some());
    router.settled = false;
    assert_eq!(router.judge(), held);
}

#[test]
fn every_session_is_held_whatever_the_number() {
    for number in 1..12 {
        let mut router = Router::new(number);
        router.limit = MaxRemovals::Percent(100);
        router.set(0..number, ABSENT);
        assert_eq!(router.turn().len(), number as usize);
    }
}

#[test]
fn more_than_the_limit_is_held_and_fewer_are_not() {
    for (all, few) in [(2, 1), (8, 2), (10, 3), (100, 30)] {
        let mut router = Router::new(all);
        router.set(0..few, ABSENT);
        assert_eq!(router.turn().len(), 0, "{few} of {all}");
        let mut router = Router::new(all);
        router.set(0..few + 1, ABSENT);
        assert_eq!(
            router.turn().len(),
            few as usize + 1,
            "{} of {all}",
            few + 1
        );
    }
}

#[test]
fn a_number_as_limit_counts_from_the_first() {
    let mut router = Router::new(8);
    router.limit = MaxRemovals::Number(0);
    router.set([0], ABSENT);
    assert_eq!(router.turn().len(), 1);
}

#[test]
fn removals_one_by_one_are_counted_together() {
    let mut router = Router::new(8);
    for number in 0..8 {
        router.set([number], ABSENT);
        router.turn();
        router.pass(60);
    }
    assert_eq!(router.applied(), 6);
    // Held objects wait for a person and not for the end of the window.
    router.pass(2 * 3600);
    assert_eq!(router.turn().len(), 6);
}

#[test]
fn the_window_slides() {
    let mut router = Router::new(100);
    router.set(0..30, ABSENT);
    assert!(router.turn().is_empty());
    router.pass(3599);
    router.set([30], ABSENT);
    assert_eq!(router.turn(), [name(30)].into());
    router.set([30], APPLIED);
    router.turn();
    router.pass(1);
    router.set(31..52, ABSENT);
    assert!(router.turn().is_empty(), "21 of 70 in a new window");
    assert_eq!(router.applied(), 49);
}

#[test]
fn a_list_of_a_larger_router_removes_nothing() {
    for fresh in [false, true] {
        let mut router = Router::new(0);
        router.set(0..8, if fresh { NEW } else { APPLIED });
        router.turn();
        router.pass(600);
        router.set(0..8, ABSENT);
        router.set(100..200, NEW);
        for _ in 0..100 {
            assert_eq!(router.turn().len(), 8, "on a fresh router: {fresh}");
            router.pass(60);
        }
    }
}

#[test]
fn objects_added_before_a_removal_do_not_widen_the_limit() {
    let mut router = Router::new(8);
    router.set(100..200, NEW);
    router.turn();
    router.pass(600);
    router.set(0..7, ABSENT);
    assert_eq!(router.turn().len(), 7);
}

#[test]
fn approved_disabled_and_deleted_objects_do_not_count() {
    let mut router = Router::new(10);
    router.approved = (0..4).map(object).collect();
    router.set(0..4, ABSENT);
    router.set(4..6, LEAVING);
    assert!(router.turn().is_empty());
    assert_eq!(router.applied(), 4);
    assert!(router.ledger.removed.is_empty());
}

#[test]
fn an_absence_that_leaves_nothing_is_held() {
    let mut router = Router::new(4);
    router.set(0..3, LEAVING);
    router.set([3], ABSENT);
    assert_eq!(router.turn(), [name(3)].into());
}

#[test]
fn an_operator_who_deletes_an_own_document_is_not_held() {
    let mut router = Router::new(2);
    let own = Member {
        operators: true,
        ..ABSENT
    };
    router.set(10..14, own);
    assert!(router.turn().is_empty());
    // Sessions of the operator do not offset a list without sessions.
    router.set(
        20..40,
        Member {
            operators: true,
            ..APPLIED
        },
    );
    router.set(0..2, ABSENT);
    assert_eq!(router.turn().len(), 2);
}

#[test]
fn a_lost_document_of_the_operator_is_held() {
    let mut router = Router::new(9);
    let lost = Member {
        operators: true,
        undisproved: true,
        ..ABSENT
    };
    router.set([20], lost);
    assert_eq!(router.turn(), [name(20)].into());
    router.approved = [object(20)].into();
    assert!(router.turn().is_empty());
}

#[test]
fn an_approval_is_for_one_removal() {
    let mut router = Router::new(4);
    router.set(0..4, ABSENT);
    router.turn();
    router.approved = [object(0)].into();
    assert_eq!(router.turn().len(), 3);
    router.approved.clear();
    router.set([0], NEW);
    router.turn();
    router.set([0], ABSENT);
    assert_eq!(router.turn().len(), 4);
}

#[test]
fn a_removal_under_way_is_not_judged_again() {
    let mut router = Router::new(8);
    router.set(0..2, ABSENT);
    let members = router.members.clone();
    assert!(router.turn().is_empty());
    router.members = members;
    assert!(
        router.turn().is_empty(),
        "the kernel has not removed them yet"
    );
}

#[test]
fn removal_under_way_outlasts_the_window() {
    let mut router = Router::new(8);
    router.set(0..2, ABSENT);
    assert_eq!(router.judge(), BTreeMap::new());
    // BIRD does not answer for hours.
    router.pass(2 * 3600);
    router.set(2..4, ABSENT);
    let held = router.judge();
    assert_eq!(held.into_keys().collect::<Vec<_>>(), [name(2), name(3)]);
}

#[test]
fn an_incomplete_listing_removes_only_what_is_approved() {
    let mut router = Router::new(10);
    router.complete = false;
    router.set(0..2, ABSENT);
    router.approved = [object(0)].into();
    assert_eq!(router.turn(), [name(1)].into());
    let leaving = Ledger {
        leaving: [object(0)].into(),
        ..Ledger::default()
    };
    assert_eq!(router.ledger, leaving);
}

#[test]
fn approved_removal_goes_on_when_approvals_cannot_be_read() {
    for (complete, settled, lost) in [
        (true, true, false),
        (false, true, false),
        (true, false, false),
        (true, true, true),
    ] {
        let mut router = Router::new(4);
        let gone = Member {
            operators: lost,
            undisproved: lost,
            ..ABSENT
        };
        router.set(0..4, gone);
        assert_eq!(router.judge().len(), 4);
        router.approved = [object(0)].into();
        assert_eq!(router.judge().len(), 3);
        // HEAD of the state directory moves before the object is gone.
        router.approved.clear();
        (router.complete, router.settled) = (complete, settled);
        let held = router.judge();
        assert!(!held.contains_key(&name(0)), "{held:?}");
        assert_eq!(held.len(), 3);
        // The restart reads the ledger back.
        let text = serde_json::to_string(&router.ledger).unwrap();
        router.ledger = serde_json::from_str::<Ledger>(&text)
            .unwrap()
            .resumed(router.now);
        assert_eq!(router.turn().len(), 3);
    }
}

#[test]
fn approved_removal_ends_when_the_object_is_gone_or_wanted() {
    for wanted in [true, false] {
        let mut router = Router::new(4);
        router.set(0..4, ABSENT);
        router.approved = [object(0)].into();
        router.judge();
        router.approved.clear();
        match wanted {
            true => router.set([0], APPLIED),
            false => drop(router.members.remove(&name(0))),
        }
        router.judge();
        router.set([0], ABSENT);
        assert_eq!(router.turn().len(), 4, "wanted again: {wanted}");
    }
}

#[test]
fn approved_node_change_is_not_reverted_half_way() {
    let node = |asn: u64| -> NodeSpec {
        serde_json::from_value(serde_json::json!({"id": 1, "asn": asn})).unwrap()
    };
    let (old, new, other) = (
        node(4_242_420_998),
        node(4_242_420_999),
        node(4_242_421_000),
    );
    let change = |to: &NodeSpec| identity_change(&old, to, &BTreeSet::new());
    let approved = change(&new).map(|change| change.approval());
    let (some, none) = (approved.into_iter().collect(), BTreeSet::new());
    let mut ledger = Ledger::default();
    let mut held = |to: Option<&NodeSpec>, approved: &BTreeSet<String>| {
        let router = Router::new(0);
        let rules = Rules {
            max_removals: router.limit,
            window: HOUR,
            approved,
            complete: true,
            settled: true,
            writable: true,
            now: router.now,
        };
        let change = to.and_then(change);
        ledger.node(change.as_ref(), &rules).is_some()
    };
    assert!(held(Some(&new), &none));
    assert!(!held(Some(&new), &some));
    assert!(!held(Some(&new), &none), "HEAD moved");
    assert!(held(Some(&other), &none), "another change");
    assert!(held(Some(&new), &none), "the approval was for one change");
    assert!(!held(Some(&new), &some));
    assert!(!held(None, &none), "it is in effect");
    assert!(held(Some(&new), &none));
}

#[test]
fn unwritable_ledger_holds_removals() {
    let mut router = Router::new(10);
    router.writable = false;
    router.set([0], ABSENT);
    assert_eq!(router.turn().len(), 1);
    assert!(router.ledger.removed.is_empty());
}

#[test]
fn a_lost_ledger_holds_removals_for_the_window() {
    let mut router = Router::new(10);
    router.ledger = Ledger::lost(router.now);
    router.pass(3599);
    router.set([0], ABSENT);
    assert_eq!(router.turn().len(), 1);
    router.set([0], APPLIED);
    router.pass(1);
    router.turn();
    router.set([1], ABSENT);
    assert!(router.turn().is_empty());
}

#[test]
fn a_restart_neither_ends_nor_widens_the_window() {
    let jumps = [0, 3600, -3600, 86_400 * 365, -86_400 * 365];
    for jump in jumps {
        let mut router = Router::new(8);
        router.now = Timestamp::from_second(1_800_000_000).unwrap();
        router.set([0], ABSENT);
        router.turn();
        router.pass(600);
        router.set([1], ABSENT);
        router.turn();
        let text = crate::document::to_yaml(&router.ledger).unwrap();
        router.pass(jump);
        let read: Ledger = crate::document::parse_list(&text).unwrap();
        router.ledger = read.resumed(router.now);
        router.set([2], ABSENT);
        assert_eq!(router.turn().len(), 1, "the clock moved by {jump} s");
        router.set([2], APPLIED);
        router.turn();
        router.pass(3001);
        router.set([3], ABSENT);
        assert!(
            router.turn().is_empty(),
            "the first of the two is out of the window"
        );
    }
}

#[derive(Debug, Clone)]
enum Event {
    Lists(BTreeSet<u32>),
    Passes(i64),
    Restarts(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => prop::collection::btree_set(0..16u32, 0..16).prop_map(Event::Lists),
        2 => (1..1200i64).prop_map(Event::Passes),
        1 => (-100_000..100_000i64).prop_map(Event::Restarts),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// For any lists in any order, with restarts under any clock: an hour of the agent's running time removes at
    /// most the limit of the applied objects, and at least one session always remains.
    #[test]
    fn no_sequence_of_lists_removes_more_than_the_limit(
        first in prop::collection::btree_set(0..16u32, 1..16),
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut router = Router::new(0);
        router.set(first.iter().copied(), APPLIED);
        router.now = Timestamp::from_second(1_800_000_000).unwrap();
        let (mut elapsed, mut removed) = (0, Vec::<(i64, ObjectName)>::new());
        for event in events {
            match event {
                Event::Passes(seconds) => { router.pass(seconds); elapsed += seconds; }
                Event::Restarts(jump) => {
                    router.pass(jump);
                    router.ledger = std::mem::take(&mut router.ledger).resumed(router.now);
                }
                Event::Lists(list) => {
                    let applied: Vec<u32> = (0..16).filter(|n| router.members.contains_key(&name(*n))).collect();
                    router.set(applied.iter().filter(|n| !list.contains(n)).copied(), ABSENT);
                    router.set(applied.iter().filter(|n| list.contains(n)).copied(), APPLIED);
                    router.set(list.iter().filter(|n| !applied.contains(n)).copied(), NEW);
                    let before: BTreeSet<ObjectName> = router.members.iter()
                        .filter(|(_, it)| it.applied).map(|(name, _)| name.clone()).collect();
                    router.turn();
                    let gone = before.iter().filter(|name| !router.members.contains_key(*name));
                    removed.extend(gone.map(|name| (elapsed, name.clone())));
                    let young: BTreeSet<_> = removed.iter().filter(|(at, _)| elapsed - at < 3600)
                        .map(|(_, name)| name).collect();
                    let most: BTreeSet<_> = before.iter().chain(young.iter().copied()).collect();
                    prop_assert!(young.len() <= router.limit.of(most.len()), "{young:?} of {most:?}");
                    prop_assert!(before.is_empty() || router.applied() > 0);
                }
            }
        }
    }
}
