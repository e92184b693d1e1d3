//! What is kept: the only floor that knows sqlx, SQL and which database it is.
//!
//! A query is one SQL text for both databases, with `$1` placeholders and native types, expanded by
//! [`on!`]; what must differ lives in `{lecturas,mqtt}/{sqlite,postgres}.rs`, in `postgres/` and in `migrations/`.
//! Every query runs inside a transaction ([`Tx`]): readers from [`Store::read`], the one writer from
//! [`Store::write`]. Missing is `Option`; an [`Error`] never names HTTP or MQTT.

pub mod alertas;
pub mod altas;
pub mod api_keys;
pub mod asignaciones;
pub mod auditoria;
pub mod backup;
mod checkpoint;
pub mod codigos;
pub mod comandos;
mod copia;
pub mod cultivos;
pub mod disk;
pub mod empresas;
mod error;
mod files;
mod hoja;
pub mod horas;
pub mod idempotencia;
pub mod identidades;
pub mod invitaciones;
pub mod lecturas;
mod lock;
mod migrations;
pub mod mirada;
pub mod mqtt;
#[cfg(test)]
mod plans;
mod postgres;
mod presentes;
pub mod rechazos;
pub mod refrescos;
mod row;
pub mod sensores;
pub mod sesiones;
pub mod totp;
pub mod trabajadores;
mod tx;
pub mod umbrales;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

pub use disk::Disco;
pub use error::{Error, Result};
pub use hoja::Hoja;
pub use migrations::{State, Step, refuse_unknown};
pub use postgres::Options as PostgresOptions;
pub use postgres::volcado;
pub use tx::Tx;

use crate::domain::Timestamp;
use presentes::Presentes;
use row::row;
use tx::{Db, on};

/// Pages that a connection keeps, in SQLite's notation (negative = KiB): the writer's, a reader's. What is
/// not there comes from the system's cache, two microseconds a page. As small as costs nothing that can be measured:
/// they fill for hours, and look like a leak meanwhile (`docs/benchmarks.md`).
const CACHE: (&str, &str) = ("-2048", "-512");

/// Pages that a transaction may change before the first of them are written to the log, to be written again when
/// they change again: 16 MiB, given back at its end.
const SPILL: &str = "4096";

/// How many connections to SQLite and how long to wait for them.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Connections that only read.
    pub readers: u32,
    /// How long a statement waits for a lock that another process holds, and a caller for a free
    /// connection.
    pub busy_timeout: Duration,
}

/// How long [`Store::ping`] waits.
const PING: Duration = Duration::from_secs(3);

/// A handle to the database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pools: Pools,
    /// SQLite's alone.
    checkpoint: Option<Arc<checkpoint::Checkpoint>>,
    marcas: Arc<Mutex<horas::Marcas>>,
    presentes: Arc<Presentes>,
}

/// `writer` has one connection, so that writers queue here and not on SQLite's lock.
#[derive(Debug, Clone)]
enum Pools {
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
        /// Of those who write now and then, one at a time stands before the writer of readings.
        turno: Arc<Semaphore>,
        /// Held as long as any handle lives: a second process on the same file refuses to start.
        _lock: Arc<lock::FileLock>,
    },
    /// Its futures are boxed: those of SQLite, which most sites run, are not to be as large.
    Postgres(postgres::Base),
}

