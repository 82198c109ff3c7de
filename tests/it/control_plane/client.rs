//! The client against a Control Plane that fails in every way there is.

mod long_poll;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use moenet_agent::control_plane::{
    CallError, Client, ClientError, ClientOptions, Failure, State as Breaker,
};
use moenet_agent::model::{ErrorClass, Secret};
use moenet_agent::wire::{Call, Dialect, Heartbeat, WireError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TOKEN: &str = "s3cret-token";
const LIST: &str = r#"{"sessions":[]}"#;

type Answer = (u16, Vec<(&'static str, String)>, String);

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    seen: Vec<(String, String, Option<String>)>,
    /// The tags of the requests.
    tags: Vec<Option<String>>,
    queries: Vec<Option<String>>,
}

type Shared = Arc<Mutex<Script>>;

async fn respond(State(script): State<Shared>, request: Request<Body>) -> Response<Body> {
    let mut script = script.lock().unwrap();
    let authorization = request
        .headers()
        .get("authorization")
        .map(|v| v.to_str().unwrap().to_owned());
    script.seen.push((
        request.method().to_string(),
        request.uri().path().to_owned(),
        authorization,
    ));
    let tag = request.headers().get("if-none-match");
    let tag = tag.map(|tag| tag.to_str().unwrap().to_owned());
    script.tags.push(tag);
    script
        .queries
        .push(request.uri().query().map(str::to_owned));
    let (status, headers, body) = script
        .answers
        .pop_front()
        .unwrap_or((200, vec![], LIST.into()));
    let builder = headers
        .into_iter()
        .fold(Response::builder().status(status), |b, (k, v)| {
            b.header(k, v)
        });
    builder.body(Body::from(body)).unwrap()
}

async fn server(answers: Vec<Answer>) -> (String, Shared) {
    let script = Arc::new(Mutex::new(Script {
        answers: answers.into(),
        ..Script::default()
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(respond).with_state(script.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, script)
}

fn options(url: &str, max_retries: u32) -> ClientOptions {
    ClientOptions {
        url: url.to_owned(),
        router: "jp1".into(),
        token: Secret::new(TOKEN.into()).into(),
        dialect: Dialect::Reference,
        request_timeout: Duration::from_secs(2),
        max_retries,
        retry_initial_delay: Duration::from_millis(2),
    }
}

fn client(url: &str, max_retries: u32) -> Client {
    Client::new(options(url, max_retries)).unwrap()
}

fn answer(status: u16, body: &str) -> Answer {
    (status, vec![], body.to_owned())
}

fn count(client: &Client, word: &str) -> u64 {
    client
        .counters()
        .snapshot()
        .into_iter()
        .find(|(known, _)| *known == word)
        .unwrap()
        .1
}

async fn failure(answer: Answer) -> CallError {
    let (url, _) = server(vec![answer]).await;
    client(&url, 0).fetch_sessions().await.unwrap_err()
}

/// Lets time pass without waiting for it.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn every_call_goes_to_its_path_with_the_token() {
    let (url, script) = server(vec![
        answer(200, LIST),
        answer(200, r#"{"peers":[]}"#),
        answer(200, ""),
    ])
    .await;
    let mut options = options(&format!("{url}/api/v1/?x=1"), 0);
    options.router = "jp 1/../x".into();
    let client = Client::new(options).unwrap();
    assert!(client.fetch_sessions().await.unwrap().complete);
    client.fetch_mesh().await.unwrap();
    let heartbeat = Heartbeat {
        version: "1".into(),
        uptime: 1,
        mesh_public_key: None,
        drained: None,
        held: None,
        lists: Default::default(),
    };
    client.post_heartbeat(&heartbeat).await.unwrap();
    let script = script.lock().unwrap();
    let paths: Vec<_> = script
        .seen
        .iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    let base = "/api/v1/agent/jp%201%2F..%2Fx";
    let want = [
        format!("GET {base}/sessions"),
        format!("GET {base}/mesh"),
        format!("POST {base}/heartbeat"),
    ];
    assert_eq!(paths, want);
    assert!(
        script
            .seen
            .iter()
            .all(|(_, _, token)| token.as_deref() == Some("Bearer s3cret-token"))
    );
    assert_eq!(count(&client, "ok"), 3);
}

fn tagged(tag: &str, body: &str) -> Answer {
    (200, vec![("etag", tag.to_owned())], body.to_owned())
}

#[tokio::test]
async fn unchanged_list_is_the_kept_one() {
    let one = r#"{"sessions":[{"uuid":"a","asn":4242421080,"status":5}]}"#;
    let (url, script) = server(vec![
        tagged("\"1\"", one),
        answer(304, ""),
        tagged("\"2\"", LIST),
    ])
    .await;
    let client = client(&url, 0);
    let first = client.fetch_sessions().await.unwrap();
    assert_eq!(client.fetch_sessions().await.unwrap().items.len(), 1);
    assert_eq!(first.items.len(), 1);
    assert!(client.fetch_sessions().await.unwrap().items.is_empty());
    let asked = script.lock().unwrap().tags.clone();
    let tag = Some("\"1\"".to_owned());
    assert_eq!(asked, [None, tag.clone(), tag]);
}

#[tokio::test]
async fn unasked_304_is_an_error_and_no_empty_list() {
    let error = failure(answer(304, "")).await;
    assert!(matches!(
        error.failure,
        Failure::Refused { status: 304, .. }
    ));
}

#[tokio::test]
async fn answer_that_does_not_decode_is_fetched_whole_again() {
    let (url, script) = server(vec![tagged("\"1\"", "{}"), answer(200, LIST)]).await;
    let client = client(&url, 0);
    client.fetch_sessions().await.unwrap_err();
    client.fetch_sessions().await.unwrap();
    assert_eq!(script.lock().unwrap().tags, [None, None]);
}

#[tokio::test]
async fn every_failure_has_a_class_and_no_empty_list() {
    let auth = failure(answer(401, r#"{"error":"expired","code":"INVALID_TOKEN"}"#)).await;
    assert!(matches!(auth.failure, Failure::Auth { .. }));
    assert_eq!(auth.failure.class(), ErrorClass::Invalid);
    assert!(
        auth.to_string().contains("expired") && auth.to_string().contains("controlPlane.token")
    );
    let missing = failure(answer(404, r#"{"error":"?","code":"ROUTER_NOT_FOUND"}"#)).await;
    assert!(
        matches!(&missing.failure, Failure::NotFound { code: Some(c), .. } if c == "ROUTER_NOT_FOUND")
    );
    assert_eq!(missing.failure.class(), ErrorClass::Invalid);
    let server = failure(answer(500, "<html>boom</html>")).await;
    assert!(matches!(
        server.failure,
        Failure::Server {
            status: 500,
            retry_after: None,
            ..
        }
    ));
    assert_eq!(server.failure.class(), ErrorClass::Transient);
    assert!(matches!(
        failure(answer(400, "{}")).await.failure,
        Failure::Refused { status: 400, .. }
    ));
    for (body, want) in [
        ("{}", WireError::Missing { key: "sessions" }),
        (
            "null",
            WireError::NotAnObject {
                found: "null",
                key: "sessions",
            },
        ),
        ("<html>login</html>", WireError::Html),
        ("", WireError::Empty),
        (
            r#"{"sessions":[{"uuid""#,
            WireError::Truncated { bytes: 20 },
        ),
    ] {
        assert_eq!(
            failure(answer(200, body)).await.failure,
            Failure::Body(want),
            "{body}"
        );
    }
    let envelope = failure(answer(
        200,
        r#"{"error":"down","code":"MAINTENANCE_MODE","sessions":[]}"#,
    ))
    .await;
    assert!(matches!(
        envelope.failure,
        Failure::Body(WireError::Envelope { .. })
    ));
}

#[tokio::test]
async fn a_body_that_is_cut_or_endless_is_a_failure() {
    for (head, body, want) in [
        ("Content-Length: 1000", LIST.to_owned(), "network"),
        ("X: y", "x".repeat(17 << 20), "body"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let text = format!("HTTP/1.1 200 OK\r\n{head}\r\nConnection: close\r\n\r\n{body}");
            let _ = stream.write_all(text.as_bytes()).await;
        });
        let client = client(&url, 0);
        client.fetch_sessions().await.unwrap_err();
        assert_eq!(count(&client, want), 1, "{head}");
    }
}

#[tokio::test]
async fn transient_failure_is_retried_and_refusal_is_not() {
    let (url, script) = server(vec![answer(500, ""), answer(502, ""), answer(200, LIST)]).await;
    client(&url, 3).fetch_sessions().await.unwrap();
    assert_eq!(script.lock().unwrap().seen.len(), 3);
    for status in [400, 401, 403, 404] {
        let (url, script) = server(vec![answer(status, "")]).await;
        client(&url, 3).fetch_sessions().await.unwrap_err();
        assert_eq!(
            script.lock().unwrap().seen.len(),
            1,
            "{status} is not hammered"
        );
    }
    let (url, script) = server(vec![answer(500, ""); 9]).await;
    client(&url, 2).fetch_sessions().await.unwrap_err();
    assert_eq!(script.lock().unwrap().seen.len(), 3, "one try and two more");
}

fn too_many(retry_after: &str) -> Answer {
    let header = ("retry-after", retry_after.to_owned());
    (429, vec![header], String::new())
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        version: "1".into(),
        uptime: 1,
        mesh_public_key: None,
        drained: None,
        held: None,
        lists: Default::default(),
    }
}

#[tokio::test]
async fn retry_after_holds_back_only_the_call_that_got_it() {
    let (url, script) = server(vec![too_many("120"), answer(200, r#"{"peers":[]}"#)]).await;
    let client = client(&url, 3);
    let error = client.fetch_sessions().await.unwrap_err();
    let wait = error.failure.requested_wait();
    assert_eq!(wait, Some(Duration::from_secs(120)));
    client.fetch_mesh().await.unwrap();
    let held = client.fetch_sessions().await.unwrap_err();
    assert!(
        matches!(held.failure, Failure::RateLimited { .. }),
        "{held}"
    );
    assert_eq!(
        script.lock().unwrap().seen.len(),
        2,
        "nothing goes out before the time"
    );
    assert_eq!(client.breaker(), Breaker::Closed, "it lives");
    pass(Duration::from_secs(121)).await;
    client.fetch_sessions().await.unwrap();
}

#[tokio::test]
async fn retry_after_is_capped_at_15_minutes() {
    let (url, _) = server(vec![too_many("86400")]).await;
    let client = client(&url, 0);
    client.post_heartbeat(&heartbeat()).await.unwrap_err();
    client.fetch_sessions().await.unwrap();
    pass(Duration::from_secs(899)).await;
    client.post_heartbeat(&heartbeat()).await.unwrap_err();
    pass(Duration::from_secs(2)).await;
    client.post_heartbeat(&heartbeat()).await.unwrap();
}

#[tokio::test]
async fn refused_posts_never_delay_a_fetch() {
    let (url, script) = server(vec![answer(503, ""); 5]).await;
    let client = client(&url, 0);
    for _ in 0..9 {
        client.post_heartbeat(&heartbeat()).await.unwrap_err();
    }
    assert_eq!(script.lock().unwrap().seen.len(), 5, "their breaker opens");
    assert_eq!(client.post_breaker(), Breaker::Open);
    assert_eq!(client.breaker(), Breaker::Closed);
    client.fetch_sessions().await.unwrap();
}

#[tokio::test]
async fn failed_fetches_never_delay_a_post() {
    let (url, _) = server(vec![answer(500, ""); 5]).await;
    let client = client(&url, 0);
    for _ in 0..6 {
        client.fetch_sessions().await.unwrap_err();
    }
    assert_eq!(client.breaker(), Breaker::Open);
    client.post_heartbeat(&heartbeat()).await.unwrap();
}

#[tokio::test]
async fn a_hurried_call_ignores_retry_after_and_the_open_breaker() {
    let (url, _) = server(vec![too_many("600")]).await;
    let held = client(&url, 0);
    held.fetch_sessions().await.unwrap_err();
    held.hurry(Call::Sessions);
    held.fetch_sessions().await.unwrap();
    let (url, _) = server(vec![answer(500, ""); 5]).await;
    let broken = client(&url, 0);
    for _ in 0..5 {
        broken.fetch_sessions().await.unwrap_err();
    }
    broken.hurry(Call::Sessions);
    broken.fetch_mesh().await.unwrap_err();
    broken.fetch_sessions().await.unwrap();
    assert_eq!(broken.breaker(), Breaker::Closed, "it was the probe");
}

#[tokio::test(start_paused = true)]
async fn a_hurried_call_does_not_sit_out_its_retry() {
    let later = (503, vec![("retry-after", "25".to_owned())], String::new());
    let (url, script) = server(vec![later]).await;
    let client = Arc::new(client(&url, 1));
    let began = tokio::time::Instant::now();
    let fetching = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.fetch_sessions().await.map(drop) }
    });
    while count(&client, "server") == 0 {
        tokio::task::yield_now().await;
    }
    client.hurry(Call::Sessions);
    fetching.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(25));
    assert_eq!(script.lock().unwrap().seen.len(), 2);
}

#[tokio::test]
async fn a_short_retry_after_is_sat_out() {
    let late = (503, vec![("retry-after", "1".to_owned())], String::new());
    let (url, _) = server(vec![late]).await;
    let began = std::time::Instant::now();
    client(&url, 1).fetch_sessions().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn breaker_opens_after_five_failures_and_closes_after_probe() {
    let (url, script) = server(vec![answer(500, ""); 6]).await;
    let client = client(&url, 0);
    for _ in 0..5 {
        assert_eq!(client.breaker().to_string(), "closed");
        client.fetch_sessions().await.unwrap_err();
    }
    assert_eq!(client.breaker().to_string(), "open");
    let error = client.fetch_sessions().await.unwrap_err();
    assert!(
        matches!(error.failure, Failure::BreakerOpen { .. }),
        "{error}"
    );
    assert_eq!(script.lock().unwrap().seen.len(), 5);
    pass(Duration::from_secs(31)).await;
    assert_eq!(client.breaker().to_string(), "half-open");
    client.fetch_sessions().await.unwrap_err();
    assert_eq!(client.breaker().to_string(), "open", "the probe failed");
    // The other lists may probe first by now.
    pass(Duration::from_secs(37)).await;
    client.fetch_sessions().await.unwrap();
    assert_eq!(client.breaker().to_string(), "closed");
}

#[tokio::test]
async fn open_breaker_stops_retries_and_keeps_first_cause() {
    let (url, script) = server(vec![answer(500, ""); 20]).await;
    let error = client(&url, 9).fetch_sessions().await.unwrap_err();
    assert!(matches!(error.failure, Failure::Server { .. }), "{error}");
    assert_eq!(script.lock().unwrap().seen.len(), 5);
}

#[tokio::test]
async fn a_refused_token_does_not_open_the_breaker() {
    let (url, _) = server(vec![answer(401, ""); 8]).await;
    let client = client(&url, 0);
    for _ in 0..8 {
        client.fetch_sessions().await.unwrap_err();
    }
    assert_eq!(client.breaker(), Breaker::Closed);
}

#[tokio::test]
async fn a_redirect_is_not_followed_so_the_token_stays_here() {
    let (elsewhere, other) = server(vec![]).await;
    let to = (
        302,
        vec![("location", format!("{elsewhere}/x?secret=1"))],
        String::new(),
    );
    let (url, _) = server(vec![to]).await;
    let error = client(&url, 3)
        .fetch_sessions()
        .await
        .unwrap_err()
        .to_string();
    assert!(other.lock().unwrap().seen.is_empty());
    assert!(
        error.contains(&elsewhere) && !error.contains("secret"),
        "{error}"
    );
}

#[tokio::test]
async fn nobody_at_home_and_silence_are_network_failures() {
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let error = client(&format!("http://{free}"), 0)
        .fetch_sessions()
        .await
        .unwrap_err();
    assert!(matches!(error.failure, Failure::Network(_)), "{error}");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options(&format!("http://{}", silent.local_addr().unwrap()), 0);
    options.request_timeout = Duration::from_millis(100);
    let error = Client::new(options)
        .unwrap()
        .fetch_sessions()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("timed out"), "{error}");
}

#[tokio::test]
async fn no_message_has_the_token_or_url_password() {
    let echo = format!(r#"{{"error":"bad token {TOKEN}","code":"INVALID_TOKEN"}}"#);
    let (url, script) = server(vec![answer(401, &echo)]).await;
    let with_user = url.replace("http://", "http://user:hunter2@");
    let client = client(&with_user, 0);
    let error = client.fetch_sessions().await.unwrap_err();
    let text = format!("{error} {error:?} {client:?}");
    assert!(!text.contains(TOKEN) && !text.contains("hunter2"), "{text}");
    assert_eq!(
        script.lock().unwrap().seen[0].2.as_deref(),
        Some("Bearer s3cret-token")
    );
    for url in [
        "http://user:hunter2@127.0.0.1:1/",
        "http://user:hunter2@[::1/",
    ] {
        let text = match Client::new(options(url, 0)) {
            Ok(client) => client.fetch_sessions().await.unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn what_makes_no_client_is_refused_at_once() {
    for url in [
        "",
        "api.moenet.work",
        "ftp://x",
        "http://",
        "unix:/x",
        "/agent",
    ] {
        assert!(
            matches!(Client::new(options(url, 0)), Err(ClientError::Url(_))),
            "{url}"
        );
    }
    for router in ["", ".", ".."] {
        let options = ClientOptions {
            router: router.into(),
            ..options("http://a", 0)
        };
        assert!(
            matches!(Client::new(options), Err(ClientError::Router(_))),
            "{router}"
        );
    }
    for token in ["", " ", "a\nb"] {
        let options = ClientOptions {
            token: Secret::new(token.into()).into(),
            ..options("http://a", 0)
        };
        assert!(
            matches!(Client::new(options), Err(ClientError::Token)),
            "{token:?}"
        );
    }
    Client::new(options("https://api.moenet.work", 0)).unwrap();
}
