//! Sensores and their credentials.

pub(super) mod baja;

use axum::extract::{OriginalUri, State as Shared};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::etag::{IfMatch, Tag};
use super::extract::{Entero, Json, Pagina, Path, Query, Sesion, dado, presente};
use super::finish::to_its_end;
use super::lector::Lector;
use super::problem::{Problem, Texto};
use super::shapes::SensorBody;
use super::validate::Check;
use super::{State, paging};
use crate::domain::{DeviceId, EstadoSensor};
use crate::identity::{Permiso, Revocado, dispositivo};
use crate::ingest::Cambiados;
use crate::store::auditoria::{Autor, Hecho};
use crate::store::sensores::{self, Alcance, Cambio, Filtro, Nuevo};
use crate::store::{self, Tx};

/// Seconds between readings: from one to a week.
const INTERVALO: std::ops::RangeInclusive<i64> = 1..=604_800;

/// Narrows the list.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Only those in use, or only those that are not.
    activo: Option<bool>,
    /// Only those at this place.
    #[param(pattern = r"^[^\x00]*$")]
    ubicacion: Option<String>,
    /// Only those in this state.
    estado: Option<EstadoSensor>,
}

async fn page(
    state: &State,
    alcance: Alcance,
    filters: &Filters,
    pagina: &Pagina,
    uri: &Uri,
) -> Result<Response, Problem> {
    let hoja = pagina.hoja()?;
    let parts = state.parts();
    let filtro =
        Filtro { activo: filters.activo, ubicacion: filters.ubicacion.as_deref(), estado: filters.estado };
    let mut tx = parts.store.read().await?;
    let found = sensores::list(&mut tx, alcance, &filtro, &hoja).await?;
    tx.commit().await?;
    let body = |s| SensorBody::new(s, &parts.presencia);
    Ok(paging::list(uri, hoja, found, |s| s.quien.id_sensor, body))
}

/// The sensors that you may see, each with its newest values.
#[utoipa::path(get, path = "/sensores", tag = "sensores", security(("account" = []), ("api_key" = [])), params(Filters, Pagina),
    responses((status = 200, body = Vec<SensorBody>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "No empresa"), (status = 422, description = "limit or skip out of range")))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    lector: Lector,
    Query(filters): Query<Filters>,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<impl IntoResponse, Problem> {
    page(&state, lector.alcance(Permiso::LecturasRead)?, &filters, &pagina, &uri).await
}

/// As `/sensores`: one query, absent values null.
#[utoipa::path(get, path = "/sensores/with-readings", tag = "sensores", security(("account" = []), ("api_key" = [])), params(Filters, Pagina),
    responses((status = 200, body = Vec<SensorBody>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "No empresa"), (status = 422, description = "limit or skip out of range")))]
pub(super) async fn with_readings(
    Shared(state): Shared<State>,
    lector: Lector,
    Query(filters): Query<Filters>,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<impl IntoResponse, Problem> {
    page(&state, lector.alcance(Permiso::LecturasRead)?, &filters, &pagina, &uri).await
}

/// A device to register.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = SensorNuevo, example = json!({ "device_id": "esp32-norte", "nombre": "Norte", "tipo": "clima",
    "ubicacion_sensor": "Lote 4", "intervalo_lectura": 300 }))]
