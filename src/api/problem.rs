//! Errors as people and programs read them: RFC 9457 `application/problem+json`.
//!
//! A [`Problem`] travels as a response extension and is written by [`render`], the one place that
//! knows the language asked for (`Accept-Language`; Spanish unless English is preferred). What other
//! layers answer with a bare status (a body too large, a time-out, a panic) gets its text there too.

mod codes;
mod provider;

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::identity::cuentas;
use crate::{ingest, store};

/// A text in both languages.
#[derive(Debug, Clone)]
pub struct Texto {
    es: Cow<'static, str>,
    en: Cow<'static, str>,
}

impl Texto {
    /// Spanish and English.
    pub fn new(es: impl Into<Cow<'static, str>>, en: impl Into<Cow<'static, str>>) -> Self {
        Self { es: es.into(), en: en.into() }
    }

    fn en(&self, ingles: bool) -> &str {
        if ingles { &self.en } else { &self.es }
    }
}

/// An error that a client can do something about.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detalle: Texto,
    campos: Vec<(String, Texto)>,
    retry_after: Option<u32>,
    /// How to sign in, for a 401.
    challenge: &'static str,
    outcome: Outcome,
}

/// What a failure of ours says of the change that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing that could be relied on.
    Unsaid,
    /// It was not made.
    Untouched,
    /// It may have been committed.
    Undecided,
}

/// The body of a problem.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Problem, example = json!({ "type": "about:blank", "title": "Unprocessable Entity", "status": 422,
    "detail": "Hay campos con errores.", "code": "validation_failed", "message": "Hay campos con errores.",
    "errors": [{ "campo": "nombre", "mensaje": "De 1 a 200 caracteres." }] }))]
pub struct ProblemBody<'a> {
    /// Always `about:blank`: `code` tells problems apart.
    #[serde(rename = "type")]
    tipo: &'static str,
    /// The status in words.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// What went wrong, for a person.
    detail: &'a str,
    /// What went wrong, for a program; stable.
    #[schema(schema_with = codes::schema)]
    code: &'a str,
    /// As `detail`.
    message: &'a str,
    /// What is wrong with which field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Campo<'a>>,
}

/// One field that is wrong.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ProblemField)]
pub struct Campo<'a> {
    /// Its name in the request.
    campo: &'a str,
    /// What is wrong with it.
    mensaje: &'a str,
}

