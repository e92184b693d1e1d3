//! Hours: which are to be summed, what they came to, how far the history of a sensor has come.
//!
//! An hour is named by its first moment, in UTC. What each table means stands in the migration; why it is
//! done so in `docs/decisions/0008-hours-are-recomputed.md`.

pub(super) mod marcas;
mod purga;
mod resumen;
pub(super) mod tamano;

use super::lecturas::{self, Cubeta, Orden};
use super::{Result, Tx, on, row};
use crate::domain::{Agregado, Resumen, Timestamp};

pub use marcas::{Marcas, Pendiente, Turno, any, due, mark, take};
pub use purga::{Purgado, delete_hours, forget, purge};
pub use resumen::{Resumida, backfill, put, sum, sum_next};
pub use tamano::{SinSumar, Tamano, Viejo, oldest_of, past, sizes, unsummed};

/// How far the history of a sensor has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Historia {
    /// Readings before this moment have been added to their hours and removed: what `lecturas` still has
    /// of an hour that begins before it comes on top of what the hour has.
    pub purgada: Timestamp,
    /// Hours, from the first to before the second, that have never been summed.
    pub relleno: Option<(Timestamp, Timestamp)>,
}

impl Historia {
    /// Hours before this one stand for readings that are gone.
    #[must_use]
    pub fn zona(&self) -> Timestamp {
        self.purgada.techo_hora()
    }
}

/// How far the history of a sensor has come.
///
/// # Errors
/// `Unavailable`.
pub async fn history(tx: &mut Tx, id_sensor: i64) -> Result<Historia> {
    row!(
        struct Fila {
            purgada: i64,
            relleno_desde: i64,
            relleno_hasta: Option<i64>,
        }
    );
    let fila: Option<Fila> = on!(tx, |db| {
        sqlx::query_as("SELECT purgada, relleno_desde, relleno_hasta FROM historia WHERE id_sensor = $1")
            .bind(id_sensor)
            .fetch_optional(db)
            .await
    })?;
    let Some(fila) = fila else { return Ok(Historia::default()) };
    let desde = Timestamp::clamped(fila.relleno_desde).hora();
    let relleno = fila.relleno_hasta.map(|hasta| (desde, Timestamp::clamped(hasta).techo_hora()));
    Ok(Historia { purgada: Timestamp::clamped(fila.purgada), relleno: relleno.filter(|(d, h)| d < h) })
}

pub(super) const PENDIENTES: &str =
    "SELECT hora FROM horas_pendientes WHERE id_sensor = $1 AND hora >= $2 AND hora < $3 ORDER BY hora";

/// The hours of a sensor, with `desde <= hora < antes_de`, that are to be summed.
///
/// # Errors
/// `Unavailable`.
pub async fn pending(
    tx: &mut Tx,
    id_sensor: i64,
    desde: Timestamp,
    antes_de: Timestamp,
) -> Result<Vec<Timestamp>> {
    row!(
        struct Fila {
            hora: i64,
        }
    );
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as(PENDIENTES)
            .bind(id_sensor)
            .bind(desde.micros())
            .bind(antes_de.micros())
            .fetch_all(db)
            .await
    })?;
    Ok(filas.into_iter().map(|f| Timestamp::clamped(f.hora)).collect())
}

/// What a variable came to in a bucket of hours.
#[derive(Debug, Clone, PartialEq)]
pub struct EnCubeta {
    /// The bucket's number: (hour − origin) / width.
    pub cubeta: i64,
    /// Which variable.
    pub variable: String,
    /// The figures.
    pub total: Agregado,
}

pub(super) const CUBETAS: &str = "SELECT (hora - $4) / $5 AS cubeta, variable, CAST(SUM(n) AS BIGINT) AS n, \
     MIN(min) AS min, MAX(max) AS max, SUM(suma) AS suma FROM lecturas_hora \
     WHERE id_sensor = $1 AND hora >= $2 AND hora < $3 GROUP BY 1, 2 LIMIT $6";
