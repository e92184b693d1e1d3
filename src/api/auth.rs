//! Registration, sign-in and tokens.

mod forms;

use axum::extract::State as Shared;
use axum::extract::rejection::FormRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use self::forms::{AnyLogin, AnyRegister};
use super::State;
use super::extract::{Desde, Json, Sesion, bearer, optional, too_large};
use super::problem::Problem;
use super::validate::Check;
use crate::domain::Rol;
use crate::identity::cuentas::{NuevaEmpresa, NuevoTrabajador, Perfil, SesionAbierta};
use crate::identity::password::{MAX_BYTES, MIN_LARGO};
use crate::store::auditoria::Origen;

/// What is answered must not be kept by anybody in between.
pub(super) const NO_STORE: [(header::HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

/// Either shape of a registration: with a nested `empresa`, or flat with a `user_type`. A blank
/// optional field, as forms send it, is an absent one.
#[derive(Deserialize)]
pub(super) struct Register {
    email: String,
    password: String,
    /// `empresa` or `trabajador`, in the flat shape.
    user_type: Option<String>,
    nombre: Option<String>,
    /// As `nombre`.
    nombres: Option<String>,
    apellido: Option<String>,
    /// As `apellido`.
    apellidos: Option<String>,
    /// Eight digits.
    dni: Option<String>,
    telefono: Option<String>,
    empresa: Option<RegisterEmpresa>,
    nombre_empresa: Option<String>,
    /// Eleven digits.
    ruc: Option<String>,
    codigo_invitacion: Option<String>,
}

/// The empresa of the nested shape.
#[derive(Deserialize, utoipa::ToSchema)]
pub(super) struct RegisterEmpresa {
    /// Eleven digits.
    #[schema(pattern = "^[0-9]{11}$")]
    ruc: String,
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    razon_social: String,
    #[schema(format = Email, max_length = 254)]
    email: Option<String>,
    #[schema(max_length = 200, pattern = r"^[^\x00]*$")]
    telefono: Option<String>,
}

/// An account that was made.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Registered {
    message: &'static str,
    user_id: String,
    email: String,
    /// `empresa` or `trabajador`.
    user_type: &'static str,
}

/// What a registration asks for.
enum Pedido {
    Empresa(NuevaEmpresa),
    Trabajador(NuevoTrabajador),
}

/// `None` for what a form leaves blank.
pub(super) fn escrito(campo: Option<String>) -> Option<String> {
    campo.filter(|c| !c.trim().is_empty())
}

/// What a new password has to be.
pub(super) fn check_password(check: &mut Check, password: &str) {
    let largo = (MIN_LARGO..).contains(&password.chars().count()) && password.len() <= MAX_BYTES;
    let (es, en) =
        ("Al menos 10 caracteres y como máximo 256 bytes.", "At least 10 characters and at most 256 bytes.");
    check.that(largo, "password", es, en);
}

impl Register {
    /// Which shape it is, with every field checked.
    fn read(self) -> Result<Pedido, Problem> {
        let mut check = Check::default();
        check.email("email", &self.email);
        check_password(&mut check, &self.password);
        let (dni, telefono) = (escrito(self.dni), escrito(self.telefono));
        if let Some(dni) = &dni {
            check.digits("dni", dni, 8);
        }
        if let Some(telefono) = &telefono {
            check.text("telefono", telefono);
        }
        let nombre = escrito(self.nombre).or_else(|| escrito(self.nombres));
        let apellido = escrito(self.apellido).or_else(|| escrito(self.apellidos));
        let (email, password) = (self.email, self.password);
        let (nombre, razon_social, empresa) = match (self.user_type.as_deref(), self.empresa) {
            (Some("trabajador"), None) => {
                let (nombre, apellido) = (nombre.unwrap_or_default(), apellido.unwrap_or_default());
                check.text("nombres", &nombre);
                check.text("apellidos", &apellido);
                check.done()?;
                let codigo_invitacion = escrito(self.codigo_invitacion);
                return Ok(Pedido::Trabajador(NuevoTrabajador {
                    email,
                    password,
                    nombre,
                    apellido,
                    dni,
                    telefono,
                    codigo_invitacion,
                }));
            }
            (None | Some("empresa"), Some(empresa)) => {
                check.text("empresa.razon_social", &empresa.razon_social);
                check.digits("empresa.ruc", &empresa.ruc, 11);
                (nombre.unwrap_or_default(), empresa.razon_social.clone(), empresa)
            }
            (Some("empresa"), None) => {
                let razon_social = self.nombre_empresa.unwrap_or_default();
                let ruc = self.ruc.unwrap_or_default();
                check.text("nombre_empresa", &razon_social);
                check.digits("ruc", &ruc, 11);
                // This shape has no name of a person.
                let nombre = nombre.unwrap_or_else(|| razon_social.clone());
                let empresa =
                    RegisterEmpresa { ruc, razon_social: razon_social.clone(), email: None, telefono: None };
                (nombre, razon_social, empresa)
            }
            // An `empresa` beside `trabajador` too: nobody becomes an administrator by accident.
            _ => {
                check.that(
                    false,
                    "user_type",
                    "Es «empresa» o «trabajador».",
                    "It is \"empresa\" or \"trabajador\".",
                );
                return Err(check.failed());
            }
        };
        check.text("nombre", &nombre);
        if let Some(apellido) = &apellido {
            check.text("apellido", apellido);
        }
        let (empresa_email, empresa_telefono) = (escrito(empresa.email), escrito(empresa.telefono));
        if let Some(email) = &empresa_email {
            check.email("empresa.email", email);
        }
        if let Some(telefono) = &empresa_telefono {
            check.text("empresa.telefono", telefono);
        }
        check.done()?;
        Ok(Pedido::Empresa(NuevaEmpresa {
            email,
            password,
            nombre,
            apellido: apellido.unwrap_or_default(),
            dni,
            telefono: telefono.or(empresa_telefono),
            ruc: empresa.ruc,
            razon_social,
            empresa_email,
        }))
    }
}

/// Make an account, in either shape.
#[utoipa::path(post, path = "/auth/register", tag = "auth", request_body = AnyRegister, security(()),
    responses((status = 201, body = Registered), (status = 403, description = "Registration is closed"),
        (status = 409, description = "E-mail, RUC or DNI in use"),
        (status = 503, description = "Too many at once")))]
