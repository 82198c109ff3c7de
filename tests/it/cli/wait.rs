//! `wait`, on the status files of the sample.

use std::fs;

use super::{NAME, Router};

#[test]
fn reached_phase_or_condition_ends_the_wait_at_once() {
    let router = Router::new();
    router
        .call(&["wait", NAME, "--timeout", "1s", "--for", "Accepted"])
        .says(0, "Accepted=True");
    router
        .call(&["wait", NAME, "--timeout", "1s"])
        .says(0, &format!("sessions/{NAME}: Established"));
}

#[test]
fn wait_that_is_over_names_phase_and_next_command() {
    let router = Router::new();
    let answer = router.call(&["wait", NAME, "--for", "Paused", "--timeout", "200ms"]);
    answer.says(1, "is Established after 0 s, not Paused");
    answer.says(1, &format!("moenet-agent describe sessions/{NAME}"));
}

#[test]
fn deletion_is_waited_for_until_no_file_is_left() {
    let router = Router::new();
    let deleted = ["wait", NAME, "--for", "deleted", "--timeout", "200ms"];
    router.call(&deleted).says(1, "not deleted");
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
        .call(&["wait", NAME, "--for", "established"])
        .says(64, "neither a phase");
}
