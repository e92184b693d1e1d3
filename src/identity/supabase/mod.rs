//! Supabase Auth (GoTrue) as the identity provider: who has which password is known there, and only there.
//!
//! Every request has a time limit. Those that read, and those that remove, are tried once more when the
//! connection failed; what may have happened is not tried again. When Supabase does not answer, [`Circuito`]
//! says so at once. Its answers become our errors in [`error`]. No secret and no body is logged.

mod circuito;
mod error;
mod factores;
mod formas;

use std::time::Duration;

use metrics::counter;
use reqwest::{Certificate, Client, Method, Response, StatusCode, Url, header, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use self::error::Fallo;
pub use self::factores::Saber;
pub use self::formas::{Claims, Hecha, Sesion};

use self::circuito::Circuito;
use self::factores::Factores;
use self::formas::{Cuenta, Pagina, Registrada};
use super::clave::{Clave, vigente};
use super::cuentas::Error;
use super::jwks::{Jwks, Plazos};
use super::tokens;
use crate::domain::Timestamp;

/// Longest answer that is read, in bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Before a request that reads is tried once more.
const PAUSA: Duration = Duration::from_millis(200);
/// Accounts that are looked through for one that a registration left, and how many at a time.
const PAGINAS: u32 = 50;
const POR_PAGINA: usize = 200;
/// The member of an account's metadata that names the registration that made it.
const ALTA: &str = "alertrace_alta";

/// How Supabase is reached.
#[derive(Debug, Clone)]
pub struct Ajustes {
    /// The project's address, without `/auth/v1`.
    pub url: Url,
    /// The public (anon) key.
    pub clave: SecretString,
    /// The service-role key: without it accounts are made by the public sign-up, and cannot be removed.
    pub servicio: Option<SecretString>,
    /// The shared secret of tokens signed with HS256; `None` = only published keys.
    pub secreto: Option<SecretString>,
    /// Who issues its tokens; empty = `{url}/auth/v1`.
    pub emisor: String,
    /// Time of one request.
    pub plazo: Duration,
    /// An authority that its certificate may be signed by, beside those of the system (PEM).
    pub autoridad: Option<Vec<u8>>,
}

/// See the module.
pub struct Supabase {
    base: String,
    http: Client,
    clave: SecretString,
    servicio: Option<SecretString>,
    compartida: Option<Clave>,
    publicadas: Jwks,
    circuito: Circuito,
    factores: Factores,
}

/// With which key somebody asks.
#[derive(Clone, Copy)]
enum Como<'a> {
    Nadie,
    Servicio,
    Usuario(&'a str),
}

impl Supabase {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn new(ajustes: Ajustes) -> Result<Self, reqwest::Error> {
        Self::con(ajustes, Plazos::default())
    }

    fn con(ajustes: Ajustes, plazos: Plazos) -> Result<Self, reqwest::Error> {
        let autoridad = ajustes.autoridad.as_deref().map(Certificate::from_pem_bundle).transpose()?;
        let http = Client::builder()
            .tls_certs_merge(autoridad.unwrap_or_default())
            .timeout(ajustes.plazo)
            .connect_timeout(ajustes.plazo.min(Duration::from_secs(3)))
            // A key goes where the configuration says and nowhere else.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("alertrace/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let base = format!("{}/auth/v1", ajustes.url.as_str().trim_end_matches('/'));
        let iss = if ajustes.emisor.is_empty() { base.clone() } else { ajustes.emisor };
        let mut jwks = ajustes.url;
        jwks.set_path(&format!("{}/auth/v1/.well-known/jwks.json", jwks.path().trim_end_matches('/')));
        Ok(Self {
            publicadas: Jwks::new(jwks, &iss, http.clone(), plazos),
            compartida: ajustes.secreto.map(|s| Clave::compartida(s.expose_secret().as_bytes(), &iss)),
            base,
            http,
            clave: ajustes.clave,
            servicio: ajustes.servicio,
            circuito: Circuito::default(),
            factores: Factores::default(),
        })
    }

    /// Whether accounts can be removed, and made confirmed.
    #[must_use]
    pub const fn administra(&self) -> bool {
        self.servicio.is_some()
    }

    /// Asks for what will be needed.
    pub async fn prepara(&self) {
        self.publicadas.prepara().await;
    }

    /// What an access token says, if it is of this project and of now.
    ///
    /// # Errors
    /// [`tokens::Error`].
    pub async fn comprueba(&self, token: &str, ahora: Timestamp) -> Result<Claims, tokens::Error> {
        let cabecera = jsonwebtoken::decode_header(token).map_err(|_| tokens::Error::Invalido)?;
        // What the header says chooses among keys; each key has its own algorithm, and no other.
        let claims: Claims = match (cabecera.alg, &self.compartida, cabecera.kid) {
            (jsonwebtoken::Algorithm::HS256, Some(compartida), _) => compartida.lee(token)?,
            (jsonwebtoken::Algorithm::HS256, None, _) | (_, _, None) => return Err(tokens::Error::Invalido),
            (_, _, Some(kid)) => self.publicadas.clave(&kid).await?.lee(token)?,
        };
        vigente(claims.iat, claims.nbf, claims.exp, ahora)?;
        Ok(claims)
    }

    /// Makes an account, confirmed where the service-role key is there. `alta` is how it can be found again.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn crea(&self, email: &str, clave: &str, alta: &str) -> Result<Hecha, Error> {
        if self.administra() {
            let body = json!({ "email": email, "password": clave, "email_confirm": true, "app_metadata": { ALTA: alta } });
            let cuenta: Cuenta = self.pide(Method::POST, "/admin/users", Como::Servicio, Some(body)).await?;
            return Ok(Hecha { user_id: cuenta.id, confirmada: true });
        }
        let body = json!({ "email": email, "password": clave, "data": { ALTA: alta } });
        let (cuenta, abierta) = match self.pide(Method::POST, "/signup", Como::Nadie, Some(body)).await? {
            Registrada::Sesion { user } => (user, true),
            Registrada::Cuenta(cuenta) => (cuenta, false),
        };
        // Where e-mails are confirmed, somebody else's address is answered with an account without identities.
        if cuenta.identities.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::EnUso("email"));
        }
        Ok(Hecha { confirmada: abierta || cuenta.email_confirmed_at.is_some(), user_id: cuenta.id })
    }

    /// The account that registration `alta` made.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn busca(&self, alta: &str) -> Result<Option<String>, Error> {
        for pagina in 1..=PAGINAS {
            let ruta = format!("/admin/users?page={pagina}&per_page={POR_PAGINA}");
            let Pagina { users } = self.pide(Method::GET, &ruta, Como::Servicio, None).await?;
            let suya = |c: &&Cuenta| c.app_metadata[ALTA] == alta || c.user_metadata[ALTA] == alta;
            if let Some(cuenta) = users.iter().find(suya) {
                return Ok(Some(cuenta.id.clone()));
            }
            if users.is_empty() {
                break;
            }
        }
        Ok(None)
    }

    /// Signs in.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn entra(&self, email: &str, clave: &str) -> Result<Sesion, Error> {
        let body = json!({ "email": email, "password": clave });
        let sesion = self.pide(Method::POST, "/token?grant_type=password", Como::Nadie, Some(body)).await?;
        Ok(self.aprende(sesion))
    }

    /// Exchanges a refresh token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn refresca(&self, token: &str) -> Result<Sesion, Error> {
        let body = json!({ "refresh_token": token });
        let sesion =
            self.pide(Method::POST, "/token?grant_type=refresh_token", Como::Nadie, Some(body)).await?;
        Ok(self.aprende(sesion))
    }

    /// Whose token this is, asked there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn usuario(&self, token: &str) -> Result<String, Error> {
        let cuenta: Cuenta = self.pide(Method::GET, "/user", Como::Usuario(token), None).await?;
        Ok(cuenta.id)
    }

    /// Ends the sign-in of a token, or all of its account.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn sal(&self, token: &str, todas: bool) -> Result<(), Error> {
        let ruta = if todas { "/logout?scope=global" } else { "/logout?scope=local" };
        match self.pide::<Value>(Method::POST, ruta, Como::Usuario(token), None).await {
            // It has ended already.
            Ok(_) | Err(Error::TokenInvalido) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Whether it is worth asking.
    ///
    /// # Errors
    /// [`Error::ProveedorAusente`] while it is left alone.
    pub fn responde(&self) -> Result<(), Error> {
        self.circuito.cerrado().map_err(Error::ProveedorAusente)
    }

    /// Has a message sent by which a forgotten password is replaced.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn recupera(&self, email: &str) -> Result<(), Error> {
        let body = json!({ "email": email });
        self.pide::<Value>(Method::POST, "/recover", Como::Nadie, Some(body)).await.map(drop)
    }

    /// Exchanges the code of such a message for a sign-in.
    ///
    /// # Errors
    /// [`Error::CodigoInvalido`], others of [`Error`].
    pub async fn verifica(&self, codigo: &str) -> Result<Sesion, Error> {
        let body = json!({ "type": "recovery", "token_hash": codigo });
        self.pide(Method::POST, "/verify", Como::Nadie, Some(body)).await
    }

    /// Changes the password of whose token this is; answers when that was, by its own clock, where it says so.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn cambia_clave(&self, token: &str, nueva: &str) -> Result<Option<Timestamp>, Error> {
        let body = json!({ "password": nueva });
        let cuenta: Cuenta = self.pide(Method::PUT, "/user", Como::Usuario(token), Some(body)).await?;
        Ok(cuenta.updated_at.as_deref().and_then(Timestamp::parse))
    }

    /// Removes an account; one that is not there is removed.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn borra(&self, user_id: &str) -> Result<(), Error> {
        let ruta = format!("/admin/users/{user_id}");
        match self.pide::<Value>(Method::DELETE, &ruta, Como::Servicio, None).await {
            Ok(_) | Err(Error::TokenInvalido) => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn pide<T: DeserializeOwned>(
        &self,
        metodo: Method,
        ruta: &str,
        como: Como<'_>,
        cuerpo: Option<Value>,
    ) -> Result<T, Error> {
        let (clave, portador) = match como {
            Como::Nadie => (&self.clave, self.clave.expose_secret()),
            Como::Usuario(token) => (&self.clave, token),
            Como::Servicio => {
                let servicio = self.servicio.as_ref().ok_or(Error::ProveedorRoto)?;
                (servicio, servicio.expose_secret())
            }
        };
        let segura = metodo == Method::GET || metodo == Method::DELETE;
        let mut peticion = self.http.request(metodo, format!("{}{ruta}", self.base));
        peticion = peticion.header("apikey", clave.expose_secret()).bearer_auth(portador);
        if let Some(cuerpo) = &cuerpo {
            peticion = peticion.json(cuerpo);
        }
        let otra = if segura { peticion.try_clone() } else { None };
        let mut hecho = self.envia(peticion).await;
        if let (Err(Fallo::Ausente(_)), Some(otra)) = (&hecho, otra) {
            tokio::time::sleep(PAUSA).await;
            hecho = self.envia(otra).await;
        }
        let (status, espera, bytes) = hecho?;
        if !status.is_success() {
            return Err(error::read(status, &bytes, espera));
        }
        let bytes = if bytes.is_empty() { b"null" } else { &bytes[..] };
        Ok(serde_json::from_slice(bytes).map_err(Fallo::from)?)
    }

    /// One request: its status, how long to wait where it says so, its body.
    async fn envia(
        &self,
        peticion: reqwest::RequestBuilder,
    ) -> Result<(StatusCode, Option<u64>, Vec<u8>), Fallo> {
        if let Err(espera) = self.circuito.pasa() {
            counter!("alertrace_identity_requests_total", "result" => "not_sent").increment(1);
            return Err(Fallo::Ausente(format!("not asked for another {} s", espera.as_secs() + 1)));
        }
        let hecho = async {
            let answer = peticion.send().await?;
            let (status, headers) = (answer.status(), answer.headers());
            let espera = headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
            Ok((status, espera, read(answer, MAX_BYTES).await?))
        }
        .await;
        let bien = hecho.as_ref().is_ok_and(|(status, ..)| !status.is_server_error());
        self.circuito.anota(bien);
        let result = if bien { "answered" } else { "failed" };
        counter!("alertrace_identity_requests_total", "result" => result).increment(1);
        hecho
    }
}

/// A body of at most `max` bytes.
pub(super) async fn read(mut answer: Response, max: usize) -> Result<Vec<u8>, Fallo> {
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await? {
        body.extend_from_slice(&part);
        if body.len() > max {
            return Err(Fallo::Raro(format!("more than {max} bytes")));
        }
    }
    Ok(body)
}
