//! A sensor as the paths that carry readings need it.

use serde::{Deserialize, Serialize};

use super::DeviceId;

/// Which sensor, whose, by which name. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SensorRef {
    /// Key in `sensores`.
    pub id_sensor: i64,
    /// The tenant that owns it.
    pub id_empresa: i64,
    /// Its name on the wire.
    pub device_id: DeviceId,
}

/// What the people who run the site say of a sensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EstadoSensor {
    /// In use.
    Activo,
    /// Retired: its credential is revoked, its history kept.
    Inactivo,
    /// In use, being worked on.
    Mantenimiento,
}

impl EstadoSensor {
    /// As stored and as on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Activo => "activo",
            Self::Inactivo => "inactivo",
            Self::Mantenimiento => "mantenimiento",
        }
    }

    /// The inverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Activo, Self::Inactivo, Self::Mantenimiento].into_iter().find(|e| e.as_str() == text)
    }
}

/// Whether a device is connected by MQTT right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Conexion {
    /// A session of the device is connected.
    Online,
    /// It was connected since the server started, and is not now.
    Offline,
    /// It has not been seen since the server started.
    Desconocida,
}

impl Conexion {
    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Desconocida => "desconocida",
        }
    }
}
