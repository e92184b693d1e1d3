//! Sign-ins that are open: one row for each `familia` of refresh tokens.

use super::{Result, Tx, on, row};
use crate::domain::Timestamp;

row!(
    /// A sign-in that is open.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Sesion {
        /// Its name.
        pub familia: String,
        /// When it began, as a moment's microseconds.
        pub creada: i64,
        /// When it was last refreshed, as a moment's microseconds.
        pub usada: i64,
        /// The client's address then.
        pub de: String,
    }
);

/// Somebody signs in; `segundo` = and showed their second factor.
///
/// # Errors
/// `Conflict` when it exists, `Refused` when the account is gone, `Unavailable`.
pub async fn create(
    tx: &mut Tx,
    familia: &str,
    user_id: &str,
    de: &str,
    segundo: bool,
    ahora: Timestamp,
    expira: Timestamp,
) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "INSERT INTO sesiones (familia, user_id, creada, usada, expira, de, segundo) \
             VALUES ($1, $2, $3, $3, $4, $5, $6)",
        )
        .bind(familia)
        .bind(user_id)
        .bind(ahora.micros())
        .bind(expira.micros())
        .bind(de)
        .bind(segundo)
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Whether a sign-in showed the second factor; one that is not there did not.
///
/// # Errors
/// `Unavailable`.
pub async fn second(tx: &mut Tx, familia: &str) -> Result<bool> {
    let segundo: Option<bool> = on!(tx, |db| {
        sqlx::query_scalar("SELECT segundo FROM sesiones WHERE familia = $1")
            .bind(familia)
            .fetch_optional(db)
            .await
    })?;
    Ok(segundo.unwrap_or_default())
}

/// Whether a sign-in of an account is open.
///
/// # Errors
/// `Unavailable`.
pub async fn open(tx: &mut Tx, user_id: &str, familia: &str) -> Result<bool> {
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar("SELECT COUNT(*) AS total FROM sesiones WHERE familia = $1 AND user_id = $2")
            .bind(familia)
            .bind(user_id)
            .fetch_one(db)
            .await
    })?;
    Ok(total > 0)
}

/// It was refreshed.
///
/// # Errors
/// `Unavailable`.
pub async fn used(tx: &mut Tx, familia: &str, ahora: Timestamp, expira: Timestamp) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("UPDATE sesiones SET usada = $2, expira = $3 WHERE familia = $1")
            .bind(familia)
            .bind(ahora.micros())
            .bind(expira.micros())
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// Those of an account that are open, the latest first; a hundred at most.
///
/// # Errors
/// `Unavailable`.
pub async fn list(tx: &mut Tx, user_id: &str, ahora: Timestamp) -> Result<Vec<Sesion>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(
            "SELECT familia, creada, usada, de FROM sesiones WHERE user_id = $1 AND expira > $2 \
             ORDER BY usada DESC, familia LIMIT 100",
        )
        .bind(user_id)
        .bind(ahora.micros())
        .fetch_all(db)
        .await
    })?)
}

/// Forgets those that ended by themselves before `antes`, at most `cuantas`.
///
/// # Errors
/// `Unavailable`.
pub async fn expire(tx: &mut Tx, antes: Timestamp, cuantas: i64) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "DELETE FROM sesiones WHERE familia IN \
             (SELECT familia FROM sesiones WHERE expira < $1 ORDER BY expira LIMIT $2)",
        )
        .bind(antes.micros())
        .bind(cuantas)
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}
