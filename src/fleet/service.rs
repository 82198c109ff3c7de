//! The server: who is let in, and which answer a path has.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

use super::admin::{Admin, Ask};
use super::answers::{Answers, NO_FLEET};
use super::owners::{Owners, Target};
use super::posts::{PostDone, REPORTED};
use super::revisions::Waiting;
use super::store::directory::Directory;
use super::store::git::Git;
use super::store::{STORE_UNAVAILABLE, Store};
use super::tagged::{KnownTags, Tagged};
use super::version::Version;
use super::{FleetOptions, RateLimit, Serving, connections};
use crate::http::{
    ApiError, Client, LongPoll, OPENAPI, Proxies, TokenBucket, bearer, page, read_body,
};
use crate::intervals::{FLEET_BODY, FLEET_POLL};
use crate::model::ObjectName;
use crate::util::notices::Notices;
use crate::util::schemas;
use crate::wire::Call;
use crate::wire::reference::{
    LIST, LONG_POLL, REVISION, ROOT, ROUTER_NOT_FOUND, Revision, call, decode_drain,
};

/// Size limit of a body: a report of ten thousand sessions.
const BODY_MAX: usize = 4 * 1024 * 1024;

/// Limit of all requests with a wrong token, or for an unknown router, from all clients together.
const STRANGERS: RateLimit = RateLimit {
    per_second: 10.0,
    burst: 50,
};

/// Limit of a router's requests to drain that are not forced: for each, the posts of all routers may be read.
const DRAINS: RateLimit = RateLimit {
    per_second: 0.2,
    burst: 10,
};

struct Fleet {
    answers: Answers,
    waiting: Waiting,
    admin: Admin,
    owners: Owners,
    proxies: Proxies,
    rate: RateLimit,
    started: Instant,
    buckets: Buckets,
    drains: Buckets,
    strangers: Mutex<TokenBucket>,
    /// Whether the store could not be used.
    store_errors: Notices,
}

/// The limits of routers.
type Buckets = Mutex<HashMap<ObjectName, TokenBucket>>;

/// Returns the embedded Control Plane as a service, and the watcher of its files between requests.
pub fn watched(options: &FleetOptions) -> (Router, Watcher) {
    let store = Arc::new(Directory::new(options.dir.clone()));
    over(store, options.rate, &options.serving, None)
}

/// Returns the service over a store, which may follow a Git reference, and the watcher of its files.
pub(super) fn over(
    store: Arc<dyn Store>,
    rate: RateLimit,
    serving: &Serving,
    git: Option<Arc<Git>>,
) -> (Router, Watcher) {
    let fleet = Arc::new(Fleet::new(store, rate, serving, git));
    let gzip = CompressionLayer::new().quality(CompressionLevel::Fastest);
    let app = Router::new()
        .fallback(handle)
        .layer(gzip)
        .with_state(Arc::clone(&fleet));
    let seen = HashMap::new();
    (app, Watcher { fleet, seen })
}

/// Looks at the files at each interval, and tells the routers that wait for a change. It reads each list of sessions that
/// changed, if its router posted statuses: a status that an operator changes and changes back is a new request, even if no router polled meanwhile;
/// edits within one interval count as one.
pub struct Watcher {
    fleet: Arc<Fleet>,
    seen: HashMap<ObjectName, Version>,
}

impl Watcher {
    /// Looks at each interval, and never ends.
    pub async fn run(mut self) {
        let fleet = Arc::clone(&self.fleet);
        let publish = async {
            let mut is_known = false;
            loop {
                let fleet = Arc::clone(&fleet);
                // A task of its own, whose panic costs this look only.
                let look = tokio::spawn(async move {
                    fleet.publish().await;
                    is_known || fleet.warn_of_nothing().await
                });
                is_known = look.await.unwrap_or(is_known);
                tokio::time::sleep(FLEET_POLL).await;
            }
        };
        let mut newest = fleet.waiting.subscribe();
        let supersede = async {
            while newest.changed().await.is_ok() {
                self.supersede().await;
            }
        };
        tokio::join!(publish, supersede);
    }

