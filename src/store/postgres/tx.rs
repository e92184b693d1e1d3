//! A transaction, and the one place that decides how its statements are prepared.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Execute, Executor, PgConnection, Postgres, SqlStr, Transaction};
use tokio::sync::OwnedSemaphorePermit;

use super::super::Result;
use super::SENTENCIA;
use super::particiones::{Mes, Particiones};

/// A server that says nothing for longer than it may work on a statement is not there.
const PLAZO: Duration = SENTENCIA.saturating_add(Duration::from_secs(10));

/// A transaction on PostgreSQL.
#[derive(Debug)]
pub struct PgTx {
    tx: Transaction<'static, Postgres>,
    /// See [`Conexion`].
    directa: bool,
    particiones: Arc<Particiones>,
    /// Partitions made here, which are there once this commits.
    hechas: Vec<Mes>,
    _escritor: Option<OwnedSemaphorePermit>,
}

impl PgTx {
    pub(super) fn new(
        tx: Transaction<'static, Postgres>,
        directa: bool,
        particiones: Arc<Particiones>,
        escritor: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { tx, directa, particiones, hechas: Vec::new(), _escritor: escritor }
    }

    /// What statements run on.
    pub(in crate::store) fn db(&mut self) -> Conexion<'_> {
        Conexion { db: &mut self.tx, directa: self.directa }
    }

    /// Makes what is missing of the partitions of `meses`.
    pub(in crate::store) async fn make_partitions(&mut self, meses: BTreeSet<Mes>) -> Result<()> {
        for mes in meses {
            if self.particiones.falta(mes) && !self.hechas.contains(&mes) {
                self.particiones.make(&mut self.tx, mes).await?;
                self.hechas.push(mes);
            }
        }
        Ok(())
    }

    pub(super) async fn drop_partition(&mut self, mes: Mes) -> Result<bool> {
        self.particiones.remove(&mut self.tx, mes).await
    }

    pub(in crate::store) async fn commit(self) -> Result<()> {
        in_time(self.tx.commit()).await?;
        self.particiones.hay(self.hechas);
        Ok(())
    }
}

/// A connection inside a transaction. `directa` = its statements are prepared once, under a name, and kept
/// by the session. Through a pooler the next transaction has another session, where that name is unknown or,
/// worse, another's: there every statement is prepared anew, without a name.
#[derive(Debug)]
pub(in crate::store) struct Conexion<'c> {
    db: &'c mut PgConnection,
    directa: bool,
}

impl<'c> Executor<'c> for Conexion<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'c: 'e,
        E: Execute<'q, Postgres>,
        'q: 'e,
        E: 'q,
    {
        let filas = self.db.fetch_many(Sentencia { query, con_nombre: self.directa });
        let siguiente = |mut filas: BoxStream<'e, _>| async {
            match tokio::time::timeout(PLAZO, filas.next()).await {
                Ok(fila) => fila.map(|fila| (fila, filas)),
                Err(_) => Some((Err(silencio()), stream::empty().boxed())),
            }
        };
        stream::unfold(filas, siguiente).boxed()
    }

    fn fetch_optional<'e, 'q, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: Execute<'q, Postgres>,
        'q: 'e,
        E: 'q,
    {
        Box::pin(in_time(self.db.fetch_optional(Sentencia { query, con_nombre: self.directa })))
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        self.db.prepare_with(sql, parameters)
    }
}

/// A query, prepared as the connection wants it.
struct Sentencia<Q> {
    query: Q,
    con_nombre: bool,
}

impl<'q, Q: Execute<'q, Postgres>> Execute<'q, Postgres> for Sentencia<Q> {
    fn sql(self) -> SqlStr {
        self.query.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.query.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.con_nombre && self.query.persistent()
    }
}

/// What is asked of the server, for as long as it may take to answer.
pub(super) async fn in_time<T>(pedido: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    tokio::time::timeout(PLAZO, pedido).await.unwrap_or_else(|_| Err(silencio()))
}

fn silencio() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "PostgreSQL does not answer"))
}
