//! Commands to devices and the configuration that they are to have.

use super::{Hoja, Result, Tx, on, row};
use crate::domain::Timestamp;

row!(
    /// A command, as it is kept. Moments in microseconds, JSON as text.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Comando {
        /// Key.
        pub id_comando: i64,
        /// To whom.
        pub id_sensor: i64,
        /// What to do.
        pub comando: String,
        /// A JSON object.
        pub parametros: String,
        /// `pendiente`, `enviado`, `respondido` or `expirado`.
        pub estado: String,
        /// `ok` or `error`, once answered.
        pub resultado: Option<String>,
        /// What the device said besides, as JSON.
        pub detalle: Option<String>,
        /// The person's `user_id`.
        pub creado_por: String,
        /// When it was asked for.
        pub creado: i64,
        /// When it stops being worth doing.
        pub expira: i64,
        /// When the device acknowledged it.
        pub enviado: Option<i64>,
        /// When the device answered.
        pub respondido: Option<i64>,
    }
);

macro_rules! columnas {
    ($resto:literal) => {
        concat!(
            "SELECT id_comando, id_sensor, comando, parametros, estado, resultado, detalle, creado_por, creado, \
             expira, enviado, respondido FROM comandos ",
            $resto
        )
    };
}

/// What [`create`] needs.
#[derive(Debug, Clone, Copy)]
pub struct Nuevo<'a> {
    /// To whom.
    pub id_sensor: i64,
    /// What to do.
    pub comando: &'a str,
    /// A JSON object.
    pub parametros: &'a str,
    /// The person's `user_id`.
    pub creado_por: &'a str,
    /// When it stops being worth doing.
    pub expira: Timestamp,
}

/// Queues a command; answers its key.
///
/// # Errors
/// `Refused` when the sensor is gone, `Unavailable`.
pub async fn create(tx: &mut Tx, nuevo: &Nuevo<'_>, ahora: Timestamp) -> Result<i64> {
    row!(
        struct Clave {
            id_comando: i64,
        }
    );
    let clave: Clave = on!(tx, |db| {
        sqlx::query_as(
            "INSERT INTO comandos (id_sensor, comando, parametros, creado_por, creado, expira) \
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING id_comando",
        )
        .bind(nuevo.id_sensor)
        .bind(nuevo.comando)
        .bind(nuevo.parametros)
        .bind(nuevo.creado_por)
        .bind(ahora.micros())
        .bind(nuevo.expira.micros())
        .fetch_one(db)
        .await
    })?;
    Ok(clave.id_comando)
}

/// One command of a sensor.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut Tx, id_sensor: i64, id_comando: i64) -> Result<Option<Comando>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(columnas!("WHERE id_sensor = $1 AND id_comando = $2"))
            .bind(id_sensor)
            .bind(id_comando)
            .fetch_optional(db)
            .await
    })?)
}

/// The commands of a sensor, the newest first, and how many there are.
///
/// # Errors
/// `Unavailable`.
pub async fn list(tx: &mut Tx, id_sensor: i64, hoja: &Hoja) -> Result<(Vec<Comando>, i64)> {
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) AS total FROM comandos WHERE id_sensor = $1")
            .bind(id_sensor)
            .fetch_one(db)
            .await
    })?;
    let comandos = on!(tx, |db| {
        sqlx::query_as(columnas!(
            "WHERE id_sensor = $1 AND id_comando < $2 ORDER BY id_comando DESC LIMIT $3 OFFSET $4"
        ))
        .bind(id_sensor)
        .bind(hoja.bajo())
        .bind(hoja.pide())
        .bind(hoja.skip)
        .fetch_all(db)
        .await
    })?;
    Ok((comandos, total))
}

/// The commands of a sensor that it has not acknowledged, the oldest first.
///
/// # Errors
/// `Unavailable`.
pub async fn pending(tx: &mut Tx, id_sensor: i64, ahora: Timestamp, limit: i64) -> Result<Vec<Comando>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(columnas!(
            "WHERE id_sensor = $1 AND estado = 'pendiente' AND expira > $2 ORDER BY id_comando LIMIT $3"
        ))
        .bind(id_sensor)
        .bind(ahora.micros())
        .bind(limit)
        .fetch_all(db)
        .await
    })?)
}

/// How many commands of a sensor are neither answered nor expired.
///
/// # Errors
/// `Unavailable`.
pub async fn open(tx: &mut Tx, id_sensor: i64) -> Result<i64> {
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar(
            "SELECT CAST(COUNT(*) AS BIGINT) AS total FROM comandos \
             WHERE id_sensor = $1 AND estado IN ('pendiente', 'enviado')",
        )
        .bind(id_sensor)
        .fetch_one(db)
        .await
    })?;
    Ok(total)
}

