//! PostgreSQL outside: everything in one schema, with nothing kept in a session, so that a transaction
//! pooler (PgBouncer, Supabase's) in between makes no difference.
//!
//! Each transaction begins with one message that also sets, for itself alone, what it relies on: the
//! `search_path`, a synced commit, limits on how long it may hold anything up. Each writing one then
//! locks the lease ([`arriendo`]): whoever lost it writes nothing, and there is one writer at a time, as
//! on SQLite. `docs/decisions/0009-postgresql.md` says why.

pub(super) mod arriendo;
mod conexion;
mod copia;
pub(super) mod espera;
pub(super) mod migraciones;
pub(super) mod particiones;
mod tx;
pub mod volcado;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Postgres, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use tx::PgTx;

use super::{Error, Result};
use arriendo::Arriendo;
use particiones::Particiones;

/// How long the server may work on one statement.
const SENTENCIA: Duration = Duration::from_secs(30);
/// How long a transaction may stand idle: a process that hangs, or that the network cut off, must not
/// hold the lease's row against its successor.
const OCIOSA: Duration = Duration::from_secs(20);

/// Where PostgreSQL is, and how it is used.
#[derive(Debug, Clone)]
pub struct Options {
    /// `postgres://…`, sslmode as in libpq.
    pub url: secrecy::SecretString,
    /// For migrations, past a pooler.
    pub direct_url: Option<secrecy::SecretString>,
    /// The authority that signed the server's certificate.
    pub ca: Option<PathBuf>,
    /// The schema that everything is in.
    pub schema: String,
    /// Connections at most.
    pub max_connections: u32,
    /// How long a caller waits for a connection.
    pub acquire_timeout: Duration,
    /// Where the lock file and this installation's name are, and the copies from before a migration.
    pub data_dir: PathBuf,
    /// Whether the database is copied before its schema changes.
    pub copy: bool,
}

/// A connection for whoever only looks, beside the server that has the schema.
pub(super) async fn look(options: &Options) -> Result<PgConnection> {
    Ok(conexion::connect(&conexion::options(&options.url, options.ca.as_deref())?).await?)
}

/// Names the schema for the transaction that `db` is in.
pub(super) async fn search(db: &mut PgConnection, schema: &str) -> Result<()> {
    let sql = format!("SET LOCAL search_path TO \"{schema}\"");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await?;
    Ok(())
}

/// The file that a data directory has from the first time on that PostgreSQL is opened with it: this installation's
/// name, for its lease.
pub(super) fn mark(data_dir: &std::path::Path) -> PathBuf {
    data_dir.join("instance")
}

/// A handle to the database; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pool: PgPool,
    inner: Arc<Inner>,
}

struct Inner {
    /// For the reason when no connection can be had.
    conexion: PgConnectOptions,
    lee: Arc<str>,
    escribe: Arc<str>,
    /// Statements may be prepared once and used again: nothing pools transactions in between.
    directa: bool,
    espera: Duration,
    conexiones: u32,
    arriendo: Arriendo,
    particiones: Arc<Particiones>,
    /// Who asks why there is no connection makes one more: one does at a time.
    pregunta: Semaphore,
    /// One writes at a time: waiting here takes no connection.
    escritor: Arc<Semaphore>,
    /// Of those who write now and then, one at a time stands before the writer of readings.
    turno: Semaphore,
}

/// Without the address, which has the password in it.
impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { directa, arriendo, particiones, .. } = self;
        let mut f = f.debug_struct("Inner");
        f.field("directa", directa).field("arriendo", arriendo).field("particiones", particiones);
        f.finish_non_exhaustive()
    }
}

impl Base {
    pub(super) async fn open(options: &Options) -> Result<Self> {
        let conexion = conexion::options(&options.url, options.ca.as_deref())?;
        let directa = conexion::is_direct(&conexion).await?;
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            // What has died is found out by the BEGIN; another round trip would say no more.
            .test_before_acquire(false)
            .connect_with(conexion.clone())
            .await?;
        let para_migrar = match &options.direct_url {
            Some(url) => conexion::options(url, options.ca.as_deref())?,
            None => conexion.clone(),
        };
        migraciones::prepare(&para_migrar, &options.schema).await?;
        let lee = begin_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", &options.schema, "");
        let escribe = begin_sql("BEGIN", &options.schema, "; SET LOCAL synchronous_commit TO on");
        let arriendo = Arriendo::take(&pool, &escribe, &options.data_dir).await?;
        if let Some(version) = migraciones::about_to_change(&para_migrar, &options.schema).await? {
            if options.copy {
                let recta = directa || options.direct_url.is_some();
                let copia = copia::before_migrating(options, recta, version);
                Box::pin(arriendo.during(&pool, &escribe, copia)).await?;
            } else {
                tracing::warn!(
                    schema = version,
                    "the schema changes, and no copy is made, as it was asked for"
                );
            }
        }
        migraciones::run(&para_migrar, &options.schema, arriendo.token()).await?;
        let particiones = Arc::new(Particiones::load(&pool, &lee).await?);
        tracing::info!(
            schema = options.schema,
            pooled = !directa,
            synced = conexion::is_synced(&pool).await?,
            "PostgreSQL is open"
        );
        let inner = Inner {
            conexion,
            lee,
            escribe,
            directa,
            espera: options.acquire_timeout,
            conexiones: options.max_connections,
            arriendo,
            particiones,
            pregunta: Semaphore::new(1),
            escritor: Arc::new(Semaphore::new(1)),
            turno: Semaphore::new(1),
        };
        Ok(Self { pool, inner: Arc::new(inner) })
    }

