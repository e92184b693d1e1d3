//! Tenants.

use std::time::Duration;

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

row!(
    /// For how many days an empresa's history is kept; `None` = as the configuration has it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Retencion {
        /// Whose.
        pub id_empresa: i64,
        /// Readings.
        pub dias: Option<i64>,
        /// Hours.
        pub horas_dias: Option<i64>,
    }
);

/// For how long the history of each empresa is kept.
///
/// # Errors
/// `Unavailable`.
pub async fn retentions(tx: &mut Tx) -> Result<Vec<Retencion>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(
            "SELECT id_empresa, retencion_dias AS dias, retencion_horas_dias AS horas_dias \
             FROM empresas ORDER BY id_empresa",
        )
        .fetch_all(db)
        .await
    })?)
}

row!(
    /// All that is known of a tenant.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Ficha {
        /// Key.
        pub id_empresa: i64,
        /// Tax number.
        pub ruc: String,
        /// Registered name.
        pub razon_social: String,
        /// Where to write to the company itself.
        pub email: Option<String>,
        /// Where to call it.
        pub telefono: Option<String>,
        /// Days that its readings are kept; `None` = as the configuration has it, which none exceeds.
        pub retencion_dias: Option<i64>,
        /// Days that its hours are kept; as above.
        pub retencion_horas_dias: Option<i64>,
        /// When it was created, as a moment's microseconds.
        pub creada: i64,
    }
);

/// A tenant.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut Tx, id_empresa: i64) -> Result<Option<Ficha>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(
            "SELECT id_empresa, ruc, razon_social, email, telefono, retencion_dias, retencion_horas_dias, creada \
             FROM empresas WHERE id_empresa = $1",
        )
        .bind(id_empresa)
        .fetch_optional(db)
        .await
    })?)
}

/// Writes all of a tenant but its key, tax number and creation.
///
/// # Errors
/// `Refused` when a number of days is not positive, `Unavailable`.
pub async fn update(tx: &mut Tx, ficha: &Ficha) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "UPDATE empresas SET razon_social = $2, email = $3, telefono = $4, retencion_dias = $5, \
             retencion_horas_dias = $6 WHERE id_empresa = $1",
        )
        .bind(ficha.id_empresa)
        .bind(ficha.razon_social.as_str())
        .bind(ficha.email.as_deref())
        .bind(ficha.telefono.as_deref())
        .bind(ficha.retencion_dias)
        .bind(ficha.retencion_horas_dias)
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Days as a duration.
#[must_use]
pub fn days(dias: Option<i64>) -> Option<Duration> {
    dias.map(|d| Duration::from_secs(d.unsigned_abs().saturating_mul(86_400)))
}
