//! Sensors by where they stand.

use super::quien;
use crate::domain::SensorRef;
use crate::store::{Result, Tx, on, row};

row!(
    struct FilaQuien {
        id_sensor: i64,
        id_empresa: i64,
        device_id: String,
    }
);

/// Moves the sensors of a place, or those of `solo` among them, to another; answers how many.
///
/// # Errors
/// `Unavailable`, `Refused`.
pub async fn relocate(
    tx: &mut Tx,
    id_empresa: i64,
    desde: &str,
    hasta: &str,
    solo: Option<&[i64]>,
) -> Result<u64> {
    let Some(solo) = solo else {
        return Ok(on!(tx, |db| {
            sqlx::query(
                "UPDATE sensores SET ubicacion_sensor = $3 WHERE id_empresa = $1 AND ubicacion_sensor = $2",
            )
            .bind(id_empresa)
            .bind(desde)
            .bind(hasta)
            .execute(db)
            .await
            .map(|r| r.rows_affected())
        })?);
    };
    let mut movidos = 0;
    for id_sensor in solo {
        movidos += on!(&mut *tx, |db| {
            sqlx::query(
                "UPDATE sensores SET ubicacion_sensor = $4 \
                 WHERE id_sensor = $1 AND id_empresa = $2 AND ubicacion_sensor = $3",
            )
            .bind(id_sensor)
            .bind(id_empresa)
            .bind(desde)
            .bind(hasta)
            .execute(db)
            .await
            .map(|r| r.rows_affected())
        })?;
    }
    Ok(movidos)
}

/// Retires every sensor of a place that is in use, as [`retire`]; answers which.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn retire_at(tx: &mut Tx, id_empresa: i64, ubicacion: &str) -> Result<Vec<SensorRef>> {
    let filas: Vec<FilaQuien> = on!(tx, |db| {
        sqlx::query_as(
            "UPDATE sensores SET estado = 'inactivo', credencial = NULL \
             WHERE id_empresa = $1 AND ubicacion_sensor = $2 AND estado <> 'inactivo' \
             RETURNING id_sensor, id_empresa, device_id",
        )
        .bind(id_empresa)
        .bind(ubicacion)
        .fetch_all(db)
        .await
    })?;
    filas.into_iter().map(|f| quien(f.id_sensor, f.id_empresa, &f.device_id)).collect()
}

/// The sensors of an empresa, in use or not, that stand at a place.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn at(tx: &mut Tx, id_empresa: i64, ubicacion: &str) -> Result<Vec<SensorRef>> {
    let filas: Vec<FilaQuien> = on!(tx, |db| {
        sqlx::query_as(
            "SELECT id_sensor, id_empresa, device_id FROM sensores \
             WHERE id_empresa = $1 AND ubicacion_sensor = $2",
        )
        .bind(id_empresa)
        .bind(ubicacion)
        .fetch_all(db)
        .await
    })?;
    filas.into_iter().map(|f| quien(f.id_sensor, f.id_empresa, &f.device_id)).collect()
}
