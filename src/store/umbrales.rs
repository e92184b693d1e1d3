//! The bounds that people set: for an empresa, in a crop of it, for one sensor. The closer one holds.

use std::collections::HashMap;

use super::{Error, Result, Tx, on, row};
use crate::domain::{Rango, Variable};

/// Whose bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum De {
    /// All sensors of an empresa.
    Empresa(i64),
    /// The sensors in a crop.
    Cultivo(i64),
    /// One sensor.
    Sensor(i64),
}

row!(
    struct Fila {
        id_empresa: i64,
        id: i64,
        variable: String,
        minimo: f64,
        maximo: f64,
    }
);

/// (empresa, whose, variable, bounds).
type Umbral = (i64, i64, Variable, Rango);

impl Fila {
    fn umbral(self) -> Result<Umbral> {
        let variable =
            Variable::new(&self.variable).ok_or_else(|| Error::inconsistent("umbrales.variable"))?;
        Ok((self.id_empresa, self.id, variable, Rango { min: self.minimo, max: self.maximo }))
    }
}

/// Everything that was set, in some empresas.
#[derive(Debug, Default)]
pub struct Puestos {
    /// For empresas; the two keys are the same.
    pub empresas: Vec<Umbral>,
    /// In crops.
    pub cultivos: Vec<Umbral>,
    /// For sensors.
    pub sensores: Vec<Umbral>,
    /// (empresa, sensor) → the crop that it stands in, where bounds are set for that crop.
    pub en_cultivo: HashMap<(i64, i64), i64>,
}

/// Everything that one empresa set, or (`None`) every one.
///
/// # Errors
/// `Unavailable`.
pub async fn all(tx: &mut Tx, id_empresa: Option<i64>) -> Result<Puestos> {
    let (desde, hasta) = id_empresa.map_or((i64::MIN, i64::MAX), |id| (id, id));
    let mut puestos = Puestos::default();
    for (sql, en) in [
        (
            "SELECT id_empresa, id_empresa AS id, variable, minimo, maximo FROM umbrales \
             WHERE id_empresa BETWEEN $1 AND $2",
            &mut puestos.empresas,
        ),
        (
            "SELECT c.id_empresa, u.id_cultivo AS id, u.variable, u.minimo, u.maximo FROM cultivos c \
             JOIN umbrales_cultivo u ON u.id_cultivo = c.id_cultivo WHERE c.id_empresa BETWEEN $1 AND $2",
            &mut puestos.cultivos,
        ),
        (
            "SELECT s.id_empresa, u.id_sensor AS id, u.variable, u.minimo, u.maximo FROM umbrales_sensor u \
             JOIN sensores s ON s.id_sensor = u.id_sensor WHERE s.id_empresa BETWEEN $1 AND $2",
            &mut puestos.sensores,
        ),
    ] {
        let filas: Vec<Fila> =
            on!(&mut *tx, |db| sqlx::query_as(sql).bind(desde).bind(hasta).fetch_all(db).await)?;
        // A row that makes no sense is not to hold up the readings of all.
        let legible = |f: Fila| {
            let id_empresa = f.id_empresa;
            f.umbral().inspect_err(|e| tracing::error!(id_empresa, error = %e, "a bound cannot be read")).ok()
        };
        *en = filas.into_iter().filter_map(legible).collect();
    }
    row!(
        struct Planta {
            id_empresa: i64,
            id_sensor: i64,
            id_cultivo: i64,
        }
    );
    let plantas: Vec<Planta> = on!(tx, |db| {
        sqlx::query_as(
            "SELECT s.id_empresa, s.id_sensor, c.id_cultivo FROM cultivos c \
             JOIN sensores s ON s.id_cultivo = c.id_cultivo WHERE c.id_empresa BETWEEN $1 AND $2 \
             AND EXISTS (SELECT 1 FROM umbrales_cultivo u WHERE u.id_cultivo = c.id_cultivo)",
        )
        .bind(desde)
        .bind(hasta)
        .fetch_all(db)
        .await
    })?;
    puestos.en_cultivo = plantas.into_iter().map(|p| ((p.id_empresa, p.id_sensor), p.id_cultivo)).collect();
    Ok(puestos)
}

