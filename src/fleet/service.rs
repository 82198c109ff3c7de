use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::folder::Folder;
use super::good::LastGood;
use super::openapi::openapi;
use super::parsed::Parsed;
use super::reported::{
    PostDone, REPORTED, Reported, ReportedStatus, applies, overlay, served_status, superseded,
};
use super::{FleetOptions, RateLimit};
use crate::http::{ApiError, OPENAPI, TokenBucket, bearer, read_body, same};
use crate::intervals::{FLEET_BODY, FLEET_POLL};
use crate::model::Secret;
use crate::util::file::Stamp;
use crate::util::fs;
use crate::util::task::{blocking, spawn_blocking};
use crate::wire::reference::{
    CONFIG_HASH, ROOT, ROUTER_NOT_FOUND, SESSION_NOT_FOUND, call, check_heartbeat, check_report,
    decode_modify, identity, written_status,
};
use crate::wire::{Call, Modify, WireError, WireStatus};

/// Size limit of a body: a report of ten thousand sessions.
const BODY_MAX: usize = 4 * 1024 * 1024;

/// Limit of all requests with a wrong token, or for an unknown router, from all clients together.
const STRANGERS: RateLimit = RateLimit {
    per_second: 10.0,
    burst: 50,
};

struct Fleet {
    dir: PathBuf,
    rate: RateLimit,
    started: Instant,
    buckets: Mutex<HashMap<String, TokenBucket>>,
    strangers: Mutex<TokenBucket>,
    /// Held while a router's posts are read, changed and written.
    writing: Mutex<()>,
    parsed: Parsed,
    good: LastGood,
    /// Stamps of the `router.yaml` files that gave no token, by router.
    broken: Mutex<HashMap<String, Option<Stamp>>>,
}

/// Returns the embedded Control Plane as a service, and the watcher of its files between requests.
pub fn watched(options: &FleetOptions) -> (Router, Watcher) {
    let fleet = Arc::new(Fleet::new(options));
    let app = Router::new()
        .fallback(handle)
        .with_state(Arc::clone(&fleet));
    let seen = HashMap::new();
    (app, Watcher { fleet, seen })
}

/// Polls the lists of sessions between the requests of their routers. A status that an operator
/// changes and changes back is a new request, even if no router polled meanwhile; edits within a
/// second count as one.
pub struct Watcher {
    fleet: Arc<Fleet>,
    seen: HashMap<String, Option<Stamp>>,
}

impl Watcher {
    /// Polls once a second, and never ends.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(FLEET_POLL).await;
            let looked = spawn_blocking(move || {
                self.look();
                self
            });
            self = match looked.await {
                Ok(next) => next,
                // The panic hook logs the panic, and each request reads the files itself.
                Err(_) => return std::future::pending().await,
            };
        }
    }

    /// Reads each list of sessions that changed since the last poll, and removes the statuses that
    /// it supersedes. Blocks.
    pub fn look(&mut self) {
        for folder in Folder::all(&self.fleet.dir) {
            let stamp = folder.stamp(Call::Sessions);
            if self.seen.get(folder.router()) == Some(&stamp) {
                continue;
            }
            let reported = Reported::new(folder.reported());
            // The router gets the error at its next request.
            let _ = self.fleet.sessions(&folder, &reported);
            self.seen.insert(folder.router().to_owned(), stamp);
        }
    }
}

async fn handle(State(fleet): State<Arc<Fleet>>, request: Request<Body>) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = dispatch(fleet, request).await.unwrap_or_else(|error| {
        if error.status.is_server_error() {
            tracing::error!(%method, path, %error, "request failed");
        } else {
            tracing::info!(%method, path, status = error.status.as_u16(), %error, "request refused");
        }
        error.into_response()
    });
    tracing::debug!(%method, path, status = response.status().as_u16(), "request");
    response
}

/// The target of a path.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Call(Call),
    Reported,
}

impl Wanted {
    fn of(endpoint: &str) -> Option<Self> {
        if endpoint == REPORTED {
            Some(Self::Reported)
        } else {
            call(endpoint).map(Self::Call)
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Call(Call::Heartbeat | Call::Report | Call::Modify) => "POST",
            _ => "GET",
        }
    }
}

