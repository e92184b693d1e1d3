//! Sensors by the place where they stand (`ubicacion_sensor`), many at a time.

use std::collections::BTreeSet;

use axum::extract::State as Shared;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::State;
use super::extract::{Entero, Json, Path, Sesion};
use super::finish::to_its_end;
use super::problem::{Problem, Texto};
use super::validate::Check;
use crate::store::auditoria::{Autor, Hecho};
use crate::store::sensores;

/// Sensors in one request.
const MAX_IDS: usize = 1_000;

/// What to move.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = Mudanza, example = json!({ "from_ubicacion": "Invernadero 1", "to_ubicacion": "Invernadero 2", "sensor_ids": [7, 8] }))]
pub(super) struct Move {
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    from_ubicacion: String,
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    to_ubicacion: String,
    /// Only these (`id_sensor`, up to 1,000), all of which must stand there; absent = all that do.
    #[schema(value_type = Option<Vec<i64>>, min_items = 1, max_items = 1_000)]
    sensor_ids: Option<Vec<Entero>>,
}

/// What was moved.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = SensoresMovidos)]
pub(super) struct Moved {
    message: &'static str,
    /// How many sensors.
    movidos: u64,
}

/// Move the sensors of a place, or some of them, to another. All or none.
#[utoipa::path(post, path = "/sensores/move", tag = "sensores", request_body = Move,
    responses((status = 200, body = Moved),
        (status = 403, description = "Not an administrator"), (status = 404, description = "No sensor there, or one of them is not")))]
pub(super) async fn relocate(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Json(m): Json<Move>,
) -> Result<axum::Json<Moved>, Problem> {
    let id_empresa = sesion.admin()?;
    let ids: Option<BTreeSet<i64>> = m.sensor_ids.map(|ids| ids.iter().map(|n| n.0).collect());
    let mut check = Check::default();
    check.text("from_ubicacion", &m.from_ubicacion);
    check.text("to_ubicacion", &m.to_ubicacion);
    let few = ids.as_ref().is_none_or(|ids| (1..=MAX_IDS).contains(&ids.len()));
    check.that(few, "sensor_ids", "De 1 a 1000 sensores.", "From 1 to 1000 sensors.");
    check.done()?;
    let ids: Option<Vec<i64>> = ids.map(Vec::from_iter);
    let mut tx = state.parts().store.write().await?;
    let movidos =
        sensores::relocate(&mut tx, id_empresa, &m.from_ubicacion, &m.to_ubicacion, ids.as_deref()).await?;
    match ids {
        None if movidos == 0 => return Err(nobody("from_ubicacion")),
        Some(ids) if movidos < ids.len() as u64 => return Err(nobody("sensor_ids")),
        _ => {}
    }
    let era = json!({ "ubicacion_sensor": m.from_ubicacion, "sensores": movidos });
    let es = json!({ "ubicacion_sensor": m.to_ubicacion, "sensores": movidos });
    let hecho = Hecho::cambiado("ubicacion", &m.from_ubicacion, &era, &es).como("mover");
    sesion.autor().anota(&mut tx, &hecho).await?;
    tx.commit().await?;
    Ok(axum::Json(Moved { message: "Sensores movidos.", movidos }))
}

/// Nothing stands where it was said to.
fn nobody(campo: &str) -> Problem {
    let texto = Texto::new(
        "No hay tal sensor en esa ubicación; no se movió ninguno.",
        "There is no such sensor at that place; none was moved.",
    );
    Problem::not_found().with_fields(vec![(campo.to_owned(), texto)])
}

/// Sensors that were retired.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = SensoresRetirados)]
pub(super) struct Retired {
    message: &'static str,
    /// How many were in use until now.
    desactivados: usize,
}

/// Retire every sensor of a place: as `DELETE /sensores/{id}` does, credentials are revoked and history is
/// kept.
#[utoipa::path(delete, path = "/sensores/by-ubicacion/{u}", tag = "sensores", operation_id = "delete_at",
    params(("u" = String, Path, description = "The place, as in `ubicacion_sensor`", example = "Invernadero 1")),
    responses((status = 200, body = Retired),
        (status = 403, description = "Not an administrator"), (status = 404, description = "No sensor there")))]
pub(super) async fn delete(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(u): Path<String>,
) -> Result<axum::Json<Retired>, Problem> {
    let id_empresa = sesion.admin()?;
    let desactivados = to_its_end(&state, retire(state.clone(), sesion.1, id_empresa, u)).await?;
    Ok(axum::Json(Retired { message: "Sensores desactivados.", desactivados }))
}

async fn retire(state: State, autor: Autor, id_empresa: i64, ubicacion: String) -> Result<usize, Problem> {
    let parts = state.parts();
    let mut tx = parts.store.write().await?;
    let mut todos = sensores::at(&mut tx, id_empresa, &ubicacion).await?;
    if todos.is_empty() {
        return Err(Problem::not_found());
    }
    let retirados = sensores::retire_at(&mut tx, id_empresa, &ubicacion).await?;
    for sensor in &retirados {
        let era = json!({ "device_id": sensor.device_id.as_str(), "ubicacion_sensor": ubicacion });
        autor.anota(&mut tx, &Hecho::borrado("sensor", sensor.id_sensor, &era)).await?;
    }
    tx.commit().await?;
    // Those that memory still knows, not only those that were retired now: a request that failed after its
    // commit is made good by the next.
    todos.retain(|s| parts.directorio.sensor(s.device_id.as_str()).is_some());
    parts.directorio.bajas(&todos);
    for sensor in &todos {
        parts.ingest.olvidar_sensor(sensor.id_sensor).await;
    }
    Ok(retirados.len())
}
