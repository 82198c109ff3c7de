//! Documents of any kind.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::document::{Document, DocumentError, Metadata, Spec, parse};
use crate::model::ObjectName;

use super::cache::{Slot, Stored};
use super::read::{Text, TextHash};
use super::{Area, Place};

/// A valid document of any kind, with the attributes of its file.
pub trait AnyDocument {
    /// Returns the object's metadata.
    fn metadata(&self) -> &Metadata;
    /// Returns the specification.
    fn spec(&self) -> Value;
    /// Returns the numeric user ID of the file's owner.
    fn owner(&self) -> u32;
    /// Returns the SHA-256 of the file's text.
    fn hash(&self) -> &TextHash;
}

impl<S: Spec> AnyDocument for Stored<Document<S>> {
    fn metadata(&self) -> &Metadata {
        &self.document.metadata
    }

    fn spec(&self) -> Value {
        serde_json::to_value(&self.document.spec).unwrap_or_default()
    }

    fn owner(&self) -> u32 {
        self.owner
    }

    fn hash(&self) -> &TextHash {
        &self.hash
    }
}

/// An existing document of any kind: valid, or the reason why it is invalid.
pub type AnySlot<'a> = Result<&'a dyn AnyDocument, &'a DocumentError>;

/// The documents of a kind.
pub(super) trait AnyDocuments {
    /// Returns the documents in the order of their names.
    fn all(&self) -> Vec<(Place, AnySlot<'_>)>;
    /// Returns a document; `None` without a file.
    fn get(&self, name: &ObjectName) -> Option<AnySlot<'_>>;
    /// Adds or replaces the document of this place, in this file; `None` when the text is invalid.
    fn put(&mut self, place: &Place, path: PathBuf, text: Text) -> Option<()>;
    /// Removes valid documents, unless `stays`.
    fn retain(&mut self, stays: &mut dyn FnMut(Place, &Metadata) -> bool);
}

/// A kind with one document.
impl<S: Spec> AnyDocuments for Option<Slot<S>> {
    fn all(&self) -> Vec<(Place, AnySlot<'_>)> {
        let place = || Place::single(Area::Documents, S::KIND);
        self.iter().map(|slot| (place(), any(slot))).collect()
    }

    fn get(&self, _: &ObjectName) -> Option<AnySlot<'_>> {
        self.as_ref().map(any)
    }

    fn put(&mut self, _: &Place, path: PathBuf, text: Text) -> Option<()> {
        *self = Some(stored(path, text)?);
        Some(())
    }

    fn retain(&mut self, stays: &mut dyn FnMut(Place, &Metadata) -> bool) {
        let place = Place::single(Area::Documents, S::KIND);
        self.take_if(|slot| valid(slot).is_some_and(|metadata| !stays(place, metadata)));
    }
}

/// A kind with many documents.
impl<S: Spec> AnyDocuments for BTreeMap<ObjectName, Slot<S>> {
    fn all(&self) -> Vec<(Place, AnySlot<'_>)> {
        let all = self.iter();
        all.map(|(name, slot)| (Place::document(S::KIND, name), any(slot)))
            .collect()
    }

    fn get(&self, name: &ObjectName) -> Option<AnySlot<'_>> {
        self.get(name).map(any)
    }

    fn put(&mut self, place: &Place, path: PathBuf, text: Text) -> Option<()> {
        self.insert(place.name.clone(), stored(path, text)?);
        Some(())
    }

    fn retain(&mut self, stays: &mut dyn FnMut(Place, &Metadata) -> bool) {
        self.retain(|name, slot| {
            let place = Place::document(S::KIND, name);
            valid(slot).is_none_or(|metadata| stays(place, metadata))
        });
    }
}

pub(super) fn any<S: Spec>(slot: &Slot<S>) -> AnySlot<'_> {
    let stored = slot.as_ref()?;
    Ok(&**stored)
}

fn valid<S>(slot: &Slot<S>) -> Option<&Metadata> {
    let stored = slot.as_ref().ok()?;
    Some(&stored.document.metadata)
}

fn stored<S: Spec>(path: PathBuf, text: Text) -> Option<Slot<S>> {
    let stored = Stored {
        document: Arc::new(parse::<S>(&text.text).ok()?),
        hash: text.hash,
        path,
        owner: text.owner,
        text: text.text.into(),
    };
    Some(Ok(Arc::new(stored)))
}
