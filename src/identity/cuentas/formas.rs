//! What accounts are made of, and what a sign-in answers.

use std::fmt;

use crate::domain::Rol;
use crate::store::trabajadores::Trabajador;

/// What an account and its empresa are made of.
#[derive(Clone)]
pub struct NuevaEmpresa {
    /// Signs in.
    pub email: String,
    /// At least ten characters.
    pub password: String,
    /// Given name.
    pub nombre: String,
    /// Surname; may be empty.
    pub apellido: String,
    /// Eight digits.
    pub dni: Option<String>,
    /// Where to call.
    pub telefono: Option<String>,
    /// Eleven digits.
    pub ruc: String,
    /// Registered name.
    pub razon_social: String,
    /// The empresa's own e-mail.
    pub empresa_email: Option<String>,
}

/// What the account of a person is made of.
#[derive(Clone)]
pub struct NuevoTrabajador {
    /// Signs in.
    pub email: String,
    /// At least ten characters.
    pub password: String,
    /// Given name.
    pub nombre: String,
    /// Surname.
    pub apellido: String,
    /// Eight digits.
    pub dni: Option<String>,
    /// Where to call.
    pub telefono: Option<String>,
    /// Joins the empresa that issued it.
    pub codigo_invitacion: Option<String>,
}

/// Without the password.
impl fmt::Debug for NuevaEmpresa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NuevaEmpresa")
            .field("email", &self.email)
            .field("ruc", &self.ruc)
            .finish_non_exhaustive()
    }
}

/// Without the password and the code.
impl fmt::Debug for NuevoTrabajador {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NuevoTrabajador").field("email", &self.email).finish_non_exhaustive()
    }
}

/// Whoever an account is made for.
pub(super) struct Persona {
    pub(super) nombre: String,
    pub(super) apellido: String,
    pub(super) dni: Option<String>,
    pub(super) telefono: Option<String>,
    pub(super) rol: Rol,
}

/// An account that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registrado {
    /// Its key.
    pub user_id: String,
    /// The row in `trabajadores`.
    pub id_trabajador: i64,
    /// As it signs in.
    pub email: String,
    /// What it may do.
    pub rol: Rol,
}

/// A person, as `/auth/me` shows them.
pub type Perfil = Trabajador;

/// A sign-in.
#[derive(Clone)]
pub struct SesionAbierta {
    /// Shown at every request.
    pub access_token: String,
    /// Exchanged for the next pair.
    pub refresh_token: String,
    /// Seconds that the access token is good.
    pub expires_in: u64,
    /// Whose.
    pub perfil: Perfil,
}

/// The tokens of a sign-in.
#[derive(Clone)]
pub struct Fichas {
    /// Shown at every request.
    pub access_token: String,
    /// Exchanged for the next pair.
    pub refresh_token: String,
    /// Seconds that the access token is good.
    pub expires_in: u64,
    /// Until when, in seconds since the epoch.
    pub expira: i64,
}

impl Fichas {
    pub(super) fn con(self, perfil: Perfil) -> SesionAbierta {
        let Self { access_token, refresh_token, expires_in, .. } = self;
        SesionAbierta { access_token, refresh_token, expires_in, perfil }
    }
}
