//! A list exists only if it is complete: nothing is removed because of a broken answer.

use crate::lab::control_plane::Answer;
use crate::lab::watch::{NetlinkEvents, bird_history, session_ages};
use crate::lab::world::{World, uuid};
use crate::lab::{contains, wait_until};
use serde_json::json;
use std::time::Duration;

fn nothing_is_removed_after(answer: impl Fn(&World) -> Answer) {
    let world = World::converged(2);
    world.wait_polls("sessions", 3);
    let (events, before) = (
        NetlinkEvents::record(&world.router),
        bird_history(&world.router),
    );
    world.control_plane.answer("sessions", answer(&world));
    world.wait_polls("sessions", 3);
    assert_eq!(events.seen(), Vec::<String>::new(), "netlink events");
    assert_eq!(
        bird_history(&world.router),
        before,
        "a BIRD reload or session reset"
    );
    let posts = world.control_plane.posts("modify");
    assert!(
        posts.iter().all(|post| post["status"] == 1),
        "a broken answer is nobody's status: {posts:?}"
    );
}

#[test]
fn an_empty_object_removes_nothing() {
    nothing_is_removed_after(|_| Answer::Json(json!({})));
}

#[test]
fn html_removes_nothing() {
    let body = "<html><body>Welcome to nginx!</body></html>";
    nothing_is_removed_after(|_| Answer::Text {
        status: 200,
        kind: "text/html",
        body: body.into(),
    });
}

#[test]
fn half_a_body_removes_nothing() {
    nothing_is_removed_after(|world| Answer::HalfOf(json!({"sessions": world.sessions()})));
}

#[test]
fn a_null_list_removes_nothing() {
    nothing_is_removed_after(|_| Answer::Json(json!({"sessions": null})));
}

#[test]
fn a_server_error_with_a_list_removes_nothing() {
    let body = json!({"sessions": []}).to_string();
    nothing_is_removed_after(|_| Answer::Text {
        status: 500,
        kind: "application/json",
        body: body.clone(),
    });
}

#[test]
fn a_slow_answer_removes_nothing() {
    nothing_is_removed_after(|_| Answer::Slow(Duration::from_secs(6), json!({"sessions": []})));
}

#[test]
fn an_item_without_uuid_makes_the_list_incomplete_for_deletion() {
    nothing_is_removed_after(|world| {
        Answer::Json(json!({"sessions": [world.sessions()[0], {"asn": 1}]}))
    });
}

/// Nothing is asked for a while, however long the machine takes over it.
fn asks_nothing(world: &World) {
    // Every poll, of which the slowest comes every two seconds, has heard it by then.
    std::thread::sleep(Duration::from_secs(6));
    let before = world.control_plane.asked_each();
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(
        world.control_plane.asked_each(),
        before,
        "asked again too soon"
    );
}

fn breaker(world: &World) -> String {
    let status: serde_json::Value =
        serde_json::from_str(&world.router.api("", "/status").1).unwrap();
    status["circuitBreaker"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn rate_limit_is_kept_for_its_duration() {
    let world = World::converged(1);
    let refusal = Answer::Refusal {
        status: 429,
        code: "RATE_LIMITED",
        retry_after: Some(40),
    };
    let before = world.control_plane.asked_each();
    world.control_plane.answer_everything(Some(refusal));
    // Each call comes every second or two, and waits on its own: one may have been answered just before, one is
    // refused. A slow machine asks less often, so the bound holds on it too.
    std::thread::sleep(Duration::from_secs(14));
    let asked = world.control_plane.asked_each();
    assert!(asked != before, "nothing was asked and refused");
    for (call, times) in &asked {
        let more = times - before.get(call).unwrap_or(&0);
        assert!(
            more <= 2,
            "{call} was asked {more} times within Retry-After"
        );
    }
    assert_eq!(
        breaker(&world),
        "closed",
        "a Control Plane that answers 429 is not broken"
    );
    world.control_plane.answer_everything(None);
    world.wait_polls("sessions", 1);
    world.wait_established();
}

#[test]
fn errors_open_the_breaker_and_keep_the_applied_state() {
    let world = World::converged(1);
    // BIRD may be told a measured latency meanwhile; no session is reset.
    let (events, before) = (
        NetlinkEvents::record(&world.router),
        session_ages(&world.router),
    );
    for (status, code) in [(500, "INTERNAL"), (503, "MAINTENANCE_MODE")] {
        world.control_plane.answer_everything(Some(Answer::Refusal {
            status,
            code,
            retry_after: None,
        }));
        wait_until("the breaker opens", 60, || match breaker(&world).as_str() {
            "open" => Ok(()),
            other => Err(other.to_owned()),
        });
        assert_eq!(
            world
                .router
                .metric(r#"moenet_agent_circuit_breaker{state="open"}"#),
            Some(1.0)
        );
        asks_nothing(&world);
        world.control_plane.answer_everything(None);
        wait_until("the breaker closes", 90, || {
            match breaker(&world).as_str() {
                "closed" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        world.wait_polls("sessions", 1);
    }
    assert_eq!(events.seen(), Vec::<String>::new(), "netlink events");
    assert_eq!(session_ages(&world.router), before, "a session was reset");
}

#[test]
fn rejected_token_backs_off_and_status_says_what_to_do() {
    let world = World::converged(1);
    // The Control Plane takes in what it is told, so that there is no more to tell.
    world.wait_reported(&uuid(1), 1, "");
    let mut active = world.sessions();
    active[0]["status"] = 1.into();
    world.control_plane.sessions(&active);
    world.wait_polls("sessions", 12);
    let refusal = Answer::Refusal {
        status: 401,
        code: "INVALID_TOKEN",
        retry_after: None,
    };
    world.control_plane.answer_everything(Some(refusal));
    wait_until("the status tells", 60, || {
        contains(&world.router.api("", "/status").1, "controlPlane.token")
    });
    asks_nothing(&world);
    assert!(
        !world.router.log().contains("lab-token"),
        "the token is in the log"
    );
    world.control_plane.answer_everything(None);
    // Whoever has mended it does not wait.
    let before = world.control_plane.asked("sessions");
    assert_eq!(world.router.api("", "/sync").0, 200);
    wait_until("the sessions are fetched", 30, || {
        if world.control_plane.asked("sessions") > before {
            Ok(())
        } else {
            Err("not yet".into())
        }
    });
    world.wait_established();
}
