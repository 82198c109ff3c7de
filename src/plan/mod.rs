//! Comparing what is wanted with what is there. Pure: a plan is data, and says of each step why.
//!
//! | file | compares |
//! |---|---|
//! | `tunnel` | one tunnel as a whole: its link, then the facets below, in the kernel's order |
//! | `link` | existence, ownership, kind, state, MTU, sysctls |
//! | `address` | addresses, and the routes that the kernel makes for them |
//! | `wireguard` | keys, port, peers |
//! | `loopback` | the node's own addresses |
//! | `mark` | whose an object is, by its mark |
//! | `host` | the sysctls of all links together |
//! | `firewall` | our table in nftables |
//! | `bird` | the text of a session, and of everything the sessions share, and what a new one does to them |
//!
//! The order of the steps is the kernel's: create, mark, WireGuard (a port is cheap before the link is
//! up), addresses, MTU, sysctls, up, firewall, and BIRD last; an IPv6 address with a peer comes after up. Removal goes the other way.

pub mod action;
mod address;
mod bird;
pub mod firewall;
mod host;
pub mod kernel_view;
mod link;
mod loopback;
pub mod mark;
mod ownership;
mod session;
mod step;
mod tunnel;
mod wireguard;

pub use bird::{BaseFiles, Effect, enabled_in, plan_base, plan_enable};
pub use host::{forwarding_blocked, plan_host};
pub use loopback::{Loopback, plan_loopback};
pub use ownership::SharedOwnership;
pub use session::{BirdView, Desired, Observed, plan};
pub use step::{Action, Drift, Plan, Refusal, Step};
pub use tunnel::{
    TunnelView, WantedTunnel, plan_interrupted_removal, plan_tunnel, plan_tunnel_removal,
};
pub use wireguard::{HANDSHAKE_FRESH_SECONDS, WantedWireGuard};
