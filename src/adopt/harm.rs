//! The steps of a plan that interrupt a tunnel or reset a session.

use std::net::IpAddr;

use serde::Serialize;

use crate::observed::bird::Protocol;
use crate::plan::action::{KernelAction, WireGuardPatch};
use crate::plan::{Drift, Plan};

/// The effect of one step on a running tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Harm {
    pub interface: String,
    /// Whether the link is deleted or created; otherwise its tunnel or a session in it is interrupted.
    pub recreates: bool,
    /// The sessions that a lost address resets.
    pub sessions: Vec<String>,
    pub step: String,
    pub because: String,
}

impl Harm {
    /// Returns the harmful steps of a plan. `protocols` are those of the running daemon.
    pub fn of(plan: &Plan, protocols: &[Protocol]) -> Vec<Self> {
        let steps = plan.steps.iter();
        let harmful = steps
            .filter_map(|step| Self::of_action(step.action.kernel()?, &step.because, protocols));
        harmful.collect()
    }

    fn of_action(action: &KernelAction, because: &Drift, protocols: &[Protocol]) -> Option<Self> {
        let interface = action.interface()?.as_str();
        let (recreates, sessions) = match action {
            KernelAction::CreateLink { .. }
            | KernelAction::DeleteLink { .. }
            | KernelAction::RenameLink { .. } => (true, Vec::new()),
            KernelAction::ConfigureWireGuard { patch, .. } if interrupts(patch) => {
                (false, Vec::new())
            }
            KernelAction::RemoveAddress { address, .. } => {
                let sessions = from(address.local.addr(), interface, protocols);
                if sessions.is_empty() {
                    return None;
                }
                (false, sessions)
            }
            _ => return None,
        };
        Some(Self {
            interface: interface.to_owned(),
            recreates,
            sessions,
            step: action.to_string(),
            because: format!(
                "{}: want {}, have {}",
                because.field, because.want, because.have
            ),
        })
    }
}

/// Returns whether the neighbour's packets are lost from then on, or until the neighbour finds the new port.
fn interrupts(patch: &WireGuardPatch) -> bool {
    let changed_secret = |peer: &crate::plan::action::PeerPatch| peer.preshared_key.is_some();
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
    use crate::plan::Step;

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
        Harm::of(&Plan { steps, waits: None }, protocols)
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
        assert!(harms(removal(), &[session("fe80::1", "fe80::2%wg2")]).is_empty());
        assert!(harms(removal(), &[session("fe80::3", "fe80::2%wg1")]).is_empty());
    }

    #[test]
    fn creation_of_a_link_is_a_recreation() {
        let interface: InterfaceName = "wg1".parse().unwrap();
        let kind = crate::plan::action::NewLink::WireGuard;
        let created = harms(
            KernelAction::CreateLink {
                interface: interface.clone(),
                kind,
            },
            &[],
        );
        assert!(created[0].recreates);
        assert!(harms(KernelAction::SetUp { interface }, &[]).is_empty());
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
}
