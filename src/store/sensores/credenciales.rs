//! What a device signs in with.

use super::quien;
use crate::domain::{EstadoSensor, SensorRef, Timestamp};
use crate::store::{Error, Result, Tx, on, row};

/// Replaces the credential of a sensor that is in use.
///
/// # Errors
/// `Unavailable`.
pub async fn set_credential(
    tx: &mut Tx,
    id_empresa: i64,
    id_sensor: i64,
    credencial: &[u8; 32],
    ahora: Timestamp,
) -> Result<bool> {
    let n = on!(tx, |db| {
        sqlx::query(
            "UPDATE sensores SET credencial = $3, credencial_emitida = $4 \
             WHERE id_sensor = $1 AND id_empresa = $2 AND estado <> 'inactivo'",
        )
        .bind(id_sensor)
        .bind(id_empresa)
        .bind(credencial.as_slice())
        .bind(ahora.micros())
        .execute(db)
        .await
        .map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}

/// What sign-in needs of a device.
#[derive(Debug, Clone)]
pub struct Credencial {
    /// Which sensor.
    pub quien: SensorRef,
    /// SHA-256 of its token; `None` = revoked or never issued.
    pub hash: Option<[u8; 32]>,
    /// Whether a token was ever issued (`mqtt.legacy` lets in only devices that never had one).
    pub emitida: bool,
    /// Whether it is in use.
    pub activo: bool,
}

/// The credential of a device by its name on the wire.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn credential(tx: &mut Tx, device_id: &str) -> Result<Option<Credencial>> {
    row!(
        struct Fila {
            id_sensor: i64,
            id_empresa: i64,
            device_id: String,
            credencial: Option<Vec<u8>>,
            credencial_emitida: Option<i64>,
            estado: String,
        }
    );
    let fila: Option<Fila> = on!(tx, |db| {
        sqlx::query_as(
            "SELECT id_sensor, id_empresa, device_id, credencial, credencial_emitida, estado \
             FROM sensores WHERE device_id = $1",
        )
        .bind(device_id)
        .fetch_optional(db)
        .await
    })?;
    let Some(fila) = fila else { return Ok(None) };
    let hash = match fila.credencial {
        Some(bytes) => Some(bytes.try_into().map_err(|_| Error::inconsistent("sensores.credencial"))?),
        None => None,
    };
    Ok(Some(Credencial {
        quien: quien(fila.id_sensor, fila.id_empresa, &fila.device_id)?,
        hash,
        emitida: fila.credencial_emitida.is_some(),
        activo: fila.estado != EstadoSensor::Inactivo.as_str(),
    }))
}
