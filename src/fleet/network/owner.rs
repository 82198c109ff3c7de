//! Owners of AS numbers, who ask for sessions of their own.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::token::TokenHash;
use crate::model::ObjectName;

/// What one owner of an AS number may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OwnerLimits {
    /// The most sessions of the AS number. Default: 4.
    #[schemars(extend("default" = 4))]
    pub sessions: Option<u16>,
    /// The most sessions of the AS number on one router. Default: 1.
    #[schemars(extend("default" = 1))]
    pub sessions_per_router: Option<u16>,
    /// The routers where the owner may ask for sessions. Default: all.
    #[schemars(example = ["jp1"])]
    pub routers: Option<Vec<ObjectName>>,
}

impl OwnerLimits {
    /// Returns the most sessions in all, and on one router.
    pub fn most(&self) -> (usize, usize) {
        let all = self.sessions.unwrap_or(4);
        let on_one = self.sessions_per_router.unwrap_or(1);
        (all.into(), on_one.into())
    }

    /// Returns whether the owner may have sessions on a router.
    pub fn allows(&self, router: &ObjectName) -> bool {
        let routers = self.routers.as_ref();
        routers.is_none_or(|routers| routers.contains(router))
    }

    pub(super) fn over(self, others: &Self) -> Self {
        Self {
            sessions: self.sessions.or(others.sessions),
            sessions_per_router: self.sessions_per_router.or(others.sessions_per_router),
            routers: self.routers.or_else(|| others.routers.clone()),
        }
    }
}

/// The owner of an AS number, who may ask for sessions with a token. The file's name is the AS number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OwnerSpec {
    /// The hashes of the tokens, two during a rotation: `sha256:` and what `printf %s TOKEN | sha256sum` prints.
    #[schemars(length(max = 2), example = ["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])]
    pub token_hashes: Vec<TokenHash>,
    /// Limits of this owner instead of those in network.yaml, field by field.
    #[schemars(example = json!({"sessions": 8}))]
    pub limits: OwnerLimits,
}
