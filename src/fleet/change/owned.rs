//! Changes that the owner of an AS number makes to sessions of its own.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::{ChangeError, Changes, Must, SessionPlace, Wish};
use crate::document::{Edit, parse_value};
use crate::fleet::network::{
    Network, OwnerLimits, OwnerSpec, TokenHash, owner_path, router_path, session_path,
};
use crate::fleet::tagged::tag;
use crate::http::ApiError;
use crate::model::{Asn, Endpoint, ObjectName, Uid};
use crate::wire::WireStatus;
use crate::wire::reference::{identity, written_asn};

/// The fields of a session's keys, which are below this one in the file.
const CREDENTIAL: &str = "credential";
const KEYS: [&str; 2] = ["publicKey", "presharedKey"];

/// The one field that an owner may change without a review: a text for people.
const DESCRIPTION: &str = "description";

/// Fields of a session by their names in the API of owners; null for one to remove.
pub(in crate::fleet) type Asked = Map<String, Value>;

/// A session of the owner of an AS number.
#[derive(Debug, Clone)]
pub(in crate::fleet) struct Owned {
    pub(in crate::fleet) asn: Asn,
    pub(in crate::fleet) router: ObjectName,
    pub(in crate::fleet) name: ObjectName,
    /// The hash of the caller's token, which may be revoked before the change is made.
    pub(in crate::fleet) token: TokenHash,
}

impl Owned {
    /// Returns the file of the session.
    pub(in crate::fleet) fn path(&self) -> String {
        session_path(&self.router, &self.name)
    }
}

impl Changes {
    /// Adds a session that waits for review, within the limits of its owner.
    pub(in crate::fleet) fn ask_for(
        &mut self,
        owned: &Owned,
        uuid: &Uid,
        asked: &Asked,
    ) -> Result<Must, ChangeError> {
        let limits = self.owner_limits(owned)?;
        self.check_limits(owned, &limits)?;
        check_endpoint(asked)?;
        let mut item = Map::from_iter([
            ("uuid".to_owned(), json!(uuid)),
            ("status".to_owned(), json!(WireStatus::PendingReview)),
            ("name".to_owned(), json!(owned.name)),
            ("asn".to_owned(), json!(owned.asn)),
        ]);
        apply(&mut item, asked);
        let fields = item.iter().map(|(key, value)| format!("{key}: {value}\n"));
        let head = format!("# The owner of AS{} asked for this session.\n", owned.asn);
        let text = head + &fields.collect::<String>();
        // JSON is YAML, except for characters that YAML forbids.
        if parse_value::<Asked>(&text).ok().as_ref() != Some(&item) {
            return Err(invalid("a text has a character that a file cannot have"));
        }
        self.create(&owned.path(), text)?;
        self.await_review(owned)
    }

    /// Changes fields of a session. It waits for review again, unless only its description changes.
    pub(in crate::fleet) fn ask_again(
        &mut self,
        owned: &Owned,
        known: Option<&str>,
        asked: &Asked,
    ) -> Result<Must, ChangeError> {
        let place = self.owned(owned, known)?;
        self.owner_limits(owned)?;
        check_endpoint(asked)?;
        if place.status() == Some(WireStatus::QueuedForDelete) {
            let message = "the session is being removed; delete it again once its router has confirmed that, then ask for a new one";
            return Err(refused(StatusCode::CONFLICT, "NOT_CHANGED", message));
        }
        let Value::Object(before) = &place.item else {
            return Err(ChangeError::NoSession(place.full_name()));
        };
        let mut after = before.clone();
        apply(&mut after, asked);
        let names = before.keys().chain(after.keys());
        let mut names: Vec<&String> = names
            .filter(|name| before.get(*name) != after.get(*name))
            .collect();
        names.sort();
        names.dedup();
        for name in &names {
            let change = match after.get(*name) {
                Some(value) => Edit::Set(value.clone()),
                None => Edit::Remove,
            };
            self.edit(&owned.path(), &[name], &change)?;
        }
        match names.iter().all(|name| *name == DESCRIPTION) {
            true => {
                self.check_owned(owned)?;
                Ok(Must::NotGetWorse)
            }
            false => self.await_review(owned),
        }
    }