    /// Returns the token that ends all waits of routers.
    pub(super) fn stop(&self) -> CancellationToken {
        self.fleet.waiting.stop.clone()
    }

    /// Looks once.
    pub async fn look(&mut self) {
        self.fleet.publish().await;
        self.supersede().await;
    }

    /// Removes the statuses that changed lists supersede.
    async fn supersede(&mut self) {
        for (router, revision) in &*self.fleet.waiting.newest() {
            if self.seen.get(router) == Some(&revision.sessions) {
                continue;
            }
            let (fleet, name) = (Arc::clone(&self.fleet), router.clone());
            // A task of its own, whose panic ends no other request. The router gets the error at its next request.
            let look = tokio::spawn(async move { fleet.answers.supersede(&name).await });
            if let Ok(Ok(())) = look.await {
                self.seen.insert(router.clone(), revision.sessions);
            }
        }
    }
}

async fn handle(State(fleet): State<Arc<Fleet>>, request: Request<Body>) -> Response {
    let (mut parts, body) = request.into_parts();
    fleet.proxies.name_client(&mut parts);
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let (client, wants_page) = (Client::of(&parts), page::wants_page(&parts.headers));
    let response = dispatch(Arc::clone(&fleet), parts, body).await;
    let response = response.unwrap_or_else(|error| {
        if error.code == STORE_UNAVAILABLE {
            fleet.log_store(Some(&error));
        } else if error.status.is_server_error() {
            tracing::error!(%method, path, %client, %error, "request failed");
        } else {
            tracing::info!(%method, path, %client, status = error.status.as_u16(), %error, "request refused");
        }
        page::error(error, wants_page)
    });
    if method == Method::POST && response.status().is_success() {
        fleet.log_store(None);
    }
    tracing::debug!(%method, path, status = response.status().as_u16(), "request");
    response
}

/// The target of a path.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Call(Call),
    Reported,
}

/// The query of a request for the revision.
#[derive(Deserialize)]
struct Asked {
    /// Seconds.
    #[serde(default)]
    wait: u64,
    revision: Option<String>,
}

impl Asked {
    fn of(parts: &Parts) -> Result<Self, ApiError> {
        let Query(asked) = Query::<Self>::try_from_uri(&parts.uri)
            .map_err(|error| ApiError::bad_request(error.body_text()))?;
        Ok(asked)
    }
}

impl Wanted {
    fn of(endpoint: &str) -> Option<Self> {
        match endpoint {
            REPORTED => Some(Self::Reported),
            _ => call(endpoint).map(Self::Call),
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Call(call) if call.is_post() => "POST",
            _ => "GET",
        }
    }
}

async fn dispatch(fleet: Arc<Fleet>, parts: Parts, body: Body) -> Result<Response, ApiError> {
    if parts.uri.path() == OPENAPI {
        fleet.stranger_at_door()?;
        return match parts.method {
            Method::GET => Ok(Json(schemas::value("openapi-control-plane")).into_response()),
            _ => Err(ApiError::method_not_allowed("GET")),
        };
    }
    if let Some(target) = Target::of(parts.uri.path()) {
        return whole(async move {
            let Fleet {
                owners, answers, ..
            } = &*fleet;
            owners.answer(target, answers, &parts, body).await
        })
        .await;
    }
    if let Some(asked) = Ask::of(parts.uri.path(), parts.method.as_str()) {
        return whole(async move {
            let Fleet { admin, answers, .. } = &*fleet;
            admin.answer(asked, answers, &parts, body).await
        })
        .await;
    }
    let path = parts.uri.path().to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let [ROOT, router, endpoint] = segments[..] else {
        return Err(ApiError::not_found(
            "unknown path; use /agent/<router>/<endpoint>",
        ));
    };
    let router = fleet.admit(router, &parts.headers).await?;
    if endpoint == REVISION {
        return revision(fleet, router, parts).await;
    }
    let wanted = Wanted::of(endpoint)
        .ok_or_else(|| ApiError::not_found("no such endpoint below /agent/<router>/"))?;
    if parts.method.as_str() != wanted.method() {
        return Err(ApiError::method_not_allowed(wanted.method()));
    }
    let body = read_body(body, BODY_MAX, FLEET_BODY).await?;
    let (offer, known) = (fleet.waiting.offer(), KnownTags::of(&parts.headers));
    let client = Client::of(&parts);
    whole(async move {
        if let Wanted::Call(call) = wanted
            && call.is_post()
        {
            return fleet.post(&router, call, (client, &body)).await;
        }
        let (answer, content) = fleet.get(&router, wanted, &known).await?;
        Ok(identified(content, offered(offer, answer.into_response())))
    })
    .await
}

