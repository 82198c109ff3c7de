//! Items of the Control Plane's lists that do not decode, from the sync to the builder of the desired state.

use parking_lot::Mutex;

use crate::desired::Refused;

/// The items that do not decode now.
#[derive(Debug, Default)]
pub struct RefusedItems(Mutex<Refused>);

impl RefusedItems {
    /// Changes the items. Returns whether they differ now.
    pub fn change(&self, change: impl FnOnce(&mut Refused)) -> bool {
        let mut refused = self.0.lock();
        let before = refused.clone();
        change(&mut refused);
        *refused != before
    }

    /// Returns a copy, so that the sync never waits for a builder.
    pub fn all(&self) -> Refused {
        self.0.lock().clone()
    }
}
