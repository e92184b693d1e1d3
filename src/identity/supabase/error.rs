//! What Supabase says when it says no, and what that is here.
//!
//! Its errors come in three forms: `{code, error_code, msg}` (and, newer, `{code, message}` with the code in
//! words), `{error, error_description}`, and `{message}` of the gateway in front of it.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::identity::cuentas::Error;

/// Why there is no answer, or none that makes sense.
#[derive(Debug, thiserror::Error)]
pub enum Fallo {
    /// It is not there, or not in time.
    #[error("no answer from the identity provider: {0}")]
    Ausente(String),
    /// Whoever is there does not show a certificate that is believed.
    #[error("the identity provider's certificate is not believed (identity.supabase_ca): {0}")]
    Ajeno(String),
    /// It answers, with an error of its own or with something else than was agreed.
    #[error("the identity provider answers nonsense: {0}")]
    Raro(String),
}

impl From<reqwest::Error> for Fallo {
    fn from(e: reqwest::Error) -> Self {
        // A body that ends too early is a connection that was cut.
        let cortada = e.is_timeout() || e.is_connect() || e.is_request() || e.is_body();
        let e = e.without_url();
        let text = chain(&e);
        // No hand-shake fails for a certificate but this one's; the type is a library's further down.
        if e.is_connect() && text.contains("certificate") {
            return Self::Ajeno(text);
        }
        if cortada { Self::Ausente(text) } else { Self::Raro(text) }
    }
}

impl From<serde_json::Error> for Fallo {
    fn from(e: serde_json::Error) -> Self {
        Self::Raro(e.to_string())
    }
}

impl From<Fallo> for Error {
    fn from(fallo: Fallo) -> Self {
        tracing::warn!(error = %fallo, "Supabase");
        match fallo {
            Fallo::Ausente(_) => Self::ProveedorAusente(Duration::from_secs(2)),
            Fallo::Ajeno(_) => Self::ProveedorAjeno,
            Fallo::Raro(_) => Self::ProveedorRoto,
        }
    }
}

