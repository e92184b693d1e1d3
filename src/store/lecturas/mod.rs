//! Readings: the bulk write that an acknowledgement waits for, and what is asked of them.

mod postgres;
mod sqlite;
pub(super) mod tira;

use super::row::Texto;
use super::{Db, Result, Tx, on, row};
use crate::domain::{Timestamp, Valores, Variable};

pub use tira::{Cubeta, Tira, pares, pares_texto, tira};

/// One row of `lecturas` or `ultimas_lecturas`.
#[derive(Debug, Clone, PartialEq)]
pub struct Fila {
    /// Whose.
    pub id_sensor: i64,
    /// When it was measured.
    pub ts: Timestamp,
    /// What.
    pub valores: Valores,
}

row!(
    struct Cruda {
        id_sensor: i64,
        ts: i64,
        valores: Texto,
    }
);

impl Cruda {
    fn fila(self) -> Fila {
        let (id_sensor, ts) = (self.id_sensor, Timestamp::clamped(self.ts));
        Fila { id_sensor, ts, valores: valores(id_sensor, ts, &self.valores) }
    }
}

/// Values as they are stored. Those that cannot be read (another program's, or changed by the disk) are none: a row of
/// one sensor holds up nobody, and what its device sends again takes its place.
pub(super) fn valores(id_sensor: i64, ts: Timestamp, texto: &Texto) -> Valores {
    Valores::from_json(&texto.0).unwrap_or_else(|| {
        tracing::warn!(id_sensor, %ts, "a stored reading cannot be read; it stands without values");
        Valores::new()
    })
}

fn filas(crudas: Vec<Cruda>) -> Vec<Fila> {
    crudas.into_iter().map(Cruda::fila).collect()
}

/// Which of `claves` are stored already.
///
/// # Errors
/// `Unavailable`.
pub async fn existing(tx: &mut Tx, claves: &[(i64, Timestamp)]) -> Result<Vec<Fila>> {
    if claves.is_empty() {
        return Ok(Vec::new());
    }
    let crudas = match &mut tx.db {
        Db::Sqlite(tx) => sqlite::existing(tx, claves).await?,
        Db::Postgres(tx) => postgres::existing(tx, claves).await?,
    };
    Ok(filas(crudas))
}

/// Writes readings, each key at most once in `nuevas`; a stored key gets the values given here.
/// One statement whatever their number.
///
/// # Errors
/// `Refused` when a sensor is gone, `Unavailable`.
pub async fn write(tx: &mut Tx, nuevas: &[Fila]) -> Result<()> {
    if nuevas.is_empty() {
        return Ok(());
    }
    match &mut tx.db {
        Db::Sqlite(tx) => sqlite::write(tx, nuevas).await,
        Db::Postgres(tx) => postgres::write(tx, nuevas).await,
    }
}

/// Writes the newest values of sensors, each sensor at most once. One statement.
///
/// # Errors
/// `Refused` when a sensor is gone, `Unavailable`.
pub async fn write_latest(tx: &mut Tx, ultimas: &[Fila]) -> Result<()> {
    if ultimas.is_empty() {
        return Ok(());
    }
    match &mut tx.db {
        Db::Sqlite(tx) => sqlite::write_latest(tx, ultimas).await,
        Db::Postgres(tx) => postgres::write_latest(tx, ultimas).await,
    }
}

/// Removes up to `cuantas` readings of a sensor, the oldest first; answers how many there were.
///
/// # Errors
/// `Unavailable`.
pub async fn delete_some(tx: &mut Tx, id_sensor: i64, cuantas: i64) -> Result<u64> {
    Ok(on!(tx, |db| {
        sqlx::query(
            "DELETE FROM lecturas WHERE id_sensor = $1 AND ts IN \
             (SELECT ts FROM lecturas WHERE id_sensor = $1 ORDER BY ts LIMIT $2)",
        )
        .bind(id_sensor)
        .bind(cuantas)
        .execute(db)
        .await
        .map(|r| r.rows_affected())
    })?)
}

/// The newest values of every sensor in use.
///
/// # Errors
/// `Unavailable`.
pub async fn latest(tx: &mut Tx) -> Result<Vec<Fila>> {
    let crudas: Vec<Cruda> = on!(tx, |db| {
        sqlx::query_as("SELECT id_sensor, ts, valores FROM ultimas_lecturas").fetch_all(db).await
    })?;
    Ok(filas(crudas))
}

