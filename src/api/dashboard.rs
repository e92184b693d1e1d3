//! Figures for the front page, counted from data; what the data does not give is null.

use axum::extract::State as Shared;
use axum::response::IntoResponse;
use serde::Serialize;

use super::State;
use super::extract::Sesion;
use super::problem::Problem;
use crate::domain::{Timestamp, Variable};
use crate::store;

/// The figures of contract section 2.1.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Kpis {
    sensores_activos: i64,
    /// Null until crops are kept.
    cultivos_monitoreados: Option<i64>,
    alertas_pendientes: i64,
    /// Mean of the newest values, °C.
    temperaturas_promedio: Option<f64>,
    /// Mean of the newest values, %.
    humedad_promedio: Option<f64>,
    /// Hectares; null until crops are kept.
    areas_bajo_monitoreo: Option<f64>,
    /// The newest reading.
    ultima_actualizacion: Option<Timestamp>,
}

/// The figures of the sensors that you may see.
#[utoipa::path(get, path = "/dashboard/kpis", tag = "dashboard",
    responses((status = 200, body = Kpis), (status = 401, description = "Not signed in"),
        (status = 403, description = "No empresa")))]
pub(super) async fn kpis(Shared(state): Shared<State>, sesion: Sesion) -> Result<impl IntoResponse, Problem> {
    let alcance = sesion.alcance()?;
    let mut tx = state.parts().store.read().await?;
    let activos = store::sensores::latest_active(&mut tx, alcance).await?;
    let alertas_pendientes =
        store::alertas::count(&mut tx, alcance, &store::alertas::Filtro::default()).await?;
    tx.commit().await?;
    let media = |variable: &Variable| {
        let valores: Vec<f64> = activos.iter().flatten().filter_map(|(_, v)| v.get(variable)).collect();
        #[expect(clippy::cast_precision_loss, reason = "a count of sensors")]
        (!valores.is_empty()).then(|| valores.iter().sum::<f64>() / valores.len() as f64)
    };
    Ok(axum::Json(Kpis {
        sensores_activos: i64::try_from(activos.len()).unwrap_or(i64::MAX),
        cultivos_monitoreados: None,
        alertas_pendientes,
        temperaturas_promedio: media(&Variable::TEMPERATURA),
        humedad_promedio: media(&Variable::HUMEDAD_AIRE),
        areas_bajo_monitoreo: None,
        ultima_actualizacion: activos.iter().flatten().map(|(ts, _)| *ts).max(),
    }))
}
