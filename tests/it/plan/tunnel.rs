//! Properties of the plan of a session.

use std::collections::BTreeMap;

use moenet_agent::model::{InterfaceName, ObjectName};
use moenet_agent::observed::Mark;
use moenet_agent::observed::kernel::{HANDSHAKE_FRESH_SECONDS, KernelView, Link, LinkKind, Unread};
use moenet_agent::plan::action::KernelAction;
use moenet_agent::plan::{
    Action, ObjectObservation, Plan, Refusal, WantedTunnel, plan_removal, plan_session,
};
use proptest::prelude::*;
use proptest::sample::Index;

use super::kernel::has_ipv6;
use super::observed::{World, interface, now, world};
use super::wanted::{uid, wanted};

fn name() -> ObjectName {
    "peer".parse().unwrap()
}

impl World {
    fn observed<'a>(&'a self, kernel: &'a KernelView) -> ObjectObservation<'a> {
        ObjectObservation {
            formerly: None,
            kernel,
            creating: self.creating.as_ref(),
            resolved: self.wanted.resolved,
            endpoint_changed: self.wanted.endpoint_changed,
            gives_way: false,
            now: now(),
            fragment: self.fragment.as_deref(),
        }
    }

    fn plan_present(&self) -> Result<Plan, Refusal> {
        let (kernel, wanted) = (self.kernel.observe(), &self.wanted);
        let observed = self.observed(&kernel);
        plan_session(&name(), &wanted.tunnel, &wanted.fragment, &observed)
    }

    fn plan_removal(&self) -> Plan {
        let kernel = self.kernel.observe();
        plan_removal(&name(), &uid(), &self.observed(&kernel))
    }

    /// Applies the first steps of a plan, as the controller does: what is about to be created is written
    /// down before the first step.
    fn apply(&mut self, plan: &Plan, steps: usize) {
        self.creating = self.creating.take().or_else(|| plan.creates().cloned());
        for step in &plan.steps[..steps] {
            match &step.action {
                Action::Kernel(action) => self.kernel.apply(action).unwrap_or_else(|error| {
                    panic!("{step}: {error}\nof {}", shown(plan));
                }),
                Action::WriteFragment { text, .. } => self.fragment = Some(text.to_string()),
                Action::RemoveFragment { .. } => self.fragment = None,
                other => panic!("no step of a session: {other}"),
            }
        }
    }

    /// Applies steps as the controller does, up to the first that the kernel refuses. Returns whether one was.
    fn apply_until_refused(&mut self, plan: &Plan) -> bool {
        actions(plan).any(|action| self.kernel.apply(action).is_err())
    }

    fn apply_all(&mut self, plan: &Plan) {
        self.apply(plan, plan.steps.len());
        self.creating = None;
    }

    /// Plans and applies until there is nothing to do, and says how often there was something.
    pub(super) fn converge(&mut self) -> Result<usize, Refusal> {
        for round in 0..=2 {
            let plan = self.plan_present()?;
            if plan.is_empty() {
                return Ok(round);
            }
            self.apply_all(&plan);
        }
        panic!("still not there: {}", shown(&self.plan_present()?));
    }

    fn link(&self) -> Option<&Link> {
        self.kernel.links.get(&interface())
    }

    /// Everything but what belongs to this session after all is done.
    fn others(&self) -> BTreeMap<InterfaceName, Link> {
        let mut links = self.kernel.links.clone();
        let ours = [interface(), temporary()];
        links.retain(|name, link| !ours.contains(name) && !link.mark.is(&uid()));
        links
    }
}

/// Where a link of another kind is made before the old one goes.
fn temporary() -> InterfaceName {
    InterfaceName::temporary(uid().as_str())
}

fn shown(plan: &Plan) -> String {
    plan.steps
        .iter()
        .map(|step| format!("\n- {step}"))
        .collect()
}

/// Whether the link is what was wanted, told without the planner's help.
fn is_as_wanted(want: &WantedTunnel, view: &KernelView) -> bool {
    let Some(link) = view.links.get(&want.interface) else {
        return false;
    };
    let plain = link.up
        && link.addrgen_none
        && link.mark.is(&want.uid)
        && link.mtu == u32::from(want.mtu.get())
        && link.addresses == want.addresses
        && view.owned_by(&want.uid).count() == 1
        && WantedTunnel::sysctls(view) == link.sysctls;
    let wireguard = want.wireguard.as_ref().is_none_or(|want| {
        let Some(have) = &link.wireguard else {
            return false;
        };
        let peers: Vec<_> = have.peers.iter().collect();
        let [(key, peer)] = peers[..] else {
            return false;
        };
        (*key, have.public_key, have.listen_port)
            == (want.peer, want.key.public(), Some(want.listen_port))
            && (&peer.preshared_key, peer.keepalive) == (&want.preshared_key, want.keepalive)
            && peer.allowed_ips.iter().all(|net| net.prefix_len() == 0)
            && peer.allowed_ips.len() == 2
    });
    plain && wireguard
}

