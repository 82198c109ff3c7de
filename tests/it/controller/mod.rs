//! The controller on a kernel and a BIRD in memory, in time that passes when nobody works: one run a key,
//! keys beside each other, a failing one alone; nothing written when nothing changed; and a crash between
//! any two steps, in any of them too, leaves what the next start brings to the same end.

use std::sync::Arc;
use std::time::Duration;

use moenet_agent::controller::Hint;
use moenet_agent::desired::{Desired, Wanted};
use moenet_agent::document::{BgpSessionSpec, ConditionType, Kind, Metadata, Phase};
use moenet_agent::store::{AppliedBody, AppliedDocument};
use tokio::time::{Instant, sleep};

mod bird;
mod changes;
mod drain;

mod fakes;
mod git;
mod guard;
mod lab;
mod node;
mod order;
mod retries;

use fakes::Death;
use lab::{Machine, interface, name, session, session_key, uid, write};

/// An hour in which the agent may do what it likes.
const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn second_pass_writes_nothing() {
    let machine = Machine::new(20);
    let mut agent = machine.boot();
    agent.pass().await;
    assert!((1..=20).all(|number| agent.status(number).phase == Phase::Established));
    assert_eq!(
        agent
            .sent_changes()
            .iter()
            .filter(|entry| matches!(entry.key, moenet_agent::model::ObjectKey::Named(..)))
            .count(),
        20
    );
    let counts = || {
        (
            machine.kernel.asked.lock().unwrap().len(),
            *machine.bird.sets.lock().unwrap(),
            agent.context.store.writes(),
        )
    };
    let before = counts();
    assert!(
        before.0 >= 20 * 8 && before.1 >= 20 && before.2 >= 40,
        "nothing was done: {before:?}"
    );
    for _ in 0..3 {
        agent.pass().await;
    }
    assert_eq!(counts(), before);
    assert!(agent.sent_changes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_look_serves_all_keys_of_a_pass() {
    let machine = Machine::new(100);
    let agent = machine.boot();
    agent.pass().await;
    *machine.kernel.looks.lock().unwrap() = 0;
    agent.pass().await;
    let looks = *machine.kernel.looks.lock().unwrap();
    assert!(
        looks <= 3,
        "{looks} dumps of the kernel for 100 sessions at rest"
    );
}

#[tokio::test(start_paused = true)]
async fn many_new_sessions_need_few_bird_reloads() {
    let machine = Machine::new(150);
    let mut agent = machine.boot();
    let _hints = agent.run();
    sleep(Duration::from_secs(30)).await;
    assert!((1..=150).all(|number| agent.status(number).phase == Phase::Established));
    let (reloads, looks) = (
        machine.bird.reloads.lock().unwrap().0,
        *machine.bird.looks.lock().unwrap(),
    );
    assert!(reloads <= 3, "{reloads} reloads");
    assert!(looks <= 30, "{looks} looks in half a minute");
}

/// What one changed session costs beside others at rest: looks at the kernel and at BIRD, texts parsed, files
/// written, steps in the kernel and reloads.
async fn cost_of_one_change(sessions: u8) -> [usize; 6] {
    let machine = Machine::new(sessions);
    let mut agent = machine.boot();
    let hints = agent.run();
    sleep(Duration::from_secs(60)).await;
    let counts = || {
        let (parsed, written) = (
            agent.store().parsed() as usize,
            agent.store().writes() as usize,
        );
        let (looks, of_bird) = (
            *machine.kernel.looks.lock().unwrap(),
            *machine.bird.looks.lock().unwrap(),
        );
        let steps = machine.kernel.asked.lock().unwrap().len();
        [
            looks,
            of_bird,
            parsed,
            written,
            steps,
            machine.bird.reloads.lock().unwrap().0,
        ]
    };
    // Between two ticks.
    sleep(Duration::from_secs(1)).await;
    let before = counts();
    let mut spec = session(7, "Enabled");
    spec["tunnel"]["mtu"] = 1380.into();
    write::<BgpSessionSpec>(agent.store(), &name(7), &uid(7), spec);
    agent.relist();
    hints.send(Hint::key(session_key(7))).unwrap();
    hints.send(Hint::Everything).unwrap();
    sleep(Duration::from_secs(5)).await;
    let after = counts();
    assert_eq!(machine.kernel.links()[&interface(7)].mtu, 1380);
    std::array::from_fn(|index| after[index] - before[index])
}

#[tokio::test(start_paused = true)]
async fn only_sessions_that_changed_are_made_again() {
    let machine = Machine::new(3);
    let mut agent = machine.boot();
    let _hints = agent.run();
    sleep(Duration::from_secs(60)).await;
    agent.relist();
    let before = agent.context.desired();
    let mut spec = session(2, "Enabled");
    spec["tunnel"]["mtu"] = 1380.into();
    write::<BgpSessionSpec>(agent.store(), &name(2), &uid(2), spec);
    agent.relist();
    let after = agent.context.desired();
    let made = |desired: &Desired, number| match desired.objects[&session_key(number)].wanted() {
        Some(Wanted::Session(session, _)) => Arc::clone(session),
        other => panic!("{other:?}"),
    };
    let is_same = |number| Arc::ptr_eq(&made(&before, number), &made(&after, number));
    assert_eq!([1, 2, 3].map(is_same), [true, false, true]);
    assert_eq!(made(&after, 2).tunnel.mtu.get(), 1380);
    // What it clashes with is compared again.
    let mut spec = session(2, "Enabled");
    spec["tunnel"]["listenPort"] = 21_003.into();
    write::<BgpSessionSpec>(agent.store(), &name(2), &uid(2), spec);
    agent.relist();
    let refused = agent.context.desired().objects[&session_key(2)]
        .refused()
        .map(str::to_owned);
    assert!(refused.unwrap().contains("listen port 21003 is used by"));
}

#[tokio::test(start_paused = true)]
async fn cost_of_a_change_is_independent_of_session_count() {
    let (few, many) = (cost_of_one_change(10).await, cost_of_one_change(150).await);
    assert_eq!(
        few, many,
        "kernel looks, BIRD looks, texts parsed, files written, steps, reloads"
    );
    assert!(
        many[0] <= 4 && many[1] <= 4 && many[2] <= 4 && many[4..] == [1, 0],
        "{many:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn sessions_that_fail_for_long_share_their_looks() {
    let machine = Machine::new(150);
    machine
        .kernel
        .refuses
        .lock()
        .unwrap()
        .extend((1..=150).map(interface));
    let mut agent = machine.boot();
    let _hints = agent.run();
    sleep(Duration::from_secs(1800)).await;
    *machine.kernel.looks.lock().unwrap() = 0;
    sleep(Duration::from_secs(600)).await;
    let looks = *machine.kernel.looks.lock().unwrap();
    // One before and one or two after the tries of each tick.
    assert!(looks <= 180, "{looks} dumps of the kernel in ten minutes");
    assert_eq!(agent.status(9).phase, Phase::Error);
}

#[tokio::test(start_paused = true)]
async fn runs_of_one_key_never_overlap_other_keys_run() {
    let machine = Machine::new(12);
    *machine.kernel.takes.lock().unwrap() = Duration::from_secs(2);
    let mut agent = machine.boot();
    let hints = agent.run();
    for _ in 0..200 {
        (1..=12).for_each(|number| drop(hints.send(Hint::key(session_key(number)))));
        sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(machine.kernel.most_at_once(), (1, 12));
    assert!((1..=12).all(|number| agent.status(number).phase == Phase::Established));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_fails_backs_off_alone_until_something_changes() {
    let machine = Machine::new(3);
    machine.kernel.refuses.lock().unwrap().insert(interface(2));
    let mut agent = machine.boot();
    let hints = agent.run();
    let began = Instant::now();
    sleep(LONG).await;
    assert_eq!(agent.status(2).phase, Phase::Error);
    assert!(
        agent
            .status(2)
            .last_error
            .unwrap()
            .contains("Operation not permitted")
    );
    for other in [1, 3] {
        assert_eq!(agent.status(other).phase, Phase::Established);
    }
    let tries: Vec<_> = {
        let asked = machine.kernel.asked.lock().unwrap();
        let of_second = asked.iter().filter(|(_, name)| *name == interface(2));
        of_second
            .map(|(at, _)| at.duration_since(began).as_secs())
            .collect()
    };
    // Twice as long each time, at least half of it, up to five minutes.
    let waits: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((15..=35).contains(&tries.len()), "{tries:?}");
    assert!(
        waits[..3].iter().all(|wait| *wait <= 9) && waits.iter().all(|wait| *wait <= 311),
        "{waits:?}"
    );
    assert!(waits[waits.len() - 1] >= 150, "{waits:?}");
    // Whoever says that it changed does not wait for the backoff.
    machine.kernel.refuses.lock().unwrap().clear();
    hints.send(Hint::key(session_key(2))).unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(agent.status(2).phase, Phase::Established);
}

#[tokio::test(start_paused = true)]
async fn endless_change_blocks_only_its_own_key() {
    let machine = Machine::new(8);
    machine.kernel.hangs.lock().unwrap().insert(interface(1));
    let mut agent = machine.boot();
    let _hints = agent.run();
    sleep(Duration::from_secs(60)).await;
    assert!((2..=8).all(|number| agent.status(number).phase == Phase::Established));
    assert_ne!(agent.status(1).phase, Phase::Established);
}

#[tokio::test(start_paused = true)]
async fn rejected_bird_text_is_an_error_of_one_session() {
    let machine = Machine::new(3);
    machine.bird.refuses.lock().unwrap().insert(name(2));
    let agent = machine.boot();
    agent.pass().await;
    assert_eq!(agent.status(2).phase, Phase::Error);
    assert!(
        agent
            .status(2)
            .last_error
            .unwrap()
            .contains("BIRD configuration failed: syntax error")
    );
    assert!(
        [1, 3]
            .iter()
            .all(|number| agent.status(*number).phase == Phase::Established)
    );
}

#[tokio::test(start_paused = true)]
async fn tunnels_are_configured_while_bird_is_down() {
    let machine = Machine::new(2);
    *machine.bird.down.lock().unwrap() = true;
    let mut agent = machine.boot();
    let _hints = agent.run();
    sleep(Duration::from_secs(30)).await;
    assert_eq!(machine.kernel.links().len(), 2);
    assert_ne!(agent.status(1).phase, Phase::Error, "{:?}", agent.status(1));
    *machine.bird.down.lock().unwrap() = false;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(agent.status(1).phase, Phase::Established);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_hints_of_an_object_read_its_link_alone() {
    let machine = Machine::new(2);
    let mut agent = machine.boot();
    let hints = agent.run();
    sleep(Duration::from_secs(5)).await;
    *machine.kernel.looks.lock().unwrap() = 0;
    *machine.kernel.glances.lock().unwrap() = 0;
    (0..10_000).for_each(|_| drop(hints.send(Hint::key(session_key(1)))));
    sleep(Duration::from_millis(500)).await;
    assert_eq!(*machine.kernel.looks.lock().unwrap(), 0);
    let glances = *machine.kernel.glances.lock().unwrap();
    assert!((1..=3).contains(&glances), "{glances} glances");
}

#[tokio::test(start_paused = true)]
async fn unannounced_drift_is_repaired_within_the_tick() {
    let machine = Machine::new(2);
    let mut agent = machine.boot();
    let _hints = agent.run();
    sleep(Duration::from_secs(30)).await;
    let wanted = machine.in_effect();
    machine
        .kernel
        .model
        .lock()
        .unwrap()
        .links
        .remove(&interface(1));
    machine
        .kernel
        .model
        .lock()
        .unwrap()
        .links
        .get_mut(&interface(2))
        .unwrap()
        .mtu = 1300;
    sleep(Duration::from_secs(11)).await;
    assert_eq!(machine.in_effect(), wanted);
}

#[tokio::test(start_paused = true)]
async fn removals_beyond_the_guard_wait_for_approval() {
    let machine = Machine::new(10);
    let agent = machine.boot();
    agent.pass().await;
    let all = machine.in_effect();
    for number in 1..=4 {
        agent
            .store()
            .remove_document(Kind::BgpSession, &name(number).parse().unwrap())
            .unwrap();
    }
    agent.pass().await;
    assert_eq!(
        machine.in_effect(),
        all,
        "four of ten are more than the guard lets pass"
    );
    let names = (1..=4)
        .map(|number| format!("sessions/{}", name(number)))
        .collect();
    moenet_agent::store::Store::approve(&machine.state(), &names).unwrap();
    agent.pass().await;
    assert_eq!((machine.kernel.links().len(), agent.applied()), (6, 6));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_removed_while_the_listing_is_incomplete() {
    let machine = Machine::new(10);
    let agent = machine.boot();
    agent.pass().await;
    let all = machine.in_effect();
    let folder = machine.state().join("sessions");
    std::fs::remove_file(folder.join(format!("{}.yaml", name(1)))).unwrap();
    std::fs::rename(&folder, machine.state().join("elsewhere")).unwrap();
    agent.pass().await;
    assert_eq!(
        machine.in_effect(),
        all,
        "a folder that is gone proves nothing"
    );
}

/// Kills the agent at one step, starts it anew, and returns what is in force then. Says too whether the
/// agent had that many steps to take.
async fn crash_and_restart(machine: &Machine, death: Death) -> (lab::InEffect, bool) {
    machine.fate.die_at(Some(death));
    let mut agent = machine.boot();
    agent.relist();
    let _hints = agent.run();
    // It hangs at the step, as does everything after it.
    sleep(Duration::from_secs(30)).await;
    let reached = machine.fate.steps() > death.step;
    agent.kill().await;
    machine.fate.die_at(None);
    let agent = machine.boot();
    for _ in 0..3 {
        agent.pass().await;
    }
    let before = (
        machine.kernel.asked.lock().unwrap().len(),
        *machine.bird.sets.lock().unwrap(),
    );
    agent.pass().await;
    let after = (
        machine.kernel.asked.lock().unwrap().len(),
        *machine.bird.sets.lock().unwrap(),
    );
    assert_eq!(before, after, "not at rest after {death:?}");
    (machine.in_effect(), reached)
}

/// Every way to die while the agent brings a machine, made by `prepare`, to rest.
async fn die_everywhere(prepare: impl AsyncFn() -> Machine) -> usize {
    let undisturbed = prepare().await;
    undisturbed.fate.die_at(None);
    let agent = undisturbed.boot();
    for _ in 0..3 {
        agent.pass().await;
    }
    let wanted = undisturbed.in_effect();
    for step in 0.. {
        for done in [false, true] {
            let machine = prepare().await;
            let (found, reached) = crash_and_restart(&machine, Death { step, done }).await;
            assert_eq!(
                found, wanted,
                "killed at step {step}, its effect there: {done}"
            );
            if !reached {
                return step;
            }
        }
    }
    unreachable!("the steps come to an end")
}

#[tokio::test(start_paused = true)]
async fn kill_during_setup_converges_after_restart() {
    let steps = die_everywhere(async || Machine::new(2)).await;
    assert!(steps >= 20, "only {steps} steps");
}

#[tokio::test(start_paused = true)]
async fn link_that_cannot_be_read_is_left_alone_and_reported() {
    let machine = Machine::new(2);
    let agent = machine.boot();
    agent.pass().await;
    let (before, asked) = (
        machine.in_effect(),
        machine.kernel.asked.lock().unwrap().len(),
    );
    *machine.kernel.unread.lock().unwrap() = [interface(1)].into();
    sleep(Duration::from_secs(1)).await;
    agent.pass().await;
    assert_eq!(machine.in_effect(), before);
    assert_eq!(machine.kernel.asked.lock().unwrap().len(), asked);
    let status = agent.status(1);
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.condition_type == ConditionType::TunnelConfigured)
        .unwrap();
    assert_eq!(
        (condition.reason.as_str(), status.last_error),
        ("Unread", None)
    );
    let way_out =
        "its process hangs; the next pass reads it again, and `moenet-agent restart wg_1`";
    assert!(condition.message.contains(way_out), "{}", condition.message);
    assert_eq!(agent.status(2).phase, Phase::Established);
    machine.kernel.unread.lock().unwrap().clear();
    sleep(Duration::from_secs(1)).await;
    agent.pass().await;
    assert_eq!(agent.status(1).phase, Phase::Established);
}

#[tokio::test(start_paused = true)]
async fn record_stays_while_the_process_of_its_link_starts() {
    let machine = Machine::new(4);
    let agent = machine.boot();
    agent.pass().await;
    // The guard counts none of them as new.
    sleep(2 * LONG).await;
    // An earlier run was killed while it created this link, and its document was removed meanwhile.
    let body = AppliedBody {
        interfaces: [interface(9)].into(),
        creating: Some(interface(9)),
        ..AppliedBody::default()
    };
    let metadata = Metadata {
        name: name(9).parse().unwrap(),
        uid: Some(uid(9).parse().unwrap()),
        generation: 1,
    };
    let record = AppliedDocument::new(Kind::BgpSession, metadata, body);
    agent.store().write_applied(&record).unwrap();
    *machine.kernel.starting.lock().unwrap() = [interface(9)].into();
    for _ in 0..3 {
        agent.pass().await;
        assert_eq!(agent.context.desired().held(), []);
        assert_eq!(agent.applied(), 5);
        sleep(Duration::from_secs(60)).await;
    }
    machine.kernel.starting.lock().unwrap().clear();
    agent.pass().await;
    assert_eq!(agent.applied(), 4);
}

#[tokio::test(start_paused = true)]
async fn restart_touches_nothing_that_could_not_be_made_again() {
    let machine = Machine::new(1);
    let agent = machine.boot();
    let mut spec = session(1, "Enabled");
    spec["tunnel"]["endpoint"] = "peer.example:51820".into();
    write::<BgpSessionSpec>(agent.store(), &name(1), &uid(1), spec);
    agent.pass().await;
    let before = machine.kernel.model.lock().unwrap().links.clone();
    let answer = agent.context.restarts.ask(session_key(1));
    sleep(Duration::from_secs(1)).await;
    agent.pass().await;
    let error = answer.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("has no address"), "{error}");
    assert_eq!(machine.kernel.model.lock().unwrap().links, before);
}

/// Two sessions in force, of which one is to go.
async fn leaving() -> Machine {
    let machine = Machine::new(2);
    let agent = machine.boot();
    agent.pass().await;
    write::<BgpSessionSpec>(agent.store(), &name(1), &uid(1), session(1, "Absent"));
    machine
}

#[tokio::test(start_paused = true)]
async fn kill_during_removal_completes_after_restart() {
    let steps = die_everywhere(leaving).await;
    assert!(steps >= 2, "only {steps} steps");
    let machine = leaving().await;
    let agent = machine.boot();
    agent.pass().await;
    agent.pass().await;
    assert_eq!(
        machine.kernel.links().keys().collect::<Vec<_>>(),
        [&interface(2)]
    );
    let left: Vec<_> = ["sessions", "applied/sessions", "status/sessions"]
        .iter()
        .filter(|folder| {
            machine
                .state()
                .join(folder)
                .join(format!("{}.yaml", name(1)))
                .exists()
        })
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn session_removed_during_its_first_commit_leaves_nothing() {
    let machine = Machine::new(2);
    let mut agent = machine.boot();
    let hints = agent.run();
    sleep(Duration::from_secs(30)).await;
    for wait in (0..300).step_by(30) {
        write::<BgpSessionSpec>(agent.store(), &name(3), &uid(3), session(3, "Enabled"));
        agent.relist();
        hints.send(Hint::key(session_key(3))).unwrap();
        sleep(Duration::from_millis(wait)).await;
        write::<BgpSessionSpec>(agent.store(), &name(3), &uid(3), session(3, "Absent"));
        agent.relist();
        hints.send(Hint::key(session_key(3))).unwrap();
        sleep(Duration::from_secs(30)).await;
        assert!(!machine.kernel.links().contains_key(&interface(3)));
        let fragments = machine.bird.tree.lock().unwrap().fragments.clone();
        assert!(!fragments.contains_key(&name(3)), "after {wait} ms");
        assert_eq!(agent.applied(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn stop_ends_what_has_begun_and_begins_nothing_else() {
    for wait in (0..100).step_by(5) {
        let machine = Machine::new(2);
        let mut agent = machine.boot();
        let hints = agent.run();
        hints.send(Hint::key(session_key(1))).unwrap();
        sleep(Duration::from_millis(wait)).await;
        agent.stop(hints).await;
        let (links, fragments) = machine.in_effect();
        let there = [links.len(), fragments.len(), agent.applied()];
        assert!(
            there.iter().all(|count| *count == there[0]),
            "{wait} ms: {there:?}"
        );
    }
}
