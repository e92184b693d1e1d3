//! Devices and their credentials.

mod credenciales;
mod lugares;

use serde::Serialize;
use sqlx::AssertSqlSafe;

use super::asignaciones::asignado;
use super::row::Texto;
use super::{Error, Hoja, Result, Tx, lecturas, on, row};
use crate::domain::{DeviceId, EstadoSensor, SensorRef, Timestamp, Valores};

pub use credenciales::{Credencial, credential, set_credential};
pub use lugares::{at, relocate, retire_at};

/// A sensor as people see it, with its newest values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sensor {
    /// Key, owner and name on the wire.
    #[serde(serialize_with = "device_id", rename = "device_id")]
    pub quien: SensorRef,
    /// For people.
    pub nombre: String,
    /// What kind of device, in the site's own words.
    pub tipo: String,
    /// The crop it stands in.
    pub id_cultivo: Option<i64>,
    /// What people say of it.
    pub estado: EstadoSensor,
    /// Seconds between readings.
    pub intervalo_lectura: i64,
    /// Where it is, in the site's own words.
    pub ubicacion_sensor: Option<String>,
    /// Degrees north.
    pub coordenadas_lat: Option<f64>,
    /// Degrees east.
    pub coordenadas_lng: Option<f64>,
    /// When it was registered.
    pub fecha_instalacion: Timestamp,
    /// The newest reading's moment and the newest value of each variable.
    #[serde(skip)]
    pub ultima: Option<(Timestamp, Valores)>,
}

fn device_id<S: serde::Serializer>(quien: &SensorRef, s: S) -> std::result::Result<S::Ok, S::Error> {
    s.serialize_str(quien.device_id.as_str())
}

/// What [`create`] needs.
#[derive(Debug, Clone)]
pub struct Nuevo<'a> {
    /// Owner.
    pub id_empresa: i64,
    /// Unique in the installation.
    pub device_id: &'a DeviceId,
    /// See [`Sensor`].
    pub nombre: &'a str,
    /// See [`Sensor`].
    pub tipo: &'a str,
    /// See [`Sensor`].
    pub id_cultivo: Option<i64>,
    /// See [`Sensor`].
    pub intervalo_lectura: i64,
    /// See [`Sensor`].
    pub ubicacion_sensor: Option<&'a str>,
    /// See [`Sensor`].
    pub coordenadas_lat: Option<f64>,
    /// See [`Sensor`].
    pub coordenadas_lng: Option<f64>,
    /// SHA-256 of the device's token.
    pub credencial: &'a [u8; 32],
}

/// Who may see which sensors: everything of an empresa, or what is assigned to a worker.
#[derive(Debug, Clone, Copy)]
pub struct Alcance {
    /// The tenant.
    pub id_empresa: i64,
    /// Only what is assigned to this trabajador.
    pub id_trabajador: Option<i64>,
}

/// Narrows a list.
#[derive(Debug, Clone, Default)]
pub struct Filtro<'a> {
    /// By whether it is in use (`estado` other than `inactivo`).
    pub activo: Option<bool>,
    /// By exact `ubicacion_sensor`.
    pub ubicacion: Option<&'a str>,
    /// By `estado`.
    pub estado: Option<EstadoSensor>,
}

row!(
    struct Fila {
        id_sensor: i64,
        id_empresa: i64,
        device_id: String,
        nombre: String,
        tipo: String,
        id_cultivo: Option<i64>,
        estado: String,
        intervalo_lectura: i64,
        ubicacion_sensor: Option<String>,
        coordenadas_lat: Option<f64>,
        coordenadas_lng: Option<f64>,
        fecha_instalacion: i64,
        ultima_ts: Option<i64>,
        ultima_valores: Option<Texto>,
    }
);

