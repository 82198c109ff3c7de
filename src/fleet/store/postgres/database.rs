//! The connection to the database, and its schema.

use std::str::FromStr;

use axum::http::StatusCode;
use sqlx::ConnectOptions as _;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Row as _, query};
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
    #[error(
        "--store is not a valid PostgreSQL URL; write postgres://user:password@host/database, or \
         postgres:///database?host=/run/postgresql for a unix socket"
    )]
    Url,
    #[error(
        "store: {0}; check that PostgreSQL runs, and the rights of the role: a server and `fleet import` create tables, other \
         verbs select from them"
    )]
    Database(String),
    #[error(
        "store at {place}: {why}; check that PostgreSQL runs, and host, database and role of --store"
    )]
    Connect { place: String, why: String },
    #[error(
        "the database has the encoding {0}, which lacks most characters; create it with the encoding UTF8"
    )]
    Encoding(String),
    #[error(
        "the database has no fleet; check --store, or fill it with `moenet-agent fleet import DIR`"
    )]
    NoFleet,
    /// The versions in the database, and that of this program.
    #[error(
        "tables of the store have version {0}, and this program reads version {1}; use the version of moenet-agent that serves \
         them, or restart the servers with this one, which update them"
    )]
    Version(i64, i64),
    #[error("tables of the store: {0}; use the version of moenet-agent that has changed them")]
    Changed(MigrateError),
    #[error("tables of the store: {0}; the role of --store has to create tables")]
    Migrate(MigrateError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(cause(&error))
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) => error.into(),
            MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => {
                Self::Changed(error)
            }
            error => Self::Migrate(error),
        }
    }
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
            // No notice that a table exists already.
            ("client_min_messages", "warning"),
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
    let mut connection = connect(pool).await?;
    check_encoding(&mut connection).await?;
    // Its own connection: one of the pool would keep the lock of failed migrations, for which other instances wait.
    Migrator::with_migrations(migrations.into())
        .run_direct(None, &mut connection, false)
        .await?;
    Ok(connection.close().await?)
}

/// Refuses a database without the tables of a fleet as this program has them, for a verb that only reads: it creates none.
pub(super) async fn check_fleet(pool: &PgPool) -> Result<(), StoreError> {
    let mut connection = connect(pool).await?;
    let found = query("SELECT to_regclass('files') IS NOT NULL");
    if !found.fetch_one(&mut connection).await?.get::<bool, _>(0) {
        return Err(StoreError::NoFleet);
    }
    let newest = query("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success");
    let found: i64 = newest.fetch_one(&mut connection).await?.get(0);
    let [.., (wanted, _, _)] = MIGRATIONS;
    match found == wanted {
        true => Ok(connection.close().await?),
        false => Err(StoreError::Version(found, wanted)),
    }
}

/// Connects once outside the pool, which tells its own timeout in place of the cause.
async fn connect(pool: &PgPool) -> Result<PgConnection, StoreError> {
    let options = pool.connect_options();
    let connected = timeout(FLEET_STORE_CONNECT, options.connect()).await;
    let connected = connected.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    connected.map_err(|error| {
        let server = options.get_socket().map_or_else(
            || format!("{}:{}", options.get_host(), options.get_port()),
            |socket| socket.display().to_string(),
        );
        let database = options.get_database().unwrap_or_default();
        let place = format!("{server}/{database}");
        let why = cause(&error);
        StoreError::Connect { place, why }
    })
}

/// Refuses an encoding without the characters that posts and files may have.
async fn check_encoding(connection: &mut PgConnection) -> Result<(), StoreError> {
    let row = query("SHOW server_encoding").fetch_one(connection).await?;
    match row.get::<String, _>(0) {
        // SQL_ASCII stores any text.
        all if all == "UTF8" || all == "SQL_ASCII" => Ok(()),
        other => Err(StoreError::Encoding(other)),
    }
}

/// Returns the text of an error, without the line in PostgreSQL's own source.
fn cause(error: &sqlx::Error) -> String {
    let database = error.as_database_error();
    database.map_or_else(|| error.to_string(), |it| it.message().to_owned())
}

/// The answer while the database is unavailable: 503, so the router keeps its state and posts again.
pub(in crate::fleet) fn unavailable(error: sqlx::Error) -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        STORE_UNAVAILABLE,
        format!(
            "the store cannot be used now: {}; retry later",
            cause(&error)
        ),
    )
}
