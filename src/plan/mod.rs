//! Compares the wanted state with the observed state. Pure: a plan is data, and gives the reason of each step.
//!
//! | file | compares |
//! |---|---|
//! | `tunnel` | one tunnel as a whole: its link, then the facets below, in the kernel's order |
//! | `link` | existence, ownership, kind, state, MTU, sysctls |
//! | `address` | addresses, and the routes that the kernel creates for them |
//! | `wireguard` | keys, port, peers |
//! | `loopback` | the node's own addresses |
//! | `host` | the sysctls of all links together |
//! | `firewall` | the agent's table in nftables |
//! | `bird` | the text of a session and the shared files, and the effect of a new text on sessions |
//!
//! The order of the steps is the kernel's: create, mark, WireGuard (a port is cheap before the link is
//! up), addresses, MTU, sysctls, up, firewall, and BIRD last; an IPv6 address with a peer comes after up. Removal uses
//! the reverse order.

pub mod action;
mod address;
mod bird;
mod drift;
pub mod firewall;
mod host;
mod link;
mod loopback;
mod session;
mod step;
mod tunnel;
mod wanted;
mod wireguard;

pub use bird::{BaseFiles, Reset, plan_base};
pub(crate) use bird::{enabled_in, fragment, plan_enable, text_diff};
pub(crate) use drift::{Drift, Mark};
pub(crate) use host::{forwarding_blocked, plan_host};
pub use loopback::{Loopback, plan_loopback};
pub use session::{plan_removal, plan_session};
pub use step::{Action, Plan, Refusal, Step};
pub(crate) use tunnel::{plan_tunnel, plan_tunnel_removal};
pub use wanted::{ObjectObservation, WantedTunnel};
