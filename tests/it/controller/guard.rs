//! The guard, in time that passes when nobody works: it remembers over polls, restarts and clocks.

use std::time::Duration;

use jiff::SignedDuration;
use moenet_agent::document::{BgpSessionSpec, ConditionStatus, ConditionType, Kind, NodeSpec};
use moenet_agent::model::ObjectKey;
use moenet_agent::store::{HELD, Store};
use serde_json::json;
use tokio::time::sleep;

use super::lab::{Agent, Machine, name, session, session_key, uid, write};

fn remove(agent: &Agent, number: u8) {
    let name = name(number).parse().unwrap();
    agent
        .store()
        .remove_document(Kind::BgpSession, &name)
        .unwrap();
}

fn bring_back(agent: &Agent, number: u8) {
    write::<BgpSessionSpec>(
        agent.store(),
        &name(number),
        &uid(number),
        session(number, "Enabled"),
    );
}

#[tokio::test(start_paused = true)]
async fn three_removals_per_poll_do_not_empty_the_router() {
    for a_poll in [1, 2, 3] {
        let machine = Machine::new(8);
        let agent = machine.boot();
        agent.pass().await;
        for poll in 0..8u8.div_ceil(a_poll) {
            for number in (1 + poll * a_poll)..=(poll * a_poll + a_poll).min(8) {
                remove(&agent, number);
            }
            agent.pass().await;
            sleep(Duration::from_secs(2)).await;
        }
        let left = if a_poll == 3 { 8 } else { 6 };
        assert_eq!(
            (machine.kernel.links().len(), agent.applied()),
            (left, left),
            "{a_poll} a poll"
        );
        sleep(Duration::from_secs(7200)).await;
        agent.pass().await;
        assert_eq!(agent.applied(), left, "what is held waits for a person");
    }
}

#[tokio::test(start_paused = true)]
async fn removal_while_files_change_waits_without_approval() {
    let machine = Machine::new(8);
    let agent = machine.boot();
    agent.pass().await;
    agent.set_changing(true);
    remove(&agent, 1);
    agent.pass().await;
    let desired = agent.context.desired();
    assert_eq!(desired.held(), []);
    assert_eq!(desired.settling(), [session_key(1)]);
    let status = agent.status(1);
    let mut conditions = status.conditions.iter();
    let held = conditions.find(|one| one.condition_type == ConditionType::RemovalHeld);
    let held = held.map(|one| (one.status, one.reason.as_str()));
    assert_eq!(
        held,
        Some((ConditionStatus::False, "StateDirectoryChanging"))
    );
    assert_eq!(agent.applied(), 8);
    agent.set_changing(false);
    agent.pass().await;
    assert_eq!(
        (agent.context.desired().settling(), agent.applied()),
        (vec![], 7)
    );
}

#[tokio::test(start_paused = true)]
async fn an_hour_later_a_few_may_be_removed_again() {
    let machine = Machine::new(8);
    let agent = machine.boot();
    agent.pass().await;
    for number in [1, 2] {
        remove(&agent, number);
        agent.pass().await;
    }
    sleep(Duration::from_secs(3590)).await;
    remove(&agent, 3);
    agent.pass().await;
    assert_eq!(agent.applied(), 6);
    bring_back(&agent, 3);
    agent.pass().await;
    sleep(Duration::from_secs(20)).await;
    remove(&agent, 3);
    agent.pass().await;
    assert_eq!(agent.applied(), 5);
}

#[tokio::test(start_paused = true)]
async fn restarts_and_wrong_clocks_do_not_open_the_guard() {
    let machine = Machine::new(8);
    let mut agent = machine.boot();
    agent.pass().await;
    for (number, hours) in [(1, 2), (2, -2), (3, 48), (4, -48), (5, 0)] {
        agent.set_clock(SignedDuration::from_hours(hours));
        remove(&agent, number);
        agent.pass().await;
        agent.kill().await;
        agent = machine.boot();
        agent.pass().await;
    }
    assert_eq!(agent.applied(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_truncated_record_of_the_guard_opens_nothing() {
    for text in ["", "held: [", "removed: 5\n"] {
        let machine = Machine::new(8);
        let agent = machine.boot();
        agent.pass().await;
        remove(&agent, 1);
        remove(&agent, 2);
        agent.pass().await;
        agent.kill().await;
        std::fs::write(machine.state().join(HELD), text).unwrap();
        let agent = machine.boot();
        remove(&agent, 3);
        agent.pass().await;
        assert_eq!(agent.applied(), 6, "{text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn first_pass_leaves_a_record_of_the_guard() {
    let machine = Machine::new(8);
    let agent = machine.boot();
    agent.pass().await;
    assert!(machine.state().join(HELD).exists());
}

#[tokio::test(start_paused = true)]
async fn record_of_the_guard_that_was_cleaned_away_opens_nothing() {
    for restarted in [false, true] {
        let machine = Machine::new(8);
        let mut agent = machine.boot();
        agent.pass().await;
        remove(&agent, 1);
        remove(&agent, 2);
        agent.pass().await;
        std::fs::remove_file(machine.state().join(HELD)).unwrap();
        if restarted {
            agent.kill().await;
            agent = machine.boot();
        } else {
            agent.pass().await;
            assert!(machine.state().join(HELD).exists(), "it is written again");
        }
        remove(&agent, 3);
        agent.pass().await;
        assert_eq!(agent.applied(), 6, "restarted: {restarted}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_written_holds_removals() {
    let machine = Machine::new(8);
    let agent = machine.boot();
    agent.pass().await;
    let file = machine.state().join(HELD);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    remove(&agent, 1);
    agent.pass().await;
    assert_eq!(agent.applied(), 8);
    std::fs::remove_dir(&file).unwrap();
    agent.pass().await;
    agent.pass().await;
    assert_eq!(agent.applied(), 7);
}

/// The node as the Control Plane says it.
fn node(agent: &Agent, asn: u32) {
    write::<NodeSpec>(
        agent.store(),
        "node",
        "uid-node",
        json!({"id": 1, "asn": asn}),
    );
}

fn asn(agent: &Agent) -> u32 {
    let desired = agent.context.desired();
    let text = desired.router.as_ref().unwrap().asn.to_string();
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn new_asn_from_control_plane_waits_and_resets_nothing() {
    let machine = Machine::new(3);
    let agent = machine.boot();
    agent.pass().await;
    agent.pass().await;
    let all = machine.in_effect();
    node(&agent, 4_242_421_111);
    agent.pass().await;
    assert_eq!(machine.in_effect(), all);
    let held = agent.context.desired().held();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].key, ObjectKey::Router);
    assert_eq!(held[0].change, "asn 4242420998 -> 4242421111");
    Store::approve(&machine.state(), &[held[0].approval.clone()].into()).unwrap();
    // Another value than the approved one is held again.
    node(&agent, 4_242_422_222);
    agent.pass().await;
    assert_eq!(machine.in_effect(), all);
    node(&agent, 4_242_421_111);
    agent.pass().await;
    assert_eq!(asn(&agent), 4_242_421_111);
    assert_ne!(machine.in_effect(), all);
}
