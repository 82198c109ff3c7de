//! The packet filter of the tunnels: which ports and links it is about, and what brings our table there.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use table::{NAME as TABLE_NAME, TABLE, Table, deletion, dropping, is_listed};

use super::action::{KernelAction, NewLink};
use super::kernel_view::{KernelView, Link, LinkKind};
use super::{Action, Drift, Refusal, Step};
use crate::model::{InterfaceName, Port};

/// What the firewall is to do: accept the UDP ports of tunnels, and clamp the MSS of TCP through them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The tunnels, each with the port it listens on.
    tunnels: BTreeMap<InterfaceName, Option<Port>>,
}

impl Ruleset {
    /// A ruleset for these tunnels.
    pub fn new(tunnels: impl IntoIterator<Item = (InterfaceName, Option<Port>)>) -> Self {
        Self {
            tunnels: tunnels.into_iter().collect(),
        }
    }

    /// The ruleset for the tunnels that really are there: all our tunnel links, and the ports that those
    /// of WireGuard listen on now, whatever some document wants.
    pub fn in_use(view: &KernelView) -> Self {
        let tunnels = view.links.iter().filter(|(_, link)| is_our_tunnel(link));
        Self::new(tunnels.map(|(name, link)| (name.clone(), port(link))))
    }

    /// The ruleset for the tunnels that will be there after these steps: what `plan` shows before any of
    /// them was taken.
    #[must_use]
    pub fn after<'a>(
        mut self,
        steps: impl IntoIterator<Item = &'a Step>,
        view: &KernelView,
    ) -> Self {
        for step in steps {
            if let Action::Kernel(action) = &step.action {
                self.follow(action, view);
            }
        }
        self
    }

    fn follow(&mut self, action: &KernelAction, view: &KernelView) {
        match action {
            KernelAction::CreateLink { interface, kind } if *kind != NewLink::Dummy => {
                self.tunnels.insert(interface.clone(), None);
            }
            KernelAction::SetMark { interface, .. } if !self.tunnels.contains_key(interface) => {
                let adopted = view.links.get(interface).filter(|link| is_tunnel(link));
                self.tunnels
                    .extend(adopted.map(|link| (interface.clone(), port(link))));
            }
            KernelAction::ConfigureWireGuard { interface, patch } => {
                if let Some(port) = self.tunnels.get_mut(interface) {
                    *port = patch.listen_port.or(*port);
                }
            }
            KernelAction::DeleteLink { interface, .. } => drop(self.tunnels.remove(interface)),
            KernelAction::RenameLink { interface, to, .. } => {
                if let Some(port) = self.tunnels.remove(interface) {
                    self.tunnels.insert(to.clone(), port);
                }
            }
            _ => {}
        }
    }

    /// The UDP ports to accept.
    pub fn ports(&self) -> BTreeSet<Port> {
        self.tunnels.values().flatten().copied().collect()
    }

    /// The tunnels whose TCP connections get a fitting MSS.
    pub fn interfaces(&self) -> impl Iterator<Item = &InterfaceName> {
        self.tunnels.keys()
    }
}

fn is_our_tunnel(link: &Link) -> bool {
    link.mark.is_ours() && is_tunnel(link)
}

fn is_tunnel(link: &Link) -> bool {
    use LinkKind::{Gre, Ip6Gre, Tun, WireGuard};
    matches!(link.kind, WireGuard | Tun | Gre | Ip6Gre)
}

fn port(link: &Link) -> Option<Port> {
    link.wireguard.as_ref()?.listen_port
}

/// Whether a step may change which tunnels there are, or where they listen.
pub fn concerns_firewall(step: &Step) -> bool {
    match &step.action {
        Action::Kernel(KernelAction::ConfigureWireGuard { patch, .. }) => {
            patch.listen_port.is_some()
        }
        Action::Kernel(KernelAction::CreateLink { kind, .. }) => *kind != NewLink::Dummy,
        Action::Kernel(action) => {
            matches!(
                action,
                KernelAction::SetMark { .. }
                    | KernelAction::RenameLink { .. }
                    | KernelAction::DeleteLink { .. }
            )
        }
        _ => false,
    }
}

/// One change of the firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirewallAction {
    /// Put the table in place of what is there.
    Install(Ruleset),
    /// Delete the table.
    Remove,
}

impl fmt::Display for FirewallAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Install(ruleset) => write!(
                f,
                "write nftables table {TABLE} ({}, {})",
                counted(ruleset.ports().len(), "UDP port"),
                counted(ruleset.tunnels.len(), "tunnel")
            ),
            Self::Remove => write!(f, "delete nftables table {TABLE}"),
        }
    }
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The packet filter as it was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FirewallView {
    /// The table of our name.
    pub table: Option<Table>,
    /// Chains of other tables that drop what they do not accept, as `inet filter input`.
    pub dropping: Vec<String>,
}

/// Compares what is wanted (nothing, when the firewall is disabled) with what is there.
///
/// # Errors
/// When a table of our name is there that does not carry our mark.
pub fn plan_firewall(
    wanted: Option<&Ruleset>,
    found: Option<&Table>,
) -> Result<Option<Step>, Refusal> {
    let (action, because) = match (wanted, found) {
        (None, None) => return Ok(None),
        (None, Some(found)) if !found.is_ours() => return Ok(None),
        (None, Some(_)) => (
            FirewallAction::Remove,
            Drift::surplus("firewall.enabled", TABLE),
        ),
        (Some(wanted), None) => (
            FirewallAction::Install(wanted.clone()),
            Drift::missing("firewall.table", TABLE),
        ),
        (Some(_), Some(found)) if !found.is_ours() => return Err(foreign()),
        (Some(wanted), Some(found)) => match found.difference(wanted) {
            Some(drift) => (FirewallAction::Install(wanted.clone()), drift),
            None => return Ok(None),
        },
    };
    Ok(Some(Step {
        action: Action::Firewall(action),
        because,
    }))
}

fn foreign() -> Refusal {
    let reason = format!(
        "nftables table {TABLE} is there and does not carry our mark; rename it, or set firewall.enabled to false"
    );
    Refusal {
        field: "firewall.enabled",
        reason,
    }
}

#[cfg(test)]
mod tests;
