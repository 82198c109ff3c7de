//! Writes the operators' files.

use sqlx::postgres::PgPool;
use sqlx::{Row, query};

use super::audit;
use super::writer::next_revision;
use crate::fleet::audit::Author;
use crate::fleet::change::ChangedFiles;

/// Writes files in one transaction, unless one of the fleet has changed after this revision. Returns whether it did.
pub(super) async fn write(
    pool: &PgPool,
    changes: &ChangedFiles,
    known: i64,
    by: &Author,
) -> Result<bool, sqlx::Error> {
    if changes.is_empty() {
        return Ok(true);
    }
    let mut transaction = pool.begin().await?;
    // Its lock orders the commits, so that no other one comes between the comparison and this one.
    let revision = next_revision(&mut transaction).await?;
    let newer = query("SELECT EXISTS (SELECT 1 FROM files WHERE revision > $1)").bind(known);
    if newer.fetch_one(&mut *transaction).await?.get(0) {
        return Ok(false);
    }
    let paths: Vec<&str> = changes.keys().map(String::as_str).collect();
    let texts: Vec<Option<&str>> = changes.values().map(Option::as_deref).collect();
    let sql = "INSERT INTO files (path, content, revision, changed_by) \
               SELECT path, content, $3, $4 FROM UNNEST($1::text[], $2::text[]) AS t (path, content) \
               ON CONFLICT (path) DO UPDATE SET content = EXCLUDED.content, revision = EXCLUDED.revision, \
               changed_at = now(), changed_by = EXCLUDED.changed_by";
    let insert = query(sql)
        .bind(paths)
        .bind(texts)
        .bind(revision)
        .bind(&by.who);
    insert.execute(&mut *transaction).await?;
    let changed = changes.keys().cloned().collect();
    audit::add(&mut transaction, &by.made(changed)).await?;
    transaction.commit().await?;
    Ok(true)
}
