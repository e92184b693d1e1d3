//! An alert, as stored and as sent.

use serde::{Deserialize, Serialize};

use super::{DeviceId, Timestamp};

/// How bad; ordered.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severidad {
    /// Worth knowing.
    Baja,
    /// Outside its umbral by at most 10 % of the umbral's range.
    Media,
    /// Beyond that.
    Alta,
    /// Beyond 25 %.
    Critica,
}

impl Severidad {
    /// As stored and as on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Baja => "baja",
            Self::Media => "media",
            Self::Alta => "alta",
            Self::Critica => "critica",
        }
    }

    /// The inverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Baja, Self::Media, Self::Alta, Self::Critica].into_iter().find(|s| s.as_str() == text)
    }

    /// One step worse; the worst stays.
    #[must_use]
    pub const fn siguiente(self) -> Self {
        match self {
            Self::Baja => Self::Media,
            Self::Media => Self::Alta,
            Self::Alta | Self::Critica => Self::Critica,
        }
    }
}

/// Where an alert is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EstadoAlerta {
    /// Open, nobody has taken it.
    Pendiente,
    /// Open, somebody has.
    EnProceso,
    /// Closed, by a person or by readings back inside.
    Resuelta,
    /// Closed without an answer.
    Ignorada,
}

impl EstadoAlerta {
    /// As stored and as on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pendiente => "pendiente",
            Self::EnProceso => "en_proceso",
            Self::Resuelta => "resuelta",
            Self::Ignorada => "ignorada",
        }
    }

    /// The inverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pendiente, Self::EnProceso, Self::Resuelta, Self::Ignorada]
            .into_iter()
            .find(|e| e.as_str() == text)
    }

    /// Whether it still counts against (sensor, variable).
    #[must_use]
    pub const fn abierta(self) -> bool {
        matches!(self, Self::Pendiente | Self::EnProceso)
    }
}

/// What happened to an alert, as the WebSocket and MQTT say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Accion {
    /// It was opened.
    Creada,
    /// Its severity rose, or somebody took it.
    Actualizada,
    /// It was closed, with an answer or without.
    Resuelta,
}

/// The shape of contract section 2.1.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Alerta {
    /// Key.
    pub id_alerta: i64,
    /// The tenant; not part of the wire shape.
    #[serde(skip)]
    pub id_empresa: i64,
    /// The sensor.
    pub id_sensor: i64,
    /// The sensor's name on the wire.
    #[schema(value_type = String)]
    #[serde(serialize_with = "device_id_text")]
    pub device_id: DeviceId,
    /// The variable, or `conexion`, `bateria`, `almacenamiento`.
    pub tipo_alerta: String,
    /// How bad, the worst so far.
    pub severidad: Severidad,
    /// One line for a person, Spanish.
    pub titulo: String,
    /// What happened, Spanish.
    pub mensaje: String,
    /// The value that opened it or last raised it.
    pub valor_actual: Option<f64>,
    /// The bound that was crossed.
    pub valor_umbral: Option<f64>,
    /// Unit of both.
    pub unidad: String,
    /// Where it is in its life.
    pub estado: EstadoAlerta,
    /// `estado` is `resuelta`.
    pub resuelta: bool,
    /// Somebody looked at it.
    pub vista: bool,
    /// Made by a reading older than the sensor's newest: closed from the start, notifies nobody.
    pub historica: bool,
    /// The moment of the reading that opened it.
    pub fecha_creacion: Timestamp,
    /// When it was closed.
    pub fecha_resolucion: Option<Timestamp>,
    /// Who closed it (`user_id`); absent when readings did.
    pub resuelta_por: Option<String>,
    /// What that person wrote.
    pub notas: Option<String>,
}

fn device_id_text<S: serde::Serializer>(id: &DeviceId, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(id.as_str())
}
