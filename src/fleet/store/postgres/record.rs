//! The record of the whole fleet, in a table with one row.

use sqlx::postgres::PgPool;
use sqlx::{Row, query};

use super::database::unavailable;
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

/// Replaces the record that `record` was made from.
pub(super) async fn replace(pool: &PgPool, record: &FleetRecord) -> Result<bool, ApiError> {
    let before = i64::try_from(record.version).unwrap_or(i64::MAX);
    let mut next = record.clone();
    next.version += 1;
    let text = serde_json::to_string(&next).map_err(invalid)?;
    let sql = "INSERT INTO record (version, record) SELECT $1 + 1, $2::json WHERE $1 = 0 \
               ON CONFLICT (only_row) DO NOTHING";
    let created = query(sql).bind(before).bind(&text).execute(pool).await;
    if created.map_err(unavailable)?.rows_affected() == 1 {
        return Ok(true);
    }
    let sql = "UPDATE record SET version = $1 + 1, record = $2::json WHERE version = $1";
    let updated = query(sql).bind(before).bind(&text).execute(pool).await;
    Ok(updated.map_err(unavailable)?.rows_affected() == 1)
}

fn invalid(error: serde_json::Error) -> ApiError {
    ApiError::internal(format!(
        "table record of the store: {error}; repair it, or delete its row to give the newest description to all routers"
    ))
}
