//! Figures for the front page, counted from data; what the data does not give is null.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{OriginalUri, State as Shared};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::extract::{Pagina, Path, Query, Sesion};
use super::problem::Problem;
use super::{State, paging};
use crate::domain::{Alerta, Conexion, EstadoSensor, Rol, Severidad, Timestamp};
use crate::historia::{self, Intervalo, Rango};
use crate::store::alertas::{self, Filtro};
use crate::store::sensores::{self, Alcance};
use crate::store::trabajadores::{self, Miembro};
use crate::store::{Hoja, Tx, cultivos};

/// Alerts on the front page.
const RECIENTES: i64 = 10;
/// Days of `sensor-data`, and those that are shown by the hour.
const DIAS: std::ops::RangeInclusive<i64> = 1..=365;
const POR_HORA: i64 = 31;

/// The figures of contract section 2.1.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Kpis {
    sensores_activos: i64,
    /// Crops but for those that are over (`cosechado`, `inactivo`).
    cultivos_monitoreados: i64,
    alertas_pendientes: i64,
    /// Mean of the newest values, °C.
    temperaturas_promedio: Option<f64>,
    /// Mean of the newest values, %.
    humedad_promedio: Option<f64>,
    /// Hectares of those crops.
    areas_bajo_monitoreo: Option<f64>,
    /// The newest reading.
    ultima_actualizacion: Option<Timestamp>,
}

async fn count(
    state: &State,
    tx: &mut Tx,
    alcance: Alcance,
    activos: &[i64],
    alertas_pendientes: i64,
) -> Result<Kpis, Problem> {
    let suma = cultivos::sum(tx, alcance).await?;
    let promedios = state.parts().ingest.ultimas().promedios(activos);
    Ok(Kpis {
        sensores_activos: i64::try_from(activos.len()).unwrap_or(i64::MAX),
        cultivos_monitoreados: suma.cuantos,
        alertas_pendientes,
        temperaturas_promedio: promedios.temperatura,
        humedad_promedio: promedios.humedad,
        areas_bajo_monitoreo: suma.hectareas,
        ultima_actualizacion: promedios.momento,
    })
}

/// The figures of the sensors that you may see.
#[utoipa::path(get, path = "/dashboard/kpis", tag = "dashboard",
    responses((status = 200, body = Kpis),
        (status = 403, description = "No empresa")))]
pub(super) async fn kpis(Shared(state): Shared<State>, sesion: Sesion) -> Result<impl IntoResponse, Problem> {
    let alcance = sesion.alcance()?;
    let activos = state.parts().directorio.en_uso(alcance);
    let mut tx = state.parts().store.read().await?;
    let pendientes = alertas::count(&mut tx, alcance, &Filtro::default()).await?;
    let kpis = count(&state, &mut tx, alcance, &activos, pendientes).await?;
    tx.commit().await?;
    Ok(axum::Json(kpis))
}

/// The front page of whoever asks.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Dashboard {
    kpis: Kpis,
    /// How many sensors are in each state.
    sensores_por_estado: BTreeMap<&'static str, i64>,
    /// How many of those in use are connected.
    sensores_por_conexion: BTreeMap<&'static str, i64>,
    /// How many open alerts there are of each severity.
    alertas_por_severidad: BTreeMap<&'static str, i64>,
    /// The newest ten that are open.
    alertas_recientes: Vec<Alerta>,
}

/// The front page: the figures, what they come from, and the newest open alerts.
#[utoipa::path(get, path = "/dashboard", tag = "dashboard",
    responses((status = 200, body = Dashboard),
        (status = 403, description = "No empresa")))]
pub(super) async fn get(Shared(state): Shared<State>, sesion: Sesion) -> Result<impl IntoResponse, Problem> {
    let alcance = sesion.alcance()?;
    let parts = state.parts();
    let activos = parts.directorio.en_uso(alcance);
    let mut tx = parts.store.read().await?;
    let estados = sensores::count_not_active(&mut tx, alcance).await?;
    let severidades = alertas::count_by_severity(&mut tx, alcance).await?;
    let pendientes = severidades.iter().map(|(_, n)| n).sum();
    let kpis = count(&state, &mut tx, alcance, &activos, pendientes).await?;
    let recientes = Hoja::primeras(RECIENTES);
    let mut alertas_recientes = alertas::list(&mut tx, alcance, &Filtro::default(), &recientes).await?;
    tx.commit().await?;
    alertas_recientes.truncate(usize::try_from(RECIENTES).unwrap_or_default());
    let mut sensores_por_estado: BTreeMap<_, _> =
        [EstadoSensor::Activo, EstadoSensor::Inactivo, EstadoSensor::Mantenimiento]
            .map(|e| (e.as_str(), 0))
            .into();
    // In use are those that are active and those in maintenance.
    let en_uso = i64::try_from(activos.len()).unwrap_or(i64::MAX);
    let en_mantenimiento: i64 =
        estados.iter().filter(|(e, _)| *e == EstadoSensor::Mantenimiento).map(|(_, n)| n).sum();
    sensores_por_estado.insert(EstadoSensor::Activo.as_str(), (en_uso - en_mantenimiento).max(0));
    sensores_por_estado.extend(estados.into_iter().map(|(e, n)| (e.as_str(), n)));
    let mut sensores_por_conexion: BTreeMap<_, _> =
        [Conexion::Online, Conexion::Offline, Conexion::Desconocida].map(|c| (c.as_str(), 0)).into();
    for id_sensor in &activos {
        *sensores_por_conexion.entry(parts.presencia.conexion(*id_sensor).as_str()).or_default() += 1;
    }
    let mut alertas_por_severidad: BTreeMap<_, _> =
        [Severidad::Baja, Severidad::Media, Severidad::Alta, Severidad::Critica]
            .map(|s| (s.as_str(), 0))
            .into();
    alertas_por_severidad.extend(severidades.into_iter().map(|(s, n)| (s.as_str(), n)));
    Ok(axum::Json(Dashboard {
        kpis,
        sensores_por_estado,
        sensores_por_conexion,
        alertas_por_severidad,
        alertas_recientes,
    }))
}

