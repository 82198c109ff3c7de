//! Inputs of the desired state that change on their own: each has its last state and a notification.
//!
//! | file | input |
//! |---|---|
//! | `resolve` | addresses of endpoint names |
//! | `probe` | round trips and loss of links |
//! | `classes` | probes as stable classes of links |
//! | `roa` | BIRD's tables of ROAs as the last good table on disk |
//! | `rpki` | addresses of RPKI servers |
//! | `templates` | an operator's templates, tested before use |
//! | `key` | the router's WireGuard key: read, created once, watched |
//! | `host` | addresses that the host has and must reach |
//! | `limits` | limits of BGP channels: reloads routes that a limit held back, once there is room |

mod classes;
mod host;
mod key;
pub(crate) mod limits;
pub mod probe;
pub mod resolve;
mod roa;
mod rpki;
pub(crate) mod templates;

use std::sync::Arc;

use crate::document::RoutingPolicySpec;

pub(crate) use classes::Classes;
pub(crate) use host::HostAddresses;
pub(crate) use host::{Host, control_plane};
pub(crate) use key::KeyFile;
pub(crate) use roa::{RoaTask, Roas};
pub(crate) use rpki::RpkiServers;
pub(crate) use templates::TemplateError;
pub(crate) use templates::{Rejection, Templates};

/// The inputs that only the builder of the desired state reads.
pub(crate) struct Sources {
    pub(crate) key: Arc<KeyFile>,
    pub(crate) templates: Arc<Templates>,
    pub(crate) classes: Classes,
    pub(crate) roas: Arc<Roas>,
    pub(crate) rpki: Arc<RpkiServers>,
    pub(crate) host: Host,
}

impl Sources {
    /// Waits until the state of an input changes. For one caller at a time; cancel-safe.
    pub(crate) async fn changed(&self) {
        tokio::select! {
            () = self.key.changed() => {}
            () = self.templates.changed() => {}
            () = self.roas.changed() => {}
            () = self.rpki.changed() => {}
        }
    }

    /// Uses the RPKI servers of this policy from now on.
    pub(crate) fn watch(&self, policy: &RoutingPolicySpec, rejects_unknown: bool) {
        self.rpki.watch(policy);
        self.roas.watch(policy, rejects_unknown);
    }
}