/// Whether the plan may be refused: a link of this name is there that is neither ours, nor half-made by
/// us, nor one that we were told to adopt.
fn is_in_the_way(world: &World) -> bool {
    world.link().is_some_and(|link| {
        let adopted = world.wanted.tunnel.adopt
            && world.wanted.tunnel.wireguard.is_some()
            && link.wireguard.is_some();
        !link.mark.is(&uid()) && !(link.mark == Mark::None && (adopted || world.creating.is_some()))
    })
}

fn actions(plan: &Plan) -> impl Iterator<Item = &KernelAction> {
    plan.steps.iter().filter_map(|step| match &step.action {
        Action::Kernel(action) => Some(action),
        _ => None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applied_plan_reaches_the_goal_and_is_empty(mut world in world()) {
        // Where the MTU is below what IPv6 needs, the kernel makes IPv6 anew once it is raised, with an
        // address of its own: that is seen in a second look.
        let usable = |link: &Link| link.mark.is(&uid()) || link.mark == Mark::None;
        let second_look = world.kernel.links.values().any(|link| usable(link) && !has_ipv6(link));
        if let Ok(rounds) = world.converge() {
            prop_assert!(rounds <= 1 || second_look, "{rounds} rounds");
            prop_assert!(is_as_wanted(&world.wanted.tunnel, &world.kernel.observe()), "{:#?}", world.link());
            prop_assert_eq!(world.fragment, Some(world.wanted.fragment));
        }
    }

    #[test]
    fn a_crash_after_any_step_still_converges(mut world in world(), crashes in prop::collection::vec(any::<Index>(), 1..4)) {
        for crash in crashes {
            let Ok(plan) = world.plan_present() else { return Ok(()) };
            world.apply(&plan, crash.index(plan.steps.len() + 1));
        }
        prop_assert!(world.converge().is_ok());
        prop_assert!(is_as_wanted(&world.wanted.tunnel, &world.kernel.observe()));
    }

    #[test]
    fn what_cannot_be_made_costs_no_tunnel(mut world in world()) {
        world.kernel.lacks.insert(world.wanted.tunnel.kind.to_string());
        let works = |world: &World| world.kernel.links.iter()
            .filter(|(_, link)| link.mark.is(&uid()) && link.up)
            .map(|(_, link)| link.index)
            .collect::<Vec<_>>();
        let before = works(&world);
        let Ok(plan) = world.plan_present() else { return Ok(()) };
        if world.apply_until_refused(&plan) {
            prop_assert_eq!(works(&world), before, "{}", shown(&plan));
        }
    }

    #[test]
    fn a_foreign_link_is_the_same_before_and_after(mut world in world()) {
        let others = world.others();
        let _ = world.converge();
        prop_assert_eq!(world.others(), others);
    }

    #[test]
    fn foreign_link_in_the_way_refuses_the_plan(world in world()) {
        match world.plan_present() {
            Err(refusal) => {
                prop_assert!(is_in_the_way(&world), "{refusal}");
                prop_assert_eq!(refusal.field, "spec.tunnel.interface");
            }
            Ok(_) => prop_assert!(!is_in_the_way(&world)),
        }
    }

    #[test]
    fn absent_removes_all_that_is_ours_and_nothing_else(mut world in world(), crash in any::<Index>()) {
        if let Ok(plan) = world.plan_present() {
            world.apply(&plan, crash.index(plan.steps.len() + 1));
        }
        let others = world.others();
        let stranger = world.link().filter(|_| is_in_the_way(&world)).cloned();
        let plan = world.plan_removal();
        world.apply_all(&plan);
        prop_assert_eq!(world.others(), others);
        prop_assert_eq!(world.kernel.observe().owned_by(&uid()).count(), 0);
        prop_assert!(world.link().is_none() || stranger.is_some() || world.wanted.tunnel.adopt);
        prop_assert_eq!(&world.fragment, &None);
        prop_assert!(world.plan_removal().is_empty());
    }

    #[test]
    fn a_removal_that_crashes_goes_on_where_it_stopped(mut world in world(), crash in any::<Index>()) {
        let plan = world.plan_removal();
        world.apply(&plan, crash.index(plan.steps.len() + 1));
        let rest = world.plan_removal();
        world.apply_all(&rest);
        prop_assert!(world.plan_removal().is_empty());
    }

    #[test]
    fn no_link_is_deleted_twice_or_created_unwanted(world in world()) {
        let Ok(plan) = world.plan_present() else { return Ok(()) };
        let mut deleted = std::collections::BTreeSet::new();
        for action in actions(&plan) {
            match action {
                KernelAction::DeleteLink { interface, .. } => prop_assert!(deleted.insert(interface)),
                KernelAction::CreateLink { interface: made, .. } => {
                    prop_assert!([interface(), temporary()].contains(made));
                }
                _ => {}
            }
        }
        let made = actions(&plan).filter(|action| matches!(action, KernelAction::CreateLink { .. })).count();
        prop_assert!(made <= 1);
    }

    #[test]
    fn what_is_of_the_right_kind_is_changed_in_place(mut world in world(), wishes in prop::collection::vec(wanted(), 1..4)) {
        if world.converge().is_err() {
            return Ok(());
        }
        let index = world.link().unwrap().index;
        let kind = world.wanted.tunnel.kind.clone();
        for wish in wishes.into_iter().filter(|wish| wish.tunnel.kind == kind) {
            world.wanted = wish;
            world.converge().unwrap();
            prop_assert_eq!(world.link().unwrap().index, index);
        }
    }

    #[test]
    fn a_peer_that_roamed_and_answers_is_left_alone(mut world in world(), age in 0i64..400, port in 1u16..) {
        if world.converge().is_err() {
            return Ok(());
        }
        world.wanted.endpoint_changed = false;
        let Some(want) = world.wanted.tunnel.wireguard.clone() else { return Ok(()) };
        let link = world.kernel.links.get_mut(&interface()).unwrap();
        let peer = link.wireguard.as_mut().unwrap().peers.get_mut(&want.peer).unwrap();
        peer.endpoint = Some(std::net::SocketAddr::from(([203, 0, 113, 9], port)));
        peer.last_handshake = jiff::Timestamp::from_second(now().as_second() - age).ok();
        let plan = world.plan_present().unwrap();
        let pushed_back = age >= HANDSHAKE_FRESH_SECONDS && world.wanted.resolved.is_some();
        prop_assert_eq!(plan.steps.len(), usize::from(pushed_back), "{}", shown(&plan));
    }

    #[test]
    fn removed_endpoint_is_forgotten_unless_the_peer_answers(mut world in world(), age in 0i64..400) {
        world.wanted.endpoint_changed = true;
        world.wanted.resolved = None;
        let Some(want) = world.wanted.tunnel.wireguard.as_mut() else { return Ok(()) };
        want.calls = false;
        let peer_key = want.peer;
        if world.converge().is_err() {
            return Ok(());
        }
        let peer = |world: &World| {
            world.link().unwrap().wireguard.as_ref().unwrap().peers[&peer_key].clone()
        };
        let mut silent = peer(&world);
        silent.endpoint = "203.0.113.9:51820".parse().ok();
        silent.last_handshake = jiff::Timestamp::from_second(now().as_second() - age).ok();
        let link = world.kernel.links.get_mut(&interface()).unwrap();
        link.wireguard.as_mut().unwrap().peers.insert(peer_key, silent);
        world.converge().unwrap();
        prop_assert_eq!(peer(&world).endpoint.is_some(), age < HANDSHAKE_FRESH_SECONDS);
        prop_assert!(is_as_wanted(&world.wanted.tunnel, &world.kernel.observe()));
    }

    #[test]
    fn link_that_cannot_be_read_is_left_alone(mut world in world(), wish in wanted(), userspace in any::<bool>()) {
        if world.converge().is_err() || world.wanted.tunnel.wireguard.is_none() {
            return Ok(());
        }
        let link = world.kernel.links.get_mut(&interface()).unwrap();
        (link.wireguard, link.unread) = (None, Some(Unread::new("it hangs")));
        if userspace {
            link.kind = LinkKind::Tun;
        }
        world.wanted = wish;
        let plan = world.plan_present().unwrap();
        prop_assert_eq!(actions(&plan).count(), 0, "{}", shown(&plan));
        prop_assert!(plan.waits.is_some());
    }

    #[test]
    fn a_plan_is_the_same_for_the_same_input(world in world()) {
        prop_assert_eq!(world.plan_present(), world.plan_present());
    }
}