async fn dispatch(fleet: Arc<Fleet>, request: Request<Body>) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() == OPENAPI {
        fleet.stranger_at_door()?;
        return match parts.method {
            Method::GET => Ok(Json(openapi()).into_response()),
            _ => Err(ApiError::method_not_allowed("GET")),
        };
    }
    let segments: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
    let [ROOT, router, endpoint] = segments[..] else {
        return Err(ApiError::not_found(
            "unknown path; use /agent/<router>/<endpoint>",
        ));
    };
    let (door, router) = (Arc::clone(&fleet), router.to_owned());
    let headers = parts.headers;
    let folder = blocking(move || door.admit(&router, &headers)).await?;
    let wanted = Wanted::of(endpoint)
        .ok_or_else(|| ApiError::not_found("no such endpoint below /agent/<router>/"))?;
    if parts.method.as_str() != wanted.method() {
        return Err(ApiError::method_not_allowed(wanted.method()));
    }
    let body = read_body(body, BODY_MAX, FLEET_BODY).await?;
    let answered = spawn_blocking(move || fleet.answer(&folder, wanted, &body)).await;
    answered
        .map_err(|error| ApiError::internal(error.to_string()))?
        .map(|value| Json(value).into_response())
}

impl Fleet {
    fn new(options: &FleetOptions) -> Self {
        Self {
            dir: options.dir.clone(),
            rate: options.rate,
            started: Instant::now(),
            buckets: Mutex::default(),
            strangers: Mutex::new(TokenBucket::new(STRANGERS.per_second, STRANGERS.burst)),
            writing: Mutex::default(),
            parsed: Parsed::default(),
            good: LastGood::default(),
            broken: Mutex::default(),
        }
    }

    /// Authenticates the client for a router, and limits its rate. Distinguishes an unknown router
    /// from a wrong token, as the API requires (docs/contract/fleet.md); names of routers are not
    /// secret.
    fn admit(&self, router: &str, headers: &HeaderMap) -> Result<Folder, ApiError> {
        if !fs::is_dir(&self.dir) {
            return Err(ApiError::internal("the fleet directory is missing"));
        }
        let Some(token) = bearer(headers) else {
            return Err(self.stranger(ApiError::invalid_token()));
        };
        let Some(folder) = Folder::find(&self.dir, router) else {
            let message = "no router of this name has a folder with a router.yaml; check node.name";
            return Err(self.stranger(ApiError::new(
                StatusCode::NOT_FOUND,
                ROUTER_NOT_FOUND,
                message,
            )));
        };
        if !same(token, &self.token(&folder)?) {
            let error = match folder.token_is_being_written() {
                // A router whose token is refused as wrong waits for an operator.
                true => ApiError::internal("router.yaml is being written; retry"),
                false => ApiError::invalid_token(),
            };
            return Err(self.stranger(error));
        }
        self.take(folder.router())?;
        if folder.in_maintenance() {
            return Err(ApiError::maintenance(
                "the operator works on this router's folder; retry later",
            ));
        }
        Ok(folder)
    }

    /// Unauthenticated clients share one bucket, so that guessing tokens is slow and does not affect routers.
    fn stranger(&self, error: ApiError) -> ApiError {
        self.stranger_at_door().err().unwrap_or(error)
    }

    /// Returns the token of a folder. If its file gives none, every client is unauthenticated: the
    /// file is read again, and its error logged, only within the limit of their bucket.
    fn token(&self, folder: &Folder) -> Result<Secret<String>, ApiError> {
        let stamp = folder.stamp(Call::Config);
        let known = self.broken.lock().get(folder.router()) == Some(&stamp);
        if known {
            self.stranger_at_door()?;
        }
        let token = folder.token();
        let mut broken = self.broken.lock();
        match token {
            Ok(_) => drop(broken.remove(folder.router())),
            Err(_) => drop(broken.insert(folder.router().to_owned(), stamp)),
        }
        drop(broken);
        match token {
            Err(error) if !known => Err(self.stranger(error)),
            token => token,
        }
    }

    fn stranger_at_door(&self) -> Result<(), ApiError> {
        let taken = self.strangers.lock().take(self.started.elapsed());
        taken.map_err(ApiError::rate_limited)
    }

    fn take(&self, router: &str) -> Result<(), ApiError> {
        let mut buckets = self.buckets.lock();
        let full = || TokenBucket::new(self.rate.per_second, self.rate.burst);
        let bucket = buckets.entry(router.to_owned()).or_insert_with(full);
        bucket
            .take(self.started.elapsed())
            .map_err(ApiError::rate_limited)
    }

