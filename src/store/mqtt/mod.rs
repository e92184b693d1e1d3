//! What the broker keeps: sessions, their subscriptions and deliveries, retained messages, wills.
//!
//! The broker holds all of this in memory as well, but for messages that wait for nobody who is
//! connected; here is what survives a crash. Changes ([`Cambio`]) come in batches, in the transaction
//! that an acknowledgement waits for.

mod postgres;
mod sqlite;
mod testamentos;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use bytes::Bytes;

use super::{Db, Error, Result, Tx, comandos, on, row};
use crate::domain::Timestamp;

pub use testamentos::{Dueno, Testamento, wills};

/// A message as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contenido {
    /// Where it was published.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// When it stops being worth delivering.
    pub expira: Option<Timestamp>,
    /// MQTT 5 properties, as they stand in a packet.
    pub propiedades: Bytes,
    /// Whose event it is, where the topic does not say.
    pub id_sensor: Option<i64>,
}

/// A delivery to a session that is not completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encolada {
    /// To whom.
    pub id_sesion: i64,
    /// Its place in the session's order.
    pub seq: i64,
    /// What.
    pub contenido: Contenido,
    /// 1 or 2.
    pub qos: i64,
    /// The flag that it is delivered with.
    pub retain: bool,
    /// Subscription identifiers that it matched.
    pub identificadores: Vec<u32>,
    /// The shared subscription that it came by.
    pub grupo: Option<String>,
    /// How far its delivery has come.
    pub estado: Entregada,
}

/// How far a delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entregada {
    /// It waits.
    No,
    /// It was sent.
    Enviada,
    /// The client has it (PUBREC).
    Recibida,
}

impl Entregada {
    const fn de(codigo: i64) -> Self {
        match codigo {
            0 => Self::No,
            1 => Self::Enviada,
            _ => Self::Recibida,
        }
    }
}

/// A subscription of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suscripcion {
    /// Whose.
    pub id_sesion: i64,
    /// As the client wrote it, `$share/…` included.
    pub filtro: String,
    /// At most.
    pub qos: i64,
    /// Not what the session itself publishes.
    pub no_local: bool,
    /// Retain As Published.
    pub rap: bool,
    /// Retain Handling.
    pub retain_handling: i64,
    /// Subscription Identifier.
    pub identificador: Option<u32>,
}

/// A retained message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retenido {
    /// What.
    pub contenido: Contenido,
    /// As published.
    pub qos: i64,
}

/// A change of what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cambio {
    /// Somebody connected to a session, new or not.
    Abre {
        /// Its key.
        id_sesion: i64,
        /// See the table.
        principal: String,
        /// The client identifier.
        client_id: String,
        /// Seconds that it outlives the connection.
        expiry: i64,
        /// The connection's number.
        conexion: i64,
    },
    /// The connection is over. Of no effect when a later one has begun.
    Cierra {
        /// Its key.
        id_sesion: i64,
        /// The connection's number.
        conexion: i64,
        /// When it ends if nobody comes.
        expira: Timestamp,
        /// Deliveries that were sent and not completed.
        enviadas: Vec<i64>,
    },
    /// The session is over, with all that hangs on it.
    Termina(i64),
    /// A subscription was made, or made anew. Of no effect when the session is over.
    Suscribe(Suscripcion),
    /// A subscription was taken away.
    Desuscribe {
        /// Its key.
        id_sesion: i64,
        /// Which.
        filtro: String,
    },
    /// A message is to be delivered. Of no effect when the session is over.
    Encola(Box<Encolada>),
    /// A delivery was completed, or given up.
    Completa {
        /// Its key.
        id_sesion: i64,
        /// Which.
        seq: i64,
    },
    /// The client has a QoS 2 message (PUBREC).
    Recibida {
        /// Its key.
        id_sesion: i64,
        /// Which.
        seq: i64,
    },
    /// A QoS 2 message of the client was taken. Of no effect when the session is over.
    Toma {
        /// Its key.
        id_sesion: i64,
        /// Its packet id.
        pid: u16,
    },
    /// The client released it (PUBREL).
    Suelta {
        /// Its key.
        id_sesion: i64,
        /// Its packet id.
        pid: u16,
    },
    /// A message was retained.
    Retiene(Box<Retenido>),
    /// Nothing is retained on a topic any more.
    Olvida(String),
    /// What is retained on a topic has expired: it goes, unless something that is good for longer has taken
    /// its place.
    Vence {
        /// Its topic.
        topic: String,
        /// When it expired.
        expira: Timestamp,
    },
    /// What was retained of a device that is not in use any more is forgotten, and not what is said of
    /// another that has its name.
    OlvidaDe {
        /// Its topic.
        topic: String,
        /// Of which it was said.
        id_sensor: i64,
    },
    /// A client with a will was let in.
    Testa(Box<Testamento>),
    /// It is lost, and its will is to be sent later.
    AplazaTestamento {
        /// Whose.
        de: Dueno,
        /// When.
        cuando: Timestamp,
    },
    /// A will was sent, or its owner took leave or came back.
    OlvidaTestamento(Dueno),
    /// A device answered a command.
    Responde(Box<comandos::Respuesta>),
    /// A device acknowledged a command.
    Enviado {
        /// Which.
        id_comando: i64,
        /// When.
        cuando: Timestamp,
    },
    /// A device acknowledged a configuration.
    Configurado {
        /// Who.
        id_sensor: i64,
        /// Which.
        configuracion: String,
        /// When.
        cuando: Timestamp,
    },
}

