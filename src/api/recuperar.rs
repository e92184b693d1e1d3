//! A forgotten password, and an e-mail that is to be confirmed.

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::State;
use super::auth::{NO_STORE, check_password};
use super::extract::{Desde, Json, Query};
use super::problem::Problem;
use super::validate::Check;

/// Whose password is forgotten.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = ClaveOlvidada, example = json!({ "email": "ana@fundo.pe" }))]
pub(super) struct Forgot {
    #[schema(format = Email, max_length = 254)]
    email: String,
}

/// What was done.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Mensaje)]
pub(super) struct Done {
    message: &'static str,
}

/// Have a link sent by which another password is chosen. The answer is the same whether or not the e-mail has an
/// account.
#[utoipa::path(post, path = "/auth/forgot-password", tag = "auth", request_body = Forgot, security(()),
    responses((status = 202, body = Done), (status = 501, description = "This server sends no mail")))]
pub(super) async fn forgot(
    Shared(state): Shared<State>,
    Json(forgot): Json<Forgot>,
) -> Result<impl IntoResponse, Problem> {
    let mut check = Check::default();
    check.email("email", &forgot.email);
    check.done()?;
    state.parts().cuentas.olvidada(&forgot.email)?;
    let message = "Si el correo tiene una cuenta, recibirá un enlace para elegir otra contraseña.";
    Ok((StatusCode::ACCEPTED, NO_STORE, axum::Json(Done { message })))
}

/// The link's token and the new password.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = ClaveNueva, example = json!({ "token": "the-one-of-the-link", "new_password": "otra clave larga" }))]
pub(super) struct Reset {
    token: String,
    /// At least ten characters, and not one that many people have.
    #[schema(min_length = 10, max_length = 256)]
    new_password: String,
}

/// Choose another password with the token of the link. Every sign-in and connection of the account ends.
#[utoipa::path(post, path = "/auth/reset-password", tag = "auth", request_body = Reset, security(()),
    responses((status = 200, body = Done, example = json!({ "message": "Contraseña cambiada; inicie sesión con ella." })),
        (status = 401, description = "The account has two-step verification in Supabase"),
        (status = 422, description = "The token is not good, or the password")))]
pub(super) async fn reset(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    Json(reset): Json<Reset>,
) -> Result<impl IntoResponse, Problem> {
    let mut check = Check::default();
    check_password(&mut check, &reset.new_password);
    check.done()?;
    state.parts().cuentas.restablece(&reset.token, &reset.new_password, origen).await?;
    Ok((NO_STORE, axum::Json(Done { message: "Contraseña cambiada; inicie sesión con ella." })))
}

/// The link's token.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Confirm {
    /// That of the link.
    #[param(pattern = r"^[^\x00]*$")]
    token: String,
}

/// Confirm an e-mail: the link of the message. Leads on to the front end.
#[utoipa::path(get, path = "/auth/confirm", tag = "auth", params(Confirm), security(()),
    responses((status = 303, description = "Confirmed; to the front end"), (status = 400, description = "No token"),
        (status = 422, description = "The token is not good")))]
pub(super) async fn confirm(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    Query(confirm): Query<Confirm>,
) -> Result<impl IntoResponse, Problem> {
    state.parts().cuentas.confirma(&confirm.token, origen).await?;
    let to = format!("{}/login?confirmed=1", state.parts().cuentas.sitio());
    Ok((StatusCode::SEE_OTHER, NO_STORE, [(header::LOCATION, to)]))
}
