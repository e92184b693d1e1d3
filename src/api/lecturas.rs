//! Readings over HTTP, from devices that do not speak MQTT, and what was refused of them.

use std::borrow::Cow;

use axum::body::Bytes;
use axum::extract::{OriginalUri, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::openapi::schema::{OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, RefOr};

use super::extract::{Pagina, Path, Query, Sesion};
use super::problem::{Problem, Texto};
use super::{State, paging};
use crate::domain::{DeviceId, Rango, Rechazo, SensorRef, Timestamp, Variable};
use crate::identity::dispositivo::{self, Entrada};
use crate::ingest::decode;
use crate::ingest::{Mensaje, Resultado};
use crate::store::{self, sensores};

/// What became of a message.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = LecturasGuardadas)]
pub(super) struct Ingested {
    message: &'static str,
    /// Readings stored.
    aceptadas: u32,
    /// Readings that were stored already.
    duplicadas: u32,
    /// Alerts that it opened.
    alertas_generadas: u32,
    /// What of it was refused.
    rechazadas: Vec<Refused>,
}

/// A refused reading, or a refused value of one.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = LecturaRechazada)]
pub(super) struct Refused {
    /// Stable, snake_case.
    motivo: &'static str,
    variable: Option<String>,
    timestamp: Option<Timestamp>,
}

impl From<&Rechazo> for Refused {
    fn from(r: &Rechazo) -> Self {
        Self { motivo: r.motivo.as_str(), variable: r.variable.clone(), timestamp: r.ts }
    }
}

/// A message of contract section 1.1, for the document: what is read is decided by `ingest::decode`, which keeps
/// what it can of a message and names the rest.
pub(super) struct Message;

impl utoipa::ToSchema for Message {
    fn name() -> Cow<'static, str> {
        "LecturasEnviadas".into()
    }
}

impl utoipa::PartialSchema for Message {
    fn schema() -> RefOr<Schema> {
        let kind =
            |kinds: &[Type]| ObjectBuilder::new().schema_type(kinds.iter().cloned().collect::<SchemaType>());
        let value = |rango: Option<Rango>| {
            let value = kind(&[Type::Number, Type::Null]);
            rango.iter().fold(value, |v, r| v.minimum(Some(r.min)).maximum(Some(r.max)))
        };
        let moment = "RFC 3339 (without a zone it is UTC), or epoch seconds or milliseconds; absent = now";
        let timestamp = kind(&[Type::String, Type::Number, Type::Null]).description(Some(moment));
        let whose = kind(&[Type::String, Type::Null]).description(Some("If it is there: that of the device"));
        let mut reading = ObjectBuilder::new()
            .schema_type(Type::Object)
            .property("timestamp", timestamp)
            .property("device_id", whose)
            .description(Some("Values by variable; null means absent"));
        for nombre in Variable::conocidas().chain(Variable::alias()) {
            reading = reading.property(nombre, value(Variable::new(nombre).and_then(|v| v.rango_fisico())));
        }
        let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[a-z][a-z0-9_]{0,31}$"));
        let reading = reading
            .property_names(Some(name.build()))
            .additional_properties(Some(value(None)))
            .max_properties(Some(decode::MAX_VARIABLES))
            .build();
        let several = ArrayBuilder::new()
            .items(reading.clone())
            .min_items(Some(1))
            .max_items(Some(decode::MAX_LECTURAS));
        OneOfBuilder::new().item(reading).item(several).into()
    }
}

/// Send readings as a device. Answered after their commit.
///
/// `Authorization: Device <device_id>:<token>`, or HTTP Basic with the same.
#[utoipa::path(post, path = "/sensores/data", tag = "lecturas", security(("device" = []), ("device_header" = [])),
    request_body(content = Message, description = "A reading, or an array of up to 1,000",
        example = json!({ "timestamp": "2026-11-24T10:00:00Z", "temperatura": 21.5, "humedad_aire": 60.0 })),
    responses((status = 201, body = Ingested), (status = 401, description = "Unknown device or wrong token"),
        (status = 413, description = "Too large"), (status = 422, description = "Nothing of it could be stored"),
        (status = 503, description = "Not now; send it again")))]
