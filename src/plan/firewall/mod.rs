//! The packet filter of the tunnels: its ports and links, and the plan for the agent's table.

mod action;
mod table;

pub use action::FirewallAction;

use std::collections::{BTreeMap, BTreeSet};

pub use table::{
    NAME as TABLE_NAME, Table, Whose, deletion, dropping, listed_names, may_be_agents, own_name,
    with_family,
};

use super::action::{KernelAction, NewLink};
use super::{Action, Drift, Refusal, Step};
use crate::model::{InterfaceName, Port};
use crate::observed::Ownership;
use crate::observed::kernel::{KernelView, Link, LinkKind};
use crate::observed::mark::{AGENT, mark_of};
use crate::util::sorted::Sorted as _;

/// The wanted firewall: accepts the UDP ports of tunnels, and clamps the MSS of TCP through them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    tunnels: BTreeMap<InterfaceName, Option<Port>>,
    /// The mark in the comment of each rule.
    mark: String,
}

impl Default for Ruleset {
    fn default() -> Self {
        Self::new([])
    }
}

impl Ruleset {
    /// Creates a ruleset for these tunnels.
    pub fn new(tunnels: impl IntoIterator<Item = (InterfaceName, Option<Port>)>) -> Self {
        Self {
            tunnels: tunnels.into_iter().sorted_map(),
            mark: AGENT.to_owned(),
        }
    }

    /// Returns the same ruleset with the mark of this state directory.
    #[must_use]
    pub fn marked(self, ownership: &Ownership) -> Self {
        let mark = ownership.identity.as_ref().map(mark_of);
        Self {
            mark: mark.unwrap_or(self.mark),
            ..self
        }
    }

    /// Returns the ruleset for the existing tunnels: all tunnel links of the agent, and the ports on which their
    /// WireGuard
    /// links listen now, independent of the documents.
    pub fn in_use(view: &KernelView) -> Self {
        let tunnels = view.links.iter().filter(|(_, link)| is_our_tunnel(link));
        Self::new(tunnels.map(|(name, link)| (name.clone(), port(link))))
    }

    /// Returns the same ruleset with ports for those of these links that could not be read and whose port was never
    /// seen.
    #[must_use]
    pub fn or_wanted(
        mut self,
        view: &KernelView,
        wanted: impl Fn(&InterfaceName) -> Option<Port>,
    ) -> Self {
        for (name, port) in &mut self.tunnels {
            if port.is_none()
                && view
                    .links
                    .get(name)
                    .is_some_and(|link| link.unread.is_some())
            {
                *port = wanted(name);
            }
        }
        self
    }

    /// Returns the ruleset for the tunnels after these steps: `plan` shows it before any step runs.
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

    /// Returns the UDP ports to accept.
    pub fn ports(&self) -> BTreeSet<Port> {
        self.tunnels.values().flatten().copied().sorted_set()
    }

    /// Returns the tunnels whose TCP connections get a clamped MSS.
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
    link.listen_port()
}

/// Returns whether a step may change which tunnels exist, or their listening ports.
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

/// The observed packet filter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FirewallView {
    /// The tables that an agent may have created, by name.
    pub tables: BTreeMap<String, Table>,
    /// Chains of other tables that drop what they do not accept, as `inet filter input`.
    pub dropping: Vec<String>,
}

/// Compares the wanted ruleset (`None` when the firewall is disabled) with the observed tables.
///
/// # Errors
/// When a table with the agent's name exists that no agent created.
pub fn plan_firewall(
    wanted: Option<&Ruleset>,
    tables: &BTreeMap<String, Table>,
    ownership: &Ownership,
) -> Result<Option<Step>, Refusal> {
    let ours = |name: &str| {
        let table = tables.get(name);
        table.filter(|table| table.whose(ownership) == Whose::Ours)
    };
    let name = match wanted {
        Some(_) => Some(chosen(tables, ownership)?),
        None => None,
    };
    // On a host with several agents, one agent may briefly have had both names.
    let is_surplus = |table: &&String| Some(*table) != name.as_ref() && ours(table).is_some();
    if let Some(surplus) = tables.keys().find(is_surplus) {
        let action = FirewallAction::Remove {
            table: surplus.clone(),
        };
        let because = Drift::surplus("firewall.enabled", with_family(surplus));
        return Ok(Some(step(action, because)));
    }
    let (Some(wanted), Some(table)) = (wanted, name) else {
        return Ok(None);
    };
    let found = ours(&table);
    let because = match found {
        None => Some(Drift::missing("firewall.table", with_family(&table))),
        Some(found) => found.difference(wanted),
    };
    Ok(because.map(|because| {
        let (replace, ruleset) = (found.is_some(), wanted.clone());
        let action = FirewallAction::Install {
            table,
            replace,
            ruleset,
        };
        step(action, because)
    }))
}

fn step(action: FirewallAction, because: Drift) -> Step {
    Step {
        action: Action::Firewall(action),
        because,
    }
}

/// Returns the name of the agent's table: the plain one, unless another agent on this host has it.
fn chosen(tables: &BTreeMap<String, Table>, ownership: &Ownership) -> Result<String, Refusal> {
    let whose = |name: &str| tables.get(name).map(|table| table.whose(ownership));
    let own = ownership.identity.as_ref().map(own_name);
    let has_own = own
        .as_ref()
        .is_some_and(|own| whose(own) == Some(Whose::Ours));
    match (whose(TABLE_NAME), own) {
        (Some(Whose::Strangers), _) | (Some(Whose::AnotherAgents), None) => Err(foreign()),
        (Some(Whose::AnotherAgents), Some(own)) => Ok(own),
        (None, Some(own)) if has_own => Ok(own),
        (None | Some(Whose::Ours), _) => Ok(TABLE_NAME.to_owned()),
    }
}

fn foreign() -> Refusal {
    let reason = format!(
        "nftables table {} exists without the agent's mark; rename it, or set firewall.enabled to \
         false",
        with_family(TABLE_NAME)
    );
    Refusal {
        field: "firewall.enabled",
        reason,
    }
}

#[cfg(test)]
mod tests;
