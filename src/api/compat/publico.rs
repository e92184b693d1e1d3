//! What anybody may ask, and what somebody who is signed in may.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use super::error::Error;
use super::shapes::{Account, Refresh, Resend, Verify, faux, session, user as user_json};
use crate::api::State;
use crate::api::auth::NO_STORE;
use crate::api::extract::{Desde, bearer};
use crate::api::validate::Check;
use crate::identity::cuentas::{self, Cambio, Cuales, Identidad, NuevaIdentidad, Registro};
use crate::store::codigos::Para;

/// The header that carries a key.
pub(super) const APIKEY: &str = "apikey";

/// Answers in the client's form of the dialect, whatever came out.
pub(super) fn answer(headers: &HeaderMap, done: Result<Value, Error>) -> Response {
    match done {
        Ok(body) => (NO_STORE, Json(body)).into_response(),
        Err(e) => e.respond(headers),
    }
}

/// The key that a client sent is ours, where one is configured.
pub(super) fn known(state: &State, headers: &HeaderMap) -> Result<(), Error> {
    let Some(keys) = &state.parts().settings.compat else { return Err(Error::bad_jwt()) };
    let Some(anon) = &keys.anon else { return Ok(()) };
    let sent = headers.get(APIKEY).map(HeaderValue::as_bytes).unwrap_or_default();
    let is = |key: &secrecy::SecretString| bool::from(sent.ct_eq(key.expose_secret().as_bytes()));
    if is(anon) || keys.service_role.as_ref().is_some_and(is) {
        return Ok(());
    }
    Err(Error::new(StatusCode::UNAUTHORIZED, "no_authorization", "Invalid API key"))
}

/// A JSON object.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Error> {
    let bad = |e: serde_json::Error| {
        Error::new(StatusCode::BAD_REQUEST, "bad_json", format!("Could not parse request body as JSON: {e}"))
    };
    serde_json::from_slice(body).map_err(bad)
}

/// An e-mail and a password.
pub(super) fn credentials(account: &Account) -> Result<(&str, &str), Error> {
    if account.phone.as_ref().is_some_and(|p| !p.is_empty()) {
        return Err(Error::new(
            StatusCode::BAD_REQUEST,
            "phone_provider_disabled",
            "Phone logins are disabled",
        ));
    }
    let email = account.email.as_deref().unwrap_or_default();
    let password = account.password.as_deref().unwrap_or_default();
    if password.is_empty() {
        return Err(Error::invalid("Signup requires a valid password"));
    }
    email_ok(email)?;
    Ok((email, password))
}

fn email_ok(email: &str) -> Result<(), Error> {
    let mut check = Check::default();
    check.email("email", email);
    check.done().map_err(|_| Error::invalid("Unable to validate email address: invalid format"))
}

/// Who is signed in, and whether they showed the second factor that they have.
pub(super) async fn whose(state: &State, headers: &HeaderMap) -> Result<(Identidad, bool), Error> {
    let none =
        || Error::new(StatusCode::UNAUTHORIZED, "no_authorization", "This endpoint requires a Bearer token");
    let token = bearer(headers).ok_or_else(none)?;
    Ok(state.parts().cuentas.identidad_de(token).await?)
}

pub(super) async fn health() -> impl IntoResponse {
    Json(
        json!({ "version": env!("CARGO_PKG_VERSION"), "name": "GoTrue", "description": "Alertrace, in the place of Supabase Auth" }),
    )
}

pub(super) async fn settings(Shared(state): Shared<State>) -> impl IntoResponse {
    let cuentas = &state.parts().cuentas;
    Json(json!({
        "external": { "email": true, "phone": false, "anonymous_users": false },
        "disable_signup": cuentas.registro() != Registro::Open, "mailer_autoconfirm": !cuentas.pide_confirmar(),
        "phone_autoconfirm": false, "sms_provider": "", "saml_enabled": false, "mfa_enabled": true
    }))
}