impl Fila {
    fn sensor(self) -> Result<Sensor> {
        let ultima = match (self.ultima_ts, self.ultima_valores) {
            (Some(ts), Some(valores)) => {
                let ts = Timestamp::clamped(ts);
                Some((ts, lecturas::valores(self.id_sensor, ts, &valores)))
            }
            _ => None,
        };
        Ok(Sensor {
            quien: quien(self.id_sensor, self.id_empresa, &self.device_id)?,
            nombre: self.nombre,
            tipo: self.tipo,
            id_cultivo: self.id_cultivo,
            estado: EstadoSensor::parse(&self.estado)
                .ok_or_else(|| Error::inconsistent("sensores.estado"))?,
            intervalo_lectura: self.intervalo_lectura,
            ubicacion_sensor: self.ubicacion_sensor,
            coordenadas_lat: self.coordenadas_lat,
            coordenadas_lng: self.coordenadas_lng,
            fecha_instalacion: Timestamp::clamped(self.fecha_instalacion),
            ultima,
        })
    }
}

fn quien(id_sensor: i64, id_empresa: i64, device_id: &str) -> Result<SensorRef> {
    let device_id = DeviceId::new(device_id).map_err(Error::inconsistent)?;
    Ok(SensorRef { id_sensor, id_empresa, device_id })
}

/// The columns of [`Fila`]; `s` is `sensores`, `u` is `ultimas_lecturas`.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT s.id_sensor, s.id_empresa, s.device_id, s.nombre, s.tipo, s.id_cultivo, s.estado, ",
            "s.intervalo_lectura, s.ubicacion_sensor, s.coordenadas_lat, s.coordenadas_lng, ",
            "s.fecha_instalacion, u.ts AS ultima_ts, u.valores AS ultima_valores ",
            "FROM sensores s LEFT JOIN ultimas_lecturas u ON u.id_sensor = s.id_sensor ",
            $rest
        )
    };
}

/// Registers a device; answers its key.
///
/// # Errors
/// `Conflict` on `sensores.device_id`.
pub async fn create(tx: &mut Tx, nuevo: &Nuevo<'_>, ahora: Timestamp) -> Result<i64> {
    row!(
        struct Clave {
            id_sensor: i64,
        }
    );
    let clave: Clave = on!(tx, |db| {
        sqlx::query_as(
            "INSERT INTO sensores (id_empresa, device_id, nombre, tipo, id_cultivo, intervalo_lectura, \
             ubicacion_sensor, coordenadas_lat, coordenadas_lng, fecha_instalacion, credencial, \
             credencial_emitida) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $10) \
             RETURNING id_sensor",
        )
        .bind(nuevo.id_empresa)
        .bind(nuevo.device_id.as_str())
        .bind(nuevo.nombre)
        .bind(nuevo.tipo)
        .bind(nuevo.id_cultivo)
        .bind(nuevo.intervalo_lectura)
        .bind(nuevo.ubicacion_sensor)
        .bind(nuevo.coordenadas_lat)
        .bind(nuevo.coordenadas_lng)
        .bind(ahora.micros())
        .bind(nuevo.credencial.as_slice())
        .fetch_one(db)
        .await
    })?;
    Ok(clave.id_sensor)
}

/// One sensor of the scope, with its newest values.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn get(tx: &mut Tx, alcance: Alcance, id_sensor: i64) -> Result<Option<Sensor>> {
    let fila: Option<Fila> = on!(tx, |db| {
        sqlx::query_as(select!(
            "WHERE s.id_sensor = $1 AND s.id_empresa = $2 AND ($3 IS NULL OR EXISTS (SELECT 1 FROM \
             asignaciones a WHERE a.id_sensor = s.id_sensor AND a.id_trabajador = $3 AND a.hasta IS NULL))"
        ))
        .bind(id_sensor)
        .bind(alcance.id_empresa)
        .bind(alcance.id_trabajador)
        .fetch_optional(db)
        .await
    })?;
    fila.map(Fila::sensor).transpose()
}

