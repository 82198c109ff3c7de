//! One observation for all keys of a pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::desired::single;
use crate::document::Kind;
use crate::intervals::PASS_REST_MAX;
use crate::model::{ObjectKey, ObjectName};
use crate::observed::bird::BirdState;
use crate::observed::kernel::KernelView;
use crate::ports::KernelError;
use crate::store::{AppliedDocument, StoreError};

/// Share of the time that observations may take: between two of them pass at least this many times their duration.
const REST: u32 = 3;

/// What an observation reads of the kernel. The rest is as last observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reads {
    Nothing,
    /// What no event announces. After an event, everything.
    WireGuard,
    Everything,
}

/// Everything that the keys of a pass are compared with.
#[derive(Clone)]
pub struct Observation {
    /// The kernel, or the reason why it could not be read.
    pub kernel: Result<Arc<KernelView>, Arc<KernelError>>,
    pub bird: Arc<BirdState>,
    /// The applied documents of the pass's keys, or the reason why they could not be read.
    pub applied: Result<BTreeMap<ObjectKey, AppliedDocument>, Arc<StoreError>>,
    pub now: Timestamp,
    /// The same time, for the schedule.
    pub begun: Instant,
    /// Whether all links were read, and not single ones.
    pub(super) of_all: bool,
}

impl Observation {
    /// Returns what was read since this time, as of now.
    pub(super) fn new(
        begun: Instant,
        kernel: Result<Arc<KernelView>, Arc<KernelError>>,
        bird: Arc<BirdState>,
        applied: Result<BTreeMap<ObjectKey, AppliedDocument>, Arc<StoreError>>,
    ) -> Self {
        let now = Timestamp::now();
        Self {
            kernel,
            bird,
            applied,
            now,
            begun,
            of_all: true,
        }
    }

    /// Returns the time until the next observation may begin.
    pub(super) fn rest(&self) -> Duration {
        (self.begun.elapsed() * REST).min(PASS_REST_MAX)
    }
}

/// Returns the object whose record says what is applied for a key.
pub(super) fn record_of(key: &ObjectKey) -> Option<(Kind, ObjectName)> {
    match key {
        ObjectKey::Router => Some((Kind::Node, single(Kind::Node))),
        key => Kind::of(key).map(|(kind, name)| (kind, name.clone())),
    }
}
