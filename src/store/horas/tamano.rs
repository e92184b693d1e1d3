//! What is whose, and how old it is: the account that [`super::put`] and [`super::purge`] keep, so that nothing is counted.

use super::resumen::FILA;
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

/// History that has not been summed yet, and so is in nobody's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinSumar {
    /// Which sensor's.
    pub id_sensor: i64,
    /// Whose.
    pub id_empresa: i64,
    /// The first moment of it.
    pub desde: Timestamp,
    /// The first moment after it.
    pub antes_de: Timestamp,
    /// Bytes of one reading, about: those of the newest.
    pub bytes: i64,
}

/// All of it, a row a sensor.
///
/// # Errors
/// `Unavailable`.
pub async fn unsummed(tx: &mut Tx) -> Result<Vec<SinSumar>> {
    row!(
        struct Fila {
            id_sensor: i64,
            id_empresa: i64,
            relleno_desde: i64,
            relleno_hasta: i64,
            purgada: i64,
            bytes: i64,
        }
    );
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as(
            "SELECT s.id_sensor, s.id_empresa, r.relleno_desde, r.relleno_hasta, r.purgada, \
             CAST(COALESCE(LENGTH(u.valores), 0) AS BIGINT) AS bytes \
             FROM historia r JOIN sensores s ON s.id_sensor = r.id_sensor \
             LEFT JOIN ultimas_lecturas u ON u.id_sensor = r.id_sensor WHERE r.relleno_hasta IS NOT NULL",
        )
        .fetch_all(db)
        .await
    })?;
    let de = |f: Fila| SinSumar {
        id_sensor: f.id_sensor,
        id_empresa: f.id_empresa,
        desde: Timestamp::clamped(f.relleno_desde.max(f.purgada)),
        antes_de: Timestamp::clamped(f.relleno_hasta),
        bytes: f.bytes + FILA,
    };
    Ok(filas.into_iter().map(de).collect())
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
    /// It is in use.
    pub activo: bool,
}

row!(
    struct Fila {
        id_sensor: i64,
        id_empresa: i64,
        lectura: Option<i64>,
        hora: Option<i64>,
        activo: bool,
    }
);

impl From<Fila> for Viejo {
    fn from(f: Fila) -> Self {
        let (lectura, hora) = (f.lectura.map(Timestamp::clamped), f.hora.map(Timestamp::clamped));
        Self { id_sensor: f.id_sensor, id_empresa: f.id_empresa, lectura, hora, activo: f.activo }
    }
}

pub(in crate::store) const VIEJOS: &str = "SELECT s.id_sensor, s.id_empresa, s.estado <> 'inactivo' AS activo, \
     (SELECT MIN(l.ts) FROM lecturas l WHERE l.id_sensor = s.id_sensor AND l.ts < $3) AS lectura, \
     (SELECT MIN(h.hora) FROM horas h WHERE h.id_sensor = s.id_sensor AND h.hora < $4) AS hora FROM sensores s \
     WHERE s.id_empresa = $1 AND s.id_sensor > $2 ORDER BY s.id_sensor LIMIT $5";
pub(in crate::store) const VIEJOS_DE: &str = "SELECT s.id_sensor, s.id_empresa, s.estado <> 'inactivo' AS activo, \
     (SELECT MIN(l.ts) FROM lecturas l WHERE l.id_sensor = s.id_sensor) AS lectura, \
     (SELECT MIN(h.hora) FROM horas h WHERE h.id_sensor = s.id_sensor) AS hora FROM sensores s \
     WHERE s.id_empresa = $1";

/// The next `cuantos` sensors of an empresa after `tras`, each with its oldest reading and its oldest hour, if they are
/// from before `lecturas` and `horas`. Two look-ups a sensor; months that begin later are not opened for it.
///
/// # Errors
/// `Unavailable`.
pub async fn past(
    tx: &mut Tx,
    id_empresa: i64,
    tras: i64,
    (lecturas, horas): (Timestamp, Timestamp),
    cuantos: i64,
) -> Result<Vec<Viejo>> {
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as(VIEJOS)
            .bind(id_empresa)
            .bind(tras)
            .bind(lecturas.micros())
            .bind(horas.micros())
            .bind(cuantos)
            .fetch_all(db)
            .await
    })?;
    Ok(filas.into_iter().map(Viejo::from).collect())
}

/// How far back the history of each sensor of an empresa goes: two look-ups a sensor.
///
/// # Errors
/// `Unavailable`.
pub async fn oldest_of(tx: &mut Tx, id_empresa: i64) -> Result<Vec<Viejo>> {
    let filas: Vec<Fila> = on!(tx, |db| sqlx::query_as(VIEJOS_DE).bind(id_empresa).fetch_all(db).await)?;
    Ok(filas.into_iter().map(Viejo::from).collect())
}
