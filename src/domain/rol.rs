//! What a person may do.

use serde::{Deserialize, Serialize};

/// The role of a person (contract section 2). A worker is limited to assigned sensors; the others
/// see everything of their empresa. `operador` belongs to the installation and sees no empresa.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rol {
    /// The installation itself; made by the command line only.
    Operador,
    /// Everything of the empresa.
    AdminEmpresa,
    /// Sees all sensors of the empresa, resolves alerts, sets thresholds, sends commands.
    Supervisor,
    /// Sees assigned sensors, resolves their alerts.
    Worker,
}

impl Rol {
    /// As stored and as on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operador => "operador",
            Self::AdminEmpresa => "admin_empresa",
            Self::Supervisor => "supervisor",
            Self::Worker => "worker",
        }
    }

    /// The inverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Operador, Self::AdminEmpresa, Self::Supervisor, Self::Worker]
            .into_iter()
            .find(|r| r.as_str() == text)
    }

    /// `user_type` in answers: `empresa` for the admin, else `trabajador`.
    #[must_use]
    pub const fn user_type(self) -> &'static str {
        match self {
            Self::AdminEmpresa => "empresa",
            _ => "trabajador",
        }
    }
}
