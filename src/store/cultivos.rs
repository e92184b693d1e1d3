//! Crops: what grows where, for sensors to stand in.

use super::sensores::Alcance;
use super::{Hoja, Result, Tx, on, row};

row!(
    /// A crop.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Cultivo {
        /// Key.
        pub id_cultivo: i64,
        /// The tenant.
        pub id_empresa: i64,
        /// What grows, in the site's own words.
        pub tipo_cultivo: String,
        /// Of which kind.
        pub variedad: Option<String>,
        /// How large.
        pub hectareas: Option<f64>,
        /// When it was sown, in microseconds.
        pub fecha_siembra: Option<i64>,
        /// When it is to be harvested, in microseconds.
        pub fecha_estimada_cosecha: Option<i64>,
        /// Where it is in its life, in the site's own words.
        pub estado: String,
        /// Where it is.
        pub ubicacion_especifica: Option<String>,
        /// Degrees north.
        pub coordenadas_lat: Option<f64>,
        /// Degrees east.
        pub coordenadas_lng: Option<f64>,
        /// When it was registered, in microseconds.
        pub creado: i64,
        /// How many sensors in use stand in it.
        pub sensores: i64,
    }
);

/// The columns of [`Cultivo`]; `c` is `cultivos`.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT c.id_cultivo, c.id_empresa, c.tipo_cultivo, c.variedad, c.hectareas, c.fecha_siembra, ",
            "c.fecha_estimada_cosecha, c.estado, c.ubicacion_especifica, c.coordenadas_lat, c.coordenadas_lng, ",
            "c.creado, (SELECT COUNT(*) FROM sensores s WHERE s.id_cultivo = c.id_cultivo ",
            "AND s.estado <> 'inactivo') AS sensores FROM cultivos c ",
            $rest
        )
    };
}

/// A worker sees the crops that a sensor of theirs stands in; `$1` the empresa, `$2` the worker.
macro_rules! donde {
    () => {
        "WHERE c.id_empresa = $1 AND ($2 IS NULL OR c.id_cultivo IN (SELECT s.id_cultivo FROM asignaciones g \
         JOIN sensores s ON s.id_sensor = g.id_sensor WHERE g.id_trabajador = $2 AND g.hasta IS NULL)) "
    };
}

/// Registers a crop (its key and count of sensors are ignored); answers its key.
///
/// # Errors
/// `Unavailable`.
pub async fn create(tx: &mut Tx, c: &Cultivo) -> Result<i64> {
    row!(
        struct Clave {
            id_cultivo: i64,
        }
    );
    let clave: Clave = on!(tx, |db| {
        sqlx::query_as(
            "INSERT INTO cultivos (id_empresa, tipo_cultivo, variedad, hectareas, fecha_siembra, \
             fecha_estimada_cosecha, estado, ubicacion_especifica, coordenadas_lat, coordenadas_lng, creado) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id_cultivo",
        )
        .bind(c.id_empresa)
        .bind(c.tipo_cultivo.as_str())
        .bind(c.variedad.as_deref())
        .bind(c.hectareas)
        .bind(c.fecha_siembra)
        .bind(c.fecha_estimada_cosecha)
        .bind(c.estado.as_str())
        .bind(c.ubicacion_especifica.as_deref())
        .bind(c.coordenadas_lat)
        .bind(c.coordenadas_lng)
        .bind(c.creado)
        .fetch_one(db)
        .await
    })?;
    Ok(clave.id_cultivo)
}

/// A crop of the scope.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut Tx, alcance: Alcance, id_cultivo: i64) -> Result<Option<Cultivo>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(concat!(select!(""), donde!(), "AND c.id_cultivo = $3"))
            .bind(alcance.id_empresa)
            .bind(alcance.id_trabajador)
            .bind(id_cultivo)
            .fetch_optional(db)
            .await
    })?)
}

/// The crops of the scope, by key, and how many there are in all.
///
/// # Errors
/// `Unavailable`.
pub async fn list(tx: &mut Tx, alcance: Alcance, hoja: &Hoja) -> Result<(Vec<Cultivo>, i64)> {
    let filas = on!(&mut *tx, |db| {
        sqlx::query_as(concat!(
            select!(""),
            donde!(),
            "AND c.id_cultivo > $3 ORDER BY c.id_cultivo LIMIT $4 OFFSET $5"
        ))
        .bind(alcance.id_empresa)
        .bind(alcance.id_trabajador)
        .bind(hoja.sobre())
        .bind(hoja.pide())
        .bind(hoja.skip)
        .fetch_all(db)
        .await
    })?;
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar(concat!("SELECT COUNT(*) AS total FROM cultivos c ", donde!()))
            .bind(alcance.id_empresa)
            .bind(alcance.id_trabajador)
            .fetch_one(db)
            .await
    })?;
    Ok((filas, total))
}

/// Writes all of a crop but its key, its empresa and when it was registered.
///
/// # Errors
/// `Unavailable`.
pub async fn update(tx: &mut Tx, c: &Cultivo) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "UPDATE cultivos SET tipo_cultivo = $3, variedad = $4, hectareas = $5, fecha_siembra = $6, \
             fecha_estimada_cosecha = $7, estado = $8, ubicacion_especifica = $9, coordenadas_lat = $10, \
             coordenadas_lng = $11 WHERE id_cultivo = $1 AND id_empresa = $2",
        )
        .bind(c.id_cultivo)
        .bind(c.id_empresa)
        .bind(c.tipo_cultivo.as_str())
        .bind(c.variedad.as_deref())
        .bind(c.hectareas)
        .bind(c.fecha_siembra)
        .bind(c.fecha_estimada_cosecha)
        .bind(c.estado.as_str())
        .bind(c.ubicacion_especifica.as_deref())
        .bind(c.coordenadas_lat)
        .bind(c.coordenadas_lng)
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Removes a crop and its bounds; its sensors stand in none any more.
///
/// # Errors
/// `Unavailable`.
pub async fn delete(tx: &mut Tx, id_empresa: i64, id_cultivo: i64) -> Result<()> {
    on!(&mut *tx, |db| {
        sqlx::query("UPDATE sensores SET id_cultivo = NULL WHERE id_cultivo = $1 AND id_empresa = $2")
            .bind(id_cultivo)
            .bind(id_empresa)
            .execute(db)
            .await
            .map(drop)
    })?;
    on!(tx, |db| {
        sqlx::query("DELETE FROM cultivos WHERE id_cultivo = $1 AND id_empresa = $2")
            .bind(id_cultivo)
            .bind(id_empresa)
            .execute(db)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// What the crops of the scope come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suma {
    /// How many there are, but for those that are over (`cosechado`, `inactivo`).
    pub cuantos: i64,
    /// Their hectares; `None` = of none is it known.
    pub hectareas: Option<f64>,
}

/// See [`Suma`].
///
/// # Errors
/// `Unavailable`.
pub async fn sum(tx: &mut Tx, alcance: Alcance) -> Result<Suma> {
    row!(
        struct Fila {
            cuantos: i64,
            hectareas: Option<f64>,
        }
    );
    let f: Fila = on!(tx, |db| {
        sqlx::query_as(concat!(
            "SELECT COUNT(*) AS cuantos, SUM(c.hectareas) AS hectareas FROM cultivos c ",
            donde!(),
            "AND c.estado NOT IN ('cosechado', 'inactivo')"
        ))
        .bind(alcance.id_empresa)
        .bind(alcance.id_trabajador)
        .fetch_one(db)
        .await
    })?;
    Ok(Suma { cuantos: f.cuantos, hectareas: f.hectareas })
}
