//! Accounts, sign-in, refresh: one behaviour, whoever keeps the passwords ([`Provider`]).
//!
//! Registration makes the account, its empresa and its person, or nothing ([`alta`]). With accounts of our own a
//! refresh token is good once: its successor is derived from it, so that using it again within ten seconds
//! (two tabs) gives the same answer, and later ends the whole sign-in.

mod ajena;
mod alta;
mod codigos;
mod equipo;
mod identidad;
mod sesiones;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::jwk::JwkSet;
use sha2::Sha256;

pub use equipo::Invitada;
pub use identidad::{Cambio, NuevaIdentidad};
pub use sesiones::Abierta;

pub use crate::store::identidades::Identidad;

use self::alta::Paso;
use self::equipo::{Lugar, Quien};
use super::correo::{self, Correo};
use super::password::{self, Debil};
use super::provider::{Comprobado, Interno, Provider};
use super::tokens::{self, Claims, Firmante};
use super::{Usuario, dispositivo};
use crate::domain::{Clock, Rol, Timestamp};
use crate::limits::rate::Rate;
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
    /// A new account has to confirm its e-mail.
    pub confirmar: bool,
    /// Sign-ins a minute with one e-mail; 0 = no limit.
    pub por_cuenta: u32,
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
struct Persona {
    nombre: String,
    apellido: String,
    dni: Option<String>,
    telefono: Option<String>,
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
    fn con(self, perfil: Perfil) -> SesionAbierta {
        let Self { access_token, refresh_token, expires_in, .. } = self;
        SesionAbierta { access_token, refresh_token, expires_in, perfil }
    }
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
    /// Many people have this password.
    #[error("the password is one of the most common")]
    ClaveComun,
    /// Supabase keeps the sign-ins, and shows them to nobody.
    #[error("the sign-ins are kept by the identity provider")]
    SesionesAlli,
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

/// The provider; cheap to clone.
#[derive(Clone)]
pub struct Cuentas(Arc<Interior>);

struct Interior {
    store: Store,
    clock: Arc<dyn Clock>,
    provider: Provider,
    correo: Correo,
    ajustes: Ajustes,
    por_cuenta: Option<Rate<String>>,
}

impl Cuentas {
    /// With accounts of our own, the installation's secret, and no mail.
    ///
    /// # Errors
    /// None in fact.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        secreto: &[u8],
        ajustes: Ajustes,
    ) -> Result<Self, correo::Malo> {
        let provider = Provider::interno(secreto, Firmante::new(secreto), ajustes.argon2_cola);
        Ok(Self::with(store, clock, provider, Correo::ninguno()?, ajustes))
    }

    /// With the accounts of `provider`.
    #[must_use]
    pub fn with(
        store: Store,
        clock: Arc<dyn Clock>,
        provider: Provider,
        correo: Correo,
        ajustes: Ajustes,
    ) -> Self {
        let minuto = Duration::from_secs(60);
        let por_cuenta = Rate::new(ajustes.por_cuenta, minuto, ajustes.por_cuenta);
        Self(Arc::new(Interior { store, clock, provider, correo, ajustes, por_cuenta }))
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
        let (email, clave) = (nueva.email.clone(), nueva.password.clone());
        self.registra(&email, clave, Paso::Empresa { nueva: Box::new(nueva), solo_primera, origen }).await
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
        let (nombre, apellido) = (nombre.to_owned(), apellido.to_owned());
        let persona = Persona { nombre, apellido, dni: None, telefono: None, rol: Rol::Operador };
        let quien = Quien::Mismo(Origen::consola());
        let paso = Paso::Persona { persona: Box::new(persona), lugar: Lugar::Ninguno, quien };
        self.registra(email, password.to_owned(), paso).await
    }

    /// Signs in.
    ///
    /// # Errors
    /// [`Error::Credenciales`] for an unknown e-mail as for a wrong password, at the same cost.
    pub async fn entrar(&self, email: &str, clave: &str, origen: Origen) -> Result<SesionAbierta, Error> {
        let p = match &self.0.provider {
            Provider::Interno(p) => p,
            Provider::Supabase(s) => return self.entrar_alli(s, email, clave, origen).await,
        };
        let identidad = self.autentica(p, email, clave).await?;
        let perfil = self.perfil(&identidad.user_id).await?;
        if !perfil.activo {
            return Err(Error::Inactivo);
        }
        let (fichas, perfil) = self.emite(p, &identidad.user_id, Some(perfil), origen).await?;
        Ok(fichas.con(perfil.ok_or(Error::SinPerfil)?))
    }

