//! Verbs that ask the running daemon, with a daemon that answers as told.

use std::net::TcpListener;
use std::thread::JoinHandle;

use super::{Router, answer_once};

/// Answers these calls, one after the other.
fn answers(calls: Vec<&'static str>) -> (Router, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let router = Router::listening(&listener.local_addr().unwrap().to_string());
    let server = std::thread::spawn(move || {
        let answer = |body| {
            let listener = listener.try_clone().unwrap();
            answer_once(listener, "200 OK", body).join().unwrap()
        };
        calls.into_iter().map(answer).collect()
    });
    (router, server)
}

#[test]
fn failed_sync_is_exit_code_1_with_its_cause() {
    let (router, server) = answers(vec![
        r#"{"status":"sync_triggered"}"#,
        r#"{"sync":{"requested":3,"finished":2,"error":null}}"#,
        r#"{"sync":{"requested":3,"finished":3,"sessions":0,"changed":0,
            "error":"fetch the sessions: no answer: connection refused"}}"#,
    ]);
    let answer = router.call(&["sync"]);
    answer.says(
        1,
        "sync failed: fetch the sessions: no answer: connection refused",
    );
    assert!(answer.out.is_empty(), "{}", answer.out);
    let requests = server.join().unwrap();
    assert!(requests[0].starts_with("GET /sync ") && requests[1].starts_with("GET /status "));
}

#[test]
fn failed_sync_with_json_prints_value_and_exits_1() {
    let (router, server) = answers(vec![
        r#"{"status":"sync_triggered"}"#,
        r#"{"sync":{"requested":1,"finished":1,"sessions":0,"changed":0,"error":"disk full"}}"#,
    ]);
    let answer = router.call(&["sync", "-o", "json"]);
    answer.says(1, "disk full");
    assert_eq!(answer.json()["error"], "disk full");
    server.join().unwrap();
}

#[test]
fn finished_sync_counts_sessions_and_changes() {
    let (router, server) = answers(vec![
        r#"{"status":"sync_triggered"}"#,
        r#"{"sync":{"requested":1,"finished":1,"sessions":12,"changed":1,"error":null}}"#,
    ]);
    router
        .call(&["sync"])
        .says(0, "Sync finished: 12 sessions, 1 changed");
    server.join().unwrap();
}

#[test]
fn status_names_each_wait_with_path_and_action() {
    let body = r#"{"status":"degraded","version":"1","commit":"c","uptime":5,
        "node":{"id":1,"name":"jp1","region":null},"sessions":{"total":1,"active":0,"error":0,"pending":1},
        "circuitBreaker":"closed","reasons":["BIRD is not running (/run/bird.ctl)"],
        "waiting":[{"object":"node","waitsFor":"BIRD is not running (/run/bird.ctl)","action":"start BIRD"}],
        "held":[{"object":"sessions/wg_1","change":"removal","reason":"every session would go"}]}"#;
    let (router, server) = answers(vec![body]);
    let answer = router.call(&["status"]);
    answer.says(
        0,
        "waiting: node: BIRD is not running (/run/bird.ctl) → start BIRD",
    );
    answer.says(0, "held: sessions/wg_1 removal: every session would go");
    answer.says(0, "jp1 (id 1, no region): degraded");
    server.join().unwrap();
}

#[test]
fn daemon_that_does_not_answer_is_named_with_its_address() {
    for verb in ["status", "sync"] {
        Router::new().call(&[verb]).says(
            1,
            "no daemon answers on 127.0.0.1:1; start it with `moenet-agent run`",
        );
    }
}
