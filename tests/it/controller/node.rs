//! The node's own addresses, where their interface cannot be created or belongs to another program.

use std::collections::BTreeSet;
use std::time::Duration;

use moenet_agent::document::{Kind, Metadata, NodeSpec, PackedSpec, Phase};
use moenet_agent::model::{Address, InterfaceName, ObjectKey, Port};
use moenet_agent::observed::Mark;
use moenet_agent::observed::kernel::{Link, LinkKind};
use moenet_agent::plan::Loopback;
use moenet_agent::plan::action::NewLink;
use moenet_agent::store::{AppliedBody, AppliedDocument, AppliedFirewall};
use serde_json::{Value, json};

use super::lab::{Agent, Machine, write};
use crate::plan::kernel::new_link;

fn dummy0() -> InterfaceName {
    "dummy0".parse().unwrap()
}

/// The node's address, as the kernel has it.
fn own() -> BTreeSet<Address> {
    Loopback::addresses("172.23.105.177".parse().ok(), None)
}

/// A router of one session whose node has an address.
fn machine() -> (Machine, Value) {
    let machine = Machine::new(1);
    let node = json!({"id": 1, "asn": 4_242_420_998u32, "loopbackIpv4": "172.23.105.177"});
    write::<NodeSpec>(&machine.store(), "node", "uid-node", node.clone());
    let lo = Link {
        up: true,
        kind: LinkKind::Loopback,
        ..new_link(&NewLink::Dummy, false).unwrap()
    };
    let mut kernel = machine.kernel.model.lock().unwrap();
    kernel.insert(&"lo".parse().unwrap(), lo);
    kernel.loopback = "lo".parse().ok();
    drop(kernel);
    (machine, node)
}

fn record(agent: &Agent) -> Option<AppliedDocument> {
    let name = "node".parse().unwrap();
    agent.store().read_applied(Kind::Node, &name)
}

#[tokio::test(start_paused = true)]
async fn node_without_dummy_devices_keeps_its_record() {
    let (machine, node) = machine();
    *machine.kernel.lacks_dummies.lock().unwrap() = true;
    let before = AppliedBody {
        interfaces: ["other0".parse().unwrap(), dummy0()].into(),
        firewall: Some(AppliedFirewall {
            ports: [Port::MIN].into(),
            tunnels: ["wg_1".parse().unwrap()].into(),
        }),
        sysctls: [("ipv4.rp_filter".to_owned(), 1)].into(),
        spec: Some(PackedSpec::from(&node)),
        ..AppliedBody::default()
    };
    let metadata = Metadata {
        name: "node".parse().unwrap(),
        uid: None,
        generation: 1,
    };
    let document = AppliedDocument::new(Kind::Node, metadata, before.clone());
    machine.store().write_applied(&document).unwrap();
    let agent = machine.boot();
    agent.pass().await;
    let after = record(&agent).unwrap().applied;
    let expected = AppliedBody {
        interfaces: ["other0".parse().unwrap(), "lo".parse().unwrap()].into(),
        loopback_addresses: Some([].into()),
        ..before
    };
    let host = ["ipv4.rp_filter"];
    assert!(host.iter().all(|key| after.sysctls.contains_key(*key)));
    let sysctls = expected.sysctls.clone();
    assert_eq!(AppliedBody { sysctls, ..after }, expected);
    agent.pass().await;
    let lo = &machine.kernel.links()[&"lo".parse().unwrap()];
    assert_eq!(lo.addresses, own());
}

#[tokio::test(start_paused = true)]
async fn foreign_dummy_device_is_left_alone_and_stops_no_session() {
    for mark in [Mark::None, Mark::Foreign("the operator's".into())] {
        let (machine, _) = machine();
        let link = Link {
            mark,
            ..new_link(&NewLink::Dummy, false).unwrap()
        };
        let put = |link: &Link| {
            let mut kernel = machine.kernel.model.lock().unwrap();
            kernel.insert(&dummy0(), link.clone());
        };
        put(&link);
        let agent = machine.boot();
        let error = || {
            agent
                .context
                .statuses
                .get(&ObjectKey::Router)
                .unwrap()
                .last_error
                .clone()
        };
        for _ in 0..3 {
            agent.pass().await;
            let why = error().unwrap();
            assert!(why.contains("loopback.interface"), "{why}");
            assert!(why.contains("172.23.105.177/32"), "{why}");
        }
        assert_eq!(agent.status(1).phase, Phase::Established);
        assert!(!machine.bird.tree.lock().unwrap().base.is_empty());
        let asked = machine.kernel.asked.lock().unwrap().clone();
        assert!(asked.iter().all(|(_, name)| *name != dummy0()), "{asked:?}");
        let applied = record(&agent).and_then(|record| record.applied.spec);
        assert_eq!(applied, None, "it is not in effect");
        // Its owner adds the address.
        put(&Link {
            addresses: own(),
            up: true,
            ..link
        });
        // A later pass observes the kernel again.
        tokio::time::sleep(Duration::from_secs(1)).await;
        agent.pass().await;
        assert_eq!(error(), None);
        let asked = machine.kernel.asked.lock().unwrap().clone();
        assert!(asked.iter().all(|(_, name)| *name != dummy0()), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_node_address_does_not_keep_bird_from_its_files() {
    let (machine, _) = machine();
    machine.kernel.refuses.lock().unwrap().insert(dummy0());
    let agent = machine.boot();
    agent.pass().await;
    let router = agent.context.statuses.get(&ObjectKey::Router).unwrap();
    let why = router.last_error.as_deref().unwrap();
    assert!(why.contains("Operation not permitted"), "{why}");
    assert!(!machine.bird.tree.lock().unwrap().base.is_empty());
}
