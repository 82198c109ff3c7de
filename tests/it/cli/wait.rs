//! `wait`, with an agent that answers as the test says.

use std::fs;

use super::{NAME, Router, serve};

/// A router whose agent answers with this status of the session.
fn router(status: &'static str) -> Router {
    let answer = move |path: &str| match path {
        "/healthz" => ("200 OK", "{}"),
        "/status/sessions/wg_4242421080" => ("200 OK", status),
        _ => (
            "404 Not Found",
            r#"{"error":"no such object","code":"NOT_FOUND"}"#,
        ),
    };
    Router::listening(&serve(answer))
}

const DEGRADED: &str = r#"{"observedGeneration":1,"phase":"Degraded","conditions":[{"type":"Accepted",
    "status":"True","reason":"Valid","message":"","lastTransitionTime":"2026-11-23T18:02:11Z"}]}"#;

#[test]
fn reached_phase_or_condition_ends_the_wait_at_once() {
    let router = router(DEGRADED);
    for (goal, printed) in [("Accepted", "Accepted=True"), ("Degraded", "Degraded")] {
        router
            .call(&["wait", NAME, "--timeout", "1s", "--for", goal])
            .says(0, &format!("sessions/{NAME}: {printed}"));
    }
}

#[test]
fn wait_that_is_over_names_phase_and_next_command() {
    let answer = router(DEGRADED).call(&["wait", NAME, "--timeout", "200ms"]);
    answer.says(1, "is Degraded after 0 s, not Established");
    answer.says(1, &format!("moenet-agent describe sessions/{NAME}"));
}

#[test]
fn status_of_a_stopped_agent_reaches_no_goal() {
    // The status file says Established.
    let answer = Router::new().call(&["wait", NAME, "--timeout", "200ms"]);
    answer.says(1, "no agent answers");
    answer.says(1, "moenet-agent doctor");
}

#[test]
fn name_of_two_objects_is_refused() {
    Router::new()
        .call(&["wait", "hk1", "--timeout", "1s"])
        .says(1, "hk1 is ambiguous: mesh/hk1 or ibgp/hk1; add the kind");
}

#[test]
fn deletion_is_waited_for_until_no_file_is_left() {
    let router = Router::new();
    let deleted = ["wait", NAME, "--for", "deleted", "--timeout", "200ms"];
    router.call(&deleted).says(1, "still exists after 0 s");
    for area in ["", "applied/", "status/"] {
        let _ = fs::remove_file(router.state(&format!("{area}sessions/{NAME}.yaml")));
    }
    assert_eq!(router.call(&deleted).code, 0);
}

#[test]
fn unknown_names_and_goals_are_refused() {
    let router = Router::new();
    router
        .call(&["wait", "nothing", "--timeout", "1s"])
        .says(1, "no object named nothing");
    router
        .call(&["wait", NAME, "--for", "up"])
        .says(64, "neither a phase");
}
