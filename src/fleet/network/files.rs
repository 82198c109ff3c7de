use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::ObjectName;

/// The file that describes the network. A fleet without it has one folder for each router only.
pub const NETWORK: &str = "network.yaml";

/// The folder with one file for each router.
const ROUTERS: &str = "routers";

/// The folder with one folder for each router, with one file for each session.
const SESSIONS: &str = "sessions";

/// The files of a fleet that operators write: the text by the path below the fleet's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetFiles(BTreeMap<String, Arc<str>>);

impl FleetFiles {
    /// Returns the text of a file.
    pub fn text(&self, path: &str) -> Option<&Arc<str>> {
        self.0.get(path)
    }

    /// Returns whether there is a description of a network.
    pub fn has_network(&self) -> bool {
        self.0.contains_key(NETWORK)
    }

    /// Returns all files by their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<str>)> {
        self.0.iter().map(|(path, text)| (path.as_str(), text))
    }

    /// Adds or replaces a file.
    pub fn insert(&mut self, path: impl Into<String>, text: impl Into<Arc<str>>) {
        self.0.insert(path.into(), text.into());
    }

    /// Removes a file.
    pub fn remove(&mut self, path: &str) {
        self.0.remove(path);
    }

    /// Returns the files of routers, with their names where these are valid.
    pub(super) fn routers(
        &self,
    ) -> impl Iterator<Item = (&str, &Arc<str>, Result<ObjectName, crate::model::Invalid>)> {
        self.iter().filter_map(|(path, text)| {
            let (folder, file) = path.split_once('/')?;
            (folder == ROUTERS).then(|| (path, text, name(file).parse()))
        })
    }

    /// Returns the files of sessions, with the name of the router.
    pub(super) fn sessions(&self) -> impl Iterator<Item = (&str, &str, &Arc<str>)> {
        self.iter().filter_map(|(path, text)| {
            let (folder, file) = path.split_once('/')?;
            let (router, _) = file.split_once('/')?;
            (folder == SESSIONS).then_some((path, router, text))
        })
    }
}

impl<P: Into<String>, T: Into<Arc<str>>> FromIterator<(P, T)> for FleetFiles {
    fn from_iter<I: IntoIterator<Item = (P, T)>>(files: I) -> Self {
        let files = files.into_iter();
        Self(
            files
                .map(|(path, text)| (path.into(), text.into()))
                .collect(),
        )
    }
}

/// Returns the name of an object by its file.
fn name(file: &str) -> &str {
    file.strip_suffix(".yaml").unwrap_or(file)
}

/// Returns the path of a router's file.
pub fn router_path(router: &ObjectName) -> String {
    format!("{ROUTERS}/{router}.yaml")
}

/// Returns the path of a session's file.
pub fn session_path(router: &ObjectName, session: &ObjectName) -> String {
    format!("{SESSIONS}/{router}/{session}.yaml")
}