pub(super) struct Create {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`; unique in the installation. Not `jwt` or `key`.
    #[schema(min_length = 1, max_length = 64, pattern = "^(?!(jwt|key)$)[A-Za-z0-9_-][A-Za-z0-9._-]*$")]
    device_id: String,
    #[serde(alias = "nombre_sensor")]
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    nombre: String,
    #[serde(alias = "tipo_sensor")]
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    tipo: String,
    #[schema(value_type = Option<i64>, minimum = 1)]
    id_cultivo: Option<Entero>,
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    ubicacion_sensor: Option<String>,
    #[serde(alias = "latitud")]
    #[schema(minimum = -90, maximum = 90)]
    coordenadas_lat: Option<f64>,
    #[serde(alias = "longitud")]
    #[schema(minimum = -180, maximum = 180)]
    coordenadas_lng: Option<f64>,
    /// Seconds; default 300.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 604_800)]
    intervalo_lectura: Option<Entero>,
}

/// A device that was registered.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = SensorCreado)]
pub(super) struct Created {
    message: &'static str,
    sensor: SensorBody,
    credenciales: Credentials,
}

/// How the device signs in. The token is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Credenciales, example = json!({ "username": "esp32-norte", "token": "shown-this-once" }))]
pub(super) struct Credentials {
    username: String,
    token: String,
}

/// What all writes check.
fn check_rest(
    check: &mut Check,
    ubicacion: Option<&str>,
    lat: Option<f64>,
    lng: Option<f64>,
    intervalo: i64,
) {
    if let Some(ubicacion) = ubicacion {
        check.text("ubicacion_sensor", ubicacion);
    }
    let within = |x: Option<f64>, max: f64| x.is_none_or(|x| (-max..=max).contains(&x));
    check.that(within(lat, 90.0), "coordenadas_lat", "De −90 a 90.", "From -90 to 90.");
    check.that(within(lng, 180.0), "coordenadas_lng", "De −180 a 180.", "From -180 to 180.");
    let good = INTERVALO.contains(&intervalo);
    check.that(good, "intervalo_lectura", "De 1 a 604800 segundos.", "From 1 to 604800 seconds.");
}

/// Register a device; its token is shown this once.
#[utoipa::path(post, path = "/sensores", tag = "sensores", request_body = Create,
    responses((status = 201, body = Created),
        (status = 403, description = "Not an administrator"), (status = 404, description = "No such crop"),
        (status = 409, description = "device_id in use")))]
pub(super) async fn create(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Json(c): Json<Create>,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    let device_id = DeviceId::new(&c.device_id);
    let mut check = Check::default();
    let (es, en) = (
        "De 1 a 64 caracteres: letras, dígitos, punto, guion; sin punto al inicio.",
        "1 to 64 characters: letters, digits, dot, dash, underscore; no dot first.",
    );
    check.that(device_id.is_ok(), "device_id", es, en);
    // What people and programs sign in to the broker with (contract section 1).
    let reserved = ["jwt", "key"].contains(&c.device_id.as_str());
    check.that(!reserved, "device_id", "Es un nombre reservado.", "It is a reserved name.");
    check.text("nombre", &c.nombre);
    check.text("tipo", &c.tipo);
    let intervalo = c.intervalo_lectura.map_or(300, |n| n.0);
    check_rest(&mut check, c.ubicacion_sensor.as_deref(), c.coordenadas_lat, c.coordenadas_lng, intervalo);
    check.done()?;
    let Ok(device_id) = device_id else { return Err(Problem::not_found()) };
    let registering = register(state.clone(), sesion.1, id_empresa, device_id, c, intervalo);
    let body = to_its_end(&state, registering).await?;
    Ok((StatusCode::CREATED, [("cache-control", "no-store")], axum::Json(body)))
}

async fn register(
    state: State,
    autor: Autor,
    id_empresa: i64,
    device_id: DeviceId,
    c: Create,
    intervalo_lectura: i64,
) -> Result<Created, Problem> {
    let parts = state.parts();
    let token = dispositivo::genera().map_err(|e| Problem::internal(&e))?;
    let nuevo = Nuevo {
        id_empresa,
        device_id: &device_id,
        nombre: &c.nombre,
        tipo: &c.tipo,
        id_cultivo: c.id_cultivo.map(|n| n.0),
        intervalo_lectura,
        ubicacion_sensor: c.ubicacion_sensor.as_deref(),
        coordenadas_lat: c.coordenadas_lat,
        coordenadas_lng: c.coordenadas_lng,
        credencial: &token.hash,
    };
    let mut tx = parts.store.write().await?;
    check_cultivo(&mut tx, id_empresa, nuevo.id_cultivo).await?;
    let id_sensor = sensores::create(&mut tx, &nuevo, parts.clock.now())
        .await
        .map_err(|e| if e.conflicts_on("sensores", "device_id") { taken() } else { e.into() })?;
    let alcance = Alcance { id_empresa, id_trabajador: None };
    let sensor = sensores::get(&mut tx, alcance, id_sensor).await?.ok_or_else(Problem::not_found)?;
    autor.anota(&mut tx, &Hecho::creado("sensor", id_sensor, &sensor)).await?;
    tx.commit().await?;
    parts.directorio.alta(sensor.quien.clone());
    if c.id_cultivo.is_some() {
        reload(parts, id_empresa, id_sensor).await;
    }
    Ok(Created {
        message: "Sensor registrado. Guarde el token: no se vuelve a mostrar.",
        sensor: SensorBody::new(sensor, &parts.presencia),
        credenciales: Credentials { username: device_id.to_string(), token: token.texto },
    })
}

/// A crop that a sensor is put in is one of its empresa.
async fn check_cultivo(tx: &mut Tx, id_empresa: i64, id_cultivo: Option<i64>) -> Result<(), Problem> {
    let Some(id) = id_cultivo else { return Ok(()) };
    let alcance = Alcance { id_empresa, id_trabajador: None };
    if store::cultivos::get(tx, alcance, id).await?.is_some() {
        return Ok(());
    }
    let texto = Texto::new("No existe ese cultivo.", "There is no such crop.");
    Err(Problem::not_found().with_fields(vec![("id_cultivo".to_owned(), texto)]))
}

fn taken() -> Problem {
    let texto =
        Texto::new("Ya está registrado en esta instalación.", "It is registered in this installation.");
    Problem::new(
        StatusCode::CONFLICT,
        "device_id_in_use",
        "Ese device_id ya está registrado.",
        "That device_id is registered already.",
    )
    .with_fields(vec![("device_id".to_owned(), texto)])
}

/// One sensor.
#[utoipa::path(get, path = "/sensores/{id_sensor}", tag = "sensores", security(("account" = []), ("api_key" = [])), params(("id_sensor" = i64, Path)),
    responses((status = 200, body = SensorBody),
        (status = 403, description = "No empresa"), (status = 404, description = "No such sensor")))]
pub(super) async fn get(
    Shared(state): Shared<State>,
    lector: Lector,
    Path(id): Path<i64>,
) -> Result<impl IntoResponse, Problem> {
    let parts = state.parts();
    let alcance = lector.alcance(Permiso::LecturasRead)?;
    let mut tx = parts.store.read().await?;
    let sensor = sensores::get(&mut tx, alcance, id).await?.ok_or_else(Problem::not_found)?;
    tx.commit().await?;
    Ok((Tag::of(&sensor).header(), axum::Json(SensorBody::new(sensor, &parts.presencia))))
}

/// What to change; absent stays, null clears.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = SensorCambio, example = json!({ "nombre": "Norte 2", "ubicacion_sensor": null }))]
pub(super) struct Patch {
    #[serde(default, deserialize_with = "dado", alias = "nombre_sensor")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    nombre: Option<String>,
    #[serde(default, deserialize_with = "dado", alias = "tipo_sensor")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    tipo: Option<String>,
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<i64>, minimum = 1)]
    id_cultivo: Option<Option<Entero>>,
    /// `inactivo` revokes the credential.
    #[serde(default, deserialize_with = "dado")]
    #[schema(value_type = EstadoSensor, required = false)]
    estado: Option<EstadoSensor>,
    #[serde(default, deserialize_with = "dado")]
    #[schema(value_type = i64, required = false, minimum = 1, maximum = 604_800)]
    intervalo_lectura: Option<Entero>,
    #[serde(default, deserialize_with = "presente")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    ubicacion_sensor: Option<Option<String>>,
    #[serde(default, deserialize_with = "presente", alias = "latitud")]
    #[schema(value_type = Option<f64>, minimum = -90, maximum = 90)]
    coordenadas_lat: Option<Option<f64>>,
    #[serde(default, deserialize_with = "presente", alias = "longitud")]
    #[schema(value_type = Option<f64>, minimum = -180, maximum = 180)]
    coordenadas_lng: Option<Option<f64>>,
}

/// Change a sensor. With `If-Match`, only if nobody has changed it since its `ETag` was read.
#[utoipa::path(patch, path = "/sensores/{id_sensor}", tag = "sensores",
    params(("id_sensor" = i64, Path), ("If-Match" = Option<String>, Header, description = "The `ETag` that was read")),
    request_body = Patch,
    responses((status = 200, body = SensorBody),
        (status = 403, description = "Not an administrator"), (status = 404, description = "No such sensor, or no such crop"),
        (status = 412, description = "Somebody changed it meanwhile")))]
pub(super) async fn patch(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    if_match: IfMatch,
    Json(p): Json<Patch>,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    let changing = change(state.clone(), sesion.1, if_match, (id_empresa, id), p);
    let (tag, body) = to_its_end(&state, changing).await?;
    Ok((tag.header(), axum::Json(body)))
}

async fn change(
    state: State,
    autor: Autor,
    if_match: IfMatch,
    (id_empresa, id): (i64, i64),
    p: Patch,
) -> Result<(Tag, SensorBody), Problem> {
    let parts = state.parts();
    let alcance = Alcance { id_empresa, id_trabajador: None };
    let mut tx = parts.store.write().await?;
    let antes = sensores::get(&mut tx, alcance, id).await?.ok_or_else(Problem::not_found)?;
    if_match.check(&antes)?;
    let nombre = p.nombre.unwrap_or_else(|| antes.nombre.clone());
    let tipo = p.tipo.unwrap_or_else(|| antes.tipo.clone());
    let ubicacion = p.ubicacion_sensor.unwrap_or_else(|| antes.ubicacion_sensor.clone());
    let cambio = Cambio {
        nombre: &nombre,
        tipo: &tipo,
        id_cultivo: p.id_cultivo.map_or(antes.id_cultivo, |dado| dado.map(|n| n.0)),
        estado: p.estado.unwrap_or(antes.estado),
        intervalo_lectura: p.intervalo_lectura.map_or(antes.intervalo_lectura, |n| n.0),
        ubicacion_sensor: ubicacion.as_deref(),
        coordenadas_lat: p.coordenadas_lat.unwrap_or(antes.coordenadas_lat),
        coordenadas_lng: p.coordenadas_lng.unwrap_or(antes.coordenadas_lng),
    };
    let mut check = Check::default();
    check.text("nombre", &nombre);
    check.text("tipo", &tipo);
    check_rest(
        &mut check,
        ubicacion.as_deref(),
        cambio.coordenadas_lat,
        cambio.coordenadas_lng,
        cambio.intervalo_lectura,
    );
    check.done()?;
    if cambio.id_cultivo != antes.id_cultivo {
        check_cultivo(&mut tx, id_empresa, cambio.id_cultivo).await?;
    }
    sensores::update(&mut tx, id_empresa, id, &cambio).await?;
    let sensor = sensores::get(&mut tx, alcance, id).await?.ok_or_else(Problem::not_found)?;
    autor.anota(&mut tx, &Hecho::cambiado("sensor", id, &antes, &sensor)).await?;
    tx.commit().await?;
    // Against what memory knows and not against what was stored before: a request that failed after
    // its commit is made good by the next.
    let known = parts.directorio.sensor(sensor.quien.device_id.as_str()).is_some();
    match (known, sensor.estado) {
        (true, EstadoSensor::Inactivo) => {
            parts.directorio.baja(&sensor.quien);
            parts.ingest.olvidar_sensor(id).await;
        }
        (false, EstadoSensor::Activo | EstadoSensor::Mantenimiento) => {
            parts.ingest.reincorporar_sensor(id).await?;
            parts.directorio.alta(sensor.quien.clone());
        }
        _ => {}
    }
    // Asked for, not only when it changed: a request that failed after its commit is made good by the next.
    if p.id_cultivo.is_some() {
        reload(parts, id_empresa, id).await;
    }
    Ok((Tag::of(&sensor), SensorBody::new(sensor, &parts.presencia)))
}

/// The bounds that hold for a sensor are others: it stands in another crop. The change is made, whatever comes
/// of this; a writer that could not read them now does so before it judges anything.
async fn reload(parts: &super::Parts, id_empresa: i64, id_sensor: i64) {
    if let Err(e) = parts.ingest.recargar_umbrales(Cambiados::Sensor { id_empresa, id_sensor }).await {
        tracing::warn!(error = %e, id_sensor, "the bounds of a sensor could not be read again now");
    }
}

/// A new token.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = CredencialesNuevas)]
pub(super) struct Renewed {
    message: &'static str,
    credenciales: Credentials,
}

/// Give a device a new token; the old one stops at once, and its connection with it.
#[utoipa::path(post, path = "/sensores/{id_sensor}/credenciales", tag = "sensores", params(("id_sensor" = i64, Path)),
    responses((status = 201, body = Renewed),
        (status = 403, description = "Not an administrator"), (status = 404, description = "No such sensor in use")))]
pub(super) async fn credentials(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    let body = to_its_end(&state, renew(state.clone(), sesion.1, id_empresa, id)).await?;
    Ok((StatusCode::CREATED, [("cache-control", "no-store")], axum::Json(body)))
}

async fn renew(state: State, autor: Autor, id_empresa: i64, id: i64) -> Result<Renewed, Problem> {
    let parts = state.parts();
    let token = dispositivo::genera().map_err(|e| Problem::internal(&e))?;
    let alcance = Alcance { id_empresa, id_trabajador: None };
    let mut tx = parts.store.write().await?;
    let sensor = sensores::get(&mut tx, alcance, id).await?.ok_or_else(Problem::not_found)?;
    if !sensores::set_credential(&mut tx, id_empresa, id, &token.hash, parts.clock.now()).await? {
        return Err(Problem::not_found());
    }
    autor.anota(&mut tx, &Hecho::nuevo("renovar_credencial", "sensor", id)).await?;
    parts.directorio.confirma_y_revoca(tx, Revocado::Dispositivo(id)).await?;
    Ok(Renewed {
        message: "Token renovado. Guárdelo: no se vuelve a mostrar.",
        credenciales: Credentials { username: sensor.quien.device_id.to_string(), token: token.texto },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_tells_absent_from_null() {
        let p: Patch = serde_json::from_str(r#"{"ubicacion_sensor":null,"latitud":1.5}"#).unwrap();
        assert_eq!(p.ubicacion_sensor, Some(None));
        assert_eq!(p.id_cultivo, None);
        assert_eq!(p.coordenadas_lat, Some(Some(1.5)));
        for field in ["nombre", "nombre_sensor", "tipo", "estado", "intervalo_lectura"] {
            let cleared = serde_json::from_str::<Patch>(&format!("{{\"{field}\":null}}"));
            assert!(cleared.is_err(), "{field} cannot be without a value");
        }
    }
}
