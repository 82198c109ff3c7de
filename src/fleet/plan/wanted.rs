//! The wanted state of a router, as its agent builds it from its documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::PlanError;
use super::documents::Documents;
use crate::config::Config;
use crate::desired::guard::{self, Ledger};
use crate::desired::{Desired, Inputs, Material, SessionCache};
use crate::model::{PrivateKey, PublicKey, RouterKey};
use crate::render::{Features, Renderer};

/// The version of BIRD for which texts are compared.
const BIRD: (u32, u32) = (3, 1);

/// What all routers share: the defaults of the agent, and its templates.
pub struct Agent {
    renderer: Arc<Renderer>,
}

impl Agent {
    /// Loads the templates.
    ///
    /// # Errors
    /// Never with the templates of this program.
    pub fn new() -> Result<Self, PlanError> {
        let renderer = Renderer::new(&BTreeMap::new()).map_err(PlanError::Templates)?;
        let renderer = Arc::new(renderer);
        Ok(Self { renderer })
    }

    /// Returns the configuration of a router with the defaults.
    ///
    /// # Errors
    /// The name is not valid.
    pub fn config(router: &str) -> Result<Config, PlanError> {
        let text = serde_json::json!({"node": {"name": router}}).to_string();
        crate::config::parse(&text).map_err(|error| PlanError::Router {
            router: router.to_owned(),
            source: error.into(),
        })
    }

    /// Returns the wanted state of a router. The key is one in place of its own, which only the router knows.
    pub fn wanted(&self, config: Config, documents: &Documents) -> Desired {
        let (major, minor) = BIRD;
        let bytes = [200; 32];
        let key = RouterKey::Available {
            private: PrivateKey::new(bytes),
            public: PublicKey::new(bytes),
        };
        let material = Material {
            secrets: documents.secrets.clone(),
            features: Ok(Features::of(major, minor)),
            ..Material::new(Arc::new(config), key, Arc::clone(&self.renderer))
        };
        let now = Timestamp::UNIX_EPOCH;
        Desired::build(&Inputs {
            snapshot: &documents.snapshot,
            material: &material,
            guard: guard::Input {
                ledger: &Ledger::default(),
                now,
                writable: true,
            },
            sessions: &SessionCache::default(),
            now,
        })
    }
}
