//! What goes wrong with accounts.

use std::time::Duration;

use crate::identity::password::{self, Debil};
use crate::identity::tokens;
use crate::store;

/// What goes wrong with accounts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such account or not its password; which of the two is not said.
    #[error("wrong e-mail or password")]
    Credenciales,
    /// Not a token of ours.
    #[error("not a valid token")]
    TokenInvalido,
    /// It was one.
    #[error("the token has expired")]
    TokenCaducado,
    /// The account was deactivated.
    #[error("the account is not active")]
    Inactivo,
    /// An identity without a person.
    #[error("the account has no profile")]
    SinPerfil,
    /// `identity.registration` does not let this account register.
    #[error("registration is closed")]
    RegistroCerrado,
    /// The code is not one that can be used.
    #[error("not a valid invitation")]
    InvitacionInvalida,
    /// An account is made by invitation only.
    #[error("an invitation is needed")]
    InvitacionNecesaria,
    /// The empresa has too many that nobody has used.
    #[error("too many invitations are open")]
    DemasiadasInvitaciones,
    /// The account belongs to an empresa, or to the installation.
    #[error("the account belongs to an empresa already")]
    YaEnEmpresa,
    /// Somebody has it: `email`, `ruc` or `dni`.
    #[error("{0} is in use")]
    EnUso(&'static str),
    /// Too short or too long.
    #[error(
        "the password needs {} characters at least, {} bytes at most",
        password::MIN_LARGO,
        password::MAX_BYTES
    )]
    ClaveDebil,
    /// Many people have this password.
    #[error("the password is one of the most common")]
    ClaveComun,
    /// The new password is the old one.
    #[error("the password is the one of before")]
    MismaClave,
    /// Supabase keeps the sign-ins, and shows them to nobody.
    #[error("the sign-ins are kept by the identity provider")]
    SesionesAlli,
    /// The account has a second factor, and its code was not shown.
    #[error("the code of the second factor is needed")]
    TotpRequerido,
    /// Not a code of it, or one that was used.
    #[error("not a code of the second factor, or not any more")]
    TotpIncorrecto,
    /// The account has one.
    #[error("the account has a second factor already")]
    TotpActivo,
    /// The account has none that could be confirmed, or used.
    #[error("the account has no such second factor")]
    SinTotp,
    /// Second factors are Supabase's, as its accounts are.
    #[error("second factors are kept by the identity provider")]
    TotpAlli,
    /// This server sends no mail.
    #[error("this server sends no mail")]
    SinCorreo,
    /// Too many sign-ins at once.
    #[error("too many sign-ins at once")]
    Saturado,
    /// The e-mail has to be confirmed first.
    #[error("the e-mail has not been confirmed")]
    SinConfirmar,
    /// The code of a message is not good, or not any more.
    #[error("not a valid code")]
    CodigoInvalido,
    /// A field that the identity provider does not take.
    #[error("{0} is not taken by the identity provider")]
    DatosInvalidos(&'static str),
    /// The identity provider does not answer; when to try again.
    #[error("the identity provider does not answer")]
    ProveedorAusente(Duration),
    /// The identity provider answers with an error of its own.
    #[error("the identity provider fails")]
    ProveedorRoto,
    /// Whoever answers in the identity provider's place shows a certificate that is not believed.
    #[error("the identity provider's certificate is not believed")]
    ProveedorAjeno,
    /// Asked too often; how long to wait.
    #[error("asked too often")]
    Demasiadas(Duration),
    /// The store.
    #[error(transparent)]
    Store(store::Error),
    /// What should not happen.
    #[error("{0}")]
    Interno(String),
}

impl Error {
    /// It says nothing of whoever asks: the same may be good in a while.
    #[must_use]
    pub const fn es_pasajero(&self) -> bool {
        matches!(
            self,
            Self::Store(_)
                | Self::ProveedorAusente(_)
                | Self::ProveedorRoto
                | Self::ProveedorAjeno
                | Self::Demasiadas(_)
        )
    }
}

impl From<store::Error> for Error {
    fn from(e: store::Error) -> Self {
        for (tabla, columna) in [
            ("identidades", "email"),
            ("empresas", "ruc"),
            ("trabajadores", "dni"),
            ("trabajadores", "email"),
        ] {
            if e.conflicts_on(tabla, columna) {
                return Self::EnUso(columna);
            }
        }
        Self::Store(e)
    }
}

impl From<Debil> for Error {
    fn from(debil: Debil) -> Self {
        match debil {
            Debil::Largo => Self::ClaveDebil,
            Debil::Comun => Self::ClaveComun,
        }
    }
}

impl From<password::Error> for Error {
    fn from(e: password::Error) -> Self {
        match e {
            password::Error::Saturado => Self::Saturado,
            password::Error::Argon2(_) => Self::Interno(e.to_string()),
        }
    }
}

impl From<tokens::Error> for Error {
    fn from(e: tokens::Error) -> Self {
        match e {
            tokens::Error::Invalido => Self::TokenInvalido,
            tokens::Error::Caducado => Self::TokenCaducado,
            tokens::Error::SinClaves => Self::ProveedorAusente(Duration::from_secs(5)),
        }
    }
}
