//! The firewall of the tunnels: the agent's table in nftables, off by default. The wanted contents are
//! compared in [`plan::firewall`](crate::plan::firewall); this module reads and writes it.
//!
//! The table `inet moenet_agent` accepts the UDP ports of the tunnels that exist, and clamps the MSS
//! of TCP through them, both forwarded and of this router itself (anycast breaks path MTU discovery).
//! No other table is changed, and only the default policies of the chains of other tables are read. The
//! table is written in one transaction, so there is no moment without it. It is recognised by the comment on its
//! rules, which carries the identity of the state directory; a table of this name without it is left alone. If
//! another agent on this host has the name, the table is `moenet_agent_<identity>`.
//!
//! **An accept in this table does not override a drop in another.** In nftables each base chain of a
//! hook decides for itself: `accept` ends only its own chain, `drop` ends the packet (nft(8),
//! "VERDICT STATEMENTS"). If a chain of another table drops unknown packets, its operator adds
//! there: `udp dport { … } accept`. The node's condition `FirewallConfigured` names such chains.

mod nft;

use async_trait::async_trait;

pub use nft::Nft;

use crate::plan::firewall::{FirewallAction, FirewallView};

/// The agent's part of this router's packet filter.
#[async_trait]
pub trait Firewall: Send + Sync {
    /// Reads the agent's tables, and the chains that drop packets they accept.
    async fn observe(&self) -> Result<FirewallView, FirewallError>;

    /// Makes one change in one transaction, and reads back that it is applied.
    async fn apply(&self, action: &FirewallAction) -> Result<(), FirewallError>;

    /// Returns the number of attempted changes since the start.
    fn writes(&self) -> u64;
}

/// Reason why the firewall could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// `nft` is not installed.
    #[error(
        "{operation}: {program} not found; install the Debian package `nftables`, or set firewall.enabled to false"
    )]
    Missing {
        operation: &'static str,
        program: String,
    },
    /// `nft` could not be started, or its pipes failed.
    #[error("{operation}: run nft: {source}")]
    Run {
        operation: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// `nft` or the kernel refused the change.
    #[error("{operation}: nft says: {message}{}", advice(message))]
    Refused {
        operation: &'static str,
        /// The error message, cut.
        message: String,
    },
    /// `nft` did not end.
    #[error(
        "{operation}: nft did not end within {seconds} s; another program may hold the ruleset; \
         the agent retries"
    )]
    Deadline {
        operation: &'static str,
        /// How long the agent waited.
        seconds: u64,
    },
    /// The output is not that of `nft -j`.
    #[error(
        "{operation}: nft printed no ruleset in JSON ({reason}); nftables 1.0 or later is needed"
    )]
    Output {
        operation: &'static str,
        reason: String,
    },
    /// The change was accepted, but the table that was read back differs.
    #[error(
        "{operation}: accepted by nft, but then {difference}; does another program change the \
         agent's table?"
    )]
    NotInEffect {
        operation: &'static str,
        difference: String,
    },
}

fn advice(message: &str) -> &'static str {
    if message.contains("Operation not permitted") {
        "; the agent needs CAP_NET_ADMIN"
    } else if message.contains("not supported") {
        "; the kernel lacks nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET, CONFIG_NFT_RT)"
    } else {
        ""
    }
}
