//! A change of a network that reaches its routers in waves, and drains within its budgets.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use moenet_agent::fleet::Watcher;
use serde_json::{Value, json};

use super::network::{ask, quiet, watched_at, write};

const NETWORK: &str = "\
asn: 4242420998
prefixes: {ipv4: 172.23.105.176/28, ipv6: fd48:4da8:420::/48}
regions: {asia: {}}
rollout: {waves: [[jp1]], observe: 1s}
budgets: {outPerRegion: 1}
";

const ROUTERS: [&str; 3] = ["hk1", "jp1", "jp2"];

fn network() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[("network.yaml", NETWORK)]);
    for (at, router) in ROUTERS.iter().enumerate() {
        let text = format!("{{id: {}, region: asia, token: {router}}}\n", at + 1);
        write(dir.path(), &[(&format!("routers/{router}.yaml"), &text)]);
    }
    dir
}

fn change(dir: &Path, limit: u32) {
    let text = format!("{NETWORK}policy: {{ebgpImportLimit: {limit}}}\n");
    write(dir, &[("network.yaml", &text)]);
    quiet();
}

async fn post(app: &Router, router: &str, what: &str, body: Value) -> (u16, Value) {
    let path = format!("/agent/{router}/{what}");
    ask(app, router, &path, Some(body)).await
}

async fn report(app: &Router, router: &str, routes: u32) {
    let session = json!({"uuid": "s", "state": "established", "routes_imported": routes});
    let posted = post(app, router, "report", json!({"sessions": [session]})).await;
    assert_eq!(posted.0, 200, "{}", posted.1);
}

/// Returns the limit that each router gets.
async fn limits(app: &Router) -> Vec<Value> {
    let mut limits = Vec::new();
    for router in ROUTERS {
        let (status, answer) =
            ask(app, router, &format!("/agent/{router}/bird-config"), None).await;
        assert_eq!(status, 200, "{answer}");
        limits.push(answer["policy"]["ebgpImportLimit"].clone());
    }
    limits
}

/// Returns who decided what about which router, and why.
fn audit(dir: &Path) -> Vec<String> {
    let log = std::fs::read_to_string(dir.join("reported/.audit.log")).unwrap();
    let entries = log.lines().filter(|line| !line.is_empty());
    let entry = |line: &str| {
        let entry: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| entry[field].as_str().unwrap_or("-").to_owned();
        ["who", "client", "what", "object", "why"]
            .map(text)
            .join(" ")
    };
    entries.map(entry).collect()
}

async fn next_step(watcher: &mut Watcher) {
    tokio::time::sleep(Duration::from_millis(2100)).await;
    watcher.look().await;
}

async fn lose_routes_twice(app: &Router, watcher: &mut Watcher) {
    for _ in 0..2 {
        report(app, "jp1", 10).await;
        next_step(watcher).await;
    }
}

