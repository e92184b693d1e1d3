//! Whoever is on the other side of a connection.

use std::sync::Arc;

use super::Llave;
use crate::domain::{Rol, SensorRef};
use crate::store::sensores::Alcance;

/// A signed-in party.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A device.
    Dispositivo(SensorRef),
    /// A person.
    Usuario(Usuario),
    /// A program.
    Llave(Llave),
    /// Nobody in particular: `mqtt.open` on a loopback listener only.
    Anonimo,
    /// `alertrace doctor`, which tries a server that runs ([`prueba`](super::prueba)).
    Prueba,
}

impl Principal {
    /// The sensors that this party may see, as people do; `None` = none at all.
    #[must_use]
    pub fn alcance(&self) -> Option<Alcance> {
        match self {
            Self::Usuario(usuario) => usuario.alcance(),
            Self::Llave(llave) => Some(llave.alcance()),
            Self::Dispositivo(_) | Self::Anonimo | Self::Prueba => None,
        }
    }
}

/// A person with an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Usuario {
    /// The identity provider's key.
    pub user_id: String,
    /// The row in `trabajadores`.
    pub id_trabajador: i64,
    /// The tenant; `None` until the account joins one.
    pub id_empresa: Option<i64>,
    /// What they may do.
    pub rol: Rol,
    /// The sign-in by which they are here; `None` = another server keeps it, or they are not here.
    pub sesion: Option<Arc<str>>,
}

impl Usuario {
    /// The sensors that this person may see; `None` = none at all. The operador runs the
    /// installation and sees no empresa's data.
    #[must_use]
    pub fn alcance(&self) -> Option<Alcance> {
        let id_empresa = self.id_empresa?;
        match self.rol {
            Rol::Operador => None,
            Rol::AdminEmpresa | Rol::Supervisor => Some(Alcance { id_empresa, id_trabajador: None }),
            Rol::Worker => Some(Alcance { id_empresa, id_trabajador: Some(self.id_trabajador) }),
        }
    }
}
