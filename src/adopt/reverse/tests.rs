use std::collections::BTreeMap;

use super::*;
use crate::model::{Port, PublicKey};
use crate::observed::Mark;
use crate::observed::kernel::{LinkKind, WireGuard, WireGuardPeer};

const NAME: &str = "wg1";

fn link(mark: Mark) -> Link {
    let peer = WireGuardPeer {
        keepalive: Some(25),
        allowed_ips: ["::/0".parse().unwrap()].into(),
        endpoint: "192.0.2.1:1".parse().ok(),
        ..Default::default()
    };
    Link {
        index: 1,
        kind: LinkKind::WireGuard,
        mtu: 1420,
        up: true,
        mark,
        addrgen_none: true,
        addresses: [Address::new("fe80::1/64".parse().unwrap(), None)].into(),
        routes: Default::default(),
        wireguard: Some(WireGuard {
            public_key: None,
            listen_port: Port::new(1),
            peers: [(PublicKey::new([1; 32]), peer.into())].into(),
        }),
        unread: None,
        gre: None,
        learnt: false,
        sysctls: BTreeMap::new(),
    }
}

fn ours() -> Mark {
    Mark::Ours("local/sessions/wg1".parse().unwrap())
}

fn record() -> Record {
    let sysctls = [(Sysctl::RpFilter, 2)].into();
    let before = LinkSettings::of(&link(Mark::None), &sysctls, BTreeSet::new());
    Record {
        begun: "2026-01-01T00:00:00Z".parse().unwrap(),
        deadline: "2026-01-01T00:01:00Z".parse().unwrap(),
        phase: Phase::Applying,
        machine: None,
        documents: ["wg1".parse().unwrap()].into(),
        overrides: [].into(),
        written: Default::default(),
        state_existed: false,
        links: [(NAME.parse().unwrap(), before)].into(),
        left: [].into(),
        added: [placed("fe80::1/128")].into(),
        all: [].into(),
        all_left: [].into(),
        enabled: BTreeSet::new(),
        units: [].into(),
        files: Vec::new(),
        files_left: [].into(),
        made: [].into(),
        folders: [].into(),
    }
}

fn placed(local: &str) -> Placed {
    Placed {
        interface: NAME.parse().unwrap(),
        address: LinkAddress {
            local: local.parse().unwrap(),
            peer: None,
        },
    }
}

/// The undo of a record from this link, where nothing has a route.
fn undo(record: &Record, link: Link, scope: Scope) -> Vec<Restoration> {
    let (kernel, routes) = (&view(link), &BTreeMap::new());
    reverse(record, Now { kernel, routes }, scope)
}

/// A record with the state after the pass.
fn with_left(left: &Link) -> Record {
    let mut record = record();
    let settings = LinkSettings::of(left, &left.sysctls, BTreeSet::new());
    record.left.insert(NAME.parse().unwrap(), settings);
    record
}

fn view(link: Link) -> KernelView {
    let links = [(NAME.parse().unwrap(), link)].into_iter().collect();
    KernelView {
        links,
        ..KernelView::default()
    }
}

fn steps(link: Link) -> Vec<String> {
    let found = undo(&record(), link, Scope::Everything);
    let all = found.into_iter().flat_map(|it| {
        let last = it.last.into_iter();
        it.settings.into_iter().chain(last)
    });
    all.map(|it| it.to_string()).collect()
}

#[test]
fn link_without_mark_is_left_alone() {
    let mut changed = link(Mark::None);
    changed.mtu = 1300;
    assert_eq!(steps(changed), Vec::<String>::new());
    let foreign = link(Mark::Foreign("of another".into()));
    assert_eq!(steps(foreign), Vec::<String>::new());
}

#[test]
fn every_changed_setting_is_restored_before_the_mark_goes() {
    let mut changed = link(ours());
    changed.mtu = 1300;
    changed.addresses = [Address::new("fe80::1/128".parse().unwrap(), None)].into();
    changed.sysctls = [(Sysctl::RpFilter, 0)].into();
    let wireguard = changed.wireguard.as_mut().unwrap();
    wireguard.listen_port = Port::new(2);
    for peer in wireguard.peers.values_mut() {
        peer.keepalive = None;
        peer.endpoint = "192.0.2.9:9".parse().ok();
    }
    let found = steps(changed);
    let kinds: Vec<_> = found
        .iter()
        .map(|it| it.split(' ').next().unwrap())
        .collect();
    let want = ["set", "set", "remove", "add", "set", "clear"];
    assert_eq!(kinds, want, "{found:#?}");
    assert!(found[0].contains("listen port 1"), "{found:#?}");
    assert!(
        found[0].contains("at 192.0.2.1:1 keepalive 25"),
        "{found:#?}"
    );
}

