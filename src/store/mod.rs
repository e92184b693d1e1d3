//! What is kept: the only floor that knows sqlx, SQL and which database it is.
//!
//! A query is one SQL text for both databases, with `$1` placeholders and native types, expanded by
//! [`on!`]; what must differ lives in `lecturas/{sqlite,postgres}.rs` and in `migrations/`.
//! Every query runs inside a transaction ([`Tx`]): readers from [`Store::read`], the one writer from
//! [`Store::write`]. Missing is `Option`; an [`Error`] never names HTTP or MQTT.

pub mod alertas;
pub mod asignaciones;
mod checkpoint;
pub mod comandos;
pub mod disk;
pub mod empresas;
mod error;
pub mod horas;
pub mod identidades;
pub mod lecturas;
mod lock;
mod migrations;
pub mod mqtt;
#[cfg(test)]
mod plans;
pub mod rechazos;
pub mod refrescos;
mod row;
pub mod sensores;
pub mod trabajadores;
mod tx;
pub mod umbrales;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{Mutex, Semaphore};

pub use disk::Disco;
pub use error::{Error, Result};
pub use tx::Tx;

use row::row;
use tx::on;

/// Pages that a connection keeps, in SQLite's notation (negative = KiB): the writer's, a reader's. What is
/// not there comes from the system's cache, two microseconds a page.
const CACHE: (&str, &str) = ("-16384", "-4096");

/// How many connections and how long to wait for them.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Connections that only read.
    pub readers: u32,
    /// How long a statement waits for a lock that another process holds, and a caller for a free
    /// connection.
    pub busy_timeout: Duration,
}

/// A handle to the database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pools: Pools,
    /// SQLite's alone.
    checkpoint: Option<Arc<checkpoint::Checkpoint>>,
    marcas: Arc<Mutex<horas::Marcas>>,
    /// Held as long as any handle lives: a second process on the same file refuses to start.
    _lock: Arc<Option<lock::FileLock>>,
}

/// `writer` has one connection, so that writers queue here and not on SQLite's lock.
#[derive(Debug, Clone)]
enum Pools {
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
        /// Of those who write now and then, one at a time stands before the writer of readings.
        turno: Arc<Semaphore>,
    },
    #[expect(dead_code, reason = "selectable when its migrations exist; the seam is compiled already")]
    Postgres(PgPool),
}

impl Store {
    /// Opens (or creates) the SQLite database at `path` and brings its schema up to date.
    ///
    /// WAL with `synchronous=FULL`: a commit has been synced when it returns
    /// (<https://www.sqlite.org/pragma.html#pragma_synchronous>).
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::Newer`] when a newer version wrote
    /// it, [`Error::Unavailable`] when it cannot be opened.
    pub async fn open_sqlite(path: &Path, options: Options) -> Result<Self> {
        let lock = lock::FileLock::take(&path.with_extension("lock"))?;
        let base = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(options.busy_timeout)
            .pragma("cache_size", CACHE.1);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(options.busy_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .before_acquire(|db, _| Box::pin(outside_a_transaction(db)))
            .connect_with(
                base.clone()
                    .create_if_missing(true)
                    .auto_vacuum(SqliteAutoVacuum::Incremental)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .foreign_keys(true)
                    // What a statement may have to take back stays in memory: in a file, which is SQLite's
                    // default beyond 64 KiB, it was a fifth of all the server did under load.
                    .pragma("temp_store", "MEMORY")
                    .pragma("cache_size", CACHE.0)
                    .pragma("wal_autocheckpoint", checkpoint::AT_LEAST)
                    .pragma("journal_size_limit", "67108864"),
            )
            .await?;
        migrations::run_sqlite(&writer).await?;
        // A reader sets nothing that is written into the file: it opens whoever else is writing.
        let readers = SqlitePoolOptions::new()
            .max_connections(options.readers)
            .acquire_timeout(options.busy_timeout)
            .before_acquire(|db, _| Box::pin(outside_a_transaction(db)))
            .connect_with(base.clone().pragma("query_only", "ON"))
            .await?;
        let log = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(base.synchronous(SqliteSynchronous::Full));
        let checkpoint = Some(Arc::new(checkpoint::Checkpoint::new(log)));
        let turno = Arc::new(Semaphore::new(1));
        Ok(Self {
            pools: Pools::Sqlite { writer, readers, turno },
            checkpoint,
            marcas: Arc::default(),
            _lock: Arc::new(Some(lock)),
        })
    }

    /// A transaction that reads one consistent state.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no connection can be had in time.
    pub async fn read(&self) -> Result<Tx> {
        Ok(match &self.pools {
            Pools::Sqlite { readers, .. } => Tx::Sqlite(readers.begin().await?),
            Pools::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    /// The writing transaction; there is one at a time on SQLite. Whoever writes now and then waits
    /// here for the others of its kind, so that however many they are, readings wait for two of them
    /// at most: the one that writes and the one that is next.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be had in time.
    pub async fn write(&self) -> Result<Tx> {
        let _turno = match &self.pools {
            Pools::Sqlite { turno, .. } => turno.acquire().await.ok(),
            Pools::Postgres(_) => None,
        };
        self.write_first().await
    }

    /// As [`Self::write`], for the one writer of readings.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn write_first(&self) -> Result<Tx> {
        Ok(match &self.pools {
            // IMMEDIATE: a deferred transaction that reads first can fail with SQLITE_BUSY when it
            // comes to write, and cannot be retried (https://www.sqlite.org/lang_transaction.html).
            Pools::Sqlite { writer, .. } => Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Pools::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    /// Which hours are known to be marked; see there for when it is locked.
    #[must_use]
    pub fn marcas(&self) -> &Mutex<horas::Marcas> {
        &self.marcas
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not.
    pub async fn ping(&self) -> Result<()> {
        let mut tx = self.read().await?;
        row!(
            struct Uno {
                uno: i64,
            }
        );
        let uno: Uno =
            on!(&mut tx, |db| sqlx::query_as("SELECT CAST(1 AS BIGINT) AS uno").fetch_one(db).await)?;
        debug_assert_eq!(uno.uno, 1);
        tx.commit().await
    }

    /// Closes every connection; SQLite folds its WAL into the database.
    pub async fn close(&self) {
        if let Some(checkpoint) = &self.checkpoint {
            checkpoint.close().await;
        }
        match &self.pools {
            Pools::Sqlite { writer, readers, .. } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }
}

/// `false` = the connection is closed and another opened. After a full disk SQLite ends a transaction by
/// itself (<https://www.sqlite.org/lang_transaction.html>, "Response To Errors Within A Transaction");
/// the driver's own ROLLBACK then fails, and it believes itself inside one for ever.
fn outside_a_transaction(db: &mut SqliteConnection) -> std::future::Ready<sqlx::Result<bool>> {
    std::future::ready(Ok(!db.is_in_transaction()))
}