    /// Whose e-mail and password these are.
    async fn autentica(&self, p: &Interno, email: &str, clave: &str) -> Result<Identidad, Error> {
        let email = normaliza(email);
        self.cuenta_entrada(&email)?;
        let mut tx = self.0.store.read().await?;
        let identidad = store::identidades::by_email(&mut tx, &email).await?;
        tx.commit().await?;
        // What is too long is nobody's password, at the same cost; cut, it could become somebody's.
        let (clave, larga) = if clave.len() > password::MAX_BYTES { ("", true) } else { (clave, false) };
        let guardada = identidad.as_ref().filter(|_| !larga).map(|i| i.clave_hash.clone());
        let igual = p.claves.verifica(clave, guardada).await?;
        let identidad = identidad.filter(|_| igual).ok_or(Error::Credenciales)?;
        if !identidad.activa {
            return Err(Error::Inactivo);
        }
        if identidad.confirmada.is_none() {
            return Err(Error::SinConfirmar);
        }
        Ok(identidad)
    }

    /// Opens a sign-in.
    async fn emite(
        &self,
        p: &Interno,
        user_id: &str,
        perfil: Option<Perfil>,
        origen: Origen,
    ) -> Result<(Fichas, Option<Perfil>), Error> {
        let refresh = dispositivo::genera().map_err(|e| Error::Interno(e.to_string()))?;
        let ahora = self.0.clock.now();
        let familia = uuid::Uuid::now_v7().to_string();
        let mut tx = self.0.store.write().await?;
        let (perfil, generacion) = self.vuelve_a_mirar(&mut tx, user_id, perfil, ahora).await?;
        let expira = ahora.plus(self.0.ajustes.refresh);
        store::refrescos::expire(&mut tx, ahora, 100).await?;
        store::sesiones::expire(&mut tx, ahora, 100).await?;
        store::refrescos::create(&mut tx, &refresh.hash, &familia, user_id, ahora, expira).await?;
        store::sesiones::create(&mut tx, &familia, user_id, &origen.de, ahora, expira).await?;
        let id_empresa = perfil.as_ref().and_then(|p| p.id_empresa);
        let autor = Autor { user_id: user_id.to_owned(), id_empresa, origen, momento: ahora };
        autor.anota(&mut tx, &Hecho::nuevo("entrar", "sesion", user_id)).await?;
        tx.commit().await?;
        Ok((self.fichas(p, user_id, refresh.texto, ahora, generacion)?, perfil))
    }

    /// Exchanges a refresh token.
    ///
    /// # Errors
    /// [`Error::TokenInvalido`] when it is not good, or not any more; used twice, it ends its sign-in.
    pub async fn refrescar(&self, token: &str) -> Result<SesionAbierta, Error> {
        let p = match &self.0.provider {
            Provider::Interno(p) => p,
            Provider::Supabase(s) => return self.refrescar_alli(s, token).await,
        };
        let (fichas, _, perfil) = self.rota(p, token, true).await?;
        Ok(fichas.con(perfil.ok_or(Error::SinPerfil)?))
    }

    /// The next pair of tokens, and whose they are. `con_perfil`: only of somebody who has a person here.
    async fn rota(
        &self,
        p: &Interno,
        token: &str,
        con_perfil: bool,
    ) -> Result<(Fichas, String, Option<Perfil>), Error> {
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
        let perfil = trabajadores::by_user_id(&mut tx, &refresco.user_id).await?;
        if con_perfil && perfil.is_none() {
            return Err(Error::SinPerfil);
        }
        let (perfil, generacion) = self.vuelve_a_mirar(&mut tx, &refresco.user_id, perfil, ahora).await?;
        let emitido = refresco.usado.unwrap_or(ahora);
        let sesion = self.fichas(p, &refresco.user_id, sucesor(p, token)?, emitido, generacion)?;
        if refresco.usado.is_none() {
            let nuevo = dispositivo::hash(sesion.refresh_token.as_bytes());
            let expira = ahora.plus(self.0.ajustes.refresh);
            store::refrescos::mark_used(&mut tx, &hash, ahora).await?;
            store::refrescos::create(&mut tx, &nuevo, &refresco.familia, &refresco.user_id, ahora, expira)
                .await?;
            store::sesiones::used(&mut tx, &refresco.familia, ahora, expira).await?;
        }
        tx.commit().await?;
        Ok((sesion, refresco.user_id, perfil))
    }