/// The changes of a batch that come in numbers, by kind.
#[derive(Default)]
struct Muchos<'a> {
    encoladas: Vec<&'a Encolada>,
    completas: Vec<(i64, i64)>,
    recibidas: Vec<(i64, i64)>,
    tomadas: Vec<(i64, i64)>,
    sueltas: Vec<(i64, i64)>,
    /// The last word on each topic.
    retenidos: HashMap<&'a str, Option<&'a Retenido>>,
    vencidos: Vec<(&'a str, i64)>,
    /// The last word on each filter of each session.
    suscripciones: HashMap<(i64, &'a str), Option<&'a Suscripcion>>,
}

/// Makes changes, in order. What comes in numbers takes one statement a kind: deliveries of a batch
/// are completed in a later one, so the order between kinds makes no difference.
///
/// # Errors
/// `Refused`, `Conflict`, `Unavailable`.
pub async fn apply(tx: &mut Tx, cambios: impl IntoIterator<Item = &Cambio>) -> Result<()> {
    let mut muchos = Muchos::default();
    for cambio in cambios {
        match cambio {
            Cambio::Encola(e) => muchos.encoladas.push(e),
            Cambio::Completa { id_sesion, seq } => muchos.completas.push((*id_sesion, *seq)),
            Cambio::Recibida { id_sesion, seq } => muchos.recibidas.push((*id_sesion, *seq)),
            Cambio::Toma { id_sesion, pid } => muchos.tomadas.push((*id_sesion, i64::from(*pid))),
            Cambio::Suelta { id_sesion, pid } => muchos.sueltas.push((*id_sesion, i64::from(*pid))),
            Cambio::Retiene(r) => {
                muchos.retenidos.insert(&r.contenido.topic, Some(r));
            }
            Cambio::Suscribe(s) => {
                muchos.suscripciones.insert((s.id_sesion, &s.filtro), Some(s));
            }
            Cambio::Desuscribe { id_sesion, filtro } => {
                muchos.suscripciones.insert((*id_sesion, filtro), None);
            }
            Cambio::Olvida(topic) => {
                muchos.retenidos.insert(topic, None);
            }
            Cambio::OlvidaDe { topic, id_sensor } => forget_of(tx, topic, *id_sensor).await?,
            Cambio::Vence { topic, expira } => muchos.vencidos.push((topic, expira.micros())),
            Cambio::Responde(r) => comandos::answered(tx, r).await?,
            Cambio::Enviado { id_comando, cuando } => comandos::sent(tx, *id_comando, *cuando).await?,
            Cambio::Configurado { id_sensor, configuracion, cuando } => {
                comandos::config_sent(tx, *id_sensor, configuracion, *cuando).await?;
            }
            Cambio::Testa(_) | Cambio::AplazaTestamento { .. } | Cambio::OlvidaTestamento(_) => {
                testamentos::apply(tx, cambio).await?;
            }
            de_sesion => of_session(tx, de_sesion).await?,
        }
    }
    let (mut retenidos, mut olvidados) = (Vec::new(), Vec::new());
    for (topic, retenido) in muchos.retenidos {
        match retenido {
            Some(retenido) => retenidos.push(retenido),
            None => olvidados.push(topic),
        }
    }
    let (mut suscritas, mut desuscritas) = (Vec::new(), Vec::new());
    for (cual, suscripcion) in muchos.suscripciones {
        match suscripcion {
            Some(suscripcion) => suscritas.push(suscripcion),
            None => desuscritas.push(cual),
        }
    }
    macro_rules! por_base {
        ($accion:ident, $filas:expr) => {
            if !$filas.is_empty() {
                match &mut tx.db {
                    Db::Sqlite(tx) => sqlite::$accion(tx, &$filas).await?,
                    Db::Postgres(tx) => postgres::$accion(tx, &$filas).await?,
                }
            }
        };
    }
    por_base!(enqueue, muchos.encoladas);
    por_base!(receive, muchos.recibidas);
    por_base!(complete, muchos.completas);
    por_base!(take, muchos.tomadas);
    por_base!(release, muchos.sueltas);
    // Before what is retained anew: that is not what expired.
    por_base!(expire, muchos.vencidos);
    por_base!(retain, retenidos);
    por_base!(forget, olvidados);
    por_base!(subscribe, suscritas);
    por_base!(unsubscribe, desuscritas);
    Ok(())
}

/// See [`Cambio::OlvidaDe`].
async fn forget_of(tx: &mut Tx, topic: &str, id_sensor: i64) -> Result<()> {
    Ok(on!(tx, |db| {
        sqlx::query("DELETE FROM mqtt_retenidos WHERE topic = $1 AND id_sensor = $2")
            .bind(topic)
            .bind(id_sensor)
            .execute(db)
            .await
            .map(drop)
    })?)
}

async fn of_session(tx: &mut Tx, cambio: &Cambio) -> Result<()> {
    match cambio {
        Cambio::Abre { id_sesion, principal, client_id, expiry, conexion } => {
            // Whoever had the name before is over.
            on!(tx, |db| {
                sqlx::query(
                    "DELETE FROM mqtt_sesiones WHERE principal = $1 AND client_id = $2 AND id_sesion <> $3",
                )
                .bind(principal)
                .bind(client_id)
                .bind(id_sesion)
                .execute(db)
                .await
                .map(drop)
            })?;
            on!(tx, |db| {
                sqlx::query(
                    "INSERT INTO mqtt_sesiones (id_sesion, principal, client_id, expiry, conexion) \
                     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id_sesion) \
                     DO UPDATE SET expiry = excluded.expiry, conexion = excluded.conexion, expira = NULL",
                )
                .bind(id_sesion)
                .bind(principal)
                .bind(client_id)
                .bind(expiry)
                .bind(conexion)
                .execute(db)
                .await
                .map(drop)
            })?;
        }
        Cambio::Cierra { id_sesion, conexion, expira, enviadas } => {
            on!(tx, |db| {
                sqlx::query("UPDATE mqtt_sesiones SET expira = $2 WHERE id_sesion = $1 AND conexion = $3")
                    .bind(id_sesion)
                    .bind(expira.micros())
                    .bind(conexion)
                    .execute(db)
                    .await
                    .map(drop)
            })?;
            for seq in enviadas {
                on!(tx, |db| {
                    sqlx::query(
                        "UPDATE mqtt_cola SET estado = 1 WHERE id_sesion = $1 AND seq = $2 AND estado = 0",
                    )
                    .bind(id_sesion)
                    .bind(seq)
                    .execute(db)
                    .await
                    .map(drop)
                })?;
            }
        }
        Cambio::Termina(id_sesion) => {
            on!(tx, |db| {
                sqlx::query("DELETE FROM mqtt_sesiones WHERE id_sesion = $1")
                    .bind(id_sesion)
                    .execute(db)
                    .await
                    .map(drop)
            })?;
        }
        _ => {}
    }
    Ok(())
}

row!(
    /// A session as it is kept.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Sesion {
        /// Key.
        pub id_sesion: i64,
        /// See the table.
        pub principal: String,
        /// The client identifier.
        pub client_id: String,
        /// Seconds that it outlives a connection.
        pub expiry: i64,
        /// When it ends; `None` when somebody was connected to the end.
        pub expira: Option<i64>,
    }
);

