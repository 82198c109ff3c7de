//! A drain, and what it takes down, end by nothing but its document.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use moenet_agent::controller::planning::{Unavailable, not_run_yet};
use moenet_agent::document::{BgpSessionSpec, Kind, MaintenanceSpec};
use serde_json::json;
use tokio::time::Instant;

use super::lab::{Agent, Machine, name, session, uid, write};

fn drain(agent: &Agent, spec: serde_json::Value) {
    write::<MaintenanceSpec>(agent.store(), "maintenance", "uid-maintenance", spec);
}

/// The text of the one session.
fn text(machine: &Machine) -> String {
    machine.bird.tree.lock().unwrap().fragments[&name(1)].to_string()
}

#[tokio::test(start_paused = true)]
async fn clock_set_back_keeps_drained_sessions_down() {
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

#[tokio::test(start_paused = true)]
async fn record_without_start_time_keeps_disabled_sessions_down() {
    let machine = Machine::new(1);
    let agent = machine.boot();
    let since = Timestamp::now() - SignedDuration::from_mins(16);
    drain(&agent, json!({"enabled": true, "since": since}));
    agent.pass().await;
    let is_down = || text(&machine).contains("disabled;");
    assert!(is_down());
    let record = machine.state().join("applied/maintenance.yaml");
    let kept = std::fs::read_to_string(&record).unwrap();
    let is_since = |line: &&str| line.trim_start().starts_with("since:");
    let without: Vec<_> = kept.lines().filter(|line| !is_since(line)).collect();
    assert!(without.len() < kept.lines().count(), "{kept}");
    std::fs::write(&record, without.join("\n")).unwrap();
    drain(&agent, json!({"enabled": true}));
    agent.pass().await;
    assert!(is_down(), "{}", std::fs::read_to_string(&record).unwrap());
}

/// What BIRD does not run yet of the desired state.
async fn missing(agent: &Agent) -> Result<Option<String>, Unavailable> {
    let bird = agent.context.observer.bird(Instant::now()).await;
    not_run_yet(&agent.context.desired(), &bird)
}

#[tokio::test(start_paused = true)]
async fn session_with_an_older_text_does_not_delay_a_drain() {
    let machine = Machine::new(3);
    let agent = machine.boot();
    agent.pass().await;
    assert_eq!(missing(&agent).await, Ok(None));
    // BIRD refuses the new text of one session.
    machine.bird.refuses.lock().unwrap().insert(name(2));
    let mut changed = session(2, "Enabled");
    changed["bgp"] = json!({"importLimit": 7});
    write::<BgpSessionSpec>(agent.store(), &name(2), &uid(2), changed);
    drain(&agent, json!({"enabled": true, "since": Timestamp::now()}));
    agent.relist();
    let shared = "the files that all sessions share".to_owned();
    assert_eq!(
        missing(&agent).await,
        Ok(Some(shared)),
        "an intention is no confirmation"
    );
    agent.pass().await;
    assert!(agent.status(2).last_error.is_some());
    assert_eq!(missing(&agent).await, Ok(None));
    // Those that the drain disables count by their texts.
    agent.set_clock(SignedDuration::from_mins(16));
    agent.pass().await;
    let refused = "sessions/wg_2".to_owned();
    assert_eq!(missing(&agent).await, Ok(Some(refused)));
}

#[tokio::test(start_paused = true)]
async fn held_session_does_not_delay_a_drain() {
    let machine = Machine::new(2);
    let agent = machine.boot();
    agent.pass().await;
    for number in [1, 2] {
        let name = name(number).parse().unwrap();
        agent
            .store()
            .remove_document(Kind::BgpSession, &name)
            .unwrap();
    }
    drain(&agent, json!({"enabled": true, "since": Timestamp::now()}));
    agent.pass().await;
    assert_eq!(agent.context.desired().held().len(), 2);
    assert_eq!(missing(&agent).await, Ok(None));
    *machine.bird.down.lock().unwrap() = true;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(missing(&agent).await, Err(Unavailable::Down));
}
