//! The calls of owners of AS numbers: each sees and changes sessions of its own, and an operator reviews them.

mod bodies;
mod index;
mod openapi;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, ETAG, IF_MATCH, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use self::bodies::{NewSession, OwnedSession, OwnedSessions, SessionPatch, check};
use self::index::Index;
use super::answers::Answers;
use super::audit::Author;
use super::change::{ChangeError, Changes, Owned, fleet_invalid};
use super::network::{TokenHash, session};
use super::overview;
use super::posts::Posts;
use super::removal::is_removed_of;
use super::review::shown;
use super::store::{MakeChange, Store};
use super::tagged::tag;
use crate::http::{ApiError, Client, Guarded, TokenBucket, bearer, read_body};
use crate::intervals::{CHANGES_WAIT, FLEET_BODY};
use crate::model::{Asn, ObjectName, Uid};
use crate::util::random;
use crate::util::task::blocking;
use crate::wire::reference::{identity, written_asn};

pub(super) use openapi::describe;

/// Size limit of a body.
const BODY_MAX: usize = 16 * 1024;

/// Limit of each owner: calls per second, and calls at once. Each change checks the whole fleet.
const CALLS: (f64, u32) = (1.0, 30);

/// The path of all sessions.
const SESSIONS: &str = "/v1/sessions";

/// A path of owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    All,
    One {
        router: ObjectName,
        name: ObjectName,
    },
}

impl Target {
    /// Returns the target of a path.
    pub(super) fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(SESSIONS)?;
        if rest.is_empty() {
            return Some(Self::All);
        }
        let (router, name) = rest.strip_prefix('/')?.split_once('/')?;
        Some(Self::One {
            router: router.parse().ok()?,
            name: name.parse().ok()?,
        })
    }

    fn methods(&self) -> &'static str {
        match self {
            Self::All => "GET, POST",
            Self::One { .. } => "GET, PATCH, DELETE",
        }
    }
}

/// The calls of owners.
pub(super) struct Owners {
    started: Instant,
    guarded: Guarded,
    /// Held while a new one is read.
    index: tokio::sync::Mutex<Arc<Index>>,
    /// Held during a change, so that those that wait for the lock of the fleet take no threads.
    changing: Arc<tokio::sync::Mutex<()>>,
    buckets: Mutex<HashMap<Asn, TokenBucket>>,
}

impl Owners {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            guarded: Guarded::new(),
            index: tokio::sync::Mutex::default(),
            changing: Arc::default(),
            buckets: Mutex::default(),
        }
    }

    /// Answers a call.
    ///
    /// # Errors
    /// The client is no owner, or may not do this.
    pub(super) async fn answer(
        &self,
        target: Target,
        answers: &Answers,
        parts: &Parts,
        body: Body,
    ) -> Result<Response, ApiError> {
        let store = &*answers.store;
        let methods = target.methods();
        if !methods.split(", ").any(|it| parts.method == it) {
            return Err(ApiError::method_not_allowed(methods));
        }
        let mut index = self.index(store).await?;
        let (asn, token) = self.admit(&index, parts)?;
        if parts.method == Method::GET {
            // The owner may have changed a session through another instance.
            store.catch_up().await?;
            index = self.index(store).await?;
        }
        let body = read_body(body, BODY_MAX, FLEET_BODY).await?;
        let call = Call {
            owners: self,
            answers,
            store,
            parts,
            asn,
            token: token.clone(),
            body,
        };
        let answer = match (target, &parts.method) {
            (Target::All, &Method::POST) => call.create().await,
            (Target::All, _) => call.all(&index).await,
            (Target::One { router, name }, method) => {
                let owned = Owned {
                    asn,
                    router,
                    name,
                    token,
                };
                match *method {
                    Method::PATCH => call.patch(owned).await,
                    Method::DELETE => call.delete(owned).await,
                    _ => call.one(&owned, StatusCode::OK).await,
                }
            }
        };
        let mut answer = answer?;
        let no_store = HeaderValue::from_static("no-store");
        answer.headers_mut().insert(CACHE_CONTROL, no_store);
        Ok(answer)
    }

    /// Returns the owners in the newest files; while these are written, in those before.
    async fn index(&self, store: &dyn Store) -> Result<Arc<Index>, ApiError> {
        let mut index = self.index.lock().await;
        let known = Arc::clone(&index);
        let files = match store.network().await {
            Ok(files) => files.unwrap_or_default(),
            Err(_) if known.is_open => return Ok(known),
            Err(error) => return Err(error),
        };
        if Arc::ptr_eq(&files, &known.files) {
            return Ok(known);
        }
        *index = Arc::new(blocking(move || Index::new(files)).await);
        Ok(Arc::clone(&index))
    }

    fn admit(&self, index: &Index, parts: &Parts) -> Result<(Asn, TokenHash), ApiError> {
        if !index.is_open {
            return Err(match index.files.has_network() {
                true => fleet_invalid(),
                false => ApiError::not_found("the fleet has no network.yaml, and no owners"),
            });
        }
        let given = bearer(&parts.headers).ok_or_else(ApiError::invalid_token)?;
        let token = TokenHash::of_text(given);
        let found = index.owner(&token);
        self.guarded.count(parts, given, found.is_some())?;
        let asn = found.ok_or_else(ApiError::invalid_token)?;
        let mut buckets = self.buckets.lock();
        let bucket = buckets.entry(asn);
        let bucket = bucket.or_insert_with(|| TokenBucket::new(CALLS.0, CALLS.1));
        let taken = bucket.take(self.started.elapsed());
        taken.map_err(ApiError::rate_limited).map(|()| (asn, token))
    }
}

