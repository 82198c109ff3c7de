//! Fetches from the Control Plane that become documents, and posts (`reporting`). Each runs on its
//! own timer with jitter; the applied state stays without any of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::calls::every;
use super::follow::follow;
use super::plan::{Change, PortBases, SessionChange, plan_peers, plan_sessions, plan_single};
use super::reporting::{heartbeat, outbox, report};
use super::requests::Synced;
use super::{SyncError, Syncer};
use crate::config::ControlPlane;
use crate::control_plane::{CallError, Failure};
use crate::desired::Refused;
use crate::document::{BgpSessionSpec, Document, IbgpPeerSpec, RoutingPolicySpec, Spec};
use crate::history::Author;
use crate::model::{Asn, ObjectName, Secret, Uid};
use crate::render::{check_policy, odd_policy};
use crate::store::{Area, Place, Snapshot, Store, StoreError, Written};
use crate::telemetry::{chain, failed};
use crate::util::notices::Notices;
use crate::util::sorted::Sorted as _;
use crate::wire::{
    Call, Listing, NodeItem, PeerItem, PolicyItem, Rejected, SessionItem, WireError, WireStatus,
};

/// Result of a poll: the changed files.
type Changed = Vec<Place>;

impl Syncer {
    /// Polls and posts until the agent stops.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let sync = &self;
        // The node comes first: sessions cannot be judged before the router's own identity is known.
        let all = async {
            tokio::join!(
                every(Call::Config, ControlPlane::config_interval, sync, node),
                every(
                    Call::BirdConfig,
                    |c| c.bird_config_interval.get(),
                    sync,
                    policy
                ),
                every(Call::Mesh, |c| c.mesh_interval.get(), sync, mesh),
                every(Call::Sessions, |c| c.sync_interval.get(), sync, sessions),
                every(
                    Call::Heartbeat,
                    |c| c.heartbeat_interval.get(),
                    sync,
                    heartbeat
                ),
                every(Call::Report, |c| c.metric_interval.get(), sync, report),
                outbox(sync),
                follow(sync),
            )
        };
        tokio::select! {
            _ = all => {}
            () = stop.cancelled() => {}
        }
    }

    /// Fetches everything once, the node first.
    ///
    /// # Errors
    /// The first call that fails.
    pub async fn once(self: &Arc<Self>) -> Result<(), CallError> {
        node(Arc::clone(self)).await?;
        policy(Arc::clone(self)).await?;
        mesh(Arc::clone(self)).await?;
        sessions(Arc::clone(self)).await
    }
}

async fn node(sync: Arc<Syncer>) -> Result<(), CallError> {
    let sync = &*sync;
    let fetched = sync.client.fetch_config().await;
    let refused = refusal(&fetched);
    if sync.refused.change(|known| known.node = refused) {
        sync.context.reports.reload();
    }
    let NodeItem { spec, .. } = fetched?;
    let done = single(sync, |_| spec, |snapshot| snapshot.node.as_ref()).await;
    written(sync, Call::Config, done).await
}

/// Turns a list that could not be written into a failed fetch. While Git has moved the tree nothing has to be written.
async fn written<T>(
    sync: &Syncer,
    call: Call,
    done: Result<T, SyncError>,
) -> Result<(), CallError> {
    match done {
        Err(error) if sync.context.moved().await.is_none() => Err(CallError {
            call,
            failure: Failure::NotWritten(chain(&error)),
        }),
        _ => Ok(()),
    }
}

/// Returns the error of an answer with an invalid field; a missing answer is not a refusal.
fn refusal<T>(fetched: &Result<T, CallError>) -> Option<String> {
    match fetched {
        Err(CallError {
            failure: Failure::Body(error @ WireError::Field { .. }),
            ..
        }) => Some(chain(error)),
        _ => None,
    }
}

/// The fields of a policy that do not decode. Each invalid field affects only itself, never the filters.
fn bad_fields(item: &PolicyItem) -> Option<String> {
    let fields: Vec<_> = item
        .bad
        .iter()
        .map(|field| match field.spec {
            "" => format!("{field} (ignored)"),
            _ => format!("{field} (keeping the last good value, if any)"),
        })
        .collect();
    (!fields.is_empty())
        .then(|| format!("{}; the rest of the policy is in effect", fields.join("; ")))
}

