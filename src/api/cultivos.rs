//! Crops.

use axum::extract::{OriginalUri, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::extract::{Json, Pagina, Path, Query, Sesion, dado, momento, presente};
use super::finish::to_its_end;
use super::problem::Problem;
use super::validate::Check;
use super::{State, paging};
use crate::domain::Timestamp;
use crate::ingest::Cambiados;
use crate::store::auditoria::Hecho;
use crate::store::cultivos::{self, Cultivo};
use crate::store::sensores::Alcance;

/// Hectares that a crop may have.
const MAX_HECTAREAS: f64 = 1e7;

/// A crop.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Cultivo)]
pub(super) struct Body {
    id_cultivo: i64,
    id_empresa: i64,
    tipo_cultivo: String,
    variedad: Option<String>,
    hectareas: Option<f64>,
    fecha_siembra: Option<Timestamp>,
    fecha_estimada_cosecha: Option<Timestamp>,
    estado: String,
    ubicacion_especifica: Option<String>,
    coordenadas_lat: Option<f64>,
    coordenadas_lng: Option<f64>,
    fecha_creacion: Timestamp,
    /// How many sensors in use stand in it.
    sensores: i64,
}

impl From<Cultivo> for Body {
    fn from(c: Cultivo) -> Self {
        Self {
            id_cultivo: c.id_cultivo,
            id_empresa: c.id_empresa,
            tipo_cultivo: c.tipo_cultivo,
            variedad: c.variedad,
            hectareas: c.hectareas,
            fecha_siembra: c.fecha_siembra.map(Timestamp::clamped),
            fecha_estimada_cosecha: c.fecha_estimada_cosecha.map(Timestamp::clamped),
            estado: c.estado,
            ubicacion_especifica: c.ubicacion_especifica,
            coordenadas_lat: c.coordenadas_lat,
            coordenadas_lng: c.coordenadas_lng,
            fecha_creacion: Timestamp::clamped(c.creado),
            sensores: c.sensores,
        }
    }
}

/// The crops that you may see: a worker those that a sensor of theirs stands in.
#[utoipa::path(get, path = "/cultivos", tag = "cultivos", params(Pagina),
    responses((status = 200, body = Vec<Body>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "No empresa"), (status = 422, description = "Parameters out of range")))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<impl IntoResponse, Problem> {
    let alcance = sesion.alcance()?;
    let hoja = pagina.hoja()?;
    let mut tx = state.parts().store.read().await?;
    let found = cultivos::list(&mut tx, alcance, &hoja).await?;
    tx.commit().await?;
    Ok(paging::list(&uri, hoja, found, |c| c.id_cultivo, Body::from))
}

/// A crop to register.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = CultivoNuevo, example = json!({ "tipo_cultivo": "Palta", "variedad": "Hass", "hectareas": 12.5,
    "fecha_siembra": "2026-03-01T00:00:00Z", "ubicacion_especifica": "Lote 4" }))]
pub(super) struct Create {
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    tipo_cultivo: String,
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    variedad: Option<String>,
    #[schema(exclusive_minimum = 0, maximum = 10_000_000)]
    hectareas: Option<f64>,
    /// RFC 3339; a date alone is its midnight.
    #[schema(format = DateTime)]
    fecha_siembra: Option<String>,
    /// RFC 3339; a date alone is its midnight.
    #[schema(format = DateTime)]
    fecha_estimada_cosecha: Option<String>,
    /// Where it is in its life, in the site's own words; default `activo`. `cosechado` and `inactivo` are
    /// over: they do not count on the dashboard.
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    estado: Option<String>,
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    ubicacion_especifica: Option<String>,
    #[serde(alias = "latitud")]
    #[schema(minimum = -90, maximum = 90)]
    coordenadas_lat: Option<f64>,
    #[serde(alias = "longitud")]
    #[schema(minimum = -180, maximum = 180)]
    coordenadas_lng: Option<f64>,
}

/// Register a crop.
#[utoipa::path(post, path = "/cultivos", tag = "cultivos", request_body = Create,
    responses((status = 201, body = Body),
        (status = 403, description = "Not an administrator")))]
