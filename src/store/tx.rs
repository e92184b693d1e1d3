//! The seam between one SQL text and two databases.

use std::sync::Arc;

use sqlx::{Sqlite, Transaction};

use super::Result;
use super::postgres::PgTx;
use super::presentes::Presentes;

/// A transaction. Dropped without [`Tx::commit`], it rolls back.
#[derive(Debug)]
pub struct Tx {
    pub(super) db: Db,
    /// Who is to forget what this may change.
    presentes: Option<Arc<Presentes>>,
}

/// On one of the two databases.
#[derive(Debug)]
pub(super) enum Db {
    /// SQLite inside.
    Sqlite(Transaction<'static, Sqlite>),
    /// PostgreSQL outside.
    Postgres(Box<PgTx>),
}

impl Tx {
    pub(super) const fn new(db: Db) -> Self {
        Self { db, presentes: None }
    }

    /// As a transaction that may change what is kept of people.
    pub(super) fn que_cambia(self, presentes: &Arc<Presentes>) -> Self {
        Self { presentes: Some(presentes.clone()), ..self }
    }

    /// When this returns without an error, what was written is durable.
    ///
    /// # Errors
    /// [`super::Error::Undecided`]: the outcome is not known.
    pub async fn commit(self) -> Result<()> {
        let Self { db, presentes } = self;
        let cerrados = presentes.map(|presentes| (presentes.cierra(), presentes));
        let done = match db {
            Db::Sqlite(tx) => tx.commit().await.map_err(super::Error::from),
            Db::Postgres(tx) => Box::pin(tx.commit()).await,
        };
        // What nobody hears the end of stays shut.
        if let (Ok(()), Some((vez, presentes))) = (&done, cerrados) {
            presentes.abre(vez);
        }
        done.map_err(super::Error::of_commit)
    }
}

/// Expands one body for both databases. `$db` is what a statement of the transaction runs on.
macro_rules! on {
    ($tx:expr, |$db:ident| $body:expr) => {
        match &mut $tx.db {
            $crate::store::tx::Db::Sqlite(tx) => {
                let $db = &mut **tx;
                $body
            }
            $crate::store::tx::Db::Postgres(tx) => {
                let $db = tx.db();
                $body
            }
        }
    };
}
pub(super) use on;