pub(super) const CUBETAS_DE: &str = "SELECT (hora - $4) / $5 AS cubeta, variable, CAST(SUM(n) AS BIGINT) AS n, \
     MIN(min) AS min, MAX(max) AS max, SUM(suma) AS suma FROM lecturas_hora \
     WHERE id_sensor = $1 AND hora >= $2 AND hora < $3 AND variable = $7 GROUP BY 1, 2 LIMIT $6";

/// The hours with `desde <= hora < antes_de`, in buckets of `ancho` microseconds counted from `origen`: at
/// most `limite` (bucket, variable) pairs, in no order.
///
/// # Errors
/// `Unavailable`.
pub async fn buckets(
    tx: &mut Tx,
    id_sensor: i64,
    (desde, antes_de): (Timestamp, Timestamp),
    (origen, ancho): (i64, i64),
    variable: Option<&str>,
    limite: i64,
) -> Result<Vec<EnCubeta>> {
    row!(
        struct Fila {
            cubeta: i64,
            variable: String,
            n: i64,
            min: f64,
            max: f64,
            suma: f64,
        }
    );
    let sql = if variable.is_some() { CUBETAS_DE } else { CUBETAS };
    let filas: Vec<Fila> = on!(tx, |db| {
        let mut consulta = sqlx::query_as(sql)
            .bind(id_sensor)
            .bind(desde.micros())
            .bind(antes_de.micros())
            .bind(origen)
            .bind(ancho)
            .bind(limite);
        if let Some(variable) = variable {
            consulta = consulta.bind(variable);
        }
        consulta.fetch_all(db).await
    })?;
    let en_cubeta = |f: Fila| EnCubeta {
        cubeta: f.cubeta,
        variable: f.variable,
        total: Agregado { n: f.n, min: f.min, max: f.max, suma: f.suma },
    };
    Ok(filas.into_iter().map(en_cubeta).collect())
}

pub(super) const EXTREMOS: &str = "SELECT hora, variable, n, min, min_ts, max, max_ts, suma FROM lecturas_hora \
     WHERE id_sensor = $1 AND hora >= $2 AND hora < $3 ORDER BY hora LIMIT $4";
pub(super) const EXTREMOS_DE: &str = "SELECT hora, variable, n, min, min_ts, max, max_ts, suma FROM lecturas_hora \
     WHERE id_sensor = $1 AND hora >= $2 AND hora < $3 AND variable = $5 ORDER BY hora LIMIT $4";

/// Some hours, each by itself, oldest first.
#[derive(Debug, Default)]
pub struct Pagina {
    /// Whole ones. `n` and `bytes` of each are 0: [`readings`] has them.
    pub cubetas: Vec<Cubeta>,
    /// Where the next page begins; `None` = this is the last.
    pub sigue: Option<Timestamp>,
}

/// The hours with `desde <= hora < antes_de`, as many as come to less than `limite` (hour, variable) pairs.
///
/// # Errors
/// `Unavailable`.
pub async fn hours(
    tx: &mut Tx,
    id_sensor: i64,
    desde: Timestamp,
    antes_de: Timestamp,
    variable: Option<&str>,
    limite: i64,
) -> Result<Pagina> {
    row!(
        struct Fila {
            hora: i64,
            variable: String,
            n: i64,
            min: f64,
            min_ts: i64,
            max: f64,
            max_ts: i64,
            suma: f64,
        }
    );
    let sql = if variable.is_some() { EXTREMOS_DE } else { EXTREMOS };
    let filas: Vec<Fila> = on!(tx, |db| {
        let mut consulta =
            sqlx::query_as(sql).bind(id_sensor).bind(desde.micros()).bind(antes_de.micros()).bind(limite);
        if let Some(variable) = variable {
            consulta = consulta.bind(variable);
        }
        consulta.fetch_all(db).await
    })?;
    let llena = i64::try_from(filas.len()).is_ok_and(|n| n >= limite);
    let mut cubetas: Vec<Cubeta> = Vec::new();
    for f in filas {
        let inicio = Timestamp::clamped(f.hora);
        if cubetas.last().is_none_or(|c| c.inicio != inicio) {
            cubetas.push(Cubeta { inicio, n: 0, bytes: 0, variables: Vec::new() });
        }
        let total = Agregado { n: f.n, min: f.min, max: f.max, suma: f.suma };
        let (min_ts, max_ts) = (Timestamp::clamped(f.min_ts), Timestamp::clamped(f.max_ts));
        if let Some(ultima) = cubetas.last_mut() {
            ultima.variables.push((f.variable, Resumen { total, min_ts, max_ts }));
        }
    }
    // Of the last one there may be more.
    let sigue = if llena { cubetas.pop().map(|c| c.inicio) } else { None };
    Ok(Pagina { cubetas, sigue })
}

