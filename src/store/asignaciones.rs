//! Which worker sees which sensor.

use super::{Result, Tx, on, row};

/// Every assignment in force: (trabajador, sensor).
///
/// # Errors
/// `Unavailable`.
pub async fn all_active(tx: &mut Tx) -> Result<Vec<(i64, i64)>> {
    row!(
        struct Fila {
            id_trabajador: i64,
            id_sensor: i64,
        }
    );
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as("SELECT id_trabajador, id_sensor FROM asignaciones WHERE hasta IS NULL")
            .fetch_all(db)
            .await
    })?;
    Ok(filas.into_iter().map(|f| (f.id_trabajador, f.id_sensor)).collect())
}
