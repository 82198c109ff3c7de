//! The embedded Control Plane: every endpoint, every error, and what follows a report.

mod admin;
mod folders;
mod git;
mod metrics;
mod network;
mod overview;
mod owners;
mod plan;
mod postgres;
mod reported;
mod rollout;
mod server;
mod tls;
mod transfer;
mod verbs;

use std::fs;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use moenet_agent::control_plane::{Client, ClientOptions, Failure, Outbox};
use moenet_agent::fleet::{FleetError, FleetOptions, RateLimit, Watcher, serve, validate, watched};
use moenet_agent::model::Secret;
use moenet_agent::wire::{Dialect, Heartbeat, Report, WireStatus};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::openapi::CONTROL_PLANE;
use crate::support::unreadable::UNREADABLE;

const ROUTER: &str = "\
token: s3cret
node: {id: 1, name: jp1, region: ap-northeast, asn: 4242420998, loopbackIpv4: 172.23.105.177}
";

const SESSIONS: &str = "\
sessions:
  - uuid: abc-123
    asn: 4242421080
    status: 4            # QUEUED_FOR_SETUP
    ipv6LinkLocal: fe80::2
    endpoint: example.com:51820
    credential: {publicKey: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=}
  - {uuid: old, asn: 4242421081, status: 5}
";

const BIRD: &str = "\
node: {id: 1, name: jp1, type: edge, bandwidth: 1G, regionCommunity: DN42_REGION_AS_E}
policy: {dn42As: 4242420998, dn42Ipv4Prefix: 172.23.105.176/28, ebgpImportLimit: 10000}
ibgpPeers: []
";

fn app(options: &FleetOptions) -> Router {
    watched(options).0
}

struct Fleet {
    dir: tempfile::TempDir,
    app: Router,
}

fn fleet() -> Fleet {
    fleet_with(RateLimit::default())
}

fn fleet_with(rate: RateLimit) -> Fleet {
    let dir = tempfile::tempdir().unwrap();
    let router = dir.path().join("jp1");
    fs::create_dir(&router).unwrap();
    for (file, text) in [
        ("router.yaml", ROUTER),
        ("sessions.yaml", SESSIONS),
        (
            "mesh.yaml",
            "peers: [{nodeId: 2, name: hk1, publicKey: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=}]\n",
        ),
        ("bird-config.yaml", BIRD),
    ] {
        fs::write(router.join(file), text).unwrap();
    }
    let options = FleetOptions {
        rate,
        ..FleetOptions::new(dir.path(), "127.0.0.1:0".parse().unwrap())
    };
    Fleet {
        app: app(&options),
        dir,
    }
}

