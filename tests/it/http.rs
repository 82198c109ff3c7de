//! The local API: every endpoint, every field, every error.

mod clients;
mod glass;
mod page;
mod tokens;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use glass::FakeGlass;
use moenet_agent::config::Listen;
use moenet_agent::document::{Kind, StatusBody};
use moenet_agent::http::view::ObjectView;
use moenet_agent::http::{
    AgentApi, ApiRefusal, Confirmation, HttpOptions, LookingGlass, MaintenanceView, NodeView,
    Overview, ServeError, Server, SessionCounts, StatusView, app,
};
use moenet_agent::model::{InterfaceName, ObjectName, Secret};
use page::{object, row};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::support::openapi::LOCAL;

struct Fake {
    /// How BIRD takes it that the router is drained.
    bird: Mutex<Result<Confirmation, ApiRefusal>>,
    /// The answer of the Control Plane before a drain.
    drains: Mutex<Result<Option<String>, ApiRefusal>>,
    drained: AtomicBool,
    unready: AtomicBool,
    syncs: AtomicUsize,
    restarted: Mutex<Vec<String>>,
    changes: watch::Sender<u64>,
    phases: Mutex<BTreeMap<String, String>>,
    glass: Option<Arc<FakeGlass>>,
}

#[async_trait]
impl AgentApi for Fake {
    fn looking_glass(&self) -> Option<Arc<dyn LookingGlass>> {
        let glass = self.glass.clone()?;
        Some(glass)
    }

    async fn status(&self) -> StatusView {
        StatusView {
            status: "ok".into(),
            version: "1.2.0".into(),
            commit: "abc1234".into(),
            uptime: 3600,
            node: NodeView {
                id: Some(1),
                name: "jp1".into(),
                region: Some("ap-northeast".into()),
            },
            sessions: SessionCounts {
                total: 15,
                active: 12,
                error: 1,
                pending: 2,
            },
            circuit_breaker: "closed".into(),
            ..StatusView::default()
        }
    }

    async fn object_status(&self, _: Kind, _: &ObjectName) -> Option<StatusBody> {
        None
    }

    async fn overview(&self) -> Overview {
        Overview {
            status: self.status().await,
            objects: vec![row()],
        }
    }

    async fn object_view(&self, kind: Kind, name: &ObjectName) -> Option<ObjectView> {
        (kind.path(name) == row().object).then(object)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn phases(&self) -> BTreeMap<String, String> {
        self.phases.lock().unwrap().clone()
    }

    async fn trigger_sync(&self) -> Result<(), ApiRefusal> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn restart(&self, interface: InterfaceName) -> Result<(), ApiRefusal> {
        match interface.as_str() {
            "wg_4242421080" => {
                self.restarted.lock().unwrap().push(interface.to_string());
                Ok(())
            }
            "wg_broken" => Err(ApiRefusal::Failed("BIRD did not answer".into())),
            _ => Err(ApiRefusal::UnknownInterface(interface)),
        }
    }

    async fn maintenance(&self) -> MaintenanceView {
        let enabled = self.drained.load(Ordering::SeqCst);
        MaintenanceView {
            enabled,
            since: enabled.then(|| "2026-11-23T20:00:00Z".parse().unwrap()),
        }
    }

    async fn may_drain(&self, force: bool) -> Result<Option<String>, ApiRefusal> {
        match (self.drains.lock().unwrap().clone(), force) {
            (Err(_), true) => Ok(None),
            (answer, _) => answer,
        }
    }

    async fn set_maintenance(&self, enabled: bool) -> Result<Confirmation, ApiRefusal> {
        self.drained.store(enabled, Ordering::SeqCst);
        self.bird.lock().unwrap().clone()
    }

    async fn metrics(&self) -> String {
        "moenet_agent_sessions_total{status=\"active\"} 12\n".into()
    }

    async fn ready(&self) -> bool {
        !self.unready.load(Ordering::SeqCst)
    }
}

struct Bench {
    fake: Arc<Fake>,
    options: HttpOptions,
    app: axum::Router,
}

fn bench_with(token: Option<&str>) -> Bench {
    bench_beside(token, None)
}

/// Beside a looking glass.
fn bench_beside(token: Option<&str>, glass: Option<Arc<FakeGlass>>) -> Bench {
    let fake = Arc::new(Fake {
        bird: Mutex::new(Ok(Confirmation::Confirmed)),
        drains: Mutex::new(Ok(None)),
        drained: AtomicBool::default(),
        unready: AtomicBool::default(),
        syncs: AtomicUsize::default(),
        restarted: Mutex::default(),
        changes: watch::Sender::default(),
        phases: Mutex::default(),
        glass,
    });
    let options = HttpOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        token: token.map(|token| Secret::new(token.to_owned())).into(),
        state: fake.clone(),
        trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
    };
    Bench {
        fake,
        app: app(&options),
        options,
    }
}