/// All sessions.
///
/// # Errors
/// `Unavailable`.
pub async fn sessions(tx: &mut Tx) -> Result<Vec<Sesion>> {
    Ok(on!(tx, |db| {
        sqlx::query_as("SELECT id_sesion, principal, client_id, expiry, expira FROM mqtt_sesiones")
            .fetch_all(db)
            .await
    })?)
}

/// All subscriptions.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn subscriptions(tx: &mut Tx) -> Result<Vec<Suscripcion>> {
    row!(
        struct Fila {
            id_sesion: i64,
            filtro: String,
            qos: i64,
            no_local: bool,
            rap: bool,
            retain_handling: i64,
            identificador: Option<i64>,
        }
    );
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as(
            "SELECT id_sesion, filtro, qos, no_local, rap, retain_handling, identificador FROM mqtt_suscripciones",
        )
        .fetch_all(db)
        .await
    })?;
    let suscripcion = |f: Fila| {
        Ok(Suscripcion {
            id_sesion: f.id_sesion,
            filtro: f.filtro,
            qos: f.qos,
            no_local: f.no_local,
            rap: f.rap,
            retain_handling: f.retain_handling,
            identificador: f.identificador.map(u32::try_from).transpose().map_err(Error::inconsistent)?,
        })
    };
    filas.into_iter().map(suscripcion).collect()
}

