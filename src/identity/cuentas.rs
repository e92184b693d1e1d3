//! The built-in identity provider: accounts, sign-in, refresh.
//!
//! Registration is one transaction: the account, its empresa and its person, or nothing. A refresh
//! token is good once: its successor is derived from it, so that using it again within ten seconds
//! (two tabs) gives the same answer, and later ends the whole sign-in.

mod equipo;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};

pub use equipo::Invitada;

use self::equipo::{Lugar, Quien};
use super::password::{self, Claves};
use super::tokens::{self, Claims, Firmante};
use super::{Usuario, dispositivo};
use crate::domain::{Clock, Rol, Timestamp};
use crate::store::auditoria::{Autor, Hecho, Origen};
use crate::store::trabajadores::{self, Trabajador};
use crate::store::{self, Store};

/// A refresh token used again within this time gets the same answer.
const REPETICION: Duration = Duration::from_secs(10);

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
}

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
struct Persona<'a> {
    email: &'a str,
    password: &'a str,
    nombre: &'a str,
    apellido: &'a str,
    dni: Option<&'a str>,
    telefono: Option<&'a str>,
    rol: Rol,
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
    /// Too many sign-ins at once.
    #[error("too many sign-ins at once")]
    Saturado,
    /// The store.
    #[error(transparent)]
    Store(store::Error),
    /// What should not happen.
    #[error("{0}")]
    Interno(String),
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
        }
    }
}

/// The provider; cheap to clone.
#[derive(Clone)]
pub struct Cuentas(Arc<Interior>);

struct Interior {
    store: Store,
    clock: Arc<dyn Clock>,
    firmante: Firmante,
    sucesor: [u8; 32],
    claves: Claves,
    ajustes: Ajustes,
}

