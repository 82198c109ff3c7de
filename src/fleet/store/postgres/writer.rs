//! Writes posts. Those that arrive during a commit share the next one.

use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use sqlx::postgres::PgPool;
use sqlx::query;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::database::unavailable;
use super::memory::Memory;
use crate::fleet::store::{Change, STORE_UNAVAILABLE};
use crate::http::ApiError;
use crate::intervals::{FLEET_POSTS_KEPT, FLEET_POSTS_UPKEEP, FLEET_STORE_WRITE};
use crate::model::ObjectName;

mod batch;

use self::batch::Batch;
pub(super) use self::batch::next_revision;

/// Posts that wait for a commit; more wait in their requests.
pub(super) const QUEUE: usize = 1024;

/// Posts in one commit.
const BATCH: usize = 256;

/// Changes of one router, to be written together.
pub(super) struct Write {
    router: ObjectName,
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), ApiError>>,
}

/// Hands changes to the writer, and waits until they are committed.
pub(super) async fn write(
    writes: &mpsc::Sender<Write>,
    router: &ObjectName,
    changes: Vec<Change>,
) -> Result<(), ApiError> {
    let (done, answer) = oneshot::channel();
    let write = Write {
        router: router.clone(),
        changes,
        done,
    };
    let wait = async {
        writes.send(write).await.map_err(|_| late())?;
        answer.await.map_err(|_| late())?
    };
    timeout(FLEET_STORE_WRITE, wait)
        .await
        .unwrap_or_else(|_| Err(late()))
}

/// The changes may still be committed; the router posts again, and a second commit changes nothing.
fn late() -> ApiError {
    let message = "the store did not confirm the post in time; retry later";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, STORE_UNAVAILABLE, message)
}

pub(super) struct Writer {
    pool: PgPool,
    memory: Arc<Memory>,
    /// When partitions were created and dropped.
    upkeep: Option<Instant>,
}

impl Writer {
    pub(super) fn new(pool: PgPool, memory: Arc<Memory>) -> Self {
        Self {
            pool,
            memory,
            upkeep: None,
        }
    }

    /// Writes until no sender is left.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Write>) {
        let mut writes = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut writes, BATCH).await > 0 {
            self.write(std::mem::take(&mut writes)).await;
        }
    }

    async fn write(&mut self, writes: Vec<Write>) {
        let result = self.commit(&writes).await;
        match result {
            // The one that the database refuses must not cost the others their commit.
            Err(error) if writes.len() > 1 && is_refused(&error) => {
                for write in writes {
                    let result = self.commit(std::slice::from_ref(&write)).await;
                    answer(write, result.map_err(unavailable));
                }
            }
            result => {
                let result = result.map_err(unavailable);
                for write in writes {
                    answer(write, result.clone());
                }
            }
        }
    }

    async fn commit(&mut self, writes: &[Write]) -> Result<(), sqlx::Error> {
        self.keep_partitions().await?;
        let mut batch = Batch::default();
        for write in writes {
            for change in &write.changes {
                batch.add(&write.router, change);
            }
        }
        let statuses = batch.commit(&self.pool).await?;
        self.memory.apply_statuses(statuses);
        Ok(())
    }

    async fn keep_partitions(&mut self) -> Result<(), sqlx::Error> {
        if self
            .upkeep
            .is_some_and(|at| at.elapsed() < FLEET_POSTS_UPKEEP)
        {
            return Ok(());
        }
        query("SELECT keep_partitions(make_interval(secs => $1))")
            .bind(FLEET_POSTS_KEPT.as_secs_f64())
            .execute(&self.pool)
            .await?;
        self.upkeep = Some(Instant::now());
        Ok(())
    }
}

/// Returns whether the database refuses the data, and not the moment.
fn is_refused(error: &sqlx::Error) -> bool {
    // The classes of SQLSTATE for data, constraints and limits of a statement.
    let code = error.as_database_error().and_then(|error| error.code());
    let class = code.as_deref().and_then(|code| code.get(..2));
    matches!(class, Some("22" | "23" | "54")) || matches!(error, sqlx::Error::Encode(_))
}

fn answer(write: Write, result: Result<(), ApiError>) {
    // The request may have given up.
    let _ = write.done.send(result);
}
