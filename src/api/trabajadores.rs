//! The people of an empresa.

use axum::extract::{OriginalUri, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::auth::{NO_STORE, check_password, escrito};
use super::extract::{Json, Pagina, Path, Query, Sesion, dado, presente};
use super::finish::to_its_end;
use super::invitaciones::{RolDeEmpresa, miembro};
use super::problem::Problem;
use super::validate::Check;
use super::{State, paging};
use crate::domain::{Rol, Timestamp};
use crate::identity::Revocado;
use crate::identity::cuentas::{self, NuevoTrabajador};
use crate::store::auditoria::Hecho;
use crate::store::trabajadores::{self, Cambio, Miembro};
use crate::store::{identidades, invitaciones, refrescos};

/// A person of the empresa.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Trabajador)]
pub(super) struct Body {
    id_trabajador: i64,
    user_id: String,
    nombre: String,
    apellido: String,
    dni: Option<String>,
    email: String,
    telefono: Option<String>,
    rol: Rol,
    /// Whether they may sign in.
    activo: bool,
    fecha_contratacion: Timestamp,
    /// How many sensors are assigned to them.
    sensores_asignados: i64,
}

impl From<Miembro> for Body {
    fn from(m: Miembro) -> Self {
        Self {
            id_trabajador: m.id_trabajador,
            user_id: m.user_id,
            nombre: m.nombre,
            apellido: m.apellido,
            dni: m.dni,
            email: m.email,
            telefono: m.telefono,
            rol: m.rol,
            activo: m.activo,
            fecha_contratacion: m.fecha_contratacion,
            sensores_asignados: m.sensores_asignados,
        }
    }
}

/// Narrows the list.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Only those who may sign in, or only those who may not.
    activo: Option<bool>,
}

/// The people of the empresa.
#[utoipa::path(get, path = "/trabajadores", tag = "trabajadores", params(Filters, Pagina),
    responses((status = 200, body = Vec<Body>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "Not a supervisor"), (status = 422, description = "Parameters out of range")))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Query(filters): Query<Filters>,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.supervisor()?;
    let hoja = pagina.hoja()?;
    let mut tx = state.parts().store.read().await?;
    let found = trabajadores::list(&mut tx, id_empresa, filters.activo, &hoja).await?;
    tx.commit().await?;
    Ok(paging::list(&uri, hoja, found, |m| m.id_trabajador, Body::from))
}

/// A person to make an account for.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = TrabajadorNuevo, example = json!({ "email": "luz@fundo.pe", "password": "una clave larga", "nombre": "Luz", "apellido": "Rey",
    "dni": "87654321", "rol": "worker" }))]
pub(super) struct Create {
    #[schema(format = Email, max_length = 254)]
    email: String,
    /// At least ten characters.
    #[schema(min_length = 10, max_length = 256)]
    password: String,
    #[serde(alias = "nombres")]
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    nombre: String,
    #[serde(alias = "apellidos")]
    #[schema(max_length = 200, pattern = r"^([^\x00]*\S[^\x00]*)?$")]
    apellido: String,
    /// Eight digits.
    #[schema(pattern = r"^([0-9]{8}|\s*)$")]
    dni: Option<String>,
    #[schema(max_length = 200, pattern = r"^[^\x00]*$")]
    telefono: Option<String>,
    /// `worker` (default), `supervisor` or `admin_empresa`.
    #[schema(value_type = Option<RolDeEmpresa>)]
    rol: Option<Rol>,
}

/// Make an account for a person of the empresa. To have them choose their own password, invite them.
#[utoipa::path(post, path = "/trabajadores", tag = "trabajadores", request_body = Create,
    responses((status = 201, body = Body),
        (status = 403, description = "Not an administrator"), (status = 409, description = "E-mail or DNI in use")))]
