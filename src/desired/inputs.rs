use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;

use super::FeaturesError;
use crate::config::Config;
use crate::desired::guard;
use crate::effective::Secrets;
use crate::model::{Endpoint, ObjectName, RoaTable, RouterKey};
use crate::observed::bird::{MainFile, Version};
use crate::render::Measured;
use crate::render::{Features, Renderer};
use crate::sources::TemplateError;
use crate::status::{RoaFacts, RpkiName};
use crate::store::Snapshot;
use crate::wire::Rejected;

/// Inputs of a desired state.
pub struct Inputs<'a> {
    /// The state directory.
    pub snapshot: &'a Snapshot,
    /// The inputs from elsewhere.
    pub material: &'a Material,
    /// The guard's memory.
    pub guard: guard::Input<'a>,
    /// Sessions that need not be made again.
    pub sessions: &'a super::SessionCache,
    /// The current time.
    pub now: Timestamp,
}

/// Inputs of a desired state besides the listing, the guard's memory and the time.
#[derive(Clone, PartialEq)]
pub struct Material {
    /// The agent's configuration.
    pub config: Same<Config>,
    /// The files in `secrets/` that documents name.
    pub secrets: Secrets,
    /// The agent's WireGuard key.
    pub key: RouterKey,
    /// The templates, or the reason why they cannot be used.
    pub renderer: Result<Same<Renderer>, TemplateError>,
    /// The features of BIRD, or the reason why they are unknown.
    pub features: Result<Features, FeaturesError>,
    /// The version of BIRD, if known.
    pub bird: Option<Version>,
    /// The reason why the templates on disk are not in use.
    pub templates_refused: Option<TemplateError>,
    pub roa: Option<Arc<RoaTable>>,
    /// Facts about ROAs, live and cached.
    pub roas: RoaFacts,
    /// Resolutions of the names of RPKI servers.
    pub rpki: BTreeMap<Endpoint, RpkiName>,
    pub classes: BTreeMap<ObjectName, Measured>,
    /// The sessions with files in BIRD's directory.
    pub fragments: BTreeSet<String>,
    /// BIRD's main file.
    pub main: MainFile,
    /// The lines of the file `approved`: changes that an operator allowed.
    pub approved: BTreeSet<String>,
    /// Items from the Control Plane that do not decode.
    pub refused: Refused,
    /// Addresses of the host, and addresses that it must reach.
    pub reach: super::Reach,
}

impl Material {
    /// Returns the inputs of a router of which nothing else is known.
    pub fn new(config: Arc<Config>, key: RouterKey, renderer: Arc<Renderer>) -> Self {
        Self {
            config: Same(config),
            secrets: Secrets::default(),
            key,
            renderer: Ok(Same(renderer)),
            features: Err(FeaturesError::Unread),
            bird: None,
            templates_refused: None,
            roa: None,
            roas: RoaFacts::default(),
            rpki: BTreeMap::new(),
            classes: BTreeMap::new(),
            fragments: BTreeSet::new(),
            main: MainFile::default(),
            approved: BTreeSet::new(),
            refused: Refused::default(),
            reach: super::Reach::default(),
        }
    }
}

/// A shared value that is compared by identity.
pub struct Same<T>(pub Arc<T>);

impl<T> Clone for Same<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for Same<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Deref for Same<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
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
