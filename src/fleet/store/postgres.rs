//! The store in PostgreSQL, for any number of instances. Each instance has the complete fleet in
//! memory and serves it also while the database is unavailable; a post is acknowledged only after
//! its commit.

mod audit;
mod database;
mod files;
mod memory;
mod record;
mod refresh;
mod served;
mod writer;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::postgres::PgPool;
use sqlx::{Row, query};
use tokio::sync::{Mutex, mpsc};

pub use self::database::StoreError;
use self::database::unavailable;
use self::memory::Memory;
use self::refresh::Read;
use self::writer::{Write, Writer};
use super::{Change, Door, MakeChange, PostedKeys, Store};
use crate::fleet::audit::{AuditEntry, Author};
use crate::fleet::change::{ChangeError, ChangedFiles, Changes};
use crate::fleet::good::{Good, Written};
use crate::fleet::history::ServedList;
use crate::fleet::network::FleetFiles;
use crate::fleet::posts::{Post, Posts, Statuses};
use crate::fleet::rollout::FleetRecord;
use crate::fleet::version::{Revisions, Version};
use crate::http::ApiError;
use crate::intervals::FLEET_STORE_POLL;
use crate::model::{ObjectName, Secret, Uid};
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;
use crate::wire::Call;
use crate::wire::reference::endpoint;

const HEARTBEAT: &str = "heartbeat";
const REPORT: &str = "report";

/// How often a change of files is made again, because another one was faster.
const ATTEMPTS: usize = 5;

/// A fleet in a database.
pub(in crate::fleet) struct Postgres {
    pool: PgPool,
    memory: Arc<Memory>,
    writes: mpsc::Sender<Write>,
    /// The keys of the routers, and when they were read.
    keys: Mutex<Option<(Instant, Arc<PostedKeys>)>>,
}

impl Postgres {
    /// Opens the store. Its tasks connect, and go on trying while the database is unavailable.
    pub(in crate::fleet) fn open(url: &Secret<String>) -> Result<Self, StoreError> {
        let pool = database::pool(url)?;
        let memory = Arc::new(Memory::default());
        let (writes, queue) = mpsc::channel(writer::QUEUE);
        tokio::spawn(refresh::run(pool.clone(), Arc::clone(&memory)));
        tokio::spawn(Writer::new(pool.clone(), Arc::clone(&memory)).run(queue));
        Ok(Self {
            pool,
            memory,
            writes,
            keys: Mutex::default(),
        })
    }

    /// Opens and reads the store of a fleet that exists, for a verb that writes nothing: the role may only SELECT.
    pub(in crate::fleet) async fn open_existing(url: &Secret<String>) -> Result<Self, StoreError> {
        let pool = database::pool(url)?;
        database::check_fleet(&pool).await?;
        let memory = Arc::new(Memory::default());
        refresh::refresh(&pool, &memory, Read::Everything).await?;
        let (writes, _) = mpsc::channel(writer::QUEUE);
        Ok(Self {
            pool,
            memory,
            writes,
            keys: Mutex::default(),
        })
    }

    /// Reads the fleet now, for a verb that writes.
    pub(in crate::fleet) async fn load(&self) -> Result<(), StoreError> {
        database::migrate(&self.pool).await?;
        Ok(refresh::refresh(&self.pool, &self.memory, Read::Changes).await?)
    }

    pub(in crate::fleet) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Writes files, unless one has changed after this revision. Returns whether it did.
    pub(in crate::fleet) async fn write_files(
        &self,
        changes: &ChangedFiles,
        known: i64,
        by: &Author,
    ) -> Result<bool, sqlx::Error> {
        let is_written = files::write(&self.pool, changes, known, by).await?;
        let refreshed = refresh::refresh(&self.pool, &self.memory, Read::Changes).await;
        match refreshed {
            Err(error) if is_written => {
                tracing::warn!(%error, "changed files are not read again yet; retrying at the next look");
            }
            refreshed => refreshed?,
        }
        Ok(is_written)
    }

    async fn posted_keys(&self) -> Result<PostedKeys, ApiError> {
        // The value of one text with U+0000 would fail those of all routers.
        let sql = "SELECT router, body->>'meshPublicKey' FROM newest WHERE kind = $1 \
                   AND strpos(body::text, '\\u0000') = 0";
        let rows = query(sql).bind(HEARTBEAT).fetch_all(&self.pool).await;
        let rows = rows.map_err(unavailable)?.into_iter();
        let key = |row: sqlx::postgres::PgRow| {
            let (router, key): (String, Option<String>) = (row.get(0), row.get(1));
            Some((router.parse().ok()?, key?.parse().ok()?))
        };
        Ok(rows.filter_map(key).sorted_map())
    }

    /// Returns the newest posts of routers by their kind.
    async fn newest(
        &self,
        routers: &[ObjectName],
    ) -> Result<HashMap<(String, String), Post>, ApiError> {
        // The time as text, in the form that jiff reads.
        let sql = "SELECT router, kind, to_char(received_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), body::text \
                   FROM newest WHERE router = ANY($1)";
        let names: Vec<&str> = routers.iter().map(ObjectName::as_str).collect();
        let rows = query(sql).bind(names).fetch_all(&self.pool).await;
        let post = |row: sqlx::postgres::PgRow| {
            let (at, body): (String, String) = (row.get(2), row.get(3));
            let post = Post {
                received_at: at.parse::<Timestamp>().ok()?,
                body: serde_json::from_str(&body).ok()?,
            };
            Some(((row.get(0), row.get(1)), post))
        };
        let rows = rows.map_err(unavailable)?.into_iter();
        Ok(rows.filter_map(post).collect())
    }
}

