//! Invitations: codes by which people join an empresa.

use axum::body::Bytes;
use axum::extract::{OriginalUri, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::auth::{Me, NO_STORE};
use super::extract::{Json, Pagina, Path, Query, Sesion, optional};
use super::finish::to_its_end;
use super::problem::Problem;
use super::{State, paging};
use crate::domain::{Rol, Timestamp};
use crate::identity::Revocado;
use crate::store::auditoria::Hecho;
use crate::store::invitaciones::{self, Invitacion};

/// A role that a person of an empresa may have; see [`miembro`].
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "the documentation of what `miembro` lets pass")]
pub(super) enum RolDeEmpresa {
    AdminEmpresa,
    Supervisor,
    Worker,
}

/// As what somebody is invited.
#[derive(Deserialize, Default, utoipa::ToSchema)]
#[schema(as = InvitacionNueva, example = json!({ "rol": "supervisor" }))]
pub(super) struct Invite {
    /// `worker` (default), `supervisor` or `admin_empresa`.
    #[schema(value_type = Option<RolDeEmpresa>)]
    rol: Option<Rol>,
}

/// An invitation that was made.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = InvitacionCreada)]
pub(super) struct Invited {
    message: &'static str,
    /// Shown this once.
    #[schema(example = "7Q2M-K0VD-A9ZT-RX4C-81HN")]
    codigo_invitacion: String,
    #[serde(flatten)]
    invitacion: Body,
}

/// Where an invitation is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = EstadoInvitacion)]
enum Estado {
    Vigente,
    Usada,
    Caducada,
    Revocada,
}

/// An invitation; its code is not kept.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Invitacion)]
pub(super) struct Body {
    id_invitacion: i64,
    rol: Rol,
    estado: Estado,
    /// The `user_id` of who invited.
    creada_por: String,
    fecha_creacion: Timestamp,
    fecha_expiracion: Timestamp,
    fecha_uso: Option<Timestamp>,
    /// The `user_id` of who used it.
    usada_por: Option<String>,
}

impl Body {
    fn new(i: Invitacion, ahora: Timestamp) -> Self {
        let estado = match (i.usada, i.revocada) {
            (Some(_), _) => Estado::Usada,
            (None, Some(_)) => Estado::Revocada,
            (None, None) if i.expira <= ahora => Estado::Caducada,
            (None, None) => Estado::Vigente,
        };
        Self {
            id_invitacion: i.id_invitacion,
            rol: i.rol,
            estado,
            creada_por: i.creada_por,
            fecha_creacion: i.creada,
            fecha_expiracion: i.expira,
            fecha_uso: i.usada,
            usada_por: i.usada_por,
        }
    }
}

/// Invite somebody. The code is shown this once, is good for seven days and lets one person in.
#[utoipa::path(post, path = "/trabajadores/invitaciones", tag = "trabajadores", operation_id = "invite",
    request_body(content = Option<Invite>, example = json!({ "rol": "supervisor" })),
    responses((status = 201, body = Invited),
        (status = 403, description = "Not an administrator"), (status = 409, description = "Too many are unused")))]
pub(super) async fn create(
    Shared(state): Shared<State>,
    sesion: Sesion,
    body: Bytes,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    let invite: Invite = optional(&body)?;
    let rol = miembro(invite.rol.unwrap_or(Rol::Worker))?;
    let parts = state.parts();
    let made = parts.cuentas.invitar(id_empresa, rol, sesion.autor()).await?;
    let body = Invited {
        message: "Invitación creada. Guarde el código: no se vuelve a mostrar.",
        codigo_invitacion: made.codigo,
        invitacion: Body::new(made.invitacion, parts.clock.now()),
    };
    Ok((StatusCode::CREATED, NO_STORE, axum::Json(body)))
}

/// A role that a person of an empresa may have: the operador is the installation's.
pub(super) fn miembro(rol: Rol) -> Result<Rol, Problem> {
    if rol == Rol::Operador {
        return Err(Problem::field(
            "rol",
            "Es worker, supervisor o admin_empresa.",
            "It is worker, supervisor or admin_empresa.",
        ));
    }
    Ok(rol)
}

/// The invitations of the empresa, the newest first.
#[utoipa::path(get, path = "/trabajadores/invitaciones", tag = "trabajadores", operation_id = "invitations", params(Pagina),
    responses((status = 200, body = Vec<Body>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "Not an administrator"), (status = 422, description = "Parameters out of range")))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    let hoja = pagina.hoja()?;
    let mut tx = state.parts().store.read().await?;
    let found = invitaciones::list(&mut tx, id_empresa, &hoja).await?;
    tx.commit().await?;
    let ahora = state.parts().clock.now();
    Ok(paging::list(&uri, hoja, found, |i| i.id_invitacion, |i| Body::new(i, ahora)))
}

/// Take an invitation back: its code lets nobody in any more.
#[utoipa::path(delete, path = "/trabajadores/invitaciones/{id_invitacion}", tag = "trabajadores", operation_id = "uninvite", params(("id_invitacion" = i64, Path)),
    responses((status = 204), (status = 403, description = "Not an administrator"),
        (status = 404, description = "No such invitation"), (status = 409, description = "Somebody has used it")))]
pub(super) async fn delete(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
) -> Result<StatusCode, Problem> {
    let id_empresa = sesion.admin()?;
    let parts = state.parts();
    let mut tx = parts.store.write().await?;
    let invitacion = invitaciones::get(&mut tx, id_empresa, id).await?.ok_or_else(Problem::not_found)?;
    if invitacion.usada.is_some() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "invitation_used",
            "La invitación ya se usó: desactive al trabajador.",
            "The invitation has been used: deactivate the trabajador.",
        ));
    }
    invitaciones::revoke(&mut tx, id, parts.clock.now()).await?;
    if invitacion.revocada.is_none() {
        let era = Body::new(invitacion, parts.clock.now());
        sesion.autor().anota(&mut tx, &Hecho::borrado("invitacion", id, &era).como("revocar")).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A code.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = Unirse, example = json!({ "codigo_invitacion": "7Q2M-K0VD-A9ZT-RX4C-81HN" }))]
pub(super) struct Join {
    codigo_invitacion: String,
}

/// An account that joined.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Unido)]
pub(super) struct Joined {
    message: &'static str,
    #[serde(flatten)]
    me: Me,
}

/// Join an empresa, with an account that belongs to none. The access token stays good and sees the
/// empresa from now on; connections that are open end, to come back with what they may see now.
#[utoipa::path(post, path = "/auth/unirse", tag = "auth", request_body = Join,
    responses((status = 200, body = Joined),
        (status = 409, description = "The account belongs to an empresa"),
        (status = 422, description = "Not a code that lets anybody in")))]
pub(super) async fn join(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Json(join): Json<Join>,
) -> Result<impl IntoResponse, Problem> {
    let work = {
        let state = state.clone();
        async move {
            let parts = state.parts();
            let perfil = parts.cuentas.unirse(&sesion.0, &join.codigo_invitacion, sesion.1.origen).await?;
            parts.directorio.revoca(Revocado::Usuario(sesion.0.user_id));
            Ok(perfil)
        }
    };
    let perfil = to_its_end(&state, work).await?;
    let body = Joined { message: "Se unió a la empresa.", me: perfil.into() };
    Ok((NO_STORE, axum::Json(body)))
}
