//! A message on its way through the broker.

use bytes::Bytes;

use super::protocol::Propiedades;
use crate::domain::{SensorRef, Timestamp};
use crate::store::mqtt::Contenido;

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

impl Qos {
    /// As the store has it.
    pub(super) const fn codigo(self) -> i64 {
        match self {
            Self::Cero => 0,
            Self::Uno => 1,
            Self::Dos => 2,
        }
    }

    pub(super) const fn de(codigo: i64) -> Self {
        match codigo {
            0 => Self::Cero,
            1 => Self::Uno,
            _ => Self::Dos,
        }
    }
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
    /// Whose event it is, where the topic does not say (`alertas/…`), and where it may outlive whom the topic
    /// names (what is retained).
    pub(super) sensor: Option<i64>,
    /// The command that it carries.
    pub(super) comando: Option<i64>,
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
            comando: None,
        }
    }

    /// What the server says of a sensor and has retained.
    pub(super) fn de_sensor(sensor: &SensorRef, hoja: &str, payload: impl Into<Bytes>) -> Self {
        let topic = format!("sensores/{}/{hoja}", sensor.device_id);
        Self { sensor: Some(sensor.id_sensor), ..Self::del_servidor(topic, payload, Qos::Uno, true) }
    }

    /// A message that was kept.
    pub(super) fn guardada(c: Contenido, qos: Qos, retain: bool) -> Self {
        Self {
            topic: c.topic,
            payload: c.payload,
            qos,
            retain,
            publicador: 0,
            expira: c.expira,
            propiedades: Propiedades::leidas(&c.propiedades),
            sensor: c.id_sensor,
            comando: None,
        }
    }

    /// As it is kept.
    pub(super) fn contenido(&self) -> Contenido {
        Contenido {
            topic: self.topic.clone(),
            payload: self.payload.clone(),
            expira: self.expira,
            propiedades: self.propiedades.bytes(),
            id_sensor: self.sensor,
        }
    }

    pub(super) fn vencida(&self, ahora: Timestamp) -> bool {
        self.expira.is_some_and(|e| e <= ahora)
    }

    /// Bytes that it holds in memory, roughly.
    pub(super) fn peso(&self) -> usize {
        peso(self.topic.len() + self.payload.len() + self.propiedades.peso())
    }
}

/// Bytes that a message of so many bytes of topic, payload and properties holds in memory, roughly.
pub(super) const fn peso(bytes: usize) -> usize {
    bytes + 128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_weigh_what_they_hold_in_memory() {
        let mut mensaje = Publicacion::del_servidor("a".into(), "x", Qos::Uno, false);
        let sin = mensaje.peso();
        // A thousand empty user properties: five bytes each on the wire, and more here.
        mensaje.propiedades = Propiedades::leidas(&[0x26, 0, 0, 0, 0].repeat(1_000));
        assert!(mensaje.peso() >= sin + 5_000, "{} {sin}", mensaje.peso());
    }
}
