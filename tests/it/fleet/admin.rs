//! The operators' side: roles, views, the page and its forms.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use moenet_agent::fleet::{Access, FleetOptions, watched};
use moenet_agent::model::Secret;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::verbs::{Fleet, network};

/// A network with the tokens `look` and `change` of operators.
fn served() -> (Fleet, Router) {
    served_behind(&[])
}

/// The same behind reverse proxies.
fn served_behind(proxies: &[&str]) -> (Fleet, Router) {
    let fleet = network();
    let mut options = FleetOptions::new(fleet.path("."), "127.0.0.1:0".parse().unwrap());
    let token = |text: &str| Secret::new(text.to_owned()).into();
    options.serving.access = Access {
        read: token("look"),
        write: token("change"),
        socket: None,
    };
    options.serving.trusted_proxies = proxies.iter().map(|it| it.parse().unwrap()).collect();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let app = watched(&options).0;
    (fleet, app)
}

pub(super) async fn ask(
    app: &Router,
    head: &str,
    body: &str,
    headers: &[(&str, &str)],
) -> (u16, HeaderMap, String) {
    let (method, path) = head.split_once(' ').unwrap();
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "cp.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = app
        .clone()
        .oneshot(request.body(Body::from(body.to_owned())).unwrap())
        .await
        .unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    (
        parts.status.as_u16(),
        parts.headers,
        String::from_utf8(body.to_vec()).unwrap(),
    )
}

const LOOK: (&str, &str) = ("authorization", "Bearer look");
const CHANGE: (&str, &str) = ("authorization", "Bearer change");
const ACCEPT: &str = r#"{"session": "alice", "change": "accept"}"#;

#[tokio::test]
async fn lost_fleet_is_not_ready_and_new_one_is() {
    let fleet = Fleet(tempfile::tempdir().unwrap());
    let options = FleetOptions::new(fleet.path("."), "127.0.0.1:0".parse().unwrap());
    let app = watched(&options).0;
    let (status, _, body) = ask(&app, "GET /readyz", "", &[]).await;
    assert_eq!(status, 503, "{body}");
    assert!(
        body.contains("NO_FLEET") && body.contains("fleet init"),
        "{body}"
    );
    assert_eq!(ask(&app, "GET /healthz", "", &[]).await.0, 200);
    let token = ("authorization", "Bearer x");
    for list in ["config", "sessions", "mesh"] {
        let head = format!("GET /agent/jp1/{list}");
        let (status, _, body) = ask(&app, &head, "", &[token]).await;
        assert_eq!(status, 404, "an error is no empty list: {body}");
    }
    fleet.done("init --asn 4242420998 --ipv6 fd48:4242:420::/48");
    std::thread::sleep(std::time::Duration::from_millis(1600));
    assert_eq!(ask(&app, "GET /readyz", "", &[]).await.0, 200);
}

