//! Accounts, sign-in, refresh: one behaviour, whoever keeps the passwords ([`Provider`]).
//!
//! Registration makes the account, its empresa and its person, or nothing ([`alta`]); [`entrada`] is how people sign
//! in, and [`ajena`] the same where a Supabase project keeps the passwords.

mod ajena;
mod alta;
mod codigos;
mod entrada;
mod equipo;
mod error;
mod formas;
mod identidad;
mod legible;
mod reconcilia;
mod sesiones;
mod totp;

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

pub use equipo::Invitada;
pub use error::Error;
pub use formas::{Fichas, NuevaEmpresa, NuevoTrabajador, Perfil, Registrado, SesionAbierta};
pub use identidad::{Cambio, Cuales, NuevaIdentidad};
pub use sesiones::Abierta;
pub use totp::{AltaTotp, EstadoTotp, Prueba, Segundo};

pub use crate::store::identidades::Identidad;

use super::Usuario;
use super::correo::Correo;
use super::provider::{Comprobado, Provider};
use super::tokens::Firmante;
use super::{Directorio, Revocado};
use crate::domain::{Clock, Timestamp};
use crate::limits::rate::Rate;
use crate::store::identidades::Vigente;
use crate::store::{Store, Tx, trabajadores};

/// Who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registro {
    /// The first empresa; then by invitation.
    First,
    /// Anybody.
    Open,
    /// Nobody.
    Closed,
}

/// How accounts are set up.
#[derive(Debug, Clone, Copy)]
pub struct Ajustes {
    /// Who may register.
    pub registro: Registro,
    /// How long an access token is good.
    pub access: Duration,
    /// How long a refresh token is good.
    pub refresh: Duration,
    /// Sign-ins that may wait for their turn.
    pub argon2_cola: usize,
    /// A new account has to confirm its e-mail.
    pub confirmar: bool,
    /// Sign-ins a minute with one e-mail; 0 = no limit.
    pub por_cuenta: u32,
}

/// The provider; cheap to clone.
#[derive(Clone)]
pub struct Cuentas(Arc<Interior>);

struct Interior {
    store: Store,
    clock: Arc<dyn Clock>,
    provider: Provider,
    correo: Correo,
    /// Where connections are told that they end.
    directorio: Arc<Directorio>,
    ajustes: Ajustes,
    por_cuenta: Option<Rate<String>>,
    /// Of a provider elsewhere: held while an account without a person gets one, or is removed, which is one's alone.
    adopciones: tokio::sync::RwLock<()>,
    /// Codes of second factors, by account.
    por_factor: Option<Rate<String>>,
    /// Of a provider elsewhere: the messages that it may be sending for us at a time.
    mensajes: Arc<Semaphore>,
}

impl Cuentas {
    /// With accounts of our own, the installation's secret, and no mail.
    ///
    /// # Errors
    /// None in fact.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        directorio: Arc<Directorio>,
        secreto: &[u8],
        ajustes: Ajustes,
    ) -> Result<Self, Error> {
        let interno = |e: &dyn std::fmt::Display| Error::Interno(e.to_string());
        let provider = Provider::interno(secreto, Firmante::new(secreto), ajustes.argon2_cola);
        let provider = provider.map_err(|e| interno(&e))?;
        let correo = Correo::ninguno().map_err(|e| interno(&e))?;
        Ok(Self::with(store, clock, directorio, provider, correo, ajustes))
    }

    /// With the accounts of `provider`.
    #[must_use]
    pub fn with(
        store: Store,
        clock: Arc<dyn Clock>,
        directorio: Arc<Directorio>,
        provider: Provider,
        correo: Correo,
        ajustes: Ajustes,
    ) -> Self {
        let minuto = Duration::from_secs(60);
        let por_cuenta = Rate::new(ajustes.por_cuenta, minuto, ajustes.por_cuenta);
        let por_factor = totp::frecuencia();
        Self(Arc::new(Interior {
            store,
            clock,
            provider,
            correo,
            directorio,
            ajustes,
            por_cuenta,
            por_factor,
            mensajes: Arc::new(Semaphore::new(codigos::MENSAJES)),
            adopciones: tokio::sync::RwLock::default(),
        }))
    }

    /// One more sign-in with an e-mail, whether or not it has an account: whoever tries many passwords from many
    /// addresses is held up all the same.
    fn cuenta_entrada(&self, email: &str) -> Result<(), Error> {
        // Longer than an e-mail may be is none, and not worth the memory.
        let clave: String = email.chars().take(254).collect();
        let pasa = self.0.por_cuenta.as_ref().map_or(Ok(()), |rate| rate.check(clave));
        pasa.map_err(Error::Demasiadas)
    }

    /// The keys that others check our access tokens with.
    #[must_use]
    pub fn jwks(&self) -> JwkSet {
        match &self.0.provider {
            Provider::Interno(p) => p.firmante.publicadas().clone(),
            Provider::Supabase(_) => JwkSet::default(),
        }
    }

    /// Whose access token this is, and until when it is good.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn usuario(&self, access_token: &str) -> Result<(Usuario, Timestamp), Error> {
        let Comprobado { user_id, caduca, generacion, emitido, segundo, sesion } =
            self.0.provider.comprueba(access_token, self.0.clock.now()).await?;
        let perfil = self.0.store.presente(&user_id, sesion.as_deref().unwrap_or_default()).await?;
        let perfil = perfil.ok_or(Error::SinPerfil)?;
        if !perfil.activo {
            return Err(Error::Inactivo);
        }
        let pide_segundo = match &self.0.provider {
            Provider::Interno(_) => {
                let Vigente { generacion: suya, segundo } = perfil.vigente.ok_or(Error::Inactivo)?;
                if suya != generacion || !perfil.abierta {
                    return Err(Error::TokenInvalido);
                }
                segundo
            }
            Provider::Supabase(s) => {
                // In whole seconds, as tokens say it.
                if emitido.secs() < perfil.valen_desde.secs() {
                    return Err(Error::TokenInvalido);
                }
                !segundo && self.pide_segundo_alli(s, &user_id, access_token).await?
            }
        };
        if pide_segundo && !segundo {
            return Err(Error::TotpRequerido);
        }
        let usuario = Usuario {
            user_id,
            id_trabajador: perfil.id_trabajador,
            id_empresa: perfil.id_empresa,
            rol: perfil.rol,
            sesion,
        };
        Ok((usuario, caduca))
    }

    /// Commits what ends somebody's connections, and ends them: both, whoever is dropped meanwhile.
    async fn confirma_y_corta(&self, tx: Tx, quien: Revocado) -> Result<(), Error> {
        let directorio = self.0.directorio.clone();
        let hecho = async move { directorio.confirma_y_revoca(tx, quien).await };
        let hecho = tokio::spawn(hecho.in_current_span()).await;
        Ok(hecho.map_err(|e| Error::Interno(e.to_string()))??)
    }

    /// The person behind an account.
    ///
    /// # Errors
    /// [`Error::SinPerfil`] when there is none.
    pub async fn perfil(&self, user_id: &str) -> Result<Perfil, Error> {
        let mut tx = self.0.store.read().await?;
        let perfil = trabajadores::by_user_id(&mut tx, user_id).await?;
        tx.commit().await?;
        perfil.ok_or(Error::SinPerfil)
    }
}

/// Those who came by these sign-ins.
fn venidos_por(sesiones: impl IntoIterator<Item = String>) -> Revocado {
    Revocado::Sesiones(Arc::new(sesiones.into_iter().collect()))
}

fn normaliza(email: &str) -> String {
    email.trim().to_lowercase()
}

#[cfg(test)]
mod tests;
