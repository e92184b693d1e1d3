//! What the site says on topics of its own, `alertas/{id_empresa}` and readings that came by HTTP: the broker's
//! end of [`Rutas`](crate::realtime::Rutas).
//!
//! The writer has the rows of sessions that are kept committed with what is told, and then hands the message
//! over here. What is handed over and not delivered any more when the server stops is read from the store by
//! the next one.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::broker::Compartido;
use super::publicacion::{Publicacion, Qos};
use super::reparto::Reparto;
use crate::domain::SensorRef;
use crate::realtime::Evento;
use crate::realtime::rutas::{Preparada, Reparte, Salida};

/// Messages that may wait to be delivered. Beyond it the writer waits, for as long as that takes: it waits for
/// nothing but memory and the router's thread.
const ESPERAN: usize = 4_096;

/// The way in.
pub(super) struct Puente {
    broker: Weak<Compartido>,
    entrega: mpsc::Sender<Reparto>,
}

/// The way out.
pub(super) type Salidas = mpsc::Receiver<Reparto>;

pub(super) fn canal() -> (mpsc::Sender<Reparto>, Salidas) {
    mpsc::channel(ESPERAN)
}

impl Puente {
    pub(super) fn new(broker: &Arc<Compartido>, entrega: mpsc::Sender<Reparto>) -> Self {
        // The broker has the writer, and the writer has this.
        Self { broker: Arc::downgrade(broker), entrega }
    }

    fn prepara(&self, publicacion: Publicacion) -> Option<Preparada> {
        let (reparto, _) = self.broker.upgrade()?.reparto(publicacion);
        let entrega = self.entrega.clone();
        let cambios = reparto.cambios();
        let salida = Salida::new(async move {
            // Nobody takes it: the server stops.
            let _ = entrega.send(reparto).await;
        });
        Some((cambios, salida))
    }
}

impl Reparte for Puente {
    fn alerta(&self, evento: &Evento) -> Option<Preparada> {
        let topic = format!("alertas/{}", evento.sensor.id_empresa);
        let mut publicacion = Publicacion::del_servidor(topic, evento.json(), Qos::Uno, false);
        publicacion.sensor = Some(evento.sensor.id_sensor);
        self.prepara(publicacion)
    }

    fn lectura(&self, sensor: &SensorRef, payload: Bytes) -> Option<Preparada> {
        let topic = format!("sensores/{}/data", sensor.device_id);
        self.prepara(Publicacion::del_servidor(topic, payload, Qos::Uno, false))
    }
}

impl Compartido {
    /// Delivers what was committed, as it comes.
    pub(super) async fn entrega_salidas(self: &Arc<Self>, mut salidas: Salidas) {
        while let Some(reparto) = salidas.recv().await {
            let (huerfanas, publicacion) = self.deja(reparto);
            if !huerfanas.is_empty() {
                // That takes a commit, and the writer may be waiting for us.
                let yo = self.clone();
                self.conexiones.spawn(async move { yo.heredan(huerfanas).await });
            }
            // `Parado` ends the process by way of the router's token.
            let _ = self.rutea(publicacion).await;
        }
    }
}