impl Store {
    /// Opens (or creates) the SQLite database at `path` and brings its schema up to date; before that changes,
    /// the database is copied as it is ([`copia`]).
    ///
    /// WAL with `synchronous=FULL`: a commit has been synced when it returns
    /// (<https://www.sqlite.org/pragma.html#pragma_synchronous>).
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::Elsewhere`] when there is none yet and PostgreSQL has been
    /// used from the same directory, [`Error::Newer`] when a newer version wrote it,
    /// [`Error::NoRoom`] or [`Error::NoCopy`] when it cannot be copied, [`Error::Unavailable`] when it
    /// cannot be opened.
    pub async fn open_sqlite(path: &Path, options: Options) -> Result<Self> {
        let of_postgres = postgres::mark(files::parent(path));
        if !path.exists() && of_postgres.exists() {
            return Err(Error::Elsewhere(of_postgres));
        }
        let lock = lock::FileLock::take(&path.with_extension("lock"))?;
        copia::before_migrating(path).await?;
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
                    .pragma("cache_spill", SPILL)
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
            pools: Pools::Sqlite { writer, readers, turno, _lock: Arc::new(lock) },
            checkpoint,
            marcas: Arc::default(),
            presentes: Arc::default(),
        })
    }

    /// Opens the schema of a PostgreSQL database, making it when it is not there, and brings it up to date.
    ///
    /// # Errors
    /// [`Error::Leased`] when another process writes to it, [`Error::Locked`] when another has the data
    /// directory, [`Error::Newer`] when a newer version wrote it, [`Error::Unavailable`] when it cannot be
    /// reached.
    pub async fn open_postgres(options: &PostgresOptions) -> Result<Self> {
        let base = Box::pin(postgres::Base::open(options)).await?;
        Ok(Self::on_postgres(base))
    }

    /// As [`Self::open_postgres`], waiting for up to `paciencia` for a server that is not there yet.
    ///
    /// # Errors
    /// As [`Self::open_postgres`].
    pub async fn await_postgres(options: &PostgresOptions, paciencia: Duration) -> Result<Self> {
        let base = Box::pin(postgres::espera::open(options, paciencia)).await?;
        Ok(Self::on_postgres(base))
    }

    fn on_postgres(base: postgres::Base) -> Self {
        let pools = Pools::Postgres(base);
        Self { pools, checkpoint: None, marcas: Arc::default(), presentes: Arc::default() }
    }

    /// Keeps other processes from the database, until `parar`. Ends before only when that is lost.
    pub async fn keep_lease(self, parar: CancellationToken) {
        match &self.pools {
            // The lock file needs no keeping.
            Pools::Sqlite { .. } => parar.cancelled().await,
            Pools::Postgres(base) => Box::pin(base.keep_lease(parar)).await,
        }
    }

    /// Makes room for the readings to come, and drops those before `antes` where whole tables can be.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn keep_partitions(&self, ahora: Timestamp, antes: Timestamp) -> Result<()> {
        match &self.pools {
            Pools::Sqlite { .. } => Ok(()),
            Pools::Postgres(base) => Box::pin(base.keep_partitions(ahora, antes)).await,
        }
    }

    /// A transaction that reads one consistent state.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no connection can be had in time.
    pub async fn read(&self) -> Result<Tx> {
        Ok(Tx::new(match &self.pools {
            Pools::Sqlite { readers, .. } => Db::Sqlite(readers.begin().await?),
            Pools::Postgres(base) => Db::Postgres(Box::new(Box::pin(base.read()).await?)),
        }))
    }

    /// The writing transaction; there is one at a time. Whoever writes now and then waits
    /// here for the others of its kind, so that however many they are, readings wait for two of them
    /// at most: the one that writes and the one that is next.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be had in time.
    pub async fn write(&self) -> Result<Tx> {
        let tx = match &self.pools {
            Pools::Sqlite { turno, .. } => {
                let _turno = turno.acquire().await.ok();
                self.write_first().await?
            }
            Pools::Postgres(base) => self.begun(Db::Postgres(Box::new(Box::pin(base.write()).await?))),
        };
        Ok(tx.que_cambia(&self.presentes))
    }

    /// As [`Self::write`], for the one writer of readings. It changes nothing of people, their accounts and their
    /// sign-ins ([`presentes`]).
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn write_first(&self) -> Result<Tx> {
        Ok(self.begun(match &self.pools {
            // IMMEDIATE: a deferred transaction that reads first can fail with SQLITE_BUSY when it
            // comes to write, and cannot be retried (https://www.sqlite.org/lang_transaction.html).
            Pools::Sqlite { writer, .. } => Db::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Pools::Postgres(base) => Db::Postgres(Box::new(Box::pin(base.write_first()).await?)),
        }))
    }

    fn begun(&self, db: Db) -> Tx {
        self.presentes.empieza_otra();
        Tx::new(db)
    }

    /// Which hours are known to be marked; see there for when it is locked.
    #[must_use]
    pub fn marcas(&self) -> &Mutex<horas::Marcas> {
        &self.marcas
    }

    /// Whether the database answers, within the patience of whoever asks for that alone.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not.
    pub async fn ping(&self) -> Result<()> {
        match (tokio::time::timeout(PING, self.select_one()).await, &self.pools) {
            (Ok(answer), _) => answer,
            (Err(_), Pools::Postgres(base)) => Err(Box::pin(base.por_que()).await),
            (Err(_), Pools::Sqlite { .. }) => Err(sqlx::Error::PoolTimedOut.into()),
        }
    }

    async fn select_one(&self) -> Result<()> {
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
            Pools::Postgres(base) => Box::pin(base.close()).await,
        }
    }
}

/// `false` = the connection is closed and another opened. After a full disk SQLite ends a transaction by
/// itself (<https://www.sqlite.org/lang_transaction.html>, "Response To Errors Within A Transaction");
/// the driver's own ROLLBACK then fails, and it believes itself inside one for ever.
fn outside_a_transaction(db: &mut SqliteConnection) -> std::future::Ready<sqlx::Result<bool>> {
    std::future::ready(Ok(!db.is_in_transaction()))
}
