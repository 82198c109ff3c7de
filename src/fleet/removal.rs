//! Whether a router has confirmed the removal of a session, so that its file may go.

use super::change::{ChangeError, SessionPlace};
use super::source::Source;
use super::store::Store;
use crate::http::ApiError;
use crate::model::{ObjectName, Uid};
use crate::wire::WireStatus;
use crate::wire::reference::identity;

/// Returns whether a router has confirmed the removal of a session that is marked for removal.
///
/// # Errors
/// The fleet cannot be opened, or the posts of the router cannot be read.
pub async fn is_removed(source: &Source, place: &SessionPlace) -> Result<bool, ChangeError> {
    let store = source.open().await?;
    match (identity(&place.item), place.router.parse()) {
        (Some(uuid), Ok(router)) => Ok(is_removed_of(&*store, &router, &uuid).await?),
        _ => Ok(false),
    }
}

/// Returns whether a router has confirmed the removal of a session with this identity.
pub(super) async fn is_removed_of(
    store: &dyn Store,
    router: &ObjectName,
    uuid: &Uid,
) -> Result<bool, ApiError> {
    let posted = store.status(router, uuid).await?;
    let deleted = Some(WireStatus::QueuedForDelete);
    Ok(posted
        .values()
        .any(|it| it.status == WireStatus::Disabled && it.file_status == deleted))
}
