use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::bird::{MainFile, Version};
use crate::config::Config;
use crate::controller::guard;
use crate::effective::Secrets;
use crate::model::{Endpoint, ObjectName, RouterKey};
use crate::render::{Features, Renderer, RoaTable};
use crate::resolve::Resolution;
use crate::status::RoaFacts;
use crate::store::Snapshot;
use crate::wire::Rejected;

/// What a world is made from.
pub struct Inputs<'a> {
    /// The state directory.
    pub snapshot: &'a Snapshot,
    /// The agent's configuration.
    pub config: &'a Config,
    /// The files in `secrets/` that documents name.
    pub secrets: &'a Secrets,
    /// Our WireGuard key.
    pub key: &'a RouterKey,
    /// The templates, or why they cannot be used.
    pub renderer: Result<&'a Renderer, &'a str>,
    /// What BIRD understands, or why that is not known.
    pub features: Result<Features, &'a str>,
    /// The version of BIRD, where it is known.
    pub bird: Option<Version>,
    /// Why the templates on disk are not those in use.
    pub templates_refused: Option<String>,
    /// The cached table of ROAs.
    pub roa: Option<&'a RoaTable>,
    /// What is known of ROAs, live and cached.
    pub roas: RoaFacts,
    /// Where the names of RPKI servers lead.
    pub rpki: &'a BTreeMap<Endpoint, Resolution>,
    /// The measured classes of links.
    pub classes: &'a BTreeMap<ObjectName, Measured>,
    /// The sessions that BIRD's directory has files for.
    pub fragments: &'a BTreeSet<String>,
    /// BIRD's main file.
    pub main: &'a MainFile,
    /// The lines of the file `approved`: changes that an operator let happen.
    pub approved: &'a BTreeSet<String>,
    /// What the guard remembers.
    pub guard: guard::Input<'a>,
    /// What the Control Plane said and what does not decode.
    pub refused: &'a Refused,
    /// Addresses of the host, and those that it must reach.
    pub reach: &'a super::Reach,
    /// Now.
    pub now: Timestamp,
}

/// What the Control Plane said last and what does not decode: what is in force for it stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// Sessions.
    pub sessions: Vec<Rejected>,
    /// Peers of the backbone.
    pub mesh: Vec<Rejected>,
    /// Internal neighbours.
    pub ibgp: Vec<Rejected>,
    /// The node.
    pub node: Option<String>,
    /// The routing policy.
    pub policy: Option<String>,
    /// What it said of the policy that is no error, and hardly meant.
    pub remarks: Vec<String>,
}

/// What probes found out about a link, in DN42's classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Latency, 1 to 9.
    pub latency: Option<u8>,
    /// Loss, 91 to 94.
    pub loss: Option<u8>,
}
