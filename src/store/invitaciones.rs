//! Codes by which an account joins an empresa. Only their hash is kept; each is good once.

use super::{Error, Hoja, Result, Tx, on, row};
use crate::domain::{Rol, Timestamp};

/// What [`create`] needs.
#[derive(Debug, Clone, Copy)]
pub struct Nueva<'a> {
    /// Whom it lets in to.
    pub id_empresa: i64,
    /// SHA-256 of the code.
    pub codigo_hash: &'a [u8; 32],
    /// As what.
    pub rol: Rol,
    /// The `user_id` of who invites.
    pub creada_por: &'a str,
    /// Until when.
    pub expira: Timestamp,
}

/// An invitation, without its code, which nobody has any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitacion {
    /// Key.
    pub id_invitacion: i64,
    /// Whom it lets in to.
    pub id_empresa: i64,
    /// As what.
    pub rol: Rol,
    /// The `user_id` of who invited.
    pub creada_por: String,
    /// When.
    pub creada: Timestamp,
    /// Until when.
    pub expira: Timestamp,
    /// When it was used.
    pub usada: Option<Timestamp>,
    /// The `user_id` of who used it.
    pub usada_por: Option<String>,
    /// When it was taken back.
    pub revocada: Option<Timestamp>,
}

impl Invitacion {
    /// Whether it lets anybody in at `ahora`.
    #[must_use]
    pub fn vigente(&self, ahora: Timestamp) -> bool {
        self.usada.is_none() && self.revocada.is_none() && ahora < self.expira
    }
}

row!(
    struct Fila {
        id_invitacion: i64,
        id_empresa: i64,
        rol: String,
        creada_por: String,
        creada: i64,
        expira: i64,
        usada: Option<i64>,
        usada_por: Option<String>,
        revocada: Option<i64>,
    }
);

impl Fila {
    fn invitacion(self) -> Result<Invitacion> {
        Ok(Invitacion {
            id_invitacion: self.id_invitacion,
            id_empresa: self.id_empresa,
            rol: Rol::parse(&self.rol).ok_or_else(|| Error::inconsistent("invitaciones.rol"))?,
            creada_por: self.creada_por,
            creada: Timestamp::clamped(self.creada),
            expira: Timestamp::clamped(self.expira),
            usada: self.usada.map(Timestamp::clamped),
            usada_por: self.usada_por,
            revocada: self.revocada.map(Timestamp::clamped),
        })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id_invitacion, id_empresa, rol, creada_por, creada, expira, usada, usada_por, revocada ",
            "FROM invitaciones ",
            $rest
        )
    };
}

/// Creates an invitation; answers its key.
///
/// # Errors
/// `Unavailable`.
pub async fn create(tx: &mut Tx, nueva: &Nueva<'_>, ahora: Timestamp) -> Result<i64> {
    row!(
        struct Clave {
            id_invitacion: i64,
        }
    );
    let clave: Clave = on!(tx, |db| {
        sqlx::query_as(
            "INSERT INTO invitaciones (id_empresa, codigo_hash, rol, creada_por, creada, expira) \
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING id_invitacion",
        )
        .bind(nueva.id_empresa)
        .bind(nueva.codigo_hash.as_slice())
        .bind(nueva.rol.as_str())
        .bind(nueva.creada_por)
        .bind(ahora.micros())
        .bind(nueva.expira.micros())
        .fetch_one(db)
        .await
    })?;
    Ok(clave.id_invitacion)
}

/// The invitation of a code, good or not.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn by_code(tx: &mut Tx, codigo_hash: &[u8; 32]) -> Result<Option<Invitacion>> {
    let fila: Option<Fila> = on!(tx, |db| {
        sqlx::query_as(select!("WHERE codigo_hash = $1"))
            .bind(codigo_hash.as_slice())
            .fetch_optional(db)
            .await
    })?;
    fila.map(Fila::invitacion).transpose()
}

/// An invitation of an empresa.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn get(tx: &mut Tx, id_empresa: i64, id_invitacion: i64) -> Result<Option<Invitacion>> {
    let fila: Option<Fila> = on!(tx, |db| {
        sqlx::query_as(select!("WHERE id_invitacion = $1 AND id_empresa = $2"))
            .bind(id_invitacion)
            .bind(id_empresa)
            .fetch_optional(db)
            .await
    })?;
    fila.map(Fila::invitacion).transpose()
}

/// The invitations of an empresa, the newest first, and how many there are in all.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn list(tx: &mut Tx, id_empresa: i64, hoja: &Hoja) -> Result<(Vec<Invitacion>, i64)> {
    let filas: Vec<Fila> = on!(&mut *tx, |db| {
        sqlx::query_as(select!(
            "WHERE id_empresa = $1 AND id_invitacion < $2 ORDER BY id_invitacion DESC LIMIT $3 OFFSET $4"
        ))
        .bind(id_empresa)
        .bind(hoja.bajo())
        .bind(hoja.pide())
        .bind(hoja.skip)
        .fetch_all(db)
        .await
    })?;
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar("SELECT COUNT(*) AS total FROM invitaciones WHERE id_empresa = $1")
            .bind(id_empresa)
            .fetch_one(db)
            .await
    })?;
    Ok((filas.into_iter().map(Fila::invitacion).collect::<Result<_>>()?, total))
}

/// How many invitations of an empresa let somebody in at `ahora`.
///
/// # Errors
/// `Unavailable`.
pub async fn open(tx: &mut Tx, id_empresa: i64, ahora: Timestamp) -> Result<i64> {
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar(
            "SELECT COUNT(*) AS total FROM invitaciones \
             WHERE id_empresa = $1 AND usada IS NULL AND revocada IS NULL AND expira > $2",
        )
        .bind(id_empresa)
        .bind(ahora.micros())
        .fetch_one(db)
        .await
    })?;
    Ok(total)
}

/// Uses an invitation that nobody has used; `false` when somebody was faster.
///
/// # Errors
/// `Unavailable`.
pub async fn mark_used(tx: &mut Tx, id_invitacion: i64, user_id: &str, ahora: Timestamp) -> Result<bool> {
    let n = on!(tx, |db| {
        sqlx::query(
            "UPDATE invitaciones SET usada = $2, usada_por = $3 \
             WHERE id_invitacion = $1 AND usada IS NULL AND revocada IS NULL",
        )
        .bind(id_invitacion)
        .bind(ahora.micros())
        .bind(user_id)
        .execute(db)
        .await
        .map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}

/// Takes back an invitation that nobody has used.
///
/// # Errors
/// `Unavailable`.
pub async fn revoke(tx: &mut Tx, id_invitacion: i64, ahora: Timestamp) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "UPDATE invitaciones SET revocada = $2 \
             WHERE id_invitacion = $1 AND usada IS NULL AND revocada IS NULL",
        )
        .bind(id_invitacion)
        .bind(ahora.micros())
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Takes back every invitation that somebody made and nobody has used.
///
/// # Errors
/// `Unavailable`.
pub async fn revoke_of(tx: &mut Tx, id_empresa: i64, creada_por: &str, ahora: Timestamp) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "UPDATE invitaciones SET revocada = $3 \
             WHERE id_empresa = $1 AND creada_por = $2 AND usada IS NULL AND revocada IS NULL",
        )
        .bind(id_empresa)
        .bind(creada_por)
        .bind(ahora.micros())
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}
