//! Changes of the node, and links without a record.

use super::*;

fn node(asn: u32, v6: &str) -> NodeSpec {
    let spec = serde_json::json!({"id": 1, "asn": asn, "loopbackIpv6": v6});
    serde_json::from_value(spec).unwrap()
}

#[test]
fn node_change_is_held_until_that_change_is_approved() {
    let (before, after) = (
        node(4_242_420_998, "fd00::1"),
        node(4_242_420_999, "fd00::2"),
    );
    let change = identity_change(&before, &after, &BTreeSet::new()).unwrap();
    assert_eq!(
        change.to_string(),
        "asn 4242420998 -> 4242420999, loopbackIpv6 fd00::1 -> fd00::2"
    );
    assert_eq!(change.without(after.clone(), &before), before);
    let mut ledger = Ledger::default();
    let mut judge = |change: &IdentityChange, approved: &BTreeSet<String>| {
        let rules = Rules {
            max_removals: MaxRemovals::default(),
            window: HOUR,
            approved,
            complete: true,
            settled: true,
            writable: true,
            now: Timestamp::UNIX_EPOCH,
        };
        ledger.node(Some(change), &rules).is_some()
    };
    assert!(judge(&change, &BTreeSet::new()));
    let approved = BTreeSet::from([change.approval()]);
    assert!(!judge(&change, &approved));
    let other = identity_change(&before, &node(4_242_421_111, "fd00::2"), &BTreeSet::new());
    assert!(judge(&other.unwrap(), &approved), "approved was another");
}

#[test]
fn fields_of_the_operator_are_the_operators_own_act() {
    let (before, after) = (node(1, "fd00::1"), node(2, "fd00::2"));
    let asn = BTreeSet::from(["spec.asn".to_owned()]);
    let change = identity_change(&before, &after, &asn).unwrap();
    assert_eq!(change.without(after, &before), node(2, "fd00::1"));
    let mut region = node(1, "fd00::1");
    region.region = Some("elsewhere".to_owned());
    assert_eq!(identity_change(&before, &region, &BTreeSet::new()), None);
}

#[test]
fn unrecorded_links_wait_when_many_all_or_operator_owned() {
    let uids = |number: u32| -> BTreeSet<Uid> {
        let uid = |number| format!("uid-{number}").parse().unwrap();
        (0..number).map(uid).collect()
    };
    let none = BTreeSet::new();
    let limit = MaxRemovals::default();
    let held = |links: &BTreeSet<Uid>, known| {
        unrecorded(links, &BTreeSet::new(), known, limit, &none, true)
            .held
            .len()
    };
    assert_eq!(held(&uids(1), 9), 0);
    assert_eq!(held(&uids(4), 6), 4);
    assert_eq!(held(&uids(1), 0), 1);
    let own = BTreeSet::from([Uid::local("sessions", &name(1))]);
    assert_eq!(held(&own, 9), 1);
    assert_eq!(
        unrecorded(&uids(1), &BTreeSet::new(), 9, limit, &none, false)
            .held
            .len(),
        1
    );
    let approved = BTreeSet::from(["orphan/uid-0".to_owned()]);
    // No record disproves a link of a lost directory: each waits for approval.
    assert_eq!(
        unrecorded(&uids(1), &uids(1), 9, limit, &none, true)
            .held
            .len(),
        1
    );
    assert_eq!(
        unrecorded(&uids(1), &uids(1), 9, limit, &approved, true).go,
        uids(1)
    );
    assert_eq!(
        unrecorded(&uids(1), &BTreeSet::new(), 0, limit, &approved, true).go,
        uids(1)
    );
}
