//! The server: tokens, limits, faults.

use moenet_agent::wire::Call;
use moenet_agent::wire::reference::endpoint;

use super::*;

#[tokio::test]
async fn tokens_and_routers_are_told_apart() {
    let fleet = fleet();
    // Of a file that is being written the token may be half.
    let (status, _, body) = fleet
        .send("GET", "/agent/jp1/sessions", Some("s3c"), "")
        .await;
    is_error(&(status, body), 500, "INTERNAL");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for (path, token, status, code) in [
        ("/agent/jp1/sessions", None, 401, "INVALID_TOKEN"),
        ("/agent/jp1/sessions", Some("wrong"), 401, "INVALID_TOKEN"),
        ("/agent/jp1/nowhere", Some("wrong"), 401, "INVALID_TOKEN"),
        (
            "/agent/nope/sessions",
            Some("s3cret"),
            404,
            "ROUTER_NOT_FOUND",
        ),
        ("/agent/nope/sessions", None, 401, "INVALID_TOKEN"),
        (
            "/agent/../sessions",
            Some("s3cret"),
            404,
            "ROUTER_NOT_FOUND",
        ),
        (
            "/agent/%2e%2e/sessions",
            Some("s3cret"),
            404,
            "ROUTER_NOT_FOUND",
        ),
        ("/agent//sessions", Some("s3cret"), 404, "ROUTER_NOT_FOUND"),
        ("/agent/jp1/nowhere", Some("s3cret"), 404, "NOT_FOUND"),
        ("/agent/jp1/sessions/", Some("s3cret"), 404, "NOT_FOUND"),
        ("/", None, 404, "NOT_FOUND"),
    ] {
        let (got, _, body) = fleet.send("GET", path, token, "").await;
        is_error(&(got, body), status, code);
    }
    let (status, headers, body) = fleet
        .send("POST", "/agent/jp1/sessions", Some("s3cret"), "")
        .await;
    is_error(&(status, body), 405, "METHOD_NOT_ALLOWED");
    assert_eq!(headers["allow"], "GET");
}

#[tokio::test]
async fn a_token_can_stand_in_a_file_of_its_own() {
    let fleet = fleet();
    fleet.edit("router.yaml", "token: s3cret", "tokenFile: token");
    fs::write(fleet.path("token"), "0ther\n").unwrap();
    let (status, _, _) = fleet
        .send("GET", "/agent/jp1/mesh", Some("0ther"), "")
        .await;
    assert_eq!(status, 200);
    fs::write(fleet.path("token"), "\n").unwrap();
    let (status, _, body) = fleet.send("GET", "/agent/jp1/mesh", Some("x"), "").await;
    is_error(&(status, body), 500, "INTERNAL");
}

