//! Alerts.

use sqlx::AssertSqlSafe;

use super::asignaciones::asignado;
use super::sensores::Alcance;
use super::{Error, Hoja, Result, Tx, on, row};
use crate::domain::{Alerta, DeviceId, EstadoAlerta, Severidad, Timestamp};

row!(
    struct Fila {
        id_alerta: i64,
        id_empresa: i64,
        id_sensor: i64,
        device_id: String,
        tipo_alerta: String,
        severidad: String,
        titulo: String,
        mensaje: String,
        valor_actual: Option<f64>,
        valor_umbral: Option<f64>,
        unidad: String,
        estado: String,
        vista: bool,
        historica: bool,
        dentro: i64,
        fecha_creacion: i64,
        fecha_resolucion: Option<i64>,
        resuelta_por: Option<String>,
        notas: Option<String>,
    }
);

impl Fila {
    /// The alert, and how many readings have been back inside since.
    fn alerta(self) -> Result<(Alerta, u8)> {
        let estado =
            EstadoAlerta::parse(&self.estado).ok_or_else(|| Error::inconsistent("alertas.estado"))?;
        let alerta = Alerta {
            id_alerta: self.id_alerta,
            id_empresa: self.id_empresa,
            id_sensor: self.id_sensor,
            device_id: DeviceId::new(&self.device_id).map_err(Error::inconsistent)?,
            tipo_alerta: self.tipo_alerta,
            severidad: Severidad::parse(&self.severidad)
                .ok_or_else(|| Error::inconsistent("alertas.severidad"))?,
            titulo: self.titulo,
            mensaje: self.mensaje,
            valor_actual: self.valor_actual,
            valor_umbral: self.valor_umbral,
            unidad: self.unidad,
            estado,
            resuelta: estado == EstadoAlerta::Resuelta,
            vista: self.vista,
            historica: self.historica,
            fecha_creacion: Timestamp::clamped(self.fecha_creacion),
            fecha_resolucion: self.fecha_resolucion.map(Timestamp::clamped),
            resuelta_por: self.resuelta_por,
            notas: self.notas,
        };
        Ok((alerta, u8::try_from(self.dentro).map_err(Error::inconsistent)?))
    }
}

/// The columns of [`Fila`]; `a` is `alertas`, `s` is `sensores`.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT a.id_alerta, a.id_empresa, a.id_sensor, s.device_id, a.tipo_alerta, a.severidad, a.titulo, ",
            "a.mensaje, a.valor_actual, a.valor_umbral, a.unidad, a.estado, a.vista, a.historica, a.dentro, ",
            "a.fecha_creacion, a.fecha_resolucion, a.resuelta_por, a.notas ",
            "FROM alertas a JOIN sensores s ON s.id_sensor = a.id_sensor ",
            $rest
        )
    };
}

/// Stores a new alert (its `id_alerta` is ignored) with its count of readings back inside; answers its
/// key.
///
/// # Errors
/// `Conflict` when one is open for (sensor, tipo), `Refused` when the sensor is gone, `Unavailable`.
pub async fn create(tx: &mut Tx, a: &Alerta, dentro: u8) -> Result<i64> {
    row!(
        struct Clave {
            id_alerta: i64,
        }
    );
    let clave: Clave = on!(tx, |db| {
        sqlx::query_as(
            "INSERT INTO alertas (id_empresa, id_sensor, tipo_alerta, severidad, titulo, mensaje, valor_actual, \
             valor_umbral, unidad, estado, vista, historica, fecha_creacion, fecha_resolucion, resuelta_por, notas, \
             dentro) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) RETURNING id_alerta",
        )
        .bind(a.id_empresa)
        .bind(a.id_sensor)
        .bind(a.tipo_alerta.as_str())
        .bind(a.severidad.as_str())
        .bind(a.titulo.as_str())
        .bind(a.mensaje.as_str())
        .bind(a.valor_actual)
        .bind(a.valor_umbral)
        .bind(a.unidad.as_str())
        .bind(a.estado.as_str())
        .bind(a.vista)
        .bind(a.historica)
        .bind(a.fecha_creacion.micros())
        .bind(a.fecha_resolucion.map(Timestamp::micros))
        .bind(a.resuelta_por.as_deref())
        .bind(a.notas.as_deref())
        .bind(i64::from(dentro))
        .fetch_one(db)
        .await
    })?;
    Ok(clave.id_alerta)
}