async fn policy(sync: Arc<Syncer>) -> Result<(), CallError> {
    let sync = &*sync;
    let fetched = sync.client.fetch_policy().await;
    let unsafe_policy = fetched
        .as_ref()
        .ok()
        .and_then(|item| check_policy(&item.spec).err());
    let refused = refusal(&fetched)
        .or_else(|| unsafe_policy.as_ref().map(ToString::to_string))
        .or_else(|| fetched.as_ref().ok().and_then(bad_fields));
    if sync
        .refused
        .change(|known| known.policy.clone_from(&refused))
    {
        sync.context.reports.reload();
    }
    if unsafe_policy.is_some() {
        return Ok(());
    }
    let item = fetched?;
    remark(sync, &item.spec, item.notes.clone(), item.asn);
    let ibgp = item.ibgp.clone();
    let with_last_good = move |snapshot: &Snapshot| match &snapshot.policy {
        Some(Ok(last)) => item.with_last_good(&last.document.spec),
        _ => item.spec,
    };
    let mut done = single(sync, with_last_good, |snapshot| snapshot.policy.as_ref()).await;
    let rejected = ibgp
        .as_ref()
        .map(|listing| listing.rejected.clone())
        .unwrap_or_default();
    log_nameless("an internal neighbour", &rejected, &sync.remarks.ibgp);
    note_rejected(sync, rejected, |refused| &mut refused.ibgp);
    if let Some(listing) = ibgp {
        let ibgp = apply_ibgp(sync, listing).await;
        done = done.and(ibgp);
    }
    written(sync, Call::BirdConfig, done).await
}

/// Logs remarks about a valid policy that is probably not intended, once each; its status shows them while they last.
fn remark(sync: &Syncer, spec: &RoutingPolicySpec, mut remarks: Vec<String>, said: Option<Asn>) {
    let ours = sync
        .context
        .desired()
        .router
        .as_ref()
        .ok()
        .map(|router| router.asn);
    if let (Some(said), Some(ours)) = (said, ours)
        && said != ours
    {
        let remark =
            format!("policy.dn42As: AS{said} is another network's; using AS{ours} of the node");
        remarks.push(remark);
    }
    remarks.extend(odd_policy(spec));
    for remark in sync.remarks.policy.new_in(remarks.clone()) {
        warn!(remark, "routing policy warning");
    }
    if sync.refused.change(|known| known.remarks = remarks) {
        sync.context.reports.reload();
    }
}

async fn single<S: Spec + Send + Sync + 'static>(
    sync: &Syncer,
    spec: impl FnOnce(&Snapshot) -> S + Send + 'static,
    slot: impl Fn(&Snapshot) -> Option<&crate::store::Slot<S>> + Send + 'static,
) -> Result<usize, SyncError> {
    let place = Place::single(Area::Documents, S::KIND);
    write_documents(sync, move |store, snapshot| {
        let Some(document) = plan_single(spec(snapshot), slot(snapshot), snapshot) else {
            return Ok(Vec::new());
        };
        let written = store.write_document(&document)?;
        Ok(if written == Written::Changed {
            vec![place]
        } else {
            Vec::new()
        })
    })
    .await
}

async fn mesh(sync: Arc<Syncer>) -> Result<(), CallError> {
    let sync = &*sync;
    let listing = sync.client.fetch_mesh().await?;
    log_nameless("a mesh peer", &listing.rejected, &sync.remarks.mesh);
    note_rejected(sync, listing.rejected.clone(), |refused| &mut refused.mesh);
    let done = write_documents(sync, move |store, snapshot| {
        let done = apply(store, plan_peers(&listing, &snapshot.mesh, snapshot))?;
        Ok(done.changed)
    });
    let done = done.await;
    written(sync, Call::Mesh, done).await
}

async fn apply_ibgp(
    sync: &Syncer,
    listing: Listing<PeerItem<IbgpPeerSpec>>,
) -> Result<usize, SyncError> {
    write_documents(sync, move |store, snapshot| {
        let done = apply(store, plan_peers(&listing, &snapshot.ibgp, snapshot))?;
        Ok(done.changed)
    })
    .await
}