/// How many readings an hour came to, and what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hora {
    /// Its first moment.
    pub hora: Timestamp,
    /// Readings.
    pub n: i64,
    /// Bytes, by the estimate of [`put`].
    pub bytes: i64,
}

pub(super) const LECTURAS: &str = "SELECT hora, n, bytes FROM horas WHERE id_sensor = $1 AND hora >= $2 AND hora < $3 ORDER BY hora LIMIT $4";

/// How many readings each hour with `desde <= hora < antes_de` came to, oldest first, at most `limite` hours.
///
/// # Errors
/// `Unavailable`.
pub async fn readings(
    tx: &mut Tx,
    id_sensor: i64,
    desde: Timestamp,
    antes_de: Timestamp,
    limite: i64,
) -> Result<Vec<Hora>> {
    row!(
        struct Fila {
            hora: i64,
            n: i64,
            bytes: i64,
        }
    );
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as(LECTURAS)
            .bind(id_sensor)
            .bind(desde.micros())
            .bind(antes_de.micros())
            .bind(limite)
            .fetch_all(db)
            .await
    })?;
    let hora = |f: Fila| Hora { hora: Timestamp::clamped(f.hora), n: f.n, bytes: f.bytes };
    Ok(filas.into_iter().map(hora).collect())
}

pub(super) const CUANTAS: &str = "SELECT COALESCE(CAST(SUM(n) AS BIGINT), 0) AS n FROM horas \
     WHERE id_sensor = $1 AND hora >= $2 AND hora < $3";

/// How many readings the hours with `desde <= hora < antes_de` came to.
///
/// # Errors
/// `Unavailable`.
pub async fn count(tx: &mut Tx, id_sensor: i64, desde: Timestamp, antes_de: Timestamp) -> Result<i64> {
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar(CUANTAS)
            .bind(id_sensor)
            .bind(desde.micros())
            .bind(antes_de.micros())
            .fetch_one(db)
            .await
    })?;
    Ok(total)
}

/// The first moment that anything is known of, and the last.
///
/// # Errors
/// `Unavailable`.
pub async fn extent(tx: &mut Tx, id_sensor: i64) -> Result<Option<(Timestamp, Timestamp)>> {
    row!(
        struct Fila {
            cruda: Option<i64>,
            hora: Option<i64>,
            ultima: Option<i64>,
        }
    );
    let fila: Fila = on!(&mut *tx, |db| {
        sqlx::query_as(
            "SELECT (SELECT MIN(ts) FROM lecturas WHERE id_sensor = $1) AS cruda, \
             (SELECT MIN(hora) FROM horas WHERE id_sensor = $1) AS hora, \
             (SELECT MAX(ts) FROM lecturas WHERE id_sensor = $1) AS ultima",
        )
        .bind(id_sensor)
        .fetch_one(db)
        .await
    })?;
    let primera = match (fila.cruda, fila.hora) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let ultima = match fila.ultima {
        Some(ultima) => Some(ultima),
        // Its readings are gone; its newest values are not.
        None => lecturas::latest_of(tx, id_sensor).await?.map(|f| f.ts.micros()),
    };
    Ok(primera.zip(ultima).map(|(a, b)| (Timestamp::clamped(a), Timestamp::clamped(b.max(a)))))
}
