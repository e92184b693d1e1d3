//! Refresh tokens, by their SHA-256. One sign-in is one `familia`.

use super::{Error, Result, Tx, on, row};
use crate::domain::Timestamp;

/// A refresh token that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresco {
    /// The sign-in that it descends from.
    pub familia: String,
    /// Whose.
    pub user_id: String,
    /// Until when it is good.
    pub expira: Timestamp,
    /// When its successor was asked for.
    pub usado: Option<Timestamp>,
}

/// Stores a new token.
///
/// # Errors
/// `Conflict` when it exists, `Refused` when the account is gone, `Unavailable`.
pub async fn create(
    tx: &mut Tx,
    hash: &[u8; 32],
    familia: &str,
    user_id: &str,
    emitido: Timestamp,
    expira: Timestamp,
) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "INSERT INTO refrescos (token_hash, familia, user_id, emitido, expira) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(hash.as_slice())
        .bind(familia)
        .bind(user_id)
        .bind(emitido.micros())
        .bind(expira.micros())
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// The token with this hash.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn get(tx: &mut Tx, hash: &[u8; 32]) -> Result<Option<Refresco>> {
    row!(
        struct Fila {
            familia: String,
            user_id: String,
            expira: i64,
            usado: Option<i64>,
        }
    );
    let fila: Option<Fila> = on!(tx, |db| {
        sqlx::query_as("SELECT familia, user_id, expira, usado FROM refrescos WHERE token_hash = $1")
            .bind(hash.as_slice())
            .fetch_optional(db)
            .await
    })?;
    Ok(fila.map(|f| Refresco {
        familia: f.familia,
        user_id: f.user_id,
        expira: Timestamp::clamped(f.expira),
        usado: f.usado.map(Timestamp::clamped),
    }))
}

/// Marks a token as used.
///
/// # Errors
/// `Inconsistent` when there is no such unused token, `Unavailable`.
pub async fn mark_used(tx: &mut Tx, hash: &[u8; 32], ahora: Timestamp) -> Result<()> {
    let n = on!(tx, |db| {
        sqlx::query("UPDATE refrescos SET usado = $2 WHERE token_hash = $1 AND usado IS NULL")
            .bind(hash.as_slice())
            .bind(ahora.micros())
            .execute(db)
            .await
            .map(|r| r.rows_affected())
    })?;
    if n == 1 { Ok(()) } else { Err(Error::inconsistent("refrescos: a token was used while it was locked")) }
}

/// Ends a sign-in: none of its tokens is good any more. `false` when the account has none of this name.
///
/// # Errors
/// `Unavailable`.
pub async fn end_family(tx: &mut Tx, user_id: &str, familia: &str) -> Result<bool> {
    let n = on!(&mut *tx, |db| {
        sqlx::query("DELETE FROM sesiones WHERE familia = $1 AND user_id = $2")
            .bind(familia)
            .bind(user_id)
            .execute(db)
            .await
            .map(|r| r.rows_affected())
    })?;
    on!(tx, |db| {
        sqlx::query("DELETE FROM refrescos WHERE familia = $1 AND user_id = $2")
            .bind(familia)
            .bind(user_id)
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(n == 1)
}

/// Ends every sign-in of an account; answers which.
///
/// # Errors
/// `Unavailable`.
pub async fn end_all(tx: &mut Tx, user_id: &str) -> Result<Vec<String>> {
    end_others(tx, user_id, None).await
}

/// Ends every sign-in of an account, but the one named; answers which.
///
/// # Errors
/// `Unavailable`.
pub async fn end_others(tx: &mut Tx, user_id: &str, menos: Option<&str>) -> Result<Vec<String>> {
    let menos = menos.unwrap_or_default();
    let idas = on!(&mut *tx, |db| {
        sqlx::query_scalar("DELETE FROM sesiones WHERE user_id = $1 AND familia <> $2 RETURNING familia")
            .bind(user_id)
            .bind(menos)
            .fetch_all(db)
            .await
    })?;
    on!(tx, |db| {
        sqlx::query("DELETE FROM refrescos WHERE user_id = $1 AND familia <> $2")
            .bind(user_id)
            .bind(menos)
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(idas)
}

/// Forgets what was good until before `antes`, at most `cuantos` rows; answers how many went.
///
/// # Errors
/// `Unavailable`.
pub async fn expire(tx: &mut Tx, antes: Timestamp, cuantos: i64) -> Result<u64> {
    Ok(on!(tx, |db| {
        sqlx::query(
            "DELETE FROM refrescos WHERE token_hash IN \
             (SELECT token_hash FROM refrescos WHERE expira < $1 ORDER BY expira LIMIT $2)",
        )
        .bind(antes.micros())
        .bind(cuantos)
        .execute(db)
        .await
        .map(|r| r.rows_affected())
    })?)
}