async fn sessions(sync: Arc<Syncer>) -> Result<(), CallError> {
    let request = sync.requests.begin();
    if request.is_some() {
        // A fetch that was under way when the request came has used up the operator's passage.
        sync.client.hurry(Call::Sessions);
    }
    let synced = fetch_sessions(&sync).await;
    sync.requests.end(request, &synced);
    written(&sync, Call::Sessions, synced?.changed).await
}

async fn fetch_sessions(sync: &Syncer) -> Result<Synced, CallError> {
    let listing = sync.client.fetch_sessions().await?;
    log_nameless("a session", &listing.rejected, &sync.remarks.sessions);
    note_rejected(sync, listing.rejected.clone(), |refused| {
        &mut refused.sessions
    });
    let statuses = listing
        .items
        .iter()
        .map(|item| (item.uid.clone(), item.status));
    let rejected = listing
        .rejected
        .iter()
        .filter_map(|rejected| Some((rejected.uid.clone()?, rejected.status?)));
    sync.context
        .reports
        .listed(statuses.chain(rejected).sorted_map());
    let is_leaving = |item: &SessionItem| item.status == WireStatus::QueuedForDelete;
    let kernel = match listing.items.iter().any(is_leaving) {
        true => sync.context.observer.kernel(Instant::now()).await.ok(),
        false => None,
    };
    let config = sync.config.get();
    let bases = PortBases {
        sessions: config.wireguard.listen_port_base,
        mesh: config.mesh.listen_port_base,
    };
    let context = Arc::clone(&sync.context);
    let sessions = listing.items.len() + listing.rejected.len();
    let changed = write_documents(sync, move |store, snapshot| {
        // Without an observation of the kernel the session gets a document, and is removed like any other.
        let is_gone = |uid: &Uid| {
            let nothing = kernel
                .as_ref()
                .is_some_and(|kernel| kernel.owned_by(uid).next().is_none());
            nothing && context.reports.gone(uid)
        };
        let changes = plan_sessions(&listing, snapshot, bases, is_gone);
        for change in &changes {
            if let Some(formerly) = &change.formerly
                && let Some(Change::Write(document) | Change::Displace(document)) = &change.document
                && let Some(uid) = &document.metadata.uid
            {
                info!(object = %change.name, %uid, %formerly, "same peering with a new uuid; \
                                                               keeping tunnel and session");
                context.reports.renew(formerly, uid);
            }
        }
        let changed = apply_sessions(store, changes)?;
        if listing.complete {
            store.confirm_listed(snapshot)?;
        }
        Ok(changed)
    })
    .await;
    Ok(Synced { sessions, changed })
}

/// Writes the documents of the Control Plane, and records them in the history before anything else
/// is recorded. Manual edits become overrides first, so that the sync cannot overwrite them.
async fn write_documents(
    sync: &Syncer,
    write: impl FnOnce(&Store, &Snapshot) -> Result<Changed, StoreError> + Send + 'static,
) -> Result<usize, SyncError> {
    sync.context.git_at_rest().await;
    let _writing = sync.feed.writing().await;
    sync.context.first_lists.written();
    if let Some(head) = sync.context.moved().await {
        return Err(SyncError::Moved { head });
    }
    let listed = sync.edits.import().await;
    let done = sync.context.write(move |store| {
        let snapshot = listed.map_or_else(|| store.load(), Ok)?;
        write(store, &snapshot)
    });
    match done.await {
        Ok(changed) => Ok(record(sync, changed).await),
        Err(error) => {
            let error = SyncError::from(error);
            failed(
                error.class(),
                &"sync",
                &error,
                "Control Plane documents not written",
            );
            // Some documents may have been written nevertheless.
            sync.feed.synced().await;
            Err(error)
        }
    }
}

/// The result of writing the changes of a list.
#[derive(Default)]
struct Done {
    changed: Changed,
    /// The objects whose document or secret could not be written.
    failed: BTreeSet<ObjectName>,
}

