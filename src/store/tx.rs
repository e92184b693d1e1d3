//! The seam between one SQL text and two databases.

use sqlx::{Sqlite, Transaction};

use super::Result;
use super::postgres::PgTx;

/// A transaction on one of the two databases. Dropped without [`Tx::commit`], it rolls back.
#[derive(Debug)]
pub enum Tx {
    /// SQLite inside.
    Sqlite(Transaction<'static, Sqlite>),
    /// PostgreSQL outside.
    Postgres(Box<PgTx>),
}

impl Tx {
    /// When this returns without an error, what was written is durable.
    ///
    /// # Errors
    /// [`super::Error::Undecided`]: the outcome is not known.
    pub async fn commit(self) -> Result<()> {
        let done = match self {
            Self::Sqlite(tx) => tx.commit().await.map_err(super::Error::from),
            Self::Postgres(tx) => Box::pin(tx.commit()).await,
        };
        done.map_err(super::Error::of_commit)
    }
}

/// Expands one body for both databases. `$db` is what a statement of the transaction runs on.
macro_rules! on {
    ($tx:expr, |$db:ident| $body:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(tx) => {
                let $db = &mut **tx;
                $body
            }
            $crate::store::Tx::Postgres(tx) => {
                let $db = tx.db();
                $body
            }
        }
    };
}
pub(super) use on;