/// An error with its causes: the library keeps what happened in the last of them.
fn chain(e: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(e), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Any of the forms.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Cuerpo {
    code: Value,
    error_code: Option<String>,
    msg: Option<String>,
    message: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// What an answer that is no success means. `retry_after` in seconds, where it says so.
pub(super) fn read(status: StatusCode, body: &[u8], retry_after: Option<u64>) -> Error {
    if status.is_server_error() {
        return Fallo::Raro(format!("status {status}")).into();
    }
    let cuerpo: Cuerpo = serde_json::from_slice(body).unwrap_or_default();
    let dicho = [&cuerpo.msg, &cuerpo.error_description, &cuerpo.message];
    let dicho = dicho.into_iter().flatten().next().map(String::as_str).unwrap_or_default();
    let codigo = cuerpo.error_code.as_deref().or_else(|| cuerpo.code.as_str()).or(cuerpo.error.as_deref());
    match (codigo.unwrap_or_default(), dicho) {
        ("invalid_credentials", _) | (_, "Invalid login credentials") => Error::Credenciales,
        ("email_not_confirmed", _) | (_, "Email not confirmed") => Error::SinConfirmar,
        ("user_already_exists" | "email_exists", _) => Error::EnUso("email"),
        // Before there were codes.
        (_, "User already registered" | "A user with this email address has already been registered") => {
            Error::EnUso("email")
        }
        ("weak_password", _) => Error::ClaveDebil,
        ("same_password", _) => Error::MismaClave,
        ("user_sso_managed", _) => Error::DatosInvalidos("password"),
        ("insufficient_aal", _) => Error::TotpRequerido,
        ("mfa_verification_failed" | "mfa_verification_rejected" | "mfa_challenge_expired", _) => {
            Error::TotpIncorrecto
        }
        ("signup_disabled" | "email_provider_disabled", _) => Error::RegistroCerrado,
        ("user_banned", _) => Error::Inactivo,
        ("email_address_invalid" | "validation_failed", _) => Error::DatosInvalidos("email"),
        // A sign-in of long ago is shown in the place of the message's.
        ("otp_expired" | "otp_disabled" | "reauthentication_needed", _) => Error::CodigoInvalido,
        // Its own mail goes to its own people alone.
        ("email_address_not_authorized", _) => Error::SinCorreo,
        ("request_timeout" | "conflict" | "hook_timeout" | "hook_timeout_after_retry", _) => {
            Error::ProveedorAusente(Duration::from_secs(retry_after.unwrap_or(2)))
        }
        ("captcha_failed", _) => {
            tracing::error!(
                "Supabase asks for a captcha, which only its own client can show: turn it off for the project, or sign in \
                 with @supabase/supabase-js"
            );
            Error::ProveedorRoto
        }
        (
            "refresh_token_not_found"
            | "refresh_token_already_used"
            | "session_not_found"
            | "session_expired"
            | "bad_jwt"
            | "user_not_found"
            | "invalid_grant",
            _,
        ) => Error::TokenInvalido,
        (codigo, _) if status == StatusCode::TOO_MANY_REQUESTS || codigo.starts_with("over_") => {
            Error::Demasiadas(Duration::from_secs(retry_after.unwrap_or(60)))
        }
        // Its gateway does not know our key, or the key may not do this: ours to put right.
        (codigo, dicho) => {
            tracing::error!(
                status = status.as_u16(),
                codigo,
                dicho,
                "Supabase refuses what it is asked; see identity.supabase_key and supabase_service_role_key"
            );
            Error::ProveedorRoto
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::too_many_lines, reason = "a table")]
    #[test]
    fn every_form_of_its_errors_is_one_of_ours() {
        // The bodies as supabase/auth writes them: internal/api/errors.go (HTTPError, OAuthError,
        // HTTPErrorResponse20240101) with the codes of internal/api/apierrors/errorcode.go; the last two are of the
        // gateway in front of it (Kong's key-auth).
        for (status, body, ours) in [
            (
                400,
                r#"{"code":400,"error_code":"invalid_credentials","msg":"Invalid login credentials"}"#,
                "Credenciales",
            ),
            (400, r#"{"code":"invalid_credentials","message":"Invalid login credentials"}"#, "Credenciales"),
            (
                400,
                r#"{"error":"invalid_grant","error_description":"Invalid login credentials"}"#,
                "Credenciales",
            ),
            (
                400,
                r#"{"code":400,"error_code":"email_not_confirmed","msg":"Email not confirmed"}"#,
                "SinConfirmar",
            ),
            (400, r#"{"error":"invalid_grant","error_description":"Email not confirmed"}"#, "SinConfirmar"),
            (
                422,
                r#"{"code":422,"error_code":"user_already_exists","msg":"User already registered"}"#,
                "EnUso(\"email\")",
            ),
            (400, r#"{"code":400,"msg":"User already registered"}"#, "EnUso(\"email\")"),
            (
                422,
                r#"{"code":422,"error_code":"email_exists","msg":"A user with this email address has already been registered"}"#,
                "EnUso(\"email\")",
            ),
            (
                422,
                r#"{"code":422,"error_code":"weak_password","msg":"Password should be at least 6 characters.","weak_password":{"reasons":["length"]}}"#,
                "ClaveDebil",
            ),
            (
                422,
                r#"{"code":422,"error_code":"signup_disabled","msg":"Signups not allowed for this instance"}"#,
                "RegistroCerrado",
            ),
            (
                422,
                r#"{"code":422,"error_code":"same_password","msg":"New password should be different from the old password."}"#,
                "MismaClave",
            ),
            (
                401,
                r#"{"code":401,"error_code":"insufficient_aal","msg":"AAL2 session is required to update email or password when MFA is enabled."}"#,
                "TotpRequerido",
            ),
            (
                422,
                r#"{"code":422,"error_code":"mfa_verification_failed","msg":"Invalid TOTP code entered"}"#,
                "TotpIncorrecto",
            ),
            (
                400,
                r#"{"code":400,"error_code":"reauthentication_needed","msg":"Password update requires reauthentication"}"#,
                "CodigoInvalido",
            ),
            (
                400,
                r#"{"code":400,"error_code":"email_address_not_authorized","msg":"Email address \"a@x.pe\" cannot be used as it is not authorized"}"#,
                "SinCorreo",
            ),
            (
                422,
                r#"{"code":422,"error_code":"user_sso_managed","msg":"Updating email, phone, password of a SSO account only possible via SSO"}"#,
                "DatosInvalidos(\"password\")",
            ),
            (
                409,
                r#"{"code":409,"error_code":"conflict","msg":"Too many concurrent token refresh requests on the same session or refresh token"}"#,
                "ProveedorAusente(2s)",
            ),
            (
                422,
                r#"{"code":422,"error_code":"request_timeout","msg":"Processing this request timed out, please retry after a moment."}"#,
                "ProveedorAusente(2s)",
            ),
            (
                400,
                r#"{"code":400,"error_code":"captcha_failed","msg":"captcha protection: request disallowed (no captcha_token found)"}"#,
                "ProveedorRoto",
            ),
            (403, r#"{"code":403,"error_code":"user_banned","msg":"User is banned"}"#, "Inactivo"),
            (
                400,
                r#"{"code":400,"error_code":"refresh_token_not_found","msg":"Invalid Refresh Token: Refresh Token Not Found"}"#,
                "TokenInvalido",
            ),
            (
                400,
                r#"{"error":"invalid_grant","error_description":"Invalid Refresh Token"}"#,
                "TokenInvalido",
            ),
            (
                403,
                r#"{"code":403,"error_code":"otp_expired","msg":"Email link is invalid or has expired"}"#,
                "CodigoInvalido",
            ),
            (
                429,
                r#"{"code":429,"error_code":"over_request_rate_limit","msg":"Request rate limit reached"}"#,
                "Demasiadas(60s)",
            ),
            (429, "", "Demasiadas(60s)"),
            (
                500,
                r#"{"code":500,"error_code":"unexpected_failure","msg":"Unexpected failure, please check server logs for more information"}"#,
                "ProveedorRoto",
            ),
            (503, "<html>", "ProveedorRoto"),
            (
                401,
                r#"{"message":"No API key found in request","hint":"No `apikey` request header or url param was found."}"#,
                "ProveedorRoto",
            ),
            (401, r#"{"message":"Invalid API key"}"#, "ProveedorRoto"),
            (400, "not JSON", "ProveedorRoto"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(format!("{:?}", read(status, body.as_bytes(), None)), ours, "{body}");
        }
    }
}
