//! Tenants.

use super::{Result, Tx, on, row};
use crate::domain::Timestamp;

/// What [`create`] needs.
#[derive(Debug, Clone, Copy)]
pub struct Nueva<'a> {
    /// Tax number, 11 digits; unique in the installation.
    pub ruc: &'a str,
    /// Registered name.
    pub razon_social: &'a str,
    /// Where to write to the company itself.
    pub email: Option<&'a str>,
    /// Where to call it.
    pub telefono: Option<&'a str>,
}

row!(
    /// A tenant's name and tax number.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Empresa {
        /// Key.
        pub id_empresa: i64,
        /// Tax number.
        pub ruc: String,
        /// Registered name.
        pub razon_social: String,
    }
);

/// Creates a tenant; answers its key.
///
/// # Errors
/// `Conflict` on `empresas.ruc`, `Unavailable`.
pub async fn create(tx: &mut Tx, nueva: Nueva<'_>, ahora: Timestamp) -> Result<i64> {
    row!(
        struct Clave {
            id_empresa: i64,
        }
    );
    let clave: Clave = on!(tx, |db| {
        sqlx::query_as(
            "INSERT INTO empresas (ruc, razon_social, email, telefono, creada) \
             VALUES ($1, $2, $3, $4, $5) RETURNING id_empresa",
        )
        .bind(nueva.ruc)
        .bind(nueva.razon_social)
        .bind(nueva.email)
        .bind(nueva.telefono)
        .bind(ahora.micros())
        .fetch_one(db)
        .await
    })?;
    Ok(clave.id_empresa)
}

/// The tenant with this tax number.
///
/// # Errors
/// `Unavailable`.
pub async fn by_ruc(tx: &mut Tx, ruc: &str) -> Result<Option<Empresa>> {
    Ok(on!(tx, |db| {
        sqlx::query_as("SELECT id_empresa, ruc, razon_social FROM empresas WHERE ruc = $1")
            .bind(ruc)
            .fetch_optional(db)
            .await
    })?)
}

/// Whether there is any tenant yet.
///
/// # Errors
/// `Unavailable`.
pub async fn any(tx: &mut Tx) -> Result<bool> {
    row!(
        struct Primera {
            id_empresa: Option<i64>,
        }
    );
    let primera: Primera = on!(tx, |db| {
        sqlx::query_as("SELECT MIN(id_empresa) AS id_empresa FROM empresas").fetch_one(db).await
    })?;
    Ok(primera.id_empresa.is_some())
}
