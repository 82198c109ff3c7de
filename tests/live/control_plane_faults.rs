//! A list exists only if it is complete: nothing is removed because of a broken answer.

use crate::lab::control_plane::Answer;
use crate::lab::watch::{NetlinkEvents, bird_history};
use crate::lab::world::World;
use serde_json::json;
use std::time::Duration;

fn nothing_is_removed_after(answer: impl Fn(&World) -> Answer) {
    let world = World::converged(2);
    world.wait_polls("sessions", 3);
    let (events, before) = (NetlinkEvents::record(&world.router), bird_history(&world.router));
    world.control_plane.answer("sessions", answer(&world));
    world.wait_polls("sessions", 3);
    assert_eq!(events.seen(), Vec::<String>::new(), "netlink events");
    assert_eq!(bird_history(&world.router), before, "a BIRD reload or session reset");
    let posts = world.control_plane.posts("modify");
    assert!(posts.iter().all(|post| post["status"] == 1), "a broken answer is nobody's status: {posts:?}");
}

#[test]
fn an_empty_object_removes_nothing() {
    nothing_is_removed_after(|_| Answer::Json(json!({})));
}

#[test]
fn html_removes_nothing() {
    let body = "<html><body>Welcome to nginx!</body></html>";
    nothing_is_removed_after(|_| Answer::Text { status: 200, kind: "text/html", body: body.into() });
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
    nothing_is_removed_after(|_| Answer::Text { status: 500, kind: "application/json", body: body.clone() });
}

#[test]
fn a_slow_answer_removes_nothing() {
    nothing_is_removed_after(|_| Answer::Slow(Duration::from_secs(6), json!({"sessions": []})));
}

#[test]
fn an_item_without_uuid_makes_the_list_incomplete_for_deletion() {
    nothing_is_removed_after(|world| Answer::Json(json!({"sessions": [world.sessions()[0], {"asn": 1}]})));
}
