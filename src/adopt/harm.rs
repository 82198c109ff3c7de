//! The steps of a plan that interrupt a tunnel or reset a session.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::reverse::Restoration;
use crate::observed::bird::Protocol;
use crate::observed::kernel::{KernelView, Link, Sysctl, WireGuard};
use crate::plan::action::{KernelAction, PeerPatch, WireGuardPatch};
use crate::plan::{Plan, Step};

/// What runs before the plan.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    pub kernel: &'a KernelView,
    /// The protocols of the running daemon.
    pub protocols: &'a [Protocol],
}

/// The effect of one step on a running tunnel or session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Harm {
    /// `None`: a step of BIRD's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Whether the link is deleted or created; otherwise its tunnel or a session in it is interrupted.
    pub recreates: bool,
    /// The sessions that the step resets.
    pub sessions: Vec<String>,
    pub step: String,
    pub because: String,
}

impl Harm {
    /// Returns the harmful steps of a plan. `running` is the state before it.
    pub fn of(plan: &Plan, running: Before<'_>) -> Vec<Self> {
        let steps = plan.steps.iter();
        steps
            .filter_map(|step| Self::of_step(step, running))
            .collect()
    }

    fn of_step(step: &Step, running: Before<'_>) -> Option<Self> {
        let (recreates, sessions) = match step.action.kernel() {
            Some(action) => of_action(action, running)?,
            None => {
                let resets = step.action.resets();
                let sessions: Vec<_> = resets.iter().map(ToString::to_string).collect();
                (false, Some(sessions).filter(|it| !it.is_empty())?)
            }
        };
        let interface = step.action.kernel().and_then(KernelAction::interface);
        let because = &step.because;
        Some(Self {
            interface: interface.map(ToString::to_string),
            recreates,
            sessions,
            step: step.action.to_string(),
            because: format!(
                "{}: want {}, have {}",
                because.field, because.want, because.have
            ),
        })
    }
}

/// Returns the steps of a plan that cannot be undone exactly, so that adoption refuses them: deleted and renamed links,
/// keys that the record must not hold, and a sysctl that changes every link.
pub fn irreversible<'a>(plan: &'a Plan) -> impl Iterator<Item = String> + 'a {
    let is_final = |step: &&Step| match step.action.kernel() {
        Some(KernelAction::DeleteLink { .. } | KernelAction::RenameLink { .. }) => true,
        Some(KernelAction::ConfigureWireGuard { patch, .. }) => {
            let changed_secret = |peer: &PeerPatch| peer.preshared_key.is_some();
            patch.private_key.is_some()
                || patch.release_port
                || !patch.remove_peers.is_empty()
                || patch.peers.iter().any(changed_secret)
        }
        Some(KernelAction::SetSysctl {
            interface: None,
            key,
            ..
        }) => *key != Sysctl::RpFilter,
        _ => false,
    };
    let steps = plan.steps.iter().filter(is_final);
    steps.map(|step| step.action.to_string())
}

/// Returns whether a change of the kernel recreates its link, and the sessions that it resets; `None` if it is harmless.
fn of_action(action: &KernelAction, running: Before<'_>) -> Option<(bool, Vec<String>)> {
    let interface = action.interface()?;
    match action {
        KernelAction::CreateLink { .. } if !running.kernel.links.contains_key(interface) => None,
        KernelAction::CreateLink { .. }
        | KernelAction::DeleteLink { .. }
        | KernelAction::RenameLink { .. } => Some((true, Vec::new())),
        KernelAction::ConfigureWireGuard { patch, .. } => {
            let link = running.kernel.links.get(interface);
            let have = link.and_then(|link| link.wireguard.as_ref());
            let narrowed = have.is_some_and(|have| narrows(patch, have));
            (narrowed || interrupts(patch)).then(|| (false, Vec::new()))
        }
        KernelAction::RemoveAddress { address, .. } => {
            let address = address.local.addr();
            Some((false, from(address, interface.as_str(), running.protocols)))
        }
        KernelAction::SetDown { .. } => Some((false, Vec::new())),
        _ => None,
    }
}