#[test]
fn later_undo_keeps_the_endpoint() {
    let mut moved = link(ours());
    let wireguard = moved.wireguard.as_mut().unwrap();
    let peers = wireguard.peers.values_mut();
    peers.for_each(|peer| peer.endpoint = "192.0.2.9:9".parse().ok());
    let kept = Record {
        phase: Phase::Kept,
        ..record()
    };
    let found = undo(&kept, moved.clone(), Scope::Adopted);
    let settings = found[0].settings.iter();
    assert!(
        settings
            .clone()
            .all(|it| matches!(it, KernelAction::SetSysctl { .. }))
    );
    assert_ne!(undo(&record(), moved, Scope::Adopted), found);
}

fn other_link() -> Link {
    Link {
        index: 9,
        ..link(ours())
    }
}

#[test]
fn renamed_link_is_never_deleted() {
    let links = [("renamed".parse().unwrap(), link(ours()))];
    let kernel = KernelView {
        links: links.into_iter().collect(),
        ..KernelView::default()
    };
    for scope in [Scope::Everything, Scope::Adopted] {
        let (kernel, routes) = (&kernel, &BTreeMap::new());
        let found = reverse(&record(), Now { kernel, routes }, scope);
        assert!(matches!(
            found[0].last,
            Some(KernelAction::ClearMark { .. })
        ));
        assert!(found[0].kept[0].contains("renamed since"), "{found:#?}");
    }
}

#[test]
fn created_link_goes_only_with_everything() {
    let other = KernelView {
        links: [("dummy0".parse().unwrap(), other_link())]
            .into_iter()
            .collect(),
        ..KernelView::default()
    };
    let of = |scope| {
        let routes = &BTreeMap::new();
        let kernel = &other;
        reverse(&record(), Now { kernel, routes }, scope)
    };
    let found = of(Scope::Everything);
    assert!(matches!(
        found[0].last,
        Some(KernelAction::DeleteLink { .. })
    ));
    assert_eq!(of(Scope::Adopted), []);
}

#[test]
fn setting_that_was_changed_since_is_kept_and_named() {
    let mut left = link(ours());
    left.mtu = 1400;
    left.sysctls = [(Sysctl::RpFilter, 0)].into();
    let record = with_left(&left);
    let as_left = undo(&record, left.clone(), Scope::Adopted);
    let texts: Vec<_> = as_left[0]
        .settings
        .iter()
        .map(ToString::to_string)
        .collect();
    let want = [
        "set MTU of wg1 to 1420",
        "set sysctl ipv4.rp_filter of wg1 to 2",
    ];
    assert_eq!(
        (texts, as_left[0].kept.len()),
        (want.map(str::to_owned).to_vec(), 0)
    );
    let mut changed = left;
    changed.mtu = 1300;
    changed.sysctls = [(Sysctl::RpFilter, 1)].into();
    changed.wireguard.as_mut().unwrap().listen_port = Port::new(7);
    let found = undo(&record, changed, Scope::Adopted);
    assert_eq!(found[0].settings, []);
    let kept = found[0].kept.join("; ");
    for what in [
        "the MTU of wg1",
        "the listening port of wg1",
        "sysctl ipv4.rp_filter of wg1",
    ] {
        assert!(
            kept.contains(&format!("{what} was changed since")),
            "{kept}"
        );
    }
}

#[test]
fn address_that_the_plan_did_not_add_stays() {
    let foreign = || Address::new("172.20.9.9/32".parse().unwrap(), None);
    let mut now = link(ours());
    now.addresses.insert(foreign());
    for record in [record(), with_left(&link(ours())), with_left(&now)] {
        let found = undo(&record, now.clone(), Scope::Everything);
        let removes = |it: &KernelAction| matches!(it, KernelAction::RemoveAddress { .. });
        assert!(!found[0].settings.iter().any(removes), "{found:#?}");
        assert!(found[0].kept[0].contains("172.20.9.9/32"), "{found:#?}");
    }
}

#[test]
fn address_that_an_operator_removed_since_stays_away() {
    let record = with_left(&link(ours()));
    let mut now = link(ours());
    now.addresses.clear();
    let found = undo(&record, now, Scope::Adopted);
    assert_eq!(found[0].settings.len(), 1, "the sysctl alone: {found:#?}");
    assert!(found[0].kept[0].contains("was removed since"));
}

