//! What is whose, and how old it is: the account that [`super::put`] and [`super::purge`] keep, so that nothing is counted.

use super::{Result, Timestamp, Tx, on, row};

row!(
    /// What the history of an empresa takes: its summed readings and its hours.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Tamano {
        /// Whose.
        pub id_empresa: i64,
        /// Bytes, about.
        pub bytes: i64,
    }
);

/// What each empresa's history takes, the largest first. One row a sensor is read.
///
/// # Errors
/// `Unavailable`.
pub async fn sizes(tx: &mut Tx) -> Result<Vec<Tamano>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(
            "SELECT s.id_empresa, CAST(SUM(h.bytes) AS BIGINT) AS bytes \
             FROM historia h JOIN sensores s ON s.id_sensor = h.id_sensor \
             GROUP BY s.id_empresa ORDER BY 2 DESC, 1",
        )
        .fetch_all(db)
        .await
    })?)
}

/// Whether there is history that has not been summed yet, and so is in nobody's account.
///
/// # Errors
/// `Unavailable`.
pub async fn unsummed(tx: &mut Tx) -> Result<bool> {
    row!(
        struct Cuantos {
            n: i64,
        }
    );
    let cuantos: Cuantos = on!(tx, |db| {
        sqlx::query_as("SELECT COUNT(*) AS n FROM historia WHERE relleno_hasta IS NOT NULL")
            .fetch_one(db)
            .await
    })?;
    Ok(cuantos.n > 0)
}

/// How far back the history of a sensor goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viejo {
    /// Which.
    pub id_sensor: i64,
    /// Whose.
    pub id_empresa: i64,
    /// Its oldest reading.
    pub lectura: Option<Timestamp>,
    /// Its oldest hour.
    pub hora: Option<Timestamp>,
}

row!(
    struct Fila {
        id_sensor: i64,
        id_empresa: i64,
        lectura: Option<i64>,
        hora: Option<i64>,
    }
);

impl From<Fila> for Viejo {
    fn from(f: Fila) -> Self {
        let (lectura, hora) = (f.lectura.map(Timestamp::clamped), f.hora.map(Timestamp::clamped));
        Self { id_sensor: f.id_sensor, id_empresa: f.id_empresa, lectura, hora }
    }
}

pub(in crate::store) const VIEJOS: &str = "SELECT s.id_sensor, s.id_empresa, \
     (SELECT MIN(l.ts) FROM lecturas l WHERE l.id_sensor = s.id_sensor) AS lectura, \
     (SELECT MIN(h.hora) FROM horas h WHERE h.id_sensor = s.id_sensor) AS hora FROM sensores s";
pub(in crate::store) const VIEJOS_DE: &str = "SELECT s.id_sensor, s.id_empresa, \
     (SELECT MIN(l.ts) FROM lecturas l WHERE l.id_sensor = s.id_sensor) AS lectura, \
     (SELECT MIN(h.hora) FROM horas h WHERE h.id_sensor = s.id_sensor) AS hora FROM sensores s \
     WHERE s.id_empresa = $1";

/// How far back each sensor's history goes: two look-ups a sensor.
///
/// # Errors
/// `Unavailable`.
pub async fn oldest(tx: &mut Tx) -> Result<Vec<Viejo>> {
    let filas: Vec<Fila> = on!(tx, |db| sqlx::query_as(VIEJOS).fetch_all(db).await)?;
    Ok(filas.into_iter().map(Viejo::from).collect())
}

/// As [`oldest`], of one empresa.
///
/// # Errors
/// `Unavailable`.
pub async fn oldest_of(tx: &mut Tx, id_empresa: i64) -> Result<Vec<Viejo>> {
    let filas: Vec<Fila> = on!(tx, |db| sqlx::query_as(VIEJOS_DE).bind(id_empresa).fetch_all(db).await)?;
    Ok(filas.into_iter().map(Viejo::from).collect())
}