/// A call of an owner.
struct Call<'c> {
    owners: &'c Owners,
    answers: &'c Answers,
    store: &'c dyn Store,
    parts: &'c Parts,
    asn: Asn,
    token: TokenHash,
    body: Bytes,
}

impl Call<'_> {
    async fn all(&self, index: &Index) -> Result<Response, ApiError> {
        let mut sessions = Vec::new();
        let mut posts: Option<(&str, Posts)> = None;
        for place in index.sessions(self.asn).await {
            let (Ok(router), Ok(name)) = (place.router.parse::<ObjectName>(), place.name.parse())
            else {
                continue;
            };
            if posts
                .as_ref()
                .is_none_or(|(known, _)| *known != place.router)
            {
                posts = Some((&place.router, self.store.posts(&router).await?));
            }
            let view = posts.as_ref();
            let view = view.and_then(|(_, posts)| overview::session(&place.item, posts));
            sessions.extend(view.map(|status| OwnedSession {
                router,
                name,
                spec: shown(&place.item),
                status,
            }));
        }
        Ok(Json(OwnedSessions { sessions }).into_response())
    }

    async fn one(&self, owned: &Owned, status: StatusCode) -> Result<Response, ApiError> {
        let path = owned.path();
        let text = self.store.file(Path::new(&path)).await;
        let text = text.map_err(|error| ApiError::internal(format!("{path}: {error}")))?;
        let item = text.as_ref().and_then(|text| session(&path, text).ok());
        let item = item.filter(|item| written_asn(item) == Some(self.asn));
        let (text, item) = text.zip(item).ok_or_else(not_found)?;
        let posts = self.store.posts(&owned.router).await?;
        let view = overview::session(&item, &posts).ok_or_else(not_found)?;
        let answer = OwnedSession {
            router: owned.router.clone(),
            name: owned.name.clone(),
            spec: shown(&item),
            status: view,
        };
        let mut answer = (status, Json(answer)).into_response();
        let tag = HeaderValue::try_from(tag(text.as_bytes()));
        answer.headers_mut().extend(tag.ok().map(|tag| (ETAG, tag)));
        Ok(answer)
    }

    async fn create(&self) -> Result<Response, ApiError> {
        let new: NewSession = self.read()?;
        let first = format!("as{}", self.asn);
        let name = match new.name {
            None => first.parse(),
            Some(name) => {
                check_name(&name, &first).map_err(|error| self.refused(error))?;
                Ok(name)
            }
        };
        let owned = Owned {
            asn: self.asn,
            router: new.router,
            name: name.map_err(|error| ApiError::internal(error.to_string()))?,
            token: self.token.clone(),
        };
        let uuid = random::uuid().map_err(|error| ApiError::internal(error.to_string()))?;
        let (made, asked) = (owned.clone(), new.spec);
        self.change(
            &owned,
            "create",
            Box::new(move |changes: &mut Changes| {
                check(&asked)?;
                changes.ask_for(&made, &uuid, &asked)
            }),
        )
        .await?;
        let mut answer = self.one(&owned, StatusCode::CREATED).await?;
        let location = format!("{SESSIONS}/{}/{}", owned.router, owned.name);
        let location = HeaderValue::try_from(location);
        let headers = answer.headers_mut();
        headers.extend(location.ok().map(|location| (LOCATION, location)));
        Ok(answer)
    }

    async fn patch(&self, owned: Owned) -> Result<Response, ApiError> {
        let SessionPatch { spec } = self.read()?;
        let (made, known) = (owned.clone(), self.known());
        self.change(
            &owned,
            "change",
            Box::new(move |changes: &mut Changes| {
                check(&spec)?;
                changes.ask_again(&made, known.as_deref(), &spec)
            }),
        )
        .await?;
        self.one(&owned, StatusCode::OK).await
    }

    /// Marks a session for removal: 202. Once the router has confirmed the removal, removes the file: 204.
    async fn delete(&self, owned: Owned) -> Result<Response, ApiError> {
        let gone = self.gone(&owned).await?;
        let (made, known) = (owned.clone(), self.known());
        self.change(
            &owned,
            "delete",
            Box::new(move |changes: &mut Changes| {
                changes.mark_for_removal(&made, known.as_deref(), gone.as_ref())
            }),
        )
        .await?;
        match self.one(&owned, StatusCode::ACCEPTED).await {
            Err(error) if error.status == StatusCode::NOT_FOUND => {
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            answer => answer,
        }
    }

    /// Returns the identity of a session whose removal its router has confirmed.
    async fn gone(&self, owned: &Owned) -> Result<Option<Uid>, ApiError> {
        let path = owned.path();
        let text = self.store.file(Path::new(&path)).await;
        let text = text.map_err(|error| ApiError::internal(format!("{path}: {error}")))?;
        let item = text.and_then(|text| session(&path, &text).ok());
        let Some(uuid) = item.as_ref().and_then(identity) else {
            return Ok(None);
        };
        let is_removed = is_removed_of(self.store, &owned.router, &uuid).await?;
        Ok(is_removed.then_some(uuid))
    }

    /// Changes the files, and logs who did.
    async fn change(
        &self,
        owned: &Owned,
        what: &'static str,
        mut make: MakeChange,
    ) -> Result<(), ApiError> {
        let (who, object) = (
            format!("AS{}", self.asn),
            format!("{}/{}", owned.router, owned.name),
        );
        let by = Author::new(who, Client::of(self.parts), what, object);
        let permit = Arc::clone(&self.owners.changing).lock_owned();
        let permit = timeout(CHANGES_WAIT, permit).await;
        let permit = permit.map_err(|_| ApiError::rate_limited(CHANGES_WAIT))?;
        // Held until the work ends, also if the client closes the connection before.
        let make = Box::new(move |changes: &mut Changes| {
            let _permit = &permit;
            make(changes)
        });
        let changed = self.answers.change_files(&by, make).await;
        changed.map(drop).map_err(refused)
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| ApiError::bad_request(format!("the body: {error}")))
            .map_err(|error| self.refused(error))
    }

    /// Logs a change that was refused before it was made.
    fn refused(&self, error: ApiError) -> ApiError {
        let what = match self.parts.method {
            Method::POST => "create",
            _ => "change",
        };
        let object = self.parts.uri.path().to_owned();
        let who = format!("AS{}", self.asn);
        Author::new(who, Client::of(self.parts), what, object).refused(error)
    }

    /// Returns the tag of the session that the owner knows.
    fn known(&self) -> Option<String> {
        let tag = self.parts.headers.get(IF_MATCH)?;
        Some(String::from_utf8_lossy(tag.as_bytes()).into_owned())
    }
}

