//! What a range came to, as figures.

use std::collections::BTreeMap;

use axum::extract::State as Shared;
use serde::{Deserialize, Serialize};

use super::super::State;
use super::super::extract::{Path, Query, momento};
use super::super::lector::Lector;
use super::super::problem::Problem;
use super::cubetas::Figures;
use super::too_many;
use crate::domain::Timestamp;
use crate::historia::{self, Rango};
use crate::identity::Permiso;
use crate::store;
use crate::store::sensores;

/// Of which range.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct Period {
    /// From this moment on (RFC 3339); by default 30 days before `hasta`.
    #[param(format = DateTime)]
    desde: Option<String>,
    /// Up to this moment (RFC 3339); by default now.
    #[param(format = DateTime)]
    hasta: Option<String>,
}

/// What a range came to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Estadisticas)]
pub(in super::super) struct Statistics {
    id_sensor: i64,
    /// The range that the figures are of: the one asked for, except that an hour whose readings are past
    /// the retention is whole.
    desde: Timestamp,
    /// See `desde`.
    hasta: Timestamp,
    /// Readings, of whatever variables.
    lecturas: i64,
    /// Of the readings that `intervalo_lectura` lets expect since the sensor was installed, how many came,
    /// in percent; null where none was expected. Counted by the hour (by the interval, where that is
    /// longer): a burst in one hour makes up for nothing that another lacks.
    disponibilidad: Option<f64>,
    /// By variable.
    variables: BTreeMap<String, Figures>,
}

/// What each variable of a sensor came to in a range, and how much of what was expected came.
#[utoipa::path(get, path = "/sensores/{id_sensor}/estadisticas", tag = "lecturas", security(("account" = []), ("api_key" = [])), params(("id_sensor" = i64, Path), Period),
    responses((status = 200, body = Statistics), (status = 400, description = "Bad query"),
        (status = 403, description = "No empresa"),
        (status = 404, description = "No such sensor"), (status = 422, description = "Not a date, or more than 1,000 variables")))]
pub(in super::super) async fn statistics(
    Shared(state): Shared<State>,
    lector: Lector,
    Path(id): Path<i64>,
    Query(period): Query<Period>,
) -> Result<axum::Json<Statistics>, Problem> {
    const DIAS: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);
    let ahora = state.parts().clock.now();
    let hasta = momento("hasta", period.hasta.as_deref())?.unwrap_or(ahora);
    let desde = momento("desde", period.desde.as_deref())?.unwrap_or_else(|| hasta.minus(DIAS));
    let mut tx = state.parts().store.read().await?;
    let sensor = sensores::get(&mut tx, lector.alcance(Permiso::LecturasRead)?, id)
        .await?
        .ok_or_else(Problem::not_found)?;
    let rango = Rango { desde, antes_de: hasta.next() };
    let e = historia::statistics(&mut tx, id, rango).await?.ok_or_else(too_many)?;
    let primera = store::horas::extent(&mut tx, id).await?.map(|(primera, _)| primera);
    tx.commit().await?;
    let desde = primera.map_or(sensor.fecha_instalacion, |p| p.min(sensor.fecha_instalacion));
    let vida = Rango { desde, antes_de: ahora };
    Ok(axum::Json(Statistics {
        id_sensor: id,
        desde: e.rango.desde,
        hasta: Timestamp::clamped(e.rango.antes_de.micros() - 1),
        lecturas: e.lecturas,
        disponibilidad: e.disponibilidad(sensor.intervalo_lectura, vida),
        variables: e.variables.iter().map(|(v, a)| (v.clone(), Figures::from(a))).collect(),
    }))
}
