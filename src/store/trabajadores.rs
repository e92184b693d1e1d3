//! People, their role and the tenant that they belong to.

use super::identidades::Vigente;
use super::{Error, Hoja, Result, Tx, on, row};
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

/// A person, as far as every request asks who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presente {
    /// Key.
    pub id_trabajador: i64,
    /// The tenant.
    pub id_empresa: Option<i64>,
    /// What they may do.
    pub rol: Rol,
    /// Whether they may sign in.
    pub activo: bool,
    /// What another server issued for them before is good no more.
    pub valen_desde: Timestamp,
    /// What tokens of their account have to be; `None` = it is none of ours, or may not sign in.
    pub vigente: Option<Vigente>,
    /// The sign-in that was asked for is open.
    pub abierta: bool,
}

/// The person behind an account, and whether the sign-in `familia` is open, by one look: every request takes it, by
/// [`Store::presente`](super::Store::presente).
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn present(tx: &mut Tx, user_id: &str, familia: &str) -> Result<Option<Presente>> {
    row!(
        struct Fila {
            id_trabajador: i64,
            id_empresa: Option<i64>,
            rol: String,
            activo: bool,
            valen_desde: i64,
            activa: Option<bool>,
            generacion: Option<i64>,
            confirmado: Option<i64>,
            familia: Option<String>,
        }
    );
    let fila: Option<Fila> = on!(tx, |db| {
        sqlx::query_as(
            "SELECT t.id_trabajador, t.id_empresa, t.rol, t.activo, t.valen_desde, i.activa, i.generacion, \
             f.confirmado, s.familia FROM trabajadores t LEFT JOIN identidades i ON i.user_id = t.user_id \
             LEFT JOIN totp f ON f.user_id = t.user_id \
             LEFT JOIN sesiones s ON s.familia = $2 AND s.user_id = t.user_id WHERE t.user_id = $1",
        )
        .bind(user_id)
        .bind(familia)
        .fetch_optional(db)
        .await
    })?;
    let Some(f) = fila else { return Ok(None) };
    let segundo = f.confirmado.is_some();
    let vigente = f.generacion.filter(|_| f.activa == Some(true));
    Ok(Some(Presente {
        id_trabajador: f.id_trabajador,
        id_empresa: f.id_empresa,
        rol: Rol::parse(&f.rol).ok_or_else(|| Error::inconsistent("trabajadores.rol"))?,
        activo: f.activo,
        valen_desde: Timestamp::clamped(f.valen_desde),
        vigente: vigente.map(|generacion| Vigente { generacion, segundo }),
        abierta: f.familia.is_some(),
    }))
}

/// A person of an empresa, as its administrator sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miembro {
    /// Key.
    pub id_trabajador: i64,
    /// The identity provider's key.
    pub user_id: String,
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
    /// When the account was made.
    pub fecha_contratacion: Timestamp,
    /// The last sign-in or refresh.
    pub ultimo_acceso: Option<Timestamp>,
    /// How many sensors are assigned to them now.
    pub sensores_asignados: i64,
}

row!(
    struct FilaMiembro {
        id_trabajador: i64,
        user_id: String,
        nombre: String,
        apellido: String,
        dni: Option<String>,
        email: String,
        telefono: Option<String>,
        rol: String,
        activo: bool,
        fecha_contratacion: i64,
        ultimo_acceso: Option<i64>,
        sensores_asignados: i64,
    }
);

impl FilaMiembro {
    fn miembro(self) -> Result<Miembro> {
        Ok(Miembro {
            id_trabajador: self.id_trabajador,
            user_id: self.user_id,
            nombre: self.nombre,
            apellido: self.apellido,
            dni: self.dni,
            email: self.email,
            telefono: self.telefono,
            rol: Rol::parse(&self.rol).ok_or_else(|| Error::inconsistent("trabajadores.rol"))?,
            activo: self.activo,
            fecha_contratacion: Timestamp::clamped(self.fecha_contratacion),
            ultimo_acceso: self.ultimo_acceso.map(Timestamp::clamped),
            sensores_asignados: self.sensores_asignados,
        })
    }
}

/// The columns of [`FilaMiembro`]; `t` is `trabajadores`.
macro_rules! miembro {
    ($rest:literal) => {
        concat!(
            "SELECT t.id_trabajador, t.user_id, t.nombre, t.apellido, t.dni, t.email, t.telefono, t.rol, t.activo, ",
            "t.fecha_contratacion, t.ultimo_acceso, (SELECT COUNT(*) FROM asignaciones a ",
            "WHERE a.id_trabajador = t.id_trabajador AND a.hasta IS NULL) AS sensores_asignados ",
            "FROM trabajadores t ",
            $rest
        )
    };
}

/// A person of an empresa.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn get(tx: &mut Tx, id_empresa: i64, id_trabajador: i64) -> Result<Option<Miembro>> {
    let fila: Option<FilaMiembro> = on!(tx, |db| {
        sqlx::query_as(miembro!("WHERE t.id_trabajador = $1 AND t.id_empresa = $2"))
            .bind(id_trabajador)
            .bind(id_empresa)
            .fetch_optional(db)
            .await
    })?;
    fila.map(FilaMiembro::miembro).transpose()
}