fn apply<S: Spec>(store: &Store, changes: Vec<Change<S>>) -> Result<Done, StoreError> {
    let mut done = Done::default();
    let mut writes = Vec::new();
    for change in changes {
        // In the planned order: an object that moves to another document never has none.
        if !matches!(change, Change::Write(_)) {
            write_all(store, std::mem::take(&mut writes), &mut done)?;
        }
        let (name, did) = match change {
            Change::Write(document) => {
                writes.push(*document);
                continue;
            }
            Change::Displace(document) => {
                let written = store.displace_document(&document);
                let did = written.map(|written| written == Written::Changed);
                (document.metadata.name, did)
            }
            Change::Remove(name) => {
                let did = store.remove_document(S::KIND, &name);
                (name, did)
            }
        };
        done.note::<S>(&name, did)?;
    }
    write_all(store, writes, &mut done)?;
    Ok(done)
}

/// Writes documents together.
fn write_all<S: Spec>(
    store: &Store,
    documents: Vec<Document<S>>,
    done: &mut Done,
) -> Result<(), StoreError> {
    let all: Vec<_> = documents.iter().collect();
    let results = store.write_documents(&all)?;
    for (document, result) in all.iter().zip(results) {
        let did = result.map(|written| written == Written::Changed);
        done.note::<S>(&document.metadata.name, did)?;
    }
    Ok(())
}

impl Done {
    /// Adds the result of one write. An object that cannot be written does not affect others.
    fn note<S: Spec>(
        &mut self,
        name: &ObjectName,
        did: Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        match did {
            Ok(true) => self.changed.push(Place::document(S::KIND, name)),
            Ok(false) => {}
            Err(error) if error.class().stops_others() => return Err(error),
            Err(error) => {
                let class = error.class();
                failed(class, name, &error, "Control Plane document not written");
                self.failed.insert(name.clone());
            }
        }
        Ok(())
    }
}

/// Writes the secrets of all sessions before the documents that name them, and removes afterwards those that no document
/// names. A session whose secret cannot be written keeps its document, one whose document cannot be written keeps the
/// files of the secrets that it names, and neither affects another.
fn apply_sessions(store: &Store, changes: Vec<SessionChange>) -> Result<Changed, StoreError> {
    let mut done = Done::default();
    let mut unused = Vec::new();
    let mut documents = Vec::new();
    let mut results = write_secrets(store, &changes)?.into_iter();
    for change in changes {
        let of_change: Vec<_> = results.by_ref().take(set(&change).count()).collect();
        let written: Result<Vec<_>, _> = of_change.into_iter().collect();
        let did = written.map(|written| written.contains(&Written::Changed));
        done.note::<BgpSessionSpec>(&change.name, did)?;
        if !done.failed.contains(&change.name) {
            documents.extend(change.document);
            unused.push((change.name, change.secrets));
        }
    }
    let written = apply(store, documents)?;
    unused.retain(|(name, _)| !written.failed.contains(name));
    let secrets = unused.into_iter().flat_map(|(_, secrets)| secrets);
    for (file, _) in secrets.filter(|(_, secret)| secret.is_none()) {
        store.remove_secret(&file)?;
    }
    Ok([done.changed, written.changed].concat())
}

/// Returns the secrets that a change sets.
fn set(change: &SessionChange) -> impl Iterator<Item = (&str, &Secret<String>)> {
    let secrets = change.secrets.iter();
    secrets.filter_map(|(file, secret)| Some((file.as_str(), secret.as_ref()?)))
}

/// Writes the secrets of all changes together. Returns one result a secret, in their order.
fn write_secrets(
    store: &Store,
    changes: &[SessionChange],
) -> Result<Vec<Result<Written, StoreError>>, StoreError> {
    let secrets: Vec<_> = changes.iter().flat_map(set).collect();
    store.write_secrets(&secrets)
}

/// Records the changes of a sync in the history and has the desired state rebuilt. Returns their number.
async fn record(sync: &Syncer, mut changed: Changed) -> usize {
    let count = changed.len();
    if count == 0 {
        return count;
    }
    changed.sort();
    changed.dedup();
    let names: Vec<_> = changed
        .iter()
        .map(|place| place.relative().display().to_string())
        .collect();
    info!(documents = names.len(), names = names.join(" "), "synced");
    let subject = match names.as_slice() {
        [one] => format!("Sync {one}"),
        _ => format!("Sync {} documents", names.len()),
    };
    let author = Author::ControlPlane;
    sync.feed.documents(author, &subject, names, changed).await;
    sync.context.reports.reload();
    count
}

