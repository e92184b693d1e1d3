//! The record of what was refused.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;
use sqlx::{AssertSqlSafe, QueryBuilder};

use super::{Hoja, Result, Tx, on, row};
use crate::domain::{Rechazo, Timestamp};

/// A stored refusal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Registrado {
    /// Key.
    pub id_rechazo: i64,
    /// When the message arrived.
    pub recibida: Timestamp,
    /// The moment that the message gave.
    pub ts: Option<Timestamp>,
    /// Stable text of `domain::Motivo`.
    pub motivo: String,
    /// The variable, when one value was refused.
    pub variable: Option<String>,
    /// What was refused, shortened.
    pub contenido: String,
}

/// Rows in one statement; SQLite takes 32,766 bound values.
const FILAS: usize = 1_000;

/// Records refusals: (`id_sensor`, when the message arrived, what was refused).
///
/// # Errors
/// `Refused` when a sensor is gone, `Unavailable`.
pub async fn record(tx: &mut Tx, rechazos: &[(i64, Timestamp, Rechazo)]) -> Result<()> {
    for rechazos in rechazos.chunks(FILAS) {
        on!(&mut *tx, |db| {
            let mut q = QueryBuilder::new(
                "INSERT INTO lecturas_rechazadas (id_sensor, recibida, ts, motivo, variable, contenido) ",
            );
            q.push_values(rechazos, |mut fila, (id_sensor, recibida, rechazo)| {
                fila.push_bind(*id_sensor).push_bind(recibida.micros());
                fila.push_bind(rechazo.ts.map(Timestamp::micros)).push_bind(rechazo.motivo.as_str());
                fila.push_bind(rechazo.variable.as_deref()).push_bind(rechazo.contenido.as_str());
            });
            q.build().persistent(false).execute(db).await.map(drop)
        })?;
    }
    Ok(())
}

/// Of so many sensors, what is older than the newest `$1` of each, `$2` rows at most. Where that begins is found first,
/// in the index and for one sensor after another, however the database would rather join.
pub(super) fn recorte(sensores: usize) -> String {
    let mut valores = String::new();
    for n in 0..sensores {
        let coma = if n == 0 { "" } else { ", " };
        let _ = write!(valores, "{coma}(CAST(${} AS BIGINT))", n + 3);
    }
    format!(
        "WITH corte AS MATERIALIZED (SELECT v.column1 AS id_sensor, (SELECT y.id_rechazo \
         FROM lecturas_rechazadas y WHERE y.id_sensor = v.column1 ORDER BY y.id_rechazo DESC LIMIT 1 OFFSET $1) AS hasta \
         FROM (VALUES {valores}) v) \
         DELETE FROM lecturas_rechazadas WHERE id_rechazo IN (SELECT x.id_rechazo FROM corte c \
         CROSS JOIN lecturas_rechazadas x WHERE x.id_sensor = c.id_sensor AND x.id_rechazo <= c.hasta LIMIT $2)"
    )
}

/// Keeps the newest `cuantos` of each of these sensors: of a thousand sensors, `como_mucho` older ones go.
///
/// # Errors
/// `Unavailable`.
pub async fn trim(tx: &mut Tx, sensores: &BTreeSet<i64>, cuantos: i64, como_mucho: i64) -> Result<()> {
    let sensores: Vec<i64> = sensores.iter().copied().collect();
    for sensores in sensores.chunks(FILAS) {
        let sql = recorte(sensores.len());
        on!(&mut *tx, |db| {
            let mut q = sqlx::query(AssertSqlSafe(sql)).bind(cuantos).bind(como_mucho);
            for id_sensor in sensores {
                q = q.bind(*id_sensor);
            }
            q.persistent(false).execute(db).await.map(drop)
        })?;
    }
    Ok(())
}

/// Whether anything arrived before `antes`.
///
/// # Errors
/// `Unavailable`.
pub async fn any_before(tx: &mut Tx, antes: Timestamp) -> Result<bool> {
    row!(
        struct Primera {
            recibida: Option<i64>,
        }
    );
    let primera: Primera = on!(tx, |db| {
        sqlx::query_as("SELECT MIN(recibida) AS recibida FROM lecturas_rechazadas").fetch_one(db).await
    })?;
    Ok(primera.recibida.is_some_and(|r| r < antes.micros()))
}

/// Forgets what arrived before `antes`, at most `cuantos` rows; answers how many went.
///
/// # Errors
/// `Unavailable`.
pub async fn expire(tx: &mut Tx, antes: Timestamp, cuantos: i64) -> Result<u64> {
    Ok(on!(tx, |db| {
        sqlx::query(
            "DELETE FROM lecturas_rechazadas WHERE id_rechazo IN (SELECT id_rechazo \
             FROM lecturas_rechazadas WHERE recibida < $1 ORDER BY recibida LIMIT $2)",
        )
        .bind(antes.micros())
        .bind(cuantos)
        .execute(db)
        .await
        .map(|r| r.rows_affected())
    })?)
}

/// The refusals of a sensor, the newest first.
///
/// # Errors
/// `Unavailable`.
pub async fn list(tx: &mut Tx, id_sensor: i64, hoja: &Hoja) -> Result<Vec<Registrado>> {
    row!(
        struct Fila {
            id_rechazo: i64,
            recibida: i64,
            ts: Option<i64>,
            motivo: String,
            variable: Option<String>,
            contenido: String,
        }
    );
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as(
            "SELECT id_rechazo, recibida, ts, motivo, variable, contenido FROM lecturas_rechazadas \
             WHERE id_sensor = $1 AND id_rechazo < $2 ORDER BY id_rechazo DESC LIMIT $3 OFFSET $4",
        )
        .bind(id_sensor)
        .bind(hoja.bajo())
        .bind(hoja.pide())
        .bind(hoja.skip)
        .fetch_all(db)
        .await
    })?;
    let registrado = |f: Fila| Registrado {
        id_rechazo: f.id_rechazo,
        recibida: Timestamp::clamped(f.recibida),
        ts: f.ts.map(Timestamp::clamped),
        motivo: f.motivo,
        variable: f.variable,
        contenido: f.contenido,
    };
    Ok(filas.into_iter().map(registrado).collect())
}

/// How many refusals of a sensor are kept.
///
/// # Errors
/// `Unavailable`.
pub async fn count(tx: &mut Tx, id_sensor: i64) -> Result<i64> {
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar("SELECT COUNT(*) AS total FROM lecturas_rechazadas WHERE id_sensor = $1")
            .bind(id_sensor)
            .fetch_one(db)
            .await
    })?;
    Ok(total)
}
