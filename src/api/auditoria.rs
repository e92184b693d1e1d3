//! Who changed what in an empresa, for its administrators.

use axum::extract::{OriginalUri, State as Shared};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::extract::{Pagina, Query, Sesion, momento};
use super::problem::Problem;
use super::{State, paging};
use crate::domain::Timestamp;
use crate::store::auditoria::{self, Anotado, Filtro};

/// A change.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = CambioAuditado)]
pub(super) struct Body {
    id_auditoria: i64,
    /// When it was asked for.
    momento: Timestamp,
    /// Whose account asked for it.
    user_id: String,
    /// That account's e-mail, while it is known.
    email: Option<String>,
    /// `crear`, `cambiar`, `borrar`, `purgar`, `resolver`, `renovar_credencial`, `desconectar`, `entrar`, `salir`,
    /// `unirse`, `mover`, `revocar`.
    #[schema(example = "cambiar")]
    accion: String,
    /// The kind of thing: `sensor`, `umbrales`, `alerta`, …
    #[schema(example = "sensor")]
    objeto: String,
    /// Which one.
    #[schema(example = "7")]
    id_objeto: String,
    /// How it was: of a change, what differs. Never a secret.
    #[schema(value_type = Option<Object>, example = json!({ "nombre": "Norte" }))]
    antes: Option<Box<RawValue>>,
    /// How it is since.
    #[schema(value_type = Option<Object>, example = json!({ "nombre": "Norte 2" }))]
    despues: Option<Box<RawValue>>,
    /// The client's address, `consola` (the command line) or `servidor` (nobody asked).
    #[schema(example = "192.0.2.7")]
    origen: String,
    /// The request's `X-Request-Id`.
    peticion: Option<String>,
}

impl From<Anotado> for Body {
    fn from(a: Anotado) -> Self {
        let json = |texto: Option<String>| texto.and_then(|t| RawValue::from_string(t).ok());
        Self {
            id_auditoria: a.id_auditoria,
            momento: Timestamp::clamped(a.momento),
            user_id: a.user_id,
            email: a.email,
            accion: a.accion,
            objeto: a.objeto,
            id_objeto: a.id_objeto,
            antes: json(a.antes),
            despues: json(a.despues),
            origen: a.origen,
            peticion: a.peticion,
        }
    }
}

/// Narrows the list.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Only what this account did.
    #[param(pattern = r"^[^\x00]*$")]
    user_id: Option<String>,
    /// Only this (`crear`, `cambiar`, …).
    #[param(pattern = r"^[^\x00]*$")]
    accion: Option<String>,
    /// Only to things of this kind (`sensor`, …).
    #[param(pattern = r"^[^\x00]*$")]
    objeto: Option<String>,
    /// Only to this one.
    #[param(pattern = r"^[^\x00]*$")]
    id_objeto: Option<String>,
    /// At or after (RFC 3339).
    #[param(format = DateTime)]
    desde: Option<String>,
    /// At or before (RFC 3339).
    #[param(format = DateTime)]
    hasta: Option<String>,
}

/// Who changed what in your empresa, the newest first.
///
/// Written in the transaction of each change, and kept for `store.audit_days` days.
#[utoipa::path(get, path = "/auditoria", tag = "auditoria", params(Filters, Pagina),
    responses((status = 200, body = Vec<Body>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "Not an administrator"), (status = 422, description = "Parameters out of range")))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Query(filters): Query<Filters>,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    let hoja = pagina.hoja()?;
    let filtro = Filtro {
        user_id: filters.user_id.as_deref(),
        accion: filters.accion.as_deref(),
        objeto: filters.objeto.as_deref(),
        id_objeto: filters.id_objeto.as_deref(),
        desde: momento("desde", filters.desde.as_deref())?,
        hasta: momento("hasta", filters.hasta.as_deref())?,
    };
    let mut tx = state.parts().store.read().await?;
    let found = auditoria::list(&mut tx, id_empresa, &filtro, &hoja).await?;
    tx.commit().await?;
    Ok(paging::list(&uri, hoja, found, |a| a.id_auditoria, Body::from))
}