/// Refuses a name that an operator could take for another session: that of a link, an identity, another AS number.
fn check_name(name: &ObjectName, first: &str) -> Result<(), ApiError> {
    let rest = name.as_str().strip_prefix(first);
    if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-')) {
        return Ok(());
    }
    let message = format!("name: must be {first}, or start with {first}-");
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Err(ApiError::new(status, "INVALID_SESSION", message))
}

fn not_found() -> ApiError {
    let message = "you have no session of this name on this router";
    ApiError::new(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND", message)
}

/// Returns the error for an owner, without names of files and of others' objects.
fn refused(error: ChangeError) -> ApiError {
    let conflict = |message: &str| ApiError::new(StatusCode::CONFLICT, "NOT_CHANGED", message);
    match error {
        ChangeError::Refused(error) => error,
        ChangeError::NoSession(_) => not_found(),
        ChangeError::Exists(_) => {
            let message = "the router has a session of this name; choose another name";
            ApiError::new(StatusCode::CONFLICT, "EXISTS", message)
        }
        ChangeError::Invalid(_) => {
            let message = "the session conflicts with a tunnel or another session of the router; change listenPort and the addresses, or ask the operator of the network";
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            ApiError::new(status, "INVALID_SESSION", message)
        }
        ChangeError::Locked(_) | ChangeError::ChangedMeanwhile(_) => {
            conflict("the fleet is being changed; retry")
        }
        ChangeError::Edit { .. } | ChangeError::Session { .. } => {
            conflict("only the operator of the network can change this session; ask them")
        }
        ChangeError::Fleet(_)
        | ChangeError::Io { .. }
        | ChangeError::NoRouter { .. }
        | ChangeError::Unusable { .. }
        | ChangeError::Ambiguous { .. }
        | ChangeError::Token { .. }
        | ChangeError::NoOwner(_) => ApiError::internal(
            "the server cannot change the session; ask the operator of the network",
        ),
    }
}