/// What was set there.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn of(tx: &mut Tx, de: De) -> Result<Vec<(Variable, Rango)>> {
    let (sql, id) = match de {
        De::Empresa(id) => (
            "SELECT id_empresa, id_empresa AS id, variable, minimo, maximo FROM umbrales WHERE id_empresa = $1",
            id,
        ),
        De::Cultivo(id) => (
            "SELECT id_cultivo AS id_empresa, id_cultivo AS id, variable, minimo, maximo \
             FROM umbrales_cultivo WHERE id_cultivo = $1",
            id,
        ),
        De::Sensor(id) => (
            "SELECT id_sensor AS id_empresa, id_sensor AS id, variable, minimo, maximo \
             FROM umbrales_sensor WHERE id_sensor = $1",
            id,
        ),
    };
    let filas: Vec<Fila> = on!(tx, |db| sqlx::query_as(sql).bind(id).fetch_all(db).await)?;
    filas.into_iter().map(|f| f.umbral().map(|(_, _, v, r)| (v, r))).collect()
}

/// Sets one bound.
///
/// # Errors
/// `Refused` when `min` is not below `max`, `Unavailable`.
pub async fn set(tx: &mut Tx, de: De, variable: &Variable, rango: Rango) -> Result<()> {
    let (sql, id) = match de {
        De::Empresa(id) => (
            "INSERT INTO umbrales (id_empresa, variable, minimo, maximo) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id_empresa, variable) DO UPDATE SET minimo = excluded.minimo, maximo = excluded.maximo",
            id,
        ),
        De::Cultivo(id) => (
            "INSERT INTO umbrales_cultivo (id_cultivo, variable, minimo, maximo) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id_cultivo, variable) DO UPDATE SET minimo = excluded.minimo, maximo = excluded.maximo",
            id,
        ),
        De::Sensor(id) => (
            "INSERT INTO umbrales_sensor (id_sensor, variable, minimo, maximo) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id_sensor, variable) DO UPDATE SET minimo = excluded.minimo, maximo = excluded.maximo",
            id,
        ),
    };
    on!(tx, |db| {
        sqlx::query(sql)
            .bind(id)
            .bind(variable.as_str())
            .bind(rango.min)
            .bind(rango.max)
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// Takes one bound away: what is further off holds again. `false` when it was not set.
///
/// # Errors
/// `Unavailable`.
pub async fn unset(tx: &mut Tx, de: De, variable: &Variable) -> Result<bool> {
    let (sql, id) = match de {
        De::Empresa(id) => ("DELETE FROM umbrales WHERE id_empresa = $1 AND variable = $2", id),
        De::Cultivo(id) => ("DELETE FROM umbrales_cultivo WHERE id_cultivo = $1 AND variable = $2", id),
        De::Sensor(id) => ("DELETE FROM umbrales_sensor WHERE id_sensor = $1 AND variable = $2", id),
    };
    let n = on!(tx, |db| {
        sqlx::query(sql).bind(id).bind(variable.as_str()).execute(db).await.map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}

/// The crop that a sensor stands in; `None` = in none, or there is no such sensor.
///
/// # Errors
/// `Unavailable`.
pub async fn cultivo_of(tx: &mut Tx, id_sensor: i64) -> Result<Option<i64>> {
    row!(
        struct Planta {
            id_cultivo: Option<i64>,
        }
    );
    let fila: Option<Planta> = on!(tx, |db| {
        sqlx::query_as("SELECT id_cultivo FROM sensores WHERE id_sensor = $1")
            .bind(id_sensor)
            .fetch_optional(db)
            .await
    })?;
    Ok(fila.and_then(|f| f.id_cultivo))
}
