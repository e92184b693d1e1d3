//! What people ask of a device: commands, each with what became of it, and the configuration that the
//! device is to have. Both wait in the store until the device has them.

use std::time::Duration;

use axum::extract::{OriginalUri, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::extract::{Json, Pagina, Path, Query, Sesion, momento};
use super::finish::to_its_end;
use super::problem::Problem;
use super::validate::Check;
use super::{State, paging};
use crate::domain::{SensorRef, Timestamp};
use crate::store::auditoria::Hecho;
use crate::store::comandos::{self, Nuevo};
use crate::store::{Tx, sensores};

/// A command without `expira` is worth doing for a day.
const VALE: Duration = Duration::from_secs(86_400);
/// And for no longer than this, whatever `expira` says.
const VALE_MAXIMO: Duration = Duration::from_secs(30 * 86_400);
/// Open commands of one device.
const ABIERTOS: i64 = 100;
/// Bytes of parameters, or of a configuration.
const MAX_JSON: usize = 16 << 10;

/// A command to send.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = ComandoNuevo, example = json!({ "comando": "regar", "parametros": { "minutos": 5 } }))]
pub(super) struct Create {
    /// What to do, as the firmware calls it: 1 to 64 of `A-Z a-z 0-9 _ . -`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_.-]+$")]
    comando: String,
    /// A JSON object; default `{}`.
    #[schema(value_type = Option<Object>)]
    parametros: Option<Map<String, Value>>,
    /// When it stops being worth doing (RFC 3339); default in a day, at most in 30.
    #[schema(format = DateTime)]
    expira: Option<String>,
}

/// A command and what became of it.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Comando)]
pub(super) struct Body {
    id_comando: i64,
    id_sensor: i64,
    comando: String,
    #[schema(value_type = Object)]
    parametros: Box<RawValue>,
    /// `pendiente` (waits for the device), `enviado` (the device acknowledged it), `respondido` or
    /// `expirado`.
    estado: String,
    /// `ok` or `error`, once answered.
    resultado: Option<String>,
    /// What the device said besides.
    #[schema(value_type = Option<Object>)]
    detalle: Option<Box<RawValue>>,
    /// The person's `user_id`.
    creado_por: String,
    fecha_creacion: Timestamp,
    fecha_expiracion: Timestamp,
    fecha_envio: Option<Timestamp>,
    fecha_respuesta: Option<Timestamp>,
}

impl From<comandos::Comando> for Body {
    fn from(c: comandos::Comando) -> Self {
        Self {
            id_comando: c.id_comando,
            id_sensor: c.id_sensor,
            comando: c.comando,
            parametros: raw(c.parametros),
            estado: c.estado,
            resultado: c.resultado,
            detalle: c.detalle.map(raw),
            creado_por: c.creado_por,
            fecha_creacion: Timestamp::clamped(c.creado),
            fecha_expiracion: Timestamp::clamped(c.expira),
            fecha_envio: c.enviado.map(Timestamp::clamped),
            fecha_respuesta: c.respondido.map(Timestamp::clamped),
        }
    }
}

/// JSON that was checked before it was stored; an object without members if it is none after all.
fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_| to_raw_value(&Map::new()).unwrap_or_default())
}

/// The sensor, if `sesion` may ask something of it.
async fn theirs(tx: &mut Tx, sesion: &Sesion, id: i64) -> Result<SensorRef, Problem> {
    sesion.supervisor()?;
    let sensor = sensores::get(tx, sesion.alcance()?, id).await?.ok_or_else(Problem::not_found)?;
    Ok(sensor.quien)
}

/// Ask something of a device. It is given the command as soon as it is connected and subscribes to
/// `sensores/{device_id}/comandos`, and answers on `sensores/{device_id}/respuestas`.
#[utoipa::path(post, path = "/sensores/{id_sensor}/comandos", tag = "comandos", params(("id_sensor" = i64, Path)), request_body = Create,
    responses((status = 201, body = Body), (status = 400, description = "Bad JSON"),
        (status = 403, description = "Not a supervisor"), (status = 404, description = "No such sensor"),
        (status = 409, description = "Too many are open")))]
pub(super) async fn create(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    Json(body): Json<Create>,
) -> Result<impl IntoResponse, Problem> {
    let parts = state.parts();
    let ahora = parts.clock.now();
    let expira = momento("expira", body.expira.as_deref())?.unwrap_or_else(|| ahora.plus(VALE));
    let parametros = Value::Object(body.parametros.unwrap_or_default()).to_string();
    let mut check = Check::default();
    let legible = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    check.that(
        (1..=64).contains(&body.comando.len()) && body.comando.chars().all(legible),
        "comando",
        "De 1 a 64 letras, cifras, _ . o -.",
        "1 to 64 letters, digits, _ . or -.",
    );
    check.that(parametros.len() <= MAX_JSON, "parametros", "Hasta 16 KiB.", "16 KiB at most.");
    check.that(
        expira > ahora && expira <= ahora.plus(VALE_MAXIMO),
        "expira",
        "En el futuro, a lo más en 30 días.",
        "In the future, within 30 days.",
    );
    check.done()?;
    let pedido = Pedido { id, comando: body.comando, parametros, ahora, expira };
    let body = to_its_end(&state, ask(state.clone(), sesion, pedido)).await?;
    Ok((StatusCode::CREATED, axum::Json(body)))
}

