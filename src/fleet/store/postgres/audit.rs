//! Who changed the operators' files.

use serde_json::json;
use sqlx::postgres::PgPool;
use sqlx::{PgTransaction, Row, query};

use super::database::unavailable;
use crate::fleet::audit::AuditEntry;
use crate::http::ApiError;
use crate::intervals::FLEET_AUDIT_KEPT;

/// Most entries that are read.
const MOST: i64 = 100_000;

/// Adds an entry, and removes those that are too old.
pub(super) async fn add(
    transaction: &mut PgTransaction<'_>,
    entry: &AuditEntry,
) -> Result<(), sqlx::Error> {
    let insert = query("INSERT INTO audit (entry) VALUES ($1::json)");
    let insert = insert.bind(json!(entry).to_string());
    insert.execute(&mut **transaction).await?;
    let delete = query("DELETE FROM audit WHERE at < now() - make_interval(secs => $1)");
    let delete = delete.bind(FLEET_AUDIT_KEPT.as_secs_f64());
    delete.execute(&mut **transaction).await?;
    Ok(())
}

/// Returns the entries, the newest last. A row that cannot be read costs its own entry only.
pub(super) async fn read(pool: &PgPool) -> Result<Vec<AuditEntry>, ApiError> {
    let sql = "SELECT entry::text FROM audit ORDER BY id DESC LIMIT $1";
    let rows = query(sql).bind(MOST).fetch_all(pool).await;
    let rows = rows.map_err(unavailable)?.into_iter().rev();
    Ok(AuditEntry::read(rows.map(|row| row.get::<String, _>(0))))
}
