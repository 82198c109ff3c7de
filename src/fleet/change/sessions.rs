//! Sessions of routers, by the names that operators use.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ChangeError, Changes};
use crate::document::{Edit, parse_list};
use crate::fleet::tree;
use crate::model::ObjectName;
use crate::wire::WireStatus;
use crate::wire::reference::{identity, written_status};

/// What a session is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// The router sets it up.
    Accept,
    /// The router takes it down.
    Disable,
    /// The router removes it.
    Delete,
}

impl Wish {
    /// Returns the word of the API.
    pub(in crate::fleet) fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Disable => "disable",
            Self::Delete => "delete",
        }
    }
}

/// A session in the files of a fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionPlace {
    /// The router.
    pub router: String,
    /// The name of its file, of its link, or its uuid.
    pub name: String,
    /// The session, as written.
    pub item: Value,
    file: String,
    /// The index in a list of sessions.
    index: Option<usize>,
}

impl SessionPlace {
    /// Returns the name with that of the router.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.router, self.name)
    }

    /// Returns the status in the file.
    pub fn status(&self) -> Option<WireStatus> {
        written_status(&self.item)
    }

    fn is_meant(&self, name: &str) -> bool {
        let own = ["interface", "uuid", "name"];
        let own = own.iter().filter_map(|key| self.item.get(*key)?.as_str());
        own.chain([self.name.as_str()]).any(|own| own == name)
    }

    fn error(&self, reason: &str) -> ChangeError {
        ChangeError::Session {
            session: self.full_name(),
            reason: reason.to_owned(),
        }
    }
}

impl Changes {
    /// Returns all sessions that can be read.
    pub fn sessions(&self) -> Vec<SessionPlace> {
        let mut found = self.described_sessions();
        for router in tree::folders(&self.files) {
            found.extend(self.listed(&router));
        }
        found
    }

    /// Returns the sessions that have a file of their own.
    pub(in crate::fleet) fn described_sessions(&self) -> Vec<SessionPlace> {
        let paths = self.files.iter().map(|(path, _)| path);
        paths
            .filter_map(|path| self.described_session(path))
            .collect()
    }

    /// Returns the session in a file of its own, if the path is that of one.
    pub(super) fn described_session(&self, path: &str) -> Option<SessionPlace> {
        let (router, file) = path.strip_prefix("sessions/")?.split_once('/')?;
        let item = parse_list(self.files.text(path)?).ok()?;
        Some(SessionPlace {
            router: router.to_owned(),
            name: file.strip_suffix(".yaml")?.to_owned(),
            item,
            file: path.to_owned(),
            index: None,
        })
    }

    /// Returns the sessions in the list of a router's folder.
    fn listed(&self, router: &str) -> Vec<SessionPlace> {
        let file = format!("{router}/sessions.yaml");
        let list: Map<String, Value> = self
            .files
            .text(&file)
            .and_then(|text| parse_list(text).ok())
            .unwrap_or_default();
        let items = list.get("sessions").and_then(Value::as_array);
        let items = items.into_iter().flatten().enumerate();
        let place = |(index, item): (usize, &Value)| SessionPlace {
            router: router.to_owned(),
            name: listed_name(item),
            item: item.clone(),
            file: file.clone(),
            index: Some(index),
        };
        items.map(place).collect()
    }

    /// Finds a session by `ROUTER/NAME`, by a name that only one has, or by its uuid.
    ///
    /// # Errors
    /// None or several have this name.
    pub fn session(&self, name: &str) -> Result<SessionPlace, ChangeError> {
        let (router, own) = match name.split_once('/') {
            Some((router, own)) => (Some(router), own),
            None => (None, name),
        };
        let mut found = self.sessions();
        found.retain(|it| router.is_none_or(|router| router == it.router) && it.is_meant(own));
        match found.len() {
            0 => {
                let missing = || ChangeError::NoSession(name.to_owned());
                Err(self.unusable().unwrap_or_else(missing))
            }
            1 => Ok(found.swap_remove(0)),
            _ => {
                let all = found.iter().map(|it| match identity(&it.item) {
                    Some(uuid) => format!("{}/{uuid}", it.router),
                    None => it.full_name(),
                });
                Err(ChangeError::Ambiguous {
                    name: name.to_owned(),
                    all: all.collect::<Vec<_>>().join(", "),
                })
            }
        }
    }

    /// Writes a wish into the status of a session. Returns whether that changes it.
    ///
    /// # Errors
    /// The session cannot have this status now.
    pub fn wish(&mut self, place: &SessionPlace, wish: Wish) -> Result<bool, ChangeError> {
        use WireStatus::{Active, Disabled, Error, PendingReview, QueuedForDelete, QueuedForSetup};
        let Some(status) = place.status() else {
            return Err(place.error("its status is not valid; run `moenet-agent fleet validate`"));
        };
        let wanted = match (wish, status) {
            (Wish::Accept, PendingReview | Disabled) => QueuedForSetup,
            (Wish::Accept, Active | Error | QueuedForSetup) => return Ok(false),
            (Wish::Disable, Disabled) | (Wish::Delete, QueuedForDelete) => return Ok(false),
            (Wish::Accept | Wish::Disable, QueuedForDelete) => {
                return Err(
                    place.error("is being deleted; write its status with an editor to keep it")
                );
            }
            (Wish::Disable, _) => Disabled,
            (Wish::Delete, _) => QueuedForDelete,
        };
        let index = place.index.map(|index| index.to_string());
        let mut at: Vec<&str> = index.iter().flat_map(|index| ["sessions", index]).collect();
        at.push("status");
        let status = json!(wanted.number());
        self.edit(&place.file, &at, &Edit::Set(status))?;
        Ok(true)
    }

    /// Adds a session to the list of a router with a folder of its own.
    ///
    /// # Errors
    /// The list cannot be changed.
    pub fn add_listed(&mut self, router: &ObjectName, item: Value) -> Result<(), ChangeError> {
        let file = format!("{router}/sessions.yaml");
        self.edit(&file, &["sessions"], &Edit::Push(item))
    }

    /// Removes a session from the files.
    ///
    /// # Errors
    /// Its list cannot be changed at this place.
    pub fn forget(&mut self, place: &SessionPlace) -> Result<(), ChangeError> {
        match place.index {
            None => {
                self.remove(&place.file);
                Ok(())
            }
            Some(index) => {
                let index = index.to_string();
                self.edit(&place.file, &["sessions", &index], &Edit::Remove)
            }
        }
    }
}

/// Returns the name of a session in a list: that of its link, else its uuid.
fn listed_name(item: &Value) -> String {
    let text = |key: &str| item.get(key)?.as_str().map(str::to_owned);
    text("interface")
        .or_else(|| identity(item).map(|uuid| uuid.to_string()))
        .unwrap_or_default()
}