pub(super) async fn create(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Json(c): Json<Create>,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    let parts = state.parts();
    let mut cultivo = Cultivo {
        id_cultivo: 0,
        id_empresa,
        tipo_cultivo: c.tipo_cultivo,
        variedad: c.variedad,
        hectareas: c.hectareas,
        fecha_siembra: date("fecha_siembra", c.fecha_siembra.as_deref())?,
        fecha_estimada_cosecha: date("fecha_estimada_cosecha", c.fecha_estimada_cosecha.as_deref())?,
        estado: c.estado.unwrap_or_else(|| "activo".to_owned()),
        ubicacion_especifica: c.ubicacion_especifica,
        coordenadas_lat: c.coordenadas_lat,
        coordenadas_lng: c.coordenadas_lng,
        creado: parts.clock.now().micros(),
        sensores: 0,
    };
    check(&cultivo)?;
    let mut tx = parts.store.write().await?;
    cultivo.id_cultivo = cultivos::create(&mut tx, &cultivo).await?;
    let body = Body::from(cultivo);
    sesion.autor().anota(&mut tx, &Hecho::creado("cultivo", body.id_cultivo, &body)).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(body)))
}

fn date(campo: &str, texto: Option<&str>) -> Result<Option<i64>, Problem> {
    Ok(momento(campo, texto)?.map(Timestamp::micros))
}

fn check(c: &Cultivo) -> Result<(), Problem> {
    let mut check = Check::default();
    check.text("tipo_cultivo", &c.tipo_cultivo);
    check.text("estado", &c.estado);
    for (campo, texto) in [("variedad", &c.variedad), ("ubicacion_especifica", &c.ubicacion_especifica)] {
        if let Some(texto) = texto {
            check.text(campo, texto);
        }
    }
    let within = |x: Option<f64>, max: f64| x.is_none_or(|x| (-max..=max).contains(&x));
    check.that(within(c.coordenadas_lat, 90.0), "coordenadas_lat", "De −90 a 90.", "From -90 to 90.");
    check.that(within(c.coordenadas_lng, 180.0), "coordenadas_lng", "De −180 a 180.", "From -180 to 180.");
    let area = c.hectareas.is_none_or(|h| h > 0.0 && h <= MAX_HECTAREAS);
    check.that(area, "hectareas", "Más de 0, hasta 10 millones.", "More than 0, up to 10 million.");
    let order = c.fecha_siembra.zip(c.fecha_estimada_cosecha).is_none_or(|(a, b)| a <= b);
    check.that(
        order,
        "fecha_estimada_cosecha",
        "La cosecha no puede ser antes de la siembra.",
        "The harvest cannot be before the sowing.",
    );
    check.done()
}

/// One crop.
#[utoipa::path(get, path = "/cultivos/{id_cultivo}", tag = "cultivos", params(("id_cultivo" = i64, Path)),
    responses((status = 200, body = Body),
        (status = 403, description = "No empresa"), (status = 404, description = "No such crop")))]
pub(super) async fn get(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
) -> Result<impl IntoResponse, Problem> {
    let alcance = sesion.alcance()?;
    let mut tx = state.parts().store.read().await?;
    let found = cultivos::get(&mut tx, alcance, id).await?.ok_or_else(Problem::not_found)?;
    tx.commit().await?;
    Ok(axum::Json(Body::from(found)))
}

/// What to change; absent stays, null clears.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = CultivoCambio, example = json!({ "estado": "cosechado", "fecha_estimada_cosecha": null }))]
pub(super) struct Patch {
    #[serde(default, deserialize_with = "dado")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    tipo_cultivo: Option<String>,
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    variedad: Option<Option<String>>,
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<f64>, exclusive_minimum = 0, maximum = 10_000_000)]
    hectareas: Option<Option<f64>>,
    /// RFC 3339; a date alone is its midnight.
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<String>, format = DateTime)]
    fecha_siembra: Option<Option<String>>,
    /// RFC 3339; a date alone is its midnight.
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<String>, format = DateTime)]
    fecha_estimada_cosecha: Option<Option<String>>,
    #[serde(default, deserialize_with = "dado")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    estado: Option<String>,
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    ubicacion_especifica: Option<Option<String>>,
    #[serde(default, deserialize_with = "presente", alias = "latitud")]
    #[schema(value_type = Option<f64>, minimum = -90, maximum = 90)]
    coordenadas_lat: Option<Option<f64>>,
    #[serde(default, deserialize_with = "presente", alias = "longitud")]
    #[schema(value_type = Option<f64>, minimum = -180, maximum = 180)]
    coordenadas_lng: Option<Option<f64>>,
}

