//! All files of a fleet in memory, as of the newest revision that was read from a store that changes them together.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Arc;

use axum::http::StatusCode;
use parking_lot::RwLock;
use serde_json::{Map, Value};

use crate::document::parse_list;
use crate::fleet::good::Written;
use crate::fleet::layout::{
    MAINTENANCE, Tokens, config, file_of, invalid, missing, parse_router, shaped, wrong,
};
use crate::fleet::network::{FleetFiles, RESERVED};
use crate::fleet::store::{Door, STORE_UNAVAILABLE};
use crate::fleet::tree::CALLS;
use crate::fleet::version::{Revision, Revisions, Version, version};
use crate::http::ApiError;
use crate::model::{ObjectName, Secret};
use crate::util::sorted::Sorted as _;
use crate::wire::Call;

type Answer = Result<Arc<Map<String, Value>>, ApiError>;

/// A file of the operator.
#[derive(Debug)]
struct File {
    text: Arc<str>,
    /// Changes with each change of the file; a restored store may repeat a revision with another text.
    version: Version,
}

/// A file that changed.
pub(super) struct ChangedFile {
    pub(super) path: String,
    /// Changes with the content.
    pub(super) revision: i64,
    /// `None`: the file was removed.
    pub(super) text: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Fleet {
    /// `None` until the whole fleet was read once.
    revision: Option<i64>,
    files: BTreeMap<String, File>,
    /// The texts of all files.
    network: Arc<FleetFiles>,
}

/// The files, as requests read them.
#[derive(Debug, Default)]
pub(in crate::fleet) struct HeldFiles(RwLock<Fleet>);

impl HeldFiles {
    /// Returns the newest revision that was read.
    pub(in crate::fleet) fn revision(&self) -> Option<i64> {
        self.0.read().revision
    }

    /// Takes everything that was read from the store in place of what was known.
    #[cfg(feature = "postgres")]
    pub(super) fn replace(&self, read: Self) {
        let mut read = read.0.into_inner();
        let mut fleet = self.0.write();
        if read.network == fleet.network {
            // The readers of the network know it by its place in memory.
            read.network = Arc::clone(&fleet.network);
        }
        *fleet = read;
    }

    /// Takes all changes up to a revision at once, so that no request sees half of them. Those up to an older revision
    /// than the known one are ignored: they are in memory already.
    pub(super) fn apply(&self, revision: i64, changes: Vec<ChangedFile>) {
        let mut fleet = self.0.write();
        if Some(revision) < fleet.revision {
            return;
        }
        for change in changes {
            match change.text {
                Some(text) => fleet.set_file(change.path, change.revision, text),
                None => {
                    Arc::make_mut(&mut fleet.network).remove(&change.path);
                    fleet.files.remove(&change.path);
                }
            }
        }
        fleet.revision = Some(revision);
    }

    /// Returns all files of one moment, with their revision.
    #[cfg(feature = "postgres")]
    pub(super) fn snapshot(&self) -> Result<(Arc<FleetFiles>, i64), ApiError> {
        let fleet = self.0.read();
        let revision = fleet.was_read()?;
        Ok((Arc::clone(&fleet.network), revision))
    }

    /// Returns all files by their paths.
    pub(in crate::fleet) fn all(&self) -> BTreeMap<String, Arc<str>> {
        let fleet = self.0.read();
        let files = fleet.files.iter();
        files
            .map(|(path, file)| (path.clone(), Arc::clone(&file.text)))
            .sorted_map()
    }

    /// Returns the files as a network; `None` without its description.
    pub(super) fn network(&self) -> Result<Option<Arc<FleetFiles>>, ApiError> {
        let fleet = self.0.read();
        fleet.was_read()?;
        let network = fleet.network.has_network();
        Ok(network.then(|| Arc::clone(&fleet.network)))
    }