    /// The person as they are in the transaction that opens something for them, and the generation of their
    /// account: what was read before may have been changed since. Whoever deactivates them waits for this
    /// transaction and then ends what it opened, or was first and is seen here.
    async fn vuelve_a_mirar(
        &self,
        tx: &mut store::Tx,
        user_id: &str,
        perfil: Option<Perfil>,
        ahora: Timestamp,
    ) -> Result<(Option<Perfil>, i64), Error> {
        let perfil = match perfil {
            Some(perfil) => {
                // First of all, for the lock on the row.
                trabajadores::seen(tx, perfil.id_trabajador, ahora).await?;
                Some(trabajadores::by_user_id(tx, user_id).await?.ok_or(Error::SinPerfil)?)
            }
            None => None,
        };
        let activo = perfil.as_ref().is_none_or(|p| p.activo);
        let generacion = store::identidades::active(tx, user_id).await?.filter(|_| activo);
        Ok((perfil, generacion.ok_or(Error::Inactivo)?))
    }

    /// Ends the sign-in of a refresh token, or all of the account's; `access` is the token that it is asked with.
    ///
    /// # Errors
    /// Those of the store and the provider.
    pub async fn salir(&self, refresh: Option<&str>, access: &str, quien: &Autor) -> Result<(), Error> {
        let user_id = quien.user_id.as_str();
        if let Provider::Supabase(s) = &self.0.provider {
            s.sal(access, refresh.is_none()).await?;
        }
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
        let Comprobado { user_id, caduca, generacion } =
            self.0.provider.comprueba(access_token, self.0.clock.now()).await?;
        let mut tx = self.0.store.read().await?;
        let vigente = match &self.0.provider {
            Provider::Interno(_) => store::identidades::active(&mut tx, &user_id).await?,
            Provider::Supabase(_) => Some(generacion),
        };
        let perfil = trabajadores::by_user_id(&mut tx, &user_id).await?;
        tx.commit().await?;
        let perfil = perfil.ok_or(Error::SinPerfil)?;
        if vigente.filter(|_| perfil.activo).ok_or(Error::Inactivo)? != generacion {
            return Err(Error::TokenInvalido);
        }
        let usuario = Usuario {
            user_id: perfil.user_id,
            id_trabajador: perfil.id_trabajador,
            id_empresa: perfil.id_empresa,
            rol: perfil.rol,
        };
        Ok((usuario, caduca))
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

    fn fichas(
        &self,
        p: &Interno,
        user_id: &str,
        refresh_token: String,
        emitido: Timestamp,
        generacion: i64,
    ) -> Result<Fichas, Error> {
        let expires_in = self.0.ajustes.access.as_secs();
        let segundos = i64::try_from(expires_in).unwrap_or(i64::MAX);
        // Derived, so that the same refresh gives the same access token, and the sign-in of one can be found.
        let jti = URL_SAFE_NO_PAD.encode(&dispositivo::hash(refresh_token.as_bytes())[..12]);
        let claims = Claims::new(user_id, emitido, segundos, &jti).de(generacion);
        let expira = claims.exp;
        Ok(Fichas { access_token: p.firmante.firma(&claims)?, refresh_token, expires_in, expira })
    }
}

/// What the number of an access token is of its refresh token's hash.
fn jti_bytes(jti: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(jti).unwrap_or_default()
}

/// The token that follows `token`: nobody can compute it without the secret, and we always get the same.
fn sucesor(p: &Interno, token: &str) -> Result<String, Error> {
    let mac = Hmac::<Sha256>::new_from_slice(&p.sucesor).map_err(|e| Error::Interno(e.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(mac.chain_update(token).finalize().into_bytes()))
}

fn normaliza(email: &str) -> String {
    email.trim().to_lowercase()
}

#[cfg(test)]
mod tests;