    pub(super) async fn read(&self) -> Result<PgTx> {
        let tx = self.begin(&self.inner.lee).await?;
        Ok(self.tx(tx, None))
    }

    pub(super) async fn write(&self) -> Result<PgTx> {
        let _turno = self.en_espera(self.inner.turno.acquire()).await?;
        self.write_first().await
    }

    pub(super) async fn write_first(&self) -> Result<PgTx> {
        let escritor: OwnedSemaphorePermit =
            self.en_espera(self.inner.escritor.clone().acquire_owned()).await?;
        let mut tx = self.begin(&self.inner.escribe).await?;
        self.inner.arriendo.check(&mut tx).await?;
        Ok(self.tx(tx, Some(escritor)))
    }

    fn tx(&self, tx: Transaction<'static, Postgres>, escritor: Option<OwnedSemaphorePermit>) -> PgTx {
        PgTx::new(tx, self.inner.directa, self.inner.particiones.clone(), escritor)
    }

    /// Renews the lease until `parar`; ends before only when it is lost.
    pub(super) async fn keep_lease(&self, parar: tokio_util::sync::CancellationToken) {
        self.inner.arriendo.keep(self, parar).await;
    }

    /// Makes the partitions that will be needed and drops those of months before `antes`.
    pub(super) async fn keep_partitions(
        &self,
        ahora: crate::domain::Timestamp,
        antes: crate::domain::Timestamp,
    ) -> Result<()> {
        if !self.inner.particiones.por_meses() {
            return Ok(());
        }
        let mut tx = self.write().await?;
        tx.make_partitions(particiones::Mes::de(ahora).con_los_que_vienen().collect()).await?;
        tx.commit().await?;
        for mes in self.inner.particiones.antes_de(antes) {
            let mut tx = self.write().await?;
            let gone = tx.drop_partition(mes).await?;
            tx.commit().await?;
            if gone {
                tracing::info!(particion = mes.particion(), "a month of readings is past its days, and gone");
            }
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.inner.arriendo.release(self).await;
        self.pool.close().await;
    }

    /// A transaction on a connection that lives: those that died while they were idle are used up first.
    /// Nothing has been asked of them, so that nothing is asked twice.
    async fn begin(&self, sql: &Arc<str>) -> Result<Transaction<'static, Postgres>> {
        let mut muertas = 0;
        loop {
            // On a task of its own: whoever asked may go (a client that hangs up) between BEGIN and its answer,
            // and sqlx would give the connection back with a transaction open on it, for the next to fail in.
            let (pool, sql) = (self.pool.clone(), sql.clone());
            let empieza = tokio::spawn(async move { tx::in_time(pool.begin_with(AssertSqlSafe(sql))).await });
            match empieza.await.unwrap_or(Err(sqlx::Error::PoolClosed)) {
                Ok(tx) => return Ok(tx),
                Err(e) if muertas < self.inner.conexiones && conexion::was_cut(&e) => muertas += 1,
                Err(sqlx::Error::PoolTimedOut) => return Err(self.por_que().await),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Why there is no connection: what the server says to one more, or that all are in use.
    pub(super) async fn por_que(&self) -> Error {
        let Ok(_pregunta) = self.inner.pregunta.try_acquire() else {
            return sqlx::Error::PoolTimedOut.into();
        };
        let uno = conexion::connect(&self.inner.conexion);
        match tokio::time::timeout(Duration::from_secs(2), uno).await {
            Ok(Err(e)) => e.into(),
            Ok(Ok(_)) => sqlx::Error::PoolTimedOut.into(),
            Err(_) => Error::Unavailable(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
        }
    }

    async fn en_espera<T>(
        &self,
        permiso: impl Future<Output = Result<T, tokio::sync::AcquireError>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.inner.espera, permiso).await {
            Ok(Ok(permiso)) => Ok(permiso),
            Ok(Err(_)) => Err(Error::stopping()),
            Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
        }
    }
}

/// The first message of a transaction. `search_path` goes with each: a pooler may hand the next one to
/// another session, and refuses it among the parameters of a connection.
fn begin_sql(begin: &str, schema: &str, more: &str) -> Arc<str> {
    format!(
        "{begin}; SET LOCAL search_path TO \"{schema}\"; SET LOCAL statement_timeout TO {}; \
         SET LOCAL idle_in_transaction_session_timeout TO {}{more}",
        SENTENCIA.as_millis(),
        OCIOSA.as_millis(),
    )
    .into()
}
