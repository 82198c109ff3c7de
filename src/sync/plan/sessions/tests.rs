use serde_json::json;

use super::*;
use crate::store::Store;

/// Returns the ports of new sessions, whose documents name none, next to one backbone tunnel with this node id.
fn ports_beside_a_tunnel(node_id: u16) -> Vec<u16> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let peer =
        json!({"nodeId": node_id, "publicKey": "DM06RLaHzdCGBYhFFvrUXIcyqJG1lZAMlPbWzwr4ajg="});
    let peer: MeshPeerSpec = serde_json::from_value(peer).unwrap();
    let name = ObjectName::sanitised("peer");
    store
        .write_document(&Document::new(
            name,
            Some("uid-peer".parse().unwrap()),
            1,
            peer,
        ))
        .unwrap();
    let item = |asn: u32, uid: &str| {
        let spec = json!({
            "asn": asn, "tunnel": {"type": "wireguard", "interface": format!("wg_{uid}")},
            "address": {"peerLinkLocal": "fe80::1"}
        });
        SessionItem {
            uid: uid.parse().unwrap(),
            status: WireStatus::Active,
            name_hint: None,
            spec: Some(serde_json::from_value(spec).unwrap()),
            preshared_key: None,
            password: None,
        }
    };
    // One session with the conventional port 23457, and another with the same.
    let items = vec![item(4_242_423_457, "a"), item(4_242_413_457, "b")];
    let listing = Listing {
        items,
        rejected: Vec::new(),
        complete: true,
    };
    let bases = PortBases {
        sessions: 23_456,
        mesh: 23_455,
    };
    let changes = plan_sessions(&listing, &store.load().unwrap(), bases, |_| false);
    let port = |change: SessionChange| match change.document {
        Some(Change::Write(document)) => document.spec.tunnel.listen_port.unwrap().get(),
        other => panic!("{other:?}"),
    };
    changes.into_iter().map(port).collect()
}

/// Returns the change that a listing makes to a broken document of the sync; without a status, the session is
/// not listed.
fn about_a_broken_one(
    status: Option<WireStatus>,
    complete: bool,
) -> Option<Change<BgpSessionSpec>> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let spec = |mtu: u16| {
        serde_json::from_value::<BgpSessionSpec>(json!({
            "asn": 4_242_421_080_u32, "tunnel": {"type": "wireguard", "interface": "wg_1", "mtu": mtu},
            "address": {"peerLinkLocal": "fe80::1"}
        }))
        .unwrap()
    };
    let uid: Uid = "uid-1".parse().unwrap();
    let name = ObjectName::sanitised("wg_1");
    store
        .write_document(&Document::new(name, Some(uid.clone()), 1, spec(1420)))
        .unwrap();
    std::fs::write(dir.path().join("sessions/wg_1.yaml"), "spec: {").unwrap();
    let item = |status| SessionItem {
        uid: uid.clone(),
        status,
        name_hint: None,
        spec: (status != WireStatus::QueuedForDelete).then(|| spec(1400)),
        preshared_key: None,
        password: None,
    };
    let items = status.into_iter().map(item).collect();
    let listing = Listing {
        items,
        rejected: Vec::new(),
        complete,
    };
    let bases = PortBases {
        sessions: 24_000,
        mesh: 23_455,
    };
    let changes = plan_sessions(&listing, &store.load().unwrap(), bases, |_| false);
    assert!(changes.len() <= 1, "{changes:?}");
    changes
        .into_iter()
        .next()
        .and_then(|change| change.document)
}

#[test]
fn broken_document_does_not_block_a_control_plane_removal() {
    let state = |status| match about_a_broken_one(Some(status), true) {
        Some(Change::Displace(document)) => Some(document.spec.admin_state),
        None => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        state(WireStatus::Active),
        None,
        "what it is to be instead waits"
    );
    assert_eq!(state(WireStatus::Disabled), Some(AdminState::Disabled));
    assert_eq!(state(WireStatus::QueuedForDelete), Some(AdminState::Absent));
    assert!(matches!(
        about_a_broken_one(None, true),
        Some(Change::Remove(_))
    ));
    assert!(about_a_broken_one(None, false).is_none());
}

