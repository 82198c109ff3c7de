//! Why an override exists, and when it ends.

use anyhow::Context as _;
use jiff::Timestamp;

use super::expiry;
use crate::document::OverrideSpec;

/// The reason and the end that the arguments give an override.
#[derive(Debug, Default, Clone, clap::Args)]
pub(crate) struct Because {
    /// Why the override exists, for its readers in a year. Needed for a new override
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// When it ends: 2h, 2d, or a time as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = expiry::parse, allow_hyphen_values = true)]
    expires: Option<Timestamp>,
}

impl Because {
    pub(crate) fn is_empty(&self) -> bool {
        self.reason.is_none() && self.expires.is_none()
    }

    /// Returns an override with this reason, or with that of the existing one. `is_void`: it will be removed, so that
    /// it needs no reason.
    ///
    /// # Errors
    /// There is no reason.
    pub(crate) fn apply(
        &self,
        existing: Option<OverrideSpec>,
        is_void: bool,
    ) -> anyhow::Result<OverrideSpec> {
        let given = self.reason.as_deref().map(str::trim);
        let given = given.filter(|reason| !reason.is_empty());
        let reason = given
            .map(str::to_owned)
            .or_else(|| Some(existing.as_ref()?.reason.clone()))
            .or(is_void.then(String::new));
        let reason = reason.context("an override needs --reason, for its readers in a year")?;
        let before = existing.as_ref();
        Ok(OverrideSpec {
            reason,
            target_kind: None,
            expires_at: self.expires.or(before.and_then(|it| it.expires_at)),
            paused: before.is_some_and(|it| it.paused),
            set: before.map(|it| it.set.clone()).unwrap_or_default(),
        })
    }
}
