//! Reads the structure of a network from its files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::check::Problem;
use super::super::finding::Finding;
use super::files::{NETWORK, is_owner, is_session};
use super::topology::Index;
use super::{FleetFiles, Network, NetworkSpec, RouterSpec};
use crate::document::{Scalars, faults, read, value};

impl Network {
    /// Reads the structure: `network.yaml` and all files of routers.
    ///
    /// # Errors
    /// Every error of these files. Nothing is derived from a part of the structure.
    pub fn read(files: &FleetFiles) -> Result<Self, Vec<Finding>> {
        Self::read_after(None, files)
    }

    /// The same after others, with their network: a router's file that did not change is not parsed again.
    ///
    /// # Errors
    /// As [`Network::read`].
    pub fn read_after(
        before: Option<(&FleetFiles, &Self)>,
        files: &FleetFiles,
    ) -> Result<Self, Vec<Finding>> {
        let faults = files.faults();
        let faults = faults.filter(|(path, _)| !is_session(path) && !is_owner(path));
        let mut findings: Vec<Finding> = faults
            .map(|(path, why)| Finding::whole(path.as_ref(), why))
            .collect();
        let spec: Option<NetworkSpec> = match files.text(NETWORK) {
            Some(text) => kept(typed(NETWORK, text, &json!({"asn": 1})), &mut findings),
            // Among the faults below.
            None if files.has(NETWORK) => None,
            None => {
                findings.push(Finding::whole(
                    Path::new(NETWORK),
                    "does not exist, but routers/ does; restore it, or write it: `moenet-agent schema FleetNetwork` describes it",
                ));
                None
            }
        };
        let mut routers = BTreeMap::new();
        for (path, text, name) in files.routers() {
            let known = before.and_then(|(files, network)| {
                let is_same = files.text(path) == Some(text);
                let router = network.routers.get(name.as_ref().ok()?)?;
                is_same.then(|| Arc::clone(router))
            });
            let parsed = || typed(path, text, &json!({"id": 1})).map(Arc::new);
            let router: Option<Arc<RouterSpec>> = known.or_else(|| kept(parsed(), &mut findings));
            match name {
                Ok(name) => routers.extend(router.map(|router| (name, router))),
                Err(error) => findings.push(Finding::whole(path.as_ref(), error.to_string())),
            }
        }
        let Some(spec) = spec.filter(|_| findings.is_empty()) else {
            return Err(findings);
        };
        let network = Self {
            index: Index::new(&spec, &routers),
            spec,
            routers,
        };
        let broken = network.broken_rules(files);
        match broken.is_empty() {
            true => Ok(network),
            false => Err(broken),
        }
    }
}

fn kept<T>(read: Result<T, Vec<Finding>>, findings: &mut Vec<Finding>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(found) => {
            findings.extend(found);
            None
        }
    }
}

/// Reads a file as a type. `sample` is the shortest valid value of the type.
pub(super) fn typed<T: DeserializeOwned>(
    path: &str,
    text: &Arc<str>,
    sample: &Value,
) -> Result<T, Vec<Finding>> {
    let file: &Path = path.as_ref();
    let value = value(text).map_err(|error| vec![Finding::syntax(file, error)])?;
    read(&value, Scalars::AsWritten).map_err(|_| {
        let faults = faults::<T>(value, sample, Scalars::AsWritten);
        let problems = faults.into_iter().map(|fault| Problem {
            message: message(&fault.path, &fault.reason.to_string()),
            path: fault.path,
        });
        problems
            .map(|problem| Finding::new(file, text, &problem))
            .collect()
    })
}

/// Returns the message of a fault, without the value where it may be a secret.
fn message(path: &[String], reason: &str) -> String {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path[..] {
        ["token" | "tokenFile" | "tokenHashes"] => {
            "expected `token: TEXT`, `tokenFile: PATH` or `tokenHashes: [HASH]`".to_owned()
        }
        _ => crate::model::without_keys(reason).into_owned(),
    }
}
