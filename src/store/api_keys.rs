//! Keys of programs. Only their hash is kept.

use super::{Hoja, Result, Tx, on, row};
use crate::domain::Timestamp;

row!(
    /// A key, without what it is.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ApiKey {
        /// Key of the row.
        pub id_api_key: i64,
        /// The tenant.
        pub id_empresa: i64,
        /// What it is for.
        pub nombre: String,
        /// How it begins, for people to tell keys apart.
        pub prefijo: String,
        /// What it may do: names separated by spaces.
        pub permisos: String,
        /// The `user_id` of who made it.
        pub creada_por: String,
        /// When, in microseconds.
        pub creada: i64,
        /// Until when it is good; `None` = until it is revoked.
        pub expira: Option<i64>,
        /// When it was revoked.
        pub revocada: Option<i64>,
    }
);

impl ApiKey {
    /// Whether it lets anybody in at `ahora`.
    #[must_use]
    pub fn vigente(&self, ahora: Timestamp) -> bool {
        self.revocada.is_none() && self.expira.is_none_or(|e| ahora.micros() < e)
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id_api_key, id_empresa, nombre, prefijo, permisos, creada_por, creada, expira, revocada ",
            "FROM api_keys ",
            $rest
        )
    };
}

/// Keeps a new key (its `id_api_key` is ignored); answers the key of its row.
///
/// # Errors
/// `Unavailable`.
pub async fn create(tx: &mut Tx, k: &ApiKey, clave_hash: &[u8; 32]) -> Result<i64> {
    row!(
        struct Clave {
            id_api_key: i64,
        }
    );
    let clave: Clave = on!(tx, |db| {
        sqlx::query_as(
            "INSERT INTO api_keys (id_empresa, nombre, prefijo, clave_hash, permisos, creada_por, creada, expira) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id_api_key",
        )
        .bind(k.id_empresa)
        .bind(k.nombre.as_str())
        .bind(k.prefijo.as_str())
        .bind(clave_hash.as_slice())
        .bind(k.permisos.as_str())
        .bind(k.creada_por.as_str())
        .bind(k.creada)
        .bind(k.expira)
        .fetch_one(db)
        .await
    })?;
    Ok(clave.id_api_key)
}

/// The key of this hash, good or not.
///
/// # Errors
/// `Unavailable`.
pub async fn by_hash(tx: &mut Tx, clave_hash: &[u8; 32]) -> Result<Option<ApiKey>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(select!("WHERE clave_hash = $1")).bind(clave_hash.as_slice()).fetch_optional(db).await
    })?)
}

/// The key of this row, whosever it is.
///
/// # Errors
/// `Unavailable`.
pub async fn by_id(tx: &mut Tx, id_api_key: i64) -> Result<Option<ApiKey>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(select!("WHERE id_api_key = $1")).bind(id_api_key).fetch_optional(db).await
    })?)
}

/// The keys of an empresa, the newest first, and how many there are in all.
///
/// # Errors
/// `Unavailable`.
pub async fn list(tx: &mut Tx, id_empresa: i64, hoja: &Hoja) -> Result<(Vec<ApiKey>, i64)> {
    let filas = on!(&mut *tx, |db| {
        sqlx::query_as(select!(
            "WHERE id_empresa = $1 AND id_api_key < $2 ORDER BY id_api_key DESC LIMIT $3 OFFSET $4"
        ))
        .bind(id_empresa)
        .bind(hoja.bajo())
        .bind(hoja.pide())
        .bind(hoja.skip)
        .fetch_all(db)
        .await
    })?;
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar("SELECT COUNT(*) AS total FROM api_keys WHERE id_empresa = $1")
            .bind(id_empresa)
            .fetch_one(db)
            .await
    })?;
    Ok((filas, total))
}

/// How many keys of an empresa let somebody in at `ahora`.
///
/// # Errors
/// `Unavailable`.
pub async fn open(tx: &mut Tx, id_empresa: i64, ahora: Timestamp) -> Result<i64> {
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar(
            "SELECT COUNT(*) AS total FROM api_keys \
             WHERE id_empresa = $1 AND revocada IS NULL AND (expira IS NULL OR expira > $2)",
        )
        .bind(id_empresa)
        .bind(ahora.micros())
        .fetch_one(db)
        .await
    })?;
    Ok(total)
}

/// Revokes a key of an empresa for good; `false` when the empresa has no such key.
///
/// # Errors
/// `Unavailable`.
pub async fn revoke(tx: &mut Tx, id_empresa: i64, id_api_key: i64, ahora: Timestamp) -> Result<bool> {
    let n = on!(tx, |db| {
        sqlx::query(
            "UPDATE api_keys SET revocada = COALESCE(revocada, $3) WHERE id_api_key = $1 AND id_empresa = $2",
        )
        .bind(id_api_key)
        .bind(id_empresa)
        .bind(ahora.micros())
        .execute(db)
        .await
        .map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}
