//! Programs: how an API key is made, kept and checked, and what it may do.
//!
//! A key is 32 random bytes, shown once and kept as its SHA-256, as a device's token is
//! ([`super::dispositivo`]). It sees all sensors of its empresa, and does nothing that it has no
//! [`Permiso`] for.

use serde::{Deserialize, Serialize};

use super::dispositivo;
use crate::domain::Timestamp;
use crate::store::api_keys::{self, ApiKey};
use crate::store::sensores::Alcance;
use crate::store::{self, Store};

/// How every key begins, so that it is told from an access token, and found where it should not be.
pub const PREFIJO: &str = "atk_";

/// Something that a key may do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
pub enum Permiso {
    /// Sensors, their newest values and their history, by HTTP.
    #[serde(rename = "lecturas:read")]
    LecturasRead,
    /// Alerts, by HTTP.
    #[serde(rename = "alertas:read")]
    AlertasRead,
    /// The topics of the empresa's sensors and alerts, by MQTT.
    #[serde(rename = "mqtt:subscribe")]
    MqttSubscribe,
}

impl Permiso {
    const TODOS: [Self; 3] = [Self::LecturasRead, Self::AlertasRead, Self::MqttSubscribe];

    /// As stored and as on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LecturasRead => "lecturas:read",
            Self::AlertasRead => "alertas:read",
            Self::MqttSubscribe => "mqtt:subscribe",
        }
    }

    /// Those of a stored text; names that this version does not know permit nothing.
    #[must_use]
    pub fn lee(texto: &str) -> Vec<Self> {
        let tiene = |p: &Self| texto.split(' ').any(|nombre| nombre == p.as_str());
        Self::TODOS.into_iter().filter(tiene).collect()
    }

    /// The text of [`Self::lee`].
    #[must_use]
    pub fn escribe(permisos: &[Self]) -> String {
        let suyos = Self::TODOS.into_iter().filter(|p| permisos.contains(p));
        suyos.map(Self::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// A program that is let in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Llave {
    /// The row in `api_keys`.
    pub id_api_key: i64,
    /// The tenant.
    pub id_empresa: i64,
    /// What it may do.
    pub permisos: Vec<Permiso>,
    /// Until when it is good.
    pub expira: Option<Timestamp>,
}

impl Llave {
    /// Whether it may do this.
    #[must_use]
    pub fn puede(&self, permiso: Permiso) -> bool {
        self.permisos.contains(&permiso)
    }

    /// The sensors that it sees: all of its empresa.
    #[must_use]
    pub const fn alcance(&self) -> Alcance {
        Alcance { id_empresa: self.id_empresa, id_trabajador: None }
    }
}

impl From<ApiKey> for Llave {
    fn from(k: ApiKey) -> Self {
        Self {
            id_api_key: k.id_api_key,
            id_empresa: k.id_empresa,
            permisos: Permiso::lee(&k.permisos),
            expira: k.expira.map(Timestamp::clamped),
        }
    }
}

/// Makes a key.
///
/// # Errors
/// When the machine has no randomness.
pub fn genera() -> Result<dispositivo::Token, getrandom::Error> {
    let texto = format!("{PREFIJO}{}", dispositivo::genera()?.texto);
    let hash = dispositivo::hash(texto.as_bytes());
    Ok(dispositivo::Token { texto, hash })
}

/// Whose key this is; `None` = nobody's, or not any more: the caller never learns which.
///
/// # Errors
/// Those of the store.
pub async fn entra(store: &Store, clave: &[u8], ahora: Timestamp) -> store::Result<Option<Llave>> {
    let mut tx = store.read().await?;
    let suya = api_keys::by_hash(&mut tx, &dispositivo::hash(clave)).await?;
    tx.commit().await?;
    Ok(suya.filter(|k| k.vigente(ahora)).map(Llave::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_read_back_and_unknown_ones_permit_nothing() {
        let suyos = [Permiso::MqttSubscribe, Permiso::LecturasRead, Permiso::MqttSubscribe];
        let texto = Permiso::escribe(&suyos);
        assert_eq!(texto, "lecturas:read mqtt:subscribe");
        assert_eq!(Permiso::lee(&texto), [Permiso::LecturasRead, Permiso::MqttSubscribe]);
        assert_eq!(Permiso::lee("alertas:readx otro"), []);
        assert!(genera().unwrap().texto.starts_with(PREFIJO));
    }
}
