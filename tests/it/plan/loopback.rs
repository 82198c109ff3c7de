//! Properties of the plan of the node's own addresses, on a dummy device of ours or on an interface that
//! is shared.

use std::collections::BTreeSet;

use moenet_agent::model::{Address, InterfaceName, Uid};
use moenet_agent::observed::Mark;
use moenet_agent::observed::kernel::{Link, LinkKind};
use moenet_agent::plan::action::{KernelAction, NewLink};
use moenet_agent::plan::{Action, Loopback, Plan, plan_loopback};
use proptest::prelude::*;
use proptest::sample::Index;

use super::kernel::{ModelKernel, new_link};
use super::observed::addresses;

#[derive(Debug, Clone)]
struct World {
    want: Loopback,
    kernel: ModelKernel,
    /// Whether the record names the device as being created.
    created: bool,
}

fn uid() -> Uid {
    "local/node/jp1".parse().unwrap()
}

fn world() -> impl Strategy<Value = World> {
    let mark = prop::sample::select(vec![
        Mark::None,
        Mark::Ours(uid()),
        Mark::Earlier(uid()),
        Mark::Foreign("mine".into()),
        Mark::Foreign(format!("moenet-agent:2:00000000000000ff:{}", uid())),
    ]);
    let addresses = (addresses(), any::<[bool; 3]>()).prop_map(|(mut there, [all, v4, v6])| {
        // The owner of a foreign interface may have added the node's addresses.
        there.extend(if all { ours(true, true) } else { ours(v4, v6) });
        there
    });
    let there = prop::option::of((mark, any::<[bool; 2]>(), addresses));
    (
        prop::sample::select(vec!["lo", "dummy0"]),
        there,
        any::<[bool; 3]>(),
        any::<[bool; 2]>(),
    )
        .prop_map(|(name, there, [v4, v6, renamed], [v4_before, v6_before])| {
            let name: InterfaceName = name.parse().unwrap();
            let mut kernel = ModelKernel {
                uid: Some(uid()),
                loopback: Some(name.clone()),
                ..ModelKernel::default()
            };
            if let Some((mark, [up, addrgen_none], addresses)) = there {
                kernel.insert(
                    &name,
                    Link {
                        up,
                        addrgen_none,
                        addresses,
                        ..device(&name, mark)
                    },
                );
            } else if name.as_str() == "lo" {
                kernel.insert(&name, device(&name, Mark::None));
            }
            if renamed {
                kernel.insert(&"dummy9".parse().unwrap(), device(&name, Mark::Ours(uid())));
            }
            let want = Loopback {
                uid: uid(),
                interface: name,
                addresses: ours(v4, v6),
                ours_before: ours(v4_before, v6_before),
            };
            let created = false;
            World {
                want,
                kernel,
                created,
            }
        })
}

fn device(name: &InterfaceName, mark: Mark) -> Link {
    let link = new_link(&NewLink::Dummy, false).unwrap();
    match name.as_str() {
        "lo" => Link {
            kind: LinkKind::Loopback,
            mtu: 65536,
            ..link
        },
        _ => Link { mark, ..link },
    }
}

fn ours(v4: bool, v6: bool) -> BTreeSet<Address> {
    let v4 = v4.then(|| "172.23.105.177".parse().unwrap());
    let v6 = v6.then(|| "fd48:4242:420::1".parse().unwrap());
    Loopback::addresses(v4, v6)
}

impl World {
    /// The plan; nothing if the interface is refused.
    fn plan(&self) -> Plan {
        let creating = self.is_half_created().then_some(&self.want.interface);
        match plan_loopback(&self.want, creating, &self.kernel.observe()) {
            Ok(plan) => plan,
            Err(refusal) => {
                assert!(self.is_foreign(), "{refusal}");
                Plan::default()
            }
        }
    }

    /// Whether the plan created a device and ended before it was marked.
    fn is_half_created(&self) -> bool {
        self.created && self.link().is_some_and(|link| link.mark == Mark::None)
    }

    /// Whether the interface is neither `lo` nor the agent's.
    fn is_foreign(&self) -> bool {
        let strange = |link: &Link| link.kind != LinkKind::Loopback && !link.mark.is(&uid());
        !self.is_half_created() && self.link().is_some_and(strange)
    }

    fn apply(&mut self, plan: &Plan, steps: usize) {
        for step in &plan.steps[..steps] {
            let Action::Kernel(action) = &step.action else {
                panic!("{step}")
            };
            self.created |= matches!(action, KernelAction::CreateLink { .. });
            self.kernel
                .apply(action)
                .unwrap_or_else(|error| panic!("{step}: {error}"));
        }
    }

    fn link(&self) -> Option<&Link> {
        self.kernel.links.get(&self.want.interface)
    }

    /// The addresses on the interface that we neither want nor ever put there.
    fn strange(&self) -> BTreeSet<Address> {
        let have = self
            .link()
            .map(|link| link.addresses.clone())
            .unwrap_or_default();
        let ours = |address: &Address| {
            self.want.addresses.contains(address) || self.want.ours_before.contains(address)
        };
        have.into_iter().filter(|address| !ours(address)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn node_addresses_need_one_pass(mut world in world()) {
        if world.is_foreign() {
            return Ok(());
        }
        let plan = world.plan();
        world.apply(&plan, plan.steps.len());
        let have: BTreeSet<_> =
            world.link().map(|link| link.addresses.iter().map(|have| have.local.addr()).collect()).unwrap_or_default();
        prop_assert!(world.want.addresses.iter().all(|want| have.contains(&want.local.addr())));
        prop_assert!(world.plan().is_empty(), "{:?}", world.plan());
        let devices = world.kernel.observe().owned_by(&uid()).filter(|(name, _)| **name != world.want.interface).count();
        prop_assert!(devices == 0 || world.want.addresses.is_empty());
    }

    #[test]
    fn a_crash_after_any_step_still_gives_the_nodes_addresses(mut world in world(), crash in any::<Index>()) {
        let plan = world.plan();
        world.apply(&plan, crash.index(plan.steps.len() + 1));
        let rest = world.plan();
        world.apply(&rest, rest.steps.len());
        prop_assert!(world.plan().is_empty());
    }

    #[test]
    fn foreign_device_is_never_changed(world in world()) {
        if !world.is_foreign() {
            return Ok(());
        }
        let plan = world.plan();
        for step in &plan.steps {
            let Action::Kernel(action) = &step.action else { panic!("{step}") };
            prop_assert_ne!(action.interface(), Some(&world.want.interface));
        }
        // A device of the agent goes only once the addresses are elsewhere.
        let link = world.link().unwrap();
        let has = |want: &Address| link.addresses.iter().any(|have| have.local.addr() == want.local.addr());
        let is_complete = link.up && world.want.addresses.iter().all(has);
        prop_assert!(plan.steps.is_empty() || is_complete || world.want.addresses.is_empty());
    }

    #[test]
    fn shared_interface_loses_only_the_agents_addresses(mut world in world()) {
        if world.link().is_none_or(|link| link.mark.is(&uid())) {
            return Ok(());
        }
        let strange = world.strange();
        let plan = world.plan();
        world.apply(&plan, plan.steps.len());
        prop_assert!(strange.is_subset(&world.strange()));
    }

    #[test]
    fn without_any_address_no_device_is_made(mut world in world()) {
        world.want.addresses.clear();
        let before = world.kernel.links.len();
        let plan = world.plan();
        world.apply(&plan, plan.steps.len());
        prop_assert!(world.kernel.links.len() <= before);
    }
}
