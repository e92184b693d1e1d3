//! Two-step verification: a second factor set up, confirmed, taken away.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::State;
use super::auth::{NO_STORE, escrito};
use super::extract::{Json, Path, Sesion};
use super::openapi::any_of;
use super::problem::Problem;
use crate::domain::Timestamp;
use crate::identity::cuentas::{Error, EstadoTotp, Prueba};

/// How the account of whoever asks stands.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Totp)]
pub(super) struct Body {
    /// A code is asked for at every sign-in.
    activo: bool,
    /// Since when.
    desde: Option<Timestamp>,
    /// Recovery codes that have not been used.
    codigos_restantes: i64,
}

impl From<EstadoTotp> for Body {
    fn from(e: EstadoTotp) -> Self {
        Self { activo: e.desde.is_some(), desde: e.desde, codigos_restantes: e.codigos }
    }
}

/// Whether a code is asked for when whoever asks signs in.
#[utoipa::path(get, path = "/auth/totp", tag = "auth", operation_id = "totp_state",
    responses((status = 200, body = Body), (status = 501, description = "Supabase's MFA is to be used")))]
pub(super) async fn state(
    Shared(state): Shared<State>,
    sesion: Sesion,
) -> Result<impl IntoResponse, Problem> {
    let estado = state.parts().cuentas.totp(&sesion.0.user_id).await?;
    Ok((NO_STORE, axum::Json(Body::from(estado))))
}

/// What an authenticator app is given. It is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = TotpAlta)]
pub(super) struct Begun {
    /// To be typed (base 32).
    secreto: String,
    /// To be shown as a QR code.
    otpauth_url: String,
}

/// Set a second factor up, in the place of one that was not confirmed. Nothing is asked for until it is confirmed.
#[utoipa::path(post, path = "/auth/totp", tag = "auth", operation_id = "totp_begin",
    responses((status = 201, body = Begun), (status = 409, description = "There is one"),
        (status = 501, description = "Supabase's MFA is to be used")))]
pub(super) async fn begin(
    Shared(state): Shared<State>,
    sesion: Sesion,
) -> Result<impl IntoResponse, Problem> {
    let alta = state.parts().cuentas.totp_empieza(&sesion.0.user_id, "", None, sesion.autor().origen.clone());
    let alta = alta.await?;
    let body = Begun { secreto: alta.secreto, otpauth_url: alta.url };
    Ok((StatusCode::CREATED, NO_STORE, axum::Json(body)))
}

/// A code of the app.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = TotpCodigo, example = json!({ "codigo": "123456" }))]
pub(super) struct Code {
    codigo: String,
}

/// Codes for whoever loses the device, each good once in the place of the app's. They are shown this once.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = TotpCodigos)]
pub(super) struct Codes {
    codigos_recuperacion: Vec<String>,
}

/// A second factor that is confirmed, and the sign-in that goes on.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = TotpConfirmado)]
pub(super) struct Confirmed {
    #[serde(flatten)]
    codes: Codes,
    access_token: String,
    token_type: &'static str,
    refresh_token: String,
    /// Seconds.
    expires_in: u64,
}

/// Confirm the second factor that is being set up by a first code. From now on every sign-in asks for one; what the
/// account had open ends, and the tokens of the answer take its place.
#[utoipa::path(post, path = "/auth/totp/confirmar", tag = "auth", operation_id = "totp_confirm", request_body = Code,
    responses((status = 200, body = Confirmed), (status = 409, description = "None is being set up"),
        (status = 422, description = "Not its code"), (status = 501, description = "Supabase's MFA is to be used")))]
pub(super) async fn confirm(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Json(code): Json<Code>,
) -> Result<impl IntoResponse, Problem> {
    let parts = state.parts();
    let origen = sesion.autor().origen.clone();
    let (fichas, codigos_recuperacion) =
        parts.cuentas.totp_confirma(&sesion.0, &code.codigo, origen).await.map_err(wrong)?;
    let body = Confirmed {
        codes: Codes { codigos_recuperacion },
        access_token: fichas.access_token,
        token_type: "bearer",
        refresh_token: fichas.refresh_token,
        expires_in: fichas.expires_in,
    };
    Ok((NO_STORE, axum::Json(body)))
}