pub(super) async fn register(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    Json(register): Json<Register>,
) -> Result<impl IntoResponse, Problem> {
    let cuentas = &state.parts().cuentas;
    let made = match register.read()? {
        Pedido::Empresa(nueva) => cuentas.registrar_empresa(nueva, origen).await?,
        Pedido::Trabajador(nuevo) => cuentas.registrar_trabajador(nuevo, origen).await?,
    };
    let body = Registered {
        message: "Cuenta registrada.",
        user_id: made.user_id,
        email: made.email,
        user_type: made.rol.user_type(),
    };
    Ok((StatusCode::CREATED, NO_STORE, axum::Json(body)))
}

/// Who signs in. Other fields that a front end sends are passed over.
#[derive(Deserialize)]
pub(super) struct Login {
    /// The e-mail.
    email: Option<String>,
    /// As `email`.
    username: Option<String>,
    password: String,
    /// The code of the second factor, or a recovery code, where the account has one.
    codigo: Option<String>,
    /// As `codigo`: where Swagger UI's Authorize has room for it (its client credentials in the request body).
    client_secret: Option<String>,
}

impl Login {
    async fn enter(self, state: &State, origen: Origen) -> Result<impl IntoResponse + use<>, Problem> {
        let quien = escrito(self.email).or_else(|| escrito(self.username));
        let email =
            quien.ok_or_else(|| Problem::field("email", "Falta el correo.", "The e-mail is missing."))?;
        let codigo = escrito(self.codigo).or_else(|| escrito(self.client_secret));
        let sesion = state.parts().cuentas.entrar(&email, &self.password, codigo.as_deref(), origen).await?;
        Ok((NO_STORE, axum::Json(SignedIn::from(sesion))))
    }
}

/// A sign-in, with the profile beside the tokens.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct SignedIn {
    access_token: String,
    token_type: &'static str,
    refresh_token: String,
    /// Seconds.
    expires_in: u64,
    #[serde(flatten)]
    me: Me,
}

impl From<SesionAbierta> for SignedIn {
    fn from(s: SesionAbierta) -> Self {
        Self {
            access_token: s.access_token,
            token_type: "bearer",
            refresh_token: s.refresh_token,
            expires_in: s.expires_in,
            me: s.perfil.into(),
        }
    }
}

/// A person.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Me {
    /// As `user_id`.
    id: String,
    id_trabajador: i64,
    user_id: String,
    email: String,
    nombre: String,
    apellido: String,
    /// As `apellido`.
    apellidos: String,
    dni: Option<String>,
    telefono: Option<String>,
    rol: Rol,
    /// `empresa` or `trabajador`.
    user_type: &'static str,
    id_empresa: Option<i64>,
    empresa_nombre: Option<String>,
    /// As `empresa_nombre`.
    nombre_empresa: Option<String>,
    ruc: Option<String>,
}

impl From<Perfil> for Me {
    fn from(p: Perfil) -> Self {
        Self {
            id: p.user_id.clone(),
            id_trabajador: p.id_trabajador,
            user_id: p.user_id,
            email: p.email,
            nombre: p.nombre,
            apellidos: p.apellido.clone(),
            apellido: p.apellido,
            dni: p.dni,
            telefono: p.telefono,
            user_type: p.rol.user_type(),
            rol: p.rol,
            id_empresa: p.id_empresa,
            nombre_empresa: p.razon_social.clone(),
            empresa_nombre: p.razon_social,
            ruc: p.ruc,
        }
    }
}

/// Sign in.
#[utoipa::path(post, path = "/auth/login", tag = "auth", request_body = AnyLogin, security(()),
    responses((status = 200, body = SignedIn),
        (status = 401, description = "Wrong e-mail or password; `totp_requerido`: send `codigo` too; `totp_incorrecto`"),
        (status = 403, description = "No profile"), (status = 422, description = "Fields are missing"),
        (status = 503, description = "Too many at once")))]
