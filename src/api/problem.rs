//! Errors as people and programs read them: RFC 9457 `application/problem+json`.
//!
//! A [`Problem`] travels as a response extension and is written by [`render`], the one place that
//! knows the language asked for (`Accept-Language`; Spanish unless English is preferred). What other
//! layers answer with a bare status (a body too large, a time-out, a panic) gets its text there too.

mod codes;
mod cuentas;
mod language;
mod provider;

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::{ingest, store};
use language::prefers_english;

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

#[cfg(test)]
mod tests {
    use super::*;

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