#[test]
fn removed_item_that_stays_listed_makes_no_document() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let item = SessionItem {
        uid: "uid-1".parse().unwrap(),
        status: WireStatus::QueuedForDelete,
        name_hint: None,
        spec: serde_json::from_value(
            json!({"asn": 4_242_421_080_u32, "tunnel": {"type": "wireguard"}}),
        )
        .ok(),
        preshared_key: None,
        password: None,
    };
    let listing = Listing {
        items: vec![item],
        rejected: Vec::new(),
        complete: true,
    };
    let bases = PortBases {
        sessions: 24_000,
        mesh: 23_455,
    };
    let plan = |is_gone| plan_sessions(&listing, &store.load().unwrap(), bases, |_| is_gone);
    assert_eq!(plan(true), []);
    assert_eq!(plan(false).len(), 1, "a link is left");
}

#[test]
fn new_sessions_avoid_derived_backbone_ports() {
    assert_eq!(ports_beside_a_tunnel(2), [23_456, 23_458]);
    assert_eq!(ports_beside_a_tunnel(99), [23_457, 23_456]);
}

#[test]
fn long_uuids_with_the_same_beginning_get_different_names() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let item = |end: char| SessionItem {
        uid: format!("{}{end}", "u".repeat(60)).parse().unwrap(),
        status: WireStatus::QueuedForDelete,
        name_hint: None,
        spec: serde_json::from_value(json!({"asn": 4_242_421_080_u32, "tunnel": {}})).ok(),
        preshared_key: None,
        password: None,
    };
    let listing = Listing {
        items: ('a'..='l').map(item).collect(),
        rejected: Vec::new(),
        complete: true,
    };
    let bases = PortBases {
        sessions: 24_000,
        mesh: 23_455,
    };
    let changes = plan_sessions(&listing, &store.load().unwrap(), bases, |_| false);
    let names: BTreeSet<_> = changes.iter().map(|change| &change.name).collect();
    assert_eq!(names.len(), 12, "{names:?}");
}

/// Returns the changes that a list with this uuid, interface and key makes to an applied session `wg_1`.
fn about_a_renewed_one(uid: &str, interface: &str, complete: bool) -> Vec<SessionChange> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let spec = |interface: &str| {
        serde_json::from_value::<BgpSessionSpec>(json!({
            "asn": 4_242_421_080_u32, "address": {"peerLinkLocal": "fe80::1"},
            "tunnel": {"type": "wireguard", "interface": interface,
                       "publicKey": "DM06RLaHzdCGBYhFFvrUXIcyqJG1lZAMlPbWzwr4ajg="}
        }))
        .unwrap()
    };
    let old = Some("uid-1".parse().unwrap());
    let document = Document::new(ObjectName::sanitised("wg_1"), old, 1, spec("wg_1"));
    store.write_document(&document).unwrap();
    let item = SessionItem {
        uid: uid.parse().unwrap(),
        status: WireStatus::Active,
        name_hint: None,
        spec: Some(spec(interface)),
        preshared_key: None,
        password: None,
    };
    let listing = Listing {
        items: vec![item],
        rejected: Vec::new(),
        complete,
    };
    let bases = PortBases {
        sessions: 24_000,
        mesh: 23_455,
    };
    plan_sessions(&listing, &store.load().unwrap(), bases, |_| false)
}

#[test]
fn new_uuid_of_same_peering_updates_its_document() {
    let changes = about_a_renewed_one("uid-2", "wg_1", true);
    let [change] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!(change.formerly, Some("uid-1".parse().unwrap()));
    let Some(Change::Write(document)) = &change.document else {
        panic!("{change:?}")
    };
    assert_eq!(document.metadata.name.as_str(), "wg_1");
    assert_eq!(document.metadata.uid, Some("uid-2".parse().unwrap()));
    assert_eq!(document.metadata.generation, 2);
}

#[test]
fn incomplete_list_changes_no_uuid_and_adds_no_session() {
    assert_eq!(about_a_renewed_one("uid-2", "wg_1", false), []);
}

#[test]
fn a_new_uuid_of_another_peering_is_another_session() {
    let changes = about_a_renewed_one("uid-2", "wg_2", true);
    assert_eq!(changes.len(), 2);
    assert!(changes.iter().all(|change| change.formerly.is_none()));
}
