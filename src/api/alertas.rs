//! Alertas and what people do with them.

use axum::body::Bytes;
use axum::extract::{OriginalUri, State as Shared};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::extract::{Json, Pagina, Path, Query, Sesion, momento, optional, presente};
use super::lector::Lector;
use super::problem::Problem;
use super::{State, paging};
use crate::domain::{Alerta, EstadoAlerta, Severidad};
use crate::identity::Permiso;
use crate::ingest::Resolver;
use crate::store::alertas::{self, Filtro};
use crate::store::auditoria::Hecho;
use crate::store::sensores::Alcance;

/// Narrows the list.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// In this state; without it, those not resolved.
    estado: Option<EstadoAlerta>,
    /// Of this severity; without it, of every one.
    severidad: Option<Severidad>,
    /// The variable, or `conexion`, `bateria`, `almacenamiento`.
    #[param(pattern = r"^[^\x00]*$")]
    tipo: Option<String>,
    /// Of this sensor (`id_sensor`).
    sensor: Option<i64>,
    /// Opened at or after (RFC 3339).
    #[param(format = DateTime)]
    desde: Option<String>,
    /// Opened at or before (RFC 3339).
    #[param(format = DateTime)]
    hasta: Option<String>,
}

impl Filters {
    fn filtro(&self) -> Result<Filtro<'_>, Problem> {
        Ok(Filtro {
            estado: self.estado,
            severidad: self.severidad,
            tipo: self.tipo.as_deref(),
            id_sensor: self.sensor,
            desde: momento("desde", self.desde.as_deref())?,
            hasta: momento("hasta", self.hasta.as_deref())?,
        })
    }
}

/// The alerts of the sensors that you may see, newest first.
#[utoipa::path(get, path = "/alertas", tag = "alertas", security(("account" = []), ("api_key" = [])), params(Filters, Pagina),
    responses((status = 200, body = Vec<Alerta>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "No empresa"), (status = 422, description = "Parameters out of range")))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    lector: Lector,
    Query(filters): Query<Filters>,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<impl IntoResponse, Problem> {
    let (alcance, filtro) = (lector.alcance(Permiso::AlertasRead)?, filters.filtro()?);
    let hoja = pagina.hoja()?;
    let mut tx = state.parts().store.read().await?;
    let found = alertas::list(&mut tx, alcance, &filtro, &hoja).await?;
    let total = alertas::count(&mut tx, alcance, &filtro).await?;
    tx.commit().await?;
    Ok(paging::list(&uri, hoja, (found, total), |a| a.id_alerta, |a| a))
}

/// How many are open.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = AlertasPendientes)]
pub(super) struct Count {
    pendientes: i64,
    /// As `pendientes`.
    count: i64,
}

/// How many alerts are open.
#[utoipa::path(get, path = "/alertas/count/pendientes", tag = "alertas", security(("account" = []), ("api_key" = [])),
    responses((status = 200, body = Count),
        (status = 403, description = "No empresa")))]
pub(super) async fn count(
    Shared(state): Shared<State>,
    lector: Lector,
) -> Result<impl IntoResponse, Problem> {
    let alcance = lector.alcance(Permiso::AlertasRead)?;
    let mut tx = state.parts().store.read().await?;
    let count = alertas::count(&mut tx, alcance, &Filtro::default()).await?;
    tx.commit().await?;
    Ok(axum::Json(Count { pendientes: count, count }))
}

async fn find(state: &State, alcance: Alcance, id: i64) -> Result<Alerta, Problem> {
    let mut tx = state.parts().store.read().await?;
    let alerta = alertas::get(&mut tx, alcance, id).await?;
    tx.commit().await?;
    alerta.ok_or_else(Problem::not_found)
}

/// One alert.
#[utoipa::path(get, path = "/alertas/{id_alerta}", tag = "alertas", security(("account" = []), ("api_key" = [])), params(("id_alerta" = i64, Path)),
    responses((status = 200, body = Alerta),
        (status = 403, description = "No empresa"), (status = 404, description = "No such alert")))]
pub(super) async fn get(
    Shared(state): Shared<State>,
    lector: Lector,
    Path(id): Path<i64>,
) -> Result<impl IntoResponse, Problem> {
    Ok(axum::Json(find(&state, lector.alcance(Permiso::AlertasRead)?, id).await?))
}

/// What the person has to say.
#[derive(Deserialize, Default, utoipa::ToSchema)]
#[schema(as = AlertaResolver, example = json!({ "notas": "Se regó a las 10." }))]
pub(super) struct Resolve {
    #[schema(max_length = 2_000, pattern = r"^[^\x00]*$")]
    notas: Option<String>,
}

/// A resolved alert.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = AlertaResuelta)]
pub(super) struct Resolved {
    message: &'static str,
    #[serde(flatten)]
    alerta: Alerta,
    /// The last reading is still outside, so another alert was opened, one step more severe.
    problema_persiste: bool,
    nueva_alerta: Option<Alerta>,
}

