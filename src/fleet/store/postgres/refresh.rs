//! Follows the changes that any instance makes.

use std::sync::Arc;

use sqlx::postgres::{PgListener, PgPool};
use sqlx::{Row, query};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::database::{StoreError, migrate};
use super::memory::{ChangedStatus, Memory};
use crate::fleet::store::held::ChangedFile;
use crate::intervals::{FLEET_STORE_POLL, FLEET_STORE_RETRY};

/// The channel on which a commit announces its revision.
pub(super) const CHANNEL: &str = "moenet_fleet";

/// Follows the database, and never ends.
pub(super) async fn run(pool: PgPool, memory: Arc<Memory>) {
    let mut failed = false;
    loop {
        let (ended, was_good) = follow(&pool, &memory, failed).await;
        if was_good || !failed {
            tracing::warn!(error = %ended, "store is unavailable; serving the fleet as it was read last");
        }
        failed = true;
        sleep(FLEET_STORE_RETRY).await;
    }
}

/// Follows the database until an error. Returns it, and whether the fleet was read before.
async fn follow(pool: &PgPool, memory: &Memory, failed: bool) -> (StoreError, bool) {
    let changed = Arc::new(Notify::new());
    let mut listener = JoinSet::new();
    if let Err(error) = migrate(pool).await {
        return (error, false);
    }
    match listen(pool).await {
        Ok(it) => listener.spawn(announced(it, Arc::clone(&changed))),
        Err(error) => return (error.into(), false),
    };
    let mut was_good = false;
    // The database may be a restored backup, whose revisions have other contents.
    let mut read = Read::Everything;
    loop {
        if let Err(error) = refresh(pool, memory, read).await {
            return (error.into(), was_good);
        }
        read = Read::Changes;
        if !was_good && failed {
            tracing::info!(
                revision = memory.files.revision(),
                "store is available again"
            );
        }
        was_good = true;
        // The poll finds what was announced while the listener connected again.
        let _ = timeout(FLEET_STORE_POLL, changed.notified()).await;
    }
}

async fn listen(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

async fn announced(mut listener: PgListener, changed: Arc<Notify>) {
    loop {
        match listener.recv().await {
            Ok(_) => changed.notify_one(),
            Err(_) => sleep(FLEET_STORE_RETRY).await,
        }
    }
}

/// What is read from the database.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Read {
    /// What changed since the newest revision in memory. Everything if that of the database is lower.
    Changes,
    Everything,
}

/// Reads the fleet; one caller at a time.
pub(super) async fn refresh(pool: &PgPool, memory: &Memory, read: Read) -> Result<(), sqlx::Error> {
    let _one = memory.refreshing.lock().await;
    let row = query("SELECT revision FROM fleet").fetch_one(pool).await?;
    let newest: i64 = row.get(0);
    let known = memory.files.revision();
    let known = known.filter(|known| read == Read::Changes && *known <= newest);
    if known == Some(newest) {
        return Ok(());
    }
    let since = known.unwrap_or(-1);
    let files = files(pool, since).await?;
    let statuses = statuses(pool, since).await?;
    match known {
        Some(_) => memory.apply(newest, files, statuses),
        None => memory.replace(newest, files, statuses),
    }
    Ok(())
}

async fn files(pool: &PgPool, since: i64) -> Result<Vec<ChangedFile>, sqlx::Error> {
    let sql = "SELECT path, revision, content FROM files WHERE revision > $1";
    let rows = query(sql).bind(since).fetch_all(pool).await?;
    let file = |row: sqlx::postgres::PgRow| ChangedFile {
        path: row.get(0),
        revision: row.get(1),
        text: row.get::<Option<String>, _>(2).map(Into::into),
    };
    Ok(rows.into_iter().map(file).collect())
}

async fn statuses(pool: &PgPool, since: i64) -> Result<Vec<ChangedStatus>, sqlx::Error> {
    let sql = "SELECT router, uuid, revision, entry::text FROM statuses WHERE revision > $1";
    let rows = query(sql).bind(since).fetch_all(pool).await?;
    let status = |row: sqlx::postgres::PgRow| {
        let (router, uuid): (String, String) = (row.get(0), row.get(1));
        let entry: Option<String> = row.get(3);
        // An entry that cannot be read costs its own session only.
        let entry = entry.and_then(|entry| serde_json::from_str(&entry).ok());
        Some(ChangedStatus {
            router: router.parse().ok()?,
            uuid,
            revision: row.get(2),
            entry,
        })
    };
    Ok(rows.into_iter().filter_map(status).collect())
}