/// The device has a command.
///
/// # Errors
/// `Unavailable`.
pub async fn sent(tx: &mut Tx, id_comando: i64, ahora: Timestamp) -> Result<()> {
    Ok(on!(tx, |db| {
        sqlx::query(
            "UPDATE comandos SET estado = 'enviado', enviado = $2 WHERE id_comando = $1 AND estado = 'pendiente'",
        )
        .bind(id_comando)
        .bind(ahora.micros())
        .execute(db)
        .await
        .map(drop)
    })?)
}

/// What a device answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respuesta {
    /// Who.
    pub id_sensor: i64,
    /// Of which command.
    pub id_comando: i64,
    /// Whether it was done.
    pub ok: bool,
    /// What it says besides, as JSON.
    pub detalle: Option<String>,
    /// When.
    pub cuando: Timestamp,
}

/// Closes a command of the device that answers. Late or not: what was done was done.
///
/// # Errors
/// `Unavailable`.
pub async fn answered(tx: &mut Tx, r: &Respuesta) -> Result<()> {
    Ok(on!(tx, |db| {
        sqlx::query(
            "UPDATE comandos SET estado = 'respondido', resultado = $3, detalle = $4, respondido = $5, \
             enviado = COALESCE(enviado, $5) WHERE id_comando = $1 AND id_sensor = $2 AND estado <> 'respondido'",
        )
        .bind(r.id_comando)
        .bind(r.id_sensor)
        .bind(if r.ok { "ok" } else { "error" })
        .bind(r.detalle.as_deref())
        .bind(r.cuando.micros())
        .execute(db)
        .await
        .map(drop)
    })?)
}

/// Closes the commands whose time is over.
///
/// # Errors
/// `Unavailable`.
pub async fn expire(tx: &mut Tx, ahora: Timestamp) -> Result<u64> {
    Ok(on!(tx, |db| {
        sqlx::query(
            "UPDATE comandos SET estado = 'expirado' WHERE estado IN ('pendiente', 'enviado') AND expira <= $1",
        )
        .bind(ahora.micros())
        .execute(db)
        .await
        .map(|r| r.rows_affected())
    })?)
}

/// Whether a command's time is over and it is still open.
///
/// # Errors
/// `Unavailable`.
pub async fn any_expired(tx: &mut Tx, ahora: Timestamp) -> Result<bool> {
    row!(
        struct Uno {
            #[expect(dead_code, reason = "only whether there is a row")]
            id_comando: i64,
        }
    );
    let uno: Option<Uno> = on!(tx, |db| {
        sqlx::query_as(
            "SELECT id_comando FROM comandos WHERE estado IN ('pendiente', 'enviado') AND expira <= $1 LIMIT 1",
        )
        .bind(ahora.micros())
        .fetch_optional(db)
        .await
    })?;
    Ok(uno.is_some())
}

row!(
    /// The configuration that a device is to have. Moments in microseconds.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Configuracion {
        /// Whose.
        pub id_sensor: i64,
        /// A JSON object.
        pub configuracion: String,
        /// The person's `user_id`.
        pub cambiada_por: String,
        /// When it was last changed.
        pub cambiada: i64,
        /// When the device acknowledged it; `None` = not since the last change.
        pub entregada: Option<i64>,
    }
);

/// The configuration of a sensor.
///
/// # Errors
/// `Unavailable`.
pub async fn config(tx: &mut Tx, id_sensor: i64) -> Result<Option<Configuracion>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(
            "SELECT id_sensor, configuracion, cambiada_por, cambiada, entregada FROM configuraciones \
             WHERE id_sensor = $1",
        )
        .bind(id_sensor)
        .fetch_optional(db)
        .await
    })?)
}

/// Gives a sensor a configuration, in place of what it was to have.
///
/// # Errors
/// `Refused` when the sensor is gone, `Unavailable`.
pub async fn set_config(
    tx: &mut Tx,
    id_sensor: i64,
    configuracion: &str,
    por: &str,
    ahora: Timestamp,
) -> Result<()> {
    Ok(on!(tx, |db| {
        sqlx::query(
            "INSERT INTO configuraciones (id_sensor, configuracion, cambiada_por, cambiada) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id_sensor) DO UPDATE SET configuracion = excluded.configuracion, \
             cambiada_por = excluded.cambiada_por, cambiada = excluded.cambiada, entregada = NULL",
        )
        .bind(id_sensor)
        .bind(configuracion)
        .bind(por)
        .bind(ahora.micros())
        .execute(db)
        .await
        .map(drop)
    })?)
}

/// The device acknowledged `configuracion`, if that is still the one.
///
/// # Errors
/// `Unavailable`.
pub async fn config_sent(tx: &mut Tx, id_sensor: i64, configuracion: &str, ahora: Timestamp) -> Result<()> {
    Ok(on!(tx, |db| {
        sqlx::query("UPDATE configuraciones SET entregada = $3 WHERE id_sensor = $1 AND configuracion = $2")
            .bind(id_sensor)
            .bind(configuracion)
            .bind(ahora.micros())
            .execute(db)
            .await
            .map(drop)
    })?)
}