impl Problem {
    /// A problem with its texts.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        es: impl Into<Cow<'static, str>>,
        en: impl Into<Cow<'static, str>>,
    ) -> Self {
        debug_assert!(
            codes::CODES.binary_search(&code).is_ok(),
            "{code} is to be listed in problem/codes.rs"
        );
        let detalle = Texto::new(es, en);
        Self {
            status,
            code,
            detalle,
            campos: Vec::new(),
            retry_after: None,
            challenge: "Bearer",
            outcome: Outcome::Unsaid,
        }
    }

    /// There is no such thing, or it is not yours to see.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "No existe.", "There is no such thing.")
    }

    /// Signed in, but not allowed to.
    #[must_use]
    pub fn forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "Su rol no permite esta operación.",
            "Your role does not allow this.",
        )
    }

    /// Signed in, with an account that has not joined an empresa.
    #[must_use]
    pub fn no_empresa() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "no_empresa",
            "Su cuenta no pertenece todavía a ninguna empresa.",
            "Your account does not belong to an empresa yet.",
        )
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The fields that are wrong.
    #[cfg(test)]
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.campos.iter().map(|(campo, _)| campo.as_str())
    }

    /// Not signed in.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "Inicie sesión y envíe el token en Authorization: Bearer.",
            "Sign in and send the token as Authorization: Bearer.",
        )
    }

    /// Fields that are wrong.
    #[must_use]
    pub fn invalid(campos: Vec<(String, Texto)>) -> Self {
        let mut problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "validation_failed",
            "Hay campos con errores.",
            "Some fields are wrong.",
        );
        problem.campos = campos;
        problem
    }

    /// One field that is wrong.
    pub fn field(campo: &str, es: impl Into<Cow<'static, str>>, en: impl Into<Cow<'static, str>>) -> Self {
        Self::invalid(vec![(campo.to_owned(), Texto::new(es, en))])
    }

    /// Another way to sign in than a person's token.
    #[must_use]
    pub const fn with_challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = challenge;
        self
    }

    /// When to try again.
    #[must_use]
    pub const fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds fields to a problem that has its own code.
    #[must_use]
    pub fn with_fields(mut self, campos: Vec<(String, Texto)>) -> Self {
        self.campos = campos;
        self
    }

    /// Not now; the client may try again.
    #[must_use]
    pub fn unavailable(code: &'static str, es: &'static str, en: &'static str) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, es, en);
        problem.retry_after = Some(2);
        problem
    }

    /// What became of the change.
    pub(super) const fn outcome(&self) -> Outcome {
        self.outcome
    }

    fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// It went wrong after the change was made, so that trying again is not harmless.
    pub(super) fn after_the_change(self) -> Self {
        self.with_outcome(Outcome::Unsaid)
    }

    /// What went wrong inside is logged here, once, and not shown.
    pub fn internal(e: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %e, "a request failed");
        Self::of(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// For a status that came without a text.
    fn of(status: StatusCode) -> Self {
        let (code, es, en) = match status {
            StatusCode::BAD_REQUEST => {
                ("bad_request", "La petición no se entiende.", "The request makes no sense.")
            }
            StatusCode::NOT_FOUND => return Self::not_found(),
            StatusCode::METHOD_NOT_ALLOWED => (
                "method_not_allowed",
                "Esta ruta no admite ese método.",
                "This route does not take that method.",
            ),
            // Only the time limit answers without a text of its own.
            StatusCode::SERVICE_UNAVAILABLE => {
                return Self::unavailable(
                    "timeout",
                    "La petición tardó demasiado; inténtelo de nuevo.",
                    "The request took too long; try again.",
                );
            }
            StatusCode::PAYLOAD_TOO_LARGE => (
                "body_too_large",
                "El cuerpo de la petición es demasiado grande.",
                "The request body is too large.",
            ),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => (
                "unsupported_media_type",
                "Envíe JSON con Content-Type: application/json.",
                "Send JSON with Content-Type: application/json.",
            ),
            s if s.is_server_error() => (
                "internal_error",
                "Error interno del servidor; quedó registrado.",
                "Internal server error; it has been logged.",
            ),
            _ => ("error", "La petición no se puede atender.", "The request cannot be served."),
        };
        Self::new(status, code, es, en)
    }

    fn respond(&self, ingles: bool, headers: HeaderMap) -> Response {
        let detail = self.detalle.en(ingles);
        let errors = self.campos.iter().map(|(campo, t)| Campo { campo, mensaje: t.en(ingles) }).collect();
        let body = ProblemBody {
            tipo: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail,
            code: self.code,
            message: detail,
            errors,
        };
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Body::from(json));
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(if ingles { "en" } else { "es" }));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(self.challenge));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the problem of a response, in the language of its request.
pub async fn render(request: Request, next: Next) -> Response {
    let ingles = prefers_english(request.headers());
    let mut response = next.run(request).await;
    let status = response.status();
    let problem = response.extensions_mut().remove::<Problem>();
    if problem.is_none() && !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let json = response.headers().get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().ends_with(b"json"));
    if problem.is_none() && json {
        return response;
    }
    let problem = problem.unwrap_or_else(|| Problem::of(status));
    problem.respond(ingles, std::mem::take(response.headers_mut()))
}

/// Whether English stands before Spanish, by quality and then by order (RFC 9110 section 12.5.4).
fn prefers_english(headers: &HeaderMap) -> bool {
    let text = headers.get(header::ACCEPT_LANGUAGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut best: Option<(f32, bool)> = None;
    for part in text.split(',') {
        let (tag, params) = part.split_once(';').unwrap_or((part, ""));
        let english = match tag.trim().get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("en") => true,
            Some("es") => false,
            _ => continue,
        };
        let quality = params.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse).unwrap_or(0.0);
        if quality > 0.0 && best.is_none_or(|(q, _)| quality > q) {
            best = Some((quality, english));
        }
    }
    best.is_some_and(|(_, english)| english)
}

impl From<store::Error> for Problem {
    fn from(e: store::Error) -> Self {
        match e {
            store::Error::Unavailable(_) | store::Error::Undecided(_) | store::Error::Lost(_) => {
                tracing::error!(error = %e, "the store is away");
                metrics::counter!("alertrace_store_errors_total", "of" => "request").increment(1);
                let undecided = matches!(e, store::Error::Undecided(_));
                Self::unavailable(
                    "store_unavailable",
                    "La base de datos no responde; reintente en unos segundos.",
                    "The database does not answer; try again in a few seconds.",
                )
                .with_outcome(if undecided {
                    Outcome::Undecided
                } else {
                    Outcome::Untouched
                })
            }
            store::Error::Refused(_) => Self::field(
                "",
                "La base de datos no admite estos valores.",
                "The database does not take these values.",
            ),
            e => Self::internal(&e),
        }
    }
}

impl From<ingest::Cerrado> for Problem {
    fn from(_: ingest::Cerrado) -> Self {
        Self::unavailable(
            "stopping",
            "El servidor se está deteniendo; reintente en unos segundos.",
            "The server is stopping; try again in a few seconds.",
        )
    }
}

