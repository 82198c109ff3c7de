mod revision;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::revision::Offer;
use super::gate::Gate;
use super::kept::KeptAnswers;
use super::retry::{ahead, bounds, full_jitter, retry_after};
use super::transport::{
    authorization, base_url, http_client, is_about_certificates, network, read_body, redirect,
};
use super::{CallError, ClientError, Counters, Failure, State};
use crate::config::TokenSource;
use crate::document::MeshPeerSpec;
use crate::intervals::{CALL_WAIT_MAX, RETRY_AFTER_DEFAULT};
use crate::model::shown;
use crate::util::task::blocking;
use crate::wire::{
    Call, Dialect, DrainWish, Heartbeat, Listing, Modify, NodeItem, PeerItem, PolicyItem, Report,
    SessionItem, WireError, error_body,
};

/// Size limit of an answer. A thousand sessions take half a mebibyte.
const BODY_MAX: usize = 16 * 1024 * 1024;

/// Size limit of an error.
const ERROR_MAX: usize = 64 * 1024;

/// Options of a client.
#[derive(Clone)]
pub struct ClientOptions {
    pub url: String,
    /// `node.name`, the `:router` of every path.
    pub router: String,
    /// `controlPlane.token` or `controlPlane.tokenFile`.
    pub token: TokenSource,
    pub dialect: Dialect,
    /// Time limit of one request, including its body.
    pub request_timeout: Duration,
    /// Maximum number of retries of a request within one call.
    pub max_retries: u32,
    /// Upper bound of the first wait; doubled for each further one.
    pub retry_initial_delay: Duration,
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Leaves out the URL, because operators may write passwords into it.
        f.debug_struct("ClientOptions")
            .field("router", &self.router)
            .finish_non_exhaustive()
    }
}

/// Decodes the body of an answer.
type Decode<T> = fn(Dialect, &[u8]) -> Result<T, WireError>;

/// The client of the Control Plane.
#[derive(Debug)]
pub struct Client {
    /// Created at the first request: a machine without certificates must not prevent the agent from starting.
    http: Mutex<Option<reqwest::Client>>,
    base: Url,
    options: ClientOptions,
    started: Instant,
    gate: Mutex<Gate>,
    /// Wakes a call that waits for its next attempt.
    hurried: Notify,
    counters: Counters,
    /// Seconds by which this host's clock was ahead of the Control Plane's at the last answer.
    ahead: Mutex<Option<i64>>,
    kept: KeptAnswers,
    offer: Offer,
}

