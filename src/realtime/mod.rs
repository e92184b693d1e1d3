//! Fan-out: what was committed, told to whoever listens.
//!
//! An event is sent only after its commit, serialised once however many hear it. Every listener has
//! a bounded window; one that falls behind learns how many it missed and starts again from a
//! snapshot. Who may see an event is decided by each listener with `identity::Directorio`.

pub mod clientes;
mod pedidos;
mod presencia;
pub mod rutas;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::domain::{Accion, Alerta, Conexion, SensorRef, Timestamp, Valores};

pub use clientes::Clientes;
pub use pedidos::Pedidos;
pub use presencia::Presencia;
pub use rutas::Rutas;

/// How many events a listener may lag before it misses some.
const WINDOW: usize = 8192;

/// Something that happened to a sensor.
#[derive(Debug)]
pub struct Evento {
    /// Whose.
    pub sensor: SensorRef,
    /// What.
    pub que: Que,
    json: OnceLock<Bytes>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Que {
    /// A reading that moved the sensor's newest values.
    Lectura {
        /// When it was measured.
        ts: Timestamp,
        /// Its values.
        valores: Valores,
    },
    /// An alert changed.
    Alerta(Accion, Box<Alerta>),
    /// The device connected or went.
    Estado(Conexion),
}

impl Evento {
    /// An event of `sensor`.
    #[must_use]
    pub const fn new(sensor: SensorRef, que: Que) -> Self {
        Self { sensor, que, json: OnceLock::new() }
    }

    /// The JSON of contract section 3, made at most once.
    pub fn json(&self) -> Bytes {
        self.json.get_or_init(|| self.serialize().into()).clone()
    }

    /// The name by which a WebSocket filters it (`lectura`, `alerta`, `estado`).
    #[must_use]
    pub const fn nombre(&self) -> &'static str {
        match self.que {
            Que::Lectura { .. } => "lectura",
            Que::Alerta(..) => "alerta",
            Que::Estado(_) => "estado",
        }
    }

    fn serialize(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Data<'a> {
            #[serde(flatten)]
            valores: &'a Valores,
            timestamp: Timestamp,
        }
        #[derive(Serialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Frame<'a> {
            SensorUpdate { device_id: &'a str, id_sensor: i64, data: Data<'a> },
            Alerta { accion: Accion, alerta: &'a Alerta },
            Estado { device_id: &'a str, id_sensor: i64, estado: Conexion },
        }
        let (device_id, id_sensor) = (self.sensor.device_id.as_str(), self.sensor.id_sensor);
        let frame = match &self.que {
            Que::Lectura { ts, valores } => {
                Frame::SensorUpdate { device_id, id_sensor, data: Data { valores, timestamp: *ts } }
            }
            Que::Alerta(accion, alerta) => Frame::Alerta { accion: *accion, alerta },
            Que::Estado(estado) => Frame::Estado { device_id, id_sensor, estado: *estado },
        };
        serde_json::to_vec(&frame).unwrap_or_default()
    }
}

/// Where events are sent and heard; cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub(broadcast::Sender<Arc<Evento>>);

impl Default for Hub {
    fn default() -> Self {
        Self(broadcast::channel(WINDOW).0)
    }
}

impl Hub {
    /// Tells every listener. Never waits: a listener that is too slow misses events and knows it.
    pub fn send(&self, evento: Evento) {
        // No receiver is no error: nobody is listening.
        let _ = self.0.send(Arc::new(evento));
    }

    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Arc<Evento>> {
        self.0.subscribe()
    }
}