async fn change(state: &State, sesion: &Sesion, id: i64, p: Patch) -> Result<Body, Problem> {
    let id_empresa = sesion.admin()?;
    let alcance = Alcance { id_empresa, id_trabajador: None };
    let siembra = p.fecha_siembra.map(|f| date("fecha_siembra", f.as_deref())).transpose()?;
    let cosecha =
        p.fecha_estimada_cosecha.map(|f| date("fecha_estimada_cosecha", f.as_deref())).transpose()?;
    let mut tx = state.parts().store.write().await?;
    let antes = cultivos::get(&mut tx, alcance, id).await?.ok_or_else(Problem::not_found)?;
    let era = Body::from(antes.clone());
    let cultivo = Cultivo {
        tipo_cultivo: p.tipo_cultivo.unwrap_or(antes.tipo_cultivo),
        variedad: p.variedad.unwrap_or(antes.variedad),
        hectareas: p.hectareas.unwrap_or(antes.hectareas),
        fecha_siembra: siembra.unwrap_or(antes.fecha_siembra),
        fecha_estimada_cosecha: cosecha.unwrap_or(antes.fecha_estimada_cosecha),
        estado: p.estado.unwrap_or(antes.estado),
        ubicacion_especifica: p.ubicacion_especifica.unwrap_or(antes.ubicacion_especifica),
        coordenadas_lat: p.coordenadas_lat.unwrap_or(antes.coordenadas_lat),
        coordenadas_lng: p.coordenadas_lng.unwrap_or(antes.coordenadas_lng),
        ..antes
    };
    check(&cultivo)?;
    cultivos::update(&mut tx, &cultivo).await?;
    let es = Body::from(cultivo);
    sesion.autor().anota(&mut tx, &Hecho::cambiado("cultivo", id, &era, &es)).await?;
    tx.commit().await?;
    Ok(es)
}

/// Change a crop.
#[utoipa::path(patch, path = "/cultivos/{id_cultivo}", tag = "cultivos", params(("id_cultivo" = i64, Path)), request_body = Patch,
    responses((status = 200, body = Body),
        (status = 403, description = "Not an administrator"), (status = 404, description = "No such crop")))]
pub(super) async fn patch(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    Json(p): Json<Patch>,
) -> Result<impl IntoResponse, Problem> {
    Ok(axum::Json(change(&state, &sesion, id, p).await?))
}

/// As `PATCH`: absent stays.
#[utoipa::path(put, path = "/cultivos/{id_cultivo}", tag = "cultivos", params(("id_cultivo" = i64, Path)), request_body = Patch,
    responses((status = 200, body = Body),
        (status = 403, description = "Not an administrator"), (status = 404, description = "No such crop")))]
pub(super) async fn put(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    Json(p): Json<Patch>,
) -> Result<impl IntoResponse, Problem> {
    Ok(axum::Json(change(&state, &sesion, id, p).await?))
}

/// Remove a crop and its bounds. Its sensors stay, in no crop.
#[utoipa::path(delete, path = "/cultivos/{id_cultivo}", tag = "cultivos", params(("id_cultivo" = i64, Path)),
    responses((status = 204), (status = 403, description = "Not an administrator"),
        (status = 404, description = "No such crop")))]
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
            let alcance = Alcance { id_empresa, id_trabajador: None };
            let mut tx = parts.store.write().await?;
            let era = cultivos::get(&mut tx, alcance, id).await?.ok_or_else(Problem::not_found)?;
            cultivos::delete(&mut tx, id_empresa, id).await?;
            sesion.autor().anota(&mut tx, &Hecho::borrado("cultivo", id, &Body::from(era))).await?;
            tx.commit().await?;
            parts.ingest.recargar_umbrales(Cambiados::Empresa(id_empresa)).await?;
            Ok(())
        }
    };
    to_its_end(&state, work).await?;
    Ok(StatusCode::NO_CONTENT)
}