impl Client {
    /// Creates a client; sends nothing yet.
    ///
    /// # Errors
    /// The URL, the router's name or the token is invalid.
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        // An error means that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = base_url(&options.url)?;
        if options.router.is_empty() || options.router == "." || options.router == ".." {
            return Err(ClientError::Router(shown(&options.router)));
        }
        // Only a token in the configuration is checked finally; a token file may have a valid token later.
        if let Ok(Some(token)) = options.token.current() {
            authorization(&token)?;
        }
        let (http, gate, hurried, counters, ahead) = Default::default();
        Ok(Self {
            http,
            base,
            options,
            started: Instant::now(),
            gate,
            hurried,
            counters,
            ahead,
            kept: KeptAnswers::default(),
            offer: Offer::default(),
        })
    }

    /// Fetches all BGP sessions of this router.
    ///
    /// # Errors
    /// Any failure; the caller then has no list, which is not an empty list.
    pub async fn fetch_sessions(&self) -> Result<Listing<SessionItem>, CallError> {
        let decode = Dialect::decode_sessions;
        self.call(Call::Sessions, None, decode).await
    }

    /// Fetches the peers of the backbone.
    ///
    /// # Errors
    /// As [`Client::fetch_sessions`].
    pub async fn fetch_mesh(&self) -> Result<Listing<PeerItem<MeshPeerSpec>>, CallError> {
        self.call(Call::Mesh, None, Dialect::decode_mesh).await
    }

    /// Fetches the identity of this router.
    ///
    /// # Errors
    /// As [`Client::fetch_sessions`].
    pub async fn fetch_config(&self) -> Result<NodeItem, CallError> {
        self.call(Call::Config, None, Dialect::decode_config).await
    }

    /// Fetches the routing policy and the internal BGP neighbours.
    ///
    /// # Errors
    /// As [`Client::fetch_sessions`].
    pub async fn fetch_policy(&self) -> Result<PolicyItem, CallError> {
        let decode = Dialect::decode_policy;
        self.call(Call::BirdConfig, None, decode).await
    }

    /// Posts the agent's health.
    ///
    /// # Errors
    /// Any failure; nothing may depend on the post.
    pub async fn post_heartbeat(&self, heartbeat: &Heartbeat) -> Result<(), CallError> {
        self.post(
            Call::Heartbeat,
            self.options.dialect.encode_heartbeat(heartbeat),
        )
        .await
    }

    /// Posts the state of the sessions.
    ///
    /// # Errors
    /// As [`Client::post_heartbeat`].
    pub async fn post_report(&self, report: &Report) -> Result<(), CallError> {
        self.post(Call::Report, self.options.dialect.encode_report(report))
            .await
    }

    /// Posts a session's change of status. Only the outbox may call this.
    ///
    /// # Errors
    /// As [`Client::post_heartbeat`].
    pub async fn post_modify(&self, modify: &Modify) -> Result<(), CallError> {
        self.post(Call::Modify, self.options.dialect.encode_modify(modify))
            .await
    }

    /// Asks whether the router may drain, once: the operator waits.
    ///
    /// # Errors
    /// [`Failure::Refused`] with 409: it must not. Any other failure says nothing about it.
    pub async fn may_drain(&self, wish: DrainWish) -> Result<(), CallError> {
        let call = Call::Drain;
        // Failed posts and an earlier refusal say nothing about this question.
        self.with_gate(|gate| gate.urgent.insert(call));
        let body = self.options.dialect.encode_drain(&wish);
        let decode = Dialect::decode_acknowledgement;
        let answer = self.attempt(call, Some(body), decode).await;
        answer.map_err(|failure| CallError { call, failure })
    }

    /// Returns the state of the circuit breaker of the fetches: `circuitBreaker` in `/status`.
    pub fn breaker(&self) -> State {
        let now = self.now();
        self.with_gate(|gate| gate.fetches.state(now))
    }

    /// Returns by how many seconds this host's clock was ahead of the Control Plane's at the last answer; `None`
    /// without an answer that names its time.
    pub fn clock_ahead(&self) -> Option<i64> {
        *self.ahead.lock()
    }

    /// Returns the state of the circuit breaker of the posts.
    pub fn post_breaker(&self) -> State {
        let now = self.now();
        self.with_gate(|gate| gate.posts.state(now))
    }

    /// Sends the next attempt of a call at once, without any wait, because an operator requested it.
    pub fn hurry(&self, call: Call) {
        self.with_gate(|gate| gate.urgent.insert(call));
        self.hurried.notify_waiters();
    }

    /// Records that the newest list became documents.
    pub fn list_written(&self, call: Call) {
        self.kept.written(call);
    }

    /// Returns the names that the Control Plane gave to the newest lists which became documents.
    pub fn list_names(&self) -> BTreeMap<Call, String> {
        self.kept.names()
    }

    pub fn dialect(&self) -> Dialect {
        self.options.dialect
    }

    /// Returns the number of requests by result.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    async fn post(&self, call: Call, body: Vec<u8>) -> Result<(), CallError> {
        let decode = Dialect::decode_acknowledgement;
        self.call(call, Some(body), decode).await
    }

    /// Sends a request, with retries while they may succeed.
    async fn call<T: Send + 'static>(
        &self,
        call: Call,
        body: Option<Vec<u8>>,
        decode: Decode<T>,
    ) -> Result<T, CallError> {
        let mut bounds = bounds(self.options.retry_initial_delay, self.options.max_retries);
        let mut last = None;
        loop {
            let failure = match self.attempt(call, body.clone(), decode).await {
                Ok(value) => return Ok(value),
                // The failure that opened the breaker has more information than the open breaker.
                Err(Failure::BreakerOpen { retry_in }) => {
                    let failure = last.unwrap_or(Failure::BreakerOpen { retry_in });
                    return Err(CallError { call, failure });
                }
                Err(failure) => failure,
            };
            tracing::debug!(?call, result = failure.word(), %failure, "request failed");
            let wait = bounds
                .next()
                .map(|bound| full_jitter(bound, rand::random()));
            let wait = wait.map(|wait| wait.max(failure.retry_after().unwrap_or_default()));
            match wait.filter(|wait| failure.retryable() && *wait <= CALL_WAIT_MAX) {
                Some(wait) => self.pause(call, wait).await,
                None => return Err(CallError { call, failure }),
            }
            last = Some(failure);
        }
    }

    /// Waits for the next attempt of a call, or until an operator requests it.
    async fn pause(&self, call: Call, wait: Duration) {
        let until = Instant::now() + wait;
        loop {
            let hurried = self.hurried.notified();
            if self.with_gate(|gate| gate.urgent.contains(&call)) {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = hurried => {}
            }
        }
    }

    /// Sends once, if the gate admits it, and records the result in the gate.
    async fn attempt<T: Send + 'static>(
        &self,
        call: Call,
        body: Option<Vec<u8>>,
        decode: Decode<T>,
    ) -> Result<T, Failure> {
        let authorization = self.authorization()?;
        let admitted = self
            .admit(call)
            .inspect_err(|_| self.counters.count("withheld"))?;
        let result = match self.exchange(call, authorization, body).await {
            Ok(answer) => self.decoded(call, answer, decode).await,
            Err(failure) => Err(failure),
        };
        let failure = result.as_ref().err();
        self.counters.count(failure.map_or("ok", Failure::word));
        admitted.record(failure);
        result
    }

    /// Decodes an answer, which may be long.
    async fn decoded<T: Send + 'static>(
        &self,
        call: Call,
        answer: Vec<u8>,
        decode: Decode<T>,
    ) -> Result<T, Failure> {
        let dialect = self.options.dialect;
        let decoded = blocking(move || decode(dialect, &answer)).await;
        decoded.map_err(|error| {
            self.kept.forget(call);
            Failure::Body(error)
        })
    }

    fn admit(&self, call: Call) -> Result<Admitted<'_>, Failure> {
        let now = self.now();
        self.with_gate(|gate| gate.admit(call, now))?;
        Ok(Admitted {
            client: self,
            call,
            recorded: false,
        })
    }

    async fn exchange(
        &self,
        call: Call,
        authorization: HeaderValue,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, Failure> {
        let method = if body.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let segments = self.options.dialect.segments(&self.options.router, call);
        let mut request = self.request(method, self.url(segments), authorization)?;
        let is_fetch = body.is_none();
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        } else if let Some(tag) = self.kept.tag(call) {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let response = self.send(request).await?;
        if is_fetch {
            self.offer.read(response.headers());
        }
        if is_fetch
            && response.status() == StatusCode::NOT_MODIFIED
            && let Some(body) = self.kept.body(call, response.headers())
        {
            return Ok(body);
        }
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let headers = response.headers().clone();
        let body = read_body(response, BODY_MAX).await?;
        if is_fetch {
            self.kept.keep(call, &headers, &body);
        }
        Ok(body)
    }

    fn request(
        &self,
        method: Method,
        url: Url,
        authorization: HeaderValue,
    ) -> Result<RequestBuilder, Failure> {
        let request = self.http()?.request(method, url);
        Ok(request
            .header(AUTHORIZATION, authorization)
            .header(ACCEPT, "application/json"))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unsent(&error))?;
        *self.ahead.lock() = ahead(response.headers(), SystemTime::now());
        Ok(response)
    }

    fn authorization(&self) -> Result<HeaderValue, Failure> {
        let no_token = |error: &dyn fmt::Display| Failure::NoToken(error.to_string());
        let token = self.options.token.current().map_err(|e| no_token(&e))?;
        let token = token.ok_or_else(|| no_token(&ClientError::Token))?;
        authorization(&token).map_err(|e| no_token(&e))
    }

    fn http(&self) -> Result<reqwest::Client, Failure> {
        let mut http = self.http.lock();
        if let Some(http) = &*http {
            return Ok(http.clone());
        }
        let made = http_client(&self.base, self.options.request_timeout)?;
        Ok(http.insert(made).clone())
    }

    /// Returns the failure of a request without an answer. If a certificate is the cause, the next
    /// request reads the system's certificates again.
    fn unsent(&self, error: &reqwest::Error) -> Failure {
        let failure = network(error);
        if is_about_certificates(error) {
            *self.http.lock() = None;
        }
        failure
    }

    async fn refusal(&self, response: Response) -> Failure {
        let status = response.status();
        let wait = retry_after(response.headers(), SystemTime::now());
        if status.is_redirection() {
            return Failure::Refused {
                status: status.as_u16(),
                detail: redirect(&response),
            };
        }
        let body = read_body(response, ERROR_MAX)
            .await
            .ok()
            .and_then(|body| error_body(&body));
        let body = body.unwrap_or_default();
        let detail = self.without_token(body.error);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Auth { detail },
            StatusCode::NOT_FOUND => Failure::NotFound {
                code: body.code,
                detail,
            },
            StatusCode::TOO_MANY_REQUESTS => Failure::RateLimited {
                retry_after: wait.unwrap_or(RETRY_AFTER_DEFAULT),
            },
            status if status.is_server_error() => Failure::Server {
                status: status.as_u16(),
                detail,
                retry_after: wait,
            },
            status => Failure::Refused {
                status: status.as_u16(),
                detail,
            },
        }
    }

    /// A Control Plane that repeats the token in its error would put it into the agent's log.
    fn without_token(&self, text: String) -> String {
        match self.options.token.current() {
            Ok(Some(token)) if !token.expose().trim().is_empty() => {
                text.replace(token.expose().trim(), "[token]")
            }
            _ => text,
        }
    }

    fn url(&self, segments: [&str; 3]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn with_gate<T>(&self, act: impl FnOnce(&mut Gate) -> T) -> T {
        act(&mut self.gate.lock())
    }
}