#[tokio::test]
async fn each_role_has_its_calls() {
    let (fleet, app) = served();
    for open in ["GET /healthz", "GET /readyz", "GET /style.css"] {
        assert_eq!(ask(&app, open, "", &[]).await.0, 200, "{open}");
    }
    let reads = [
        "GET /metrics",
        "GET /v1/routers",
        "GET /v1/routers/jp1",
        "GET /",
        "GET /routers/jp1",
    ];
    for read in reads {
        assert_eq!(ask(&app, read, "", &[]).await.0, 401, "{read}");
        for token in [LOOK, CHANGE] {
            let (status, headers, text) = ask(&app, read, "", &[token]).await;
            assert_eq!(
                (status, headers["cache-control"].to_str().unwrap()),
                (200, "no-store"),
                "{read}: {text}"
            );
        }
    }
    let change = "POST /v1/routers/jp1/sessions";
    assert_eq!(ask(&app, change, ACCEPT, &[]).await.0, 401);
    assert_eq!(ask(&app, change, ACCEPT, &[LOOK]).await.0, 403);
    assert!(
        fleet
            .text("sessions/jp1/alice.yaml")
            .contains("\nstatus: 3\n")
    );
    let (status, _, text) = ask(&app, change, ACCEPT, &[CHANGE]).await;
    assert_eq!(
        (status, text.as_str()),
        (200, r#"{"files":["sessions/jp1/alice.yaml"]}"#)
    );
    assert!(
        fleet
            .text("sessions/jp1/alice.yaml")
            .contains("\nstatus: 4\n")
    );
    assert_eq!(ask(&app, change, ACCEPT, &[CHANGE]).await.0, 200);
    let audit: Value = serde_json::from_str(&fleet.done("audit -o json")).unwrap();
    let files = json!(["sessions/jp1/alice.yaml"]);
    assert_eq!(audit.as_array().unwrap().len(), 1, "one write: {audit}");
    for (field, wanted) in [
        ("who", json!("write-token")),
        ("client", json!("local")),
        ("what", json!("accept")),
        ("object", json!("jp1/alice")),
        ("files", files),
    ] {
        assert_eq!(audit[0][field], wanted, "{field}");
    }
    let moon = ACCEPT.replace("alice", "moon");
    assert_eq!(ask(&app, change, &moon, &[CHANGE]).await.0, 404);
    assert_eq!(ask(&app, change, "{}", &[CHANGE]).await.0, 400);
    assert_eq!(ask(&app, "GET /v1/routers/moon", "", &[LOOK]).await.0, 404);
    assert_eq!(ask(&app, "POST /metrics", "", &[LOOK]).await.0, 405);
}

#[tokio::test]
async fn guesses_behind_a_proxy_are_those_of_its_client() {
    let wrong = ("authorization", "Bearer wrong");
    for (proxies, innocent) in [(&["127.0.0.1/32"][..], 401), (&[], 429)] {
        let (_fleet, app) = served_behind(proxies);
        for path in ["GET /v1/routers", "GET /v1/sessions"] {
            let guess = async |client: &str| {
                let headers = [wrong, ("x-forwarded-for", client)];
                ask(&app, path, "", &headers).await.0
            };
            let mut guessed = 0;
            for _ in 0..20 {
                guessed = guess("192.0.2.1, 192.0.2.66").await;
            }
            assert_eq!(guessed, 429, "{path}");
            assert_eq!(guess("192.0.2.66, 192.0.2.1").await, innocent, "{path}");
        }
    }
}

#[tokio::test]
async fn tokens_of_routers_and_guesses_open_nothing() {
    let (fleet, app) = served();
    let token = fleet.done("token new jp1");
    let token = token
        .lines()
        .find_map(|line| line.strip_prefix("token: "))
        .unwrap();
    let bearer = format!("Bearer {token}");
    let router = ("authorization", bearer.as_str());
    assert_eq!(ask(&app, "GET /v1/routers", "", &[router]).await.0, 401);
    let mut refused = 401;
    for _ in 0..20 {
        refused = ask(
            &app,
            "GET /v1/routers",
            "",
            &[("authorization", "Bearer x")],
        )
        .await
        .0;
    }
    assert_eq!(refused, 429);
    // An operator's token opens no router's calls.
    assert_eq!(
        ask(&app, "GET /agent/jp1/config", "", &[CHANGE]).await.0,
        401
    );
}

#[tokio::test]
async fn without_tokens_the_views_are_off() {
    let fleet = network();
    let options = FleetOptions::new(fleet.path("."), "127.0.0.1:0".parse().unwrap());
    let app = watched(&options).0;
    let (status, _, text) = ask(&app, "GET /v1/routers", "", &[LOOK]).await;
    assert!(
        status == 404 && text.contains("--read-token-file"),
        "{text}"
    );
    assert_eq!(ask(&app, "GET /healthz", "", &[]).await.0, 200);
}

#[tokio::test]
async fn browser_logs_in_and_approves_a_session() {
    let (fleet, app) = served();
    let login = |token: &'static str| ask(&app, "POST /login", token, &[]);
    assert_eq!(login("token=wrong").await.0, 401);
    let cookie = async |token| {
        let (status, headers, _) = login(token).await;
        assert_eq!(status, 303);
        let cookie = headers["set-cookie"].to_str().unwrap().to_owned();
        cookie.split(';').next().unwrap().to_owned()
    };
    let (look, change) = (cookie("token=look").await, cookie("token=change").await);
    let (_, _, page) = ask(&app, "GET /", "", &[("cookie", &look)]).await;
    assert!(
        page.contains("wait for review (1)") && !page.contains("Approve"),
        "{page}"
    );
    assert!(
        page.contains("<line class=\"unknown\""),
        "the tunnel is in the map: {page}"
    );
    let form = "session=alice&change=accept";
    let approve = "POST /routers/jp1";
    assert_eq!(ask(&app, approve, form, &[("cookie", &look)]).await.0, 403);
    let foreign = [
        ("cookie", change.as_str()),
        ("origin", "http://evil.example"),
    ];
    assert_eq!(ask(&app, approve, form, &foreign).await.0, 400);
    // The cookie opens pages only.
    assert_eq!(
        ask(&app, "GET /v1/routers", "", &[("cookie", &change)])
            .await
            .0,
        401
    );
    let (_, _, page) = ask(&app, "GET /", "", &[("cookie", &change)]).await;
    assert!(
        page.contains("Approve") && page.contains("publicKey: "),
        "{page}"
    );
    let tag = page.split_once("name=\"tag\" value=\"").unwrap().1;
    let form = format!("{form}&tag={}", tag.split_once('"').unwrap().0);
    let reviewed = fleet.text("sessions/jp1/alice.yaml");
    fleet.write("sessions/jp1/alice.yaml", &format!("{reviewed}mtu: 1300\n"));
    let cookie = [("cookie", change.as_str())];
    let accept = || ask(&app, approve, &form, &cookie);
    assert_eq!(accept().await.0, 412, "changed after the review");
    fleet.write("sessions/jp1/alice.yaml", &reviewed);
    assert_eq!(accept().await.0, 303);
    assert!(
        fleet
            .text("sessions/jp1/alice.yaml")
            .contains("\nstatus: 4\n")
    );
}

#[tokio::test]
async fn views_show_what_routers_posted() {
    let (fleet, app) = served();
    let token = fleet.done("token new hk1");
    let token = token
        .lines()
        .find_map(|line| line.strip_prefix("token: "))
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let bearer = format!("Bearer {token}");
    let post = |path: &'static str, body: Value| {
        let bearer = bearer.clone();
        let app = app.clone();
        async move {
            ask(
                &app,
                path,
                &body.to_string(),
                &[("authorization", bearer.as_str())],
            )
            .await
            .0
        }
    };
    let heartbeat = json!({"version": "1.2.3", "uptime": 60, "drained": true});
    assert_eq!(post("POST /agent/hk1/heartbeat", heartbeat).await, 200);
    let report = json!({"sessions": [{"uuid": "mesh-1-2", "state": "established"}]});
    assert_eq!(post("POST /agent/hk1/report", report).await, 200);
    let (_, _, text) = ask(&app, "GET /v1/routers/hk1", "", &[LOOK]).await;
    let router: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&router["version"], &router["drained"]),
        (&json!("1.2.3"), &json!(true))
    );
    let (_, _, text) = ask(&app, "GET /metrics", "", &[LOOK]).await;
    for line in [
        "moenet_fleet_routers 2",
        "moenet_fleet_last_seen_timestamp_seconds{router=\"jp1\"} 0",
        "moenet_fleet_sessions{router=\"hk1\",state=\"established\"} 1",
        "moenet_fleet_drained{router=\"hk1\"} 1",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let (_, _, page) = ask(&app, "GET /", "", &[LOOK]).await;
    assert!(
        page.contains("<line class=\"up\"") && page.contains("1.2.3"),
        "{page}"
    );
}