/// The newest values of some sensors.
///
/// # Errors
/// `Unavailable`.
pub async fn latest_of(tx: &mut Tx, id_sensor: i64) -> Result<Option<Fila>> {
    let cruda: Option<Cruda> = on!(tx, |db| {
        sqlx::query_as("SELECT id_sensor, ts, valores FROM ultimas_lecturas WHERE id_sensor = $1")
            .bind(id_sensor)
            .fetch_optional(db)
            .await
    })?;
    Ok(cruda.map(Cruda::fila))
}

/// The moment of the newest reading of all.
///
/// # Errors
/// `Unavailable`.
pub async fn newest(tx: &mut Tx) -> Result<Option<Timestamp>> {
    row!(
        struct Maximo {
            ts: Option<i64>,
        }
    );
    let maximo: Maximo =
        on!(tx, |db| sqlx::query_as("SELECT MAX(ts) AS ts FROM ultimas_lecturas").fetch_one(db).await)?;
    Ok(maximo.ts.map(Timestamp::clamped))
}

pub(super) const CUANTAS: &str = "SELECT COUNT(*) AS n FROM (SELECT 1 AS una FROM lecturas \
     WHERE id_sensor = $1 AND ts >= $2 AND ts < $3 LIMIT $4) t";

/// How many readings a sensor has with `desde <= ts < antes_de`, counted up to `tope`.
///
/// # Errors
/// `Unavailable`.
pub async fn count(
    tx: &mut Tx,
    id_sensor: i64,
    desde: Timestamp,
    antes_de: Timestamp,
    tope: i64,
) -> Result<i64> {
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar(CUANTAS)
            .bind(id_sensor)
            .bind(desde.micros())
            .bind(antes_de.micros())
            .bind(tope)
            .fetch_one(db)
            .await
    })?;
    Ok(total)
}

/// In which order a page comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orden {
    /// Oldest first.
    Ascendente,
    /// Newest first.
    Descendente,
}

pub(super) const PAGINA: (&str, &str) = (
    "SELECT id_sensor, ts, valores FROM lecturas WHERE id_sensor = $1 AND ts BETWEEN $2 AND $3 \
     ORDER BY ts ASC LIMIT $4",
    "SELECT id_sensor, ts, valores FROM lecturas WHERE id_sensor = $1 AND ts BETWEEN $2 AND $3 \
     ORDER BY ts DESC LIMIT $4",
);

/// Readings of one sensor with `desde <= ts <= hasta`, at most `limit`.
///
/// # Errors
/// `Unavailable`.
pub async fn page(
    tx: &mut Tx,
    id_sensor: i64,
    desde: Timestamp,
    hasta: Timestamp,
    orden: Orden,
    limit: i64,
) -> Result<Vec<Fila>> {
    let sql = match orden {
        Orden::Ascendente => PAGINA.0,
        Orden::Descendente => PAGINA.1,
    };
    let crudas: Vec<Cruda> = on!(tx, |db| {
        sqlx::query_as(sql)
            .bind(id_sensor)
            .bind(desde.micros())
            .bind(hasta.micros())
            .bind(limit)
            .fetch_all(db)
            .await
    })?;
    Ok(filas(crudas))
}

// `valores` holds numbers alone, so `"name":` can only be a key: one text serves both databases.
pub(super) const PAGINA_CON: (&str, &str) = (
    "SELECT id_sensor, ts, valores FROM lecturas WHERE id_sensor = $1 AND ts BETWEEN $2 AND $3 \
     AND valores LIKE $5 ESCAPE '!' ORDER BY ts ASC LIMIT $4",
    "SELECT id_sensor, ts, valores FROM lecturas WHERE id_sensor = $1 AND ts BETWEEN $2 AND $3 \
     AND valores LIKE $5 ESCAPE '!' ORDER BY ts DESC LIMIT $4",
);

/// As [`page`], only the readings that have a value of `variable`.
///
/// # Errors
/// `Unavailable`.
pub async fn page_with(
    tx: &mut Tx,
    id_sensor: i64,
    desde: Timestamp,
    hasta: Timestamp,
    variable: &Variable,
    orden: Orden,
    limit: i64,
) -> Result<Vec<Fila>> {
    let sql = match orden {
        Orden::Ascendente => PAGINA_CON.0,
        Orden::Descendente => PAGINA_CON.1,
    };
    let clave = format!("%\"{}\":%", variable.as_str().replace('_', "!_"));
    let crudas: Vec<Cruda> = on!(tx, |db| {
        sqlx::query_as(sql)
            .bind(id_sensor)
            .bind(desde.micros())
            .bind(hasta.micros())
            .bind(limit)
            .bind(clave.as_str())
            .fetch_all(db)
            .await
    })?;
    Ok(filas(crudas))
}
