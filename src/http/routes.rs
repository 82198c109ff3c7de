use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::api::{
    DrainBody, METRICS, MaintenanceDone, Ready, RestartBody, RestartDone, SyncTriggered,
};
use super::browsers::{refuse_browsers, refuse_other_pages};
use super::events::Streams;
use super::gate::{self, Gate, GlassCall};
use super::login::{Logins, token_of};
use super::openapi::OPENAPI;
use super::{
    AgentApi, ApiError, ApiRefusal, Confirmation, Guarded, Proxies, TokenBucket, bearer, page,
};
use crate::config::{Listen, TokenSource};
use crate::document::Kind;
use crate::intervals::HTTP_BODY;
use crate::model::{AddressRange, ObjectName};
use crate::redact::redact_value;
use crate::util::schemas;

/// Size limit of a body; a real one has fifty bytes.
const BODY_MAX: usize = 64 * 1024;

/// Limits of `/sync`, of `/restart` and of the web page: calls per second, and calls at once.
const RATE: (f64, u32) = (10.0, 20);
/// Maximum number of reads of the history at once.
const HISTORIES: usize = 2;

/// Options of the local API.
#[derive(Clone)]
pub struct HttpOptions {
    pub listen: Listen,
    /// The required token; mandatory if other machines can reach the address.
    pub token: TokenSource,
    pub state: Arc<dyn AgentApi>,
    /// Ranges of reverse proxies.
    pub trusted_proxies: Vec<AddressRange>,
}

struct Api {
    agent: Arc<dyn AgentApi>,
    token: TokenSource,
    /// Whether a page in a browser on this machine could call the API while it has no token.
    browsers_reach_it: bool,
    started: Instant,
    syncs: Mutex<TokenBucket>,
    restarts: Mutex<TokenBucket>,
    pages: Mutex<TokenBucket>,
    /// The page of an object reads the history with a program; a few at once.
    histories: Semaphore,
    logins: Logins,
    tried: Guarded,
    proxies: Proxies,
    streams: Streams,
    gate: Gate,
}

/// The API as a service, without its listener.
pub fn app(options: &HttpOptions) -> Router {
    let bucket = || Mutex::new(TokenBucket::new(RATE.0, RATE.1));
    let api = Api {
        agent: options.state.clone(),
        browsers_reach_it: matches!(options.listen, Listen::Tcp(_)),
        token: options.token.clone(),
        started: Instant::now(),
        syncs: bucket(),
        restarts: bucket(),
        pages: bucket(),
        histories: Semaphore::new(HISTORIES),
        logins: Logins::new("/"),
        tried: Guarded::new(),
        proxies: Proxies::new(options.trusted_proxies.clone()),
        streams: Streams::new(),
        gate: Gate::new(),
    };
    // One handler and one table instead of one route each: the framework's `get` would answer HEAD
    // too, and a HEAD must not start a sync.
    Router::new().fallback(handle).with_state(Arc::new(api))
}