/// Asks until the answer has all of these texts.
async fn ask_until(app: &Router, head: &str, wanted: &[&str]) -> String {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(15);
    loop {
        let (_, _, text) = ask(app, head, "", &[LOOK]).await;
        if wanted.iter().all(|it| text.contains(it)) {
            return text;
        }
        assert!(
            std::time::Instant::now() < end,
            "{head}: {wanted:?}: {text}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn every_view_names_errors_of_the_files() {
    let (fleet, app) = served();
    let text = ask_until(&app, "GET /v1/routers", &["\"jp1\""]).await;
    assert!(!text.contains("rror\":"), "{text}");
    let metric = |router: &str, value: u8| {
        format!("moenet_fleet_unreadable{{router=\"{router}\"}} {value}\n")
    };
    ask_until(&app, "GET /metrics", &[&metric("", 0), &metric("jp1", 0)]).await;
    let session = fleet.text("sessions/jp1/alice.yaml");
    fleet.write(
        "sessions/jp1/alice.yaml",
        &session.replace("\nasn: 4242421080\n", "\nasn: nope\n"),
    );
    let place = "sessions/jp1/alice.yaml:";
    ask_until(&app, "GET /v1/routers/jp1", &["fileErrors", place]).await;
    for page in ["GET /", "GET /routers/jp1"] {
        ask_until(&app, page, &["alice.yaml:"]).await;
    }
    ask_until(&app, "GET /metrics", &[&metric("", 0), &metric("jp1", 1)]).await;
    let text = fleet.done("get");
    let row = text.lines().find(|it| it.starts_with("jp1 ")).unwrap();
    assert!(
        row.trim_end().ends_with('1') && text.contains(place),
        "{text}"
    );
    fleet.write("network.yaml", "asn: [");
    let place = "network.yaml:1:";
    ask_until(&app, "GET /v1/routers", &["\"error\":", place, "\"jp1\""]).await;
    ask_until(&app, "GET /", &[place, "jp1"]).await;
    ask_until(&app, "GET /metrics", &[&metric("", 1)]).await;
    // A server that never saw a valid one has no routers.
    let mut options = FleetOptions::new(fleet.path("."), "127.0.0.1:0".parse().unwrap());
    options.serving.access.read = Secret::new("look".to_owned()).into();
    let app = watched(&options).0;
    ask_until(&app, "GET /metrics", &[&metric("", 1)]).await;
    let (status, _, text) = ask(&app, "GET /v1/routers/jp1", "", &[LOOK]).await;
    assert_eq!(status, 500, "{text}");
    assert!(text.contains(place), "{text}");
}

#[tokio::test]
async fn lost_network_yaml_is_named_to_routers_and_operators() {
    let fleet = network();
    std::fs::remove_file(fleet.path("network.yaml")).unwrap();
    let mut options = FleetOptions::new(fleet.path("."), "127.0.0.1:0".parse().unwrap());
    options.serving.access.read = Secret::new("look".to_owned()).into();
    let app = watched(&options).0;
    let why = "network.yaml: does not exist";
    ask_until(&app, "GET /v1/routers", &["\"error\":", why]).await;
    let (status, _, text) = ask(&app, "GET /agent/jp1/config", "", &[LOOK]).await;
    assert_eq!(status, 500, "{text}");
    assert!(text.contains(why), "{text}");
    fleet.refused("get", why);
}
