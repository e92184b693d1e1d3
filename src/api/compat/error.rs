//! Our errors as Supabase Auth writes them: `{code, error_code, msg}`, or `{code, message}` for clients that send
//! `X-Supabase-Api-Version: 2024-01-01` or later. The texts are English, as its are.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::identity::cuentas;
use crate::store;

/// What a client asks in: its version of the dialect.
const VERSION: HeaderName = HeaderName::from_static("x-supabase-api-version");

/// An error in the dialect.
#[derive(Debug)]
pub(super) struct Error {
    status: StatusCode,
    code: &'static str,
    msg: String,
    retry_after: Option<u64>,
}

impl Error {
    pub(super) fn new(status: StatusCode, code: &'static str, msg: impl Into<String>) -> Self {
        Self { status, code, msg: msg.into(), retry_after: None }
    }

    /// A request that makes no sense.
    pub(super) fn invalid(msg: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "validation_failed", msg)
    }

    /// No token, or not a good one.
    pub(super) fn bad_jwt() -> Self {
        Self::new(StatusCode::FORBIDDEN, "bad_jwt", "invalid JWT: unable to parse or verify signature")
    }

    /// The client is told no, and nothing is broken.
    pub(super) fn is_refusal(&self) -> bool {
        self.status.is_client_error()
    }

    /// Something broke here; logged once, told to nobody.
    fn internal(e: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %e, "a request failed");
        let msg = "Unexpected failure, please check server logs for more information";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected_failure", msg)
    }

    /// The answer, in the form that the client understands.
    pub(super) fn respond(self, headers: &HeaderMap) -> Response {
        // Dates of one form compare as texts.
        let newer = headers.get(VERSION).is_some_and(|v| v.as_bytes() >= &b"2024-01-01"[..]);
        let body = if newer {
            json!({ "code": self.code, "message": self.msg })
        } else {
            json!({ "code": self.status.as_u16(), "error_code": self.code, "msg": self.msg })
        };
        let mut response = (self.status, Json(body)).into_response();
        if newer {
            response.headers_mut().insert(VERSION, header::HeaderValue::from_static("2024-01-01"));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<store::Error> for Error {
    fn from(e: store::Error) -> Self {
        cuentas::Error::from(e).into()
    }
}

impl From<cuentas::Error> for Error {
    fn from(e: cuentas::Error) -> Self {
        use cuentas::Error as E;
        let bad = |code, msg: &str| Self::new(StatusCode::BAD_REQUEST, code, msg);
        let unprocessable = |code, msg: &str| Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, msg);
        let forbidden = |code, msg: &str| Self::new(StatusCode::FORBIDDEN, code, msg);
        match e {
            E::Credenciales => bad("invalid_credentials", "Invalid login credentials"),
            E::SinConfirmar => bad("email_not_confirmed", "Email not confirmed"),
            E::TokenInvalido | E::TokenCaducado => Self::bad_jwt(),
            E::Inactivo => forbidden("user_banned", "User is banned"),
            E::RegistroCerrado | E::InvitacionNecesaria => {
                unprocessable("signup_disabled", "Signups not allowed for this instance")
            }
            E::EnUso(_) => unprocessable("user_already_exists", "User already registered"),
            E::ClaveDebil | E::ClaveComun => unprocessable(
                "weak_password",
                "Password should be at least 10 characters, at most 256 bytes, and not one that many people have.",
            ),
            E::MismaClave => {
                unprocessable("same_password", "New password should be different from the old password.")
            }
            E::CodigoInvalido => forbidden("otp_expired", "Email link is invalid or has expired"),
            E::TotpRequerido => {
                Self::new(StatusCode::UNAUTHORIZED, "insufficient_aal", "AAL2 session is required")
            }
            E::TotpIncorrecto => unprocessable("mfa_verification_failed", "Invalid TOTP code entered"),
            E::TotpActivo => unprocessable(
                "too_many_enrolled_mfa_factors",
                "Maximum number of verified factors reached, unenroll to continue",
            ),
            E::SinTotp => Self::new(StatusCode::NOT_FOUND, "mfa_factor_not_found", "Factor not found"),
            E::DatosInvalidos(campo) => bad("validation_failed", &format!("{campo} is not valid")),
            E::Saturado | E::ProveedorAusente(_) => {
                let mut error = Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "request_timeout",
                    "Try again in a few seconds",
                );
                error.retry_after = Some(2);
                error
            }
            E::Demasiadas(espera) => {
                let msg = "Request rate limit reached";
                let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "over_request_rate_limit", msg);
                error.retry_after = Some(espera.as_secs().max(1));
                error
            }
            // Not 501, which the dialect's clients take for a network that failed.
            E::SinCorreo => {
                unprocessable("email_provider_disabled", "This server sends no mail (mail.transport)")
            }
            E::Store(store::Error::Unavailable(_) | store::Error::Lost(_)) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "request_timeout", "The database does not answer")
            }
            e => Self::internal(&e),
        }
    }
}