/// A person, under the names that the front end reads.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Person {
    id: i64,
    /// Name and surname.
    name: String,
    dni: Option<String>,
    email: String,
    phone: Option<String>,
    role: Rol,
    /// Nobody keeps it: null.
    department: Option<String>,
    /// How many sensors are assigned to them.
    assigned_sensors: i64,
    status: Status,
    /// The last sign-in, or refresh of one.
    last_active: Option<Timestamp>,
}

/// Whether a person may sign in.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Active,
    Inactive,
}

impl From<Miembro> for Person {
    fn from(m: Miembro) -> Self {
        Self {
            id: m.id_trabajador,
            name: format!("{} {}", m.nombre, m.apellido).trim().to_owned(),
            dni: m.dni,
            email: m.email,
            phone: m.telefono,
            role: m.rol,
            department: None,
            assigned_sensors: m.sensores_asignados,
            status: if m.activo { Status::Active } else { Status::Inactive },
            last_active: m.ultimo_acceso,
        }
    }
}

/// The people of the empresa, under the names that the front end reads.
#[utoipa::path(get, path = "/dashboard/trabajadores", tag = "dashboard", params(Pagina),
    responses((status = 200, body = Vec<Person>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "Not a supervisor"), (status = 422, description = "Parameters out of range")))]
pub(super) async fn people(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.supervisor()?;
    let hoja = pagina.hoja()?;
    let mut tx = state.parts().store.read().await?;
    let found = trabajadores::list(&mut tx, id_empresa, None, &hoja).await?;
    tx.commit().await?;
    Ok(paging::list(&uri, hoja, found, |m| m.id_trabajador, Person::from))
}

/// How far back.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Days {
    /// 1 … 365; default 7. Up to 31 by the hour, beyond that by the day (UTC).
    #[param(minimum = 1, maximum = 365, default = 7)]
    days: Option<i64>,
}

/// The mean of each variable in an hour or a day.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Point {
    id_sensor: i64,
    /// The first moment of the hour or the day.
    timestamp: Timestamp,
    /// Means by variable name; a variable that said nothing is absent.
    #[serde(flatten)]
    #[schema(value_type = BTreeMap<String, f64>)]
    medias: BTreeMap<String, f64>,
}

/// What a sensor came to in the last days, oldest first; an hour or a day without readings is left out.
#[utoipa::path(get, path = "/dashboard/sensor-data/{id_sensor}", tag = "dashboard",
    params(("id_sensor" = i64, Path, description = "id_sensor"), Days),
    responses((status = 200, body = Vec<Point>), (status = 400, description = "Bad query"),
        (status = 403, description = "No empresa"),
        (status = 404, description = "No such sensor"), (status = 422, description = "Parameters out of range")))]
pub(super) async fn sensor_data(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    Query(query): Query<Days>,
) -> Result<impl IntoResponse, Problem> {
    let alcance = sesion.alcance()?;
    let days = query.days.unwrap_or(7);
    let seconds = u64::try_from(days).ok().filter(|_| DIAS.contains(&days)).map(|d| d * 86_400);
    let seconds = seconds.ok_or_else(|| Problem::field("days", "De 1 a 365.", "From 1 to 365."))?;
    let ancho = Intervalo::parse(if days <= POR_HORA { "1h" } else { "1d" });
    let ancho = ancho.ok_or_else(|| Problem::internal(&"there is no such interval"))?;
    let parts = state.parts();
    let ahora = parts.clock.now();
    let mut tx = parts.store.read().await?;
    sensores::get(&mut tx, alcance, id).await?.ok_or_else(Problem::not_found)?;
    // What a device with a fast clock said belongs to now.
    let hasta = ahora.plus(parts.settings.limites.adelanto);
    let desde = ahora.minus(Duration::from_secs(seconds));
    let (rango, _) = ancho.cubre(Rango { desde, antes_de: hasta });
    let figuras = historia::buckets(&mut tx, id, rango, ancho, None).await?;
    tx.commit().await?;
    let figuras = figuras.ok_or_else(|| {
        Problem::field("days", "Demasiados datos: elija menos días.", "Too much: choose fewer days.")
    })?;
    let mut points: Vec<Point> = Vec::new();
    for figura in figuras.into_iter().filter(|f| f.variable != "id_sensor") {
        if points.last().is_none_or(|p| p.timestamp != figura.inicio) {
            points.push(Point { id_sensor: id, timestamp: figura.inicio, medias: BTreeMap::new() });
        }
        if let Some(point) = points.last_mut() {
            point.medias.insert(figura.variable, figura.total.media());
        }
    }
    Ok(axum::Json(points))
}
