//! The lease: one process writes to one schema.
//!
//! A row names who has it, by a number that grows with each holder. Every writing transaction locks that
//! row and looks whether the number is still its own, so that a process that has been replaced writes
//! nothing more, whatever its clock or the network did. The holder renews it; another takes it when it
//! has expired by the database's clock, or at once when it was held by the same installation (its data
//! directory, which a lock file keeps for one process): a restart after a crash waits for nobody.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Postgres, Row as _, Transaction};
use tokio_util::sync::CancellationToken;

use super::super::lock::FileLock;
use super::super::{Error, Result};
use super::Base;

/// How long it is good for without being renewed.
const DURA: Duration = Duration::from_secs(15);
/// How often it is renewed: four times before it expires.
const RENUEVA: Duration = Duration::from_secs(3);
/// How often one who waits looks.
const MIRA: Duration = Duration::from_millis(500);

/// The table, made before all migrations: they need the lease. The database's clock, in microseconds.
pub(super) const TABLA: &str = "CREATE TABLE IF NOT EXISTS arriendo (
    id BIGINT PRIMARY KEY CHECK (id = 1), token BIGINT NOT NULL, instalacion TEXT NOT NULL, quien TEXT NOT NULL,
    vence BIGINT NOT NULL);
INSERT INTO arriendo VALUES (1, 0, '', '', 0) ON CONFLICT (id) DO NOTHING";

macro_rules! ahora {
    () => {
        "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
    };
}

#[derive(Debug)]
pub(super) struct Arriendo {
    token: i64,
    /// Who has it now, once it is lost.
    perdido: OnceLock<String>,
    _lock: FileLock,
}

impl Arriendo {
    pub(super) const fn token(&self) -> i64 {
        self.token
    }

    /// Takes it, waiting for a holder that does not renew it.
    pub(super) async fn take(pool: &PgPool, escribe: &Arc<str>, data_dir: &Path) -> Result<Self> {
        let lock = FileLock::take(&data_dir.join("alertrace.lock"))?;
        let (instalacion, quien) = names(data_dir)?;
        let mut visto = None;
        loop {
            let mut tx = pool.begin_with(AssertSqlSafe(escribe.clone())).await?;
            let tomado = sqlx::query(concat!(
                "UPDATE arriendo SET token = token + 1, instalacion = $1, quien = $2, vence = ",
                ahora!(),
                " + $3 ",
                "WHERE id = 1 AND (vence <= ",
                ahora!(),
                " OR instalacion = $1) RETURNING token"
            ))
            .persistent(false)
            .bind(&instalacion)
            .bind(&quien)
            .bind(micros(DURA))
            .fetch_optional(&mut *tx)
            .await?;
            if let Some(fila) = tomado {
                let token = fila.try_get(0)?;
                tx.commit().await?;
                return Ok(Self { token, perdido: OnceLock::new(), _lock: lock });
            }
            let fila = sqlx::raw_sql("SELECT vence, quien FROM arriendo").fetch_one(&mut *tx).await?;
            let (vence, quien): (i64, String) = (fila.try_get(0)?, fila.try_get(1)?);
            tx.commit().await?;
            // Renewed while we looked: somebody is there. (Released, it would be less.)
            if vence > *visto.get_or_insert(vence) {
                return Err(Error::Leased(quien));
            }
            tracing::info!(
                holder = quien,
                "waiting for the lease on the database, which its holder may have left"
            );
            tokio::time::sleep(MIRA).await;
        }
    }

    /// Renews it for as long as `hace` takes, at a start, when nobody does so yet.
    pub(super) async fn during<T>(
        &self,
        pool: &PgPool,
        escribe: &Arc<str>,
        hace: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut cada = tokio::time::interval(RENUEVA);
        cada.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(hace);
        loop {
            tokio::select! {
                hecho = &mut hace => return hecho,
                _ = cada.tick() => {
                    let tx = super::tx::in_time(pool.begin_with(AssertSqlSafe(escribe.clone()))).await?;
                    self.put_expiry_in(tx, DURA).await?;
                }
            }
        }
    }

    /// Locks it for the rest of a transaction, if it is still ours.
    pub(super) async fn check(&self, db: &mut PgConnection) -> Result<()> {
        if let Some(quien) = self.perdido.get() {
            return Err(Error::Lost(quien.clone()));
        }
        let sql = "SELECT token, quien FROM arriendo WHERE id = 1 FOR UPDATE";
        let fila = super::tx::in_time(sqlx::raw_sql(sql).fetch_one(db)).await?;
        let (token, quien): (i64, String) = (fila.try_get(0)?, fila.try_get(1)?);
        if token == self.token {
            return Ok(());
        }
        tracing::error!(
            holder = quien,
            "another alertrace has taken the database over; nothing is acknowledged any more"
        );
        Err(Error::Lost(self.perdido.get_or_init(|| quien).clone()))
    }

    /// Renews it until `parar`; ends before only when it is lost.
    pub(super) async fn keep(&self, base: &Base, parar: CancellationToken) {
        let mut cada = tokio::time::interval(RENUEVA);
        cada.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = parar.cancelled() => return,
                _ = cada.tick() => {}
            }
            let renovado = tokio::select! {
                () = parar.cancelled() => return,
                renovado = self.put_expiry(base, DURA) => renovado,
            };
            match renovado {
                Ok(()) => {}
                Err(Error::Lost(_)) => return,
                // Whoever waits for a commit is told; this one tries again.
                Err(e) => tracing::debug!(error = %e, "the lease cannot be renewed now"),
            }
        }
    }

    /// Lets the next one have it at once.
    pub(super) async fn release(&self, base: &Base) {
        if let Err(e) = self.put_expiry(base, Duration::ZERO).await {
            tracing::debug!(error = %e, "the lease is left to expire");
        }
    }

    /// Not in the writers' turn: a commit that takes long must not cost the lease.
    async fn put_expiry(&self, base: &Base, dura: Duration) -> Result<()> {
        self.put_expiry_in(base.begin(&base.inner.escribe).await?, dura).await
    }

    async fn put_expiry_in(&self, mut tx: Transaction<'static, Postgres>, dura: Duration) -> Result<()> {
        self.check(&mut tx).await?;
        let sql = concat!("UPDATE arriendo SET vence = ", ahora!(), " + $1 WHERE id = 1");
        let renueva = sqlx::query(sql).persistent(false).bind(micros(dura)).execute(&mut *tx);
        super::tx::in_time(renueva).await?;
        super::tx::in_time(tx.commit()).await?;
        Ok(())
    }
}

fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

/// This installation's name, which a restart finds again, and what people are told of this process.
fn names(data_dir: &Path) -> Result<(String, String)> {
    let io = |e| Error::Unavailable(sqlx::Error::Io(e));
    let path = super::mark(data_dir);
    let id = match std::fs::read_to_string(&path) {
        Ok(id) => id.trim().to_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let id = uuid::Uuid::now_v7().to_string();
            std::fs::write(&path, format!("{id}\n")).map_err(io)?;
            id
        }
        Err(e) => return Err(io(e)),
    };
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().into_owned();
    let dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    let quien = format!("process {} on {host}, data directory {}", std::process::id(), dir.display());
    // A copy of the directory on another machine is another installation.
    Ok((format!("{id}@{host}"), quien))
}
