//! The writer of each file of the state directory, and the files that may enter its history.

use std::collections::BTreeMap;
use std::path::Path;

use crate::document::{Kind, OverrideSpec, check_document, check_patch, parse, parse_value};
use crate::model::plain_key;
use crate::redact::find_secret;
use crate::store::{AnyDocument, AppliedDocument, Area, Place, Snapshot, Store};

/// The valid documents of a state directory, by writer.
#[derive(Debug, Default)]
pub(super) struct Writers {
    /// Documents of the sync. Without manually edited ones: such an edit is recorded as the override that it becomes.
    pub(super) synced: Vec<Place>,
    /// Documents of operators, by the owner of the file.
    pub(super) persons: BTreeMap<u32, Vec<Place>>,
    /// Documents of the agent.
    pub(super) applied: Vec<Place>,
}

pub(super) fn writers(snapshot: &Snapshot) -> Writers {
    let mut found = Writers::default();
    let overrides = snapshot
        .overrides
        .iter()
        .filter_map(|((kind, name), slot)| {
            let place = Place::new(Area::Overrides, *kind, name);
            Some(file(place, &**slot.as_ref().ok()?))
        });
    let documents = snapshot.documents();
    let documents = documents.filter_map(|(place, slot)| Some(file(place, slot.ok()?)));
    for file in documents.chain(overrides) {
        if !file.synced {
            found
                .persons
                .entry(file.owner)
                .or_default()
                .push(file.place);
        } else if !snapshot.edits.iter().any(|edit| edit.place == file.place) {
            found.synced.push(file.place);
        }
    }
    let applied = snapshot.applied.keys();
    found.applied = applied
        .map(|(kind, name)| Place::new(Area::Applied, *kind, name))
        .collect();
    found
}

struct File {
    place: Place,
    synced: bool,
    owner: u32,
}

fn file(place: Place, stored: &dyn AnyDocument) -> File {
    File {
        place,
        synced: stored.metadata().uid.is_some(),
        owner: stored.owner(),
    }
}

/// Returns whether the content of a file of a state directory may enter its history. A document that the sync has just
/// written is valid, so only secrets are searched in it.
pub(crate) fn may_enter(store: &Store, path: &Path, content: &[u8]) -> bool {
    let is_synced = Place::parse(path)
        .is_some_and(|place| place.area == Area::Documents && store.wrote(&place, content));
    match is_synced {
        true => !has_secret(content),
        false => is_document(path, content),
    }
}

/// Returns whether a text may enter the history: only a valid document of its place, without a
/// plain-text secret. An invalid document may contain a secret that an operator took for a field of
/// the agent, and the history keeps everything.
fn is_document(path: &Path, text: &[u8]) -> bool {
    let is_valid = |text| Place::parse(path).is_none_or(|place| is_of_place(&place, text));
    !has_secret(text) && std::str::from_utf8(text).is_ok_and(is_valid)
}

/// Returns whether a content has a plain-text secret, or cannot be searched for one.
pub(super) fn has_secret(content: &[u8]) -> bool {
    let text = std::str::from_utf8(content);
    text.map_or(true, |text| {
        plain_key(text).is_some() || find_secret(text).is_some()
    })
}

fn is_of_place(place: &Place, text: &str) -> bool {
    match (place.area, place.kind) {
        (Area::Status, _) | (Area::Documents, Kind::Override) => false,
        (Area::Applied, _) => parse_value::<AppliedDocument>(text).is_ok(),
        (Area::Overrides, kind) => parse::<OverrideSpec>(text)
            .is_ok_and(|document| check_patch(kind, &document.spec.set).is_ok()),
        (Area::Documents, kind) => check_document(kind, text).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{BgpSessionSpec, Document};

    const OVERRIDE: &str = "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {name: wg_1}\n\
                            spec: {reason: x, set: {tunnel: {mtu: 1400}}}\n";
    const KEY: &str = "XgUElZsuhxz12KENlLtJuKP0eYNyTNy2QYUaeGKaPZ4=";

    fn place(kind: Kind) -> std::path::PathBuf {
        Place::new(Area::Overrides, kind, &"wg_1".parse().unwrap()).relative()
    }

    #[test]
    fn text_cannot_inject_a_log_field() {
        let is_in = |text: &str| is_document(&place(Kind::BgpSession), text.as_bytes());
        assert!(is_in(OVERRIDE));
        let with = |set: &str| OVERRIDE.replace("{tunnel: {mtu: 1400}}", set);
        for good in [
            "{}".to_owned(),
            "{bgp: {passwordFile: secrets/wg_1.password}}".into(),
            format!("{{tunnel: {{publicKey: \"{KEY}\", presharedKeyFile: null}}}}"),
        ] {
            assert!(is_in(&with(&good)), "{good}");
        }
        for bad in [
            "{tunnel: {presharedKey: hunter2}}",
            "{tunnel: {presharedKeyFile: hunter2}}",
            "{bgp: {password: hunter2}}",
            "{password: hunter2}",
            "{asn: hunter2}",
        ] {
            assert!(!is_in(&with(bad)), "{bad}");
        }
        assert!(!is_in(
            &OVERRIDE.replace("reason: x", "reason: x, presharedKey: hunter2")
        ));
        assert!(!is_document(&place(Kind::BgpSession), b"\0\0\xff"));
    }

    #[test]
    fn document_that_the_sync_wrote_enters_without_its_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let place = Place::document(Kind::BgpSession, &"wg_1".parse().unwrap());
        let enters = |text: &[u8]| may_enter(&store, &place.relative(), text);
        for (description, good) in [("a peer", true), (KEY, false)] {
            let spec = serde_json::json!({"asn": 4_242_420_001_u32, "description": description});
            let spec: BgpSessionSpec = serde_json::from_value(spec).unwrap();
            let document = Document::new(place.name.clone(), Some("u-1".parse().unwrap()), 1, spec);
            store.write_document(&document).unwrap();
            let text = std::fs::read(store.path(&place)).unwrap();
            assert!(store.wrote(&place, &text));
            assert_eq!(enters(&text), good, "{description}");
        }
        assert!(!store.wrote(&place, OVERRIDE.as_bytes()) && !enters(OVERRIDE.as_bytes()));
    }

    #[test]
    fn plain_text_key_is_excluded_at_any_position() {
        for text in [
            format!("# psk {KEY}\n{OVERRIDE}"),
            OVERRIDE.replace("reason: x", &format!("reason: {KEY}")),
        ] {
            assert!(
                !is_document(&place(Kind::BgpSession), text.as_bytes()),
                "{text}"
            );
        }
        for file in ["README.md", "approved", "applied/sessions/wg_1.yaml"] {
            assert!(!is_document(Path::new(file), KEY.as_bytes()), "{file}");
        }
        assert!(is_document(Path::new("README.md"), b"hello"));
    }

    #[test]
    fn an_override_of_each_kind_gets_in() {
        for (kind, set) in [
            (Kind::Node, "{region: eu-west}"),
            (Kind::RoutingPolicy, "{limits: {ebgpImport: 20000}}"),
            (Kind::MeshPeer, "{mtu: 1380}"),
            (Kind::IbgpPeer, "{isRr: true}"),
        ] {
            let text = OVERRIDE.replace("{tunnel: {mtu: 1400}}", set);
            assert!(is_document(&place(kind), text.as_bytes()), "{set}");
        }
    }
}
