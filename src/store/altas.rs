//! Registrations under way with an identity provider that is another server.
//!
//! A row is written before that server is asked, and goes in the transaction that makes the person, so what is
//! here was begun and not ended.

use super::{Result, Tx, on, row};
use crate::domain::Timestamp;

row!(
    /// A registration that has not ended.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Alta {
        /// Its name, which the account there carries.
        pub id_alta: String,
        /// The account there; `None` = that server has not been heard.
        pub user_id: Option<String>,
        /// When it began, as a moment's microseconds.
        pub creada: i64,
        /// It failed: what it made is to be removed.
        pub deshacer: bool,
    }
);

/// A registration begins.
///
/// # Errors
/// `Unavailable`.
pub async fn begin(tx: &mut Tx, id_alta: &str, email: &str, ahora: Timestamp) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("INSERT INTO altas (id_alta, email, creada) VALUES ($1, $2, $3)")
            .bind(id_alta)
            .bind(email)
            .bind(ahora.micros())
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// What a registration made is to be removed.
///
/// # Errors
/// `Unavailable`.
pub async fn undo(tx: &mut Tx, id_alta: &str, user_id: Option<&str>) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("UPDATE altas SET deshacer = TRUE, user_id = $2 WHERE id_alta = $1")
            .bind(id_alta)
            .bind(user_id)
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// A registration has ended; `false` = it had already.
///
/// # Errors
/// `Unavailable`.
pub async fn end(tx: &mut Tx, id_alta: &str) -> Result<bool> {
    let n = on!(tx, |db| {
        sqlx::query("DELETE FROM altas WHERE id_alta = $1")
            .bind(id_alta)
            .execute(db)
            .await
            .map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}

/// Those that failed, or began before `antes`; a hundred at most.
///
/// # Errors
/// `Unavailable`.
pub async fn pending(tx: &mut Tx, antes: Timestamp) -> Result<Vec<Alta>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(
            "SELECT id_alta, user_id, creada, deshacer FROM altas WHERE deshacer OR creada < $1 \
             ORDER BY creada LIMIT 100",
        )
        .bind(antes.micros())
        .fetch_all(db)
        .await
    })?)
}
