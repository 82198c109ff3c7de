//! The lists that routers were served, a row for each change of a list.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;
use sqlx::postgres::PgPool;
use sqlx::{PgTransaction, Row, query};

use super::database::unavailable;
use crate::fleet::history::{MOST, ServedList};
use crate::http::ApiError;
use crate::model::ObjectName;

/// Reads the lists of a router, the newest last.
pub(super) async fn read(pool: &PgPool, router: &ObjectName) -> Result<Vec<ServedList>, ApiError> {
    let sql = "SELECT entry::text FROM served WHERE router = $1 ORDER BY at";
    let rows = query(sql).bind(router.as_str()).fetch_all(pool).await;
    let rows = rows.map_err(unavailable)?.into_iter();
    // A row that cannot be read costs its own entry only.
    let entry = |row: sqlx::postgres::PgRow| serde_json::from_str(row.get(0)).ok();
    Ok(rows.filter_map(entry).collect())
}

/// Adds lists and their new states, and drops the oldest ones of these routers.
pub(super) async fn write(
    transaction: &mut PgTransaction<'_>,
    served: &BTreeMap<(ObjectName, String, Timestamp), ServedList>,
) -> Result<(), sqlx::Error> {
    if served.is_empty() {
        return Ok(());
    }
    let lock = query("SELECT pg_advisory_xact_lock(hashtext('moenet served'))");
    lock.execute(&mut **transaction).await?;
    let routers: Vec<&str> = served.keys().map(|it| it.0.as_str()).collect();
    let lists: Vec<&str> = served.keys().map(|it| it.1.as_str()).collect();
    let times: Vec<String> = served.keys().map(|it| it.2.to_string()).collect();
    let entries: Vec<String> = served.values().map(|it| json!(it).to_string()).collect();
    // Another instance may have added the same change of a list: its entry counts.
    let sql = "INSERT INTO served (router, list, at, entry) \
               SELECT router, list, at::timestamptz, entry::json \
               FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[]) AS t (router, list, at, entry) \
               WHERE NOT EXISTS (SELECT 1 FROM (SELECT old.at, old.entry FROM served AS old \
                   WHERE old.router = t.router AND old.list = t.list ORDER BY old.at DESC LIMIT 1) AS newest \
                   WHERE newest.entry->>'content' = t.entry::json->>'content' AND newest.at <> t.at::timestamptz) \
               ON CONFLICT (router, list, at) DO UPDATE SET entry = EXCLUDED.entry";
    let insert = query(sql)
        .bind(&routers)
        .bind(lists)
        .bind(times)
        .bind(entries);
    insert.execute(&mut **transaction).await?;
    let sql = "DELETE FROM served USING (SELECT router, list, at, row_number() OVER (PARTITION BY router ORDER BY at DESC) AS age \
                   FROM served WHERE router = ANY($1)) AS old \
               WHERE old.age > $2 AND (served.router, served.list, served.at) = (old.router, old.list, old.at)";
    let kept = i64::try_from(MOST).unwrap_or(i64::MAX);
    let delete = query(sql).bind(&routers).bind(kept);
    delete.execute(&mut **transaction).await?;
    Ok(())
}