/// The sensors of the scope, by key, and how many there are in all.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn list(
    tx: &mut Tx,
    alcance: Alcance,
    filtro: &Filtro<'_>,
    hoja: &Hoja,
) -> Result<(Vec<Sensor>, i64)> {
    let estado = filtro.estado.map(EstadoSensor::as_str);
    let donde = donde(tx, alcance, filtro);
    let pagina =
        format!("{}{donde} AND s.id_sensor > $5 ORDER BY s.id_sensor LIMIT $6 OFFSET $7", select!(""));
    let cuenta = format!("SELECT COUNT(*) AS total FROM sensores s {donde}");
    let filas: Vec<Fila> = on!(&mut *tx, |db| {
        sqlx::query_as(AssertSqlSafe(pagina))
            .bind(alcance.id_empresa)
            .bind(alcance.id_trabajador)
            .bind(filtro.ubicacion)
            .bind(estado)
            .bind(hoja.sobre())
            .bind(hoja.pide())
            .bind(hoja.skip)
            .fetch_all(db)
            .await
    })?;
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar(AssertSqlSafe(cuenta))
            .bind(alcance.id_empresa)
            .bind(alcance.id_trabajador)
            .bind(filtro.ubicacion)
            .bind(estado)
            .fetch_one(db)
            .await
    })?;
    let sensores = filas.into_iter().map(Fila::sensor).collect::<Result<_>>()?;
    Ok((sensores, total))
}

/// The condition of [`list`]; `$1` … `$4`. Only what is asked for stands in it, so that each has its index.
pub(super) fn donde(tx: &Tx, alcance: Alcance, filtro: &Filtro<'_>) -> String {
    let mut sql = String::from("WHERE s.id_empresa = $1");
    if alcance.id_trabajador.is_some() {
        sql = format!("{sql} AND {}", asignado(tx, "s.id_sensor"));
    }
    // A place, or what is assigned, is few of many: no index of the states is to be taken before its own.
    let estado = if filtro.ubicacion.is_some() || alcance.id_trabajador.is_some() {
        "COALESCE(s.estado, '')"
    } else {
        "s.estado"
    };
    if filtro.ubicacion.is_some() {
        sql.push_str(" AND s.ubicacion_sensor = $3");
    }
    if filtro.estado.is_some() {
        sql = format!("{sql} AND {estado} = $4");
    }
    if let Some(activo) = filtro.activo {
        sql = format!("{sql} AND {estado} {} 'inactivo'", if activo { "<>" } else { "=" });
    }
    sql
}

/// What may be changed of a sensor, every field as it shall be afterwards.
#[derive(Debug, Clone)]
pub struct Cambio<'a> {
    /// See [`Sensor`].
    pub nombre: &'a str,
    /// See [`Sensor`].
    pub tipo: &'a str,
    /// See [`Sensor`].
    pub id_cultivo: Option<i64>,
    /// See [`Sensor`]; `inactivo` revokes the credential too.
    pub estado: EstadoSensor,
    /// See [`Sensor`].
    pub intervalo_lectura: i64,
    /// See [`Sensor`].
    pub ubicacion_sensor: Option<&'a str>,
    /// See [`Sensor`].
    pub coordenadas_lat: Option<f64>,
    /// See [`Sensor`].
    pub coordenadas_lng: Option<f64>,
}

