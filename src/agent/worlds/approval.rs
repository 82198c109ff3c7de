//! What a human let pass, while it lasts.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::agent::{Parts, journal};
use crate::controller::Key;
use crate::document::Kind;
use crate::history::Author;
use crate::model::{ObjectName, without_keys};
use crate::store::{APPROVED, COMPLETE, Snapshot, Store, StoreError};

/// An approval is for the removals that were held when it was given, once: it ends for an object that is
/// wanted again, and altogether when nothing that it is for is left.
pub(super) async fn spend(parts: &Arc<Parts>, snapshot: Snapshot) -> Result<Snapshot, StoreError> {
    let mut approved = parts.context.store.approved();
    journal::approved(parts, &approved);
    let mut snapshot = snapshot;
    if approved.contains(COMPLETE) {
        parts.context.disk(Store::confirm).await?;
        snapshot = parts.context.disk(Store::load).await?;
    }
    let wanted: BTreeSet<String> = documents(&snapshot).collect();
    let left: BTreeSet<_> = approved
        .difference(&wanted)
        .filter(|line| *line != COMPLETE)
        .cloned()
        .collect();
    let applied = snapshot
        .applied
        .keys()
        .map(|(kind, name)| format!("{}/{name}", kind.folder()));
    let links = parts
        .context
        .observer
        .kernel(tokio::time::Instant::now())
        .await;
    let marked = links
        .iter()
        .flat_map(|view| view.uids())
        .map(|uid| Key::Orphan(uid).to_string());
    let waiting = applied.chain(marked).any(|object| left.contains(&object));
    // A kernel that cannot be listed proves nothing.
    let left = if waiting || links.is_err() {
        left
    } else {
        BTreeSet::new()
    };
    if left != approved {
        parts
            .context
            .disk(move |store| Store::approve(store.dir(), &left))
            .await?;
        approved.remove(COMPLETE);
        let body = approved
            .iter()
            .map(|object| without_keys(object).into_owned())
            .collect();
        journal::record_file(
            parts,
            Author::Agent,
            "The approval is spent",
            body,
            APPROVED,
        );
    }
    Ok(snapshot)
}

/// Every object that there is a document of, as `sessions/wg_1`.
fn documents(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let named = |kind: Kind| move |name: &ObjectName| format!("{}/{name}", kind.folder());
    let sessions = snapshot.sessions.keys().map(named(Kind::BgpSession));
    let mesh = snapshot.mesh.keys().map(named(Kind::MeshPeer));
    sessions
        .chain(mesh)
        .chain(snapshot.ibgp.keys().map(named(Kind::IbgpPeer)))
}
