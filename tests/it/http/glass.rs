//! The looking glass: its token, its questions and its limits.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, Request};
use moenet_agent::config::TokenSource;
use moenet_agent::http::{GlassError, HopView, LookingGlass, PingView, RouteView, TraceView};
use moenet_agent::model::Secret;
use serde_json::{Value, json};

use super::{Bench, bench_beside, bench_with, is_error};

/// Answers from memory, and notes each question.
pub(super) struct FakeGlass {
    token: TokenSource,
    asked: Mutex<Vec<String>>,
    fails: bool,
}

impl FakeGlass {
    fn new(fails: bool) -> Arc<Self> {
        Arc::new(Self {
            token: Some(Secret::new("glass".to_owned())).into(),
            asked: Mutex::default(),
            fails,
        })
    }

    fn note(&self, text: String) -> Result<(), GlassError> {
        self.asked.lock().unwrap().push(text);
        match self.fails {
            true => Err(GlassError::Bird("it hangs".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl LookingGlass for FakeGlass {
    fn token(&self) -> &TokenSource {
        &self.token
    }

    fn may_reach(&self, address: IpAddr) -> bool {
        address.to_string().starts_with("172.20.")
    }

    async fn route(&self, net: ipnet::IpNet) -> Result<RouteView, GlassError> {
        self.note(format!("route {net}"))?;
        Ok(RouteView {
            target: net.to_string(),
            lines: vec!["<b>unicast</b>".to_owned()],
            cut: true,
        })
    }

    async fn ping(&self, target: IpAddr) -> Result<PingView, GlassError> {
        self.note(format!("ping {target}"))?;
        Ok(PingView {
            target: target.to_string(),
            sent: 4,
            times_ms: vec![1.25],
        })
    }

    async fn trace(&self, target: IpAddr) -> Result<TraceView, GlassError> {
        self.note(format!("trace {target}"))?;
        let hop = HopView {
            address: "172.20.0.1".to_owned(),
            time_ms: 2.5,
        };
        Ok(TraceView {
            target: target.to_string(),
            reached: true,
            hops: vec![None, Some(hop)],
        })
    }
}

fn bench(fails: bool) -> (Bench, Arc<FakeGlass>) {
    let glass = FakeGlass::new(fails);
    (bench_beside(Some("s3cret"), Some(glass.clone())), glass)
}

async fn get(bench: &Bench, path: &str, token: &str) -> (u16, HeaderMap, String) {
    let request = Request::get(path).header(AUTHORIZATION, format!("Bearer {token}"));
    bench.send(request.body(Body::empty()).unwrap()).await
}

async fn ask(bench: &Bench, path: &str) -> (u16, Value) {
    let (status, _, body) = get(bench, path, "glass").await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

/// Sends a request for a page, which the description of the API has not.
async fn page(
    bench: &Bench,
    request: axum::http::request::Builder,
    body: &str,
) -> (u16, HeaderMap, String) {
    use tower::ServiceExt as _;
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = bench.app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    (parts.status.as_u16(), parts.headers, body)
}

const PATHS: [&str; 3] = [
    "/looking-glass/route?target=172.20.0.53",
    "/looking-glass/ping?target=172.20.0.53",
    "/looking-glass/trace?target=172.20.0.53",
];

#[tokio::test]
async fn glass_is_off_without_its_configuration() {
    let bench = bench_with(Some("s3cret"));
    for path in PATHS {
        is_error(&ask(&bench, path).await, 404, "NOT_FOUND");
    }
}

#[tokio::test]
async fn glass_opens_with_its_own_token_only() {
    let (bench, glass) = bench(false);
    for token in ["", "s3cret", "glas", "glass2"] {
        for path in PATHS {
            let (status, _, body) = get(&bench, path, token).await;
            assert_eq!(status, 401, "{token} {path} {body}");
        }
        let (status, _, body) = page(
            &bench,
            Request::get("/looking-glass?ask=ping&target=172.20.0.53"),
            "",
        )
        .await;
        assert!(
            status == 401 && body.contains("type=\"password\""),
            "{body}"
        );
    }
    assert_eq!(*glass.asked.lock().unwrap(), [""; 0]);
    // Nor does its token open anything else.
    assert_eq!(get(&bench, "/status", "glass").await.0, 401);
}

#[tokio::test]
async fn every_question_is_parsed_before_it_is_asked() {
    let (bench, glass) = bench(false);
    for hostile in [
        "",
        "all",
        "10.0.0.1%0Aconfigure",
        "10.0.0.0/33",
        "example.org",
        "fe80::1%25wg0",
    ] {
        let path = format!("/looking-glass/route?target={hostile}");
        is_error(&ask(&bench, &path).await, 400, "BAD_REQUEST");
    }
    for outside in ["192.0.2.1", "127.0.0.1", "::1", "172.20.0.0/24"] {
        let path = format!("/looking-glass/ping?target={outside}");
        let answer = ask(&bench, &path).await;
        assert!(matches!(answer.0, 400 | 429), "{answer:?}");
    }
    assert_eq!(*glass.asked.lock().unwrap(), [""; 0]);
}

#[tokio::test]
async fn questions_are_answered_and_limited() {
    let (bench, glass) = bench(false);
    let (status, route) = ask(&bench, PATHS[0]).await;
    assert_eq!((status, &route["target"]), (200, &json!("172.20.0.53/32")));
    let (_, ping) = ask(&bench, PATHS[1]).await;
    assert_eq!(
        ping,
        json!({"target": "172.20.0.53", "sent": 4, "timesMs": [1.25]})
    );
    let (_, trace) = ask(&bench, PATHS[2]).await;
    assert_eq!(
        trace["hops"],
        json!([null, {"address": "172.20.0.1", "timeMs": 2.5}])
    );
    for _ in 0..7 {
        assert_eq!(ask(&bench, PATHS[0]).await.0, 200);
    }
    is_error(&ask(&bench, PATHS[0]).await, 429, "RATE_LIMITED");
    assert_eq!(glass.asked.lock().unwrap().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn wrong_tokens_of_any_kind_are_limited() {
    let (bench, _) = bench(false);
    for _ in 0..5 {
        assert_eq!(get(&bench, PATHS[0], "wrong").await.0, 401);
        let login = Request::post("/looking-glass/login");
        assert_eq!(page(&bench, login, "token=wrong").await.0, 401);
    }
    // The right one too: otherwise a guess beyond the limit would still tell that it is right.
    for token in ["wrong", "glass"] {
        let (status, ..) = get(&bench, PATHS[0], token).await;
        assert_eq!(status, 429, "{token}");
        let login = Request::post("/looking-glass/login");
        let (status, ..) = page(&bench, login, &format!("token={token}")).await;
        assert_eq!(status, 429, "{token}");
    }
}

#[tokio::test]
async fn login_passes_a_proxy_that_ends_tls() {
    let (bench, _) = bench(false);
    let from = |origin: &str| {
        Request::post("/looking-glass/login")
            .header("host", "glass.example")
            .header("origin", origin)
    };
    let (status, headers, _) = page(&bench, from("https://glass.example"), "token=glass").await;
    assert_eq!(status, 303);
    let cookie = headers[SET_COOKIE].to_str().unwrap();
    assert!(cookie.ends_with("; Path=/looking-glass"), "{cookie}");
    let elsewhere = from("https://evil.example");
    assert_eq!(page(&bench, elsewhere, "token=glass").await.0, 400);
}

#[tokio::test]
async fn router_that_cannot_answer_is_unavailable() {
    let (bench, _) = bench(true);
    is_error(&ask(&bench, PATHS[0]).await, 503, "BIRD_UNAVAILABLE");
}

#[tokio::test]
async fn form_works_without_scripts() {
    let (bench, glass) = bench(false);
    let login = |token: &str| format!("token={token}");
    let (status, ..) = page(
        &bench,
        Request::post("/looking-glass/login"),
        &login("s3cret"),
    )
    .await;
    assert_eq!(status, 401);
    let elsewhere = Request::post("/looking-glass/login").header("sec-fetch-site", "cross-site");
    assert_eq!(page(&bench, elsewhere, &login("glass")).await.0, 400);
    let (status, headers, _) = page(
        &bench,
        Request::post("/looking-glass/login"),
        &login("glass"),
    )
    .await;
    assert_eq!(
        (status, headers["location"].to_str().unwrap()),
        (303, "/looking-glass")
    );
    let cookie = headers[SET_COOKIE]
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let with = |path: &str| Request::get(path).header(COOKIE, cookie);
    let (status, headers, body) = page(&bench, with("/looking-glass"), "").await;
    assert!(
        status == 200 && body.contains("<form method=\"get\"") && !body.contains("<script"),
        "{body}"
    );
    assert!(
        headers["content-security-policy"]
            .to_str()
            .unwrap()
            .starts_with("default-src 'none'")
    );
    let asked = "/looking-glass?ask=route&target=172.20.0.0%2F24";
    let (_, _, body) = page(&bench, with(asked), "").await;
    assert!(
        body.contains("&lt;b&gt;unicast") && body.contains("left out"),
        "{body}"
    );
    let (_, _, body) = page(
        &bench,
        with("/looking-glass?ask=trace&target=172.20.0.53"),
        "",
    )
    .await;
    assert!(
        body.contains("no answer") && body.contains("2.5 ms"),
        "{body}"
    );
    let hostile = "/looking-glass?ask=ping&target=%22%3E%3Cscript%3E";
    let (status, _, body) = page(&bench, with(hostile), "").await;
    assert!(
        status == 400 && body.contains("names are not resolved") && !body.contains("<script"),
        "{body}"
    );
    // The cookie opens no other page.
    assert_eq!(page(&bench, with("/"), "").await.0, 401);
    assert_eq!(glass.asked.lock().unwrap().len(), 2);
}
