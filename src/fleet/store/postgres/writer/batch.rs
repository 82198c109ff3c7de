//! The changes of one commit, one statement for each table.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;
use sqlx::postgres::PgPool;
use sqlx::{PgTransaction, Row, query};

use super::super::memory::ChangedStatus;
use super::super::refresh::CHANNEL;
use super::super::{HEARTBEAT, REPORT, served};
use crate::fleet::history::ServedList;
use crate::fleet::posts::{Post, ReportedStatus};
use crate::fleet::store::Change;
use crate::model::ObjectName;
use crate::wire::reference::endpoint;

/// The changes; of two changes of one thing the later counts. Ordered, so that two instances take
/// the locks of rows in one order.
#[derive(Default)]
pub(super) struct Batch {
    /// Newest posts by router and kind.
    newest: BTreeMap<(ObjectName, &'static str), (String, String)>,
    posts: Vec<(ObjectName, &'static str, String)>,
    statuses: BTreeMap<(ObjectName, String), ReportedStatus>,
    forgotten: BTreeMap<(ObjectName, String), ReportedStatus>,
    good: BTreeMap<(ObjectName, &'static str), String>,
    /// By router, list and time: a post that was sent again may bring the same one.
    served: BTreeMap<(ObjectName, String, Timestamp), ServedList>,
}

impl Batch {
    pub(super) fn add(&mut self, router: &ObjectName, change: &Change) {
        let key = |entry: &ReportedStatus| (router.clone(), entry.uuid.to_string());
        match change {
            Change::Heartbeat(post) => self.post(router, HEARTBEAT, post),
            Change::Report(post) => self.post(router, REPORT, post),
            Change::Served(lists) => {
                let key = |it: &ServedList| (router.clone(), it.list.clone(), it.at);
                let lists = lists.iter().map(|list| (key(list), list.clone()));
                self.served.extend(lists);
            }
            Change::Status(entry) => drop(self.statuses.insert(key(entry), entry.clone())),
            Change::Forget(entry) => drop(self.forgotten.insert(key(entry), entry.clone())),
            Change::Log { modify, applied } => {
                let body = json!({"modify": modify, "applied": applied}).to_string();
                self.posts.push((router.clone(), "modify", body));
            }
            Change::Good(call, good) => {
                let key = (router.clone(), endpoint(*call));
                self.good.insert(key, json!(good).to_string());
            }
        }
    }

    fn post(&mut self, router: &ObjectName, kind: &'static str, post: &Post) {
        let body = post.body.to_string();
        self.posts.push((router.clone(), kind, body));
        self.newest(router, kind, post);
    }

    fn newest(&mut self, router: &ObjectName, kind: &'static str, post: &Post) {
        let body = post.body.to_string();
        let at = post.received_at.to_string();
        self.newest.insert((router.clone(), kind), (at, body));
    }

    /// Commits the changes. Returns those that requests see.
    pub(super) async fn commit(self, pool: &PgPool) -> Result<Vec<ChangedStatus>, sqlx::Error> {
        let mut transaction = pool.begin().await?;
        let changes_answers = !self.statuses.is_empty() || !self.forgotten.is_empty();
        let mut news = Vec::new();
        if changes_answers {
            let revision = next_revision(&mut transaction).await?;
            news = self.write_statuses(&mut transaction, revision).await?;
        }
        self.write_posts(&mut transaction).await?;
        self.write_newest(&mut transaction).await?;
        self.write_good(&mut transaction).await?;
        served::write(&mut transaction, &self.served).await?;
        transaction.commit().await?;
        Ok(news)
    }

    async fn write_statuses(
        &self,
        transaction: &mut PgTransaction<'_>,
        revision: i64,
    ) -> Result<Vec<ChangedStatus>, sqlx::Error> {
        let mut news = Vec::new();
        let changed = |router: &ObjectName, uuid: &str, entry| ChangedStatus {
            router: router.clone(),
            uuid: uuid.to_owned(),
            revision,
            entry,
        };
        for ((router, uuid), entry) in &self.forgotten {
            // Another instance may have stored a newer post, which stays.
            let sql = "UPDATE statuses SET entry = NULL, revision = $1 \
                       WHERE router = $2 AND uuid = $3 AND entry->>'at' = $4";
            let done = query(sql)
                .bind(revision)
                .bind(router.as_str())
                .bind(uuid)
                .bind(entry.at.to_string());
            if done.execute(&mut **transaction).await?.rows_affected() > 0 {
                news.push(changed(router, uuid, None));
            }
        }
        let (mut routers, mut uuids, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for ((router, uuid), entry) in &self.statuses {
            routers.push(router.to_string());
            uuids.push(uuid.clone());
            entries.push(json!(entry).to_string());
            news.push(changed(router, uuid, Some(entry.clone())));
        }
        let sql = "INSERT INTO statuses (router, uuid, entry, revision) \
                   SELECT router, uuid, entry::json, $4 FROM UNNEST($1::text[], $2::text[], $3::text[]) AS t (router, uuid, entry) \
                   ON CONFLICT (router, uuid) DO UPDATE SET entry = EXCLUDED.entry, revision = EXCLUDED.revision";
        if !routers.is_empty() {
            let insert = query(sql)
                .bind(routers)
                .bind(uuids)
                .bind(entries)
                .bind(revision);
            insert.execute(&mut **transaction).await?;
        }
        Ok(news)
    }

    async fn write_posts(&self, transaction: &mut PgTransaction<'_>) -> Result<(), sqlx::Error> {
        if self.posts.is_empty() {
            return Ok(());
        }
        let routers: Vec<&str> = self.posts.iter().map(|it| it.0.as_str()).collect();
        let kinds: Vec<&str> = self.posts.iter().map(|it| it.1).collect();
        let bodies: Vec<&str> = self.posts.iter().map(|it| it.2.as_str()).collect();
        // The clock of the database, which decides which partition exists.
        let sql = "INSERT INTO posts (router, kind, received_at, body) \
                   SELECT router, kind, now(), body::json FROM UNNEST($1::text[], $2::text[], $3::text[]) AS t (router, kind, body)";
        let insert = query(sql).bind(routers).bind(kinds).bind(bodies);
        insert.execute(&mut **transaction).await?;
        Ok(())
    }

    async fn write_newest(&self, transaction: &mut PgTransaction<'_>) -> Result<(), sqlx::Error> {
        if self.newest.is_empty() {
            return Ok(());
        }
        let routers: Vec<&str> = self.newest.keys().map(|key| key.0.as_str()).collect();
        let kinds: Vec<&str> = self.newest.keys().map(|key| key.1).collect();
        let times: Vec<&str> = self.newest.values().map(|it| it.0.as_str()).collect();
        let bodies: Vec<&str> = self.newest.values().map(|it| it.1.as_str()).collect();
        let sql = "INSERT INTO newest (router, kind, received_at, body) \
                   SELECT router, kind, at::timestamptz, body::json \
                   FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[]) AS t (router, kind, at, body) \
                   ON CONFLICT (router, kind) DO UPDATE SET received_at = EXCLUDED.received_at, body = EXCLUDED.body";
        let insert = query(sql)
            .bind(routers)
            .bind(kinds)
            .bind(times)
            .bind(bodies);
        insert.execute(&mut **transaction).await?;
        Ok(())
    }

    async fn write_good(&self, transaction: &mut PgTransaction<'_>) -> Result<(), sqlx::Error> {
        if self.good.is_empty() {
            return Ok(());
        }
        let routers: Vec<&str> = self.good.keys().map(|key| key.0.as_str()).collect();
        let calls: Vec<&str> = self.good.keys().map(|key| key.1).collect();
        let units: Vec<&str> = self.good.values().map(String::as_str).collect();
        let sql = "INSERT INTO good (router, call, units) \
                   SELECT router, call, units::json FROM UNNEST($1::text[], $2::text[], $3::text[]) AS t (router, call, units) \
                   ON CONFLICT (router, call) DO UPDATE SET units = EXCLUDED.units";
        let insert = query(sql).bind(routers).bind(calls).bind(units);
        insert.execute(&mut **transaction).await?;
        Ok(())
    }
}

/// Takes the next revision, whose lock orders the commits of all instances, and announces it.
pub(in crate::fleet::store::postgres) async fn next_revision(
    transaction: &mut PgTransaction<'_>,
) -> Result<i64, sqlx::Error> {
    let sql = "UPDATE fleet SET revision = revision + 1 RETURNING revision";
    let revision: i64 = query(sql).fetch_one(&mut **transaction).await?.get(0);
    query("SELECT pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(revision.to_string())
        .execute(&mut **transaction)
        .await?;
    Ok(revision)
}