    /// Returns the file at a path, which may go through the folder above.
    pub(super) fn file_at(&self, path: &Path) -> Option<Arc<str>> {
        let mut parts = Vec::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => parts.push(name.to_str()?),
                Component::ParentDir => drop(parts.pop()?),
                _ => return None,
            }
        }
        let fleet = self.0.read();
        let file = fleet.files.get(&parts.join("/"))?;
        Some(Arc::clone(&file.text))
    }

    pub(super) fn revisions(&self) -> Revisions {
        let fleet = self.0.read();
        let routers = fleet
            .files
            .keys()
            .filter_map(|path| path.strip_suffix("/router.yaml")?.parse().ok())
            .filter(|router| fleet.has_folder(router));
        routers
            .map(|router: ObjectName| {
                let of = |call| fleet.file_version(&router, file_of(call));
                let revision = Revision::of(&CALLS.map(of), &of(Call::Sessions));
                (router, revision)
            })
            .sorted_map()
    }

    pub(super) fn door(&self, router: &ObjectName) -> Result<Option<Door>, ApiError> {
        let fleet = self.0.read();
        fleet.was_read()?;
        let file = fleet.file(router, "router.yaml");
        Ok(file.filter(|_| fleet.has_folder(router)).map(|file| Door {
            tokens: fleet.tokens(router, &file.text),
            is_being_written: false,
            in_maintenance: fleet.file(router, MAINTENANCE).is_some(),
        }))
    }

    pub(super) fn version(&self, router: &ObjectName, call: Call) -> Option<Version> {
        let fleet = self.0.read();
        let of = |call| fleet.file_version(router, file_of(call));
        Some(version(&(of(Call::Config)?, of(call)?)))
    }

    pub(super) fn written(&self, router: &ObjectName, call: Call) -> Result<Written, ApiError> {
        let answer = self.answer(router, call)?;
        let node = self.answer(router, Call::Config).ok();
        Ok(Written {
            answer,
            node: node.and_then(|map| map.get("node").cloned()),
            version: None,
        })
    }

    fn answer(&self, router: &ObjectName, call: Call) -> Answer {
        let name = file_of(call);
        let text = self
            .0
            .read()
            .file(router, name)
            .map(|it| Arc::clone(&it.text));
        let text = text.ok_or_else(|| missing(router.as_str(), name))?;
        let map = match call {
            Call::Config => config(router.as_str(), &text)?,
            _ => parse_list(&text)
                .map(Arc::new)
                .map_err(|error| invalid(router.as_str(), name, error))?,
        };
        shaped(router.as_str(), call, map)
    }

    pub(super) fn text(&self, router: &ObjectName, call: Call) -> String {
        let fleet = self.0.read();
        let file = fleet.file(router, file_of(call));
        file.map(|file| file.text.to_string()).unwrap_or_default()
    }
}

impl Fleet {
    fn was_read(&self) -> Result<i64, ApiError> {
        match self.revision {
            Some(revision) => Ok(revision),
            None => Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                STORE_UNAVAILABLE,
                "the fleet was not read from the store yet; retry later",
            )),
        }
    }

    fn set_file(&mut self, path: String, revision: i64, text: Arc<str>) {
        Arc::make_mut(&mut self.network).insert(path.clone(), Arc::clone(&text));
        let version = version(&(revision, &text));
        self.files.insert(path, File { text, version });
    }

    fn file(&self, router: &ObjectName, name: &str) -> Option<&File> {
        self.files.get(&format!("{router}/{name}"))
    }

    fn file_version(&self, router: &ObjectName, name: &str) -> Option<Version> {
        self.file(router, name).map(|file| file.version)
    }

    /// Returns whether a folder is that of a router; those of a network are not.
    fn has_folder(&self, router: &ObjectName) -> bool {
        !(RESERVED.contains(&router.as_str()) && self.network.has_network())
    }

    fn tokens(&self, router: &ObjectName, text: &str) -> Result<Tokens, ApiError> {
        let name = router.as_str();
        let file = parse_router(name, text)?;
        let wrong = |message: &str| wrong(name, "router.yaml", message);
        let token = match (file.token, file.token_file) {
            (Some(token), _) => Some(token),
            (None, Some(path)) => {
                let stored = path.to_str().and_then(|path| self.file(router, path));
                let stored = stored.ok_or_else(|| wrong("tokenFile: not a file of the fleet"))?;
                Some(Secret::new(stored.text.to_string()))
            }
            (None, None) => None,
        };
        Tokens::new(token.as_ref(), file.token_hashes).map_err(|error| wrong(&error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_an_older_revision_are_ignored() {
        let file = |revision, text: Option<&str>| ChangedFile {
            path: "a/bgp.yaml".to_owned(),
            revision,
            text: text.map(Arc::from),
        };
        let memory = HeldFiles::default();
        let text = || memory.file_at(Path::new("a/bgp.yaml"));
        memory.apply(6, vec![file(6, Some("new"))]);
        for older in [Some("old"), None] {
            memory.apply(5, vec![file(5, older)]);
            assert_eq!(
                (text().as_deref(), memory.revision()),
                (Some("new"), Some(6))
            );
        }
        memory.apply(7, vec![file(7, None)]);
        memory.apply(6, vec![file(6, Some("new"))]);
        assert_eq!((text(), memory.revision()), (None, Some(7)));
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn restored_store_is_taken_as_it_is() {
        let read = |texts: &[(&str, &str)]| {
            let held = HeldFiles::default();
            let file = |(path, text): &(&str, &str)| ChangedFile {
                path: (*path).to_owned(),
                revision: 7,
                text: Some(Arc::from(*text)),
            };
            held.apply(7, texts.iter().map(file).collect());
            held
        };
        let of_router = |text| [("a/router.yaml", "{}"), ("a/sessions.yaml", text)];
        let (memory, router) = (read(&of_router("before")), "a".parse().unwrap());
        let version = || memory.version(&router, Call::Sessions).unwrap();
        let (first, network) = (version(), Arc::clone(&memory.0.read().network));
        memory.replace(read(&of_router("before")));
        assert_eq!(version(), first);
        assert!(Arc::ptr_eq(&network, &memory.0.read().network));
        memory.replace(read(&of_router("restored")));
        assert_ne!(version(), first, "the revision is the same");
        memory.replace(read(&[]));
        assert!(memory.all().is_empty());
    }
}
