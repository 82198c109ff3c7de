//! Lifetime of approvals, and the guard's record.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::debug;

use super::Builder;
use crate::desired::Desired;
use crate::desired::guard::NODE;
use crate::document::Kind;
use crate::history::Author;
use crate::model::{ObjectKey, without_keys};
use crate::store::{APPROVED, COMPLETE, Snapshot, Store};
use crate::telemetry::chain;
use crate::util::sorted::Sorted as _;

/// Returns the approvals on disk.
pub(super) async fn given(builder: &Builder) -> BTreeSet<String> {
    let read = builder.context.disk(|store| Ok(store.approved()));
    read.await.unwrap_or_default()
}

/// Stores the guard's state before the desired state takes effect. Returns whether the desired state remains valid.
pub(super) async fn remember(builder: &Builder, desired: &Desired) -> bool {
    let (guard, ledger) = (Arc::clone(&builder.maker.guard), desired.ledger.clone());
    let remember = move |store: &Store| Ok(guard.remember(store, &ledger));
    builder.context.disk(remember).await.unwrap_or_default()
}

/// Ends an approval of a node change: it is valid for that change alone, and ends when the change
/// is applied, or when another change is desired.
pub(super) async fn spend_node(builder: &Builder, desired: &Desired) {
    let is_of_node = |line: &String| line.starts_with(&format!("{NODE} "));
    let change = desired.router_documents.node_change.as_ref();
    let pending = change.map(|change| change.approval());
    let spent = |line: &String| is_of_node(line) && Some(line) != pending.as_ref();
    let approved = given(builder).await;
    if !approved.iter().any(spent) {
        return;
    }
    let left: BTreeSet<String> = approved
        .iter()
        .filter(|line| !spent(line))
        .cloned()
        .sorted_set();
    write(builder, approved, left).await;
}

/// Ends approvals. An approval is valid once, for the changes that were held when it was given: it
/// ends for an object that is desired again, and completely when none of its objects is left.
///
/// On a disk that cannot be written an approval stays, and the rest of the work goes on.
pub(super) async fn spend(
    builder: &Builder,
    snapshot: Arc<Snapshot>,
    approved: BTreeSet<String>,
) -> Arc<Snapshot> {
    builder.feed.approved(&approved).await;
    let (snapshot, confirmed) = match approved.contains(COMPLETE) {
        true => confirm(builder, snapshot).await,
        false => (snapshot, true),
    };
    let wanted: BTreeSet<String> = documents(&snapshot).sorted_set();
    let left: BTreeSet<_> = approved
        .difference(&wanted)
        .filter(|line| !confirmed || *line != COMPLETE)
        .cloned()
        .sorted_set();
    let applied = snapshot
        .applied
        .keys()
        .map(|(kind, name)| format!("{}/{name}", kind.folder()));
    // What a lost state directory left in BIRD has no record.
    let desired = builder.context.desired();
    let sessions = desired.of_kind(Kind::BgpSession);
    let sessions = sessions.map(|session| session.key().to_string());
    let links = builder
        .context
        .observer
        .kernel(tokio::time::Instant::now())
        .await;
    let marked = links
        .iter()
        .flat_map(|view| view.uids())
        .map(|uid| ObjectKey::Orphan(uid).to_string());
    let of_node = left
        .iter()
        .any(|line| line.starts_with(&format!("{NODE} ")));
    let waiting = of_node
        || !confirmed
        || applied
            .chain(sessions)
            .chain(marked)
            .any(|object| left.contains(&object));
    // A kernel that cannot be listed proves nothing.
    let left = if waiting || links.is_err() {
        left
    } else {
        BTreeSet::new()
    };
    if left != approved {
        write(builder, approved, left).await;
    }
    snapshot
}

/// Confirms that no document is missing. Returns the listing after that, and whether it worked.
async fn confirm(builder: &Builder, before: Arc<Snapshot>) -> (Arc<Snapshot>, bool) {
    let listed = builder
        .context
        .write(|store| store.confirm().and_then(|()| store.load()));
    match listed.await {
        Ok(listed) => (listed, true),
        Err(error) => {
            debug!(error = %chain(&error), "approval of all objects not applied; the next build tries again");
            (before, false)
        }
    }
}

/// Writes what is left of the approvals, and records what is spent.
async fn write(builder: &Builder, before: BTreeSet<String>, left: BTreeSet<String>) {
    let spent: BTreeSet<String> = before.difference(&left).cloned().sorted_set();
    let body = spent
        .iter()
        .filter(|line| *line != COMPLETE)
        .map(|object| without_keys(object).into_owned())
        .collect();
    // The operator may have approved more since.
    let written = builder
        .context
        .write(move |store| store.spend_approvals(&spent))
        .await;
    match written {
        Ok(()) => {
            let (author, subject) = (Author::Agent, "The approval is spent");
            builder.feed.file(author, subject, body, APPROVED).await;
        }
        Err(error) => {
            debug!(error = %chain(&error), "spent approval not removed; the next build tries again");
        }
    }
}

/// Every object that there is a document of, as `sessions/wg_1`.
fn documents(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let documents = snapshot.documents().map(|(place, _)| place);
    documents
        .filter(|place| !place.kind.is_single())
        .map(|place| place.kind.path(&place.name))
}