impl Fleet {
    /// The same fleet under a server with its watcher.
    fn watched(self) -> (Self, Watcher) {
        let listen = "127.0.0.1:0".parse().unwrap();
        let (app, watcher) = watched(&FleetOptions::new(self.dir.path(), listen));
        (Self { app, ..self }, watcher)
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        self.dir.path().join("jp1").join(file)
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert!(text.contains(from));
        fs::write(self.path(file), text.replace(from, to)).unwrap();
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> (u16, HeaderMap, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self
            .app
            .clone()
            .oneshot(request)
            .await
            .unwrap()
            .into_parts();
        let body = to_bytes(body, 1 << 24).await.unwrap();
        let (status, text) = (parts.status.as_u16(), str::from_utf8(&body).unwrap());
        // Files that break a rule are served as they are.
        if (method, status) != ("GET", 200)
            || validate(self.dir.path()).unwrap().problems.is_empty()
        {
            CONTROL_PLANE.check(method, path, status, &parts.headers, text);
        }
        (status, parts.headers, serde_json::from_str(text).unwrap())
    }

    async fn get(&self, endpoint: &str) -> (u16, Value) {
        let (status, _, body) = self
            .send("GET", &format!("/agent/jp1/{endpoint}"), Some("s3cret"), "")
            .await;
        (status, body)
    }

    async fn post(&self, endpoint: &str, body: &str) -> (u16, Value) {
        let (status, _, body) = self
            .send(
                "POST",
                &format!("/agent/jp1/{endpoint}"),
                Some("s3cret"),
                body,
            )
            .await;
        (status, body)
    }

    async fn modify(&self, uuid: &str, status: u8, error: Option<&str>) -> u16 {
        self.post(
            "modify",
            &json!({"uuid": uuid, "status": status, "error": error}).to_string(),
        )
        .await
        .0
    }

    /// The files with the newest status a session.
    fn kept(&self) -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(self.path("reported/sessions")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// The statuses that are served, by uuid.
    async fn served(&self) -> Vec<(String, u64)> {
        let (status, body) = self.get("sessions").await;
        assert_eq!(status, 200, "{body}");
        let item = |s: &Value| {
            (
                s["uuid"].as_str().unwrap().to_owned(),
                s["status"].as_u64().unwrap(),
            )
        };
        body["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .map(item)
            .collect()
    }
}

fn is_error(answer: &(u16, Value), status: u16, code: &str) -> String {
    assert_eq!(
        (answer.0, answer.1["code"].as_str()),
        (status, Some(code)),
        "{answer:?}"
    );
    answer.1["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_list_is_served_and_decodes_in_the_dialect() {
    let fleet = fleet();
    let bytes = |value: Value| value.to_string().into_bytes();
    let sessions = Dialect::Reference
        .decode_sessions(&bytes(fleet.get("sessions").await.1))
        .unwrap();
    assert_eq!(
        (sessions.items.len(), sessions.complete),
        (2, true),
        "{:?}",
        sessions.rejected
    );
    let mesh = Dialect::Reference
        .decode_mesh(&bytes(fleet.get("mesh").await.1))
        .unwrap();
    assert_eq!(mesh.items[0].name.as_str(), "hk1");
    let node = Dialect::Reference
        .decode_config(&bytes(fleet.get("config").await.1))
        .unwrap();
    assert_eq!(node.spec.asn.get(), 4242420998);
    let policy = Dialect::Reference
        .decode_policy(&bytes(fleet.get("bird-config").await.1))
        .unwrap();
    assert_eq!(policy.config_hash.unwrap().len(), 64);
    assert!(policy.ibgp.unwrap().items.is_empty());
}

#[tokio::test]
async fn edits_are_served_at_the_next_request() {
    let fleet = fleet();
    let before = fleet.get("bird-config").await.1["configHash"].clone();
    assert_eq!(fleet.get("bird-config").await.1["configHash"], before);
    fleet.edit("bird-config.yaml", "10000", "9000");
    assert_ne!(fleet.get("bird-config").await.1["configHash"], before);
    fleet.edit("sessions.yaml", "status: 4", "status: 0");
    assert_eq!(fleet.served().await[0], ("abc-123".into(), 0));
    fs::write(fleet.path("sessions.yaml"), "sessions: []\n").unwrap();
    assert!(fleet.served().await.is_empty());
}

#[tokio::test]
async fn half_of_an_edit_is_served_to_nobody() {
    let fleet = fleet();
    let path = fleet.path("sessions.yaml");
    let (first, rest) = SESSIONS.split_at(SESSIONS.find("  - {uuid: old").unwrap());
    // As `cp` and editors write: into the file itself, here in a dozen steps. Each step parses.
    fs::write(&path, first).unwrap();
    let writer = std::thread::spawn(move || {
        for text in ["  # more\n"; 10].into_iter().chain([rest]) {
            std::thread::sleep(Duration::from_millis(30));
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        }
    });
    assert_eq!(
        fleet.served().await,
        [("abc-123".to_owned(), 4), ("old".to_owned(), 5)]
    );
    writer.join().unwrap();
    // Nor is its end waited for without end.
    let path = fleet.path("sessions.yaml");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            fs::write(&path, SESSIONS).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let begun = std::time::Instant::now();
    let (status, body) = fleet.get("sessions").await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    // A writer that the machine holds up looks like one that is done.
    let whole = status == 200 && body["sessions"].as_array().unwrap().len() == 2;
    assert!(whole || status == 500, "{status} {body}");
}

#[tokio::test(start_paused = true)]
async fn broken_router_file_is_read_at_a_bounded_rate() {
    let fleet = fleet();
    fs::write(fleet.path("router.yaml"), "token: [\n").unwrap();
    let mut codes = Vec::new();
    for _ in 0..200 {
        codes.push(
            fleet
                .send("GET", "/agent/jp1/sessions", Some("x"), "")
                .await
                .0,
        );
    }
    let errors = codes.iter().filter(|code| **code == 500).count();
    assert_eq!(errors, 50, "the burst of all strangers");
    assert!(
        codes.iter().all(|code| [500, 429].contains(code)),
        "{codes:?}"
    );
    fs::write(fleet.path("router.yaml"), ROUTER).unwrap();
    let (code, ..) = fleet
        .send("GET", "/agent/jp1/config", Some("s3cret"), "")
        .await;
    assert_eq!(
        code, 200,
        "the router is no stranger once its file is valid"
    );
}

#[tokio::test]
async fn a_bad_item_is_served_in_its_last_valid_version() {
    let fleet = fleet();
    let good = fleet.get("sessions").await.1;
    for (from, to) in [
        ("asn: 4242421080", "asn: 0"),
        ("status: 4", "status: 11"),
        ("endpoint:", "endpont:"),
        ("ipv6LinkLocal: fe80::2", "ipv6LinkLocal: 2"),
        ("uuid: old", "uuid: abc-123"),
    ] {
        fleet.edit("sessions.yaml", from, to);
        let served = fleet.get("sessions").await.1;
        assert_eq!(served["sessions"][0], good["sessions"][0], "{to}");
        assert_eq!(
            served["sessions"].as_array().unwrap().len(),
            if to == "uuid: abc-123" { 1 } else { 2 },
            "{to}"
        );
        fleet.edit("sessions.yaml", to, from);
        if to == "uuid: abc-123" {
            break;
        }
    }
    fs::write(fleet.path("sessions.yaml"), SESSIONS).unwrap();
    assert_eq!(fleet.get("sessions").await.1, good);
    let mesh = fleet.get("mesh").await.1;
    fleet.edit("mesh.yaml", "publicKey: xTIB", "publicKey: TIB");
    assert_eq!(fleet.get("mesh").await.1, mesh);
    let policy = fleet.get("bird-config").await.1;
    fleet.edit("bird-config.yaml", "172.23.105.176/28", "172.23.105.176");
    assert_eq!(fleet.get("bird-config").await.1, policy);
}

#[tokio::test]
async fn the_last_valid_version_survives_a_restart() {
    let fleet = fleet();
    let good = fleet.get("sessions").await.1;
    fleet.edit("sessions.yaml", "asn: 4242421080", "asn: 4294967296");
    let again = Fleet {
        app: app(&FleetOptions::new(
            fleet.dir.path(),
            "127.0.0.1:0".parse().unwrap(),
        )),
        dir: fleet.dir,
    };
    assert_eq!(again.get("sessions").await.1, good);
}

#[tokio::test]
async fn never_valid_item_is_served_as_written() {
    let fleet = fleet();
    fleet.edit("sessions.yaml", "status: 4", "status: 11");
    assert_eq!(fleet.served().await[0], ("abc-123".into(), 11));
}

#[test]
fn validate_names_each_error_with_its_place() {
    let fleet = fleet();
    assert_eq!(validate(fleet.dir.path()).unwrap().problems, []);
    fleet.edit(
        "sessions.yaml",
        "    status: 4 ",
        "    mtuu: 1400\n    status: 11 ",
    );
    fleet.edit("mesh.yaml", "nodeId: 2", "nodeId: 0");
    fs::remove_file(fleet.path("bird-config.yaml")).unwrap();
    fs::create_dir(fleet.dir.path().join("hk1")).unwrap();
    fs::write(fleet.dir.path().join("hk1/router.yaml"), "tokn: x\n").unwrap();
    let found = validate(fleet.dir.path()).unwrap();
    assert_eq!(found.routers, 2);
    let texts: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
    let has = |start: &str| {
        assert!(
            texts.iter().any(|text| text.starts_with(start)),
            "no {start} in {texts:#?}"
        );
    };
    has("jp1/sessions.yaml:5:13: sessions[abc-123].status: 11 is unknown");
    has("jp1/mesh.yaml:1:18: peers[hk1].nodeId: ");
    has("jp1/bird-config.yaml: missing; ");
    has("hk1/router.yaml:1:1: tokn: unknown field `tokn`, did you mean `token`?");
    has("hk1/sessions.yaml: missing; ");
}

#[test]
fn impossible_as_numbers_are_refused_case_own_asn_as_peer() {
    let fleet = fleet();
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/own-asn-as-peer");
    fs::copy(case.join("sessions.json"), fleet.path("sessions.yaml")).unwrap();
    let found = validate(fleet.dir.path()).unwrap().problems;
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 5, "{texts:#?}");
    assert!(
        texts[0].contains("internal neighbours come with bird-config"),
        "{texts:#?}"
    );
    let named = ["zero", "trans", "last2", "last4"];
    for (name, text) in named.iter().zip(&texts[1..]) {
        let place = format!("sessions[wg_{name}].asn: ");
        assert!(text.contains(&place), "{text}");
    }
}

#[tokio::test]
async fn half_written_files_of_a_killed_server_are_swept() {
    let fleet = fleet();
    fleet.modify("abc-123", 1, None).await;
    let left = ["", "sessions/", "good/"].map(|folder| {
        let folder = fleet.path(&format!("reported/{folder}"));
        fs::create_dir_all(&folder).unwrap();
        folder.join(".moenet-tmp-x1")
    });
    left.iter()
        .for_each(|left| fs::write(left, "half").unwrap());
    let options = FleetOptions::new(fleet.dir.path(), "127.0.0.1:0".parse().unwrap());
    serve(options, async {}).await.unwrap();
    assert!(left.iter().all(|left| !left.exists()));
    assert_eq!(fleet.served().await[0].1, 1);
}

#[tokio::test]
async fn list_of_two_thousand_sessions_is_served_and_updated() {
    let fleet = fleet();
    let session = |n: u32| {
        let asn = 4_242_420_000 + n;
        format!(
            "  - uuid: 00000000-0000-4000-8000-{n:012}\n    asn: {asn}\n    status: 4\n    ipv6LinkLocal: fe80::{n:x}\n    \
             mtu: 1420\n    interface: wg_{asn}\n    endpoint: peer-{n}.example.com:51820\n    description: a peer\n    \
             credential: {{publicKey: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=}}\n"
        )
    };
    let text: String = (0..2000).map(session).collect();
    fs::write(fleet.path("sessions.yaml"), format!("sessions:\n{text}")).unwrap();
    assert!(
        fs::metadata(fleet.path("sessions.yaml")).unwrap().len() > 256 * 1024,
        "no larger than a document"
    );
    assert_eq!(fleet.served().await.len(), 2000);
    for n in [0, 1999] {
        assert_eq!(
            fleet
                .modify(&format!("00000000-0000-4000-8000-{n:012}"), 1, None)
                .await,
            200
        );
    }
    assert_eq!(
        fleet
            .served()
            .await
            .iter()
            .filter(|(_, status)| *status == 1)
            .count(),
        2
    );
    // By now the list is not parsed anew for each request; an edit that keeps its length is seen all the same.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(fleet.served().await.len(), 2000);
    fleet.edit("sessions.yaml", "fe80::7cf", "fe80::aaa");
    assert_eq!(
        fleet.get("sessions").await.1["sessions"][1999]["ipv6LinkLocal"],
        "fe80::aaa"
    );
}

#[tokio::test]
async fn heartbeat_and_report_are_kept_and_shown() {
    let fleet = fleet();
    let ok = (200, json!({"status": "ok"}));
    assert_eq!(
        fleet
            .post(
                "heartbeat",
                r#"{"version":"1.2.0","uptime":3600,"more":1,
                "meshPublicKey":"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="}"#
            )
            .await,
        ok
    );
    assert_eq!(
        fleet
            .post("report", r#"{"sessions":[{"uuid":"abc-123","rtt_ms":25}]}"#)
            .await,
        ok
    );
    fleet.modify("abc-123", 1, None).await;
    let shown = fleet.get("reported").await.1;
    assert_eq!(shown["heartbeat"]["body"]["more"], 1);
    assert_eq!(shown["report"]["body"]["sessions"][0]["rtt_ms"], 25);
    assert_eq!(shown["sessions"]["abc-123"]["status"], 1);
}

#[tokio::test]
async fn bad_item_of_a_report_is_rejected_alone() {
    let fleet = fleet();
    let report = r#"{"sessions":[{"uuid":"a","state":"up"},{"rtt_ms":1},7,{"uuid":"b","state":"idle"}],"more":1}"#;
    let (status, answer) = fleet.post("report", report).await;
    assert_eq!((status, &answer["status"]), (200, &json!("ok")));
    let rejected: Vec<_> = answer["rejected"].as_array().unwrap().iter().collect();
    for (found, told) in rejected.iter().zip([
        "sessions[0].state: unknown variant `up`",
        "sessions[1]: missing field `uuid`",
        "sessions[2]: invalid type",
    ]) {
        assert!(found.as_str().unwrap().starts_with(told), "{found}");
    }
    assert_eq!(rejected.len(), 3);
    let kept = &fleet.get("reported").await.1["report"]["body"];
    let wanted = json!({"sessions": [{"uuid": "b", "state": "idle"}], "more": 1});
    assert_eq!(*kept, wanted);
}

#[tokio::test]
async fn bad_posts_are_bad_requests_that_name_the_field() {
    let fleet = fleet();
    for (endpoint, body, field) in [
        ("heartbeat", "", ""),
        ("heartbeat", "{", ""),
        ("heartbeat", "[]", ""),
        ("heartbeat", r#"{"uptime":1}"#, "version"),
        ("heartbeat", r#"{"version":"1","uptime":"x"}"#, "uptime"),
        (
            "heartbeat",
            r#"{"version":"1","uptime":1,"meshPublicKey":"x"}"#,
            "meshPublicKey",
        ),
        ("report", "{}", "sessions"),
        ("report", r#"{"sessions":{}}"#, "sessions"),
        ("modify", r#"{"status":1}"#, "uuid"),
        ("modify", r#"{"uuid":"abc-123"}"#, "status"),
        ("modify", r#"{"uuid":"abc-123","status":9}"#, "status"),
        ("modify", r#"{"uuid":"abc-123","status":5}"#, "status"),
    ] {
        let text = is_error(&fleet.post(endpoint, body).await, 400, "BAD_REQUEST");
        assert!(text.contains(field), "{text}");
    }
    let large = format!(r#"{{"sessions":[],"x":"{}"}}"#, "x".repeat(5 << 20));
    is_error(
        &fleet.post("report", &large).await,
        413,
        "PAYLOAD_TOO_LARGE",
    );
}