async fn resolved(
    state: &State,
    sesion: &Sesion,
    id: i64,
    body: &Bytes,
) -> Result<axum::Json<Resolved>, Problem> {
    let resolve: Resolve = optional(body)?;
    check_notes(resolve.notas.as_deref())?;
    find(state, sesion.alcance()?, id).await?;
    let (estado, por) = (EstadoAlerta::Resuelta, sesion.autor().clone());
    let pedido = Resolver { id_alerta: id, estado, por, notas: resolve.notas.map(Some) };
    let done = state.parts().ingest.resolver(pedido).await?.ok_or_else(Problem::not_found)?;
    let persists = done.nueva.is_some();
    Ok(axum::Json(Resolved {
        message: if persists { "Alerta resuelta, pero el problema persiste." } else { "Alerta resuelta." },
        alerta: done.alerta,
        problema_persiste: persists,
        nueva_alerta: done.nueva,
    }))
}

fn check_notes(notas: Option<&str>) -> Result<(), Problem> {
    if notas.is_some_and(|n| n.chars().count() > 2_000 || n.contains('\0')) {
        return Err(Problem::field("notas", "Como máximo 2000 caracteres.", "At most 2000 characters."));
    }
    Ok(())
}

/// Where an alert stands.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = AlertaCambio, example = json!({ "estado": "en_proceso", "notas": "va un técnico" }))]
pub(super) struct Patch {
    /// `en_proceso`: somebody has taken it. `pendiente`: given back. `ignorada`: closed without an answer; a
    /// reading that is still outside opens another. `resuelta`: as `/resolve`.
    estado: EstadoAlerta,
    /// Absent = as they are; null takes them away.
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<String>, max_length = 2_000, pattern = r"^[^\x00]*$")]
    notas: Option<Option<String>>,
}

/// Say where an alert stands. One that is closed stays as it is.
#[utoipa::path(patch, path = "/alertas/{id_alerta}", tag = "alertas", params(("id_alerta" = i64, Path)), request_body = Patch,
    responses((status = 200, body = Alerta),
        (status = 403, description = "No empresa"), (status = 404, description = "No such alert")))]
pub(super) async fn patch(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    Json(patch): Json<Patch>,
) -> Result<impl IntoResponse, Problem> {
    check_notes(patch.notas.iter().flatten().next().map(String::as_str))?;
    find(&state, sesion.alcance()?, id).await?;
    let pedido = Resolver { id_alerta: id, estado: patch.estado, por: sesion.1, notas: patch.notas };
    let done = state.parts().ingest.resolver(pedido).await?.ok_or_else(Problem::not_found)?;
    Ok(axum::Json(done.alerta))
}

/// Close an alert.
#[utoipa::path(patch, path = "/alertas/{id_alerta}/resolve", tag = "alertas", params(("id_alerta" = i64, Path)),
    request_body(content = Option<Resolve>, example = json!({ "notas": "Se regó a las 10." })),
    responses((status = 200, body = Resolved),
        (status = 403, description = "No empresa"), (status = 404, description = "No such alert")))]
pub(super) async fn resolve(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    body: Bytes,
) -> Result<impl IntoResponse, Problem> {
    resolved(&state, &sesion, id, &body).await
}

/// Close an alert.
#[utoipa::path(post, path = "/alertas/{id_alerta}/resolve", tag = "alertas", params(("id_alerta" = i64, Path)),
    request_body(content = Option<Resolve>, example = json!({ "notas": "Se regó a las 10." })),
    responses((status = 200, body = Resolved),
        (status = 403, description = "No empresa"), (status = 404, description = "No such alert")))]
pub(super) async fn resolve_by_post(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    body: Bytes,
) -> Result<impl IntoResponse, Problem> {
    resolved(&state, &sesion, id, &body).await
}

async fn seen(state: &State, sesion: &Sesion, id: i64) -> Result<axum::Json<Alerta>, Problem> {
    let alcance = sesion.alcance()?;
    let mut tx = state.parts().store.write().await?;
    let antes = alertas::get(&mut tx, alcance, id).await?.ok_or_else(Problem::not_found)?;
    alertas::mark_viewed(&mut tx, id).await?;
    let alerta = alertas::get(&mut tx, alcance, id).await?.ok_or_else(Problem::not_found)?;
    sesion.autor().anota(&mut tx, &Hecho::cambiado("alerta", id, &antes, &alerta)).await?;
    tx.commit().await?;
    Ok(axum::Json(alerta))
}

/// The four roads to "seen": two names, two methods.
macro_rules! seen {
    ($name:ident, $method:ident, $path:literal) => {
        /// Note that somebody looked at an alert.
        #[utoipa::path($method, path = $path, tag = "alertas", params(("id_alerta" = i64, Path)),
            responses((status = 200, body = Alerta),
                (status = 403, description = "No empresa"), (status = 404, description = "No such alert")))]
        pub(super) async fn $name(
            Shared(state): Shared<State>,
            sesion: Sesion,
            Path(id): Path<i64>,
        ) -> Result<impl IntoResponse, Problem> {
            seen(&state, &sesion, id).await
        }
    };
}

seen!(viewed, patch, "/alertas/{id_alerta}/viewed");
seen!(viewed_by_post, post, "/alertas/{id_alerta}/viewed");
seen!(read, patch, "/alertas/{id_alerta}/read");
seen!(read_by_post, post, "/alertas/{id_alerta}/read");