row!(
    /// A delivery that waits, without its content.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Pendiente {
        /// To whom.
        pub id_sesion: i64,
        /// Its place.
        pub seq: i64,
        /// Bytes of topic and payload.
        pub bytes: i64,
    }
);

/// All deliveries that are not completed, by session and place.
///
/// # Errors
/// `Unavailable`.
pub async fn pending(tx: &mut Tx) -> Result<Vec<Pendiente>> {
    Ok(on!(tx, |db| {
        sqlx::query_as(
            "SELECT id_sesion, seq, CAST(LENGTH(payload) + LENGTH(topic) + LENGTH(propiedades) AS BIGINT) AS bytes FROM mqtt_cola \
             ORDER BY id_sesion, seq",
        )
        .fetch_all(db)
        .await
    })?)
}

/// The deliveries of one session that are not completed, in their order.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn queue(tx: &mut Tx, id_sesion: i64) -> Result<Vec<Encolada>> {
    row!(
        struct Fila {
            id_sesion: i64,
            seq: i64,
            topic: String,
            payload: Vec<u8>,
            qos: i64,
            retain: bool,
            expira: Option<i64>,
            propiedades: Vec<u8>,
            identificadores: String,
            id_sensor: Option<i64>,
            grupo: Option<String>,
            estado: i64,
        }
    );
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as(
            "SELECT id_sesion, seq, topic, payload, qos, retain, expira, propiedades, identificadores, id_sensor, \
             grupo, estado FROM mqtt_cola WHERE id_sesion = $1 ORDER BY seq",
        )
        .bind(id_sesion)
        .fetch_all(db)
        .await
    })?;
    let encolada = |f: Fila| {
        Ok(Encolada {
            id_sesion: f.id_sesion,
            seq: f.seq,
            contenido: Contenido {
                topic: f.topic,
                payload: f.payload.into(),
                expira: f.expira.map(Timestamp::clamped),
                propiedades: f.propiedades.into(),
                id_sensor: f.id_sensor,
            },
            qos: f.qos,
            retain: f.retain,
            identificadores: serde_json::from_str(&f.identificadores).map_err(Error::inconsistent)?,
            grupo: f.grupo,
            estado: Entregada::de(f.estado),
        })
    };
    filas.into_iter().map(encolada).collect()
}

/// All packet ids of QoS 2 messages that were taken and not released, with their session.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn taken(tx: &mut Tx) -> Result<Vec<(i64, u16)>> {
    row!(
        struct Fila {
            id_sesion: i64,
            pid: i64,
        }
    );
    let filas: Vec<Fila> =
        on!(tx, |db| sqlx::query_as("SELECT id_sesion, pid FROM mqtt_recibidos").fetch_all(db).await)?;
    let par = |f: Fila| Ok((f.id_sesion, u16::try_from(f.pid).map_err(Error::inconsistent)?));
    filas.into_iter().map(par).collect()
}

/// All retained messages.
///
/// # Errors
/// `Unavailable`.
pub async fn retained(tx: &mut Tx) -> Result<Vec<Retenido>> {
    row!(
        struct Fila {
            topic: String,
            payload: Vec<u8>,
            qos: i64,
            expira: Option<i64>,
            propiedades: Vec<u8>,
            id_sensor: Option<i64>,
        }
    );
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as("SELECT topic, payload, qos, expira, propiedades, id_sensor FROM mqtt_retenidos")
            .fetch_all(db)
            .await
    })?;
    let retenido = |f: Fila| Retenido {
        contenido: Contenido {
            topic: f.topic,
            payload: f.payload.into(),
            expira: f.expira.map(Timestamp::clamped),
            propiedades: f.propiedades.into(),
            id_sensor: f.id_sensor,
        },
        qos: f.qos,
    };
    Ok(filas.into_iter().map(retenido).collect())
}
