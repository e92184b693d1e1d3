//! What the database takes on disk. SQLite's own figures; where PostgreSQL keeps the data, that is its
//! administrator's to watch.

use super::{Db, Result, Store, Tx, row};

/// Pages of a SQLite database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disco {
    /// In the file.
    pub paginas: u64,
    /// Of them, those that nothing uses; new data takes them before the file grows.
    pub libres: u64,
    /// Bytes of one.
    pub pagina: u64,
}

impl Disco {
    /// Bytes that are in use.
    #[must_use]
    pub const fn usado(self) -> u64 {
        (self.paginas - self.libres) * self.pagina
    }

    /// Bytes of the file.
    #[must_use]
    pub const fn archivo(self) -> u64 {
        self.paginas * self.pagina
    }
}

impl Store {
    /// What the database takes; `None` on PostgreSQL.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn disk(&self) -> Result<Option<Disco>> {
        row!(
            struct Fila {
                paginas: i64,
                libres: i64,
                pagina: i64,
            }
        );
        let Db::Sqlite(mut tx) = self.read().await?.db else { return Ok(None) };
        let fila: Fila = sqlx::query_as(
            "SELECT p.page_count AS paginas, f.freelist_count AS libres, s.page_size AS pagina \
             FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s",
        )
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        let [paginas, libres, pagina] = [fila.paginas, fila.libres, fila.pagina].map(i64::unsigned_abs);
        Ok(Some(Disco { paginas, libres: libres.min(paginas), pagina }))
    }
}

/// Gives up to `paginas` free pages back to the file system.
///
/// # Errors
/// `Unavailable`.
pub async fn shrink(tx: &mut Tx, paginas: i64) -> Result<()> {
    let Db::Sqlite(tx) = &mut tx.db else { return Ok(()) };
    // The number cannot be bound; every row has to be fetched, each being one page
    // (https://www.sqlite.org/pragma.html#pragma_incremental_vacuum).
    let sql = sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({paginas})"));
    sqlx::query(sql).persistent(false).fetch_all(&mut **tx).await?;
    Ok(())
}