/// Other recovery codes, in the place of those that there were.
#[utoipa::path(post, path = "/auth/totp/codigos", tag = "auth", operation_id = "totp_codes", request_body = Code,
    responses((status = 200, body = Codes), (status = 409, description = "No second factor"),
        (status = 422, description = "Not its code"), (status = 501, description = "Supabase's MFA is to be used")))]
pub(super) async fn codes(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Json(code): Json<Code>,
) -> Result<impl IntoResponse, Problem> {
    let codigos = state.parts().cuentas.totp_codigos(&code.codigo, sesion.autor()).await;
    let body = Codes { codigos_recuperacion: codigos.map_err(wrong)? };
    Ok((NO_STORE, axum::Json(body)))
}

/// That one may: a code, or the password.
#[derive(Deserialize)]
pub(super) struct Proof {
    /// A code of the app, or a recovery code.
    codigo: Option<String>,
    /// In its place: the password.
    password: Option<String>,
}

/// A code of the app, or a recovery code.
#[derive(utoipa::ToSchema)]
#[schema(as = TotpQuitarConCodigo, example = json!({ "codigo": "123456" }))]
#[expect(dead_code, reason = "the document's")]
struct ByCode {
    #[schema(pattern = r"\S")]
    codigo: String,
}

/// The password.
#[derive(utoipa::ToSchema)]
#[schema(as = TotpQuitarConClave, example = json!({ "password": "una clave larga" }))]
#[expect(dead_code, reason = "the document's")]
struct ByPassword {
    #[schema(min_length = 1)]
    password: String,
}

any_of!(pub(super) AnyProof, "TotpQuitar", ByCode, ByPassword);

/// Take one's own second factor away: the password alone signs in again.
#[utoipa::path(post, path = "/auth/totp/quitar", tag = "auth", operation_id = "totp_remove", request_body = AnyProof,
    responses((status = 204), (status = 409, description = "No second factor"),
        (status = 422, description = "Neither its code nor the password"),
        (status = 501, description = "Supabase's MFA is to be used")))]
pub(super) async fn remove(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Json(proof): Json<Proof>,
) -> Result<impl IntoResponse, Problem> {
    let (codigo, password) = (escrito(proof.codigo), proof.password.filter(|p| !p.is_empty()));
    let prueba = match (&codigo, &password) {
        (Some(codigo), _) => Prueba::Codigo(codigo),
        (None, Some(password)) => Prueba::Clave(password),
        (None, None) => {
            let (es, en) = ("Falta el código, o la contraseña.", "The code is missing, or the password.");
            return Err(Problem::field("codigo", es, en));
        }
    };
    state.parts().cuentas.totp_quita(prueba, sesion.autor()).await.map_err(wrong)?;
    Ok((StatusCode::NO_CONTENT, NO_STORE))
}

/// What is not right of somebody who is signed in is a field that is wrong: a 401 would have them sign in again.
fn wrong(e: Error) -> Problem {
    match e {
        Error::TotpIncorrecto => Problem::field(
            "codigo",
            "No es correcto o ya se usó; espere el siguiente.",
            "Wrong, or used before; wait for the next.",
        ),
        Error::Credenciales => Problem::field("password", "No es la contraseña.", "Not the password."),
        e => e.into(),
    }
}

/// Take away the second factor of a person who has lost it. Their own is taken away by `/auth/totp/quitar`.
#[utoipa::path(delete, path = "/trabajadores/{id_trabajador}/totp", tag = "trabajadores", params(("id_trabajador" = i64, Path)),
    responses((status = 204), (status = 403, description = "Not an administrator"),
        (status = 404, description = "No such person, or no second factor"), (status = 409, description = "Oneself"),
        (status = 501, description = "Supabase's MFA is to be used")))]
pub(super) async fn remove_of(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    if id == sesion.0.id_trabajador {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "totp_propio",
            "La suya se quita en /auth/totp/quitar, con un código o la contraseña.",
            "One's own is taken away by /auth/totp/quitar, with a code or the password.",
        ));
    }
    let done = state.parts().cuentas.totp_quita_a(id_empresa, id, sesion.autor()).await;
    done.map_err(|e| if matches!(e, Error::SinTotp) { Problem::not_found() } else { e.into() })?;
    Ok((StatusCode::NO_CONTENT, NO_STORE))
}
