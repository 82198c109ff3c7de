use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::model::{Asn, Invalid, ObjectName};

/// The file that describes the network. A fleet without it has one folder for each router only.
pub const NETWORK: &str = "network.yaml";

/// The folder with one file for each router.
pub const ROUTERS: &str = "routers";

/// The folder with one folder for each router, with one file for each session.
pub const SESSIONS: &str = "sessions";

/// The folder with one file for each owner of an AS number.
pub const OWNERS: &str = "owners";

/// The file of a router with a folder of its own.
const FOLDER_ROUTER: &str = "/router.yaml";

/// Names of folders of the fleet that are no routers.
pub const RESERVED: [&str; 4] = [ROUTERS, SESSIONS, OWNERS, "reported"];

/// How the names of a network's files end.
const YAML: &str = ".yaml";

/// How the names of texts for people end.
const NOTES: &str = ".md";

/// How the names of files end whose presence answers every call of a router with 503.
pub const MAINTENANCE: &str = ".maintenance";

/// The files of a fleet that operators write: the text by the path below the fleet's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetFiles {
    /// Those of each folder, which a newer fleet shares if none of them changed.
    folders: BTreeMap<Arc<str>, Arc<Folder>>,
    faults: BTreeMap<String, String>,
}

/// The texts in a folder by their paths.
type Folder = BTreeMap<String, Arc<str>>;

impl FleetFiles {
    /// Returns the text of a file.
    pub fn text(&self, path: &str) -> Option<&Arc<str>> {
        self.folders.get(folder_of(path))?.get(path)
    }

    /// Returns whether there is a file, also one that cannot be used.
    pub fn has(&self, path: &str) -> bool {
        self.text(path).is_some() || self.faults.contains_key(path)
    }

    /// Returns whether there is a description of a network, also one whose `network.yaml` is lost.
    pub fn has_network(&self) -> bool {
        let has_routers = || self.routers().next().is_some();
        // A router with a folder of its own may have this name.
        self.has(NETWORK) || (has_routers() && !self.has(&format!("{ROUTERS}{FOLDER_ROUTER}")))
    }

    /// Returns whether these files differ from others in sessions and owners only.
    pub fn has_structure_of(&self, other: &Self) -> bool {
        fn texts(files: &FleetFiles) -> impl Iterator<Item = (&Arc<str>, &Arc<Folder>)> {
            let folders = files.folders.iter();
            folders.filter(|(folder, _)| !is_session(&format!("{folder}/")) && &***folder != OWNERS)
        }
        fn faults(files: &FleetFiles) -> impl Iterator<Item = (&str, &str)> {
            let faults = files.faults();
            faults.filter(|(path, _)| !is_session(path) && !is_owner(path))
        }
        texts(self).eq(texts(other)) && faults(self).eq(faults(other))
    }