/// Records items that do not decode: their applied configuration stays, and their status shows the error.
fn note_rejected(
    sync: &Syncer,
    rejected: Vec<Rejected>,
    list: impl FnOnce(&mut Refused) -> &mut Vec<Rejected>,
) {
    if sync.refused.change(|refused| *list(refused) = rejected) {
        sync.context.reports.reload();
    }
}

/// Logs the items without an identity, each once while it is listed.
fn log_nameless(what: &str, rejected: &[Rejected], known: &Notices) {
    for error in newly_nameless(rejected, known) {
        warn!(
            error,
            "{what} in the list has no identity; the agent removes nothing while it is listed"
        );
    }
}

fn newly_nameless(rejected: &[Rejected], known: &Notices) -> Vec<String> {
    let nameless = |it: &&Rejected| it.uid.is_none() && it.node_id.is_none();
    let nameless = rejected.iter().filter(nameless);
    known.new_in(nameless.map(ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Dialect;

    #[test]
    fn item_without_identity_is_news_once() {
        let rejected = |items: &str| {
            let body = format!(r#"{{"sessions": [{items}]}}"#);
            let listing = Dialect::Reference.decode_sessions(body.as_bytes()).unwrap();
            listing.rejected
        };
        let before = rejected(r#""nonsense""#);
        let now = rejected(r#""nonsense", {"uuid": "x", "asn": 0, "status": 4}, {"status": 4}"#);
        let known = Notices::default();
        assert_eq!(newly_nameless(&before, &known).len(), 1);
        assert_eq!(newly_nameless(&now, &known), [now[2].to_string()]);
        assert_eq!(newly_nameless(&now, &known), [""; 0]);
    }

    #[test]
    fn secret_stays_while_the_document_that_names_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let document = |key: Option<&str>| {
            let spec = serde_json::json!({
                "asn": 4_242_420_998_u32,
                "tunnel": {"type": "wireguard", "presharedKeyFile": key},
            });
            let spec: BgpSessionSpec = serde_json::from_value(spec).unwrap();
            let name = ObjectName::sanitised("wg_1");
            Document::new(name, Some("uid-1".parse().unwrap()), 1, spec)
        };
        let change = |key: Option<&str>, secret: Option<&str>| SessionChange {
            name: ObjectName::sanitised("wg_1"),
            document: Some(Change::Write(Box::new(document(key)))),
            secrets: vec![(
                "secrets/wg_1.psk".into(),
                secret.map(|it| Secret::new(it.to_owned())),
            )],
            formerly: None,
        };
        let with = change(Some("secrets/wg_1.psk"), Some("of a test"));
        assert_eq!(apply_sessions(&store, vec![with]).unwrap().len(), 2);
        let (file, secret) = (
            dir.path().join("sessions/wg_1.yaml"),
            dir.path().join("secrets/wg_1.psk"),
        );
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("4242420998", "4242420999")).unwrap();
        let without = || vec![change(None, None)];
        assert_eq!(apply_sessions(&store, without()).unwrap(), []);
        assert!(secret.exists());
        std::fs::write(&file, text).unwrap();
        assert_eq!(apply_sessions(&store, without()).unwrap().len(), 1);
        assert!(!secret.exists());
    }

    #[test]
    fn bad_list_item_is_reported_as_ignored() {
        let body = r#"{"policy": {"dn42Ipv4": "172.23.105.176/28", "extraRanges": ["10.0.0.0/40"],
            "rpkiServers": [{"host": "rpki", "port": 0}, {"host": "rpki", "port": 8282}],
            "ebgpImportLimit": "many"}}"#;
        let item = Dialect::Reference.decode_policy(body.as_bytes()).unwrap();
        let said = bad_fields(&item).unwrap();
        let of = |field: &str| {
            let mut parts = said.split("; ");
            parts.find(|part| part.contains(field)).unwrap().to_owned()
        };
        assert!(of("extraRanges[0]").ends_with("(ignored)"), "{said}");
        assert!(of("rpkiServers[0]").ends_with("(ignored)"), "{said}");
        assert!(
            of("ebgpImportLimit").contains("keeping the last good value"),
            "{said}"
        );
    }
}
