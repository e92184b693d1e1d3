//! Requests that named themselves by an `Idempotency-Key`, and what they were answered.

use super::{Result, Tx, on, row};
use crate::domain::Timestamp;

/// Which request: of whom, to where, under which key (its SHA-256).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nombre {
    /// The account.
    pub principal: String,
    /// The path.
    pub ruta: String,
    /// The key's SHA-256.
    pub clave: [u8; 32],
}

row!(
    /// What is known of one.
    #[derive(Debug, Clone)]
    pub struct Conocida {
        /// SHA-256 of its body.
        pub huella: Vec<u8>,
        /// The status that it was answered; `None` = it was not, as far as is known.
        pub estado: Option<i64>,
        /// The rest of the answer, sealed.
        pub respuesta: Option<Vec<u8>>,
    }
);

/// What is known of a request.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut Tx, n: &Nombre) -> Result<Option<Conocida>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(
            "SELECT huella, estado, respuesta FROM idempotencia \
             WHERE principal = $1 AND ruta = $2 AND clave = $3",
        )
        .bind(n.principal.as_str())
        .bind(n.ruta.as_str())
        .bind(n.clave.as_slice())
        .fetch_optional(db)
        .await
    })?)
}

/// Notes a request that is about to be carried out.
///
/// # Errors
/// `Conflict` when it is known, `Unavailable`.
pub async fn begin(tx: &mut Tx, n: &Nombre, huella: &[u8; 32], ahora: Timestamp) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "INSERT INTO idempotencia (principal, ruta, clave, huella, momento) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(n.principal.as_str())
        .bind(n.ruta.as_str())
        .bind(n.clave.as_slice())
        .bind(huella.as_slice())
        .bind(ahora.micros())
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Notes what a request was answered.
///
/// # Errors
/// `Unavailable`.
pub async fn answered(tx: &mut Tx, n: &Nombre, estado: u16, respuesta: &[u8]) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "UPDATE idempotencia SET estado = $4, respuesta = $5 \
             WHERE principal = $1 AND ruta = $2 AND clave = $3",
        )
        .bind(n.principal.as_str())
        .bind(n.ruta.as_str())
        .bind(n.clave.as_slice())
        .bind(i64::from(estado))
        .bind(respuesta)
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Forgets a request that changed nothing.
///
/// # Errors
/// `Unavailable`.
pub async fn forget(tx: &mut Tx, n: &Nombre) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("DELETE FROM idempotencia WHERE principal = $1 AND ruta = $2 AND clave = $3")
            .bind(n.principal.as_str())
            .bind(n.ruta.as_str())
            .bind(n.clave.as_slice())
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// Makes room for one more of `principal`: at most `caben` of its newest are left. Forgets some of before
/// `antes` too, whoever's they are.
///
/// # Errors
/// `Unavailable`.
pub async fn make_room(tx: &mut Tx, principal: &str, caben: i64, antes: Timestamp) -> Result<()> {
    on!(&mut *tx, |db| {
        sqlx::query(
            "DELETE FROM idempotencia WHERE (principal, ruta, clave) IN (SELECT principal, ruta, clave \
             FROM idempotencia WHERE momento < $1 ORDER BY momento LIMIT 100)",
        )
        .bind(antes.micros())
        .execute(db)
        .await
        .map(drop)
    })?;
    on!(tx, |db| {
        sqlx::query(
            "DELETE FROM idempotencia WHERE (principal, ruta, clave) IN (SELECT principal, ruta, clave \
             FROM idempotencia WHERE principal = $1 ORDER BY momento DESC LIMIT 100 OFFSET $2)",
        )
        .bind(principal)
        .bind(caben)
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}
