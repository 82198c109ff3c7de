//! Owners of AS numbers: each asks for sessions of its own, which an operator reviews.

use std::thread::sleep;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use moenet_agent::fleet::{FleetOptions, watched};
use serde_json::{Value, json};

use super::admin::ask;
use super::verbs::{Fleet, KEY, network};
use crate::support::openapi::CONTROL_PLANE;

/// A network that lets owners in, and its server.
struct Served {
    fleet: Fleet,
    app: Router,
}

impl Served {
    fn new(owners: &str) -> Self {
        let fleet = network();
        let text = fleet.text("network.yaml") + owners;
        fleet.write("network.yaml", &text);
        let options = FleetOptions::new(fleet.path("."), "127.0.0.1:0".parse().unwrap());
        let app = watched(&options).0;
        Self { fleet, app }
    }

    /// Returns a new token.
    fn token(&self, of: &str) -> String {
        let text = self.fleet.done(&format!("token new {of}"));
        self.settle();
        let token = text.lines().find_map(|line| line.strip_prefix("token: "));
        token.unwrap().to_owned()
    }

    /// Waits until the files are quiet, and the server looks again.
    fn settle(&self) {
        sleep(Duration::from_millis(1600));
    }

    async fn call(&self, token: &str, head: &str, body: &Value) -> (u16, Value) {
        let (status, _, body) = self.call_if(token, head, body, None).await;
        (status, body)
    }

    async fn call_if(
        &self,
        token: &str,
        head: &str,
        body: &Value,
        tag: Option<&str>,
    ) -> (u16, HeaderMap, Value) {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(tag.map(|tag| ("if-match", tag)));
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let (status, headers, text) = ask(&self.app, head, &body, &headers).await;
        let (method, path) = head.split_once(' ').unwrap();
        if status != 204 {
            CONTROL_PLANE.check(method, path, status, &headers, &text);
        }
        (
            status,
            headers,
            serde_json::from_str(&text).unwrap_or_default(),
        )
    }

    fn has(&self, line: &str) -> bool {
        self.fleet.text(FILE).contains(&format!("\n{line}\n"))
    }
}

const OWNER: &str = "--owner 4242421090";
const ALL: &str = "POST /v1/sessions";
const ONE: &str = "/v1/sessions/jp1/as4242421090";
const ONE_ID: &str = "0198c1a4-7f00-7000-8000-000000000001";
const FILE: &str = "sessions/jp1/as4242421090.yaml";

fn spec() -> Value {
    json!({"publicKey": KEY, "ipv6LinkLocal": "fe80::1090", "endpoint": "bob.example.net:21090"})
}

fn wanted() -> Value {
    json!({"router": "jp1", "spec": spec()})
}

#[tokio::test]
async fn every_change_waits_for_review_but_a_description() {
    let served = Served::new("");
    let token = served.token(OWNER);
    let (status, headers, made) = served.call_if(&token, ALL, &wanted(), None).await;
    assert_eq!(
        (status, &made["status"]["status"]),
        (201, &json!(3)),
        "{made}"
    );
    assert_eq!(headers["location"].to_str().unwrap(), ONE);
    assert!(served.has("status: 3") && served.has("asn: 4242421090"));
    served.fleet.assert_valid();
    let (status, twice) = served.call(&token, ALL, &wanted()).await;
    assert!(status == 403 || status == 409, "{twice}");
    served.fleet.done("accept jp1/as4242421090");
    let patch = format!("PATCH {ONE}");
    let change = json!({"spec": {"description": "Bob # in Osaka"}});
    let (status, changed) = served.call(&token, &patch, &change).await;
    assert_eq!(
        (status, &changed["status"]["status"]),
        (200, &json!(4)),
        "{changed}"
    );
    let nothing = json!({"spec": spec()});
    let (_, same) = served.call(&token, &patch, &nothing).await;
    assert_eq!(same["status"]["status"], 4, "{same}");
    let change = json!({"spec": {"endpoint": null, "presharedKey": KEY, "mtu": 1400}});
    let (status, changed) = served.call(&token, &patch, &change).await;
    assert_eq!(
        (status, &changed["status"]["status"]),
        (200, &json!(3)),
        "{changed}"
    );
    assert_eq!(changed["spec"].get("endpoint"), None, "{changed}");
    assert_eq!(changed["spec"]["publicKey"], KEY);
    assert_eq!(
        changed["spec"].get("presharedKey"),
        None,
        "a secret is shown"
    );
    assert!(served.has("status: 3") && served.has("mtu: 1400"));
    served.fleet.assert_valid();
    served.settle();
    let (_, list) = served.call(&token, "GET /v1/sessions", &Value::Null).await;
    assert_eq!(list["sessions"].as_array().unwrap().len(), 1, "{list}");
}

