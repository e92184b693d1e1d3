//! Second factors of accounts (RFC 6238): the secret as it was sealed, and the codes for whoever has lost the device.

use super::{Result, Tx, on, row};
use crate::domain::Timestamp;

row!(
    /// The second factor of an account.
    pub struct Factor {
        /// Its name.
        pub id_factor: String,
        /// The secret, sealed.
        pub secreto: Vec<u8>,
        /// When a first code confirmed it, as a moment's microseconds.
        pub confirmado: Option<i64>,
    }
);

/// That of an account, confirmed or not.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut Tx, user_id: &str) -> Result<Option<Factor>> {
    Ok(on!(tx, |db| {
        sqlx::query_as("SELECT id_factor, secreto, confirmado FROM totp WHERE user_id = $1")
            .bind(user_id)
            .fetch_optional(db)
            .await
    })?)
}

/// Sets one up, in the place of one that was not confirmed; `false` = the account has one.
///
/// # Errors
/// `Refused` when the account is gone, `Unavailable`.
pub async fn begin(
    tx: &mut Tx,
    user_id: &str,
    id_factor: &str,
    nombre: &str,
    secreto: &[u8],
    ahora: Timestamp,
) -> Result<bool> {
    let n = on!(tx, |db| {
        sqlx::query(
            "INSERT INTO totp (user_id, id_factor, nombre, secreto, creado) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (user_id) DO UPDATE SET id_factor = excluded.id_factor, nombre = excluded.nombre, \
             secreto = excluded.secreto, creado = excluded.creado, paso = 0 WHERE totp.confirmado IS NULL",
        )
        .bind(user_id)
        .bind(id_factor)
        .bind(nombre)
        .bind(secreto)
        .bind(ahora.micros())
        .execute(db)
        .await
        .map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}

/// It is asked for from now on.
///
/// # Errors
/// `Unavailable`.
pub async fn confirm(tx: &mut Tx, user_id: &str, ahora: Timestamp) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("UPDATE totp SET confirmado = $2 WHERE user_id = $1 AND confirmado IS NULL")
            .bind(user_id)
            .bind(ahora.micros())
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// A code of this time step is taken; `false` = one of it, or of a later one, was before.
///
/// # Errors
/// `Unavailable`.
pub async fn spend(tx: &mut Tx, user_id: &str, paso: i64) -> Result<bool> {
    let n = on!(tx, |db| {
        sqlx::query("UPDATE totp SET paso = $2 WHERE user_id = $1 AND paso < $2")
            .bind(user_id)
            .bind(paso)
            .execute(db)
            .await
            .map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}

/// Takes the second factor of an account away, and its codes; `false` = it had none.
///
/// # Errors
/// `Unavailable`.
pub async fn remove(tx: &mut Tx, user_id: &str) -> Result<bool> {
    let n = on!(tx, |db| {
        sqlx::query("DELETE FROM totp WHERE user_id = $1")
            .bind(user_id)
            .execute(db)
            .await
            .map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}

/// Codes for whoever has lost the device, in the place of those that there were.
///
/// # Errors
/// `Unavailable`.
pub async fn set_codes(tx: &mut Tx, user_id: &str, hashes: &[[u8; 32]]) -> Result<()> {
    on!(&mut *tx, |db| {
        sqlx::query("DELETE FROM codigos_totp WHERE user_id = $1").bind(user_id).execute(db).await.map(drop)
    })?;
    for hash in hashes {
        on!(&mut *tx, |db| {
            sqlx::query("INSERT INTO codigos_totp (user_id, codigo_hash) VALUES ($1, $2)")
                .bind(user_id)
                .bind(hash.as_slice())
                .execute(db)
                .await
                .map(drop)
        })?;
    }
    Ok(())
}

/// One of those is taken; `false` = it is none, or was taken before.
///
/// # Errors
/// `Unavailable`.
pub async fn spend_code(tx: &mut Tx, user_id: &str, hash: &[u8; 32]) -> Result<bool> {
    let n = on!(tx, |db| {
        sqlx::query("DELETE FROM codigos_totp WHERE user_id = $1 AND codigo_hash = $2")
            .bind(user_id)
            .bind(hash.as_slice())
            .execute(db)
            .await
            .map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}

/// How many of them are left.
///
/// # Errors
/// `Unavailable`.
pub async fn codes_left(tx: &mut Tx, user_id: &str) -> Result<i64> {
    Ok(on!(tx, |db| {
        sqlx::query_scalar("SELECT COUNT(*) AS total FROM codigos_totp WHERE user_id = $1")
            .bind(user_id)
            .fetch_one(db)
            .await
    })?)
}