#[tokio::test]
async fn broken_fleet_file_is_an_error_with_its_position() {
    let fleet = fleet();
    for text in [
        "sessions: [{uuid: a\n",
        "sessions:\n",
        "sessions: {}\n",
        "",
        "{}\n",
        "- 1\n",
    ] {
        fs::write(fleet.path("sessions.yaml"), text).unwrap();
        let message = is_error(&fleet.get("sessions").await, 500, "INTERNAL");
        assert!(message.starts_with("jp1/sessions.yaml"), "{message}");
    }
    fs::write(fleet.path("sessions.yaml"), "sessions:\n  - a: [\n").unwrap();
    let message = is_error(&fleet.get("sessions").await, 500, "INTERNAL");
    let place = message.strip_prefix("jp1/sessions.yaml:").unwrap();
    assert!(place.chars().next().unwrap().is_ascii_digit(), "{message}");
    is_error(
        &fleet
            .post("modify", r#"{"uuid":"abc-123","status":1}"#)
            .await,
        500,
        "INTERNAL",
    );
    fs::remove_file(fleet.path("mesh.yaml")).unwrap();
    is_error(&fleet.get("mesh").await, 404, "NOT_FOUND");
    fs::write(fleet.path("router.yaml"), "token: [s3cret\n").unwrap();
    let (status, _, body) = fleet
        .send("GET", "/agent/jp1/mesh", Some("guess"), "")
        .await;
    let message = is_error(&(status, body), 500, "INTERNAL");
    assert!(
        message.starts_with("jp1/router.yaml:") && !message.contains("s3cret"),
        "{message}"
    );
}

#[tokio::test]
async fn maintenance_answers_503() {
    let fleet = fleet();
    fs::write(fleet.path("maintenance"), "").unwrap();
    is_error(&fleet.get("sessions").await, 503, "MAINTENANCE_MODE");
    fs::remove_file(fleet.path("maintenance")).unwrap();
    assert_eq!(fleet.get("sessions").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn retry_after_tells_when_the_next_request_is_allowed() {
    let fleet = fleet_with(RateLimit {
        per_second: 0.5,
        burst: 3,
    });
    for _ in 0..3 {
        assert_eq!(fleet.get("mesh").await.0, 200);
    }
    let (status, headers, body) = fleet
        .send("GET", "/agent/jp1/mesh", Some("s3cret"), "")
        .await;
    is_error(&(status, body), 429, "RATE_LIMITED");
    assert_eq!(headers["retry-after"], "2");
}

#[tokio::test]
async fn guessing_tokens_is_slow_and_does_not_hinder_the_router() {
    let fleet = fleet();
    let mut limited = false;
    for _ in 0..80 {
        let (status, _, _) = fleet
            .send("GET", "/agent/jp1/mesh", Some("guess"), "")
            .await;
        limited |= status == 429;
    }
    assert!(limited);
    assert_eq!(fleet.get("mesh").await.0, 200);
}

#[tokio::test]
async fn posted_reports_survive_restart_and_broken_ones_are_quarantined() {
    let fleet = fleet();
    fleet.modify("abc-123", 1, None).await;
    let again = Fleet {
        app: app(&FleetOptions::new(
            fleet.dir.path(),
            "127.0.0.1:0".parse().unwrap(),
        )),
        dir: fleet.dir,
    };
    assert_eq!(again.served().await[0].1, 1);
    let file = again.kept().pop().unwrap();
    fs::write(&file, "{").unwrap();
    assert_eq!(again.served().await[0].1, 4);
    assert!(file.with_extension("json.broken").exists());
}

#[tokio::test]
async fn the_agents_client_and_outbox_speak_with_it() {
    let fleet = fleet();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = fleet.app.clone();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = |router: &str, token: &str| {
        Client::new(ClientOptions {
            url: url.clone(),
            router: router.into(),
            token: Secret::new(token.into()).into(),
            dialect: Dialect::Reference,
            request_timeout: Duration::from_secs(5),
            max_retries: 0,
            retry_initial_delay: Duration::from_millis(1),
        })
        .unwrap()
    };
    let jp1 = client("jp1", "s3cret");
    assert_eq!(jp1.fetch_sessions().await.unwrap().items.len(), 2);
    assert_eq!(jp1.fetch_config().await.unwrap().name, "jp1");
    assert_eq!(jp1.fetch_mesh().await.unwrap().items.len(), 1);
    assert!(
        jp1.fetch_policy()
            .await
            .unwrap()
            .spec
            .prefixes
            .ipv4
            .is_some()
    );
    assert!(jp1.list_names().is_empty(), "nothing is written yet");
    for list in [Call::Config, Call::Mesh, Call::BirdConfig, Call::Sessions] {
        jp1.list_written(list);
    }
    let heartbeat = Heartbeat {
        version: "1".into(),
        uptime: 1,
        mesh_public_key: None,
        drained: None,
        held: None,
        lists: jp1
            .list_names()
            .into_iter()
            .map(|(call, name)| (endpoint(call).to_owned(), name))
            .collect(),
    };
    assert_eq!(heartbeat.lists.len(), 4);
    jp1.post_heartbeat(&heartbeat).await.unwrap();
    let served = fs::read_to_string(fleet.path("reported/served.json")).unwrap();
    let served: Value = serde_json::from_str(&served).unwrap();
    for list in served["body"].as_array().unwrap() {
        assert!(list["written"].is_string(), "{served}");
    }
    jp1.post_report(&Report::default()).await.unwrap();
    let outbox = std::sync::Arc::new(Outbox::open(&fleet.dir.path().join("outbox")).unwrap());
    for (uid, status) in [
        ("abc-123", WireStatus::Active),
        ("old", WireStatus::Disabled),
    ] {
        outbox.put(&uid.parse().unwrap(), status, None).unwrap();
    }
    assert_eq!(outbox.deliver_once(&jp1).await.unwrap().delivered, 2);
    assert_eq!(fleet.served().await, [("abc-123".to_owned(), 1)]);
    let wrong = client("jp1", "x").fetch_sessions().await.unwrap_err();
    assert!(matches!(wrong.failure, Failure::Auth { .. }));
    let unknown = client("nope", "s3cret").fetch_sessions().await.unwrap_err();
    assert!(matches!(
        unknown.failure,
        Failure::NotFound { code: Some(_), .. }
    ));
}

#[tokio::test]
async fn serve_stops_on_shutdown_and_rejects_missing_directory() {
    let nowhere = FleetOptions::new(
        Path::new("/nonexistent/fleet"),
        "127.0.0.1:0".parse().unwrap(),
    );
    assert!(matches!(
        serve(nowhere, async {}).await,
        Err(FleetError::NoDirectory(_))
    ));
    let fleet = fleet();
    let options = FleetOptions::new(fleet.dir.path(), "127.0.0.1:0".parse().unwrap());
    serve(options, async {}).await.unwrap();
}

#[test]
fn unreadable_fleet_file_of_any_kind_is_named_without_waiting() {
    for file in [
        "router.yaml",
        "sessions.yaml",
        "mesh.yaml",
        "bird-config.yaml",
    ] {
        for (spoil, why) in UNREADABLE {
            let fleet = fleet();
            fs::remove_file(fleet.path(file)).unwrap();
            spoil(&fleet.path(file));
            let said = format!("{:?}", validate(fleet.dir.path()));
            assert!(said.contains(file) && said.contains(why), "{file}: {said}");
        }
    }
}

#[tokio::test]
async fn pipe_or_huge_fleet_file_fails_at_once() {
    let fleet = fleet();
    for file in ["sessions.yaml", "mesh.yaml", "bird-config.yaml"] {
        fs::remove_file(fleet.path(file)).unwrap();
    }
    let made = std::process::Command::new("mkfifo")
        .arg(fleet.path("sessions.yaml"))
        .status();
    assert!(made.unwrap().success());
    fs::create_dir(fleet.path("mesh.yaml")).unwrap();
    let huge = fs::File::create(fleet.path("bird-config.yaml")).unwrap();
    huge.set_len(3 << 30).unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(60);
    huge.set_modified(old).unwrap();
    for (call, words) in [
        ("sessions", "sessions.yaml: is a pipe"),
        ("mesh", "mesh.yaml: is a directory"),
        ("bird-config", "bird-config.yaml: is 3221225472 bytes long"),
    ] {
        let error = is_error(&fleet.get(call).await, 500, "INTERNAL");
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn edit_is_told_to_a_waiting_router() {
    let (fleet, mut watcher) = fleet().watched();
    watcher.look().await;
    let (_, headers, _) = fleet
        .send("GET", "/agent/jp1/sessions", Some("s3cret"), "")
        .await;
    assert_eq!(headers["moenet-long-poll"], "60");
    let (_, known) = fleet.get("revision").await;
    let revision = known["revision"].as_str().unwrap();
    let path = format!("revision?wait=60&revision={revision}");
    // The router's own post is no news to it.
    let post = async {
        assert_eq!(fleet.modify("abc-123", 1, None).await, 200);
        watcher.look().await;
    };
    let mut wait = std::pin::pin!(fleet.get(&path));
    tokio::select! {
        answer = &mut wait => panic!("nothing changed: {answer:?}"),
        () = post => {}
    }
    fleet.edit("sessions.yaml", "status: 5", "status: 0");
    let ((status, changed), ()) = tokio::join!(wait, watcher.look());
    assert_eq!(status, 200);
    assert_ne!(changed, known);
    assert!(fleet.served().await.contains(&("old".to_owned(), 0)));
    assert_eq!(fleet.get("revision?wait=long").await.0, 400);
    assert_eq!(fleet.post("revision", "{}").await.0, 405);
}

#[tokio::test]
async fn answer_is_compressed_for_who_accepts_it() {
    let fleet = fleet();
    let answer = async |tag: &str| {
        let request = Request::builder().uri("/agent/jp1/sessions");
        let request = request.header("authorization", "Bearer s3cret");
        let request = request.header("if-none-match", tag);
        let request = request.header("accept-encoding", "gzip");
        let request = request.body(Body::empty()).unwrap();
        fleet.app.clone().oneshot(request).await.unwrap()
    };
    let first = answer("x").await;
    assert_eq!(first.headers()["content-encoding"], "gzip");
    let tag = first.headers()["etag"].to_str().unwrap();
    assert_eq!(answer(tag).await.status(), 304);
    let body = to_bytes(first.into_body(), 1 << 20).await.unwrap();
    assert!(body.starts_with(&[0x1f, 0x8b]));
}

#[tokio::test]
async fn unchanged_list_is_not_sent_again() {
    let fleet = fleet();
    let request = |tag: &str| {
        let request = Request::builder().uri("/agent/jp1/sessions");
        let request = request.header("authorization", "Bearer s3cret");
        let request = request.header("if-none-match", tag.to_owned());
        fleet
            .app
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
    };
    let first = request("\"another\"").await.unwrap();
    assert_eq!(first.status(), 200);
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    let strong = tag.trim_start_matches("W/").to_owned();
    for known in [tag.clone(), strong, format!("\"x\", {tag}")] {
        let again = request(&known).await.unwrap();
        assert_eq!(
            (
                again.status().as_u16(),
                again.headers()["etag"].to_str().unwrap()
            ),
            (304, &*tag)
        );
        assert!(to_bytes(again.into_body(), 1).await.unwrap().is_empty());
    }
    fleet.edit("sessions.yaml", "status: 4", "status: 0");
    assert_eq!(request(&tag).await.unwrap().status(), 200);
}