    fn answer(&self, folder: &Folder, wanted: Wanted, body: &[u8]) -> Result<Value, ApiError> {
        let reported = Reported::new(folder.reported());
        let done = json!(PostDone { status: "ok" });
        let kept = |file, body: Result<Value, WireError>| {
            let _writing = self.writing.lock();
            reported
                .keep(file, body.map_err(bad_request)?)
                .map_err(disk)
        };
        match wanted {
            Wanted::Reported => reported.shown().map(|posts| json!(posts)).map_err(disk),
            Wanted::Call(Call::Heartbeat) => {
                kept("heartbeat.json", check_heartbeat(body)).map(|()| done)
            }
            Wanted::Call(Call::Report) => kept("report.json", check_report(body)).map(|()| done),
            Wanted::Call(Call::Modify) => {
                let modify = decode_modify(body).map_err(bad_request)?;
                self.modify(folder, &reported, &modify).map(|()| done)
            }
            Wanted::Call(Call::Sessions) => self.sessions(folder, &reported),
            Wanted::Call(Call::BirdConfig) => {
                let answer = self.served(folder, &reported, Call::BirdConfig)?;
                Ok(hashed(Map::clone(&answer)))
            }
            Wanted::Call(call) => {
                let answer = self.served(folder, &reported, call)?;
                Ok(Value::Object(Map::clone(&answer)))
            }
        }
    }

    /// Returns the answer from the files, with each invalid unit replaced by its last valid version.
    fn served(
        &self,
        folder: &Folder,
        reported: &Reported,
        call: Call,
    ) -> Result<Arc<Map<String, Value>>, ApiError> {
        // May wait for the file's writer, so the lock is taken only after it.
        let written = folder.answer(call, &self.parsed)?;
        let node = folder.node(&self.parsed);
        let _writing = self.writing.lock();
        let outcome = self
            .good
            .serve(folder.router(), call, written, node, reported)
            .map_err(disk)?;
        folder.log(call, &outcome);
        Ok(outcome.served)
    }

    fn sessions(&self, folder: &Folder, reported: &Reported) -> Result<Value, ApiError> {
        let mut items = list(&*self.served(folder, reported, Call::Sessions)?).to_vec();
        let _writing = self.writing.lock();
        let statuses = reported.statuses().map_err(disk)?;
        for entry in statuses.values().filter(|entry| superseded(entry, &items)) {
            reported.forget(&entry.uuid).map_err(disk)?;
        }
        overlay(&mut items, &statuses);
        Ok(json!({ "sessions": items }))
    }

    /// Processes a session's change of status.
    fn modify(
        &self,
        folder: &Folder,
        reported: &Reported,
        modify: &Modify,
    ) -> Result<(), ApiError> {
        if !matches!(
            modify.status,
            WireStatus::Disabled | WireStatus::Active | WireStatus::Error
        ) {
            return Err(ApiError::bad_request("status: an agent reports 0, 1 or 2"));
        }
        let answer = self.served(folder, reported, Call::Sessions)?;
        let _writing = self.writing.lock();
        let items = list(&answer);
        let mut statuses = reported.status(&modify.uuid).map_err(disk)?;
        for (_, entry) in statuses.extract_if(.., |_, entry| superseded(entry, items)) {
            reported.forget(&entry.uuid).map_err(disk)?;
        }
        let item = items
            .iter()
            .find(|item| identity(item).as_ref() == Some(&modify.uuid));
        let served =
            item.and_then(|item| served_status(item, &statuses).map(|served| (item, served)));
        let Some((item, served)) = served else {
            let message = format!("no session has the uuid {}", modify.uuid);
            return Err(ApiError::new(
                StatusCode::NOT_FOUND,
                SESSION_NOT_FOUND,
                message,
            ));
        };
        let applied = applies(modify.status, served);
        reported.log(modify, applied).map_err(disk)?;
        if !applied {
            return Ok(());
        }
        let entry = ReportedStatus {
            uuid: modify.uuid.clone(),
            status: modify.status,
            error: modify.error.clone(),
            file_status: written_status(item),
            at: jiff::Timestamp::now(),
        };
        reported.set_status(&entry).map_err(disk)
    }
}

fn list(answer: &Map<String, Value>) -> &[Value] {
    answer
        .get("sessions")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// Adds the hash of the rest of the answer, so that a router detects a change.
fn hashed(mut answer: Map<String, Value>) -> Value {
    answer.remove(CONFIG_HASH);
    let digest = Sha256::digest(Value::Object(answer.clone()).to_string().as_bytes());
    let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    answer.insert(CONFIG_HASH.to_owned(), Value::from(hash));
    Value::Object(answer)
}

fn bad_request(error: WireError) -> ApiError {
    ApiError::bad_request(error.to_string())
}

fn disk(error: std::io::Error) -> ApiError {
    ApiError::internal(format!(
        "reported/ of the router: {error}; check the free space and the owner"
    ))
}
