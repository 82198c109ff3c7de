//! A fleet described as a network.

use std::fs;
use std::path::Path;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use moenet_agent::fleet::network::TokenHash;
use moenet_agent::fleet::{FleetOptions, Watcher, validate, watched};
use moenet_agent::model::Secret;
use serde_json::{Value, json};
use tower::ServiceExt;

const NETWORK: &str = "\
asn: 4242420998
prefixes: {ipv4: 172.23.105.176/28, ipv6: fd48:4da8:420::/48}
policy: {ebgpImportLimit: 9000}
";

const SESSION: &str = "\
uuid: abc-123
asn: 4242421080
status: 4
ipv6LinkLocal: fe80::2
credential: {publicKey: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=}
";

pub(super) fn write(dir: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn network() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let routers = [
        ("network.yaml", NETWORK),
        (
            "routers/jp1.yaml",
            "{id: 1, address: jp1.example.net, token: one}\n",
        ),
        ("routers/hk1.yaml", "{id: 2, token: other}\n"),
        ("sessions/jp1/alice.yaml", SESSION),
    ];
    write(dir.path(), &routers);
    dir
}

fn found(dir: &Path) -> Vec<String> {
    let findings = validate(dir).unwrap();
    findings.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn valid_network_beside_a_folder_has_no_problem() {
    let dir = network();
    assert_eq!(found(dir.path()), Vec::<String>::new());
    let folder = [
        (
            "de1/router.yaml",
            "token: x\nnode: {id: 9, name: de1, asn: 4242420998}\n",
        ),
        ("de1/sessions.yaml", "sessions: []\n"),
        ("de1/mesh.yaml", "peers: []\n"),
        ("de1/bird-config.yaml", "policy: {}\n"),
        ("notes/README.md", "no router\n"),
    ];
    write(dir.path(), &folder);
    let findings = validate(dir.path()).unwrap();
    assert_eq!((findings.routers, findings.problems), (3, vec![]));
}

#[test]
fn each_error_of_a_network_has_its_place() {
    for (path, text, wanted) in [
        (
            "network.yaml",
            "asn: 1\nprefixes: {ipv4: x}\n",
            "network.yaml:2:18: prefixes.ipv4:",
        ),
        (
            "network.yaml",
            "asn: 1\nprefixes: {ipv6: 'fd00::/48'}\npolicy: {ebgpImportLimit: x}\n",
            "network.yaml:3:27: policy.ebgpImportLimit:",
        ),
        (
            "network.yaml",
            "asn: 1\nprefixes: {ipv6: 'fd00::/48'}\npolicy: {ebgpImportLimits: 1}\n",
            "network.yaml:3:28: policy.ebgpImportLimits: unknown field `ebgpImportLimits`, did you mean `ebgpImportLimit`?",
        ),
        (
            "routers/hk1.yaml",
            "id: 2\ntoken: x\npolicy: {asPathMaxLen: x}\n",
            "routers/hk1.yaml:3:24: policy.asPathMaxLen:",
        ),
        (
            "routers/hk1.yaml",
            "id: 1\ntoken: x\n",
            "routers/jp1.yaml:1:6: id: 1 is also that of hk1",
        ),
        ("routers/hk1.yaml", "id: [\n", "routers/hk1.yaml:"),
        (
            "sessions/jp1/bob.yaml",
            SESSION,
            "sessions/jp1/bob.yaml:1:7: uuid:",
        ),
        (
            "sessions/hk1/bob.yaml",
            SESSION,
            "sessions/jp1/alice.yaml:1:7: uuid: also the identity of sessions/hk1/bob.yaml",
        ),
        (
            "sessions/jp1/alice.yaml",
            "- x\n",
            "sessions/jp1/alice.yaml",
        ),
        (
            "sessions/jp1/alice.yaml",
            "uuid: a\nasn: 0\nstatus: 1\n",
            "sessions/jp1/alice.yaml:2:6: asn: invalid AS number 0",
        ),
        (
            "sessions/jp1/port.yaml",
            "uuid: p\nasn: 4242423457\nstatus: 1\nipv6LinkLocal: fe80::3\n\
            credential: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n",
            "listenPort: listen port 23457 is that of the tunnel to hk1",
        ),
        (
            "sessions/us1/alice.yaml",
            SESSION,
            "routers/us1.yaml does not exist",
        ),
    ] {
        let dir = network();
        write(dir.path(), &[(path, text)]);
        let found = found(dir.path());
        assert!(
            found.iter().any(|line| line.contains(wanted)),
            "{path} {text}: {found:#?}"
        );
    }
}

#[test]
fn token_in_the_wrong_place_is_not_printed() {
    let dir = network();
    let text = "id: 1\nregion: r\ntokenHashes: hunter2\n";
    write(dir.path(), &[("routers/jp1.yaml", text)]);
    let found = found(dir.path()).join("\n");
    assert!(found.contains("routers/jp1.yaml:3:"), "{found}");
    assert!(!found.contains("hunter2"), "{found}");
}

#[test]
fn unreadable_part_of_a_network_is_an_error() {
    let dir = network();
    fs::remove_dir_all(dir.path().join("routers")).unwrap();
    fs::write(dir.path().join("routers"), "no folder").unwrap();
    let error = validate(dir.path()).unwrap_err().to_string();
    assert!(error.contains("read routers of the fleet"), "{error}");
    let dir = network();
    fs::create_dir(dir.path().join("routers/x.yaml")).unwrap();
    std::os::unix::fs::symlink("gone", dir.path().join("routers/y.yaml")).unwrap();
    fs::write(dir.path().join("routers/z.yml"), "{id: 3}").unwrap();
    let found = found(dir.path());
    for wanted in [
        "routers/x.yaml: is a directory",
        "routers/y.yaml: is a symbolic link",
        "routers/z.yml: not routers/<router>.yaml",
    ] {
        assert!(
            found.iter().any(|line| line.contains(wanted)),
            "{wanted}: {found:#?}"
        );
    }
}

#[tokio::test]
async fn no_reader_follows_a_link_out_of_the_fleet() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let secret = "do-not-show: [me\n";
    for file in ["x.yaml", "router.yaml", "sessions.yaml"] {
        fs::write(outside.path().join(file), secret).unwrap();
    }
    for (link, target) in [
        ("network.yaml", "x.yaml"),
        ("routers/jp1.yaml", "x.yaml"),
        ("routers", ""),
        ("sessions/jp1/a.yaml", "x.yaml"),
        ("sessions/jp1", ""),
        ("owners/4242421090.yaml", "x.yaml"),
        ("owners", ""),
        ("lone", ""),
        ("other/router.yaml", "router.yaml"),
        ("other/sessions.yaml", "sessions.yaml"),
    ] {
        let dir = network();
        write(dir.path(), &[("other/mesh.yaml", "peers: []\n")]);
        let path = dir.path().join(link);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        let _ = fs::remove_dir_all(&path);
        symlink(outside.path().join(target), &path).unwrap();
        let found = found(dir.path());
        let wanted = format!("{link}: is a symbolic link");
        assert!(
            found.iter().any(|it| it.contains(&wanted)),
            "{link}: {found:#?}"
        );
        assert!(!format!("{found:?}").contains("do-not-show"), "{found:#?}");
        if !["network.yaml", "sessions/jp1", "lone"].contains(&link) {
            continue;
        }
        quiet();
        let app = served(dir.path());
        let router = if link == "lone" { "lone" } else { "jp1" };
        let (status, body) = ask(&app, "one", &format!("/agent/{router}/sessions"), None).await;
        assert_eq!(status, 500, "{link}: {body}");
        assert!(!body.to_string().contains("do-not-show"), "{body}");
    }
}

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

