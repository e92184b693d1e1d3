//! Codes that were sent by mail, by their SHA-256: each is good once, for one purpose.

use super::{Result, Tx, on, row};
use crate::domain::Timestamp;

/// What a code is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Para {
    /// To show that an e-mail is one's own.
    Confirmar,
    /// To choose another password.
    Recuperar,
}

impl Para {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmar => "confirmar",
            Self::Recuperar => "recuperar",
        }
    }
}

/// Stores a code, in the place of those that the account had for this.
///
/// # Errors
/// `Refused` when the account is gone, `Unavailable`.
pub async fn create(
    tx: &mut Tx,
    hash: &[u8; 32],
    user_id: &str,
    para: Para,
    expira: Timestamp,
) -> Result<()> {
    on!(&mut *tx, |db| {
        sqlx::query("DELETE FROM codigos WHERE user_id = $1 AND para = $2")
            .bind(user_id)
            .bind(para.as_str())
            .execute(db)
            .await
            .map(drop)
    })?;
    on!(tx, |db| {
        sqlx::query("INSERT INTO codigos (codigo_hash, user_id, para, expira) VALUES ($1, $2, $3, $4)")
            .bind(hash.as_slice())
            .bind(user_id)
            .bind(para.as_str())
            .bind(expira.micros())
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// Whether a code is good.
///
/// # Errors
/// `Unavailable`.
pub async fn good(tx: &mut Tx, hash: &[u8; 32], para: Para, ahora: Timestamp) -> Result<bool> {
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar(
            "SELECT COUNT(*) AS total FROM codigos WHERE codigo_hash = $1 AND para = $2 AND expira > $3",
        )
        .bind(hash.as_slice())
        .bind(para.as_str())
        .bind(ahora.micros())
        .fetch_one(db)
        .await
    })?;
    Ok(total > 0)
}

/// Whose code this is; it is spent by that.
///
/// # Errors
/// `Unavailable`.
pub async fn take(tx: &mut Tx, hash: &[u8; 32], para: Para, ahora: Timestamp) -> Result<Option<String>> {
    row!(
        struct Suyo {
            user_id: String,
        }
    );
    let suyo: Option<Suyo> = on!(tx, |db| {
        sqlx::query_as(
            "DELETE FROM codigos WHERE codigo_hash = $1 AND para = $2 AND expira > $3 RETURNING user_id",
        )
        .bind(hash.as_slice())
        .bind(para.as_str())
        .bind(ahora.micros())
        .fetch_optional(db)
        .await
    })?;
    Ok(suyo.map(|s| s.user_id))
}

/// Forgets codes that were good until before `antes`, at most `cuantos`.
///
/// # Errors
/// `Unavailable`.
pub async fn expire(tx: &mut Tx, antes: Timestamp, cuantos: i64) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "DELETE FROM codigos WHERE codigo_hash IN \
             (SELECT codigo_hash FROM codigos WHERE expira < $1 ORDER BY expira LIMIT $2)",
        )
        .bind(antes.micros())
        .bind(cuantos)
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}
