//! What the site itself says to MQTT subscribers: changes of alerts, and readings that came by HTTP.
//!
//! Whoever commits such a thing asks the broker first what sessions must not miss of it, and commits that
//! in the same transaction; after the commit the message goes out ([`Salida`]). So there is no moment at
//! which one of the two is stored and the other lost.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Evento;
use crate::domain::SensorRef;
use crate::store::mqtt::Cambio;

/// A message that goes out once it is committed.
pub struct Salida(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Salida {
    /// `sale` hands it to the broker.
    pub fn new(sale: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(sale))
    }

    /// It is committed: tells it. Waits while the broker is far behind, and for nothing that a commit is
    /// needed for.
    pub async fn sale(self) {
        self.0.await;
    }
}

/// What is to be committed with what a message tells of, and the message.
pub type Preparada = (Vec<Cambio>, Salida);

/// Who has what is published: the broker.
pub trait Reparte: Send + Sync {
    /// A change of an alert, on the topic of its empresa. `None` when the broker is gone.
    fn alerta(&self, evento: &Evento) -> Option<Preparada>;
    /// The payload of a message of readings, on the topic of its sensor. `None` when the broker is gone.
    fn lectura(&self, sensor: &SensorRef, payload: Bytes) -> Option<Preparada>;
}

/// The way to the broker, from the moment that there is one; cheap to clone.
#[derive(Clone, Default)]
pub struct Rutas(Arc<OnceLock<Box<dyn Reparte>>>);

impl Rutas {
    /// There is a broker from now on; a second one is not heard.
    pub fn abre(&self, broker: impl Reparte + 'static) {
        let _ = self.0.set(Box::new(broker));
    }

    /// See [`Reparte::alerta`].
    #[must_use]
    pub fn alerta(&self, evento: &Evento) -> Option<Preparada> {
        self.0.get()?.alerta(evento)
    }

    /// See [`Reparte::lectura`].
    #[must_use]
    pub fn lectura(&self, sensor: &SensorRef, payload: Bytes) -> Option<Preparada> {
        self.0.get()?.lectura(sensor, payload)
    }
}

impl fmt::Debug for Rutas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rutas").field(&self.0.get().is_some()).finish()
    }
}