fn bench() -> Bench {
    bench_with(None)
}

impl Bench {
    async fn send(&self, request: Request<Body>) -> (u16, HeaderMap, String) {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        let (status, body) = (
            parts.status.as_u16(),
            String::from_utf8(body.to_vec()).unwrap(),
        );
        LOCAL.check(method.as_str(), &path, status, &parts.headers, &body);
        (status, parts.headers, body)
    }

    async fn call(&self, method: &str, path: &str) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap();
        let (status, _, body) = self.send(request).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    async fn restart(&self, body: &str) -> (u16, Value) {
        let request =
            Request::post("/restart").header("content-type", "application/json; charset=utf-8");
        let (status, _, body) = self
            .send(request.body(Body::from(body.to_owned())).unwrap())
            .await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

fn is_error(answer: &(u16, Value), status: u16, code: &str) {
    assert_eq!(
        (answer.0, answer.1["code"].as_str()),
        (status, Some(code)),
        "{answer:?}"
    );
    assert!(
        answer.1["error"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{answer:?}"
    );
    assert_eq!(answer.1.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn status_has_every_field_of_the_contract() {
    let want = json!({
        "status": "ok", "version": "1.2.0", "commit": "abc1234", "uptime": 3600,
        "node": {"id": 1, "name": "jp1", "region": "ap-northeast"},
        "sessions": {"total": 15, "active": 12, "error": 1, "pending": 2},
        "circuitBreaker": "closed",
        "maintenance": {"enabled": false, "since": null},
        "bird": {"running": false, "version": null},
        "lastSync": {},
        "sync": {"requested": 0, "finished": 0, "at": null, "sessions": 0, "changed": 0, "error": null},
        "bgp": {}, "phases": {}, "held": [], "heldTotal": 0, "overridesTotal": 0
    });
    assert_eq!(bench().call("GET", "/status").await, (200, want));
}

#[tokio::test]
async fn sync_is_triggered_and_answered_at_once() {
    let bench = bench();
    assert_eq!(
        bench.call("GET", "/sync").await,
        (200, json!({"status": "sync_triggered"}))
    );
    assert_eq!(bench.fake.syncs.load(Ordering::SeqCst), 1);
    let head = bench.call("HEAD", "/sync").await;
    assert_eq!((head.0, bench.fake.syncs.load(Ordering::SeqCst)), (405, 1));
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let (status, headers, body) = bench().send(request).await;
    assert_eq!(status, 200);
    assert!(
        headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    assert!(body.contains("moenet_agent_sessions_total"));
}

#[tokio::test]
async fn maintenance_starts_and_stops_and_is_idempotent() {
    let bench = bench();
    assert_eq!(
        bench.call("GET", "/maintenance").await,
        (200, json!({"enabled": false, "since": null}))
    );
    for _ in 0..2 {
        let started = bench.call("POST", "/maintenance/start").await;
        assert_eq!(
            started,
            (
                200,
                json!({"status": "ok", "message": "Maintenance mode enabled"})
            )
        );
    }
    let on = json!({"enabled": true, "since": "2026-11-23T20:00:00Z"});
    assert_eq!(bench.call("GET", "/maintenance").await, (200, on));
    is_error(&bench.call("GET", "/sync").await, 503, "MAINTENANCE_MODE");
    is_error(
        &bench.restart(r#"{"interface":"wg_4242421080"}"#).await,
        503,
        "MAINTENANCE_MODE",
    );
    assert!(bench.fake.restarted.lock().unwrap().is_empty());
    for _ in 0..2 {
        let stopped = bench.call("POST", "/maintenance/stop").await;
        assert_eq!(
            stopped,
            (
                200,
                json!({"status": "ok", "message": "Maintenance mode disabled"})
            )
        );
    }
    assert_eq!(bench.call("GET", "/sync").await.0, 200);
}

#[tokio::test]
async fn drain_asks_the_control_plane_first() {
    let bench = bench();
    let drain = async |body: &str| {
        let request =
            Request::post("/maintenance/start").header("content-type", "application/json");
        let request = request.body(Body::from(body.to_owned()));
        let (status, _, body) = bench.send(request.unwrap()).await;
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    *bench.fake.drains.lock().unwrap() = Err(ApiRefusal::DrainRefused("jp2 is drained".into()));
    is_error(&drain("").await, 409, "DRAIN_REFUSED");
    for body in [r#"{"forc": true}"#, "[]"] {
        is_error(&drain(body).await, 400, "BAD_REQUEST");
    }
    let enabled = async || bench.call("GET", "/maintenance").await.1["enabled"].clone();
    assert_eq!(enabled().await, false);
    assert_eq!(drain(r#"{"force": true}"#).await.0, 200);
    assert_eq!(enabled().await, true);
    // A drained router is not asked about again.
    assert_eq!(drain("").await.0, 200);
    bench.call("POST", "/maintenance/stop").await;
    *bench.fake.drains.lock().unwrap() = Ok(Some("no answer".into()));
    assert_eq!(drain("").await.1["warning"], "no answer");
    assert_eq!(enabled().await, true);
}

#[tokio::test]
async fn maintenance_says_when_bird_has_not_confirmed() {
    let bench = bench();
    *bench.fake.bird.lock().unwrap() = Ok(Confirmation::Pending("sessions/wg_1".into()));
    let (code, body) = bench.call("POST", "/maintenance/start").await;
    assert_eq!((code, &body["status"]), (202, &json!("pending")));
    assert!(body["message"].as_str().unwrap().contains("sessions/wg_1"));
    *bench.fake.bird.lock().unwrap() = Err(ApiRefusal::BirdUnavailable("it hangs".into()));
    for path in ["/maintenance/start", "/maintenance/stop"] {
        is_error(&bench.call("POST", path).await, 503, "BIRD_UNAVAILABLE");
    }
}

#[tokio::test]
async fn restart_takes_exactly_one_interface() {
    let bench = bench();
    let done = bench.restart(r#"{"interface":"wg_4242421080"}"#).await;
    assert_eq!(
        done,
        (200, json!({"status": "ok", "interface": "wg_4242421080"}))
    );
    assert_eq!(*bench.fake.restarted.lock().unwrap(), ["wg_4242421080"]);
    is_error(
        &bench.restart(r#"{"interface":"all"}"#).await,
        400,
        "BAD_REQUEST",
    );
    is_error(
        &bench.restart(r#"{"interface":"wg_broken"}"#).await,
        500,
        "INTERNAL",
    );
}

#[tokio::test]
async fn a_restart_that_is_not_understood_is_a_bad_request() {
    let bench = bench();
    for body in [
        "",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"interface":null}"#,
        r#"{"interface":"x\ndown"}"#,
    ] {
        is_error(&bench.restart(body).await, 400, "BAD_REQUEST");
    }
    is_error(
        &bench.restart(r#"{"interface":"../../etc"}"#).await,
        400,
        "BAD_REQUEST",
    );
    let form =
        Request::post("/restart").header("content-type", "application/x-www-form-urlencoded");
    let (status, _, _) = bench
        .send(
            form.body(Body::from(r#"{"interface":"wg_4242421080"}"#))
                .unwrap(),
        )
        .await;
    assert_eq!(status, 400, "a page in a browser could send this");
    assert!(bench.fake.restarted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_large_body_is_refused() {
    let bench = bench();
    let body = format!(r#"{{"interface":"{}"}}"#, "x".repeat(65 * 1024));
    is_error(&bench.restart(&body).await, 413, "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_share_one_error_format() {
    let bench = bench();
    for path in [
        "/nothing",
        "/status/",
        "/Status",
        "/api/status",
        "/restart/x",
        "/%2e%2e/etc/passwd",
    ] {
        is_error(&bench.call("GET", path).await, 404, "NOT_FOUND");
    }
    for (method, path, allow) in [
        ("POST", "/status", "GET"),
        ("GET", "/restart", "POST"),
        ("DELETE", "/maintenance", "GET"),
        ("GET", "/maintenance/start", "POST"),
        ("PUT", "/maintenance/stop", "POST"),
        ("POST", "/sync", "GET"),
        ("POST", "/metrics", "GET"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap();
        let (status, headers, body) = bench.send(request).await;
        is_error(
            &(status, serde_json::from_str(&body).unwrap()),
            405,
            "METHOD_NOT_ALLOWED",
        );
        assert_eq!(headers["allow"], allow);
    }
}

#[tokio::test]
async fn with_a_token_everything_but_the_probes_wants_it() {
    let bench = bench_with(Some("s3cret"));
    for path in ["/status", "/sync", "/metrics", "/maintenance", "/nowhere"] {
        is_error(&bench.call("GET", path).await, 401, "INVALID_TOKEN");
    }
    for path in ["/restart", "/maintenance/start"] {
        is_error(&bench.call("POST", path).await, 401, "INVALID_TOKEN");
    }
    for wrong in [
        "Bearer wrong",
        "Bearer s3cre",
        "Basic s3cret",
        "s3cret",
        "Bearer",
    ] {
        let request = Request::get("/status")
            .header("authorization", wrong)
            .body(Body::empty())
            .unwrap();
        assert_eq!(bench.send(request).await.0, 401, "{wrong}");
    }
    let right = Request::get("/status").header("authorization", "Bearer s3cret");
    assert_eq!(bench.send(right.body(Body::empty()).unwrap()).await.0, 200);
    assert_eq!(
        bench.call("GET", "/healthz").await,
        (200, json!({"status": "ok"}))
    );
    assert_eq!(
        bench.call("GET", "/readyz").await,
        (200, json!({"status": "ok"}))
    );
    bench.fake.unready.store(true, Ordering::SeqCst);
    is_error(&bench.call("GET", "/readyz").await, 503, "NOT_READY");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_sync_calls_is_rate_limited() {
    let bench = bench();
    let mut refused = 0;
    for _ in 0..40 {
        let request = Request::get("/sync").body(Body::empty()).unwrap();
        let (status, headers, body) = bench.send(request).await;
        if status == 429 {
            refused += 1;
            is_error(
                &(status, serde_json::from_str(&body).unwrap()),
                429,
                "RATE_LIMITED",
            );
            assert_eq!(headers["retry-after"], "1");
        }
    }
    assert_eq!(refused, 20, "the burst is 20 and no time passed");
    assert_eq!(
        bench.restart(r#"{"interface":"wg_4242421080"}"#).await.0,
        200,
        "another bucket"
    );
}

#[tokio::test]
async fn browser_page_cannot_call_an_api_without_token() {
    let bench = bench();
    for (name, value) in [
        ("host", "evil.example:24368"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://127.0.0.1:3000"),
        ("origin", "http://localhost:3000"),
        // All that an `<img src="http://127.0.0.1:24368/sync">` brings along.
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for (method, path) in [("POST", "/maintenance/start"), ("GET", "/sync")] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(name, value);
            let (status, _, body) = bench.send(request.body(Body::empty()).unwrap()).await;
            is_error(
                &(status, serde_json::from_str(&body).unwrap()),
                400,
                "BAD_REQUEST",
            );
        }
    }
    let typed = Request::get("/status")
        .header("sec-fetch-site", "none")
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        bench.send(typed).await.0,
        200,
        "an operator typed the address"
    );
    for host in ["localhost:24368", "127.0.0.1:24368", "[::1]:24368"] {
        let request = Request::get("/status")
            .header("host", host)
            .body(Body::empty())
            .unwrap();
        assert_eq!(bench.send(request).await.0, 200, "{host}");
    }
}

#[tokio::test]
async fn an_address_that_is_not_loopback_needs_a_token() {
    for listen in [":0", "0.0.0.0:0", "[::]:0"] {
        let mut options = bench().options;
        options.listen = listen.parse().unwrap();
        assert!(
            matches!(
                Server::bind(&options).await,
                Err(ServeError::TokenRequired(_))
            ),
            "{listen}"
        );
        options.token = Secret::new(String::new()).into();
        assert!(matches!(
            Server::bind(&options).await,
            Err(ServeError::EmptyToken)
        ));
        options.token = Secret::new("s3cret".into()).into();
        options.listen = "0.0.0.0:0".parse().unwrap();
        assert!(Server::bind(&options).await.is_ok());
    }
}

#[tokio::test]
async fn unix_socket_is_group_only_and_replaces_stale_sockets_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let mut options = bench().options;
    options.listen = Listen::Unix(path.clone());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

    let server = Server::bind(&options).await.unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    assert!(
        matches!(
            Server::bind(&options).await,
            Err(ServeError::Occupied { .. })
        ),
        "it is in use"
    );
    stop.send(()).unwrap();
    running.await.unwrap();
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(
        Server::bind(&options).await,
        Err(ServeError::Occupied { .. })
    ));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
