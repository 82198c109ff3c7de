//! A drain, and what it takes down, end by nothing but its document.

use jiff::{SignedDuration, Timestamp};
use moenet_agent::document::MaintenanceSpec;
use serde_json::json;

use super::lab::{Agent, Machine, name, write};

fn drain(agent: &Agent, spec: serde_json::Value) {
    write::<MaintenanceSpec>(agent.store(), "maintenance", "uid-maintenance", spec);
}

/// The text of the one session.
fn text(machine: &Machine) -> String {
    machine.bird.tree.lock().unwrap().fragments[&name(1)].clone()
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_brings_no_session_up_that_a_drain_took_down() {
    let machine = Machine::new(1);
    let agent = machine.boot();
    drain(&agent, json!({"enabled": true, "since": Timestamp::now()}));
    agent.pass().await;
    let is_down = || text(&machine).contains("disabled;");
    assert!(!is_down());
    agent.set_clock(SignedDuration::from_mins(16));
    agent.pass().await;
    assert!(is_down());
    agent.set_clock(SignedDuration::from_hours(-2));
    agent.pass().await;
    assert!(is_down(), "it flapped");
    drain(&agent, json!({"enabled": false}));
    agent.pass().await;
    assert!(!is_down());
    // The next drain has its own time.
    drain(
        &agent,
        json!({"enabled": true, "since": Timestamp::now() - SignedDuration::from_hours(2)}),
    );
    agent.pass().await;
    assert!(!is_down());
}