pub(super) async fn create(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Json(c): Json<Create>,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    let (dni, telefono) = (escrito(c.dni), escrito(c.telefono));
    let mut check = Check::default();
    check.email("email", &c.email);
    check_password(&mut check, &c.password);
    check_person(&mut check, &c.nombre, &c.apellido, dni.as_deref(), telefono.as_deref());
    check.done()?;
    let rol = miembro(c.rol.unwrap_or(Rol::Worker))?;
    let nuevo = NuevoTrabajador {
        email: c.email,
        password: c.password,
        nombre: c.nombre,
        apellido: c.apellido,
        dni,
        telefono,
        codigo_invitacion: None,
    };
    let parts = state.parts();
    let made = parts.cuentas.crear_trabajador(id_empresa, &nuevo, rol, sesion.autor()).await?;
    let body = find(&state, id_empresa, made.id_trabajador).await.map_err(Problem::after_the_change)?;
    Ok((StatusCode::CREATED, NO_STORE, axum::Json(body)))
}

fn check_person(check: &mut Check, nombre: &str, apellido: &str, dni: Option<&str>, telefono: Option<&str>) {
    check.text("nombre", nombre);
    // The administrator of an empresa that registered in the flat shape has no surname.
    if !apellido.is_empty() {
        check.text("apellido", apellido);
    }
    if let Some(dni) = dni {
        check.digits("dni", dni, 8);
    }
    if let Some(telefono) = telefono {
        check.text("telefono", telefono);
    }
}

async fn find(state: &State, id_empresa: i64, id: i64) -> Result<Body, Problem> {
    let mut tx = state.parts().store.read().await?;
    let found = trabajadores::get(&mut tx, id_empresa, id).await?;
    tx.commit().await?;
    found.map(Body::from).ok_or_else(Problem::not_found)
}

/// One person of the empresa.
#[utoipa::path(get, path = "/trabajadores/{id_trabajador}", tag = "trabajadores", params(("id_trabajador" = i64, Path)),
    responses((status = 200, body = Body),
        (status = 403, description = "Not a supervisor"), (status = 404, description = "No such person")))]
pub(super) async fn get(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.supervisor()?;
    Ok(axum::Json(find(&state, id_empresa, id).await?))
}

/// What to change; absent stays, null clears.
#[derive(Deserialize, Default, utoipa::ToSchema)]
#[schema(as = TrabajadorCambio, example = json!({ "rol": "supervisor", "telefono": null }))]
pub(super) struct Update {
    #[serde(default, deserialize_with = "dado", alias = "nombres")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    nombre: Option<String>,
    #[serde(default, deserialize_with = "dado", alias = "apellidos")]
    #[schema(value_type = String, required = false, max_length = 200, pattern = r"^([^\x00]*\S[^\x00]*)?$")]
    apellido: Option<String>,
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<String>, pattern = r"^([0-9]{8}|\s*)$")]
    dni: Option<Option<String>>,
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<String>, max_length = 200, pattern = r"^[^\x00]*$")]
    telefono: Option<Option<String>>,
    #[serde(default, deserialize_with = "dado")]
    #[schema(value_type = RolDeEmpresa, required = false)]
    rol: Option<Rol>,
    /// `false` ends every sign-in and connection of the person at once.
    #[serde(default, deserialize_with = "dado")]
    #[schema(value_type = bool, required = false)]
    activo: Option<bool>,
    /// As it is: an account keeps its e-mail.
    email: Option<String>,
}

/// Change a person. Another role, or `activo: false`, ends what they have open at once.
#[utoipa::path(put, path = "/trabajadores/{id_trabajador}", tag = "trabajadores", params(("id_trabajador" = i64, Path)), request_body = Update,
    responses((status = 200, body = Body),
        (status = 403, description = "Not an administrator"), (status = 404, description = "No such person"),
        (status = 409, description = "The last administrator, oneself, or a DNI in use")))]
pub(super) async fn update(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    Json(u): Json<Update>,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    Ok(axum::Json(to_its_end(&state, change(state.clone(), sesion, id_empresa, id, u)).await?))
}