/// Makes an account: with a session where e-mails need not be confirmed.
pub(super) async fn signup(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    Query(to): Query<RedirectTo>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = async {
        known(&state, &headers)?;
        let account: Account = read(&body)?;
        let (email, password) = credentials(&account)?;
        let cuentas = &state.parts().cuentas;
        let nueva = NuevaIdentidad {
            email,
            clave: password,
            datos: account.data.clone().unwrap_or_default(),
            datos_app: serde_json::Map::new(),
            confirmada: !cuentas.pide_confirmar(),
        };
        let to = allowed(&state, to.redirect_to);
        let hecha = match cuentas.identidad_registra(nueva, to.as_deref(), origen.clone()).await {
            // Where e-mails are confirmed the answer is not that somebody has it, as Supabase's is not; whoever looks at
            // `identities`, which is empty, sees it all the same, here as there.
            Err(cuentas::Error::EnUso(_)) if cuentas.pide_confirmar() => {
                let datos = account.data.clone().unwrap_or_default();
                return Ok(faux(email, &datos, state.parts().clock.now()));
            }
            hecha => hecha?,
        };
        if hecha.confirmada.is_none() {
            return Ok(user_json(&hecha));
        }
        let (fichas, identidad) = cuentas.identidad_entra(email, password, origen).await?;
        Ok(session(&fichas, &identidad))
    };
    answer(&headers, done.await)
}

#[derive(Deserialize)]
pub(super) struct Grant {
    grant_type: Option<String>,
}

/// Signs in, or exchanges a refresh token.
pub(super) async fn token(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    Query(grant): Query<Grant>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = async {
        known(&state, &headers)?;
        let cuentas = &state.parts().cuentas;
        let (fichas, identidad) = match grant.grant_type.as_deref() {
            Some("password") => {
                let account: Account = read(&body)?;
                let (email, password) =
                    (account.email.unwrap_or_default(), account.password.unwrap_or_default());
                cuentas.identidad_entra(&email, &password, origen).await?
            }
            Some("refresh_token") => {
                let refresh: Refresh = read(&body)?;
                let gone = |e| match e {
                    cuentas::Error::TokenInvalido | cuentas::Error::TokenCaducado => Error::new(
                        StatusCode::BAD_REQUEST,
                        "refresh_token_not_found",
                        "Invalid Refresh Token: Refresh Token Not Found",
                    ),
                    e => e.into(),
                };
                cuentas.identidad_refresca(&refresh.refresh_token).await.map_err(gone)?
            }
            _ => return Err(Error::invalid("unsupported_grant_type")),
        };
        Ok(session(&fichas, &identidad))
    };
    answer(&headers, done.await)
}

/// Who is signed in.
pub(super) async fn user(Shared(state): Shared<State>, headers: HeaderMap) -> Response {
    let done = async {
        known(&state, &headers)?;
        Ok(user_json(&whose(&state, &headers).await?.0))
    };
    answer(&headers, done.await)
}

/// Changes one's password, or what a front end keeps beside the account.
pub(super) async fn change(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = async {
        known(&state, &headers)?;
        let (quien, shown) = whose(&state, &headers).await?;
        if !shown {
            let msg = "AAL2 session is required to change an account when MFA is enabled.";
            return Err(Error::new(StatusCode::UNAUTHORIZED, "insufficient_aal", msg));
        }
        let account: Account = read(&body)?;
        same_email(&account, &quien)?;
        let cambio =
            Cambio { clave: account.password, datos: account.data, datos_app: None, confirma: false };
        let token = bearer(&headers).unwrap_or_default();
        let cuentas = &state.parts().cuentas;
        Ok(user_json(&cuentas.identidad_cambia(&quien.user_id, cambio, Some(token), origen).await?))
    };
    answer(&headers, done.await)
}

