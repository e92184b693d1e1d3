//! A message on its way through the broker.

use bytes::Bytes;

use super::protocol::Propiedades;
use crate::domain::Timestamp;

/// How often a message may arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Qos {
    /// At most once.
    Cero,
    /// At least once.
    Uno,
    /// Exactly once.
    Dos,
}

/// A message, with what MQTT needs of it end to end.
#[derive(Debug, Clone)]
pub(super) struct Publicacion {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    /// The session that published it, for No Local; 0 = the server itself.
    pub(super) publicador: u64,
    /// When it stops being worth delivering [MQTT-3.3.2-5].
    pub(super) expira: Option<Timestamp>,
    /// What MQTT 5 passes on unchanged [MQTT-3.3.2-15] to [MQTT-3.3.2-20].
    pub(super) propiedades: Propiedades,
    /// Whose event it is, where the topic does not say (`alertas/…`).
    pub(super) sensor: Option<i64>,
}

impl Publicacion {
    /// A message of the server itself.
    pub(super) fn del_servidor(topic: String, payload: impl Into<Bytes>, qos: Qos, retain: bool) -> Self {
        Self {
            topic,
            payload: payload.into(),
            qos,
            retain,
            publicador: 0,
            expira: None,
            propiedades: Propiedades::default(),
            sensor: None,
        }
    }

    pub(super) fn vencida(&self, ahora: Timestamp) -> bool {
        self.expira.is_some_and(|e| e <= ahora)
    }

    /// Bytes that it holds in memory, roughly.
    pub(super) fn peso(&self) -> usize {
        self.topic.len() + self.payload.len() + 128
    }
}
