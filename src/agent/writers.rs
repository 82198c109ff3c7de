//! Who writes which file of the state directory, and what may stand in its history.

use std::collections::BTreeMap;

use crate::document::{
    BgpSessionSpec, IbgpPeerSpec, Kind, MaintenanceSpec, MeshPeerSpec, NodeSpec, OverrideSpec,
    RoutingPolicySpec, Spec, parse, parse_value, unknown_field,
};
use crate::model::ObjectName;
use crate::store::{AppliedDocument, Area, Place, Slot, Snapshot};

/// The valid documents of a state directory, by who writes them.
#[derive(Debug, Default)]
pub(super) struct Writers {
    /// The sync's. Not those that were edited in place: such an edit is recorded as the override it becomes.
    pub(super) synced: Vec<Place>,
    /// People's, by the owner of the file.
    pub(super) persons: BTreeMap<u32, Vec<Place>>,
    /// The agent's.
    pub(super) in_force: Vec<Place>,
}

pub(super) fn writers(snapshot: &Snapshot) -> Writers {
    let mut found = Writers::default();
    let exceptions = snapshot.overrides.iter();
    let exceptions = exceptions.filter_map(|((kind, name), slot)| file(Area::Overrides, *kind, name, slot));
    let documents = single(snapshot.node.as_ref())
        .chain(single(snapshot.policy.as_ref()))
        .chain(single(snapshot.maintenance.as_ref()))
        .chain(many(&snapshot.sessions))
        .chain(many(&snapshot.mesh))
        .chain(many(&snapshot.ibgp));
    for file in documents.chain(exceptions) {
        if !file.synced {
            found.persons.entry(file.owner).or_default().push(file.place);
        } else if !snapshot.edits.iter().any(|edit| edit.place == file.place) {
            found.synced.push(file.place);
        }
    }
    let in_force = snapshot.applied.keys();
    found.in_force = in_force.map(|(kind, name)| Place::new(Area::Applied, *kind, name)).collect();
    found
}

struct File {
    place: Place,
    synced: bool,
    owner: u32,
}

fn file<S>(area: Area, kind: Kind, name: &ObjectName, slot: &Slot<S>) -> Option<File> {
    let stored = slot.as_ref().ok()?;
    let synced = stored.document.metadata.uid.is_some();
    Some(File { place: Place::new(area, kind, name), synced, owner: stored.owner })
}

fn single<S: Spec>(slot: Option<&Slot<S>>) -> impl Iterator<Item = File> {
    let name = ObjectName::sanitised(S::KIND.folder());
    slot.and_then(|slot| file(Area::Documents, S::KIND, &name, slot)).into_iter()
}

fn many<S: Spec>(slots: &BTreeMap<ObjectName, Slot<S>>) -> impl Iterator<Item = File> {
    slots.iter().filter_map(|(name, slot)| file(Area::Documents, S::KIND, name, slot))
}

/// Whether a text may stand in the history: only a document of its place. A text that is none may hold a
/// key that somebody took for a field of ours, and the history is for ever.
pub(super) fn is_document(place: &Place, text: &[u8]) -> bool {
    fn is<S: Spec>(text: &str) -> bool {
        parse::<S>(text).is_ok()
    }
    let Ok(text) = std::str::from_utf8(text) else { return false };
    match (place.area, place.kind) {
        (Area::Status, _) | (Area::Documents, Kind::Override) => false,
        (Area::Applied, _) => parse_value::<AppliedDocument>(text).is_ok(),
        // What `set` holds is judged with the document that it changes, which may come later.
        (Area::Overrides, kind) => parse::<OverrideSpec>(text)
            .is_ok_and(|document| unknown_field(kind, &document.spec.set).is_none()),
        (Area::Documents, Kind::Node) => is::<NodeSpec>(text),
        (Area::Documents, Kind::RoutingPolicy) => is::<RoutingPolicySpec>(text),
        (Area::Documents, Kind::Maintenance) => is::<MaintenanceSpec>(text),
        (Area::Documents, Kind::BgpSession) => is::<BgpSessionSpec>(text),
        (Area::Documents, Kind::MeshPeer) => is::<MeshPeerSpec>(text),
        (Area::Documents, Kind::IbgpPeer) => is::<IbgpPeerSpec>(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_a_field_of_its_own_does_not_get_in() {
        let place = Place::new(Area::Overrides, Kind::BgpSession, &"wg_1".parse().unwrap());
        let good = "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {name: wg_1}\n\
                    spec: {reason: x, set: {tunnel: {mtu: 1400}}}\n";
        assert!(is_document(&place, good.as_bytes()));
        for (from, to) in [
            ("reason: x", "reason: x, presharedKey: hunter2"),
            ("{mtu: 1400}", "{presharedKey: hunter2}"),
            ("{mtu: 1400}", "{mtu: {key: hunter2}}"),
            ("{mtu: 1400}", "{mtu: [hunter2]}"),
            ("{mtu: 1400}", "hunter2"),
            ("{tunnel: {mtu: 1400}}", "{password: hunter2}"),
        ] {
            let bad = good.replace(from, to);
            assert!(bad.contains("hunter2") && !is_document(&place, bad.as_bytes()), "{bad}");
        }
        for set in ["{bgp: {extensions: [mp-bgp], policy: null}, address: {peerIpv4: null}}", "{}"] {
            let text = good.replace("{tunnel: {mtu: 1400}}", set);
            assert!(is_document(&place, text.as_bytes()), "{text}");
        }
        let place = Place::single(Area::Overrides, Kind::RoutingPolicy);
        let servers =
            good.replace("{tunnel: {mtu: 1400}}", "{rpki: {servers: [{host: a.dn42, port: 8282}]}}");
        assert!(is_document(&place, servers.as_bytes()));
        assert!(!is_document(&place, servers.replace("port: 8282", "sshKey: hunter2").as_bytes()));
        assert!(!is_document(&place, b"\0\0\xff"));
    }
}
