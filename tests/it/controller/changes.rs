//! Changes from outside among many sessions: one that the kernel announces costs a look at one link, one of WireGuard is
//! found at the next tick, and what did not change is left until its turn.

use std::time::Duration;

use moenet_agent::controller::Hint;
use moenet_agent::document::Phase;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep};

use super::lab::{Agent, Machine, interface, session_key};

/// Returns a machine with many settled sessions, one second after a tick.
async fn settled(sessions: u8) -> (Machine, Agent, UnboundedSender<Hint>) {
    let machine = Machine::new(sessions);
    let mut agent = machine.boot();
    let hints = agent.run();
    sleep(Duration::from_secs(121)).await;
    assert!((1..=sessions).all(|number| agent.status(number).phase == Phase::Established));
    *machine.kernel.looks.lock().unwrap() = 0;
    *machine.kernel.wireguard_looks.lock().unwrap() = 0;
    *machine.kernel.glances.lock().unwrap() = 0;
    *machine.bird.looks.lock().unwrap() = 0;
    (machine, agent, hints)
}

fn set_mtu(machine: &Machine, number: u8, mtu: u32) {
    let mut model = machine.kernel.model.lock().unwrap();
    model.links.get_mut(&interface(number)).unwrap().mtu = mtu;
}

fn mtu(machine: &Machine, number: u8) -> u32 {
    machine.kernel.links()[&interface(number)].mtu
}

#[tokio::test(start_paused = true)]
async fn start_of_many_sessions_reads_the_kernel_three_times() {
    let machine = Machine::new(50);
    *machine.kernel.takes.lock().unwrap() = Duration::from_millis(20);
    *machine.bird.delay.lock().unwrap() = Duration::from_millis(300);
    let mut agent = machine.boot();
    let _hints = agent.run();
    sleep(Duration::from_secs(8)).await;
    assert!((1..=50).all(|number| agent.status(number).phase == Phase::Established));
    // For the plans, to read the kernel's steps back, and for the sessions that come up.
    let looks = *machine.kernel.looks.lock().unwrap();
    assert!(looks <= 3, "{looks} looks");
    assert_eq!(machine.bird.reloads.lock().unwrap().0, 1);
}

