//! The files of owners.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::super::check::Problem;
use super::super::finding::Finding;
use super::files::{NETWORK, is_owner};
use super::owner::{OwnerLimits, OwnerSpec};
use super::read::typed;
use super::token::TokenHash;
use super::{FleetFiles, Network};
use crate::document::parse_value;
use crate::model::{Asn, ObjectName};

impl OwnerSpec {
    /// Reads the file of an owner, with the limits of all owners where it has none.
    ///
    /// # Errors
    /// Each error of the file.
    pub fn read(path: &str, text: &Arc<str>, of_all: &OwnerLimits) -> Result<Self, Vec<Finding>> {
        let owner: Self = typed(path, text, &json!({"tokenHashes": []}))?;
        let limits = owner.limits.over(of_all);
        Ok(Self { limits, ..owner })
    }

    /// Returns whether the token with this hash is valid. Compares with each hash, so that the time shows nothing.
    pub fn has(&self, token: &TokenHash) -> bool {
        let hits = self.token_hashes.iter().filter(|hash| hash.is_same(token));
        hits.count() > 0
    }
}

/// The limits of all owners in `network.yaml`, without its other fields.
#[derive(Deserialize, Default)]
#[serde(default)]
struct OwnersField {
    owners: OwnerLimits,
}

impl FleetFiles {
    /// Returns the limits of all owners; `None` without a description that can be read.
    pub fn owner_limits(&self) -> Option<OwnerLimits> {
        let fields: Result<OwnersField, _> = parse_value(self.text(NETWORK)?);
        fields.ok().map(|fields| fields.owners)
    }
}

impl Network {
    /// Returns every error in the files of owners, none of which affects a router.
    pub(super) fn owner_findings(&self, files: &FleetFiles) -> Vec<Finding> {
        let faults = files.faults().filter(|(path, _)| is_owner(path));
        let mut found: Vec<Finding> = faults
            .map(|(path, why)| Finding::whole(path.as_ref(), why))
            .collect();
        if let Some(text) = files.text(NETWORK) {
            found.extend(self.unknown_routers(NETWORK, text, &self.spec.owners, &["owners"]));
        }
        let mut known: BTreeMap<String, Asn> = BTreeMap::new();
        for (path, text, asn) in files.owners() {
            let whole = |why: String| Finding::whole(path.as_ref(), why);
            let asn = match asn {
                Ok(asn) => asn,
                Err(error) => {
                    found.push(whole(format!(
                        "its name is no AS number: {error}; rename it"
                    )));
                    continue;
                }
            };
            let owner = match OwnerSpec::read(path, text, &OwnerLimits::default()) {
                Ok(owner) => owner,
                Err(errors) => {
                    found.extend(errors);
                    continue;
                }
            };
            found.extend(self.unknown_routers(path, text, &owner.limits, &["limits"]));
            for hash in owner.token_hashes {
                if let Some(other) = known.insert(hash.to_string(), asn) {
                    found.push(whole(format!(
                        "has a token of AS{other}; `moenet-agent fleet token new --owner {asn}` replaces it"
                    )));
                }
            }
        }
        found
    }

    fn unknown_routers(
        &self,
        file: &str,
        text: &str,
        limits: &OwnerLimits,
        at: &[&str],
    ) -> Vec<Finding> {
        let routers = limits.routers.iter().flatten().enumerate();
        let unknown = routers.filter(|(_, name)| self.router(name).is_none());
        let finding = |(index, name): (usize, &ObjectName)| {
            let index = index.to_string();
            let path = at.iter().copied().chain(["routers", &index]);
            let problem = Problem {
                path: path.map(str::to_owned).collect(),
                message: format!("the network has no router {name}"),
            };
            Finding::new(Path::new(file), text, &problem)
        };
        unknown.map(finding).collect()
    }
}