/// An admitted request. Dropped without a record, as when its caller is cancelled, it returns the breaker's probe.
struct Admitted<'a> {
    client: &'a Client,
    call: Call,
    recorded: bool,
}

impl Admitted<'_> {
    fn record(mut self, failure: Option<&Failure>) {
        self.recorded = true;
        let now = self.client.now();
        self.client
            .with_gate(|gate| gate.record(self.call, failure, now));
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if !self.recorded {
            self.client
                .with_gate(|gate| gate.breaker(self.call).abandon());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    #[tokio::test]
    async fn no_answer_is_decoded_on_a_runtime_thread() {
        let client = Client::new(ClientOptions {
            url: "http://a".to_owned(),
            router: "jp1".to_owned(),
            token: Secret::new("token".to_owned()).into(),
            dialect: Dialect::Reference,
            request_timeout: Duration::from_secs(1),
            max_retries: 0,
            retry_initial_delay: Duration::from_secs(1),
        })
        .unwrap();
        let decode: Decode<_> = |_, _| Ok(std::thread::current().id());
        let decoder = client.decoded(Call::Mesh, Vec::new(), decode).await;
        assert_ne!(decoder.unwrap(), std::thread::current().id());
        let decode = Dialect::decode_mesh;
        let bad = client.decoded(Call::Mesh, b"{}".to_vec(), decode).await;
        assert!(matches!(bad, Err(Failure::Body(_))));
    }
}