/// The people of an empresa (`activo`: only those who may, or may not, sign in), by key, and how many there
/// are in all.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn list(
    tx: &mut Tx,
    id_empresa: i64,
    activo: Option<bool>,
    hoja: &Hoja,
) -> Result<(Vec<Miembro>, i64)> {
    let filas: Vec<FilaMiembro> = on!(&mut *tx, |db| {
        sqlx::query_as(miembro!(
            "WHERE t.id_empresa = $1 AND ($2 IS NULL OR t.activo = $2) AND t.id_trabajador > $3 \
             ORDER BY t.id_trabajador LIMIT $4 OFFSET $5"
        ))
        .bind(id_empresa)
        .bind(activo)
        .bind(hoja.sobre())
        .bind(hoja.pide())
        .bind(hoja.skip)
        .fetch_all(db)
        .await
    })?;
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar(
            "SELECT COUNT(*) AS total FROM trabajadores WHERE id_empresa = $1 AND ($2 IS NULL OR activo = $2)",
        )
        .bind(id_empresa)
        .bind(activo)
        .fetch_one(db)
        .await
    })?;
    Ok((filas.into_iter().map(FilaMiembro::miembro).collect::<Result<_>>()?, total))
}

/// What may be changed of a person, every field as it shall be afterwards.
#[derive(Debug, Clone, Copy)]
pub struct Cambio<'a> {
    /// See [`Miembro`].
    pub nombre: &'a str,
    /// See [`Miembro`].
    pub apellido: &'a str,
    /// See [`Miembro`].
    pub dni: Option<&'a str>,
    /// See [`Miembro`].
    pub telefono: Option<&'a str>,
    /// See [`Miembro`].
    pub rol: Rol,
    /// See [`Miembro`].
    pub activo: bool,
}

/// Changes a person of an empresa.
///
/// # Errors
/// `Conflict` on `trabajadores.dni`, `Unavailable`.
pub async fn update(tx: &mut Tx, id_empresa: i64, id_trabajador: i64, cambio: &Cambio<'_>) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "UPDATE trabajadores SET nombre = $3, apellido = $4, dni = $5, telefono = $6, rol = $7, activo = $8 \
             WHERE id_trabajador = $1 AND id_empresa = $2",
        )
        .bind(id_trabajador)
        .bind(id_empresa)
        .bind(cambio.nombre)
        .bind(cambio.apellido)
        .bind(cambio.dni)
        .bind(cambio.telefono)
        .bind(cambio.rol.as_str())
        .bind(cambio.activo)
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Of what another server issued for a person, only what it does from now on is good.
///
/// # Errors
/// `Unavailable`.
pub async fn renew(tx: &mut Tx, id_trabajador: i64, ahora: Timestamp) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("UPDATE trabajadores SET valen_desde = $2 WHERE id_trabajador = $1")
            .bind(id_trabajador)
            .bind(ahora.micros())
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// Whether an empresa has an administrator in force other than this one.
///
/// # Errors
/// `Unavailable`.
pub async fn another_admin(tx: &mut Tx, id_empresa: i64, id_trabajador: i64) -> Result<bool> {
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar(
            "SELECT COUNT(*) AS total FROM trabajadores \
             WHERE id_empresa = $1 AND id_trabajador <> $2 AND rol = 'admin_empresa' AND activo",
        )
        .bind(id_empresa)
        .bind(id_trabajador)
        .fetch_one(db)
        .await
    })?;
    Ok(total > 0)
}

/// A person who belongs to no empresa joins one; `false` when they belong to one.
///
/// # Errors
/// `Unavailable`.
pub async fn join(tx: &mut Tx, id_trabajador: i64, id_empresa: i64, rol: Rol) -> Result<bool> {
    let n = on!(tx, |db| {
        sqlx::query(
            "UPDATE trabajadores SET id_empresa = $2, rol = $3 \
             WHERE id_trabajador = $1 AND id_empresa IS NULL AND rol <> 'operador'",
        )
        .bind(id_trabajador)
        .bind(id_empresa)
        .bind(rol.as_str())
        .execute(db)
        .await
        .map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}

/// Notes when a person was last here.
///
/// # Errors
/// `Unavailable`.
pub async fn seen(tx: &mut Tx, id_trabajador: i64, ahora: Timestamp) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("UPDATE trabajadores SET ultimo_acceso = $2 WHERE id_trabajador = $1")
            .bind(id_trabajador)
            .bind(ahora.micros())
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// Which of `email` and `dni` another person has.
///
/// # Errors
/// `Unavailable`.
pub async fn taken(tx: &mut Tx, email: &str, dni: Option<&str>) -> Result<Option<&'static str>> {
    row!(
        struct Veces {
            emails: i64,
            dnis: i64,
        }
    );
    let veces: Veces = on!(tx, |db| {
        sqlx::query_as(
            "SELECT (SELECT COUNT(*) FROM trabajadores WHERE email = $1) AS emails, \
             (SELECT COUNT(*) FROM trabajadores WHERE dni = $2) AS dnis",
        )
        .bind(email)
        .bind(dni)
        .fetch_one(db)
        .await
    })?;
    Ok(if veces.emails > 0 { Some("email") } else { (veces.dnis > 0).then_some("dni") })
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