impl From<cuentas::Error> for Problem {
    fn from(e: cuentas::Error) -> Self {
        use cuentas::Error as E;
        let unauthorized =
            |code, es: &'static str, en: &'static str| Self::new(StatusCode::UNAUTHORIZED, code, es, en);
        match e {
            E::Credenciales => unauthorized(
                "invalid_credentials",
                "Correo o contraseña incorrectos.",
                "Wrong e-mail or password.",
            ),
            E::TokenInvalido => {
                unauthorized("invalid_token", "El token no es válido.", "The token is not valid.")
            }
            E::TokenCaducado => {
                unauthorized("token_expired", "El token ha caducado.", "The token has expired.")
            }
            E::Inactivo => {
                unauthorized("account_inactive", "La cuenta está desactivada.", "The account is deactivated.")
            }
            e @ (E::SinPerfil
            | E::SinConfirmar
            | E::CodigoInvalido
            | E::DatosInvalidos(_)
            | E::ProveedorAusente(_)
            | E::ProveedorRoto
            | E::ProveedorAjeno
            | E::SinCorreo
            | E::SesionesAlli
            | E::TotpRequerido
            | E::TotpIncorrecto
            | E::TotpActivo
            | E::SinTotp
            | E::TotpAlli
            | E::ClaveComun
            | E::MismaClave
            | E::Demasiadas(_)) => provider::problem(&e),
            E::RegistroCerrado => Self::new(
                StatusCode::FORBIDDEN,
                "registration_closed",
                "El registro está cerrado; pida una invitación.",
                "Registration is closed; ask for an invitation.",
            ),
            E::InvitacionNecesaria => Self::new(
                StatusCode::FORBIDDEN,
                "invitation_required",
                "El registro es por invitación; pida un código a su administrador.",
                "Registration is by invitation; ask your administrator for a code.",
            ),
            E::DemasiadasInvitaciones => Self::new(
                StatusCode::CONFLICT,
                "too_many_invitations",
                "Hay demasiadas invitaciones sin usar; revoque algunas o espere a que caduquen.",
                "Too many invitations are unused; revoke some or wait until they expire.",
            ),
            E::YaEnEmpresa => Self::new(
                StatusCode::CONFLICT,
                "already_member",
                "Su cuenta ya pertenece a una empresa.",
                "Your account belongs to an empresa already.",
            ),
            E::InvitacionInvalida => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_invitation",
                "El código de invitación no es válido.",
                "The invitation code is not valid.",
            )
            .with_fields(vec![(
                "codigo_invitacion".to_owned(),
                Texto::new(
                    "No existe, se usó ya o caducó.",
                    "It does not exist, has been used or has expired.",
                ),
            )]),
            E::EnUso(campo) => {
                let code = match campo {
                    "ruc" => "ruc_in_use",
                    "dni" => "dni_in_use",
                    _ => "email_in_use",
                };
                let texto = Texto::new("Ya está registrado.", "It is registered already.");
                Self::new(StatusCode::CONFLICT, code, "Ya está registrado.", "It is registered already.")
                    .with_fields(vec![(campo.to_owned(), texto)])
            }
            E::ClaveDebil => {
                let (es, en) = (
                    "La contraseña necesita al menos 10 caracteres y como máximo 256 bytes.",
                    "The password needs at least 10 characters and at most 256 bytes.",
                );
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "weak_password", es, en)
                    .with_fields(vec![("password".to_owned(), Texto::new(es, en))])
            }
            E::Saturado => Self::unavailable(
                "busy",
                "Demasiados inicios de sesión a la vez; reintente en unos segundos.",
                "Too many sign-ins at once; try again in a few seconds.",
            )
            .with_outcome(Outcome::Untouched),
            E::Store(e) => e.into(),
            E::Interno(e) => Self::internal(&e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(text: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_static(text));
        prefers_english(&headers)
    }

    #[test]
    fn spanish_unless_english_is_preferred() {
        for text in ["", "*", "fr", "es,en", "en;q=0.5,es-PE;q=0.9", "en;q=0"] {
            assert!(!language(text), "{text}");
        }
        for text in ["en", "en-US,es;q=0.9", "fr, en;q=0.1"] {
            assert!(language(text), "{text}");
        }
        assert!(!prefers_english(&HeaderMap::new()));
    }

    async fn rendered(language: &'static str) -> (Response, serde_json::Value) {
        use tower::ServiceExt as _;
        let refuse = || async { Problem::field("nombre", "Falta.", "Missing.") };
        let routes: axum::Router = axum::Router::new()
            .route("/", axum::routing::get(refuse))
            .layer(axum::middleware::from_fn(render));
        let request = Request::builder().uri("/").header(header::ACCEPT_LANGUAGE, language);
        let mut response = routes.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let body = std::mem::take(response.body_mut());
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (response, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn a_problem_is_written_in_the_language_asked_for() {
        for (language, detail, mensaje) in
            [("es", "Hay campos con errores.", "Falta."), ("en", "Some fields are wrong.", "Missing.")]
        {
            let (response, body) = rendered(language).await;
            assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(response.headers()[header::CONTENT_LANGUAGE], language);
            assert_eq!(body["code"], "validation_failed");
            assert_eq!((&body["detail"], &body["message"]), (&detail.into(), &detail.into()));
            assert_eq!(body["errors"], serde_json::json!([{ "campo": "nombre", "mensaje": mensaje }]));
        }
    }
}