/// Answers the revision of a router when it changes, or after the wait. No task of its own: the wait ends with its
/// connection.
async fn revision(
    fleet: Arc<Fleet>,
    router: ObjectName,
    mut parts: Parts,
) -> Result<Response, ApiError> {
    if parts.method != Method::GET {
        return Err(ApiError::method_not_allowed("GET"));
    }
    let asked = Asked::of(&parts)?;
    let revision = async move { fleet.revision(&router, asked).await };
    Ok(match parts.extensions.remove::<LongPoll>() {
        Some(connection) => connection.answer(revision).await,
        None => revision.await,
    })
}

/// Runs a call in a task of its own, because a client that goes away ends this one between two changes. The returned
/// future does not hold the call: a router's wait would take as much memory.
fn whole<T: Send + 'static>(
    call: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> impl Future<Output = Result<T, ApiError>> {
    let answered = tokio::spawn(call);
    async {
        answered
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
    }
}

impl Fleet {
    fn new(
        store: Arc<dyn Store>,
        rate: RateLimit,
        serving: &Serving,
        git: Option<Arc<Git>>,
    ) -> Self {
        Self {
            answers: Answers::new(store),
            waiting: Waiting::new(connections()),
            admin: Admin::new(&serving.access, serving.tls.is_some(), git),
            owners: Owners::new(),
            proxies: Proxies::new(serving.trusted_proxies.clone()),
            rate,
            started: Instant::now(),
            buckets: Mutex::default(),
            drains: Mutex::default(),
            strangers: Mutex::new(TokenBucket::new(STRANGERS.per_second, STRANGERS.burst)),
            store_errors: Notices::default(),
        }
    }

    /// Logs when the store cannot be used, and when it can again: each router posts several times a minute.
    fn log_store(&self, error: Option<&ApiError>) {
        match (self.store_errors.edge(error.is_some()), error) {
            (Some(true), Some(error)) => {
                tracing::error!(%error, "store of the fleet cannot be used; routers keep their state and retry");
            }
            (Some(false), _) => tracing::info!("store of the fleet can be used again"),
            _ => {}
        }
    }

    /// Authenticates the client for a router, and limits its rate. Distinguishes an unknown router
    /// from a wrong token, as the API requires (docs/contract/fleet.md); names of routers are not
    /// secret.
    async fn admit(&self, router: &str, headers: &HeaderMap) -> Result<ObjectName, ApiError> {
        let Some(token) = bearer(headers) else {
            return Err(self.stranger(ApiError::invalid_token()));
        };
        let known = match router.parse::<ObjectName>() {
            Ok(router) => self
                .answers
                .files
                .door(&router)
                .await?
                .map(|it| (router, it)),
            Err(_) => None,
        };
        let Some((router, door)) = known else {
            return Err(self.stranger(router_not_found()));
        };
        // If the files give no token, every client is unauthenticated.
        let tokens = door.tokens.map_err(|error| self.stranger(error))?;
        if !tokens.accept(token) {
            let error = match door.is_being_written {
                // A router whose token is refused as wrong waits for an operator.
                true => ApiError::internal("the router's file cannot be read now; retry"),
                false => ApiError::invalid_token(),
            };
            return Err(self.stranger(error));
        }
        self.take(&self.buckets, self.rate, &router)?;
        if door.in_maintenance {
            return Err(ApiError::maintenance(
                "the operator works on this router's folder; retry later",
            ));
        }
        Ok(router)
    }

