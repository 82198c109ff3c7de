//! Manual edits of the sync's documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tracing::{debug, info, warn};

use super::context::Context;
use crate::history::{Author, Feed};
use crate::store::{Change, Edit, ImportedEdit, Place, Snapshot, Store};
use crate::telemetry::chain;

/// Imports manual edits.
pub struct Edits {
    context: Arc<Context>,
    feed: Arc<Feed>,
    /// The edits that could not be imported, with the reasons: logged once.
    failed: Mutex<BTreeMap<Place, String>>,
}

impl Edits {
    /// Returns an importer for this state directory.
    pub fn new(context: Arc<Context>, feed: Arc<Feed>) -> Self {
        Self {
            context,
            feed,
            failed: Mutex::default(),
        }
    }

    /// Turns manual edits into overrides, and restores deleted documents. Runs before every listing
    /// that is used, so that the sync cannot overwrite an edit; the caller has the turn to write ([`Feed::writing`]), so
    /// that each edit is imported once. Returns the listing if there was nothing to do.
    pub async fn import(&self) -> Option<Arc<Snapshot>> {
        // The user of the listing reports an unreadable directory.
        let listed = self.context.disk(Store::load).await.ok()?;
        let is_current = listed.edits.is_empty()
            && listed.revived.is_empty()
            && listed.settled
            && listed.moved.is_none();
        self.remove_revived(listed.revived.clone()).await;
        // A cached listing names no edits; the next one does.
        if !listed.edits.is_empty() || listed.settled {
            let failed = self.import_all(listed.edits.clone()).await;
            *self.failed.lock() = failed;
        }
        is_current.then_some(listed)
    }

    /// Removes documents that the Control Plane had removed and that Git restored.
    async fn remove_revived(&self, revived: Vec<Place>) {
        if revived.is_empty() {
            return;
        }
        let removed = self
            .context
            .write(move |store| store.remove_revived(&revived))
            .await;
        match removed {
            Ok(places) if places.is_empty() => {}
            Ok(places) => {
                let objects: Vec<_> = places
                    .iter()
                    .map(|place| place.relative().display().to_string())
                    .collect();
                warn!(
                    objects = objects.join(" "),
                    "Git restored documents that the Control Plane has removed; removing them again"
                );
                let subject = "Remove documents that Git restored";
                let feed = &self.feed;
                feed.documents(Author::Agent, subject, objects, places)
                    .await;
            }
            Err(error) => {
                debug!(error = %chain(&error), "restored documents not removed; the next listing tries again");
            }
        }
    }

    /// Returns whether Git restored the last committed version of a document (`git reset --hard`, `git
    /// stash`, `git restore .`) over a newer one of the sync that was not committed yet. That is not a
    /// manual edit.
    async fn is_restored(&self, edit: &Edit) -> bool {
        // The commit at the start may hold an edit that was made while the agent was down: it is as committed, and no
        // older than the sync's text.
        if !matches!(edit.change, Change::Edited { older: true, .. }) {
            return false;
        }
        let place = edit.place.clone();
        let read = self.context.disk(move |store| Ok(store.text(&place)));
        let Ok(Some(text)) = read.await else {
            return false;
        };
        let committed = self
            .feed
            .history()
            .last_committed(&edit.place.relative())
            .await;
        committed.is_ok_and(|committed| committed.as_deref() == Some(text.as_str()))
    }

    /// Imports edits as overrides. Returns the failed ones, with the reasons.
    async fn import_all(&self, edits: Vec<Edit>) -> BTreeMap<Place, String> {
        let mut failed = BTreeMap::new();
        for edit in edits {
            let place = edit.place.clone();
            let owner = edit.change.owner();
            let restored = self.is_restored(&edit).await;
            let done = self
                .context
                .write(move |store| match restored {
                    true => store.put_back(&edit),
                    false => store.import_edit(&edit, Timestamp::now()),
                })
                .await;
            match done {
                Ok(ImportedEdit::Overridden(_)) => {
                    info!(object = %place.relative().display(), "manual edit imported as an override");
                    if let Some(owner) = owner {
                        self.feed.imported(&place, owner).await;
                    }
                }
                Ok(ImportedEdit::Restored) => {
                    info!(object = %place.relative().display(), "Control Plane document restored");
                    self.feed.put_back(&place).await;
                }
                Ok(ImportedEdit::TakenOver) => {
                    info!(object = %place.relative().display(), "uid removed: treating the document \
                                                             as operator-owned, ignoring Control \
                                                             Plane updates for it");
                }
                Ok(ImportedEdit::GivenBack) => {
                    info!(object = %place.relative().display(), "uid restored: the Control Plane owns \
                                                             the document again");
                    self.feed.put_back(&place).await;
                }
                Err(error) => {
                    let why = chain(&error);
                    if self.failed.lock().get(&place) != Some(&why) {
                        warn!(object = %place.relative().display(), error = why, "manual edit not \
                                                                              imported");
                    }
                    failed.insert(place, why);
                }
            }
        }
        failed
    }
}