/// Returns the changes of an undo that interrupt a tunnel or reset a session.
pub fn of_undo(all: &[Restoration], running: Before<'_>) -> Vec<String> {
    let actions = all.iter().flat_map(|it| it.settings.iter().chain(&it.last));
    let harmful = actions.filter_map(|action| {
        let (_, sessions) = of_action(action, running)?;
        let link = running.kernel.links.get(action.interface()?);
        let is_harmless = match action {
            KernelAction::RemoveAddress { .. } => sessions.is_empty(),
            KernelAction::DeleteLink { .. } => !link.is_some_and(Link::is_wireguard),
            _ => false,
        };
        (!is_harmless).then(|| match sessions.is_empty() {
            true => action.to_string(),
            false => format!("{action}, which resets {}", sessions.join(", ")),
        })
    });
    harmful.collect()
}

/// Returns whether a peer loses a source or destination address that it has.
fn narrows(patch: &WireGuardPatch, have: &WireGuard) -> bool {
    let loses = |peer: &PeerPatch| {
        let (want, have) = (
            peer.allowed_ips.as_ref()?,
            have.peers.get(&peer.public_key)?,
        );
        let is_lost = |net: &IpNet| !want.iter().any(|it| it.contains(net));
        Some(have.allowed_ips.iter().any(is_lost))
    };
    patch.peers.iter().filter_map(loses).any(|loses| loses)
}

/// Returns whether the neighbour's packets are lost from then on, or until the neighbour finds the new port.
fn interrupts(patch: &WireGuardPatch) -> bool {
    let changed_secret = |peer: &PeerPatch| peer.preshared_key.is_some();
    patch.private_key.is_some()
        || patch.listen_port.is_some()
        || patch.release_port
        || !patch.remove_peers.is_empty()
        || patch.peers.iter().any(changed_secret)
}