    /// Unauthenticated clients share one bucket. A right token takes nothing from it: no stranger keeps a router out.
    fn stranger(&self, error: ApiError) -> ApiError {
        self.stranger_at_door().err().unwrap_or(error)
    }

    fn stranger_at_door(&self) -> Result<(), ApiError> {
        let taken = self.strangers.lock().take(self.started.elapsed());
        taken.map_err(ApiError::rate_limited)
    }

    fn take(
        &self,
        buckets: &Buckets,
        rate: RateLimit,
        router: &ObjectName,
    ) -> Result<(), ApiError> {
        let mut buckets = buckets.lock();
        let full = || TokenBucket::new(rate.per_second, rate.burst);
        let bucket = buckets.entry(router.clone()).or_insert_with(full);
        bucket
            .take(self.started.elapsed())
            .map_err(ApiError::rate_limited)
    }

    /// Logs that there is no fleet to serve. Returns whether this is known, because the files could be read.
    async fn warn_of_nothing(&self) -> bool {
        match self.answers.ready().await {
            Err(error) if error.code == NO_FLEET => {
                tracing::warn!(error = %error.message, "Control Plane has no router to serve");
                true
            }
            ready => ready.is_ok(),
        }
    }

    async fn publish(&self) {
        self.waiting.publish(&self.answers.files.revisions().await);
    }

    async fn revision(&self, router: &ObjectName, asked: Asked) -> Response {
        let (known, wait) = (asked.revision.as_deref(), Duration::from_secs(asked.wait));
        let revision = self.waiting.revision(router, known, wait).await;
        Json(Revision { revision }).into_response()
    }

    async fn get(
        &self,
        router: &ObjectName,
        wanted: Wanted,
        known: &KnownTags,
    ) -> Result<(Tagged, Option<String>), ApiError> {
        match wanted {
            Wanted::Reported => {
                let posts = json!(self.answers.store.posts(router).await?);
                Ok((Tagged::new(&posts, known), None))
            }
            Wanted::Call(call) => {
                let (answer, content) = self.answers.get(router, call, known).await?;
                Ok((answer, Some(content)))
            }
        }
    }

    async fn post(
        &self,
        router: &ObjectName,
        call: Call,
        body: (Client, &[u8]),
    ) -> Result<Response, ApiError> {
        let is_forced = || decode_drain(body.1).is_ok_and(|wish| wish.force);
        if call == Call::Drain && !is_forced() {
            self.take(&self.drains, DRAINS, router)?;
        }
        let rejected = self.answers.post(router, call, body).await?;
        let status = "ok";
        Ok(Json(PostDone { status, rejected }).into_response())
    }
}

/// Tells the agent that it may wait for a change.
fn offered(wait: Option<Duration>, mut answer: Response) -> Response {
    let wait = wait.map(|wait| (LONG_POLL, HeaderValue::from(wait.as_secs())));
    answer
        .headers_mut()
        .extend(wait.map(|(name, value)| (HeaderName::from_static(name), value)));
    answer
}

/// Tells the agent the text by which its heartbeats name the list.
fn identified(content: Option<String>, mut answer: Response) -> Response {
    let content = content.and_then(|content| HeaderValue::try_from(content).ok());
    let header = content.map(|content| (HeaderName::from_static(LIST), content));
    answer.headers_mut().extend(header);
    answer
}

fn router_not_found() -> ApiError {
    let message =
        "the fleet has no router of this name; check node.name, and its file in the fleet";
    ApiError::new(StatusCode::NOT_FOUND, ROUTER_NOT_FOUND, message)
}
