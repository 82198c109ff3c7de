//! The owners in the files of a fleet, and their sessions.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::super::change::{Changes, SessionPlace};
use super::super::network::{FleetFiles, OwnerSpec, TokenHash};
use crate::model::Asn;
use crate::util::task::blocking;
use crate::wire::reference::written_asn;

/// The owners in the files of one moment.
#[derive(Default)]
pub(super) struct Index {
    pub(super) files: Arc<FleetFiles>,
    /// Whether the limits of owners can be read.
    pub(super) is_open: bool,
    owners: Vec<(Asn, OwnerSpec)>,
    sessions: OnceCell<HashMap<Asn, Vec<SessionPlace>>>,
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
        Self {
            files,
            is_open: true,
            owners,
            sessions: OnceCell::new(),
        }
    }

    /// Returns the owner with a token. Compares with each hash, so that the time shows nothing. A token of two owners
    /// is not valid.
    pub(super) fn owner(&self, token: &TokenHash) -> Option<Asn> {
        let mut found = Vec::new();
        for (asn, owner) in &self.owners {
            if owner.has(token) {
                found.push(*asn);
            }
        }
        match found[..] {
            [asn] => Some(asn),
            _ => None,
        }
    }

    /// Returns the sessions of an owner. The first call after a change of the files reads those of all.
    pub(super) async fn sessions(&self, asn: Asn) -> &[SessionPlace] {
        let files = Arc::clone(&self.files);
        let read = || blocking(move || sessions(&files));
        let sessions = self.sessions.get_or_init(read).await;
        sessions.get(&asn).map_or(&[], Vec::as_slice)
    }
}

fn sessions(files: &FleetFiles) -> HashMap<Asn, Vec<SessionPlace>> {
    let mut sessions: HashMap<Asn, Vec<SessionPlace>> = HashMap::new();
    for place in Changes::of(files.clone()).described_sessions() {
        if let Some(asn) = written_asn(&place.item) {
            sessions.entry(asn).or_default().push(place);
        }
    }
    sessions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn list_has_sessions_with_a_file_of_their_own_only() {
        let asn = Asn::try_from(4_242_421_090).unwrap();
        let own = format!("{{uuid: a, status: 1, asn: {asn}}}\n");
        let files = FleetFiles::from_iter([
            (
                "moon/sessions.yaml".to_owned(),
                format!("sessions: [{own}]\n"),
            ),
            ("sessions/jp1/as4242421090.yaml".to_owned(), own),
        ]);
        let index = Index::new(Arc::new(files));
        let sessions = index.sessions(asn).await.iter();
        let names: Vec<String> = sessions.map(SessionPlace::full_name).collect();
        assert_eq!(names, ["jp1/as4242421090"]);
    }
}
