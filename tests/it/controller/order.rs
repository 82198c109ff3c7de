//! Objects take over names, ports and uuids from each other: no error meanwhile, and nothing is made that is there.
//! See `tests/cases/ports-of-two-sessions-swapped`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use moenet_agent::controller::Hint;
use moenet_agent::document::{BgpSessionSpec, Phase};
use serde_json::Value;
use tokio::time::sleep;

use super::lab::{Agent, Machine, interface, name, session, session_key, uid, write};

/// The link of each session, by its uid: name, index and port.
fn links(machine: &Machine) -> BTreeMap<String, (String, u32, u16)> {
    let model = machine.kernel.model.lock().unwrap();
    let of = |(name, link): (
        &moenet_agent::model::InterfaceName,
        &moenet_agent::observed::kernel::Link,
    )| {
        let port = link.wireguard.as_ref()?.listen_port?;
        let owner = link.mark.object()?.to_string();
        Some((owner, (name.to_string(), link.index, port.get())))
    };
    model.links.iter().filter_map(of).collect()
}

/// Changes documents of a running agent and follows it for a while. No session is in error at any moment.
async fn change(agent: &mut Agent, changes: &[(u8, Value)], sessions: u8) -> usize {
    let hints = agent.run();
    sleep(Duration::from_secs(15)).await;
    for (number, spec) in changes {
        write::<BgpSessionSpec>(agent.store(), &name(*number), &uid(*number), spec.clone());
    }
    agent.relist();
    for (number, _) in changes {
        hints.send(Hint::key(session_key(*number))).unwrap();
    }
    let mut looks = 0;
    for _ in 0..1500 {
        sleep(Duration::from_millis(20)).await;
        for number in 1..=sessions {
            let status = agent.status(number);
            assert_ne!(status.phase, Phase::Error, "{status:?}");
            assert_eq!(status.last_error, None);
            looks += 1;
        }
    }
    looks
}

fn on_port(number: u8, port: u16) -> Value {
    let mut spec = session(number, "Enabled");
    spec["tunnel"]["listenPort"] = port.into();
    spec
}

fn on_interface(number: u8, other: u8) -> Value {
    let mut spec = session(number, "Enabled");
    spec["tunnel"]["interface"] = name(other).into();
    spec
}

#[tokio::test(start_paused = true)]
async fn two_sessions_swap_ports_in_place_and_without_an_error() {
    let machine = Machine::new(3);
    let mut agent = machine.boot();
    agent.pass().await;
    let before = links(&machine);
    let steps = machine.kernel.asked.lock().unwrap().len();
    change(
        &mut agent,
        &[(1, on_port(1, 21_002)), (2, on_port(2, 21_001))],
        3,
    )
    .await;
    let after = links(&machine);
    for (number, port) in [(1, 21_002), (2, 21_001), (3, 21_003)] {
        let (name, index, _) = before[&uid(number)].clone();
        assert_eq!(after[&uid(number)], (name, index, port));
        assert_eq!(agent.status(number).phase, Phase::Established);
    }
    let steps = machine.kernel.asked.lock().unwrap().len() - steps;
    assert_eq!(steps, 3, "one of them through a port in between");
}

#[tokio::test(start_paused = true)]
async fn ports_go_around_a_ring_and_along_a_chain() {
    let machine = Machine::new(6);
    let mut agent = machine.boot();
    agent.pass().await;
    let before = links(&machine);
    let ring = [(1, 21_002), (2, 21_003), (3, 21_001)];
    let chain = [(4, 21_005), (5, 21_006), (6, 21_099)];
    let changes: Vec<_> = ring
        .iter()
        .chain(&chain)
        .map(|(number, port)| (*number, on_port(*number, *port)))
        .collect();
    change(&mut agent, &changes, 6).await;
    let after = links(&machine);
    for (number, port) in ring.into_iter().chain(chain) {
        let (name, index, _) = before[&uid(number)].clone();
        assert_eq!(after[&uid(number)], (name, index, port));
    }
}

#[tokio::test(start_paused = true)]
async fn one_pass_swaps_ports_and_names() {
    for swap in [on_port(1, 21_002), on_interface(1, 2)] {
        let machine = Machine::new(2);
        let agent = machine.boot();
        agent.pass().await;
        let other = if swap["tunnel"]["listenPort"] == 21_002 {
            on_port(2, 21_001)
        } else {
            on_interface(2, 1)
        };
        write::<BgpSessionSpec>(agent.store(), &name(1), &uid(1), swap);
        write::<BgpSessionSpec>(agent.store(), &name(2), &uid(2), other);
        agent.pass().await;
        assert!(
            [1, 2]
                .iter()
                .all(|n| agent.status(*n).phase == Phase::Established)
        );
        let before = machine.kernel.asked.lock().unwrap().len();
        agent.pass().await;
        assert_eq!(machine.kernel.asked.lock().unwrap().len(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn two_sessions_swap_names_and_only_userspace_makes_links() {
    for userspace in [false, true] {
        let machine = Machine::new(2);
        machine.kernel.model.lock().unwrap().userspace = userspace;
        let mut agent = machine.boot();
        agent.pass().await;
        let before = links(&machine);
        change(
            &mut agent,
            &[(1, on_interface(1, 2)), (2, on_interface(2, 1))],
            2,
        )
        .await;
        let after = links(&machine);
        for (number, other) in [(1, 2), (2, 1)] {
            assert_eq!(after[&uid(number)].0, name(other));
            let same = after[&uid(number)].1 == before[&uid(number)].1;
            assert_eq!(same, !userspace, "the link itself stays where it can");
            assert_eq!(agent.status(number).phase, Phase::Established);
        }
        let names: BTreeSet<_> = machine.kernel.links().into_keys().collect();
        assert_eq!(names, [interface(1), interface(2)].into());
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_uuid_rewrites_the_mark_and_nothing_else() {
    let machine = Machine::new(4);
    let agent = machine.boot();
    agent.pass().await;
    let before = links(&machine);
    let texts = machine.in_effect().1;
    let steps = machine.kernel.asked.lock().unwrap().len();
    let renewed = |number: u8| format!("renewed-{number}");
    for number in 1..=4 {
        let (new, old) = (
            renewed(number).parse().unwrap(),
            uid(number).parse().unwrap(),
        );
        machine
            .kernel
            .model
            .lock()
            .unwrap()
            .renewed
            .insert(new, old);
        write::<BgpSessionSpec>(
            agent.store(),
            &name(number),
            &renewed(number),
            session(number, "Enabled"),
        );
    }
    agent.pass().await;
    let after = links(&machine);
    for number in 1..=4 {
        assert_eq!(after[&renewed(number)], before[&uid(number)]);
        assert_eq!(agent.status(number).phase, Phase::Established);
    }
    assert_eq!(machine.in_effect().1, texts);
    assert_eq!(machine.kernel.asked.lock().unwrap().len() - steps, 4);
    assert!(agent.context.desired().held().is_empty());
    let applied = &agent.store().load().unwrap().applied;
    assert!(applied.values().all(|stored| {
        let uid = stored.document.metadata.uid.as_ref().unwrap();
        uid.is_ours() || uid.as_str().starts_with("renewed-")
    }));
    // And they go like any other.
    for number in 1..=4 {
        write::<BgpSessionSpec>(
            agent.store(),
            &name(number),
            &renewed(number),
            session(number, "Absent"),
        );
    }
    agent.pass().await;
    assert!(machine.kernel.links().is_empty());
}
