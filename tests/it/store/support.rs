//! A state directory to do things to.
use std::fs;
use std::path::PathBuf;

use moenet_agent::document::{Document, Kind, MeshPeerSpec, Metadata};
use moenet_agent::model::ObjectName;
use moenet_agent::store::{AppliedBody, AppliedDocument, Snapshot, Store};

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

pub(crate) struct State {
    pub(crate) dir: tempfile::TempDir,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn open(&self) -> Store {
        let store = Store::open(&self.root()).unwrap();
        store.confirm().unwrap();
        store
    }

    pub(crate) fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        fs::write(self.root().join(path), text).unwrap();
    }

    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }
}

pub(crate) fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

pub(crate) fn peer(object: &str, mtu: u16) -> Document<MeshPeerSpec> {
    let spec = serde_json::json!({"nodeId": 2, "mtu": mtu, "publicKey": KEY});
    let spec = serde_json::from_value(spec).unwrap();
    Document::new(name(object), Some("uid-1".parse().unwrap()), 1, spec)
}

pub(crate) fn own(object: &str) -> String {
    format!(
        "# mine\napiVersion: moenet.work/v1\nkind: MeshPeer\nmetadata: {{name: {object}}}\nspec: {{nodeId: 2, publicKey: {KEY}}}\n"
    )
}

pub(crate) fn applied(object: &str) -> AppliedDocument {
    let metadata = Metadata {
        name: name(object),
        uid: None,
        generation: 1,
    };
    AppliedDocument::new(Kind::MeshPeer, metadata, AppliedBody::default())
}

pub(crate) fn mtu(snapshot: &Snapshot, object: &str) -> u64 {
    let stored = snapshot.mesh[&name(object)].as_ref().unwrap();
    u64::from(stored.document.spec.mtu.unwrap().get())
}

pub(crate) fn problem(snapshot: &Snapshot, object: &str) -> String {
    snapshot.mesh[&name(object)]
        .as_ref()
        .unwrap_err()
        .to_string()
}