#[tokio::test]
async fn bad_change_reaches_the_canary_only() {
    let dir = network();
    quiet();
    let (app, _) = watched_at(dir.path());
    for router in ROUTERS {
        report(&app, router, 100).await;
    }
    assert_eq!(limits(&app).await, [json!(null), json!(null), json!(null)]);
    change(dir.path(), 9);
    let canary = [json!(null), json!(9), json!(null)];
    assert_eq!(limits(&app).await, canary);
    // The record is on the disk.
    let (app, mut watcher) = watched_at(dir.path());
    assert_eq!(limits(&app).await, canary);
    lose_routes_twice(&app, &mut watcher).await;
    assert_eq!(limits(&app).await, [json!(null), json!(null), json!(null)]);
    let (app, mut watcher) = watched_at(dir.path());
    assert_eq!(limits(&app).await, [json!(null), json!(null), json!(null)]);

    // The corrected one reaches all.
    report(&app, "jp1", 100).await;
    change(dir.path(), 8);
    assert_eq!(limits(&app).await, [json!(null), json!(8), json!(null)]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    report(&app, "jp1", 100).await;
    next_step(&mut watcher).await;
    assert_eq!(limits(&app).await, [json!(8), json!(8), json!(8)]);
    assert_eq!(
        audit(dir.path()),
        [
            "server local wave 1 of 2 fleet jp1",
            "server local take back fleet jp1: 10 imported routes of 100 before",
            "server local wave 1 of 2 fleet jp1",
            "server local wave 2 of 2 fleet hk1 jp2",
        ]
    );
}

#[tokio::test]
async fn end_of_the_rollout_itself_is_in_the_audit() {
    let dir = network();
    quiet();
    let (app, mut watcher) = watched_at(dir.path());
    for router in ROUTERS {
        report(&app, router, 100).await;
    }
    limits(&app).await;
    change(dir.path(), 9);
    assert_eq!(limits(&app).await, [json!(null), json!(9), json!(null)]);
    lose_routes_twice(&app, &mut watcher).await;
    let text = NETWORK.replace("rollout:", "# rollout:") + "policy: {ebgpImportLimit: 9}\n";
    write(dir.path(), &[("network.yaml", &text)]);
    quiet();
    assert_eq!(limits(&app).await, [json!(9), json!(9), json!(9)]);
    let last = "server local end rollout fleet the change had been taken back: \
                jp1: 10 imported routes of 100 before";
    assert_eq!(audit(dir.path()).pop().unwrap(), last);
}

#[tokio::test]
async fn drain_without_budgets_is_in_the_audit() {
    let dir = network();
    let text = NETWORK.replace("budgets:", "# budgets:");
    write(dir.path(), &[("network.yaml", &text)]);
    quiet();
    let (app, _) = watched_at(dir.path());
    assert_eq!(post(&app, "hk1", "drain", json!({})).await.0, 200);
    assert_eq!(audit(dir.path()), ["router local drain hk1 -"]);
}

#[tokio::test]
async fn unreadable_record_gives_a_change_to_no_router() {
    let dir = network();
    quiet();
    let (app, _) = watched_at(dir.path());
    limits(&app).await;
    let record = dir.path().join("reported/.fleet.json");
    std::fs::write(&record, "{").unwrap();
    change(dir.path(), 9);
    assert_eq!(limits(&app).await, [json!(null), json!(null), json!(null)]);
    let (app, _) = watched_at(dir.path());
    let (status, error) = ask(&app, "jp2", "/agent/jp2/config", None).await;
    let text = error["error"].as_str().unwrap();
    assert!(status == 500 && text.contains(".fleet.json"), "{error}");
}

#[tokio::test]
async fn second_drain_of_a_region_is_refused() {
    let dir = network();
    quiet();
    let (app, _) = watched_at(dir.path());
    for router in ROUTERS {
        report(&app, router, 100).await;
    }
    let drain = async |router, body| post(&app, router, "drain", body).await;
    assert_eq!(drain("jp1", json!({})).await.0, 200);
    let (status, refusal) = drain("jp2", json!({"force": false})).await;
    assert_eq!((status, &refusal["code"]), (409, &json!("DRAIN_REFUSED")));
    assert!(
        refusal["error"]
            .as_str()
            .unwrap()
            .contains("jp1 is permitted to drain in region asia"),
        "{refusal}"
    );
    assert_eq!(drain("jp1", json!({})).await.0, 200);
    assert_eq!(drain("jp2", json!({"force": true})).await.0, 200);
    assert_eq!(drain("hk1", json!({"force": "yes"})).await.0, 400);
    let budget = "jp1 is permitted to drain in region asia, and budgets.outPerRegion is 1";
    assert_eq!(
        audit(dir.path()),
        [
            "router local drain jp1 -".to_owned(),
            format!("router local drain by force jp2 {budget}"),
        ]
    );
}

#[tokio::test]
async fn repeated_drain_writes_no_record_and_no_audit() {
    let dir = network();
    quiet();
    let (app, _) = watched_at(dir.path());
    for router in ROUTERS {
        report(&app, router, 100).await;
    }
    let drain = async |router| post(&app, router, "drain", json!({})).await.0;
    assert_eq!(drain("jp1").await, 200);
    let record = dir.path().join("reported/.fleet.json");
    let before = std::fs::read(&record).unwrap();
    for _ in 1..10 {
        assert_eq!(drain("jp1").await, 200);
    }
    // Another server, as after a restart, knows the permission from the record.
    drop(app);
    let (app, _) = watched_at(dir.path());
    assert_eq!(post(&app, "jp1", "drain", json!({})).await.0, 200);
    assert_eq!(std::fs::read(&record).unwrap(), before);
    assert_eq!(audit(dir.path()), ["router local drain jp1 -"]);
}

#[tokio::test]
async fn refused_drains_of_a_router_are_limited() {
    let dir = network();
    quiet();
    let (app, _) = watched_at(dir.path());
    for router in ROUTERS {
        report(&app, router, 100).await;
    }
    let drain = async |router| post(&app, router, "drain", json!({})).await.0;
    assert_eq!(drain("jp1").await, 200);
    for _ in 0..10 {
        assert_eq!(drain("jp2").await, 409);
    }
    assert_eq!(drain("jp2").await, 429);
    assert_eq!(drain("hk1").await, 409);
}

#[test]
fn wave_that_protects_nothing_is_refused() {
    let dir = network();
    for (waves, said) in [
        ("[]", "without a wave"),
        ("[[]]", "names no router"),
        ("[0%]", "above 0%"),
        ("[50%, 20%]", "above 50%"),
        ("[[jp1], [jp1]]", "jp1 is in a wave twice"),
        ("[[us1]]", "us1 has no file"),
    ] {
        let text = NETWORK.replace("[[jp1]]", waves);
        write(dir.path(), &[("network.yaml", &text)]);
        let found = super::validate(dir.path()).unwrap().problems;
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(
            found.len() == 1 && found[0].contains("network.yaml:4:") && found[0].contains(said),
            "{waves}: {found:?}"
        );
    }
}