/// Deactivate a person: every sign-in and connection of theirs ends at once. What they did stays, and
/// `PUT` with `activo: true` lets them in again.
#[utoipa::path(delete, path = "/trabajadores/{id_trabajador}", tag = "trabajadores", params(("id_trabajador" = i64, Path)),
    responses((status = 204), (status = 403, description = "Not an administrator"),
        (status = 404, description = "No such person"), (status = 409, description = "The last administrator, or oneself")))]
pub(super) async fn delete(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
) -> Result<StatusCode, Problem> {
    let id_empresa = sesion.admin()?;
    let u = Update { activo: Some(false), ..Update::default() };
    to_its_end(&state, change(state.clone(), sesion, id_empresa, id, u)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes a person on behalf of whoever is signed in.
async fn change(state: State, sesion: Sesion, id_empresa: i64, id: i64, u: Update) -> Result<Body, Problem> {
    let parts = state.parts();
    let mut tx = parts.store.write().await?;
    let antes = trabajadores::get(&mut tx, id_empresa, id).await?.ok_or_else(Problem::not_found)?;
    let (dni, telefono) = (
        u.dni.map_or_else(|| antes.dni.clone(), escrito),
        u.telefono.map_or_else(|| antes.telefono.clone(), escrito),
    );
    let nombre = u.nombre.unwrap_or_else(|| antes.nombre.clone());
    let apellido = u.apellido.unwrap_or_else(|| antes.apellido.clone());
    let mut check = Check::default();
    check_person(&mut check, &nombre, &apellido, dni.as_deref(), telefono.as_deref());
    let same = u.email.is_none_or(|e| e.trim().eq_ignore_ascii_case(&antes.email));
    check.that(same, "email", "El correo de una cuenta no cambia.", "An account keeps its e-mail.");
    check.done()?;
    let pide_rol = u.rol.is_some();
    let cambio = Cambio {
        nombre: &nombre,
        apellido: &apellido,
        dni: dni.as_deref(),
        telefono: telefono.as_deref(),
        rol: miembro(u.rol.unwrap_or(antes.rol))?,
        activo: u.activo.unwrap_or(antes.activo),
    };
    if id == sesion.0.id_trabajador && !cambio.activo {
        return Err(oneself());
    }
    let era = antes.activo && antes.rol == Rol::AdminEmpresa;
    let es = cambio.activo && cambio.rol == Rol::AdminEmpresa;
    if era && !es && !trabajadores::another_admin(&mut tx, id_empresa, id).await? {
        return Err(last_admin());
    }
    trabajadores::update(&mut tx, id_empresa, id, &cambio).await.map_err(cuentas::Error::from)?;
    if !cambio.activo {
        refrescos::end_all(&mut tx, &antes.user_id).await?;
        identidades::renew(&mut tx, &antes.user_id).await?;
    }
    if cambio.activo && !antes.activo {
        // Of our own tokens the generation says it; Supabase's know nothing of that.
        trabajadores::renew(&mut tx, id, parts.clock.now()).await?;
    }
    if !es {
        // Or they would let themselves in again by a code that they made before.
        invitaciones::revoke_of(&mut tx, id_empresa, &antes.user_id, parts.clock.now()).await?;
    }
    let despues = trabajadores::get(&mut tx, id_empresa, id).await?.ok_or_else(Problem::not_found)?;
    let activo = cambio.activo;
    let user_id = despues.user_id.clone();
    let (antes, despues) = (Body::from(antes), Body::from(despues));
    sesion.autor().anota(&mut tx, &Hecho::cambiado("trabajador", id, &antes, &despues)).await?;
    // Asked for, not only when it changed: a request that failed after its commit is made good by the next.
    if !activo || pide_rol {
        parts.directorio.confirma_y_revoca(tx, Revocado::Usuario(user_id)).await?;
    } else {
        tx.commit().await?;
    }
    Ok(despues)
}

fn oneself() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "self_deactivation",
        "Nadie puede desactivarse a sí mismo.",
        "Nobody can deactivate themselves.",
    )
}

fn last_admin() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "last_admin",
        "Es el último administrador activo de la empresa: nombre a otro antes.",
        "The last active administrator of the empresa: make another first.",
    )
}
