use super::*;

fn ruleset(ports: &[u16], interfaces: &[&str]) -> Ruleset {
    Ruleset {
        ports: ports.iter().filter_map(|port| Port::new(*port)).collect(),
        interfaces: interfaces.iter().map(|name| name.parse().unwrap()).collect(),
    }
}

/// The ruleset as nft 1.0.6 lists it: handles, its own order of set elements, an empty set without
/// elements.
fn listed(ruleset: &Ruleset) -> Vec<Value> {
    let mut listing = vec![
        json!({"metainfo": {"version": "1.0.6", "json_schema_version": 1}}),
        json!({"table": {"family": "inet", "name": "moenet_agent", "handle": 7}}),
    ];
    for (handle, object) in ruleset.objects().into_iter().enumerate() {
        let mut object = in_table(object);
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

#[test]
fn what_was_written_reads_back_as_no_difference() {
    for wanted in [ruleset(&[], &[]), ruleset(&[24000, 9, 21080], &["wg_1", "mesh_a", "a.100"])] {
        let found = Table::parse(&listed(&wanted));
        assert_eq!(found.difference(&wanted), None);
        assert_eq!(plan(Some(&wanted), Some(&found)), None);
    }
}

#[test]
fn a_difference_names_what_differs() {
    let wanted = ruleset(&[1, 2], &["wg_1"]);
    let found = Table::parse(&listed(&ruleset(&[1], &["wg_1"])));
    assert_eq!(found.difference(&wanted).as_deref(), Some("set tunnel_ports differ"));

    let mut listing = listed(&wanted);
    listing.retain(|object| object.pointer("/rule/chain") != Some(&json!("output")));
    let found = Table::parse(&listing);
    assert_eq!(found.difference(&wanted).as_deref(), Some("rules of output differ"));
    assert!(!found.may_spell(&wanted));
}

#[test]
fn a_rule_that_somebody_adds_or_changes_is_a_difference() {
    let wanted = ruleset(&[1], &["wg_1"]);
    let mut listing = listed(&wanted);
    listing.push(json!({"rule": {"chain": "input", "expr": [{"drop": null}], "handle": 99}}));
    assert!(Table::parse(&listing).difference(&wanted).is_some());

    let mut listing = listed(&wanted);
    listing.push(json!({"map": {"name": "m", "type": "mark", "handle": 99}}));
    assert!(Table::parse(&listing).difference(&wanted).is_some());
}

#[test]
fn another_spelling_of_the_same_rules_is_accepted_only_when_all_else_agrees() {
    let wanted = ruleset(&[1], &["wg_1"]);
    let mut listing = listed(&wanted);
    for object in &mut listing {
        if let Some(op) = object.pointer_mut("/rule/expr/1/match/op") {
            *op = json!("!=");
        }
    }
    let mut found = Table::parse(&listing);
    assert!(found.may_spell(&wanted) && !found.may_spell(&ruleset(&[2], &["wg_1"])));
    assert!(found.difference(&wanted).is_some());
    found.spelled = Some(wanted.clone());
    assert_eq!(found.difference(&wanted), None);
    assert!(found.difference(&ruleset(&[2], &["wg_1"])).is_some());
}

#[test]
fn a_disabled_firewall_removes_the_table_and_a_table_that_is_not_there_is_no_step() {
    let found = Table::parse(&listed(&ruleset(&[1], &[])));
    assert_eq!(plan(None, Some(&found)).unwrap().action, FirewallAction::Remove);
    assert_eq!(plan(None, None), None);
    let wanted = ruleset(&[], &[]);
    assert_eq!(plan(Some(&wanted), None).unwrap().because, "it is not there");
}
