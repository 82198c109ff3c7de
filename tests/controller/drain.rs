//! A drain: on record as soon as it is wanted, and ended by nothing but its document.

use jiff::{SignedDuration, Timestamp};
use moenet_agent::document::MaintenanceSpec;
use serde_json::json;

use crate::lab::{Agent, Machine, name, write};

fn drain(agent: &Agent, spec: serde_json::Value) {
    write::<MaintenanceSpec>(agent.store(), "maintenance", "uid-maintenance", spec);
}

/// Somebody breaks the document, long enough ago to be believed.
fn break_document(machine: &Machine) {
    let path = machine.state().join("maintenance.yaml");
    std::fs::write(&path, "apiVersion: moenet.work/v1\nkind: Maintenance\nspec: {enabled: perhaps}\n")
        .unwrap();
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
}

/// The text of the one session.
fn text(machine: &Machine) -> String {
    machine.bird.tree.lock().unwrap().fragments[&name(1)].clone()
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_bird_refuses_is_not_ended_by_a_document_that_breaks_meanwhile() {
    let machine = Machine::new(1);
    let agent = machine.boot();
    agent.pass().await;
    *machine.bird.refuses_base.lock().unwrap() = true;
    drain(&agent, json!({"enabled": true}));
    agent.pass().await;
    let since = agent.context.world().maintenance.since;
    break_document(&machine);
    agent.kill().await;

    let agent = machine.boot();
    agent.pass().await;
    let maintenance = agent.context.world().maintenance;
    assert!(maintenance.enabled, "the drain ended");
    assert_eq!(maintenance.since, since);
    *machine.bird.refuses_base.lock().unwrap() = false;
    agent.pass().await;
    let defines = machine.bird.tree.lock().unwrap().base["moenet/defines.conf"].clone();
    assert!(defines.contains("define MOE_DRAINED = true;"), "{defines}");
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
    drain(&agent, json!({"enabled": true, "since": Timestamp::now() - SignedDuration::from_hours(2)}));
    agent.pass().await;
    assert!(!is_down());
}