#[tokio::test]
async fn list_shows_each_acknowledged_session_at_once() {
    let served = Served::new("\nowners: {sessions: 8, sessionsPerRouter: 8}\n");
    let token = served.token(OWNER);
    for number in 1..5 {
        let name = format!("as4242421090-{number}");
        let mut wanted = wanted();
        wanted["name"] = json!(name);
        wanted["spec"]["ipv6LinkLocal"] = json!(format!("fe80::{number}"));
        wanted["spec"]["listenPort"] = json!(40000 + number);
        // Before: the server has just looked at the files.
        let (_, before) = served.call(&token, "GET /v1/sessions", &Value::Null).await;
        let (status, made) = served.call(&token, ALL, &wanted).await;
        assert_eq!(status, 201, "{made}");
        let (_, after) = served.call(&token, "GET /v1/sessions", &Value::Null).await;
        let names = |list: &Value| -> Vec<Value> {
            let sessions = list["sessions"].as_array().unwrap().iter();
            sessions.map(|it| it["name"].clone()).collect()
        };
        assert_eq!(names(&before).len(), number - 1, "{before}");
        assert!(names(&after).contains(&json!(name)), "{after}");
    }
}

#[tokio::test]
async fn owner_stays_within_limits_and_its_own_sessions() {
    let served =
        Served::new("\nowners: {sessions: 2, sessionsPerRouter: 2, routers: [jp1, hk1]}\n");
    let (token, other) = (served.token(OWNER), served.token("--owner 4242421091"));
    assert_eq!(served.call(&token, ALL, &wanted()).await.0, 201);
    // Another AS has no part in it, nor in the operator's session of a third.
    for of in [ONE, "/v1/sessions/jp1/alice", "/v1/sessions/moon/alice"] {
        let change = json!({"spec": {"mtu": 1400}});
        for (method, body) in [
            ("GET", Value::Null),
            ("PATCH", change),
            ("DELETE", Value::Null),
        ] {
            let head = format!("{method} {of}");
            let (status, text) = served.call(&other, &head, &body).await;
            assert_eq!(
                (status, &text["code"]),
                (404, &json!("SESSION_NOT_FOUND")),
                "{head}"
            );
        }
    }
    let taken = json!({"router": "jp1", "name": "as4242421091-x", "spec": spec()});
    served
        .fleet
        .write("sessions/jp1/as4242421091-x.yaml", "{}\n");
    let (status, text) = served.call(&other, ALL, &taken).await;
    assert_eq!((status, &text["code"]), (409, &json!("EXISTS")), "{text}");
    std::fs::remove_file(served.fleet.path("sessions/jp1/as4242421091-x.yaml")).unwrap();
    // A name that an operator could take for another session.
    for name in [
        "alice",
        "wg_4242421080",
        ONE_ID,
        "as4242421090",
        "as42424210911",
    ] {
        let body = json!({"router": "hk1", "name": name, "spec": spec()});
        let (status, text) = served.call(&other, ALL, &body).await;
        assert_eq!(
            (status, &text["code"]),
            (422, &json!("INVALID_SESSION")),
            "{name}"
        );
    }
    for router in ["de1", "reported"] {
        let body = json!({"router": router, "spec": spec()});
        let (status, text) = served.call(&token, ALL, &body).await;
        assert!(
            status == 422 && text["error"].as_str().unwrap().contains("hk1, jp1"),
            "{text}"
        );
    }
    let second = json!({"router": "hk1", "spec": spec()});
    assert_eq!(served.call(&token, ALL, &second).await.0, 201);
    let third = json!({"router": "hk1", "name": "as4242421090-third", "spec": spec()});
    let (status, text) = served.call(&token, ALL, &third).await;
    assert_eq!(
        (status, &text["code"]),
        (403, &json!("LIMIT_REACHED")),
        "{text}"
    );
    served.settle();
    // An owner's token opens nothing else, and no other token opens this.
    assert_eq!(
        served
            .call(&token, "GET /agent/jp1/config", &Value::Null)
            .await
            .0,
        401
    );
    let router = served.token("hk1");
    let mut last = 0;
    for token in [router.as_str()].into_iter().chain(["guess"; 12]) {
        last = served.call(token, "GET /v1/sessions", &Value::Null).await.0;
        assert!(last == 401 || last == 429, "{last}");
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn owners_changes_keep_the_fleet_ready_and_tokens_checked() {
    let served = Served::new("");
    let token = served.token(OWNER);
    assert_eq!(served.call(&token, ALL, &wanted()).await.0, 201);
    let patch = format!("PATCH {ONE}");
    for mtu in [1400, 1300, 1380] {
        let change = json!({"spec": {"mtu": mtu}});
        assert_eq!(served.call(&token, &patch, &change).await.0, 200);
        // The server looks again.
        sleep(Duration::from_millis(600));
        assert_eq!(ask(&served.app, "GET /readyz", "", &[]).await.0, 200);
    }
    // The file of the owner is young, so that the server still lets the old token in.
    served.fleet.done(&format!("token new {OWNER}"));
    for (head, body) in [
        (patch.as_str(), json!({"spec": {"mtu": 1420}})),
        (&format!("DELETE {ONE}"), Value::Null),
        (ALL, wanted()),
    ] {
        assert_eq!(served.call(&token, head, &body).await.0, 401, "{head}");
    }
    assert!(served.has("mtu: 1380"));
}

#[tokio::test]
async fn session_that_a_router_would_refuse_is_not_written() {
    let served = Served::new("");
    let token = served.token(OWNER);
    let bad = [
        (json!({"publicKey": "short"}), "publicKey"),
        (json!({"publicKey": null}), "credential"),
        (json!({"ipv6LinkLocal": null}), ""),
        (json!({"status": 4}), "status"),
        (json!({"asn": 4242421080u32}), "asn"),
        (json!({"uuid": "x"}), "uuid"),
        (json!({"interface": "lo"}), "interface"),
        (json!({"policy": "transit"}), "policy"),
        (json!({"listenPort": 0}), "listenPort"),
        (json!({"listenPort": "21090"}), "listenPort"),
        (json!({"listenPort": 23457}), "tunnel"),
        (json!({"mtu": 60}), "mtu"),
        (json!({"endpoint": "127.0.0.1:1"}), "endpoint"),
        (json!({"endpoint": "[fd00::1]:1"}), "endpoint"),
        (json!({"endpoint": "[::ffff:10.0.0.1]:1"}), "endpoint"),
        (json!({"endpoint": "[2002:7f00:1::1]:1"}), "endpoint"),
        (json!({"endpoint": "192.0.2.1:1"}), "endpoint"),
        (json!({"endpoint": "localhost:1"}), "endpoint"),
        (json!({"endpoint": "router.internal:1"}), "endpoint"),
        (json!({"endpoint": "a b:1"}), "endpoint"),
        (json!({"extensions": ["rm -rf"]}), "extensions"),
        (json!({"password": 5}), "password"),
        (json!({"presharedKey": "x"}), "presharedKey"),
    ];
    for (field, named) in bad {
        let mut body = wanted();
        for (name, value) in field.as_object().unwrap() {
            body["spec"][name] = value.clone();
        }
        let (status, text) = served.call(&token, ALL, &body).await;
        let said = text["error"].as_str().unwrap();
        assert!(
            status == 422 && said.contains(named),
            "{field}: {status} {text}"
        );
        assert!(
            !said.contains("sessions/") && !said.contains("as4242421090"),
            "{said}"
        );
        assert!(!served.fleet.path(FILE).exists(), "{field}");
    }
    served.settle();
    for body in [
        json!({"router": "jp1", "name": "../x", "spec": spec()}),
        json!({"router": "../jp1", "spec": spec()}),
        json!({"router": "jp1", "spec": spec(), "status": 4}),
        json!([]),
    ] {
        assert_eq!(served.call(&token, ALL, &body).await.0, 400, "{body}");
    }
    // A text stays a text.
    let mut body = wanted();
    body["spec"]["description"] = json!("a\"\nstatus: 4\n# '");
    let (status, made) = served.call(&token, ALL, &body).await;
    assert!(status == 201 || status == 422, "{made}");
    assert!(!served.fleet.path(FILE).exists() || served.has("status: 3"));
    served.fleet.assert_valid();
}

#[tokio::test]
async fn change_of_an_unknown_version_is_refused() {
    let served = Served::new("");
    let token = served.token(OWNER);
    let (_, headers, _) = served.call_if(&token, ALL, &wanted(), None).await;
    let tag = headers["etag"].to_str().unwrap().to_owned();
    let patch = format!("PATCH {ONE}");
    let change = |mtu: u16| json!({"spec": {"mtu": mtu}});
    let changed = served
        .call_if(&token, &patch, &change(1400), Some(&tag))
        .await;
    assert_eq!(changed.0, 200, "{}", changed.2);
    for head in [patch.as_str(), &format!("DELETE {ONE}")] {
        let (status, _, text) = served
            .call_if(&token, head, &change(1300), Some(&tag))
            .await;
        assert_eq!(
            (status, &text["code"]),
            (412, &json!("CHANGED_MEANWHILE")),
            "{text}"
        );
    }
    assert!(served.has("mtu: 1400") && served.has("status: 3"));
    let tag = changed.1["etag"].to_str().unwrap().to_owned();
    let (status, ..) = served
        .call_if(&token, &patch, &change(1300), Some(&tag))
        .await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn deleted_session_goes_when_its_router_confirms() {
    let served = Served::new("");
    let (token, router) = (served.token(OWNER), served.token("jp1"));
    let (_, made) = served.call(&token, ALL, &wanted()).await;
    served.fleet.done("accept jp1/as4242421090");
    let delete = format!("DELETE {ONE}");
    for _ in 0..2 {
        let (status, marked) = served.call(&token, &delete, &Value::Null).await;
        assert_eq!(
            (status, &marked["status"]["status"]),
            (202, &json!(5)),
            "{marked}"
        );
    }
    let patch = format!("PATCH {ONE}");
    let change = json!({"spec": {"mtu": 1400}});
    assert_eq!(served.call(&token, &patch, &change).await.0, 409);
    served.settle();
    let gone = json!({"uuid": made["status"]["uuid"], "status": 0});
    let (status, text) = served.call(&router, "POST /agent/jp1/modify", &gone).await;
    assert_eq!(status, 200, "{text}");
    let (_, seen) = served
        .call(&token, &format!("GET {ONE}"), &Value::Null)
        .await;
    assert_eq!(seen["status"]["status"], Value::Null, "{seen}");
    assert_eq!(served.call(&token, &delete, &Value::Null).await.0, 204);
    assert!(!served.fleet.path(FILE).exists());
    assert_eq!(served.call(&token, &delete, &Value::Null).await.0, 404);
}

#[tokio::test]
async fn closed_or_broken_fleets_take_no_session() {
    let served = Served::new("");
    let valid = served.fleet.text("network.yaml");
    let call = async |token: &str| served.call(token, ALL, &wanted()).await.0;
    served.settle();
    assert_eq!(call("x").await, 401);
    served.fleet.write("owners/4242421090.yaml", "{}\n");
    let (token, old) = (served.token(OWNER), served.token(OWNER));
    assert_eq!(call(&token).await, 401, "a replaced token");
    for wrong in ["asnn: 1\n", "owners: 4\n", "]"] {
        let text = valid.clone() + wrong;
        served.fleet.write("network.yaml", &text);
        served.settle();
        assert_eq!(call(&old).await, 503, "{wrong}");
    }
    served.fleet.write("network.yaml", &valid);
    // The error of an owner's file costs this owner its access, and no router anything.
    served
        .fleet
        .write("owners/4242421090.yaml", "tokenHash: []\n");
    served.fleet.write("owners/AS5.yaml", "{}\n");
    served.fleet.refused("validate .", "tokenHashes");
    served
        .fleet
        .refused("validate .", "owners/AS5.yaml: its name is no AS number");
    served.settle();
    assert_eq!(call(&old).await, 401);
    let router = served.token("jp1");
    assert_eq!(
        served
            .call(&router, "GET /agent/jp1/config", &Value::Null)
            .await
            .0,
        200
    );
}