/// Returns the sessions that run from this address of an interface.
fn from(address: IpAddr, interface: &str, protocols: &[Protocol]) -> Vec<String> {
    let runs_from = |protocol: &&Protocol| {
        let bgp = protocol.bgp.as_ref();
        let source = bgp.and_then(|bgp| bgp.source_address.as_deref());
        let neighbour = bgp.and_then(|bgp| bgp.neighbor_address.as_deref());
        let scope = neighbour.and_then(|text| text.split_once('%'));
        source.and_then(|text| text.parse().ok()) == Some(address)
            && scope.is_none_or(|(_, scope)| scope == interface)
    };
    let names = protocols.iter().filter(runs_from);
    names.map(|protocol| protocol.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, InterfaceName};
    use crate::observed::bird::{Bgp, ProtocolState};
    use crate::plan::Drift;

    fn session(source: &str, neighbour: &str) -> Protocol {
        Protocol {
            name: "peer".into(),
            proto: "BGP".into(),
            table: None,
            state: ProtocolState::Up,
            since: None,
            info: String::new(),
            description: None,
            message: None,
            bgp: Some(Bgp {
                source_address: Some(source.into()),
                neighbor_address: Some(neighbour.into()),
                ..Bgp::default()
            }),
            rpki: None,
            channels: Vec::new(),
        }
    }

    fn harms(action: KernelAction, protocols: &[Protocol]) -> Vec<Harm> {
        let steps = vec![Step::kernel(action, Drift::missing("f", "v"))];
        let kernel = KernelView::default();
        let before = Before {
            kernel: &kernel,
            protocols,
        };
        Harm::of(&Plan { steps, waits: None }, before)
    }

    #[test]
    fn removal_of_a_source_address_resets_its_sessions() {
        let interface: InterfaceName = "wg1".parse().unwrap();
        let removal = || KernelAction::RemoveAddress {
            interface: interface.clone(),
            address: Address::new("fe80::1/64".parse().unwrap(), None),
        };
        let found = harms(removal(), &[session("fe80::1", "fe80::2%wg1")]);
        assert_eq!(found[0].sessions, ["peer"]);
        assert!(!found[0].recreates);
        for other in [
            session("fe80::1", "fe80::2%wg2"),
            session("fe80::3", "fe80::2%wg1"),
        ] {
            let found = harms(removal(), &[other]);
            assert_eq!(found.len(), 1, "every removed address interrupts");
            assert_eq!(found[0].sessions, Vec::<String>::new());
        }
    }

    #[test]
    fn only_a_new_link_is_created_without_harm() {
        let interface: InterfaceName = "wg1".parse().unwrap();
        let plan = Plan {
            steps: vec![Step::kernel(
                KernelAction::CreateLink {
                    interface: interface.clone(),
                    kind: crate::plan::action::NewLink::WireGuard,
                },
                Drift::missing("f", "v"),
            )],
            waits: None,
        };
        let mut kernel = KernelView::default();
        let of = |kernel: &KernelView| {
            let protocols = &[];
            Harm::of(&plan, Before { kernel, protocols })
        };
        assert_eq!(of(&kernel), []);
        let link = crate::observed::kernel::Link {
            index: 1,
            kind: crate::observed::kernel::LinkKind::WireGuard,
            mtu: 1420,
            up: true,
            mark: crate::observed::Mark::None,
            addrgen_none: true,
            addresses: Default::default(),
            routes: Default::default(),
            wireguard: None,
            unread: None,
            gre: None,
            learnt: false,
            sysctls: Default::default(),
        };
        kernel.links.insert(interface.clone(), link);
        assert!(of(&kernel)[0].recreates);
        assert!(harms(KernelAction::SetUp { interface }, &[]).is_empty());
    }

    #[test]
    fn new_private_key_cannot_be_undone() {
        let patch = |private_key| WireGuardPatch {
            private_key,
            ..WireGuardPatch::default()
        };
        let count = |patch| {
            let interface = "wg1".parse().unwrap();
            let action = KernelAction::ConfigureWireGuard { interface, patch };
            let steps = vec![Step::kernel(action, Drift::missing("f", "v"))];
            irreversible(&Plan { steps, waits: None }).count()
        };
        let key = crate::model::PrivateKey::new([1; 32]);
        assert_eq!((count(patch(Some(key))), count(patch(None))), (1, 0));
    }

    #[test]
    fn changed_port_interrupts_and_empty_patch_does_not() {
        let port = WireGuardPatch {
            listen_port: crate::model::Port::new(1),
            ..WireGuardPatch::default()
        };
        assert!(interrupts(&port));
        assert!(!interrupts(&WireGuardPatch::default()));
    }

    #[test]
    fn narrowed_allowed_ips_interrupt_and_widened_do_not() {
        let key = crate::model::PublicKey::new([1; 32]);
        let nets = |text: &str| text.split(' ').map(|net| net.parse().unwrap()).collect();
        let peer = crate::observed::kernel::WireGuardPeer {
            allowed_ips: nets("10.0.0.0/8 fe80::/64"),
            ..Default::default()
        };
        let have = WireGuard {
            public_key: None,
            listen_port: None,
            peers: [(key, peer.into())].into(),
        };
        let patch = |allowed: &str| WireGuardPatch {
            peers: vec![PeerPatch {
                public_key: key,
                preshared_key: None,
                endpoint: None,
                keepalive: None,
                allowed_ips: Some(nets(allowed)),
            }],
            ..WireGuardPatch::default()
        };
        assert!(narrows(&patch("10.0.0.0/8"), &have));
        assert!(narrows(&patch("10.0.0.0/9 fe80::/10"), &have));
        assert!(!narrows(&patch("0.0.0.0/0 ::/0"), &have));
    }

    #[test]
    fn sessions_that_a_new_text_resets_are_counted() {
        let text = |hold: u8| {
            let text = format!("protocol bgp p {{ neighbor fe80::2 as 1; hold time {hold}; }}\n");
            [("main.conf".to_owned(), text.into())].into()
        };
        let kernel = KernelView::default();
        let before = Before {
            kernel: &kernel,
            protocols: &[],
        };
        let found = Harm::of(&crate::plan::plan_base(&text(60), &text(90)), before);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].sessions, ["p"]);
        assert_eq!(found[0].interface, None);
        let same = Harm::of(&crate::plan::plan_base(&text(60), &text(60)), before);
        assert_eq!(same, []);
    }
}
