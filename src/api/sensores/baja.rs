//! A sensor that goes: retired at once; with `purgar` its history too, in steps.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::Deserialize;

use crate::api::State;
use crate::api::extract::{Path, Query, Sesion};
use crate::api::finish::to_its_end;
use crate::api::problem::Problem;
use crate::domain::Timestamp;
use crate::store;
use crate::store::auditoria::{Autor, Hecho};
use crate::store::sensores::{self, Alcance};

/// How to delete.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Delete {
    /// Remove its history too.
    #[serde(default)]
    purgar: bool,
}

/// Retire a sensor: its credential is revoked, its history kept, unless `purgar`.
#[utoipa::path(delete, path = "/sensores/{id_sensor}", tag = "sensores", params(("id_sensor" = i64, Path), Delete),
    responses((status = 204), (status = 400, description = "Bad query"),
        (status = 403, description = "Not an administrator"), (status = 404, description = "No such sensor")))]
pub(in crate::api) async fn delete(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
    Query(how): Query<Delete>,
) -> Result<StatusCode, Problem> {
    let id_empresa = sesion.admin()?;
    // All of it to its end, though only the first part holds up others' changes.
    let gone = tokio::spawn(async move {
        to_its_end(&state, remove(state.clone(), sesion.1, id_empresa, id, how.purgar)).await?;
        if how.purgar { purge(&state, id_empresa, id).await } else { Ok(()) }
    });
    gone.await.unwrap_or_else(|e| Err(Problem::internal(&e)))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Retires a sensor. That its history is going too is written down here: it goes in many transactions.
async fn remove(state: State, autor: Autor, id_empresa: i64, id: i64, purgar: bool) -> Result<(), Problem> {
    let parts = state.parts();
    let mut tx = parts.store.write().await?;
    let alcance = Alcance { id_empresa, id_trabajador: None };
    let sensor = sensores::get(&mut tx, alcance, id).await?.ok_or_else(Problem::not_found)?;
    sensores::retire(&mut tx, id_empresa, id).await?;
    let hecho = Hecho::borrado("sensor", id, &sensor);
    autor.anota(&mut tx, &if purgar { hecho.como("purgar") } else { hecho }).await?;
    tx.commit().await?;
    parts.directorio.baja(&sensor.quien);
    parts.ingest.olvidar_sensor(id).await;
    Ok(())
}

/// Removes what a retired sensor ever said, in steps: years of readings in one transaction would hold
/// up everybody's.
async fn purge(state: &State, id_empresa: i64, id: i64) -> Result<(), Problem> {
    const STEP: i64 = 5_000;
    let db = &state.parts().store;
    let mut tx = db.write().await?;
    let mut conocidas = db.marcas().lock().await;
    store::horas::forget(&mut tx, &mut conocidas, id).await?;
    tx.commit().await?;
    drop(conocidas);
    loop {
        let mut tx = db.write().await?;
        let gone = store::lecturas::delete_some(&mut tx, id, STEP).await?;
        tx.commit().await?;
        if gone == 0 {
            break;
        }
    }
    loop {
        let mut tx = db.write().await?;
        let gone = store::horas::delete_hours(&mut tx, id, Timestamp::MAX, STEP / 10).await?;
        tx.commit().await?;
        if gone == 0 {
            break;
        }
    }
    let mut tx = db.write().await?;
    sensores::purge(&mut tx, id_empresa, id).await?;
    Ok(tx.commit().await?)
}