    /// Marks a session for removal; removes its file once the router has confirmed the removal of the session with the
    /// identity `gone`.
    pub(in crate::fleet) fn mark_for_removal(
        &mut self,
        owned: &Owned,
        known: Option<&str>,
        gone: Option<&Uid>,
    ) -> Result<Must, ChangeError> {
        let place = self.owned(owned, known)?;
        let is_marked = !self.wish(&place, Wish::Delete)?;
        if is_marked && gone.is_some() && identity(&place.item).as_ref() == gone {
            self.forget(&place)?;
        }
        Ok(Must::NotGetWorse)
    }

    /// Returns a session that an owner may change.
    fn owned(&self, owned: &Owned, known: Option<&str>) -> Result<SessionPlace, ChangeError> {
        self.caller(owned)?;
        let path = owned.path();
        let place = self
            .described_session(&path)
            .filter(|it| written_asn(&it.item) == Some(owned.asn))
            .ok_or_else(|| ChangeError::NoSession(format!("{}/{}", owned.router, owned.name)))?;
        let text = self.files.text(&path).map_or("", |text| text);
        match known {
            Some(known)
                if known != "*" && known.trim_start_matches("W/") != tag(text.as_bytes()) =>
            {
                let message = "the session was changed meanwhile; read it again";
                Err(refused(
                    StatusCode::PRECONDITION_FAILED,
                    "CHANGED_MEANWHILE",
                    message,
                ))
            }
            _ => Ok(place),
        }
    }

    /// Returns the limits of the caller, if the network is valid: a session is checked with its router.
    fn owner_limits(&self, owned: &Owned) -> Result<OwnerLimits, ChangeError> {
        if Network::read(&self.files).is_err() {
            return Err(fleet_invalid().into());
        }
        Ok(self.caller(owned)?.limits)
    }

    /// Returns the owner, if the token of the call is still valid.
    fn caller(&self, owned: &Owned) -> Result<OwnerSpec, ChangeError> {
        let path = owner_path(owned.asn);
        let of_all = self.files.owner_limits();
        let owner = of_all.zip(self.files.text(&path));
        let owner = owner.and_then(|(of_all, text)| OwnerSpec::read(&path, text, &of_all).ok());
        let owner = owner.filter(|owner| owner.has(&owned.token));
        Ok(owner.ok_or_else(ApiError::invalid_token)?)
    }

    fn check_limits(&self, owned: &Owned, limits: &OwnerLimits) -> Result<(), ChangeError> {
        let router = router_path(&owned.router);
        if !limits.allows(&owned.router) || self.files.text(&router).is_none() {
            let routers = self.files.routers().filter_map(|(.., name)| name.ok());
            let allowed: Vec<String> = routers
                .filter(|name| limits.allows(name))
                .map(|name| name.to_string())
                .collect();
            let message = format!("router: use one of {}", allowed.join(", "));
            return Err(invalid(&message));
        }
        let mut own = self.described_sessions();
        own.retain(|it| written_asn(&it.item) == Some(owned.asn));
        let on_router = own.iter().filter(|it| it.router == owned.router.as_str());
        let (most, most_on_router) = limits.most();
        let reached = match (own.len() >= most, on_router.count() >= most_on_router) {
            (true, _) => format!("the AS number has all sessions that it may have: {most}"),
            (_, true) => format!(
                "the AS number has all sessions that it may have on {}: {most_on_router}",
                owned.router
            ),
            _ => return Ok(()),
        };
        let message = format!("{reached}; delete one, or ask the operator of the network");
        Err(refused(StatusCode::FORBIDDEN, "LIMIT_REACHED", &message))
    }

    /// Checks a session as if it were accepted, because nothing else of one that waits is checked; then lets it wait.
    fn await_review(&mut self, owned: &Owned) -> Result<Must, ChangeError> {
        let path = owned.path();
        let status = |status: WireStatus| Edit::Set(json!(status));
        self.edit(&path, &["status"], &status(WireStatus::QueuedForSetup))?;
        self.check_owned(owned)?;
        self.edit(&path, &["status"], &status(WireStatus::PendingReview))?;
        Ok(Must::NotGetWorse)
    }