pub(super) fn watched_at(dir: &Path) -> (Router, Watcher) {
    watched(&FleetOptions::new(dir, "127.0.0.1:0".parse().unwrap()))
}

fn served(dir: &Path) -> Router {
    watched_at(dir).0
}

pub(super) async fn ask(
    app: &Router,
    token: &str,
    path: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let method = if body.is_some() { "POST" } else { "GET" };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .body(body.map_or(Body::empty(), |body| Body::from(body.to_string())))
        .unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn heartbeat(app: &Router, router: &str, token: &str) {
    post_key(app, router, token, KEY).await;
}

async fn post_key(app: &Router, router: &str, token: &str, key: &str) {
    let body = json!({"version": "1", "uptime": 1, "meshPublicKey": key});
    let path = format!("/agent/{router}/heartbeat");
    assert_eq!(ask(app, token, &path, Some(body)).await.0, 200);
}

fn names(answer: &Value, list: &str) -> Vec<String> {
    let items = answer[list]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"));
    items
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Until files count as quiet.
pub(super) fn quiet() {
    std::thread::sleep(std::time::Duration::from_millis(1100));
}

#[tokio::test]
async fn network_is_served_and_no_missing_key_removes_a_peer() {
    let dir = network();
    let hash = TokenHash::of(&Secret::new("other".to_owned()));
    write(
        dir.path(),
        &[(
            "routers/hk1.yaml",
            &format!("{{id: 2, tokenHashes: ['{hash}']}}\n"),
        )],
    );
    let app = served(dir.path());
    assert_eq!(
        ask(&app, "wrong", "/agent/jp1/config", None).await.1["code"],
        "INVALID_TOKEN"
    );
    assert_eq!(
        ask(&app, "one", "/agent/us1/config", None).await.1["code"],
        "ROUTER_NOT_FOUND"
    );
    let (_, config) = ask(&app, "one", "/agent/jp1/config", None).await;
    assert_eq!(config["node"]["loopbackIpv4"], "172.23.105.177");
    let (_, sessions) = ask(&app, "one", "/agent/jp1/sessions", None).await;
    assert_eq!(sessions["sessions"][0]["uuid"], "abc-123");
    // A peer that is not listed would lose its tunnel.
    let (_, mesh) = ask(&app, "one", "/agent/jp1/mesh", None).await;
    assert_eq!(
        (names(&mesh, "peers"), mesh["peers"][0].get("publicKey")),
        (vec!["hk1".into()], None)
    );
    heartbeat(&app, "hk1", "other").await;
    let (_, mesh) = ask(&app, "one", "/agent/jp1/mesh", None).await;
    assert_eq!(
        (names(&mesh, "peers"), &mesh["peers"][0]["publicKey"]),
        (vec!["hk1".into()], &json!(KEY))
    );

    let other = "DM06RLaHzdCGBYhFFvrUXIcyqJG1lZAMlPbWzwr4ajg=";
    post_key(&app, "hk1", "other", other).await;
    let (_, mesh) = ask(&app, "one", "/agent/jp1/mesh", None).await;
    assert_eq!(
        mesh["peers"][0]["publicKey"], other,
        "the router has a new key"
    );
    post_key(&app, "hk1", "other", KEY).await;

    write(dir.path(), &[("routers/de1.yaml", "{id: 3, token: x}\n")]);
    let (status, _) = ask(&app, "x", "/agent/de1/config", None).await;
    assert_eq!(status, 500, "a 404 would wait for an operator");
    quiet();
    assert_eq!(ask(&app, "x", "/agent/de1/config", None).await.0, 200);
    let app = served(dir.path());
    assert_eq!(
        names(&ask(&app, "one", "/agent/jp1/mesh", None).await.1, "peers"),
        ["de1", "hk1"]
    );

    // The key is lost, and the last one is served.
    fs::remove_file(dir.path().join("reported/hk1/heartbeat.json")).unwrap();
    let app = served(dir.path());
    let (_, mesh) = ask(&app, "one", "/agent/jp1/mesh", None).await;
    assert_eq!(mesh["peers"][1]["publicKey"], KEY);
}

#[tokio::test]
async fn missing_file_of_a_router_removes_nothing() {
    let dir = network();
    quiet();
    let app = served(dir.path());
    heartbeat(&app, "hk1", "other").await;
    let before = ask(&app, "one", "/agent/jp1/mesh", None).await;
    assert_eq!(names(&before.1, "peers"), ["hk1"]);
    let file = dir.path().join("routers/hk1.yaml");
    let aside = dir.path().join("routers/hk1.yml");
    fs::rename(&file, &aside).unwrap();
    quiet();
    assert_eq!(ask(&app, "one", "/agent/jp1/mesh", None).await, before);
    fs::remove_file(&aside).unwrap();
    std::os::unix::fs::symlink("gone", &file).unwrap();
    quiet();
    assert_eq!(ask(&app, "one", "/agent/jp1/mesh", None).await, before);
    assert_eq!(ask(&app, "other", "/agent/hk1/config", None).await.0, 200);
}

#[tokio::test]
async fn half_an_edit_of_two_files_is_not_served() {
    let dir = network();
    quiet();
    let app = served(dir.path());
    let before = ask(&app, "one", "/agent/jp1/config", None).await;
    // Two routers exchange their ids, in two writes.
    write(dir.path(), &[("routers/jp1.yaml", "{id: 5, token: one}\n")]);
    std::thread::sleep(std::time::Duration::from_millis(700));
    write(
        dir.path(),
        &[("routers/hk1.yaml", "{id: 1, token: other}\n")],
    );
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(ask(&app, "one", "/agent/jp1/config", None).await, before);
    quiet();
    let (_, after) = ask(&app, "one", "/agent/jp1/config", None).await;
    assert_eq!(after["node"]["id"], 5);
}

#[tokio::test]
async fn bad_session_affects_its_own_list_only() {
    let dir = network();
    let other = SESSION.replace("abc-123", "def-456");
    write(dir.path(), &[("sessions/hk1/bob.yaml", &other)]);
    quiet();
    let app = served(dir.path());
    let before = ask(&app, "one", "/agent/jp1/sessions", None).await;
    assert_eq!(before.0, 200);
    let changed = other.replace("4242421080", "4242421081");
    write(
        dir.path(),
        &[
            ("sessions/jp1/alice.yaml", "uuid: ["),
            ("sessions/hk1/bob.yaml", &changed),
        ],
    );
    quiet();
    assert_eq!(ask(&app, "one", "/agent/jp1/sessions", None).await, before);
    let (_, others) = ask(&app, "other", "/agent/hk1/sessions", None).await;
    assert_eq!(others["sessions"][0]["asn"], 4242421081u32);
    // A server that never read the session cannot leave it out.
    let app = served(dir.path());
    let (status, error) = ask(&app, "one", "/agent/jp1/sessions", None).await;
    assert_eq!(status, 500);
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .contains("sessions/jp1/alice.yaml:1:"),
        "{error}"
    );
    assert_eq!(ask(&app, "other", "/agent/hk1/sessions", None).await.0, 200);
}

/// The same content has the same version as before.
#[tokio::test]
async fn lost_folder_is_no_empty_list_after_an_older_one() {
    let dir = network();
    fs::remove_dir_all(dir.path().join("sessions")).unwrap();
    quiet();
    let app = served(dir.path());
    let sessions = async || ask(&app, "one", "/agent/jp1/sessions", None).await;
    assert_eq!(sessions().await, (200, json!({"sessions": []})));
    write(dir.path(), &[("sessions/jp1/alice.yaml", SESSION)]);
    quiet();
    assert_eq!(sessions().await.1["sessions"][0]["uuid"], "abc-123");
    fs::remove_dir_all(dir.path().join("sessions")).unwrap();
    quiet();
    assert_eq!(sessions().await.0, 500);
}

#[tokio::test]
async fn lost_folder_of_sessions_is_no_empty_list() {
    let dir = network();
    quiet();
    let app = served(dir.path());
    let sessions = async |app: &Router| ask(app, "one", "/agent/jp1/sessions", None).await;
    assert_eq!(sessions(&app).await.0, 200);
    fs::remove_dir_all(dir.path().join("sessions")).unwrap();
    quiet();
    for app in [app, served(dir.path())] {
        let (status, error) = sessions(&app).await;
        assert!(
            status == 500 && error.to_string().contains("allowNoSessions"),
            "{error}"
        );
    }
    write(
        dir.path(),
        &[(
            "routers/jp1.yaml",
            "{id: 1, token: one, allowNoSessions: true}\n",
        )],
    );
    quiet();
    assert_eq!(
        sessions(&served(dir.path())).await.1,
        json!({"sessions": []})
    );
}

#[tokio::test]
async fn broken_description_changes_no_answer() {
    let dir = network();
    quiet();
    let app = served(dir.path());
    heartbeat(&app, "hk1", "other").await;
    let before = ask(&app, "one", "/agent/jp1/mesh", None).await;
    assert_eq!(names(&before.1, "peers"), ["hk1"]);
    for (path, text) in [
        ("routers/hk1.yaml", "id: [\n"),
        ("routers/hk1.yaml", "id: 1\n"),
        ("network.yaml", "asn: 0\n"),
    ] {
        let good = fs::read_to_string(dir.path().join(path)).unwrap();
        write(dir.path(), &[(path, text)]);
        quiet();
        assert_eq!(
            ask(&app, "one", "/agent/jp1/mesh", None).await,
            before,
            "{path} {text}"
        );
        // A server that never saw a valid description answers nothing.
        let fresh = served(dir.path());
        assert_eq!(ask(&fresh, "one", "/agent/jp1/mesh", None).await.0, 500);
        write(dir.path(), &[(path, &good)]);
        quiet();
    }
    fs::remove_file(dir.path().join("network.yaml")).unwrap();
    assert_eq!(
        ask(&app, "one", "/agent/jp1/mesh", None).await,
        before,
        "no network.yaml"
    );
    write(dir.path(), &[("network.yaml", NETWORK)]);
    fs::remove_file(dir.path().join("routers/hk1.yaml")).unwrap();
    quiet();
    assert_eq!(
        names(&ask(&app, "one", "/agent/jp1/mesh", None).await.1, "peers"),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn folder_is_not_served_in_place_of_an_invalid_description() {
    let dir = network();
    let old = [
        (
            "jp1/router.yaml",
            "token: one\nnode: {id: 1, name: jp1, asn: 4242420998}\n",
        ),
        ("jp1/sessions.yaml", "sessions: []\n"),
    ];
    write(dir.path(), &old);
    quiet();
    let fresh = served(dir.path());
    let answer = ask(&fresh, "one", "/agent/jp1/sessions", None).await;
    assert_eq!(answer.0, 500, "{}", answer.1);
    fs::remove_file(dir.path().join("jp1/router.yaml")).unwrap();
    quiet();
    let answer = ask(&fresh, "one", "/agent/jp1/sessions", None).await;
    assert_eq!(answer.1["sessions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn revoked_token_never_returns_beside_another_error() {
    let dir = network();
    quiet();
    let app = served(dir.path());
    assert_eq!(ask(&app, "one", "/agent/jp1/config", None).await.0, 200);
    write(
        dir.path(),
        &[
            ("routers/jp1.yaml", "{id: 1, token: new}\n"),
            ("routers/hk1.yaml", "{id: 1, token: 23}\n"),
        ],
    );
    quiet();
    // Of a file that cannot be read the token may be newer.
    for (text, wrong) in [
        ("{id: 1, token: new}\n", 401),
        ("{id: 1, token: [\n", 500),
        ("{id: 1, token: [new]}\n", 500),
    ] {
        write(dir.path(), &[("routers/jp1.yaml", text)]);
        quiet();
        assert_eq!(
            ask(&app, "new", "/agent/jp1/config", None).await.0,
            200,
            "{text}"
        );
        assert_eq!(
            ask(&app, "one", "/agent/jp1/config", None).await.0,
            wrong,
            "{text}"
        );
        assert_eq!(
            ask(&app, "one", "/agent/hk1/config", None).await.1["code"],
            "INVALID_TOKEN",
            "{text}"
        );
        assert_eq!(
            ask(&app, "23", "/agent/hk1/config", None).await.0,
            200,
            "{text}"
        );
    }
}