#[tokio::test(start_paused = true)]
async fn first_pass_has_every_session_beside_the_first_tick() {
    // Which of several events a task sees first is random.
    for _ in 0..8 {
        let machine = Machine::new(120);
        *machine.kernel.takes.lock().unwrap() = Duration::from_millis(20);
        let mut agent = machine.boot();
        let hints = agent.run();
        hints.send(Hint::Everything).unwrap();
        sleep(Duration::from_secs(8)).await;
        assert!((1..=120).all(|number| agent.status(number).phase == Phase::Established));
        // To plan, and to read back.
        assert_eq!(*machine.kernel.looks.lock().unwrap(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn link_that_changes_during_a_commit_is_repaired() {
    for announced in [true, false] {
        let machine = Machine::new(3);
        *machine.bird.delay.lock().unwrap() = Duration::from_secs(2);
        let mut agent = machine.boot();
        let hints = agent.run();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(agent.status(2).phase, Phase::Pending, "BIRD works on it");
        let wanted = mtu(&machine, 2);
        set_mtu(&machine, 2, 1300);
        if announced {
            hints
                .send(Hint::Link(session_key(2), interface(2)))
                .unwrap();
        }
        sleep(Duration::from_secs(if announced { 1 } else { 10 })).await;
        assert_eq!(mtu(&machine, 2), wanted, "announced: {announced}");
    }
}

#[tokio::test(start_paused = true)]
async fn announced_change_is_repaired_at_once_without_a_dump() {
    let (machine, _agent, hints) = settled(150).await;
    let wanted = mtu(&machine, 7);
    set_mtu(&machine, 7, 1300);
    let changed = Instant::now();
    hints
        .send(Hint::Link(session_key(7), interface(7)))
        .unwrap();
    while mtu(&machine, 7) != wanted {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(changed.elapsed() <= Duration::from_millis(100));
    sleep(Duration::from_secs(1)).await;
    let (looks, glances, of_bird) = (
        *machine.kernel.looks.lock().unwrap(),
        *machine.kernel.glances.lock().unwrap(),
        *machine.bird.looks.lock().unwrap(),
    );
    assert_eq!(
        (looks, of_bird),
        (0, 0),
        "dumps of the kernel, looks at BIRD"
    );
    assert!((1..=3).contains(&glances), "{glances} looks at links");
}

#[tokio::test(start_paused = true)]
async fn events_of_the_agents_own_steps_cause_no_further_plan() {
    let (machine, agent, hints) = settled(150).await;
    *machine.kernel.takes.lock().unwrap() = Duration::from_millis(20);
    set_mtu(&machine, 7, 1300);
    let (_, before) = agent.context.pulse.counts();
    for _ in 0..40 {
        let event = Hint::Link(session_key(7), interface(7));
        hints.send(event).unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_secs(1)).await;
    let (_, plans) = agent.context.pulse.counts();
    assert_eq!(
        plans - before,
        2,
        "one plan, and one that reads its steps back"
    );
}

#[tokio::test(start_paused = true)]
async fn deleted_link_that_is_announced_is_made_again() {
    let (machine, agent, hints) = settled(150).await;
    let before = machine.kernel.links();
    let gone = interface(7);
    machine.kernel.model.lock().unwrap().links.remove(&gone);
    hints
        .send(Hint::Link(session_key(7), interface(7)))
        .unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        machine.kernel.links()[&interface(7)].mark,
        before[&interface(7)].mark
    );
    assert_eq!(agent.status(7).phase, Phase::Established);
}

#[tokio::test(start_paused = true)]
async fn unannounced_change_is_repaired_at_the_next_tick() {
    let (machine, _agent, _hints) = settled(150).await;
    let wanted = mtu(&machine, 7);
    for number in [7, 8, 9, 100, 150] {
        set_mtu(&machine, number, 1300);
        let changed = Instant::now();
        while mtu(&machine, number) != wanted {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(changed.elapsed() <= Duration::from_secs(11));
    }
}

/// The dumps of the kernel, and the looks at WireGuard alone.
fn looks(machine: &Machine) -> (usize, usize) {
    let kernel = &machine.kernel;
    let (all, of_wireguard) = (kernel.looks.lock(), kernel.wireguard_looks.lock());
    (*all.unwrap(), *of_wireguard.unwrap())
}

fn keepalive(machine: &Machine, number: u8, change: Option<u16>) -> Option<u16> {
    let mut model = machine.kernel.model.lock().unwrap();
    let link = model.links.get_mut(&interface(number)).unwrap();
    let mut peers = link.wireguard.as_mut().unwrap().peers.values_mut();
    let peer = peers.next().unwrap();
    peer.keepalive = change.or(peer.keepalive);
    peer.keepalive
}

#[tokio::test(start_paused = true)]
async fn at_rest_most_ticks_read_wireguard_alone() {
    let (machine, agent, _hints) = settled(150).await;
    agent.context.observer.announced(None);
    sleep(Duration::from_secs(60)).await;
    // Of two turns one reads all links.
    assert_eq!(looks(&machine), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn event_of_any_link_makes_the_next_tick_read_all() {
    let (machine, agent, _hints) = settled(150).await;
    agent.context.observer.announced(None);
    sleep(Duration::from_secs(20)).await;
    let before = looks(&machine);
    for _ in 0..4 {
        agent.context.observer.announced(None);
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(looks(&machine), (before.0 + 4, before.1));
}

#[tokio::test(start_paused = true)]
async fn link_that_was_read_alone_needs_no_dump() {
    let (machine, agent, hints) = settled(150).await;
    agent.context.observer.announced(None);
    sleep(Duration::from_secs(20)).await;
    let (before, wanted) = (looks(&machine), mtu(&machine, 7));
    set_mtu(&machine, 7, 1300);
    agent.context.observer.announced(Some(interface(7)));
    let event = Hint::Link(session_key(7), interface(7));
    hints.send(event).unwrap();
    sleep(Duration::from_secs(40)).await;
    assert_eq!(mtu(&machine, 7), wanted);
    // Of two turns one reads all links, as without the change.
    assert_eq!(looks(&machine), (before.0 + 2, before.1 + 2));
}

#[tokio::test(start_paused = true)]
async fn session_that_comes_up_needs_its_link_alone() {
    let (machine, agent, hints) = settled(150).await;
    let protocols = agent.context.desired().objects[&session_key(7)]
        .wanted()
        .unwrap()
        .protocols();
    machine.bird.connecting.lock().unwrap().extend(protocols);
    agent.context.observer.announced(None);
    sleep(Duration::from_secs(20)).await;
    let (before, wanted) = (looks(&machine), mtu(&machine, 7));
    let (glances, of_bird) = (&machine.kernel.glances, &machine.bird.looks);
    let begun = (*glances.lock().unwrap(), *of_bird.lock().unwrap());
    set_mtu(&machine, 7, 1300);
    agent.context.observer.announced(Some(interface(7)));
    let event = Hint::Link(session_key(7), interface(7));
    hints.send(event).unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(mtu(&machine, 7), wanted);
    // To plan, to read back, and to see whether the session comes up.
    assert_eq!(*glances.lock().unwrap() - begun.0, 3);
    assert_eq!(*of_bird.lock().unwrap() - begun.1, 1);
    assert_eq!(looks(&machine), before);
}

#[tokio::test(start_paused = true)]
async fn unannounced_change_of_wireguard_is_repaired_at_the_next_tick() {
    let (machine, agent, _hints) = settled(150).await;
    agent.context.observer.announced(None);
    let wanted = keepalive(&machine, 7, None);
    for number in [7, 8, 9, 100, 150] {
        keepalive(&machine, number, Some(99));
        let changed = Instant::now();
        while keepalive(&machine, number, None) != wanted {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(changed.elapsed() <= Duration::from_secs(11));
    }
}

#[tokio::test(start_paused = true)]
async fn other_unannounced_change_waits_for_the_dump() {
    let (machine, agent, _hints) = settled(150).await;
    agent.context.observer.announced(None);
    sleep(Duration::from_secs(10)).await;
    let wanted = mtu(&machine, 7);
    set_mtu(&machine, 7, 1300);
    let changed = Instant::now();
    while mtu(&machine, 7) != wanted {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(changed.elapsed() <= Duration::from_secs(21));
}

#[tokio::test(start_paused = true)]
async fn change_that_a_tick_finds_is_planned_from_its_observation() {
    let (machine, agent, _hints) = settled(150).await;
    agent.context.observer.announced(None);
    sleep(Duration::from_secs(20)).await;
    let before = looks(&machine);
    let of_bird = *machine.bird.looks.lock().unwrap();
    let wanted = keepalive(&machine, 7, None);
    // Of some the turn is at that tick, and of others not.
    for number in [7, 8, 9] {
        keepalive(&machine, number, Some(99));
        sleep(Duration::from_secs(10)).await;
        assert_eq!(keepalive(&machine, number, None), wanted);
    }
    let (now, ticks) = (looks(&machine), 3);
    assert_eq!(
        now.0 + now.1 - before.0 - before.1,
        2 * ticks,
        "and one that reads the steps back"
    );
    assert_eq!(*machine.bird.looks.lock().unwrap() - of_bird, 2 * ticks);
}

#[tokio::test(start_paused = true)]
async fn each_of_many_objects_is_planned_once_in_a_while() {
    let (_machine, agent, _hints) = settled(150).await;
    let (_, before) = agent.context.pulse.counts();
    sleep(Duration::from_secs(60)).await;
    let (_, plans) = agent.context.pulse.counts();
    // In six ticks every session has three turns, and what all share has six.
    let made = plans - before;
    assert!(
        (3 * 150..=3 * 150 + 20).contains(&made),
        "{made} plans in a minute"
    );
}

#[tokio::test(start_paused = true)]
async fn removed_status_files_are_written_again() {
    let (machine, _agent, _hints) = settled(3).await;
    let session = format!("sessions/{}.yaml", interface(2));
    let files = [session.as_str(), "node.yaml", "policy.yaml"];
    let files = files.map(|file| machine.state().join("status").join(file));
    for file in &files {
        std::fs::remove_file(file).unwrap();
    }
    sleep(Duration::from_secs(11)).await;
    assert!(files.iter().all(|file| file.exists()));
}
