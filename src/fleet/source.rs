//! Where a fleet is, for verbs that ask no server.

use std::path::PathBuf;
use std::sync::Arc;

use super::FleetError;
use super::store::Store;
use super::store::directory::{Directory, is_followed};
use super::store::git::Git;
#[cfg(feature = "postgres")]
use super::store::postgres::Postgres;
#[cfg(feature = "postgres")]
use crate::model::Secret;
use crate::util::fs;

/// A fleet's directory, or its database.
#[derive(Debug, Clone)]
pub enum Source {
    Directory(PathBuf),
    /// The URL of the database.
    #[cfg(feature = "postgres")]
    Database(Secret<String>),
}

impl Source {
    /// Returns the store with the files, as a server serves them.
    pub(super) async fn open(&self) -> Result<Arc<dyn Store>, FleetError> {
        match self {
            Self::Directory(dir) if !fs::is_dir(dir) => Err(FleetError::NoDirectory(dir.clone())),
            Self::Directory(dir) if is_followed(dir) => Ok(Arc::new(Git::of_server(dir.clone())?)),
            Self::Directory(dir) => Ok(Arc::new(Directory::new(dir.clone()))),
            #[cfg(feature = "postgres")]
            Self::Database(url) => Ok(Arc::new(Postgres::open_existing(url).await?)),
        }
    }
}
