//! Which worker sees which sensor.

use sqlx::AssertSqlSafe;

use super::{Db, Hoja, Result, Tx, on, row};
use crate::domain::Timestamp;

row!(
    /// An assignment, with the names of both sides.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Asignacion {
        /// Key.
        pub id_asignacion: i64,
        /// Who.
        pub id_trabajador: i64,
        /// Their name.
        pub nombre: String,
        /// Their surname; may be empty.
        pub apellido: String,
        /// Which sensor.
        pub id_sensor: i64,
        /// Its name on the wire.
        pub device_id: String,
        /// Its name for people.
        pub nombre_sensor: String,
        /// Since when, in microseconds.
        pub desde: i64,
        /// Until when; `None` = in force.
        pub hasta: Option<i64>,
    }
);

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT g.id_asignacion, g.id_trabajador, t.nombre, t.apellido, g.id_sensor, s.device_id, ",
            "s.nombre AS nombre_sensor, g.desde, g.hasta FROM asignaciones g ",
            "JOIN trabajadores t ON t.id_trabajador = g.id_trabajador JOIN sensores s ON s.id_sensor = g.id_sensor ",
            $rest
        )
    };
}

/// The condition that `sensor` (a column) is assigned to the worker of `$2`. PostgreSQL is given an array: of a
/// subquery it makes a join that begins with the larger table, forty times slower where a worker sees 1,000 of
/// 100,000 sensors.
pub(super) fn asignado(tx: &Tx, sensor: &str) -> String {
    let suyos = "SELECT g.id_sensor FROM asignaciones g WHERE g.id_trabajador = $2 AND g.hasta IS NULL";
    match tx.db {
        Db::Sqlite(_) => format!("{sensor} IN ({suyos})"),
        Db::Postgres(_) => format!("{sensor} = ANY (ARRAY({suyos}))"),
    }
}

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

/// Assigns a sensor to a worker of the same empresa; answers the assignment's key.
///
/// # Errors
/// `Conflict` when it is assigned already, `Unavailable`.
pub async fn create(
    tx: &mut Tx,
    id_empresa: i64,
    id_trabajador: i64,
    id_sensor: i64,
    ahora: Timestamp,
) -> Result<i64> {
    row!(
        struct Clave {
            id_asignacion: i64,
        }
    );
    let clave: Clave = on!(tx, |db| {
        sqlx::query_as(
            "INSERT INTO asignaciones (id_empresa, id_trabajador, id_sensor, desde) VALUES ($1, $2, $3, $4) \
             RETURNING id_asignacion",
        )
        .bind(id_empresa)
        .bind(id_trabajador)
        .bind(id_sensor)
        .bind(ahora.micros())
        .fetch_one(db)
        .await
    })?;
    Ok(clave.id_asignacion)
}

/// An assignment of an empresa.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut Tx, id_empresa: i64, id_asignacion: i64) -> Result<Option<Asignacion>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(select!("WHERE g.id_asignacion = $1 AND g.id_empresa = $2"))
            .bind(id_asignacion)
            .bind(id_empresa)
            .fetch_optional(db)
            .await
    })?)
}

/// Ends an assignment that is in force.
///
/// # Errors
/// `Unavailable`.
pub async fn end(tx: &mut Tx, id_asignacion: i64, ahora: Timestamp) -> Result<()> {
    on!(tx, |db| {
        sqlx::query("UPDATE asignaciones SET hasta = $2 WHERE id_asignacion = $1 AND hasta IS NULL")
            .bind(id_asignacion)
            .bind(ahora.micros())
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// Narrows a list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filtro {
    /// Only those in force.
    pub activas: bool,
    /// Only those of this worker.
    pub id_trabajador: Option<i64>,
    /// Only those of this sensor.
    pub id_sensor: Option<i64>,
}

/// The assignments of an empresa, by key, and how many there are in all.
///
/// # Errors
/// `Unavailable`.
pub async fn list(
    tx: &mut Tx,
    id_empresa: i64,
    filtro: Filtro,
    hoja: &Hoja,
) -> Result<(Vec<Asignacion>, i64)> {
    let donde = donde(filtro);
    let pagina = format!(
        "{}{donde} AND g.id_asignacion > $4 ORDER BY g.id_asignacion LIMIT $5 OFFSET $6",
        select!("")
    );
    let filas = on!(&mut *tx, |db| {
        sqlx::query_as(AssertSqlSafe(pagina))
            .bind(id_empresa)
            .bind(filtro.id_trabajador)
            .bind(filtro.id_sensor)
            .bind(hoja.sobre())
            .bind(hoja.pide())
            .bind(hoja.skip)
            .fetch_all(db)
            .await
    })?;
    let cuenta = format!("SELECT COUNT(*) AS total FROM asignaciones g {donde}");
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar(AssertSqlSafe(cuenta))
            .bind(id_empresa)
            .bind(filtro.id_trabajador)
            .bind(filtro.id_sensor)
            .fetch_one(db)
            .await
    })?;
    Ok((filas, total))
}

/// The condition of [`list`]; `$1` … `$3`.
fn donde(filtro: Filtro) -> String {
    let mut sql = String::from("WHERE g.id_empresa = $1");
    if filtro.activas {
        sql.push_str(" AND g.hasta IS NULL");
    }
    if filtro.id_trabajador.is_some() {
        sql.push_str(" AND g.id_trabajador = $2");
    }
    if filtro.id_sensor.is_some() {
        sql.push_str(" AND g.id_sensor = $3");
    }
    sql
}
