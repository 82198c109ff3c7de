use std::collections::BTreeMap;

use crate::document::{BgpSessionSpec, Kind};
use crate::model::ObjectName;
use crate::store::Snapshot;
use crate::util::sorted::Sorted as _;

/// The specifications that sessions have applied, parsed once for a whole desired state.
#[derive(Debug, Default)]
pub(super) struct AppliedSpecs<'a>(BTreeMap<&'a ObjectName, BgpSessionSpec>);

impl<'a> AppliedSpecs<'a> {
    /// Parses the valid specifications of the applied records.
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let records = snapshot.applied.iter();
        let sessions = records.filter(|((kind, _), _)| *kind == Kind::BgpSession);
        let specs = sessions.filter_map(|((_, name), stored)| {
            let spec = stored.document.applied.spec.as_ref()?;
            Some((name, spec.read().ok()?))
        });
        Self(specs.sorted_map())
    }

    pub(super) fn get(&self, name: &ObjectName) -> Option<&BgpSessionSpec> {
        self.0.get(name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&'a ObjectName, &BgpSessionSpec)> {
        self.0.iter().map(|(name, spec)| (*name, spec))
    }
}
