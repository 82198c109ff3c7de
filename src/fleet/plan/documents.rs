//! The documents that an agent writes for the answers of the Control Plane, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::answers::Answers;
use crate::document::{Document, PeerSpec, Spec};
use crate::effective::Secrets;
use crate::model::{ObjectName, Uid};
use crate::store::{Slot, Snapshot, Stored};
use crate::sync::plan::{Change, PortBases, plan_peers, plan_sessions, plan_single};
use crate::wire::{Call, Dialect, Listing, PeerItem};

/// The documents of a router, and the secrets that they name.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    pub snapshot: Snapshot,
    pub secrets: Secrets,
}

impl Documents {
    /// Returns the documents after the agent has fetched these answers. An answer that is not valid changes nothing.
    pub fn synced(mut self, answers: &Answers, bases: PortBases) -> Self {
        self.snapshot.complete = true;
        self.snapshot.operators_complete = true;
        self.snapshot.overrides_complete = true;
        self.snapshot.settled = true;
        let reference = Dialect::Reference;
        if let Some(Ok(node)) =
            body(answers, Call::Config).map(|body| reference.decode_config(&body))
        {
            let document = plan_single(node.spec, self.snapshot.node.as_ref(), &self.snapshot);
            self.snapshot.node = document.map(stored).or(self.snapshot.node.take());
        }
        if let Some(Ok(policy)) =
            body(answers, Call::BirdConfig).map(|body| reference.decode_policy(&body))
        {
            let document = plan_single(policy.spec, self.snapshot.policy.as_ref(), &self.snapshot);
            self.snapshot.policy = document.map(stored).or(self.snapshot.policy.take());
            if let Some(listing) = policy.ibgp {
                self.snapshot.ibgp = self.peers(&listing, self.snapshot.ibgp.clone());
            }
        }
        if let Some(Ok(listing)) =
            body(answers, Call::Mesh).map(|body| reference.decode_mesh(&body))
        {
            self.snapshot.mesh = self.peers(&listing, self.snapshot.mesh.clone());
        }
        if let Some(Ok(listing)) =
            body(answers, Call::Sessions).map(|body| reference.decode_sessions(&body))
        {
            // Every session that is to be removed is there, or it would not be listed.
            for change in plan_sessions(&listing, &self.snapshot, bases, |_: &Uid| true) {
                for (file, secret) in change.secrets {
                    match secret {
                        Some(secret) => drop(self.secrets.insert(file, secret)),
                        None => drop(self.secrets.remove(&file)),
                    }
                }
                apply(&mut self.snapshot.sessions, change.document);
            }
        }
        self
    }

    fn peers<S: PeerSpec>(
        &self,
        listing: &Listing<PeerItem<S>>,
        mut documents: BTreeMap<ObjectName, Slot<S>>,
    ) -> BTreeMap<ObjectName, Slot<S>> {
        let changes = plan_peers(listing, &documents, &self.snapshot);
        apply(&mut documents, changes);
        documents
    }
}

fn body(answers: &Answers, call: Call) -> Option<Vec<u8>> {
    let answer: &Map<String, Value> = answers.get(&call)?;
    Some(Value::Object(answer.clone()).to_string().into_bytes())
}

fn apply<S: Spec>(
    documents: &mut BTreeMap<ObjectName, Slot<S>>,
    changes: impl IntoIterator<Item = Change<S>>,
) {
    for change in changes {
        match change {
            Change::Write(document) | Change::Displace(document) => {
                documents.insert(document.metadata.name.clone(), stored(*document));
            }
            Change::Remove(name) => drop(documents.remove(&name)),
        }
    }
}

/// Returns a document as if it had been read from a file.
fn stored<S: Spec>(document: Document<S>) -> Slot<S> {
    Ok(Arc::new(Stored {
        document: document.into(),
        hash: [0; 32],
        path: Default::default(),
        owner: 0,
        text: Arc::from(""),
    }))
}
