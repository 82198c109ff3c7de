//! The owners in the files of a fleet, and their sessions.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::change::{Changes, SessionPlace};
use super::super::network::{FleetFiles, OwnerSpec};
use crate::model::Asn;
use crate::wire::reference::written_asn;

/// The owners in the files of one moment.
#[derive(Default)]
pub(super) struct Index {
    pub(super) files: Arc<FleetFiles>,
    /// Whether the limits of owners can be read.
    pub(super) is_open: bool,
    owners: Vec<(Asn, OwnerSpec)>,
    sessions: HashMap<Asn, Vec<SessionPlace>>,
}

impl Index {
    /// Reads the owners. One whose file has an error has no access.
    pub(super) fn new(files: Arc<FleetFiles>) -> Self {
        let Some(of_all) = files.owner_limits() else {
            return Self {
                files,
                ..Self::default()
            };
        };
        let mut owners = Vec::new();
        for (path, text, asn) in files.owners() {
            match (asn, OwnerSpec::read(path, text, &of_all)) {
                (Ok(asn), Ok(owner)) => owners.push((asn, owner)),
                (Err(error), _) => tracing::warn!(file = path, %error, "owner has no access"),
                (_, Err(findings)) => {
                    for error in findings {
                        tracing::warn!(%error, "owner has no access");
                    }
                }
            }
        }
        let mut sessions: HashMap<Asn, Vec<SessionPlace>> = HashMap::new();
        for place in Changes::of(FleetFiles::clone(&files)).sessions() {
            if let Some(asn) = written_asn(&place.item) {
                sessions.entry(asn).or_default().push(place);
            }
        }
        Self {
            files,
            is_open: true,
            owners,
            sessions,
        }
    }

    /// Returns the owner with a token. Compares with each hash, so that the time tells nothing; a token of two is of none.
    pub(super) fn owner(&self, token: &str) -> Option<Asn> {
        let mut found = Vec::new();
        for (asn, owner) in &self.owners {
            let hits = owner.token_hashes.iter().filter(|hash| hash.is_of(token));
            if hits.count() > 0 {
                found.push(*asn);
            }
        }
        match found[..] {
            [asn] => Some(asn),
            _ => None,
        }
    }

    /// Returns the sessions of an owner.
    pub(super) fn sessions(&self, asn: Asn) -> &[SessionPlace] {
        self.sessions.get(&asn).map_or(&[], Vec::as_slice)
    }
}