pub(super) async fn ingest(
    Shared(state): Shared<State>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<impl IntoResponse, Problem> {
    let parts = state.parts();
    let sensor = device(&state, &headers).await?;
    let ahora = parts.ingest.hora().map_err(|e| super::salud::wrong_clock(&e))?;
    let d = decode::decode(&body, &sensor.device_id, ahora, &parts.settings.limites);
    let mensaje = Mensaje {
        sensor,
        lecturas: d.lecturas,
        rechazos: d.rechazos,
        recibido: ahora,
        dup: false,
        si_esperan: true,
        al_aceptar: Vec::new(),
        por_decir: Some(body),
    };
    let respuesta = parts.ingest.submit(mensaje).await?;
    let resultado = respuesta.await.map_err(|_| crate::ingest::Cerrado)?;
    if resultado.rechazado() {
        return Err(refused(&resultado));
    }
    let body = Ingested {
        message: "Lecturas guardadas.",
        aceptadas: resultado.aceptadas,
        duplicadas: resultado.duplicadas,
        alertas_generadas: resultado.alertas_generadas,
        rechazadas: resultado.rechazos.iter().map(Refused::from).collect(),
    };
    Ok((StatusCode::CREATED, axum::Json(body)))
}

fn refused(resultado: &Resultado) -> Problem {
    /// Refusals named in an answer; the store has them all.
    const MAX: usize = 20;
    let campo = |r: &Rechazo| {
        let campo = r.variable.clone().unwrap_or_default();
        (campo, Texto::new(r.motivo.as_str(), r.motivo.as_str()))
    };
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "reading_refused",
        "No se pudo guardar nada del mensaje; los motivos quedaron registrados.",
        "Nothing of the message could be stored; the reasons have been recorded.",
    )
    .with_fields(resultado.rechazos.iter().take(MAX).map(campo).collect())
}

/// The device that signs in with this request.
async fn device(state: &State, headers: &HeaderMap) -> Result<SensorRef, Problem> {
    let value = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (scheme, given) = value.split_once(' ').unwrap_or_default();
    let pair = match scheme.to_ascii_lowercase().as_str() {
        "device" => given.trim().to_owned(),
        "basic" => STANDARD
            .decode(given.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_default(),
        _ => return Err(wrong_device()),
    };
    let (device_id, token) = pair.split_once(':').ok_or_else(wrong_device)?;
    let device_id = DeviceId::new(device_id).map_err(|_| wrong_device())?;
    match dispositivo::entra(&state.parts().store, device_id.as_str(), token.as_bytes()).await? {
        Entrada::Aceptado(sensor) => Ok(sensor),
        Entrada::SinCredencial(_) | Entrada::Rechazado => Err(wrong_device()),
    }
}

fn wrong_device() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "invalid_device_credentials",
        "Dispositivo desconocido o token incorrecto: Authorization: Device <device_id>:<token>.",
        "Unknown device or wrong token: Authorization: Device <device_id>:<token>.",
    )
    .with_challenge(r#"Device realm="alertrace", Basic realm="alertrace""#)
}

/// A refusal, as it was recorded.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Rechazo)]
pub(super) struct RechazoBody {
    id_rechazo: i64,
    /// When the message arrived.
    recibida: Timestamp,
    /// The moment that the message gave, when it gave a readable one.
    timestamp: Option<Timestamp>,
    /// Stable, snake_case.
    motivo: String,
    /// The variable, when one value was refused and not the whole reading.
    variable: Option<String>,
    /// What was refused, shortened.
    contenido: String,
}

impl From<store::rechazos::Registrado> for RechazoBody {
    fn from(r: store::rechazos::Registrado) -> Self {
        Self {
            id_rechazo: r.id_rechazo,
            recibida: r.recibida,
            timestamp: r.ts,
            motivo: r.motivo,
            variable: r.variable,
            contenido: r.contenido,
        }
    }
}

/// What was refused of a sensor's messages, newest first; kept 7 days, 1,000 a sensor.
#[utoipa::path(get, path = "/sensores/{id_sensor}/rechazos", tag = "lecturas", params(("id_sensor" = i64, Path), Pagina),
    responses((status = 200, body = Vec<RechazoBody>, headers(("x-total-count" = i64, description = "How many in all"))), (status = 400, description = "Bad query"),
        (status = 403, description = "Not a supervisor"),
        (status = 404, description = "No such sensor"), (status = 422, description = "limit or skip out of range")))]
pub(super) async fn rejections(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<impl IntoResponse, Problem> {
    sesion.supervisor()?;
    let hoja = pagina.hoja()?;
    let mut tx = state.parts().store.read().await?;
    if sensores::get(&mut tx, sesion.alcance()?, id).await?.is_none() {
        return Err(Problem::not_found());
    }
    let rechazos = store::rechazos::list(&mut tx, id, &hoja).await?;
    let total = store::rechazos::count(&mut tx, id).await?;
    tx.commit().await?;
    Ok(paging::list(&uri, hoja, (rechazos, total), |r| r.id_rechazo, RechazoBody::from))
}
