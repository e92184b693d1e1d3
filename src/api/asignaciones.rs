//! Which worker sees which sensor. What changes here holds at once, on open WebSockets and MQTT
//! subscriptions too.

use axum::extract::{OriginalUri, State as Shared};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::extract::{Entero, Json, Pagina, Path, Query, Sesion};
use super::finish::to_its_end;
use super::problem::{Problem, Texto};
use super::{State, paging};
use crate::domain::Timestamp;
use crate::store::asignaciones::{self, Asignacion, Filtro};
use crate::store::auditoria::{Autor, Hecho};
use crate::store::sensores::Alcance;
use crate::store::{sensores, trabajadores};

/// An assignment.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Asignacion)]
pub(super) struct Body {
    id_asignacion: i64,
    id_trabajador: i64,
    /// Name and surname.
    trabajador: String,
    id_sensor: i64,
    device_id: String,
    /// The sensor's name.
    sensor: String,
    /// Whether it is in force.
    activa: bool,
    fecha_asignacion: Timestamp,
    fecha_fin: Option<Timestamp>,
}

impl From<Asignacion> for Body {
    fn from(a: Asignacion) -> Self {
        Self {
            id_asignacion: a.id_asignacion,
            id_trabajador: a.id_trabajador,
            trabajador: format!("{} {}", a.nombre, a.apellido).trim().to_owned(),
            id_sensor: a.id_sensor,
            device_id: a.device_id,
            sensor: a.nombre_sensor,
            activa: a.hasta.is_none(),
            fecha_asignacion: Timestamp::clamped(a.desde),
            fecha_fin: a.hasta.map(Timestamp::clamped),
        }
    }
}

/// Narrows the list.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Only those in force (default), or those that have ended too.
    #[param(default = true)]
    activas_solo: Option<bool>,
}

async fn page(
    state: &State,
    id_empresa: i64,
    filtro: Filtro,
    pagina: &Pagina,
    uri: &Uri,
) -> Result<Response, Problem> {
    let hoja = pagina.hoja()?;
    let mut tx = state.parts().store.read().await?;
    if let Some(id) = filtro.id_trabajador {
        trabajadores::get(&mut tx, id_empresa, id).await?.ok_or_else(Problem::not_found)?;
    }
    if let Some(id) = filtro.id_sensor {
        let alcance = Alcance { id_empresa, id_trabajador: None };
        sensores::get(&mut tx, alcance, id).await?.ok_or_else(Problem::not_found)?;
    }
    let found = asignaciones::list(&mut tx, id_empresa, filtro, &hoja).await?;
    tx.commit().await?;
    Ok(paging::list(uri, hoja, found, |a| a.id_asignacion, Body::from))
}

/// The assignments of the empresa.
#[utoipa::path(get, path = "/asignaciones", tag = "asignaciones", params(Filters, Pagina),
    responses((status = 200, body = Vec<Body>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "Not a supervisor"), (status = 422, description = "Parameters out of range")))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Query(filters): Query<Filters>,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let id_empresa = sesion.supervisor()?;
    let filtro = Filtro { activas: filters.activas_solo.unwrap_or(true), ..Filtro::default() };
    page(&state, id_empresa, filtro, &pagina, &uri).await
}

/// The sensors assigned to a person.
#[utoipa::path(get, path = "/asignaciones/trabajador/{id_trabajador}", tag = "asignaciones",
    params(("id_trabajador" = i64, Path, description = "id_trabajador"), Filters, Pagina),
    responses((status = 200, body = Vec<Body>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "Not a supervisor"), (status = 404, description = "No such person"),
        (status = 422, description = "Parameters out of range")))]
pub(super) async fn of_trabajador(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    Query(filters): Query<Filters>,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let id_empresa = sesion.supervisor()?;
    let activas = filters.activas_solo.unwrap_or(true);
    let filtro = Filtro { activas, id_trabajador: Some(id), id_sensor: None };
    page(&state, id_empresa, filtro, &pagina, &uri).await
}

/// The people that a sensor is assigned to.
#[utoipa::path(get, path = "/asignaciones/sensor/{id_sensor}", tag = "asignaciones",
    params(("id_sensor" = i64, Path, description = "id_sensor"), Filters, Pagina),
    responses((status = 200, body = Vec<Body>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "Not a supervisor"), (status = 404, description = "No such sensor"),
        (status = 422, description = "Parameters out of range")))]
