//! The web page, its login and its events.

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, Request};
use futures::StreamExt as _;
use moenet_agent::http::view::{ObjectRow, ObjectView};
use tower::ServiceExt as _;

use super::{Bench, bench, bench_with};

pub(super) fn row() -> ObjectRow {
    ObjectRow {
        object: "sessions/wg_1".to_owned(),
        phase: "Established".to_owned(),
        ..ObjectRow::default()
    }
}

pub(super) fn object() -> ObjectView {
    ObjectView {
        row: row(),
        conditions: Vec::new(),
        fields: Vec::new(),
        override_reason: None,
        override_expires: None,
        plan: vec!["set MTU".to_owned()],
        plan_note: None,
        last_steps: Vec::new(),
        events: Vec::new(),
        history_error: None,
    }
}

/// Sends a request for a page: pages are for people, and the description of the API has none.
async fn send(bench: &Bench, request: Request<Body>) -> (u16, HeaderMap, String) {
    let response = bench.app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    (parts.status.as_u16(), parts.headers, body)
}

async fn get(bench: &Bench, path: &str, cookie: &str) -> (u16, HeaderMap, String) {
    let request = Request::get(path).header(COOKIE, cookie);
    send(bench, request.body(Body::empty()).unwrap()).await
}

async fn login(bench: &Bench, token: &str) -> (u16, HeaderMap, String) {
    let form = format!("token={token}");
    let request = Request::post("/login").body(Body::from(form));
    send(bench, request.unwrap()).await
}

/// Logs in and returns the cookie.
async fn logged_in(bench: &Bench) -> String {
    let (status, headers, _) = login(bench, "s3cret").await;
    assert_eq!(status, 303);
    let cookie = headers[SET_COOKIE].to_str().unwrap();
    for word in ["HttpOnly", "SameSite=Strict"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn error_is_a_page_for_a_browser_only() {
    let bench = bench();
    for (accept, kind) in [
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
    ] {
        let request = Request::get("/page/nope").header("accept", accept);
        let (status, headers, body) = send(&bench, request.body(Body::empty()).unwrap()).await;
        let is_kind = headers["content-type"].to_str().unwrap().starts_with(kind);
        assert!(status == 404 && is_kind, "{accept}: {body}");
        assert!(
            body.contains("no object with a status has this name"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn pages_are_served_with_a_strict_policy() {
    let bench = bench();
    let pages = [
        ("/", ">sessions&#x2f;wg_1</a>"),
        ("/page/sessions/wg_1", "set MTU"),
        ("/style.css", "color-scheme"),
        ("/live.js", "EventSource"),
    ];
    for (path, text) in pages {
        let (status, headers, body) = get(&bench, path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
    }
    for path in ["/page/sessions/wg_2", "/page/", "/page/nowhere/x"] {
        assert_eq!(get(&bench, path, "").await.0, 404, "{path}");
    }
    assert_eq!(bench.call("POST", "/").await.0, 405);
}

#[tokio::test]
async fn token_is_asked_for_and_then_remembered() {
    let bench = bench_with(Some("s3cret"));
    let (status, _, form) = get(&bench, "/", "").await;
    assert_eq!(status, 401);
    assert!(form.contains("type=\"password\""), "{form}");
    assert_eq!(login(&bench, "wrong").await.0, 401);
    let cookie = logged_in(&bench).await;
    assert_eq!(get(&bench, "/", &cookie).await.0, 200);
    assert_eq!(get(&bench, "/page/sessions/wg_1", &cookie).await.0, 200);
    assert_eq!(get(&bench, "/", "moenet-agent=00").await.0, 401);
    let bearer = Request::get("/").header(AUTHORIZATION, "Bearer s3cret");
    let bearer = bearer.body(Body::empty()).unwrap();
    assert_eq!(send(&bench, bearer).await.0, 200);
}

#[tokio::test]
async fn cookie_opens_nothing_but_the_page() {
    let bench = bench_with(Some("s3cret"));
    let cookie = logged_in(&bench).await;
    for path in ["/status", "/metrics", "/sync", "/maintenance"] {
        assert_eq!(get(&bench, path, &cookie).await.0, 401, "{path}");
    }
    let restart = Request::post("/restart").header(COOKIE, cookie);
    let restart = restart.body(Body::empty()).unwrap();
    assert_eq!(send(&bench, restart).await.0, 401);
}

#[tokio::test]
async fn login_from_another_page_is_refused() {
    let bench = bench_with(Some("s3cret"));
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let form = Request::post("/login")
            .header("host", "router.example:24368")
            .header(name, value);
        let form = form.body(Body::from("token=s3cret")).unwrap();
        let (status, headers, _) = send(&bench, form).await;
        assert_eq!(status, 400, "{name}: {value}");
        assert!(!headers.contains_key(SET_COOKIE));
    }
}

#[tokio::test]
async fn events_follow_the_phases_of_objects() {
    let bench = bench();
    let set = |phase: &str| {
        let mut phases = bench.fake.phases.lock().unwrap();
        phases.insert("sessions/wg_1".to_owned(), phase.to_owned());
        drop(phases);
        bench.fake.changes.send_modify(|number| *number += 1);
    };
    set("Configured");
    let request = Request::get("/events").body(Body::empty()).unwrap();
    let answer = bench.app.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut stream = answer.into_body().into_data_stream();
    let mut next = async || {
        let part = stream.next().await.unwrap().unwrap();
        String::from_utf8(part.to_vec()).unwrap()
    };
    let ready = next().await;
    let wanted = r#"data: {"sessions/wg_1":"Configured"}"#;
    assert!(
        ready.starts_with("event: ready") && ready.contains(wanted),
        "{ready}"
    );
    set("Established");
    let event = next().await;
    let wanted = r#"data: {"object":"sessions/wg_1","phase":"Established"}"#;
    assert!(
        event.contains("event: object") && event.contains(wanted),
        "{event}"
    );
}

#[tokio::test]
async fn streams_of_events_are_limited() {
    let bench = bench();
    let mut open = Vec::new();
    for _ in 0..16 {
        let request = Request::get("/events").body(Body::empty()).unwrap();
        open.push(bench.app.clone().oneshot(request).await.unwrap());
    }
    assert_eq!(bench.call("GET", "/events").await.0, 429);
    drop(open.pop());
    let request = Request::get("/events").body(Body::empty()).unwrap();
    let again = bench.app.clone().oneshot(request).await.unwrap();
    assert_eq!(again.status(), 200);
}
