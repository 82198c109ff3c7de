//! Whether a router has confirmed the removal of a session, so that its file may go.

use std::path::Path;

#[cfg(feature = "postgres")]
use super::FleetError;
use super::change::{ChangeError, SessionPlace};
use super::store::Store;
use super::store::directory::Directory;
#[cfg(feature = "postgres")]
use super::store::postgres::Postgres;
use crate::http::ApiError;
#[cfg(feature = "postgres")]
use crate::model::Secret;
use crate::model::{ObjectName, Uid};
use crate::wire::WireStatus;
use crate::wire::reference::identity;

/// Returns whether a router has confirmed the removal of a session that is marked for removal.
///
/// # Errors
/// The posts of the router cannot be read.
pub async fn is_removed(dir: &Path, place: &SessionPlace) -> Result<bool, ChangeError> {
    is_place_removed(&Directory::new(dir.to_owned()), place).await
}

/// Returns the same of a fleet in PostgreSQL.
///
/// # Errors
/// The database is not available, or the posts of the router cannot be read.
#[cfg(feature = "postgres")]
pub async fn is_removed_in_store(
    url: &Secret<String>,
    place: &SessionPlace,
) -> Result<bool, ChangeError> {
    let store = Postgres::open(url).map_err(FleetError::from)?;
    store.load().await.map_err(FleetError::from)?;
    is_place_removed(&store, place).await
}

async fn is_place_removed(store: &dyn Store, place: &SessionPlace) -> Result<bool, ChangeError> {
    match (identity(&place.item), place.router.parse()) {
        (Some(uuid), Ok(router)) => Ok(is_removed_of(store, &router, &uuid).await?),
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