async fn handle(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let wants_page = page::wants_page(request.headers());
    let answer = api.dispatch(request).await;
    let mut response = answer.unwrap_or_else(|error| page::error(error, wants_page));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The path of an object's status, before the object.
const OBJECT: &str = "/status/";

/// The calls of the API.
#[derive(Clone, Copy, PartialEq)]
enum Call {
    Status,
    ObjectStatus,
    Sync,
    Metrics,
    Maintenance,
    MaintenanceStart,
    MaintenanceStop,
    Restart,
    Health,
    Ready,
    OpenApi,
    Page,
    ObjectPage,
    Login,
    Style,
    Script,
    Events,
    Glass(GlassCall),
}

impl Call {
    /// Returns whether the call needs no token: it tells nothing about the router.
    fn is_open(self) -> bool {
        let assets = matches!(self, Self::Style | Self::Script | Self::Login);
        assets || matches!(self, Self::Health | Self::Ready)
    }

    /// Returns whether the cookie of a login is enough.
    fn takes_cookie(self) -> bool {
        matches!(self, Self::Page | Self::ObjectPage | Self::Events)
    }
}

/// Returns the method and the call of a path.
fn route(path: &str) -> Option<(&'static str, Call)> {
    Some(match path {
        "/status" => ("GET", Call::Status),
        path if path.starts_with(OBJECT) => ("GET", Call::ObjectStatus),
        "/sync" => ("GET", Call::Sync),
        "/metrics" => ("GET", Call::Metrics),
        "/maintenance" => ("GET", Call::Maintenance),
        "/maintenance/start" => ("POST", Call::MaintenanceStart),
        "/maintenance/stop" => ("POST", Call::MaintenanceStop),
        "/restart" => ("POST", Call::Restart),
        "/healthz" => ("GET", Call::Health),
        "/readyz" => ("GET", Call::Ready),
        OPENAPI => ("GET", Call::OpenApi),
        "/" => ("GET", Call::Page),
        path if path.starts_with(page::OBJECT) => ("GET", Call::ObjectPage),
        page::LOGIN => ("POST", Call::Login),
        page::STYLE => ("GET", Call::Style),
        page::SCRIPT => ("GET", Call::Script),
        "/events" => ("GET", Call::Events),
        path => {
            let (method, call) = gate::route(path)?;
            (method, Call::Glass(call))
        }
    })
}

impl Api {
    async fn dispatch(&self, request: Request<Body>) -> Result<Response, ApiError> {
        let (mut parts, body) = request.into_parts();
        self.proxies.name_client(&mut parts);
        let found = route(parts.uri.path());
        if let Err(refusal) = self.admit(&parts, found.map(|(_, call)| call)) {
            let is_page = matches!(found, Some((_, Call::Page | Call::ObjectPage)));
            // A browser gets the form instead of a text for programs.
            return match is_page && refusal.status == StatusCode::UNAUTHORIZED {
                true => Ok((refusal.status, page::login(None)?).into_response()),
                false => Err(refusal),
            };
        }
        let (method, call) = found
            .ok_or_else(|| ApiError::not_found("unknown path; /openapi.json lists the paths"))?;
        if parts.method.as_str() != method {
            return Err(ApiError::method_not_allowed(method));
        }
        let body = read_body(body, BODY_MAX, HTTP_BODY).await?;
        self.answer(call, &parts, &body).await
    }

    /// Answers a call of the looking glass, which has a token of its own.
    async fn glass(
        &self,
        call: GlassCall,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Response, ApiError> {
        let glass = self.agent.looking_glass();
        let glass = glass.ok_or_else(|| {
            ApiError::not_found("the looking glass is off; server.lookingGlass turns it on")
        })?;
        self.gate.answer(&*glass, call, parts, body).await
    }

    /// Admits a call; the looking glass asks for its own token.
    fn admit(&self, parts: &Parts, call: Option<Call>) -> Result<(), ApiError> {
        let headers = &parts.headers;
        if matches!(call, Some(Call::Glass(_))) {
            return Ok(());
        }
        if self.browsers_reach_it && !self.token.is_configured() {
            refuse_browsers(headers)?;
        }
        match self.token.current() {
            Ok(None) => Ok(()),
            _ if call.is_some_and(Call::is_open) => Ok(()),
            Ok(Some(token))
                if call.is_some_and(Call::takes_cookie)
                    && self.logins.is_known(headers, &token) =>
            {
                Ok(())
            }
            Ok(Some(token)) => match bearer(headers) {
                given @ Some(_) if self.tried.check(parts, given, &token)? => Ok(()),
                _ => Err(ApiError::invalid_token()),
            },
            // Refuses every call until the file exists: the agent's log and status name it.
            Err(_) => Err(ApiError::no_token_yet()),
        }
    }

    async fn answer(&self, call: Call, parts: &Parts, body: &Bytes) -> Result<Response, ApiError> {
        match call {
            Call::Status => Ok(status(&self.agent.status().await)),
            Call::ObjectStatus => self.object_status(parts.uri.path()).await,
            Call::Sync => self.sync().await,
            Call::Metrics => Ok(metrics(self.agent.metrics().await)),
            Call::Maintenance => Ok(Json(self.agent.maintenance().await).into_response()),
            Call::MaintenanceStart => self.drain(&parts.headers, body).await,
            Call::MaintenanceStop => self.set_maintenance(false, None).await,
            Call::Restart => self.restart(&parts.headers, body).await,
            Call::Health => Ok(Json(Ready { status: "ok" }).into_response()),
            Call::Ready => self.ready().await,
            Call::OpenApi => Ok(Json(schemas::value("openapi-local")).into_response()),
            Call::Page => {
                self.take(&self.pages)?;
                page::overview(&self.agent.overview().await)
            }
            Call::ObjectPage => self.object_page(parts.uri.path()).await,
            Call::Login => self.login(parts, body),
            Call::Style => Ok(page::style()),
            Call::Script => Ok(page::script()),
            Call::Events => self.streams.open(Arc::clone(&self.agent)),
            Call::Glass(call) => self.glass(call, parts, body).await,
        }
    }

    async fn object_status(&self, path: &str) -> Result<Response, ApiError> {
        let (kind, name) = object_of(path, OBJECT).ok_or_else(unknown_object)?;
        let found = self.agent.object_status(kind, &name).await;
        found.map(|found| status(&found)).ok_or_else(unknown_object)
    }

    async fn object_page(&self, path: &str) -> Result<Response, ApiError> {
        self.take(&self.pages)?;
        let (kind, name) = object_of(path, page::OBJECT).ok_or_else(unknown_object)?;
        let _turn = self.histories.acquire().await;
        let found = self.agent.object_view(kind, &name).await;
        page::object(&found.ok_or_else(unknown_object)?)
    }

    /// Answers the form that takes the token.
    fn login(&self, parts: &Parts, body: &Bytes) -> Result<Response, ApiError> {
        refuse_other_pages(&parts.headers)?;
        let Ok(Some(token)) = self.token.current() else {
            return Ok(Redirect::to("/").into_response());
        };
        let is_right = self.tried.check(parts, token_of(body).as_deref(), &token)?;
        match is_right.then(|| self.logins.cookie(&token)).flatten() {
            Some(cookie) => Ok(([(SET_COOKIE, cookie)], Redirect::to("/")).into_response()),
            None => {
                let form = page::login(Some("This is not the token of this agent."))?;
                Ok((StatusCode::UNAUTHORIZED, form).into_response())
            }
        }
    }

    async fn sync(&self) -> Result<Response, ApiError> {
        self.take(&self.syncs)?;
        self.refuse_in_maintenance().await?;
        self.agent.trigger_sync().await?;
        let status = "sync_triggered";
        Ok(Json(SyncTriggered { status }).into_response())
    }

    async fn restart(&self, headers: &HeaderMap, body: &Bytes) -> Result<Response, ApiError> {
        self.take(&self.restarts)?;
        let RestartBody { interface } = json_body(headers, body, r#"{"interface": "wg_…"}"#)?;
        self.refuse_in_maintenance().await?;
        self.agent.restart(interface.clone()).await?;
        let status = "ok";
        Ok(Json(RestartDone { status, interface }).into_response())
    }

    /// Drains the router, unless the Control Plane refuses it.
    async fn drain(&self, headers: &HeaderMap, body: &Bytes) -> Result<Response, ApiError> {
        let wish = match body.is_empty() {
            true => DrainBody::default(),
            false => json_body(headers, body, r#"empty or {"force": true}"#)?,
        };
        let warning = match self.agent.maintenance().await.enabled {
            true => None,
            false => self.agent.may_drain(wish.force).await?,
        };
        self.set_maintenance(true, warning).await
    }

    async fn set_maintenance(
        &self,
        enabled: bool,
        warning: Option<String>,
    ) -> Result<Response, ApiError> {
        let word = if enabled { "enabled" } else { "disabled" };
        let (code, status, message) = match self.agent.set_maintenance(enabled).await? {
            Confirmation::Confirmed => (StatusCode::OK, "ok", format!("Maintenance mode {word}")),
            Confirmation::Pending(missing) => {
                let message = format!(
                    "Maintenance mode is being {word}; BIRD has not confirmed yet: {missing}"
                );
                (StatusCode::ACCEPTED, "pending", message)
            }
        };
        let done = MaintenanceDone {
            status,
            message,
            warning,
        };
        Ok((code, Json(done)).into_response())
    }

    async fn ready(&self) -> Result<Response, ApiError> {
        if self.agent.ready().await {
            return Ok(Json(Ready { status: "ok" }).into_response());
        }
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Err(ApiError::new(
            status,
            "NOT_READY",
            "the agent has not read its state yet",
        ))
    }

    async fn refuse_in_maintenance(&self) -> Result<(), ApiError> {
        if self.agent.maintenance().await.enabled {
            return Err(ApiRefusal::Maintenance.into());
        }
        Ok(())
    }

    fn take(&self, bucket: &Mutex<TokenBucket>) -> Result<(), ApiError> {
        let mut bucket = bucket.lock();
        bucket
            .take(self.started.elapsed())
            .map_err(ApiError::rate_limited)
    }
}

/// Returns the object of `/status/sessions/wg_1` or `/status/node`, after this prefix.
fn object_of(path: &str, prefix: &str) -> Option<(Kind, ObjectName)> {
    let object = path.strip_prefix(prefix)?;
    let (word, name) = object.split_once('/').unwrap_or((object, object));
    Some((Kind::from_word(word)?, name.parse().ok()?))
}

fn unknown_object() -> ApiError {
    ApiError::not_found("no object with a status has this name; `moenet-agent get` lists them")
}

/// Reads a body. The content type is mandatory, because a page in a browser can send a form to any server, but JSON only
/// to a server that allows it. `form` shows what the body is.
fn json_body<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: &Bytes,
    form: &str,
) -> Result<T, ApiError> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::bad_request(
            "send the body as JSON, with Content-Type: application/json",
        ));
    }
    // A type would be read from a list of its values too.
    let object = serde_json::from_slice::<Map<String, Value>>(body);
    let read = object.and_then(|object| serde_json::from_value(Value::Object(object)));
    read.map_err(|error| {
        ApiError::bad_request(format!("the body is {form}; this one is not: {error}"))
    })
}

