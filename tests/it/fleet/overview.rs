//! What `fleet get` and `fleet describe` show.

use serde_json::{Value, json};

use super::verbs::{Fleet, folder, network};

/// A router that has posted, with one session up and one in error.
fn posted() -> Fleet {
    let fleet = folder();
    fleet.done("accept de1/wg_alice");
    let write = |name: &str, value: &Value| {
        fleet.write(&format!("de1/reported/{name}"), &value.to_string());
    };
    let at = "2026-01-02T03:04:05Z";
    let heartbeat = json!({"version": "9.9", "uptime": 60, "drained": true, "held": 2});
    write(
        "heartbeat.json",
        &json!({"receivedAt": at, "body": heartbeat}),
    );
    let up = json!({"uuid": "a", "rtt_ms": 12.5, "routes_imported": 7, "routes_exported": 3, "state": "established"});
    let tunnel = json!({"uuid": "mesh-1-9", "rtt_ms": null, "routes_imported": 0, "routes_exported": 0, "state": "down"});
    write(
        "report.json",
        &json!({"receivedAt": at, "body": {"sessions": [up, tunnel]}}),
    );
    let failed = json!({"uuid": "b", "status": 2, "error": "no route", "fileStatus": 1, "at": at});
    write("sessions/b.json", &failed);
    fleet
}

#[test]
fn get_counts_what_routers_posted() {
    let fleet = posted();
    let text = fleet.done("-o wide get");
    let row = text.lines().nth(1).unwrap();
    let cells: Vec<_> = row
        .split("  ")
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .collect();
    assert_eq!(cells[0], "de1");
    let rest = [
        "9.9",
        "3",
        "1",
        "0",
        "yes",
        "2",
        "1",
        "1 down, 1 established",
        "60s",
    ];
    assert_eq!(cells[2..], rest, "{text}");
    assert!(text.contains("no route"), "{text}");
}

#[test]
fn describe_shows_each_session_and_errors() {
    let fleet = posted();
    let text = fleet.done("-o json describe de1");
    let router: Value = serde_json::from_str(&text).unwrap();
    let sessions = router["sessions"].as_array().unwrap();
    let states: Vec<_> = sessions
        .iter()
        .map(|it| (&it["uuid"], &it["state"]))
        .collect();
    assert_eq!(
        json!(states),
        json!([["a", "established"], ["b", null], ["mesh-1-9", "down"]])
    );
    assert_eq!(
        (&sessions[1]["error"], &sessions[1]["status"]),
        (&json!("no route"), &json!(2))
    );
    assert!(fleet.done("describe de1").contains("QUEUED_FOR_SETUP"));
    fleet.refused("describe moon", "no router moon; it has de1");
}

/// An empty table would look like a fleet without routers.
#[test]
fn error_in_the_description_is_no_empty_fleet() {
    let fleet = network();
    let router = fleet.text("routers/hk1.yaml");
    for (file, text, place) in [
        (
            "routers/hk1.yaml",
            format!("{router}\nid: ["),
            "routers/hk1.yaml:",
        ),
        ("network.yaml", "asn: [".to_owned(), "network.yaml:"),
    ] {
        let before = fleet.text(file);
        fleet.write(file, &text);
        for verb in ["get", "-o json get", "-o wide get", "describe jp1"] {
            fleet.refused(verb, place);
            let (_, text) = fleet.call(verb);
            assert!(
                !text.contains("No routers") && !text.starts_with("[]"),
                "{text}"
            );
            assert!(!text.contains("has no router"), "{text}");
        }
        fleet.write(file, &before);
    }
}

#[test]
fn delete_after_confirmation_removes_the_session() {
    let fleet = folder();
    fleet.done("delete de1/wg_alice");
    fleet.refused("delete de1/wg_alice", "has not confirmed");
    let gone = json!({"uuid": "a", "status": 0, "error": null, "fileStatus": 5, "at": "2026-01-02T03:04:05Z"});
    fleet.write(
        &format!("de1/reported/sessions/{}", fleet.status_file("a")),
        &gone.to_string(),
    );
    fleet.done("delete de1/wg_alice");
    assert!(!fleet.text("de1/sessions.yaml").contains("wg_alice"));
}