impl Cuentas {
    /// With the installation's secret.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, secreto: &[u8], ajustes: Ajustes) -> Self {
        // A key of its own for each purpose.
        let sucesor =
            Sha256::new().chain_update(b"refresh successor").chain_update(secreto).finalize().into();
        let claves = Claves::new(ajustes.argon2_cola);
        Self(Arc::new(Interior { store, clock, firmante: Firmante::new(secreto), sucesor, claves, ajustes }))
    }

    /// Makes an account with an empresa of its own, if registration allows it.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub async fn registrar_empresa(&self, nueva: NuevaEmpresa, de: Origen) -> Result<Registrado, Error> {
        if self.0.ajustes.registro == Registro::Closed {
            return Err(Error::RegistroCerrado);
        }
        self.empresa(nueva, self.0.ajustes.registro == Registro::First, de).await
    }

    /// As [`Self::registrar_empresa`], whatever registration allows: for the command line.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create_admin(&self, nueva: NuevaEmpresa) -> Result<Registrado, Error> {
        self.empresa(nueva, false, Origen::consola()).await
    }

    async fn empresa(
        &self,
        nueva: NuevaEmpresa,
        solo_primera: bool,
        origen: Origen,
    ) -> Result<Registrado, Error> {
        let email = normaliza(&nueva.email);
        if solo_primera {
            // Before the costly hash; decided again where it counts.
            let mut tx = self.0.store.read().await?;
            if store::empresas::any(&mut tx).await? {
                return Err(Error::RegistroCerrado);
            }
        }
        let hash = self.hash(&nueva.password).await?;
        let ahora = self.0.clock.now();
        let mut tx = self.0.store.write().await?;
        if solo_primera && store::empresas::any(&mut tx).await? {
            return Err(Error::RegistroCerrado);
        }
        let user_id = uuid::Uuid::now_v7().to_string();
        store::identidades::create(&mut tx, &user_id, &email, &hash, ahora).await?;
        let empresa = store::empresas::Nueva {
            ruc: &nueva.ruc,
            razon_social: &nueva.razon_social,
            email: nueva.empresa_email.as_deref(),
            telefono: nueva.telefono.as_deref(),
        };
        let id_empresa = store::empresas::create(&mut tx, empresa, ahora).await?;
        let persona = trabajadores::Nuevo {
            user_id: &user_id,
            id_empresa: Some(id_empresa),
            nombre: &nueva.nombre,
            apellido: &nueva.apellido,
            dni: nueva.dni.as_deref(),
            email: &email,
            telefono: nueva.telefono.as_deref(),
            rol: Rol::AdminEmpresa,
        };
        let id_trabajador = trabajadores::create(&mut tx, &persona, ahora).await?;
        let autor = Autor { user_id, id_empresa: Some(id_empresa), origen, momento: ahora };
        let alta = json!({ "ruc": nueva.ruc, "razon_social": nueva.razon_social, "email": email });
        autor.anota(&mut tx, &Hecho::creado("empresa", id_empresa, &alta)).await?;
        tx.commit().await?;
        let user_id = autor.user_id;
        tracing::info!(user_id, id_empresa, "an empresa was registered");
        Ok(Registrado { user_id, id_trabajador, email, rol: Rol::AdminEmpresa })
    }

    /// Makes the account that runs the installation: for the command line alone.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub async fn create_operador(
        &self,
        email: &str,
        password: &str,
        nombre: &str,
        apellido: &str,
    ) -> Result<Registrado, Error> {
        let rol = Rol::Operador;
        let persona = Persona { email, password, nombre, apellido, dni: None, telefono: None, rol };
        self.crea(persona, Lugar::Ninguno, Quien::Mismo(Origen::consola())).await
    }

    async fn hash(&self, clave: &str) -> Result<String, Error> {
        if clave.chars().count() < password::MIN_LARGO || clave.len() > password::MAX_BYTES {
            return Err(Error::ClaveDebil);
        }
        Ok(self.0.claves.hash(clave).await?)
    }

    /// Signs in.
    ///
    /// # Errors
    /// [`Error::Credenciales`] for an unknown e-mail as for a wrong password, at the same cost.
    pub async fn entrar(&self, email: &str, clave: &str, origen: Origen) -> Result<SesionAbierta, Error> {
        let mut tx = self.0.store.read().await?;
        let identidad = store::identidades::by_email(&mut tx, &normaliza(email)).await?;
        tx.commit().await?;
        // What is too long is nobody's password, at the same cost; cut, it could become somebody's.
        let (clave, larga) = if clave.len() > password::MAX_BYTES { ("", true) } else { (clave, false) };
        let guardada = identidad.as_ref().filter(|_| !larga).map(|i| i.clave_hash.clone());
        let igual = self.0.claves.verifica(clave, guardada).await?;
        let identidad = identidad.filter(|_| igual).ok_or(Error::Credenciales)?;
        if !identidad.activa {
            return Err(Error::Inactivo);
        }
        let perfil = self.perfil(&identidad.user_id).await?;
        if !perfil.activo {
            return Err(Error::Inactivo);
        }
        let refresh = dispositivo::genera().map_err(|e| Error::Interno(e.to_string()))?;
        let ahora = self.0.clock.now();
        let familia = uuid::Uuid::now_v7().to_string();
        let mut tx = self.0.store.write().await?;
        let (perfil, generacion) = self.vuelve_a_mirar(&mut tx, &perfil, ahora).await?;
        let expira = ahora.plus(self.0.ajustes.refresh);
        store::refrescos::expire(&mut tx, ahora, 100).await?;
        store::refrescos::create(&mut tx, &refresh.hash, &familia, &perfil.user_id, ahora, expira).await?;
        let (user_id, id_empresa) = (perfil.user_id.clone(), perfil.id_empresa);
        let autor = Autor { user_id, id_empresa, origen, momento: ahora };
        autor.anota(&mut tx, &Hecho::nuevo("entrar", "sesion", &perfil.user_id)).await?;
        tx.commit().await?;
        self.abre(perfil, refresh.texto, ahora, generacion)
    }

    /// Exchanges a refresh token.
    ///
    /// # Errors
    /// [`Error::TokenInvalido`] when it is not good, or not any more; used twice, it ends its sign-in.
    pub async fn refrescar(&self, token: &str) -> Result<SesionAbierta, Error> {
        let ahora = self.0.clock.now();
        let hash = dispositivo::hash(token.as_bytes());
        // What is no token is told so by a reader: there is one writer, and strangers do not hold it.
        let mut tx = self.0.store.read().await?;
        store::refrescos::get(&mut tx, &hash).await?.ok_or(Error::TokenInvalido)?;
        tx.commit().await?;
        let mut tx = self.0.store.write().await?;
        let refresco = store::refrescos::get(&mut tx, &hash).await?.ok_or(Error::TokenInvalido)?;
        if refresco.expira <= ahora {
            return Err(Error::TokenCaducado);
        }
        if let Some(usado) = refresco.usado
            && ahora.since(usado) > REPETICION
        {
            store::refrescos::end_family(&mut tx, &refresco.user_id, &refresco.familia).await?;
            tx.commit().await?;
            tracing::warn!(
                user_id = refresco.user_id,
                "a refresh token was used twice; its sign-in was ended"
            );
            return Err(Error::TokenInvalido);
        }
        // All that can fail comes before the token is spent: a client that hears an error tries
        // again later than a repetition may be.
        let perfil = trabajadores::by_user_id(&mut tx, &refresco.user_id).await?.ok_or(Error::SinPerfil)?;
        let (perfil, generacion) = self.vuelve_a_mirar(&mut tx, &perfil, ahora).await?;
        let emitido = refresco.usado.unwrap_or(ahora);
        let sesion = self.abre(perfil, self.sucesor(token)?, emitido, generacion)?;
        if refresco.usado.is_none() {
            let nuevo = dispositivo::hash(sesion.refresh_token.as_bytes());
            let expira = ahora.plus(self.0.ajustes.refresh);
            store::refrescos::mark_used(&mut tx, &hash, ahora).await?;
            store::refrescos::create(&mut tx, &nuevo, &refresco.familia, &refresco.user_id, ahora, expira)
                .await?;
        }
        tx.commit().await?;
        Ok(sesion)
    }

    /// The person as they are in the transaction that opens something for them, and the generation of their
    /// account: what was read before may have been changed since. Whoever deactivates them waits for this
    /// transaction and then ends what it opened, or was first and is seen here.
    async fn vuelve_a_mirar(
        &self,
        tx: &mut store::Tx,
        perfil: &Perfil,
        ahora: Timestamp,
    ) -> Result<(Perfil, i64), Error> {
        // First of all, for the lock on the row.
        trabajadores::seen(tx, perfil.id_trabajador, ahora).await?;
        let perfil = trabajadores::by_user_id(tx, &perfil.user_id).await?.ok_or(Error::SinPerfil)?;
        let generacion = store::identidades::active(tx, &perfil.user_id).await?;
        let generacion = generacion.filter(|_| perfil.activo).ok_or(Error::Inactivo)?;
        Ok((perfil, generacion))
    }

    /// Ends the sign-in of a refresh token, or all of the account's.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn salir(&self, refresh: Option<&str>, quien: &Autor) -> Result<(), Error> {
        let user_id = quien.user_id.as_str();
        let mut tx = self.0.store.write().await?;
        match refresh {
            None => store::refrescos::end_all(&mut tx, user_id).await?,
            Some(token) => {
                let refresco = store::refrescos::get(&mut tx, &dispositivo::hash(token.as_bytes())).await?;
                if let Some(refresco) = refresco.filter(|r| r.user_id == user_id) {
                    store::refrescos::end_family(&mut tx, user_id, &refresco.familia).await?;
                }
            }
        }
        quien.anota(&mut tx, &Hecho::nuevo("salir", "sesion", user_id)).await?;
        Ok(tx.commit().await?)
    }

    /// Whose access token this is, and until when it is good.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn usuario(&self, access_token: &str) -> Result<(Usuario, Timestamp), Error> {
        let claims = self.0.firmante.comprueba(access_token, self.0.clock.now())?;
        let mut tx = self.0.store.read().await?;
        let activa = store::identidades::active(&mut tx, &claims.sub).await?;
        let perfil = trabajadores::by_user_id(&mut tx, &claims.sub).await?;
        tx.commit().await?;
        let perfil = perfil.ok_or(Error::SinPerfil)?;
        let generacion = activa.filter(|_| perfil.activo).ok_or(Error::Inactivo)?;
        if claims.generacion != generacion {
            return Err(Error::TokenInvalido);
        }
        let usuario = Usuario {
            user_id: perfil.user_id,
            id_trabajador: perfil.id_trabajador,
            id_empresa: perfil.id_empresa,
            rol: perfil.rol,
        };
        Ok((usuario, claims.caduca()))
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

    /// The token that follows `token`: nobody can compute it without the secret, and we always get
    /// the same.
    fn sucesor(&self, token: &str) -> Result<String, Error> {
        let mac =
            Hmac::<Sha256>::new_from_slice(&self.0.sucesor).map_err(|e| Error::Interno(e.to_string()))?;
        Ok(URL_SAFE_NO_PAD.encode(mac.chain_update(token).finalize().into_bytes()))
    }

    fn abre(
        &self,
        perfil: Perfil,
        refresh_token: String,
        emitido: Timestamp,
        generacion: i64,
    ) -> Result<SesionAbierta, Error> {
        let expires_in = self.0.ajustes.access.as_secs();
        let segundos = i64::try_from(expires_in).unwrap_or(i64::MAX);
        // Derived, so that the same refresh gives the same access token.
        let jti = URL_SAFE_NO_PAD.encode(&dispositivo::hash(refresh_token.as_bytes())[..12]);
        let claims = Claims::new(&perfil.user_id, emitido, segundos, &jti).de(generacion);
        let access_token = self.0.firmante.firma(&claims)?;
        Ok(SesionAbierta { access_token, refresh_token, expires_in, perfil })
    }
}

fn normaliza(email: &str) -> String {
    email.trim().to_lowercase()
}

#[cfg(test)]
mod tests;