#[async_trait]
impl Store for Postgres {
    async fn network(&self) -> Result<Option<Arc<FleetFiles>>, ApiError> {
        self.memory.files.network()
    }

    async fn catch_up(&self) -> Result<(), ApiError> {
        let refreshed = refresh::refresh(&self.pool, &self.memory, Read::Changes).await;
        refreshed.map_err(unavailable)
    }

    async fn file(&self, path: &Path) -> io::Result<Option<Arc<str>>> {
        Ok(self.memory.files.file_at(path))
    }

    async fn mesh_keys(&self) -> Result<Arc<PostedKeys>, ApiError> {
        let mut keys = self.keys.lock().await;
        if let Some((at, posted)) = &*keys
            && at.elapsed() < FLEET_STORE_POLL
        {
            return Ok(Arc::clone(posted));
        }
        let posted = self.posted_keys().await?;
        let before = keys.take().map(|(_, before)| before);
        let posted = before
            .filter(|it| **it == posted)
            .unwrap_or_else(|| Arc::new(posted));
        *keys = Some((Instant::now(), Arc::clone(&posted)));
        Ok(posted)
    }

    async fn revisions(&self) -> Revisions {
        self.memory.files.revisions()
    }

    async fn door(&self, router: &ObjectName) -> Result<Option<Door>, ApiError> {
        self.memory.files.door(router)
    }

    async fn version(&self, router: &ObjectName, call: Call) -> Option<Version> {
        self.memory.files.version(router, call)
    }

    async fn written(&self, router: &ObjectName, call: Call) -> Result<Written, ApiError> {
        self.memory.files.written(router, call)
    }

    async fn text(&self, router: &ObjectName, call: Call) -> String {
        self.memory.files.text(router, call)
    }

    async fn good(&self, router: &ObjectName, call: Call) -> Result<Good, ApiError> {
        let sql = "SELECT units::text FROM good WHERE router = $1 AND call = $2";
        let found = query(sql).bind(router.as_str()).bind(endpoint(call));
        let row = found
            .fetch_optional(&self.pool)
            .await
            .map_err(unavailable)?;
        let Some(row) = row else {
            return Ok(Good::new());
        };
        serde_json::from_str(row.get(0))
            .map_err(|error| ApiError::internal(format!("table good of the store: {error}")))
    }

    async fn change_files(
        &self,
        by: &Author,
        mut make: MakeChange,
    ) -> Result<Vec<String>, ChangeError> {
        self.catch_up().await?;
        for _ in 0..ATTEMPTS {
            let (files, known) = self.memory.files.snapshot()?;
            let checked = blocking(move || {
                let mut changes = Changes::of(FleetFiles::clone(&files));
                let checked = make(&mut changes).and_then(|must| changes.checked(must));
                checked.map(|changed| (make, changed))
            });
            let (again, changed) = checked.await?;
            let written = self.write_files(&changed, known, by).await;
            if written.map_err(unavailable)? {
                return Ok(changed.into_keys().collect());
            }
            make = again;
        }
        Err(ChangeError::ChangedMeanwhile("the fleet".to_owned()))
    }

    async fn audit(&self) -> Result<Vec<AuditEntry>, ApiError> {
        audit::read(&self.pool).await
    }

    async fn statuses(&self, router: &ObjectName) -> Result<Statuses, ApiError> {
        Ok(self.memory.statuses(router))
    }

    async fn status(&self, router: &ObjectName, uuid: &Uid) -> Result<Statuses, ApiError> {
        Ok(self.memory.status(router, uuid))
    }

    async fn posts(&self, router: &ObjectName) -> Result<Posts, ApiError> {
        let mut posts = self.posts_of(std::slice::from_ref(router)).await;
        posts.pop().unwrap_or_else(|| Ok(Posts::default()))
    }

    async fn posts_of(&self, routers: &[ObjectName]) -> Vec<Result<Posts, ApiError>> {
        let mut newest = self.newest(routers).await;
        let posts = |router: &ObjectName| {
            let newest = newest.as_mut().map_err(|error| error.clone())?;
            let mut post = |kind: &str| newest.remove(&(router.to_string(), kind.to_owned()));
            Ok(Posts {
                heartbeat: post(HEARTBEAT),
                report: post(REPORT),
                sessions: self.memory.statuses(router),
            })
        };
        routers.iter().map(posts).collect()
    }

    async fn served(&self, router: &ObjectName) -> Result<Vec<ServedList>, ApiError> {
        served::read(&self.pool, router).await
    }

    async fn record(&self) -> Result<FleetRecord, ApiError> {
        let record = record::read(&self.pool).await?;
        // The one who wrote it may have decided on files that this instance has not read yet.
        self.catch_up().await?;
        Ok(record)
    }

    async fn set_record(
        &self,
        record: &FleetRecord,
        decided: Option<AuditEntry>,
    ) -> Result<bool, ApiError> {
        record::replace(&self.pool, record, decided.as_ref()).await
    }

    async fn write(&self, router: &ObjectName, changes: Vec<Change>) -> Result<(), ApiError> {
        writer::write(&self.writes, router, changes).await
    }
}
