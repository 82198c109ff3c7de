use std::sync::Arc;

use crate::observed::bird::Version;
use crate::ports::CheckError;
use crate::render::RenderError;
use crate::sources::TemplateError;
use crate::telemetry::chain;

/// Reason why the identity of this router is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouterError {
    /// The node's documents are not accepted, and none was applied before.
    #[error("node.yaml: {0}")]
    Invalid(String),
    /// Neither a document nor the configuration has the identity.
    #[error("identity unknown: set node.id and node.asn, or wait for the first Control Plane sync")]
    Unknown,
}

/// Reason why the features of BIRD are unknown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FeaturesError {
    /// Neither the daemon nor the program was asked for its version.
    #[error("BIRD's version is not read yet")]
    Unread,
    /// The daemon does not answer, and the program's version cannot be read.
    #[error(transparent)]
    Program(Arc<CheckError>),
    /// This version cannot read the agent's files.
    #[error("{}", .0.warning().unwrap_or_default())]
    TooOld(Version),
}

/// Each attempt to read the version makes an error of its own, so the texts are compared.
impl PartialEq for FeaturesError {
    fn eq(&self, other: &Self) -> bool {
        chain(self) == chain(other)
    }
}

/// Reason why a text for BIRD is unknown.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TextError {
    /// The identity of this router is unknown.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// No template is usable.
    #[error(transparent)]
    Templates(#[from] TemplateError),
    /// The features of BIRD are unknown.
    #[error(transparent)]
    Features(#[from] FeaturesError),
    /// The templates do not render the values.
    #[error(transparent)]
    Render(#[from] RenderError),
}
