//! Alerts.

use sqlx::{AssertSqlSafe, QueryBuilder};

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
        // A count that makes no sense begins anew.
        Ok((alerta, u8::try_from(self.dentro).unwrap_or_default()))
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

/// Rows in one statement; SQLite takes 32,766 bound values.
const FILAS: usize = 1_000;

/// Stores a new alert (its `id_alerta` is ignored) with its count of readings back inside; answers its
/// key.
///
/// # Errors
/// `Conflict` when one is open for (sensor, tipo), `Refused` when the sensor is gone, `Unavailable`.
pub async fn create(tx: &mut Tx, a: &Alerta, dentro: u8) -> Result<i64> {
    let clave = create_all(tx, &[(a, dentro)]).await?.pop();
    clave.ok_or_else(|| Error::inconsistent("alertas.id_alerta"))
}

/// As [`create`], of many; answers their keys, in the same order. One statement, but for very many.
///
/// # Errors
/// As [`create`].
pub async fn create_all(tx: &mut Tx, nuevas: &[(&Alerta, u8)]) -> Result<Vec<i64>> {
    let mut todas = Vec::with_capacity(nuevas.len());
    for nuevas in nuevas.chunks(FILAS) {
        let mut claves: Vec<i64> = on!(&mut *tx, |db| {
            let mut q = QueryBuilder::new(
                "INSERT INTO alertas (id_empresa, id_sensor, tipo_alerta, severidad, titulo, mensaje, valor_actual, \
                 valor_umbral, unidad, estado, vista, historica, fecha_creacion, fecha_resolucion, resuelta_por, notas, \
                 dentro) ",
            );
            q.push_values(nuevas, |mut fila, (a, dentro)| {
                fila.push_bind(a.id_empresa).push_bind(a.id_sensor).push_bind(a.tipo_alerta.as_str());
                fila.push_bind(a.severidad.as_str())
                    .push_bind(a.titulo.as_str())
                    .push_bind(a.mensaje.as_str());
                fila.push_bind(a.valor_actual).push_bind(a.valor_umbral).push_bind(a.unidad.as_str());
                fila.push_bind(a.estado.as_str()).push_bind(a.vista).push_bind(a.historica);
                fila.push_bind(a.fecha_creacion.micros())
                    .push_bind(a.fecha_resolucion.map(Timestamp::micros));
                fila.push_bind(a.resuelta_por.as_deref()).push_bind(a.notas.as_deref());
                fila.push_bind(i64::from(*dentro));
            });
            q.push(" RETURNING id_alerta");
            q.build_query_scalar().persistent(false).fetch_all(db).await
        })?;
        // Given in the order of the rows, and answered in any.
        claves.sort_unstable();
        todas.extend(claves);
    }
    Ok(todas)
}

/// Writes what may change of an alert: severity, texts, values, state, resolution, and the count of
/// readings back inside.
///
/// # Errors
/// `Unavailable`.
pub async fn update(tx: &mut Tx, a: &Alerta, dentro: u8) -> Result<()> {
    update_all(tx, &[(a, dentro)]).await
}

/// As [`update`], of many, each at most once. One statement, but for very many.
///
/// # Errors
/// `Unavailable`.
pub async fn update_all(tx: &mut Tx, alertas: &[(&Alerta, u8)]) -> Result<()> {
    for alertas in alertas.chunks(FILAS) {
        on!(&mut *tx, |db| {
            // Both databases call the columns of VALUES so.
            let mut q = QueryBuilder::new(
                "UPDATE alertas SET severidad = n.column2, titulo = n.column3, mensaje = n.column4, \
                 valor_actual = n.column5, valor_umbral = n.column6, estado = n.column7, \
                 vista = CASE WHEN alertas.severidad = n.column2 THEN alertas.vista ELSE n.column8 END, \
                 dentro = n.column9, fecha_resolucion = n.column10, resuelta_por = n.column11, notas = n.column12 FROM (",
            );
            q.push_values(alertas, |mut fila, (a, dentro)| {
                fila.push_bind(a.id_alerta).push_bind(a.severidad.as_str()).push_bind(a.titulo.as_str());
                fila.push_bind(a.mensaje.as_str()).push_bind(a.valor_actual).push_bind(a.valor_umbral);
                fila.push_bind(a.estado.as_str()).push_bind(a.vista).push_bind(i64::from(*dentro));
                fila.push_bind(a.fecha_resolucion.map(Timestamp::micros));
                fila.push_bind(a.resuelta_por.as_deref()).push_bind(a.notas.as_deref());
            });
            q.push(") n WHERE alertas.id_alerta = n.column1");
            q.build().persistent(false).execute(db).await.map(drop)
        })?;
    }
    Ok(())
}

/// Every open alert, with its count of readings back inside. One that cannot be read is left out: it is not to
/// hold up the readings of all.
///
/// # Errors
/// `Unavailable`.
pub async fn all_open(tx: &mut Tx) -> Result<Vec<(Alerta, u8)>> {
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as(select!("WHERE a.estado IN ('pendiente', 'en_proceso')")).fetch_all(db).await
    })?;
    let legible = |f: Fila| {
        let id_alerta = f.id_alerta;
        f.alerta()
            .inspect_err(
                |e| tracing::error!(id_alerta, error = %e, "an open alert cannot be read; it is left alone"),
            )
            .ok()
    };
    Ok(filas.into_iter().filter_map(legible).collect())
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