/// Returns the status without secrets: reasons and messages quote operators' texts.
fn status(view: &impl Serialize) -> Response {
    let mut value = json!(view);
    redact_value(&mut value);
    Json(value).into_response()
}

fn metrics(text: String) -> Response {
    ([(CONTENT_TYPE, METRICS)], text).into_response()
}

/// Reads a body, up to a size and within a time.
pub(crate) async fn read_body(body: Body, max: usize, time: Duration) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(time, to_bytes(body, max)).await {
        Err(_) => Err(ApiError::bad_request("the body did not arrive in time")),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_length_limit(&error) => Err(ApiError::too_large(max)),
        Ok(Err(_)) => Err(ApiError::bad_request("the body ended early")),
    }
}

/// Returns whether a body was over the limit. The framework wraps the error of the crate that counts.
fn is_length_limit(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_of_a_path_has_kind_and_name() {
        let of = |path: &str| object_of(path, OBJECT).map(|(kind, name)| kind.path(&name));
        for object in ["sessions/wg_1", "mesh/hk1", "ibgp/hk1", "node", "policy"] {
            assert_eq!(of(&format!("/status/{object}")).as_deref(), Some(object));
        }
        for unknown in ["", "nowhere/wg_1", "sessions/..", "sessions/a/b"] {
            assert_eq!(of(&format!("/status/{unknown}")), None, "{unknown}");
        }
    }
}
