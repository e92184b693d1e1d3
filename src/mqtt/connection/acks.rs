//! Acknowledgements that are open, in the order in which they must be sent [MQTT-4.6.0-2].

use std::collections::VecDeque;
use std::pin::Pin;

use metrics::histogram;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::domain::SensorRef;
use crate::ingest::{Cerrado, Resultado};
use crate::mqtt::protocol::Razon;
use crate::mqtt::publicacion::{Publicacion, Qos};
use crate::mqtt::reparto::{Entregable, Reparto};
use crate::mqtt::session::Entrega;
use crate::store;

/// Something that the client is to be told.
pub(super) struct Acuse {
    pub(super) que: Que,
    pub(super) espera: Espera,
    /// When it came, of those whose wait is measured.
    pub(super) desde: Option<Instant>,
}

/// Of every so many messages of a connection one is measured: a sample that costs the others nothing.
pub(super) const MEDIDO: u64 = 16;

/// What the client is to be told, and what is done with it then.
pub(super) enum Que {
    /// Its message was refused.
    Negado { pid: Option<u16>, qos: Qos, razon: Razon, detalle: Option<String> },
    /// Its message is taken: it is delivered when its turn comes.
    Tomado { pid: Option<u16>, qos: Qos, razon: Razon, entregable: Box<Entregable> },
    /// Its readings are stored or refused.
    Leido { pid: Option<u16>, qos: Qos, lectura: Box<Lectura> },
    /// SUBACK, and what was retained.
    Suscrito { pid: u16, resultados: Vec<Result<Qos, Razon>>, retenidos: Vec<Entrega> },
    /// UNSUBACK.
    Desuscrito { pid: u16, habia: Vec<bool> },
    /// PUBREL, for a message that the client has.
    Libera { pid: u16 },
    /// PUBCOMP, for a message that the client released.
    Completa { pid: u16, conocido: bool },
}

impl Que {
    /// The packet id of a message of the client that waits to be acknowledged.
    pub(super) fn de_mensaje(&self) -> Option<u16> {
        match self {
            Self::Negado { pid, .. } | Self::Tomado { pid, .. } | Self::Leido { pid, .. } => *pid,
            _ => None,
        }
    }

    /// Whether this is the PUBREC of the message with this packet id.
    pub(super) fn es_pubrec(&self, de: u16) -> bool {
        match self {
            Self::Negado { pid, qos, .. } | Self::Tomado { pid, qos, .. } | Self::Leido { pid, qos, .. } => {
                *qos == Qos::Dos && *pid == Some(de)
            }
            _ => false,
        }
    }
}

/// What must have happened before.
pub(super) enum Espera {
    /// Only those before it.
    Turno,
    /// The commit of readings.
    Lecturas(Respuesta<Resultado>),
    /// The commit of what the broker keeps.
    Guardado(Respuesta<store::Result<()>>),
}

/// A message of readings, and whose.
pub(super) struct Lectura {
    pub(super) sensor: SensorRef,
    /// As it is delivered if it is accepted; a reading is not retained: the newest is the API's to tell.
    pub(super) reparto: Reparto,
}

/// The writer's answer, as far as it has come.
pub(super) enum Respuesta<T> {
    Por(oneshot::Receiver<T>),
    /// `None`: the writer stopped without committing it.
    Dada(Option<T>),
}

impl<T> Respuesta<T> {
    /// Waits for the answer and keeps it. Safe to drop half-way.
    pub(super) async fn llega(&mut self) {
        if let Self::Por(respuesta) = self {
            let dada = respuesta.await.ok();
            *self = Self::Dada(dada);
        }
    }

    /// Takes the answer if it is there.
    pub(super) fn toma(&mut self) -> Option<Option<T>> {
        if let Self::Por(respuesta) = self {
            match respuesta.try_recv() {
                Ok(resultado) => *self = Self::Dada(Some(resultado)),
                Err(oneshot::error::TryRecvError::Closed) => *self = Self::Dada(None),
                Err(oneshot::error::TryRecvError::Empty) => return None,
            }
        }
        match self {
            Self::Dada(resultado) => Some(resultado.take()),
            Self::Por(_) => None,
        }
    }
}

/// How the first of the queue stands.
pub(super) enum Frente {
    /// It waits, or there is none.
    Nada,
    /// It can be told. Readings come with what became of them; `false` when what should have been
    /// kept was refused by the database.
    Listo(Que, Option<Resultado>, bool),
    /// Its commit will not come: the server stops.
    Nunca,
}

/// Takes the first of the queue if it can be told.
pub(super) fn toma(acuses: &mut VecDeque<Acuse>) -> Frente {
    let Some(acuse) = acuses.front_mut() else { return Frente::Nada };
    let (resultado, guardado) = match &mut acuse.espera {
        Espera::Turno => (None, true),
        Espera::Lecturas(respuesta) => match respuesta.toma() {
            None => return Frente::Nada,
            Some(None) => return Frente::Nunca,
            Some(resultado) => (resultado, true),
        },
        Espera::Guardado(respuesta) => match respuesta.toma() {
            None => return Frente::Nada,
            Some(None) => return Frente::Nunca,
            Some(Some(hecho)) => (None, hecho.is_ok()),
        },
    };
    match acuses.pop_front() {
        Some(acuse) => {
            if let Some(desde) = acuse.desde {
                histogram!("alertrace_mqtt_ack_seconds").record(desde.elapsed());
            }
            Frente::Listo(acuse.que, resultado, guardado)
        }
        None => Frente::Nada,
    }
}

/// Ready when the first of the queue can be told; never while there is none.
pub(super) async fn frente(acuses: &mut VecDeque<Acuse>) {
    match acuses.front_mut() {
        Some(Acuse { espera: Espera::Lecturas(respuesta), .. }) => respuesta.llega().await,
        Some(Acuse { espera: Espera::Guardado(respuesta), .. }) => respuesta.llega().await,
        Some(_) => {}
        None => std::future::pending().await,
    }
}

/// Something for which the writer has no room yet.
pub(super) struct Atascado {
    pub(super) que: Que,
    pub(super) entregando: Pin<Box<dyn Future<Output = Result<Espera, Cerrado>> + Send>>,
    /// See [`Acuse::desde`].
    pub(super) desde: Option<Instant>,
}

/// What became of what is stuck.
pub(super) async fn tomado(atascado: &mut Option<Atascado>) -> Result<Espera, Cerrado> {
    match atascado {
        Some(atascado) => (&mut atascado.entregando).await,
        None => std::future::pending().await,
    }
}

/// Messages that are held here, the client's and those that its subscriptions found, in bytes.
pub(super) fn bytes(que: &Que) -> usize {
    let peso = |p: &Publicacion| p.peso();
    match que {
        Que::Tomado { entregable, .. } => peso(entregable.publicacion()),
        Que::Leido { lectura, .. } => peso(&lectura.reparto.publicacion),
        // The messages themselves are held by `retained`.
        Que::Suscrito { retenidos, .. } => retenidos.len() * size_of::<Entrega>(),
        _ => 0,
    }
}
