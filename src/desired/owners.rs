use std::collections::BTreeMap;

use super::{Objects, Wanted};
use crate::model::{InterfaceName, ObjectKey};

/// The objects by the names that they have in kernel and BIRD.
#[derive(Debug, Default)]
pub struct Owners {
    /// Wanted interfaces.
    pub interfaces: BTreeMap<InterfaceName, ObjectKey>,
    /// Wanted protocols.
    pub protocols: BTreeMap<String, ObjectKey>,
}

impl Owners {
    pub(super) fn of(objects: &Objects) -> Self {
        let mut owners = Self::default();
        for (key, object) in objects {
            if let Some(link) = object.link() {
                let interface = link.interface.clone();
                owners
                    .interfaces
                    .entry(interface)
                    .or_insert_with(|| key.clone());
            }
            let protocols = object.wanted().map(Wanted::protocols).unwrap_or_default();
            let protocols = protocols.into_iter().map(|name| (name, key.clone()));
            owners.protocols.extend(protocols);
        }
        owners
    }
}