#[test]
fn link_that_was_down_goes_down_again() {
    let mut record = record();
    let before = record.links.values_mut().next().unwrap();
    before.up = Some(false);
    let found = undo(&record, link(ours()), Scope::Everything);
    let is_down = |it: &KernelAction| matches!(it, KernelAction::SetDown { .. });
    assert!(found[0].settings.iter().any(is_down));
    // A record of an earlier build does not say.
    record.links.values_mut().next().unwrap().up = None;
    let found = undo(&record, link(ours()), Scope::Everything);
    assert!(!found[0].settings.iter().any(is_down));
}

#[test]
fn only_routes_that_went_with_the_adoption_come_back() {
    let route = |text: &str| SavedRoute(text.to_owned());
    let interface: InterfaceName = NAME.parse().unwrap();
    let mut record = with_left(&link(ours()));
    record.links.get_mut(&interface).unwrap().routes = [route("a"), route("b")].into();
    record.left.get_mut(&interface).unwrap().routes = [route("b")].into();
    let kernel = &view(link(ours()));
    let of = |routes: BTreeSet<SavedRoute>| {
        let routes = &[(interface.clone(), routes)].into();
        let found = reverse(&record, Now { kernel, routes }, Scope::Adopted);
        found[0].routes.clone()
    };
    assert_eq!(of([].into()), [route("a")].into(), "b was removed since");
    assert_eq!(of([route("a")].into()), [].into());
}

/// What an undo does after one that changed this much and then failed.
fn repeated(record: &Record, before: Link, now: Link) -> Restoration {
    let (kernel, routes) = (&view(before), &BTreeMap::new());
    let again = forgetting(record, Now { kernel, routes });
    undo(&again, now, Scope::Adopted).remove(0)
}

#[test]
fn repeated_undo_restores_what_the_first_took_away() {
    let mut bare = link(ours());
    bare.addresses.clear();
    let found = repeated(&with_left(&link(ours())), link(ours()), bare);
    assert!(found.kept.is_empty(), "{found:#?}");
    let adds = |it: &KernelAction| matches!(it, KernelAction::AddAddress { .. });
    assert!(found.settings.iter().any(adds), "{found:#?}");
}

#[test]
fn repeated_undo_removes_what_the_adoption_added() {
    let mut left = link(ours());
    let added = Address::from(&placed("fe80::1/128").address);
    left.addresses.insert(added);
    let found = repeated(&with_left(&left), left.clone(), left);
    assert!(found.kept.is_empty(), "{found:#?}");
    let removes = |it: &KernelAction| matches!(it, KernelAction::RemoveAddress { .. });
    assert!(found.settings.iter().any(removes), "{found:#?}");
}

#[test]
fn sysctl_of_all_links_returns_only_if_still_as_left() {
    let name = Sysctl::RpFilter.to_string();
    let value = |before: Option<i64>, left: Option<i64>, now: i64| {
        let named = |value: Option<i64>| value.map(|value| (name.clone(), value));
        let record = Record {
            all: named(before).into_iter().collect(),
            all_left: named(left).into_iter().collect(),
            ..record()
        };
        let kernel = KernelView {
            all: [(Sysctl::RpFilter, now)].into(),
            ..KernelView::default()
        };
        reverse_host(&record, &kernel).map(|action| action.to_string())
    };
    let back = Some("set sysctl ipv4.rp_filter of all to 2".to_owned());
    assert_eq!(value(Some(2), Some(0), 0), back);
    assert_eq!(value(Some(2), None, 0), back, "the pass did not end");
    assert_eq!(value(None, None, 0), None, "the plan did not set it");
    assert_eq!(value(Some(2), Some(2), 0), None, "an operator set it since");
    assert_eq!(value(Some(2), Some(0), 1), None, "an operator set it since");
    assert_eq!(value(Some(0), Some(0), 0), None);
}

#[test]
fn interface_that_is_gone_is_named() {
    assert_eq!(gone(&record(), &KernelView::default()).len(), 1);
    assert_eq!(gone(&record(), &view(link(Mark::None))), [""; 0]);
    let renamed = KernelView {
        links: [("renamed".parse().unwrap(), link(ours()))]
            .into_iter()
            .collect(),
        ..KernelView::default()
    };
    assert_eq!(gone(&record(), &renamed), [""; 0]);
}

#[test]
fn record_of_an_earlier_build_is_read() {
    let mut value = serde_json::to_value(record()).unwrap();
    let all = value.as_object_mut().unwrap();
    for key in ["machine", "written", "left", "filesLeft", "allLeft", "made"] {
        assert!(all.remove(key).is_some(), "{key}");
    }
    let link = all["links"][NAME].as_object_mut().unwrap();
    assert!(link.remove("up").is_some() && link.remove("routes").is_some());
    serde_json::from_value::<Record>(value).unwrap();
}

#[test]
fn record_survives_its_text() {
    let text = serde_json::to_string(&record()).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record());
}
