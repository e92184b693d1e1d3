//! Accounts of the built-in identity provider.

use super::{Result, Tx, on, row};
use crate::domain::Timestamp;

row!(
    /// An account.
    #[derive(Clone)]
    pub struct Identidad {
        /// Key.
        pub user_id: String,
        /// Lower case.
        pub email: String,
        /// Argon2id, as a PHC string.
        pub clave_hash: String,
        /// Whether it may sign in.
        pub activa: bool,
        /// When its e-mail was confirmed, as a moment's microseconds.
        pub confirmada: Option<i64>,
        /// When it was made, as a moment's microseconds.
        pub creada: i64,
        /// What a front end keeps beside it: a JSON object.
        pub datos: String,
        /// What only the installation may keep beside it: a JSON object.
        pub datos_app: String,
        /// Its second factor, confirmed or not.
        pub id_factor: Option<String>,
        /// What its owner calls it.
        pub factor: Option<String>,
        /// When it was set up, as a moment's microseconds.
        pub factor_creado: Option<i64>,
        /// When a first code confirmed it: from then on it is asked for. A moment's microseconds.
        pub factor_confirmado: Option<i64>,
    }
);

/// Without the hash.
impl std::fmt::Debug for Identidad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identidad").field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

/// The columns of [`Identidad`].
macro_rules! identidad {
    ($rest:literal) => {
        concat!(
            "SELECT i.user_id, i.email, i.clave_hash, i.activa, i.confirmada, i.creada, i.datos, i.datos_app, ",
            "t.id_factor, t.nombre AS factor, t.creado AS factor_creado, t.confirmado AS factor_confirmado ",
            "FROM identidades i LEFT JOIN totp t ON t.user_id = i.user_id ",
            $rest
        )
    };
}

/// Creates an account.
///
/// # Errors
/// `Conflict` on `identidades.email`, `Unavailable`.
pub async fn create(
    tx: &mut Tx,
    user_id: &str,
    email: &str,
    clave_hash: &str,
    confirmada: bool,
    ahora: Timestamp,
) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "INSERT INTO identidades (user_id, email, clave_hash, creada, confirmada) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(user_id)
        .bind(email)
        .bind(clave_hash)
        .bind(ahora.micros())
        .bind(confirmada.then(|| ahora.micros()))
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// The account with this key.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut Tx, user_id: &str) -> Result<Option<Identidad>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(identidad!("WHERE i.user_id = $1")).bind(user_id).fetch_optional(db).await
    })?)
}

/// Accounts, the latest first, and how many there are.
///
/// # Errors
/// `Unavailable`.
pub async fn list(tx: &mut Tx, limite: i64, salta: i64) -> Result<(Vec<Identidad>, i64)> {
    let filas = on!(&mut *tx, |db| {
        sqlx::query_as(identidad!("ORDER BY i.creada DESC, i.user_id DESC LIMIT $1 OFFSET $2"))
            .bind(limite)
            .bind(salta)
            .fetch_all(db)
            .await
    })?;
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar("SELECT COUNT(*) AS total FROM identidades").fetch_one(db).await
    })?;
    Ok((filas, total))
}

/// Another password.
///
/// # Errors
/// `Unavailable`.
pub async fn set_password(tx: &mut Tx, user_id: &str, clave_hash: &str) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("UPDATE identidades SET clave_hash = $2 WHERE user_id = $1")
            .bind(user_id)
            .bind(clave_hash)
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// The e-mail is confirmed, from now on where it was not.
///
/// # Errors
/// `Unavailable`.
pub async fn confirm(tx: &mut Tx, user_id: &str, ahora: Timestamp) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("UPDATE identidades SET confirmada = $2 WHERE user_id = $1 AND confirmada IS NULL")
            .bind(user_id)
            .bind(ahora.micros())
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// What is kept beside an account.
///
/// # Errors
/// `Unavailable`.
pub async fn set_data(tx: &mut Tx, user_id: &str, datos: &str, datos_app: &str) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("UPDATE identidades SET datos = $2, datos_app = $3 WHERE user_id = $1")
            .bind(user_id)
            .bind(datos)
            .bind(datos_app)
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// Removes an account, its sign-ins and its codes.
///
/// # Errors
/// `Unavailable`.
pub async fn delete(tx: &mut Tx, user_id: &str) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("DELETE FROM identidades WHERE user_id = $1").bind(user_id).execute(db).await.map(drop)
    })?;
    Ok(())
}

/// The account of an e-mail address (lower case).
///
/// # Errors
/// `Unavailable`.
pub async fn by_email(tx: &mut Tx, email: &str) -> Result<Option<Identidad>> {
    Ok(on!(tx, |db| sqlx::query_as(identidad!("WHERE i.email = $1")).bind(email).fetch_optional(db).await)?)
}

/// What the tokens of an account have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vigente {
    /// Of this generation: those of another are good no more.
    pub generacion: i64,
    /// Of a sign-in that showed the second factor.
    pub segundo: bool,
}

/// What the tokens of an account have to be that exists and may sign in.
///
/// # Errors
/// `Unavailable`.
pub async fn active(tx: &mut Tx, user_id: &str) -> Result<Option<Vigente>> {
    row!(
        struct Activa {
            activa: bool,
            generacion: i64,
            confirmado: Option<i64>,
        }
    );
    let fila: Option<Activa> = on!(tx, |db| {
        sqlx::query_as(
            "SELECT i.activa, i.generacion, t.confirmado FROM identidades i LEFT JOIN totp t ON t.user_id = i.user_id \
             WHERE i.user_id = $1",
        )
        .bind(user_id)
        .fetch_optional(db)
        .await
    })?;
    let vigente = |f: Activa| Vigente { generacion: f.generacion, segundo: f.confirmado.is_some() };
    Ok(fila.filter(|f| f.activa).map(vigente))
}

/// Begins another generation of an account: no access token from before is good any more.
///
/// # Errors
/// `Unavailable`.
pub async fn renew(tx: &mut Tx, user_id: &str) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("UPDATE identidades SET generacion = generacion + 1 WHERE user_id = $1")
            .bind(user_id)
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}
