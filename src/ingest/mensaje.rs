//! What goes to the writer and what comes back.

use bytes::Bytes;

use crate::domain::{Alerta, EstadoAlerta, Lectura, Rechazo, SensorRef, Timestamp};
use crate::store::auditoria::Autor;
use crate::store::mqtt::Cambio;

/// A decoded message of a sensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Mensaje {
    /// Who measured.
    pub sensor: SensorRef,
    /// What can be stored.
    pub lecturas: Vec<Lectura>,
    /// What cannot, and why.
    pub rechazos: Vec<Rechazo>,
    /// When the server received it.
    pub recibido: Timestamp,
    /// Whether the sender marked it as sent before (MQTT's DUP).
    pub dup: bool,
    /// Store it only while whoever sent it waits for the answer: a request that timed out is made
    /// again, and without a timestamp both would be stored.
    pub si_esperan: bool,
    /// What the broker keeps of it for sessions that must not miss it: written in the transaction of
    /// its readings, if one of them is new.
    pub al_aceptar: Vec<Cambio>,
    /// Its payload, where nobody but the writer tells subscribers of it: it came by HTTP.
    pub por_decir: Option<Bytes>,
}

/// What is done when changes are committed: by the writer, in the order of its commits and before anybody is
/// answered, so it waits for nothing.
pub type Luego = Box<dyn FnOnce() + Send + Sync>;

/// Changes of what the broker keeps.
#[derive(Default)]
pub struct Cambios {
    /// What.
    pub cambios: Vec<Cambio>,
    /// See [`Luego`]; not done when they are refused.
    pub luego: Option<Luego>,
}

impl From<Vec<Cambio>> for Cambios {
    fn from(cambios: Vec<Cambio>) -> Self {
        Self { cambios, luego: None }
    }
}

impl std::fmt::Debug for Cambios {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.cambios.fmt(f)
    }
}

/// What became of a [`Mensaje`], after its commit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resultado {
    /// Readings stored (new, or merged into a stored one).
    pub aceptadas: u32,
    /// Readings that were stored already.
    pub duplicadas: u32,
    /// Alerts that it opened.
    pub alertas_generadas: u32,
    /// Everything that was refused, from decoding to the database.
    pub rechazos: Vec<Rechazo>,
}

impl Resultado {
    /// Nothing of the message is a stored reading: MQTT 5 answers 0x99, HTTP 422.
    #[must_use]
    pub const fn rechazado(&self) -> bool {
        self.aceptadas == 0 && self.duplicadas == 0
    }
}

/// A person closes an alert, or says where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolver {
    /// Which.
    pub id_alerta: i64,
    /// What it is to be from now on.
    pub estado: EstadoAlerta,
    /// The person.
    pub por: Autor,
    /// What they wrote: `None` leaves the notes as they are, `Some(None)` takes them away.
    pub notas: Option<Option<String>>,
}

/// What became of a [`Resolver`].
#[derive(Debug, Clone, PartialEq)]
pub struct Resuelta {
    /// The alert, as it is now: what was closed before this request stays as it was.
    pub alerta: Alerta,
    /// The last reading is still outside: a new alert was opened, one step more severe.
    pub nueva: Option<Alerta>,
}