    /// Checks the fleet. An error names the fields of the session, if these alone are wrong, and no other object.
    fn check_owned(&self, owned: &Owned) -> Result<(), ChangeError> {
        let checked = self.check(Must::NotGetWorse);
        let Err(ChangeError::Invalid(_)) = &checked else {
            return checked;
        };
        let network = Network::read(&self.files).ok();
        let path = owned.path();
        let alone = network
            .zip(self.files.text(&path))
            .map(|(network, text)| network.problems_of_session(&owned.router, &path, text));
        let texts: Vec<String> = alone.into_iter().flatten().map(|it| it.message).collect();
        match texts.is_empty() {
            true => checked,
            false => Err(invalid(&texts.join("; "))),
        }
    }
}

/// Writes the fields that an owner asked for into a session.
fn apply(item: &mut Asked, asked: &Asked) {
    for (name, value) in asked {
        match KEYS.contains(&name.as_str()) {
            true => apply_key(item, name, value),
            false => set(item, name, value),
        }
    }
}

/// Writes one of the keys into any of the three forms of the keys.
fn apply_key(item: &mut Asked, name: &str, value: &Value) {
    let mut keys = match item.remove(CREDENTIAL) {
        Some(Value::Object(keys)) => keys,
        Some(Value::String(text)) => serde_json::from_str(&text)
            .unwrap_or_else(|_| Map::from_iter([(KEYS[0].to_owned(), text.into())])),
        _ => Map::new(),
    };
    // The other place of the preshared key.
    if let Some(key) = item.remove(KEYS[1]) {
        keys.entry(KEYS[1]).or_insert(key);
    }
    set(&mut keys, name, value);
    if !keys.is_empty() {
        item.insert(CREDENTIAL.to_owned(), keys.into());
    }
}

fn set(fields: &mut Asked, name: &str, value: &Value) {
    match value {
        Value::Null => drop(fields.remove(name)),
        value => drop(fields.insert(name.to_owned(), value.clone())),
    }
}

/// Refuses an endpoint that is no public address: an owner must not send the router's packets into its own network.
/// Only the router knows the address of a name, which may change at any time: an operator reviews it.
fn check_endpoint(asked: &Asked) -> Result<(), ChangeError> {
    let endpoint = asked.get("endpoint").and_then(Value::as_str);
    let endpoint: Option<Endpoint> = endpoint.and_then(|text| text.parse().ok());
    match endpoint.map(|endpoint| endpoint.host) {
        Some(host) if !host.is_public() => {
            let message = format!("endpoint: {host} is no public address or name");
            Err(invalid(&message))
        }
        _ => Ok(()),
    }
}

fn refused(status: StatusCode, code: &'static str, message: &str) -> ChangeError {
    ChangeError::Refused(ApiError::new(status, code, message))
}

/// 503: no session can be checked.
pub(in crate::fleet) fn fleet_invalid() -> ApiError {
    let message = "the description of the network has an error, which its operator has to repair; retry later";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "FLEET_INVALID", message)
}

/// 422: the session cannot be as asked.
pub(in crate::fleet) fn invalid(message: &str) -> ChangeError {
    refused(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_SESSION", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::network::FleetFiles;
    use crate::model::Secret;

    #[test]
    fn session_in_the_list_of_a_folder_reaches_no_limit() {
        let asn = Asn::try_from(4_242_421_090).unwrap();
        let own = format!("{{uuid: a, status: 1, asn: {asn}}}\n");
        let list = format!("sessions: [{own}]\n");
        let files = [
            ("network.yaml", "owners: {sessions: 1}\n"),
            ("routers/jp1.yaml", "{id: 1, token: abc}\n"),
            ("jp1/sessions.yaml", &list),
            ("moon/sessions.yaml", &list),
        ];
        let mut files: FleetFiles = files.into_iter().collect();
        let limits = files.owner_limits().unwrap();
        let owned = Owned {
            asn,
            router: "jp1".parse().unwrap(),
            name: "as4242421090".parse().unwrap(),
            token: TokenHash::of(&Secret::new("token".to_owned())),
        };
        let check = |files: &FleetFiles| Changes::of(files.clone()).check_limits(&owned, &limits);
        assert!(check(&files).is_ok());
        files.insert("sessions/jp1/as4242421090.yaml", own);
        assert!(check(&files).is_err());
    }
}