/// A command that was checked.
struct Pedido {
    id: i64,
    comando: String,
    parametros: String,
    ahora: Timestamp,
    expira: Timestamp,
}

async fn ask(state: State, sesion: Sesion, pedido: Pedido) -> Result<Body, Problem> {
    let parts = state.parts();
    let Pedido { id, comando, parametros, ahora, expira } = pedido;
    let mut tx = parts.store.write().await?;
    theirs(&mut tx, &sesion, id).await?;
    if comandos::open(&mut tx, id).await? >= ABIERTOS {
        return Err(too_many());
    }
    let creado_por = &sesion.0.user_id;
    let nuevo = Nuevo { id_sensor: id, comando: &comando, parametros: &parametros, creado_por, expira };
    let id_comando = comandos::create(&mut tx, &nuevo, ahora).await?;
    let comando = comandos::get(&mut tx, id, id_comando).await?.ok_or_else(Problem::not_found)?;
    let body = Body::from(comando);
    sesion.autor().anota(&mut tx, &Hecho::creado("comando", id_comando, &body)).await?;
    tx.commit().await?;
    parts.pedidos.marca(id);
    Ok(body)
}

fn too_many() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "too_many_commands",
        "El dispositivo ya tiene 100 comandos abiertos; espere a que responda o expiren.",
        "The device has 100 open commands already; wait until it answers or they expire.",
    )
}

/// What was asked of a device, the newest first.
#[utoipa::path(get, path = "/sensores/{id_sensor}/comandos", tag = "comandos", params(("id_sensor" = i64, Path), Pagina),
    responses((status = 200, body = Vec<Body>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "Not a supervisor"), (status = 404, description = "No such sensor"),
        (status = 422, description = "limit or skip out of range")))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<impl IntoResponse, Problem> {
    let hoja = pagina.hoja()?;
    let mut tx = state.parts().store.read().await?;
    theirs(&mut tx, &sesion, id).await?;
    let found = comandos::list(&mut tx, id, &hoja).await?;
    tx.commit().await?;
    Ok(paging::list(&uri, hoja, found, |c| c.id_comando, Body::from))
}

/// The configuration that a device is to have.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ConfiguracionDispositivo)]
pub(super) struct Config {
    #[schema(value_type = Object)]
    configuracion: Box<RawValue>,
    /// Whether the device acknowledged it since it was last changed.
    entregada: bool,
    fecha_cambio: Option<Timestamp>,
    fecha_entrega: Option<Timestamp>,
}

impl From<Option<comandos::Configuracion>> for Config {
    fn from(c: Option<comandos::Configuracion>) -> Self {
        let entregada = c.as_ref().and_then(|c| c.entregada);
        Self {
            entregada: entregada.is_some(),
            fecha_cambio: c.as_ref().map(|c| Timestamp::clamped(c.cambiada)),
            fecha_entrega: entregada.map(Timestamp::clamped),
            configuracion: raw(c.map_or_else(|| "{}".to_owned(), |c| c.configuracion)),
        }
    }
}

/// What a device is to be set to, and whether it has that.
#[utoipa::path(get, path = "/sensores/{id_sensor}/config", tag = "comandos", params(("id_sensor" = i64, Path)),
    responses((status = 200, body = Config),
        (status = 403, description = "Not a supervisor"), (status = 404, description = "No such sensor")))]
pub(super) async fn config(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
) -> Result<axum::Json<Config>, Problem> {
    let mut tx = state.parts().store.read().await?;
    theirs(&mut tx, &sesion, id).await?;
    let config = comandos::config(&mut tx, id).await?;
    tx.commit().await?;
    Ok(axum::Json(config.into()))
}

/// Set a device: the object is retained on `sensores/{device_id}/config`, where the device finds it
/// whenever it connects.
#[utoipa::path(put, path = "/sensores/{id_sensor}/config", tag = "comandos", params(("id_sensor" = i64, Path)),
    request_body(content = Object, description = "A JSON object", example = json!({ "intervalo_lectura": 300 })),
    responses((status = 200, body = Config), (status = 400, description = "Bad JSON"),
        (status = 403, description = "Not a supervisor"), (status = 404, description = "No such sensor"),
        (status = 422, description = "Not an object, or too large")))]
pub(super) async fn set_config(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    Json(body): Json<Map<String, Value>>,
) -> Result<axum::Json<Config>, Problem> {
    let configuracion = Value::Object(body).to_string();
    if configuracion.len() > MAX_JSON {
        return Err(Problem::field("", "Hasta 16 KiB.", "16 KiB at most."));
    }
    Ok(axum::Json(to_its_end(&state, set(state.clone(), sesion, id, configuracion)).await?))
}

async fn set(state: State, sesion: Sesion, id: i64, configuracion: String) -> Result<Config, Problem> {
    let parts = state.parts();
    let mut tx = parts.store.write().await?;
    theirs(&mut tx, &sesion, id).await?;
    let antes = Config::from(comandos::config(&mut tx, id).await?);
    comandos::set_config(&mut tx, id, &configuracion, &sesion.0.user_id, parts.clock.now()).await?;
    let config = Config::from(comandos::config(&mut tx, id).await?);
    let hecho = Hecho::cambiado("config", id, &antes.configuracion, &config.configuracion);
    sesion.autor().anota(&mut tx, &hecho).await?;
    tx.commit().await?;
    parts.pedidos.marca(id);
    Ok(config)
}
