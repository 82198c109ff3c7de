use serde_json::{Value, json};

use super::table::in_table;
use super::*;
use crate::plan::action::WireGuardPatch;

/// Tunnels `t0`, `t1`, … on these ports.
fn ruleset(ports: &[u16]) -> Ruleset {
    let tunnel = |(n, port): (usize, &u16)| (format!("t{n}").parse().unwrap(), Port::new(*port));
    Ruleset::new(ports.iter().enumerate().map(tunnel)).marked(&ownership())
}

fn ownership() -> Ownership {
    Ownership::of("4f1c8a09d2e7b365".parse().unwrap())
}

/// Returns the plan if this is the table `inet moenet_agent`.
fn planned(wanted: Option<&Ruleset>, found: Option<&Table>) -> Result<Option<Step>, Refusal> {
    let tables = found.map(|found| (TABLE_NAME.to_owned(), found.clone()));
    plan_firewall(wanted, &tables.into_iter().collect(), &ownership())
}

/// The ruleset as nft 1.0.6 lists it: handles, its own order of set elements, an empty set without
/// elements.
fn listed(ruleset: &Ruleset) -> Vec<Value> {
    let mut listing = vec![
        json!({"metainfo": {"version": "1.0.6", "json_schema_version": 1}}),
        json!({"table": {"family": "inet", "name": "moenet_agent", "handle": 7}}),
    ];
    for (handle, object) in ruleset.objects().into_iter().enumerate() {
        let mut object = in_table("moenet_agent", object);
        for body in object.as_object_mut().unwrap().values_mut() {
            body["handle"] = json!(handle);
            if let Some(Value::Array(elements)) = body.get_mut("elem") {
                elements.reverse();
            }
        }
        listing.push(object);
    }
    listing
}

fn reason(wanted: &Ruleset, listing: &[Value]) -> String {
    Table::parse(listing)
        .difference(wanted)
        .unwrap()
        .to_string()
}

#[test]
fn what_was_written_reads_back_as_no_difference() {
    for wanted in [ruleset(&[]), ruleset(&[24000, 9, 21080]), ruleset(&[0, 5])] {
        let found = Table::parse(&listed(&wanted));
        assert_eq!(found.difference(&wanted), None);
        assert_eq!(planned(Some(&wanted), Some(&found)), Ok(None));
    }
}

#[test]
fn a_reason_names_the_ports_and_tunnels_that_differ() {
    let wanted = ruleset(&[1, 2]);
    assert_eq!(
        reason(&wanted, &listed(&ruleset(&[1]))),
        "firewall.table: want port 2, tunnel t1, have (none)"
    );
    assert_eq!(
        reason(&ruleset(&[1]), &listed(&ruleset(&[7]))),
        "firewall.table: want port 1, have port 7"
    );
    let many: Vec<u16> = (1..30).collect();
    assert!(reason(&ruleset(&many), &listed(&ruleset(&[]))).contains(" and 50 more, have (none)"));

    let mut listing = listed(&wanted);
    listing.retain(|object| object.pointer("/rule/chain") != Some(&json!("output")));
    assert_eq!(
        reason(&wanted, &listing),
        "firewall.table: want rules of output, have (none)"
    );
    assert!(!Table::parse(&listing).may_spell(&wanted));
}

#[test]
fn added_changed_or_moved_rule_is_a_difference() {
    let wanted = ruleset(&[1]);
    let mut listing = listed(&wanted);
    listing.push(json!({"rule": {"chain": "input", "expr": [{"drop": null}], "handle": 99}}));
    assert_eq!(
        reason(&wanted, &listing),
        "firewall.table: want (none), have rules of input"
    );

    let mut listing = listed(&wanted);
    listing.push(json!({"map": {"name": "m", "type": "mark", "handle": 99}}));
    assert_eq!(
        reason(&wanted, &listing),
        "firewall.table: want (none), have map m"
    );

    let mut listing = listed(&wanted);
    let forward: Vec<_> = (0..listing.len())
        .filter(|at| listing[*at].pointer("/rule/chain") == Some(&json!("forward")))
        .collect();
    listing.swap(forward[0], forward[1]);
    assert_eq!(
        reason(&wanted, &listing),
        "firewall.table: want its rules in order, have another order"
    );
}

#[test]
fn other_spelling_is_accepted_only_if_all_else_agrees() {
    let wanted = ruleset(&[1]);
    let mut listing = listed(&wanted);
    for object in &mut listing {
        if let Some(op) = object.pointer_mut("/rule/expr/1/match/op") {
            *op = json!("!=");
        }
    }
    let mut found = Table::parse(&listing);
    assert!(found.may_spell(&wanted) && !found.may_spell(&ruleset(&[2])));
    assert!(found.difference(&wanted).is_some());
    found.spelled = Some(wanted.clone());
    assert_eq!(found.difference(&wanted), None);
    assert!(found.difference(&ruleset(&[2])).is_some());
}

#[test]
fn disabled_firewall_removes_only_an_existing_table() {
    let found = Table::parse(&listed(&ruleset(&[1])));
    let step = planned(None, Some(&found)).unwrap().unwrap();
    assert_eq!(
        step.to_string(),
        "delete nftables table inet moenet_agent (firewall.enabled: want (none), have inet moenet_agent)"
    );
    assert_eq!(planned(None, None), Ok(None));
    let step = planned(Some(&ruleset(&[5])), None).unwrap().unwrap();
    assert_eq!(
        step.to_string(),
        "write nftables table inet moenet_agent (1 UDP port, 1 tunnel) \
         (firewall.table: want inet moenet_agent, have (none))"
    );
}