pub(super) async fn login(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    Json(login): Json<Login>,
) -> Result<impl IntoResponse, Problem> {
    login.enter(&state, origen).await
}

/// OAuth 2 password form, for Swagger UI's Authorize.
#[utoipa::path(post, path = "/auth/token", tag = "auth", security(()),
    request_body(content = AnyLogin, content_type = "application/x-www-form-urlencoded",
        example = json!({ "username": "ana@fundo.pe", "password": "una clave larga" })),
    responses((status = 200, body = SignedIn),
        (status = 401, description = "Wrong e-mail or password; `totp_requerido`: send `codigo` too; `totp_incorrecto`"),
        (status = 403, description = "No profile"), (status = 422, description = "Fields are missing"),
        (status = 503, description = "Too many at once")))]
pub(super) async fn token(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    form: Result<axum::Form<Login>, FormRejection>,
) -> Result<impl IntoResponse, Problem> {
    match form {
        Ok(axum::Form(login)) => login.enter(&state, origen).await,
        Err(e) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_large()),
        Err(FormRejection::InvalidFormContentType(_)) => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "Envíe un formulario con Content-Type: application/x-www-form-urlencoded.",
            "Send a form with Content-Type: application/x-www-form-urlencoded.",
        )),
        Err(_) => Err(Problem::field("", "Envíe username y password.", "Send username and password.")),
    }
}

/// A refresh token.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(example = json!({ "refresh_token": "the-one-of-the-last-answer" }))]
pub(super) struct Refresh {
    refresh_token: String,
}

/// Exchange a refresh token for the next pair.
#[utoipa::path(post, path = "/auth/refresh", tag = "auth", request_body = Refresh, security(()),
    responses((status = 200, body = SignedIn), (status = 401, description = "The token is not good any more")))]
pub(super) async fn refresh(
    Shared(state): Shared<State>,
    Json(refresh): Json<Refresh>,
) -> Result<impl IntoResponse, Problem> {
    let sesion = state.parts().cuentas.refrescar(&refresh.refresh_token).await?;
    Ok((NO_STORE, axum::Json(SignedIn::from(sesion))))
}

/// What to end.
#[derive(Deserialize, Default, utoipa::ToSchema)]
#[schema(example = json!({ "refresh_token": "the-one-of-the-last-answer" }))]
pub(super) struct Logout {
    /// This sign-in; absent = every one of the account.
    refresh_token: Option<String>,
}

/// End a sign-in, or all of the account: its tokens are good no more, and the connections that were opened by it end.
#[utoipa::path(post, path = "/auth/logout", tag = "auth",
    request_body(content = Option<Logout>, example = json!({ "refresh_token": "the-one-of-the-last-answer" })),
    responses((status = 204)))]
pub(super) async fn logout(
    Shared(state): Shared<State>,
    sesion: Sesion,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<impl IntoResponse, Problem> {
    let logout: Logout = optional(&body)?;
    let access = bearer(&headers).unwrap_or_default();
    state.parts().cuentas.salir(logout.refresh_token.as_deref(), access, sesion.autor()).await?;
    Ok((StatusCode::NO_CONTENT, NO_STORE))
}

/// Who is signed in.
#[utoipa::path(get, path = "/auth/me", tag = "auth",
    responses((status = 200, body = Me)))]
pub(super) async fn me(Shared(state): Shared<State>, sesion: Sesion) -> Result<impl IntoResponse, Problem> {
    let perfil = state.parts().cuentas.perfil(&sesion.0.user_id).await?;
    Ok((NO_STORE, axum::Json(Me::from(perfil))))
}

/// The keys that other programs check our access tokens with (RFC 7517); none where they are signed with a secret.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", security(()),
    responses((status = 200, body = Keys)))]
pub(super) async fn jwks(Shared(state): Shared<State>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "public, max-age=600")], axum::Json(state.parts().cuentas.jwks()))
}

/// A set of keys, as RFC 7517 has it.
#[derive(utoipa::ToSchema)]
#[schema(as = Jwks)]
#[expect(dead_code, reason = "the document's; the answer is the library's")]
pub(super) struct Keys {
    keys: Vec<serde_json::Value>,
}

/// A token that is good.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Verified {
    valid: bool,
    user_id: String,
    rol: Rol,
    user_type: &'static str,
    id_empresa: Option<i64>,
}

/// Whether a token is good; 401 when it is not.
#[utoipa::path(get, path = "/auth/verify-token", tag = "auth",
    responses((status = 200, body = Verified)))]
pub(super) async fn verify_token(Sesion(u, _): Sesion) -> impl IntoResponse {
    let body = Verified {
        valid: true,
        user_type: u.rol.user_type(),
        user_id: u.user_id,
        rol: u.rol,
        id_empresa: u.id_empresa,
    };
    (NO_STORE, axum::Json(body))
}

#[cfg(test)]
mod tests;
