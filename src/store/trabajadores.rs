//! People, their role and the tenant that they belong to.

use super::{Error, Result, Tx, on, row};
use crate::domain::{Rol, Timestamp};

/// What [`create`] needs.
#[derive(Debug, Clone, Copy)]
pub struct Nuevo<'a> {
    /// The identity provider's key.
    pub user_id: &'a str,
    /// The tenant; `None` until the account joins one.
    pub id_empresa: Option<i64>,
    /// For people.
    pub nombre: &'a str,
    /// For people; may be empty.
    pub apellido: &'a str,
    /// National identity number, 8 digits; unique in the installation.
    pub dni: Option<&'a str>,
    /// As in the account.
    pub email: &'a str,
    /// Where to call.
    pub telefono: Option<&'a str>,
    /// What they may do.
    pub rol: Rol,
}

/// A person, with the tenant's name beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trabajador {
    /// Key.
    pub id_trabajador: i64,
    /// The identity provider's key.
    pub user_id: String,
    /// The tenant.
    pub id_empresa: Option<i64>,
    /// For people.
    pub nombre: String,
    /// For people.
    pub apellido: String,
    /// National identity number.
    pub dni: Option<String>,
    /// As in the account.
    pub email: String,
    /// Where to call.
    pub telefono: Option<String>,
    /// What they may do.
    pub rol: Rol,
    /// Whether they may sign in.
    pub activo: bool,
    /// The tenant's registered name.
    pub razon_social: Option<String>,
    /// The tenant's tax number.
    pub ruc: Option<String>,
}

/// Creates a person; answers their key.
///
/// # Errors
/// `Conflict` on `trabajadores.dni` or `trabajadores.user_id`, `Unavailable`.
pub async fn create(tx: &mut Tx, nuevo: &Nuevo<'_>, ahora: Timestamp) -> Result<i64> {
    row!(
        struct Clave {
            id_trabajador: i64,
        }
    );
    let clave: Clave = on!(tx, |db| {
        sqlx::query_as(
            "INSERT INTO trabajadores (user_id, id_empresa, nombre, apellido, dni, email, telefono, rol, \
             fecha_contratacion) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id_trabajador",
        )
        .bind(nuevo.user_id)
        .bind(nuevo.id_empresa)
        .bind(nuevo.nombre)
        .bind(nuevo.apellido)
        .bind(nuevo.dni)
        .bind(nuevo.email)
        .bind(nuevo.telefono)
        .bind(nuevo.rol.as_str())
        .bind(ahora.micros())
        .fetch_one(db)
        .await
    })?;
    Ok(clave.id_trabajador)
}

/// The person behind an account.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn by_user_id(tx: &mut Tx, user_id: &str) -> Result<Option<Trabajador>> {
    row!(
        struct Fila {
            id_trabajador: i64,
            user_id: String,
            id_empresa: Option<i64>,
            nombre: String,
            apellido: String,
            dni: Option<String>,
            email: String,
            telefono: Option<String>,
            rol: String,
            activo: bool,
            razon_social: Option<String>,
            ruc: Option<String>,
        }
    );
    let fila: Option<Fila> = on!(tx, |db| {
        sqlx::query_as(
            "SELECT t.id_trabajador, t.user_id, t.id_empresa, t.nombre, t.apellido, t.dni, t.email, t.telefono, \
             t.rol, t.activo, e.razon_social, e.ruc \
             FROM trabajadores t LEFT JOIN empresas e ON e.id_empresa = t.id_empresa WHERE t.user_id = $1",
        )
        .bind(user_id)
        .fetch_optional(db)
        .await
    })?;
    let Some(f) = fila else { return Ok(None) };
    Ok(Some(Trabajador {
        id_trabajador: f.id_trabajador,
        user_id: f.user_id,
        id_empresa: f.id_empresa,
        nombre: f.nombre,
        apellido: f.apellido,
        dni: f.dni,
        email: f.email,
        telefono: f.telefono,
        rol: Rol::parse(&f.rol).ok_or_else(|| Error::inconsistent("trabajadores.rol"))?,
        activo: f.activo,
        razon_social: f.razon_social,
        ruc: f.ruc,
    }))
}

/// Deactivates or activates everybody, so that a test of sign-in need not know SQL.
///
/// # Errors
/// `Unavailable`.
#[cfg(test)]
pub(crate) async fn set_all_active(tx: &mut Tx, activo: bool) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("UPDATE trabajadores SET activo = $1").bind(activo).execute(db).await.map(drop)
    })?;
    Ok(())
}