/// Writes what may change of an alert: severity, texts, values, state, resolution, and the count of
/// readings back inside.
///
/// # Errors
/// `Unavailable`.
pub async fn update(tx: &mut Tx, a: &Alerta, dentro: u8) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "UPDATE alertas SET severidad = $2, titulo = $3, mensaje = $4, valor_actual = $5, valor_umbral = $6, \
             estado = $7, vista = CASE WHEN severidad = $2 THEN vista ELSE $8 END, dentro = $9, fecha_resolucion = $10, resuelta_por = $11, notas = $12 \
             WHERE id_alerta = $1",
        )
        .bind(a.id_alerta)
        .bind(a.severidad.as_str())
        .bind(a.titulo.as_str())
        .bind(a.mensaje.as_str())
        .bind(a.valor_actual)
        .bind(a.valor_umbral)
        .bind(a.estado.as_str())
        .bind(a.vista)
        .bind(i64::from(dentro))
        .bind(a.fecha_resolucion.map(Timestamp::micros))
        .bind(a.resuelta_por.as_deref())
        .bind(a.notas.as_deref())
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Every open alert, with its count of readings back inside.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn all_open(tx: &mut Tx) -> Result<Vec<(Alerta, u8)>> {
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as(select!("WHERE a.estado IN ('pendiente', 'en_proceso')")).fetch_all(db).await
    })?;
    filas.into_iter().map(Fila::alerta).collect()
}

/// The open alerts of a kind, whosever they are.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn open_of_kind(tx: &mut Tx, tipo: &str) -> Result<Vec<Alerta>> {
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as(select!("WHERE a.estado IN ('pendiente', 'en_proceso') AND a.tipo_alerta = $1"))
            .bind(tipo)
            .fetch_all(db)
            .await
    })?;
    filas.into_iter().map(|f| f.alerta().map(|(a, _)| a)).collect()
}

/// The newest alert of a kind that an empresa has had, open or not.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn newest_of_kind(tx: &mut Tx, id_empresa: i64, tipo: &str) -> Result<Option<Alerta>> {
    let fila: Option<Fila> = on!(tx, |db| {
        sqlx::query_as(select!(
            "WHERE a.id_empresa = $1 AND a.tipo_alerta = $2 ORDER BY a.id_alerta DESC LIMIT 1"
        ))
        .bind(id_empresa)
        .bind(tipo)
        .fetch_optional(db)
        .await
    })?;
    Ok(fila.map(Fila::alerta).transpose()?.map(|(a, _)| a))
}

/// One alert, whosever it is.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn by_id(tx: &mut Tx, id_alerta: i64) -> Result<Option<Alerta>> {
    let fila: Option<Fila> = on!(tx, |db| {
        sqlx::query_as(select!("WHERE a.id_alerta = $1")).bind(id_alerta).fetch_optional(db).await
    })?;
    Ok(fila.map(Fila::alerta).transpose()?.map(|(a, _)| a))
}

/// Notes that somebody looked at an alert of the scope; `false` when there is no such alert.
///
/// # Errors
/// `Unavailable`.
pub async fn mark_viewed(tx: &mut Tx, id_alerta: i64) -> Result<bool> {
    let n = on!(tx, |db| {
        sqlx::query("UPDATE alertas SET vista = TRUE WHERE id_alerta = $1")
            .bind(id_alerta)
            .execute(db)
            .await
            .map(|r| r.rows_affected())
    })?;
    Ok(n == 1)
}

/// One alert of the scope.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn get(tx: &mut Tx, alcance: Alcance, id_alerta: i64) -> Result<Option<Alerta>> {
    let fila: Option<Fila> = on!(tx, |db| {
        sqlx::query_as(select!(
            "WHERE a.id_alerta = $1 AND a.id_empresa = $2 AND ($3 IS NULL OR EXISTS (SELECT 1 FROM asignaciones g \
             WHERE g.id_sensor = a.id_sensor AND g.id_trabajador = $3 AND g.hasta IS NULL))"
        ))
        .bind(id_alerta)
        .bind(alcance.id_empresa)
        .bind(alcance.id_trabajador)
        .fetch_optional(db)
        .await
    })?;
    Ok(fila.map(Fila::alerta).transpose()?.map(|(a, _)| a))
}

/// Narrows a list.
#[derive(Debug, Clone, Default)]
pub struct Filtro<'a> {
    /// By state; `None` = those that are open.
    pub estado: Option<EstadoAlerta>,
    /// By severity.
    pub severidad: Option<Severidad>,
    /// By variable (`tipo_alerta`).
    pub tipo: Option<&'a str>,
    /// By sensor.
    pub id_sensor: Option<i64>,
    /// Opened at or after.
    pub desde: Option<Timestamp>,
    /// Opened at or before.
    pub hasta: Option<Timestamp>,
}

