use std::fmt;

use super::{Ruleset, with_family};
use crate::util::text::counted;

/// One change of the firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirewallAction {
    /// Installs the table in place of the existing one.
    Install {
        table: String,
        /// Whether one of the agent's tables has this name already.
        replace: bool,
        /// Its wanted contents.
        ruleset: Ruleset,
    },
    /// Deletes one of the agent's tables.
    Remove { table: String },
}

impl fmt::Display for FirewallAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Install { table, ruleset, .. } => write!(
                f,
                "write nftables table {} ({}, {})",
                with_family(table),
                counted(ruleset.ports().len(), "UDP port"),
                counted(ruleset.tunnels.len(), "tunnel")
            ),
            Self::Remove { table } => {
                write!(f, "delete nftables table {}", with_family(table))
            }
        }
    }
}
