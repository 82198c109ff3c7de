//! The firewall of the tunnels: a table of our own in nftables, off by default. What it must hold is
//! compared in [`plan::firewall`](crate::plan::firewall); here it is read and written.
//!
//! The table `inet moenet_agent` accepts the UDP ports of the tunnels that exist, and clamps the MSS
//! of TCP through them, forwarded and of this router itself (anycast breaks path MTU discovery).
//! No other table is changed, and of others nothing is read but the default policies of their chains. The
//! table is written in one transaction, so there is no moment without it. It is ours by the comment on its
//! rules, which carries the identity of the state directory; a table of this name without it is left alone. Where
//! another agent on this host has the name, ours is `moenet_agent_<identity>`.
//!
//! **An accept in this table does not override a drop in another.** In nftables each base chain of a
//! hook decides for itself: `accept` ends only its own chain, `drop` ends the packet (nft(8),
//! "VERDICT STATEMENTS"). Where a chain of another table drops what it does not know, its operator adds
//! there: `udp dport { … } accept`. The node's condition `FirewallConfigured` names such chains.

mod nft;

use async_trait::async_trait;

pub use nft::Nft;

use crate::plan::firewall::{FirewallAction, FirewallView};

/// The packet filter of this router, as far as it is ours.
#[async_trait]
pub trait Firewall: Send + Sync {
    /// Reads the table of our name, and the chains that drop whatever it accepts.
    async fn observe(&self) -> Result<FirewallView, FirewallError>;

    /// Makes one change in one transaction, and reads back that it is in force.
    async fn apply(&self, action: &FirewallAction) -> Result<(), FirewallError>;

    /// How many changes were attempted since the start.
    fn writes(&self) -> u64;
}

/// Why the firewall could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// There is no `nft`.
    #[error(
        "{operation}: {program} not found; install the Debian package `nftables`, or set firewall.enabled to false"
    )]
    Missing {
        /// What was attempted.
        operation: &'static str,
        /// What was looked for.
        program: String,
    },
    /// `nft` could not be started or spoken with.
    #[error("{operation}: run nft: {source}")]
    Run {
        /// What was attempted.
        operation: &'static str,
        /// The system's words.
        source: std::io::Error,
    },
    /// `nft` or the kernel refused.
    #[error("{operation}: nft says: {message}{}", advice(message))]
    Refused {
        /// What was attempted.
        operation: &'static str,
        /// Its words, cut.
        message: String,
    },
    /// `nft` did not end.
    #[error(
        "{operation}: nft did not end within {seconds} s; another program may hold the ruleset, we try again"
    )]
    Deadline {
        /// What was attempted.
        operation: &'static str,
        /// How long we waited.
        seconds: u64,
    },
    /// `nft` printed something that is not what `nft -j` prints.
    #[error(
        "{operation}: nft printed what is no ruleset in JSON ({reason}); nftables 1.0 or later is needed"
    )]
    Output {
        /// What was attempted.
        operation: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The change was accepted, and what is read back is not it.
    #[error(
        "{operation}: accepted by nft, but then {difference}; does another program change our table?"
    )]
    NotInForce {
        /// What was attempted.
        operation: &'static str,
        /// What differs.
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