/// The condition of [`list`] and [`count`]; `$1` … `$8`. Only what is asked for stands in it, so that each
/// has its index.
pub(super) fn donde(tx: &Tx, alcance: Alcance, filtro: &Filtro<'_>) -> String {
    // One sensor, or what is assigned, is few of many: no index of the empresa or of the states is to be taken
    // before that of the sensors.
    let pocas = filtro.id_sensor.is_some() || alcance.id_trabajador.is_some();
    let empresa = if pocas { "COALESCE(a.id_empresa, 0)" } else { "a.id_empresa" };
    let mut sql = format!("WHERE {empresa} = $1");
    if alcance.id_trabajador.is_some() {
        sql = format!("{sql} AND {}", asignado(tx, "a.id_sensor"));
    }
    sql.push_str(match (filtro.estado, pocas) {
        (None, true) => " AND COALESCE(a.estado, '') IN ('pendiente', 'en_proceso')",
        (None, false) => " AND a.estado IN ('pendiente', 'en_proceso')",
        (Some(_), true) => " AND COALESCE(a.estado, '') = $3",
        (Some(_), false) => " AND a.estado = $3",
    });
    for (pedido, condicion) in [
        (filtro.severidad.is_some(), " AND a.severidad = $4"),
        (filtro.tipo.is_some(), " AND a.tipo_alerta = $5"),
        (filtro.id_sensor.is_some(), " AND a.id_sensor = $6"),
        (filtro.desde.is_some(), " AND a.fecha_creacion >= $7"),
        (filtro.hasta.is_some(), " AND a.fecha_creacion <= $8"),
    ] {
        if pedido {
            sql.push_str(condicion);
        }
    }
    sql
}

/// The alerts of the scope, newest first.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn list(tx: &mut Tx, alcance: Alcance, filtro: &Filtro<'_>, hoja: &Hoja) -> Result<Vec<Alerta>> {
    let donde = donde(tx, alcance, filtro);
    let sql =
        format!("{}{donde} AND a.id_alerta < $9 ORDER BY a.id_alerta DESC LIMIT $10 OFFSET $11", select!(""));
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as(AssertSqlSafe(sql))
            .bind(alcance.id_empresa)
            .bind(alcance.id_trabajador)
            .bind(filtro.estado.map(EstadoAlerta::as_str))
            .bind(filtro.severidad.map(Severidad::as_str))
            .bind(filtro.tipo)
            .bind(filtro.id_sensor)
            .bind(filtro.desde.map(Timestamp::micros))
            .bind(filtro.hasta.map(Timestamp::micros))
            .bind(hoja.bajo())
            .bind(hoja.pide())
            .bind(hoja.skip)
            .fetch_all(db)
            .await
    })?;
    filas.into_iter().map(|f| f.alerta().map(|(a, _)| a)).collect()
}

/// How many alerts [`list`] would answer without its limit.
///
/// # Errors
/// `Unavailable`.
pub async fn count(tx: &mut Tx, alcance: Alcance, filtro: &Filtro<'_>) -> Result<i64> {
    let sql = format!("SELECT COUNT(*) AS total FROM alertas a {}", donde(tx, alcance, filtro));
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(alcance.id_empresa)
            .bind(alcance.id_trabajador)
            .bind(filtro.estado.map(EstadoAlerta::as_str))
            .bind(filtro.severidad.map(Severidad::as_str))
            .bind(filtro.tipo)
            .bind(filtro.id_sensor)
            .bind(filtro.desde.map(Timestamp::micros))
            .bind(filtro.hasta.map(Timestamp::micros))
            .fetch_one(db)
            .await
    })?;
    Ok(total)
}

/// How many open alerts of the scope there are of each severity that any has.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn count_by_severity(tx: &mut Tx, alcance: Alcance) -> Result<Vec<(Severidad, i64)>> {
    row!(
        struct Cuenta {
            severidad: String,
            total: i64,
        }
    );
    let sql = format!(
        "SELECT a.severidad, COUNT(*) AS total FROM alertas a {} GROUP BY a.severidad",
        donde(tx, alcance, &Filtro::default())
    );
    let filas: Vec<Cuenta> = on!(tx, |db| {
        sqlx::query_as(AssertSqlSafe(sql))
            .bind(alcance.id_empresa)
            .bind(alcance.id_trabajador)
            .fetch_all(db)
            .await
    })?;
    let malo = || Error::inconsistent("alertas.severidad");
    filas.into_iter().map(|f| Ok((Severidad::parse(&f.severidad).ok_or_else(malo)?, f.total))).collect()
}