/// An account keeps its e-mail: the person here has it too.
pub(super) fn same_email(account: &Account, quien: &Identidad) -> Result<(), Error> {
    let same = account.email.as_ref().is_none_or(|e| e.trim().eq_ignore_ascii_case(&quien.email));
    let msg = "Changing an e-mail address is not supported";
    if same { Ok(()) } else { Err(Error::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", msg)) }
}

#[derive(Deserialize)]
pub(super) struct Scope {
    scope: Option<String>,
}

/// Ends this sign-in (`local`), the others (`others`) or all (`global`, and when nothing is said).
pub(super) async fn logout(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    Query(scope): Query<Scope>,
    headers: HeaderMap,
) -> Response {
    let done = async {
        known(&state, &headers)?;
        let (quien, shown) = whose(&state, &headers).await?;
        let token = bearer(&headers).unwrap_or_default();
        let cuales = match scope.scope.as_deref() {
            // Who knows a password alone ends what that opened, and nothing else.
            None | Some("global" | "local" | "others") if !shown => Cuales::Esta,
            None | Some("global") => Cuales::Todas,
            Some("local") => Cuales::Esta,
            Some("others") => Cuales::Otras,
            Some(_) => return Err(Error::invalid("Unsupported logout scope")),
        };
        Ok(state.parts().cuentas.identidad_sale(&quien.user_id, token, cuales, origen).await?)
    };
    match done.await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(e) => e.respond(&headers),
    }
}

#[derive(Deserialize)]
pub(super) struct RedirectTo {
    redirect_to: Option<String>,
}

/// Where a link may lead: to a page of an origin that may call us, else to the front end's own.
fn allowed(state: &State, to: Option<String>) -> Option<String> {
    to.filter(|to| {
        let Ok(url) = url::Url::parse(to) else { return false };
        let origin = url.origin().ascii_serialization();
        state.parts().settings.allowed_origins.iter().any(|pattern| pattern.matches(&origin))
    })
}

/// Sends a link by which another password is chosen; the answer never tells whether there is such an account.
pub(super) async fn recover(
    Shared(state): Shared<State>,
    Query(to): Query<RedirectTo>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = async {
        known(&state, &headers)?;
        let account: Account = read(&body)?;
        let email = account.email.unwrap_or_default();
        email_ok(&email)?;
        let to = allowed(&state, to.redirect_to);
        state.parts().cuentas.olvidada_con(&email, to.as_deref())?;
        Ok(json!({}))
    };
    answer(&headers, done.await)
}

/// Sends once more the link that confirms an e-mail; the answer never tells whether there is such an account.
pub(super) async fn resend(
    Shared(state): Shared<State>,
    Query(to): Query<RedirectTo>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = async {
        known(&state, &headers)?;
        let resend: Resend = read(&body)?;
        if resend.kind != "signup" {
            return Err(Error::invalid("Resend supports signup confirmations only"));
        }
        email_ok(&resend.email)?;
        let to = allowed(&state, to.redirect_to);
        state.parts().cuentas.reenvia(&resend.email, to.as_deref())?;
        Ok(json!({}))
    };
    answer(&headers, done.await)
}

fn purpose(kind: &str) -> Result<Para, Error> {
    match kind {
        "signup" | "email" => Ok(Para::Confirmar),
        "recovery" => Ok(Para::Recuperar),
        _ => Err(Error::invalid("Verify requires a verification type")),
    }
}

/// A code of a message, for a session.
pub(super) async fn verify(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = async {
        known(&state, &headers)?;
        let verify: Verify = read(&body)?;
        let para = purpose(&verify.kind)?;
        let (fichas, identidad) =
            state.parts().cuentas.identidad_verifica(&verify.token, para, origen).await?;
        Ok(session(&fichas, &identidad))
    };
    answer(&headers, done.await)
}

/// The link of a message: to the front end, with the session behind the `#`, where only its page reads it.
pub(super) async fn follow(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    Query(verify): Query<Verify>,
    headers: HeaderMap,
) -> Response {
    let done = async {
        let para = purpose(&verify.kind)?;
        Ok::<_, Error>(state.parts().cuentas.identidad_verifica(&verify.token, para, origen).await?)
    };
    let done = done.await;
    let to = allowed(&state, verify.redirect_to).unwrap_or_else(|| state.parts().cuentas.sitio());
    let mut fragment = url::form_urlencoded::Serializer::new(String::new());
    match done {
        Ok((fichas, _)) => {
            fragment.append_pair("access_token", &fichas.access_token);
            fragment.append_pair("expires_at", &fichas.expira.to_string());
            fragment.append_pair("expires_in", &fichas.expires_in.to_string());
            fragment.append_pair("refresh_token", &fichas.refresh_token);
            fragment.append_pair("token_type", "bearer");
            fragment.append_pair("type", &verify.kind);
        }
        Err(e) if e.is_refusal() => {
            fragment.append_pair("error", "access_denied");
            fragment.append_pair("error_code", "otp_expired");
            fragment.append_pair("error_description", "Email link is invalid or has expired");
        }
        Err(e) => return e.respond(&headers),
    }
    let location = format!("{to}#{}", fragment.finish());
    (StatusCode::SEE_OTHER, NO_STORE, [(header::LOCATION, location)]).into_response()
}