/// Changes a sensor; `false` when the empresa has no such sensor.
///
/// # Errors
/// `Unavailable`, `Refused`.
pub async fn update(tx: &mut Tx, id_empresa: i64, id_sensor: i64, cambio: &Cambio<'_>) -> Result<bool> {
    let n = on!(tx, |db| {
        sqlx::query(
            "UPDATE sensores SET nombre = $3, tipo = $4, id_cultivo = $5, estado = $6, intervalo_lectura = $7, \
             ubicacion_sensor = $8, coordenadas_lat = $9, coordenadas_lng = $10, \
             credencial = CASE WHEN $6 = 'inactivo' THEN NULL ELSE credencial END \
             WHERE id_sensor = $1 AND id_empresa = $2",
        )
        .bind(id_sensor)
        .bind(id_empresa)
        .bind(cambio.nombre)
        .bind(cambio.tipo)
        .bind(cambio.id_cultivo)
        .bind(cambio.estado.as_str())
        .bind(cambio.intervalo_lectura)
        .bind(cambio.ubicacion_sensor)
        .bind(cambio.coordenadas_lat)
        .bind(cambio.coordenadas_lng)
        .execute(db)
        .await
        .map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}

/// Retires a sensor: inactive, credential revoked, history kept.
///
/// # Errors
/// `Unavailable`.
pub async fn retire(tx: &mut Tx, id_empresa: i64, id_sensor: i64) -> Result<bool> {
    let n = on!(tx, |db| {
        sqlx::query(
            "UPDATE sensores SET estado = 'inactivo', credencial = NULL WHERE id_sensor = $1 AND id_empresa = $2",
        )
        .bind(id_sensor)
        .bind(id_empresa)
        .execute(db)
        .await
        .map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}

/// Removes a retired sensor and everything that hangs on it; one that is in use again stays.
///
/// # Errors
/// `Unavailable`.
pub async fn purge(tx: &mut Tx, id_empresa: i64, id_sensor: i64) -> Result<bool> {
    let n = on!(tx, |db| {
        sqlx::query("DELETE FROM sensores WHERE id_sensor = $1 AND id_empresa = $2 AND estado = 'inactivo'")
            .bind(id_sensor)
            .bind(id_empresa)
            .execute(db)
            .await
            .map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}

/// Every sensor that is in use, for the directory in memory.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn all_active(tx: &mut Tx) -> Result<Vec<SensorRef>> {
    row!(
        struct Fila {
            id_sensor: i64,
            id_empresa: i64,
            device_id: String,
        }
    );
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as("SELECT id_sensor, id_empresa, device_id FROM sensores WHERE estado <> 'inactivo'")
            .fetch_all(db)
            .await
    })?;
    filas.into_iter().map(|f| quien(f.id_sensor, f.id_empresa, &f.device_id)).collect()
}

/// Seconds between two readings of each sensor that is in use.
///
/// # Errors
/// `Unavailable`.
pub async fn intervals(tx: &mut Tx) -> Result<std::collections::HashMap<i64, i64>> {
    row!(
        struct Fila {
            id_sensor: i64,
            intervalo_lectura: i64,
        }
    );
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as("SELECT id_sensor, intervalo_lectura FROM sensores WHERE estado <> 'inactivo'")
            .fetch_all(db)
            .await
    })?;
    Ok(filas.into_iter().map(|f| (f.id_sensor, f.intervalo_lectura)).collect())
}

/// How many sensors of the scope there are in each state but `activo`, which most are in: those are counted in memory
/// ([`Directorio`](crate::identity::Directorio) knows who is in use), these by their index.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn count_not_active(tx: &mut Tx, alcance: Alcance) -> Result<Vec<(EstadoSensor, i64)>> {
    row!(
        struct Fila {
            estado: String,
            total: i64,
        }
    );
    // What is assigned is few of many: see `donde`.
    let estado = if alcance.id_trabajador.is_some() { "COALESCE(s.estado, '')" } else { "s.estado" };
    let sql = format!(
        "SELECT s.estado, COUNT(*) AS total FROM sensores s {} AND {estado} IN ('inactivo', 'mantenimiento') GROUP BY s.estado",
        donde(tx, alcance, &Filtro::default())
    );
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as(AssertSqlSafe(sql))
            .bind(alcance.id_empresa)
            .bind(alcance.id_trabajador)
            .fetch_all(db)
            .await
    })?;
    let malo = || Error::inconsistent("sensores.estado");
    filas.into_iter().map(|f| Ok((EstadoSensor::parse(&f.estado).ok_or_else(malo)?, f.total))).collect()
}