    /// Returns the files of sessions that have another text here, with their texts of before.
    pub(in crate::fleet) fn changed_sessions<'b>(
        &self,
        before: &'b Self,
    ) -> impl Iterator<Item = (&'b str, &'b Arc<str>)> {
        let changed = before
            .folders_below(SESSIONS)
            .filter(|(folder, texts)| self.folders.get(*folder) != Some(*texts));
        changed
            .flat_map(|(_, texts)| texts.iter())
            .filter(|(path, text)| self.has(path) && self.text(path) != Some(*text))
            .map(|(path, text)| (path.as_str(), text))
    }

    /// Returns all files, those of each folder by their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<str>)> {
        let texts = self.folders.values().flat_map(|folder| folder.iter());
        texts.map(|(path, text)| (path.as_str(), text))
    }

    /// Adds or replaces a file.
    pub fn insert(&mut self, path: impl Into<String>, text: impl Into<Arc<str>>) {
        let path = path.into();
        match misplaced(&path) {
            Some(_) if is_ignored(path.rsplit('/').next().unwrap_or(&path)) => {}
            Some(why) => self.fault(path, why),
            None => {
                let folder = self.folders.entry(folder_of(&path).into()).or_default();
                Arc::make_mut(folder).insert(path, text.into());
            }
        }
    }

    /// Adds a file that exists and cannot be used. It is an error, and never a file that is gone.
    pub fn fault(&mut self, path: impl Into<String>, why: impl Into<String>) {
        self.faults.insert(path.into(), why.into());
    }

    /// Returns the files that exist and cannot be used, with the reasons.
    pub fn faults(&self) -> impl Iterator<Item = (&str, &str)> {
        self.faults
            .iter()
            .map(|(path, why)| (path.as_str(), why.as_str()))
    }

    /// Removes a file.
    pub fn remove(&mut self, path: &str) {
        self.faults.remove(path);
        let Some(folder) = self.folders.get_mut(folder_of(path)) else {
            return;
        };
        if folder.contains_key(path) {
            Arc::make_mut(folder).remove(path);
        }
        if folder.is_empty() {
            self.folders.remove(folder_of(path));
        }
    }

    /// Returns the names of the routers with a folder of their own.
    pub(super) fn folders(&self) -> impl Iterator<Item = &str> {
        let texts = self.iter().map(|(path, _)| path);
        let paths = texts.chain(self.faults.keys().map(String::as_str));
        paths
            .filter_map(|path| path.strip_suffix(FOLDER_ROUTER))
            .filter(|name| !RESERVED.contains(name) && !name.contains('/'))
    }

    /// Returns the files of routers, with their names where these are valid.
    pub fn routers(&self) -> impl Iterator<Item = (&str, &Arc<str>, Result<ObjectName, Invalid>)> {
        self.below(ROUTERS).filter_map(|(path, text)| {
            let (_, file) = path.split_once('/')?;
            let name = file.strip_suffix(YAML)?;
            Some((path, text, name.parse()))
        })
    }

    /// Returns the files of owners, with their AS numbers where the names are valid.
    pub fn owners(&self) -> impl Iterator<Item = (&str, &Arc<str>, Result<Asn, Invalid>)> {
        self.below(OWNERS).filter_map(|(path, text)| {
            let (_, file) = path.split_once('/')?;
            Some((path, text, owner_of(file.strip_suffix(YAML)?)))
        })
    }

    /// Returns the files of sessions, with the name of the router.
    pub(super) fn sessions(&self) -> impl Iterator<Item = (&str, &str, &Arc<str>)> {
        self.below(SESSIONS).filter_map(|(path, text)| {
            let (_, file) = path.split_once('/')?;
            let (router, _) = file.split_once('/')?;
            Some((path, router, text))
        })
    }

    /// Returns the files of a router's sessions; an error for one that cannot be used.
    pub fn sessions_of(
        &self,
        router: &ObjectName,
    ) -> impl Iterator<Item = (&str, Result<&Arc<str>, &str>)> {
        let folder = format!("{SESSIONS}/{router}");
        let texts = self.below(&folder);
        let faults = self.faults().filter_map(move |(path, why)| {
            let is_below = path.strip_prefix(&folder)?.starts_with('/');
            is_below.then_some((path, Err(why)))
        });
        texts.map(|(path, text)| (path, Ok(text))).chain(faults)
    }

    /// Returns whether a router's sessions are known to be the same here, without a look at their texts.
    pub(in crate::fleet) fn shares_sessions(&self, other: &Self, router: &ObjectName) -> bool {
        let folder = format!("{SESSIONS}/{router}");
        let is_same = match (self.folders.get(&*folder), other.folders.get(&*folder)) {
            (Some(here), Some(there)) => Arc::ptr_eq(here, there),
            (here, there) => here.is_none() && there.is_none(),
        };
        is_same && self.faults.is_empty() && other.faults.is_empty()
    }

    /// Returns the files below a folder.
    fn below(&self, folder: &str) -> impl Iterator<Item = (&str, &Arc<str>)> + use<'_> {
        let folders = self.folders_below(folder);
        folders
            .flat_map(|(_, texts)| texts.iter())
            .map(|(path, text)| (path.as_str(), text))
    }

    /// Returns a folder and those below it.
    fn folders_below(
        &self,
        folder: &str,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<Folder>)> + use<'_> {
        let inside = format!("{folder}/");
        let own = self.folders.get_key_value(folder);
        let others = self
            .folders
            .range::<str, _>((Bound::Included(inside.as_str()), Bound::Unbounded));
        own.into_iter()
            .chain(others.take_while(move |(folder, _)| folder.starts_with(&inside)))
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl<P: Into<String>, T: Into<Arc<str>>> FromIterator<(P, T)> for FleetFiles {
    fn from_iter<I: IntoIterator<Item = (P, T)>>(files: I) -> Self {
        let mut all = Self::default();
        for (path, text) in files {
            all.insert(path, text);
        }
        all
    }
}

/// Returns why a file in the folders of a network cannot be one of its files. A file that an operator renamed must
/// not look like one that is gone.
fn misplaced(path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        [ROUTERS, file] if file.ends_with(YAML) || file.ends_with(MAINTENANCE) => None,
        [SESSIONS, _, file] if file.ends_with(YAML) => None,
        [OWNERS, file] if file.ends_with(YAML) => None,
        [OWNERS, ..] => Some("not owners/<asn>.yaml; rename it, or move it out of owners/"),
        [ROUTERS, ..] => Some("not routers/<router>.yaml; rename it, or move it out of routers/"),
        [SESSIONS, ..] => {
            Some("not sessions/<router>/<name>.yaml; rename it, or move it out of sessions/")
        }
        _ => None,
    }
}

/// Returns whether a file does not belong to the fleet: hidden ones and copies are of editors and tools, notes of people.
pub fn is_ignored(name: &str) -> bool {
    name.starts_with('.') || name.ends_with('~') || name.ends_with(NOTES)
}

/// Returns whether an error in a file affects one router's sessions only.
pub(super) fn is_session(path: &str) -> bool {
    path.strip_prefix(SESSIONS)
        .is_some_and(|rest| rest.trim_start_matches('/').contains('/'))
}

/// Returns whether an error in a file affects one owner only.
pub(super) fn is_owner(path: &str) -> bool {
    path.strip_prefix(OWNERS)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Returns the AS number that is the name of a file, in its one form.
fn owner_of(name: &str) -> Result<Asn, Invalid> {
    let number = name.parse::<u64>().unwrap_or_default();
    match Asn::try_from(number) {
        Ok(asn) if asn.to_string() != name => Err(Invalid::new("write it as 4242421080")),
        asn => asn,
    }
}

/// Returns whether a file describes the structure of a network.
pub fn is_structure(path: &str) -> bool {
    let in_routers = path
        .strip_prefix(ROUTERS)
        .and_then(|rest| rest.strip_prefix('/'));
    path == NETWORK || in_routers.is_some_and(|file| file.ends_with(YAML))
}

/// Returns the file whose presence answers every call of a router with 503.
pub fn maintenance_path(router: &ObjectName) -> String {
    format!("{ROUTERS}/{router}{MAINTENANCE}")
}

/// Returns the path of a router's file.
pub fn router_path(router: &ObjectName) -> String {
    format!("{ROUTERS}/{router}.yaml")
}

/// Returns the path of an owner's file.
pub fn owner_path(asn: Asn) -> String {
    format!("{OWNERS}/{asn}{YAML}")
}

/// Returns the path of a session's file.
pub fn session_path(router: &ObjectName, session: &ObjectName) -> String {
    format!("{SESSIONS}/{router}/{session}.yaml")
}
