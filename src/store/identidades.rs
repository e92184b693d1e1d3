//! Accounts of the built-in identity provider.

use super::{Result, Tx, on, row};
use crate::domain::Timestamp;

row!(
    /// An account, as sign-in needs it.
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
    }
);

/// Without the hash.
impl std::fmt::Debug for Identidad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identidad").field("user_id", &self.user_id).finish_non_exhaustive()
    }
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
    ahora: Timestamp,
) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("INSERT INTO identidades (user_id, email, clave_hash, creada) VALUES ($1, $2, $3, $4)")
            .bind(user_id)
            .bind(email)
            .bind(clave_hash)
            .bind(ahora.micros())
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// The account of an e-mail address (lower case).
///
/// # Errors
/// `Unavailable`.
pub async fn by_email(tx: &mut Tx, email: &str) -> Result<Option<Identidad>> {
    Ok(on!(tx, |db| {
        sqlx::query_as("SELECT user_id, email, clave_hash, activa FROM identidades WHERE email = $1")
            .bind(email)
            .fetch_optional(db)
            .await
    })?)
}

/// The generation of an account that exists and may sign in: tokens of another are good no more.
///
/// # Errors
/// `Unavailable`.
pub async fn active(tx: &mut Tx, user_id: &str) -> Result<Option<i64>> {
    row!(
        struct Activa {
            activa: bool,
            generacion: i64,
        }
    );
    let fila: Option<Activa> = on!(tx, |db| {
        sqlx::query_as("SELECT activa, generacion FROM identidades WHERE user_id = $1")
            .bind(user_id)
            .fetch_optional(db)
            .await
    })?;
    Ok(fila.filter(|f| f.activa).map(|f| f.generacion))
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