pub(super) async fn of_sensor(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    Query(filters): Query<Filters>,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let id_empresa = sesion.supervisor()?;
    let activas = filters.activas_solo.unwrap_or(true);
    let filtro = Filtro { activas, id_trabajador: None, id_sensor: Some(id) };
    page(&state, id_empresa, filtro, &pagina, &uri).await
}

/// Who is to see what.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = AsignacionNueva, example = json!({ "id_trabajador": 2, "id_sensor": 7 }))]
pub(super) struct Create {
    #[schema(value_type = i64, minimum = 1)]
    id_trabajador: Entero,
    #[schema(value_type = i64, minimum = 1)]
    id_sensor: Entero,
}

/// Assign a sensor to a person.
#[utoipa::path(post, path = "/asignaciones", tag = "asignaciones", request_body = Create,
    responses((status = 201, body = Body),
        (status = 403, description = "Not an administrator"), (status = 404, description = "No such person or sensor"),
        (status = 409, description = "Assigned already")))]
pub(super) async fn create(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Json(c): Json<Create>,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    let body = to_its_end(&state, assign(state.clone(), sesion.1, id_empresa, c)).await?;
    Ok((StatusCode::CREATED, axum::Json(body)))
}

async fn assign(state: State, autor: Autor, id_empresa: i64, c: Create) -> Result<Body, Problem> {
    let parts = state.parts();
    let (Entero(id_trabajador), Entero(id_sensor)) = (c.id_trabajador, c.id_sensor);
    let alcance = Alcance { id_empresa, id_trabajador: None };
    let mut tx = parts.store.write().await?;
    let quien = trabajadores::get(&mut tx, id_empresa, id_trabajador).await?;
    let cual = sensores::get(&mut tx, alcance, id_sensor).await?;
    let falta = || Texto::new("No existe.", "There is no such thing.");
    let faltan: Vec<_> = [("id_trabajador", quien.is_none()), ("id_sensor", cual.is_none())]
        .into_iter()
        .filter(|(_, no)| *no)
        .map(|(campo, _)| (campo.to_owned(), falta()))
        .collect();
    if !faltan.is_empty() {
        return Err(Problem::not_found().with_fields(faltan));
    }
    let ahora = parts.clock.now();
    let id = asignaciones::create(&mut tx, id_empresa, id_trabajador, id_sensor, ahora)
        .await
        .map_err(|e| if matches!(e, crate::store::Error::Conflict { .. }) { taken() } else { e.into() })?;
    let made = asignaciones::get(&mut tx, id_empresa, id).await?.ok_or_else(Problem::not_found)?;
    let made = Body::from(made);
    autor.anota(&mut tx, &Hecho::creado("asignacion", id, &made)).await?;
    tx.commit().await?;
    parts.directorio.asigna(id_trabajador, id_sensor);
    Ok(made)
}

fn taken() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "already_assigned",
        "El sensor ya está asignado a ese trabajador.",
        "The sensor is assigned to that person already.",
    )
}

/// End an assignment.
#[utoipa::path(delete, path = "/asignaciones/{id_asignacion}", tag = "asignaciones", params(("id_asignacion" = i64, Path)),
    responses((status = 204), (status = 403, description = "Not an administrator"),
        (status = 404, description = "No such assignment")))]
pub(super) async fn delete(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
) -> Result<StatusCode, Problem> {
    let id_empresa = sesion.admin()?;
    let work = {
        let state = state.clone();
        async move {
            let parts = state.parts();
            let mut tx = parts.store.write().await?;
            let a = asignaciones::get(&mut tx, id_empresa, id).await?.ok_or_else(Problem::not_found)?;
            asignaciones::end(&mut tx, id, parts.clock.now()).await?;
            let filtro =
                Filtro { activas: true, id_trabajador: Some(a.id_trabajador), id_sensor: Some(a.id_sensor) };
            // One that had ended before may have been made again since.
            let (otra, _) =
                asignaciones::list(&mut tx, id_empresa, filtro, &crate::store::Hoja::primeras(1)).await?;
            let (id_trabajador, id_sensor) = (a.id_trabajador, a.id_sensor);
            if a.hasta.is_none() {
                let era = Body::from(a);
                sesion.autor().anota(&mut tx, &Hecho::borrado("asignacion", id, &era)).await?;
            }
            tx.commit().await?;
            if otra.is_empty() {
                parts.directorio.desasigna(id_trabajador, id_sensor);
            }
            Ok(())
        }
    };
    to_its_end(&state, work).await?;
    Ok(StatusCode::NO_CONTENT)
}