#[test]
fn unmarked_table_is_neither_replaced_nor_removed() {
    let foreign = [
        json!({"chain": {"name": "input", "handle": 1}}),
        json!({"rule": {"chain": "input", "expr": []}}),
    ];
    let found = Table::parse(&foreign);
    assert_eq!(planned(None, Some(&found)), Ok(None));
    assert!(
        planned(Some(&ruleset(&[])), Some(&found))
            .unwrap_err()
            .reason
            .contains("without the agent's mark")
    );
}

#[test]
fn flushed_table_is_ours_only_where_a_record_names_it() {
    let recorded = Ownership {
        firewall: true,
        ..ownership()
    };
    let mut listing = listed(&ruleset(&[1]));
    listing.retain(|object| object.get("rule").is_none());
    let flushed = Table::parse(&listing);
    assert_eq!(flushed.whose(&recorded), Whose::Ours);
    assert_eq!(flushed.whose(&ownership()), Whose::AnotherAgents);
    listing.push(json!({"set": {"name": "mine", "type": "inet_service"}}));
    assert_eq!(Table::parse(&listing).whose(&recorded), Whose::Strangers);
    let earlier = Table::parse(&listed(&Ruleset::new([])));
    assert_eq!(earlier.whose(&recorded), Whose::Ours);
    assert_eq!(earlier.whose(&ownership()), Whose::AnotherAgents);
}

#[test]
fn table_of_another_agent_stays_and_ours_has_another_name() {
    let other = Ownership::of("00000000000000ff".parse().unwrap());
    let theirs = Table::parse(&listed(&ruleset(&[7]).marked(&other)));
    let wanted = ruleset(&[1]);
    let mut tables = BTreeMap::from([(TABLE_NAME.to_owned(), theirs)]);
    let step = plan_firewall(Some(&wanted), &tables, &ownership());
    let step = step.unwrap().unwrap().to_string();
    assert!(
        step.starts_with("write nftables table inet moenet_agent_4f1c8a09d2e7b365 "),
        "{step}"
    );
    assert_eq!(plan_firewall(None, &tables, &ownership()), Ok(None));
    let ours = Table::parse(&listed(&wanted));
    tables.insert("moenet_agent_4f1c8a09d2e7b365".to_owned(), ours);
    assert_eq!(
        plan_firewall(Some(&wanted), &tables, &ownership()),
        Ok(None)
    );
    // The other agent leaves; this agent's table keeps its name.
    tables.remove(TABLE_NAME);
    assert_eq!(
        plan_firewall(Some(&wanted), &tables, &ownership()),
        Ok(None)
    );
    let step = plan_firewall(None, &tables, &ownership()).unwrap().unwrap();
    assert!(matches!(
        step.action,
        Action::Firewall(FirewallAction::Remove { .. })
    ));
}

#[test]
fn ruleset_covers_the_tunnels_left_by_the_plan() {
    let step = |action| Step::kernel(action, Drift::missing("x", "y"));
    let uid = || "abc".parse().unwrap();
    let patch = WireGuardPatch {
        listen_port: Port::new(7),
        ..WireGuardPatch::default()
    };
    let t1 = || "t1".parse().unwrap();
    let steps = [
        step(KernelAction::CreateLink {
            interface: t1(),
            kind: NewLink::WireGuard,
        }),
        step(KernelAction::SetMark {
            interface: t1(),
            uid: uid(),
        }),
        step(KernelAction::ConfigureWireGuard {
            interface: t1(),
            patch,
        }),
        step(KernelAction::CreateLink {
            interface: "dummy0".parse().unwrap(),
            kind: NewLink::Dummy,
        }),
        step(KernelAction::DeleteLink {
            interface: "t0".parse().unwrap(),
            uid: uid(),
        }),
    ];
    let after = ruleset(&[5]).after(&steps, &KernelView::default());
    let wanted = Ruleset::new([(t1(), Port::new(7))]).marked(&ownership());
    assert_eq!(after, wanted);
}

fn tunnel(port: Option<u16>) -> Link {
    let wireguard = port.map(|port| crate::observed::kernel::WireGuard {
        listen_port: Port::new(port),
        ..Default::default()
    });
    Link {
        index: 3,
        kind: LinkKind::Tun,
        mtu: 1420,
        up: true,
        mark: crate::observed::Mark::Ours("u-1".parse().unwrap()),
        addrgen_none: true,
        addresses: BTreeSet::new(),
        routes: BTreeSet::new(),
        unread: wireguard.is_none().then(Default::default),
        wireguard,
        gre: None,
        learnt: false,
        sysctls: BTreeMap::new(),
    }
}

#[test]
fn tunnel_that_cannot_be_read_keeps_its_last_port() {
    let name = || "wg_1".parse().unwrap();
    let view = |port| KernelView {
        links: [(name(), tunnel(port))].into_iter().collect(),
        ..KernelView::default()
    };
    let mut before = view(Some(24000));
    for _ in 0..2 {
        let mut now = view(None);
        now.keep_ports(&before);
        assert_eq!(Ruleset::in_use(&now), Ruleset::in_use(&view(Some(24000))));
        before = now;
    }
    let never_seen = Ruleset::in_use(&view(None)).or_wanted(&view(None), |_| Port::new(7));
    assert_eq!(never_seen.ports(), [Port::new(7).unwrap()].into());
}

#[test]
fn only_chains_of_others_that_drop_by_default_are_named() {
    let chain = |hook: &str, policy: &str| json!({"chain": {"family": "inet", "table": "filter", "name": hook, "hook": hook, "policy": policy}});
    let chains = [
        chain("input", "drop"),
        chain("forward", "accept"),
        chain("output", "drop"),
        json!({"metainfo": {}}),
    ];
    assert_eq!(table::dropping(&chains), ["inet filter input"]);
}
