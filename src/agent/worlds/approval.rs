//! Lifetime of approvals, and the guard's record.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::agent::{Parts, journal};
use crate::controller::guard::NODE;
use crate::controller::{Key, World};
use crate::document::Kind;
use crate::history::Author;
use crate::model::{ObjectName, without_keys};
use crate::store::{APPROVED, COMPLETE, Snapshot, Store, StoreError};

/// Stores the guard's state before the world takes effect. Returns whether the world remains valid.
pub(super) async fn remember(parts: &Parts, world: &World) -> bool {
    let (guard, ledger) = (Arc::clone(&parts.maker.guard), world.ledger.clone());
    let remember = move |store: &Store| Ok(guard.remember(store, &ledger));
    parts.context.disk(remember).await.unwrap_or_default()
}

/// Ends an approval of a node change: it is valid for that change alone, and ends when the change
/// is applied, or when another change is desired.
pub(super) async fn spend_node(parts: &Parts, world: &World) -> Result<(), StoreError> {
    let is_of_node = |line: &String| line.starts_with(&format!("{NODE} "));
    let change = world.router_documents.node_change.as_ref();
    let pending = change.map(|change| change.approval());
    let spent = |line: &String| is_of_node(line) && Some(line) != pending.as_ref();
    let approved = parts.context.store.approved();
    if !approved.iter().any(spent) {
        return Ok(());
    }
    let left: BTreeSet<String> = approved
        .iter()
        .filter(|line| !spent(line))
        .cloned()
        .collect();
    write(parts, approved, left).await
}

/// Ends approvals. An approval is valid once, for the changes that were held when it was given: it
/// ends for an object that is desired again, and completely when none of its objects is left.
pub(super) async fn spend(parts: &Arc<Parts>, snapshot: Snapshot) -> Result<Snapshot, StoreError> {
    let approved = parts.context.store.approved();
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
    // Sessions that a lost state directory left in BIRD have no record.
    let world = parts.context.world();
    let sessions = world.sessions.keys();
    let sessions = sessions.map(|name| format!("{}/{name}", Kind::BgpSession.folder()));
    let links = parts
        .context
        .observer
        .kernel(tokio::time::Instant::now())
        .await;
    let marked = links
        .iter()
        .flat_map(|view| view.uids())
        .map(|uid| Key::Orphan(uid).to_string());
    let of_node = left
        .iter()
        .any(|line| line.starts_with(&format!("{NODE} ")));
    let waiting = of_node
        || applied
            .chain(sessions)
            .chain(marked)
            .any(|object| left.contains(&object));
    // If the kernel cannot be listed, its objects may still exist.
    let left = if waiting || links.is_err() {
        left
    } else {
        BTreeSet::new()
    };
    if left != approved {
        write(parts, approved, left).await?;
    }
    Ok(snapshot)
}

/// Writes the remaining approvals, and records the used ones in the history.
async fn write(
    parts: &Parts,
    before: BTreeSet<String>,
    left: BTreeSet<String>,
) -> Result<(), StoreError> {
    let spent: BTreeSet<String> = before.difference(&left).cloned().collect();
    let body = spent
        .iter()
        .filter(|line| *line != COMPLETE)
        .map(|object| without_keys(object).into_owned())
        .collect();
    // The operator may have approved more in the meantime.
    parts
        .context
        .disk(move |store| store.spend_approvals(&spent))
        .await?;
    journal::record_file(
        parts,
        Author::Agent,
        "The approval is spent",
        body,
        APPROVED,
    );
    Ok(())
}

/// Every object with a document, as `sessions/wg_1`.
fn documents(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let named = |kind: Kind| move |name: &ObjectName| format!("{}/{name}", kind.folder());
    let sessions = snapshot.sessions.keys().map(named(Kind::BgpSession));
    let mesh = snapshot.mesh.keys().map(named(Kind::MeshPeer));
    sessions
        .chain(mesh)
        .chain(snapshot.ibgp.keys().map(named(Kind::IbgpPeer)))
}
