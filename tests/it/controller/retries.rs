//! How soon a failed object is retried, by the class of its failure, and what ends its wait. See `Queue`.

use std::time::Duration;

use moenet_agent::controller::Hint;
use moenet_agent::document::{BgpSessionSpec, Phase};
use moenet_agent::observed::Mark;
use moenet_agent::plan::action::NewLink;
use tokio::time::{Instant, sleep};

use super::lab::{Agent, Machine, interface, name, session, session_key, uid, write};
use crate::plan::kernel::new_link;

/// A time after which the waits of a failing key do not grow any more.
const LONG: Duration = Duration::from_secs(3600);
/// The tick of the controller, and an observation with the steps that follow it.
const TICK: Duration = Duration::from_secs(10 + 2);
/// Less than any wait after so many failures.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Waits until session 1 is established, and returns how long that took.
async fn healed(agent: &Agent) -> Duration {
    let began = Instant::now();
    while agent.status(1).phase != Phase::Established {
        assert!(began.elapsed() < LONG, "{:?}", agent.status(1));
        sleep(Duration::from_millis(100)).await;
    }
    began.elapsed()
}

/// Puts another owner's link where session 1 wants its own.
fn occupy(machine: &Machine) {
    let mut link = new_link(&NewLink::Dummy, false).unwrap();
    link.mark = Mark::Foreign("uplink".to_owned());
    let mut model = machine.kernel.model.lock().unwrap();
    model.insert(&interface(1), link);
}

fn free(machine: &Machine) {
    let mut model = machine.kernel.model.lock().unwrap();
    model.links.remove(&interface(1));
}

#[tokio::test(start_paused = true)]
async fn conflict_heals_within_a_tick_without_an_announcement() {
    for age in [2, 20, 3600] {
        let machine = Machine::new(1);
        occupy(&machine);
        let mut agent = machine.boot();
        let _hints = agent.run();
        sleep(Duration::from_secs(age)).await;
        assert_eq!(agent.status(1).phase, Phase::Error);
        assert!(machine.kernel.asked.lock().unwrap().is_empty());
        free(&machine);
        let took = healed(&agent).await;
        assert!(took <= TICK, "{took:?} after {age} s of conflict");
    }
}

#[tokio::test(start_paused = true)]
async fn kernel_event_heals_a_conflict_at_once() {
    let machine = Machine::new(1);
    occupy(&machine);
    let mut agent = machine.boot();
    let hints = agent.run();
    sleep(LONG).await;
    free(&machine);
    let event = Hint::Link(session_key(1), interface(1));
    hints.send(event).unwrap();
    let took = healed(&agent).await;
    assert!(took <= AT_ONCE, "{took:?}");
}

/// Returns a machine whose BIRD refuses the text of session 1.
fn refusing() -> Machine {
    let machine = Machine::new(2);
    machine.bird.refuses.lock().unwrap().insert(name(1));
    machine
}

#[tokio::test(start_paused = true)]
async fn invalid_text_is_retried_rarely() {
    let machine = refusing();
    let mut agent = machine.boot();
    let _hints = agent.run();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(agent.status(1).phase, Phase::Error);
    let tries = || *machine.bird.sets.lock().unwrap();
    let before = tries();
    sleep(LONG).await;
    // A try sets the text, and with it the shared files.
    let tries = (tries() - before) / 2;
    assert!((10..=30).contains(&tries), "{tries} tries in an hour");
}

#[tokio::test(start_paused = true)]
async fn changed_document_ends_the_wait_of_invalid_text() {
    let machine = refusing();
    let mut agent = machine.boot();
    let hints = agent.run();
    sleep(LONG).await;
    machine.bird.refuses.lock().unwrap().clear();
    let mut spec = session(1, "Enabled");
    spec["asn"] = 4_242_429_999u32.into();
    write::<BgpSessionSpec>(agent.store(), &name(1), &uid(1), spec);
    let before = agent.context.desired();
    agent.relist();
    // As the builder does it.
    let changed = agent.context.desired().changed_since(&before);
    let moenet_agent::desired::Changed::Keys(keys) = changed else {
        panic!("{changed:?}");
    };
    assert!(keys.contains(&session_key(1)), "{keys:?}");
    keys.into_iter()
        .for_each(|key| hints.send(Hint::key(key)).unwrap());
    let took = healed(&agent).await;
    assert!(took <= AT_ONCE, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn changed_shared_file_ends_the_wait_of_invalid_text() {
    let machine = refusing();
    let mut agent = machine.boot();
    let _hints = agent.run();
    sleep(LONG).await;
    machine.bird.refuses.lock().unwrap().clear();
    let mut tree = machine.bird.tree.lock().unwrap().clone();
    let mine = "moenet/mine.conf".to_owned();
    tree.foreign.insert(mine, "# repaired\n".to_owned());
    *machine.bird.tree.lock().unwrap() = tree;
    let took = healed(&agent).await;
    assert!(took <= TICK, "{took:?}");
}
