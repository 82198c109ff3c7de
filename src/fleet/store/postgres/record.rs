//! The record of the whole fleet, in a table with one row.

use sqlx::postgres::PgPool;
use sqlx::{PgTransaction, Row, query};

use super::audit;
use super::database::unavailable;
use crate::fleet::audit::AuditEntry;
use crate::fleet::rollout::FleetRecord;
use crate::http::ApiError;

/// Reads the record.
pub(super) async fn read(pool: &PgPool) -> Result<FleetRecord, ApiError> {
    let sql = "SELECT record::text FROM record";
    let row = query(sql).fetch_optional(pool).await.map_err(unavailable)?;
    let Some(row) = row else {
        return Ok(FleetRecord::default());
    };
    serde_json::from_str(row.get(0)).map_err(invalid)
}

/// Replaces the record that `record` was made from, and adds the decision to the audit in the same transaction.
pub(super) async fn replace(
    pool: &PgPool,
    record: &FleetRecord,
    decided: Option<&AuditEntry>,
) -> Result<bool, ApiError> {
    let before = i64::try_from(record.version).unwrap_or(i64::MAX);
    let mut next = record.clone();
    next.version += 1;
    let text = serde_json::to_string(&next).map_err(invalid)?;
    let mut transaction = pool.begin().await.map_err(unavailable)?;
    let is_written = write(&mut transaction, before, &text).await;
    if !is_written.map_err(unavailable)? {
        return Ok(false);
    }
    if let Some(entry) = decided {
        let added = audit::add(&mut transaction, entry).await;
        added.map_err(unavailable)?;
    }
    transaction.commit().await.map_err(unavailable)?;
    Ok(true)
}

/// Writes the next version of the record, unless the version before is another one. Returns whether it did.
async fn write(
    transaction: &mut PgTransaction<'_>,
    before: i64,
    text: &str,
) -> Result<bool, sqlx::Error> {
    let sql = "INSERT INTO record (version, record) SELECT $1 + 1, $2::json WHERE $1 = 0 \
               ON CONFLICT (only_row) DO NOTHING";
    let create = query(sql).bind(before).bind(text);
    if create.execute(&mut **transaction).await?.rows_affected() == 1 {
        return Ok(true);
    }
    let sql = "UPDATE record SET version = $1 + 1, record = $2::json WHERE version = $1";
    let update = query(sql).bind(before).bind(text);
    Ok(update.execute(&mut **transaction).await?.rows_affected() == 1)
}

fn invalid(error: serde_json::Error) -> ApiError {
    ApiError::internal(format!(
        "table record of the store: {error}; repair it, or delete its row to give the newest description to all routers"
    ))
}
