use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::FeaturesError;
use crate::config::Config;
use crate::controller::guard;
use crate::effective::Secrets;
use crate::model::{Endpoint, ObjectName, RoaTable, RouterKey};
use crate::observed::bird::{MainFile, Version};
use crate::render::Measured;
use crate::render::{Features, Renderer};
use crate::sources::TemplateError;
use crate::status::{RoaFacts, RpkiName};
use crate::store::Snapshot;
use crate::wire::Rejected;

/// Inputs of a world.
pub struct Inputs<'a> {
    /// The state directory.
    pub snapshot: &'a Snapshot,
    /// The agent's configuration.
    pub config: &'a Config,
    /// The files in `secrets/` that documents name.
    pub secrets: &'a Secrets,
    /// The agent's WireGuard key.
    pub key: &'a RouterKey,
    /// The templates, or the reason why they cannot be used.
    pub renderer: Result<&'a Renderer, &'a TemplateError>,
    /// The features of BIRD, or the reason why they are unknown.
    pub features: Result<Features, &'a FeaturesError>,
    /// The version of BIRD, if known.
    pub bird: Option<Version>,
    /// The reason why the templates on disk are not in use.
    pub templates_refused: Option<TemplateError>,
    pub roa: Option<&'a RoaTable>,
    /// Facts about ROAs, live and cached.
    pub roas: RoaFacts,
    /// Resolutions of the names of RPKI servers.
    pub rpki: &'a BTreeMap<Endpoint, RpkiName>,
    pub classes: &'a BTreeMap<ObjectName, Measured>,
    /// The sessions with files in BIRD's directory.
    pub fragments: &'a BTreeSet<String>,
    /// BIRD's main file.
    pub main: &'a MainFile,
    /// The lines of the file `approved`: changes that an operator allowed.
    pub approved: &'a BTreeSet<String>,
    /// The guard's memory.
    pub guard: guard::Input<'a>,
    /// Items from the Control Plane that do not decode.
    pub refused: &'a Refused,
    /// Addresses of the host, and addresses that it must reach.
    pub reach: &'a super::Reach,
    /// Texts that need no rendering again.
    pub texts: &'a super::TextCache,
    /// The current time.
    pub now: Timestamp,
}

/// Items of the Control Plane's last lists that do not decode: their applied state stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    pub sessions: Vec<Rejected>,
    /// Peers of the backbone.
    pub mesh: Vec<Rejected>,
    /// Internal neighbours.
    pub ibgp: Vec<Rejected>,
    pub node: Option<String>,
    pub policy: Option<String>,
    /// Remarks on the policy: values that are no error, but probably unintended.
    pub remarks: Vec<String>,
}
