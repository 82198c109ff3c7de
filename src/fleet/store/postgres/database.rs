//! The connection to the database, and its schema.

use std::str::FromStr;

use axum::http::StatusCode;
use sqlx::ConnectOptions as _;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::time::timeout;

use crate::fleet::store::STORE_UNAVAILABLE;
use crate::http::ApiError;
use crate::intervals::FLEET_STORE_CONNECT;
use crate::model::Secret;

/// One writes, one reads changes, one waits for notifications, and one reads for requests.
const CONNECTIONS: u32 = 6;

const MIGRATIONS: [(i64, &str, &str); 1] =
    [(1, "fleet", include_str!("migrations/0001_fleet.sql"))];

/// A failure of the store. The text has no password.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address of the database is not valid; its text, which may hold a password, is left out.
    #[error("--store is not a PostgreSQL URL; write postgres://user:password@host/database")]
    Url,
    #[error("store: {0}; check that PostgreSQL runs and that the role may create tables")]
    Database(#[from] sqlx::Error),
    #[error(
        "store at {place}: {source}; check that PostgreSQL runs, and host, database and role of --store"
    )]
    Connect { place: String, source: sqlx::Error },
    #[error("tables of the store: {0}; a newer moenet-agent may have changed them")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// Returns the connections to a database, without connecting.
pub(super) fn pool(url: &Secret<String>) -> Result<PgPool, StoreError> {
    let schemes = ["postgres://", "postgresql://"];
    if !schemes.iter().any(|it| url.expose().starts_with(it)) {
        return Err(StoreError::Url);
    }
    let options = PgConnectOptions::from_str(url.expose()).map_err(|_| StoreError::Url)?;
    let options = options
        .application_name("moenet-agent")
        .options([
            // An acknowledged post is on the disk, whatever the server's default is.
            ("synchronous_commit", "on"),
            ("statement_timeout", "30s"),
            ("lock_timeout", "10s"),
            // An instance that stops in a transaction does not stop the others for longer.
            ("idle_in_transaction_session_timeout", "10s"),
        ])
        .disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(FLEET_STORE_CONNECT);
    Ok(pool.connect_lazy_with(options))
}

/// Creates and updates the tables. Instances that start together wait for each other.
pub(super) async fn migrate(pool: &PgPool) -> Result<(), StoreError> {
    let migrations = MIGRATIONS.map(|(version, name, sql)| {
        let kind = MigrationType::Simple;
        Migration::new(version, name.into(), kind, sql.into_sql_str(), false)
    });
    check_connection(pool).await?;
    Migrator::with_migrations(migrations.into())
        .run(pool)
        .await?;
    Ok(())
}

/// Connects once outside the pool, which tells its own timeout in place of the cause.
async fn check_connection(pool: &PgPool) -> Result<(), StoreError> {
    let options = pool.connect_options();
    let connected = timeout(FLEET_STORE_CONNECT, options.connect()).await;
    let connected = connected.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    connected.map(drop).map_err(|source| StoreError::Connect {
        place: format!(
            "{}:{}/{}",
            options.get_host(),
            options.get_port(),
            options.get_database().unwrap_or_default()
        ),
        source,
    })
}

/// The answer while the database is unavailable: 503, so the router keeps its state and posts again.
pub(in crate::fleet) fn unavailable(error: sqlx::Error) -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        STORE_UNAVAILABLE,
        format!("the store cannot be used now: {error}; retry later"),
    )
}
