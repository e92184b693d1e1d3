//! Wills of clients, from the moment that they are let in until they take leave or the will is sent.

use super::super::{Result, Tx, on, row};
use super::{Cambio, Contenido};
use crate::domain::Timestamp;

/// Whose a will is: of one connection of a session. What is said of another one's changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dueno {
    /// As in `mqtt_sesiones`.
    pub principal: String,
    /// The client identifier.
    pub client_id: String,
    /// The connection's number.
    pub conexion: i64,
}

/// A will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Testamento {
    /// Whose.
    pub dueno: Dueno,
    /// What; `expira` counts from 1970: it is how long the message is good once it is sent.
    pub contenido: Contenido,
    /// As it is published.
    pub qos: i64,
    /// As it is published.
    pub retain: bool,
    /// Seconds.
    pub espera: i64,
    /// When it is to be sent; `None` = its owner was connected to the end.
    pub cuando: Option<Timestamp>,
}

/// Makes a change of wills.
pub(super) async fn apply(tx: &mut Tx, cambio: &Cambio) -> Result<()> {
    match cambio {
        Cambio::Testa(t) => insert(tx, t).await,
        Cambio::AplazaTestamento { de, cuando } => {
            let Dueno { principal, client_id, conexion } = de;
            on!(tx, |db| {
                sqlx::query(
                    "UPDATE mqtt_testamentos SET cuando = $4 \
                     WHERE principal = $1 AND client_id = $2 AND conexion = $3",
                )
                .bind(principal)
                .bind(client_id)
                .bind(conexion)
                .bind(cuando.micros())
                .execute(db)
                .await
                .map(drop)
            })?;
            Ok(())
        }
        Cambio::OlvidaTestamento(Dueno { principal, client_id, conexion }) => {
            on!(tx, |db| {
                sqlx::query(
                    "DELETE FROM mqtt_testamentos WHERE principal = $1 AND client_id = $2 AND conexion = $3",
                )
                .bind(principal)
                .bind(client_id)
                .bind(conexion)
                .execute(db)
                .await
                .map(drop)
            })?;
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn insert(tx: &mut Tx, t: &Testamento) -> Result<()> {
    let (d, c) = (&t.dueno, &t.contenido);
    on!(tx, |db| {
        sqlx::query(
            "INSERT INTO mqtt_testamentos \
             (principal, client_id, conexion, topic, payload, qos, retain, vigencia, propiedades, espera) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (principal, client_id, conexion) DO NOTHING",
        )
        .bind(&d.principal)
        .bind(&d.client_id)
        .bind(d.conexion)
        .bind(&c.topic)
        .bind(&c.payload[..])
        .bind(t.qos)
        .bind(t.retain)
        .bind(c.expira.map(Timestamp::micros))
        .bind(&c.propiedades[..])
        .bind(t.espera)
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// All wills; those of one client in the order of its connections.
///
/// # Errors
/// `Unavailable`.
pub async fn wills(tx: &mut Tx) -> Result<Vec<Testamento>> {
    row!(
        struct Fila {
            principal: String,
            client_id: String,
            conexion: i64,
            topic: String,
            payload: Vec<u8>,
            qos: i64,
            retain: bool,
            vigencia: Option<i64>,
            propiedades: Vec<u8>,
            espera: i64,
            cuando: Option<i64>,
        }
    );
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as(
            "SELECT principal, client_id, conexion, topic, payload, qos, retain, vigencia, propiedades, espera, cuando \
             FROM mqtt_testamentos ORDER BY principal, client_id, conexion",
        )
        .fetch_all(db)
        .await
    })?;
    let testamento = |f: Fila| Testamento {
        dueno: Dueno { principal: f.principal, client_id: f.client_id, conexion: f.conexion },
        contenido: Contenido {
            topic: f.topic,
            payload: f.payload.into(),
            expira: f.vigencia.map(Timestamp::clamped),
            propiedades: f.propiedades.into(),
            id_sensor: None,
        },
        qos: f.qos,
        retain: f.retain,
        espera: f.espera,
        cuando: f.cuando.map(Timestamp::clamped),
    };
    Ok(filas.into_iter().map(testamento).collect())
}
