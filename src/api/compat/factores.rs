//! Second factors: what `auth.mfa` of the clients asks for. One, by time, for each account.

use axum::body::Bytes;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::admin::{allowed, not_found};
use super::error::Error;
use super::publico::{answer, known, read, whose};
use super::shapes::{Enroll, VerifyFactor, factors, session};
use crate::api::State;
use crate::api::extract::{Desde, bearer};
use crate::identity::totp;

/// Sets one up.
pub(super) async fn enroll(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = async {
        known(&state, &headers)?;
        let (quien, _) = whose(&state, &headers).await?;
        let enroll: Enroll = read(&body)?;
        if enroll.factor_type != "totp" {
            return Err(Error::invalid("factor_type needs to be totp"));
        }
        let name = enroll.friendly_name.unwrap_or_default();
        let issuer = enroll.issuer.filter(|i| !i.is_empty());
        let cuentas = &state.parts().cuentas;
        let alta = cuentas.totp_empieza(&quien.user_id, &name, issuer.as_deref(), origen).await?;
        let qr = totp::dibujo(&alta.url).unwrap_or_default();
        Ok(json!({
            "id": alta.id_factor, "type": "totp", "friendly_name": name,
            "totp": { "qr_code": qr, "secret": alta.secreto, "uri": alta.url }
        }))
    };
    answer(&headers, done.await)
}

/// Asks for a code.
pub(super) async fn challenge(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let done = async {
        known(&state, &headers)?;
        let (quien, _) = whose(&state, &headers).await?;
        let (challenge, expires) = state.parts().cuentas.totp_reta(&quien.user_id, &id).await?;
        Ok(json!({ "id": challenge, "type": "totp", "expires_at": expires }))
    };
    answer(&headers, done.await)
}

/// A code, for a session that showed it; the first one confirms the factor.
pub(super) async fn verify(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = async {
        known(&state, &headers)?;
        let (quien, _) = whose(&state, &headers).await?;
        let verify: VerifyFactor = read(&body)?;
        let parts = state.parts();
        if !parts.cuentas.totp_vale_reto(&id, &verify.challenge_id) {
            let msg =
                "MFA challenge has expired, verify against another challenge or create a new challenge.";
            return Err(Error::new(StatusCode::UNPROCESSABLE_ENTITY, "mfa_challenge_expired", msg));
        }
        let token = bearer(&headers).unwrap_or_default();
        let (fichas, identidad) =
            parts.cuentas.totp_muestra(&quien.user_id, &id, &verify.code, token, origen).await?;
        Ok(session(&fichas, &identidad))
    };
    answer(&headers, done.await)
}

/// Takes one away; one that is asked for, only for a session that showed it.
pub(super) async fn unenroll(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let done = async {
        known(&state, &headers)?;
        let (quien, shown) = whose(&state, &headers).await?;
        if !shown {
            let msg = "AAL2 required to unenroll verified factor";
            return Err(Error::new(StatusCode::UNPROCESSABLE_ENTITY, "insufficient_aal", msg));
        }
        state.parts().cuentas.totp_borra(&quien.user_id, &id, origen).await?;
        Ok(json!({ "id": id }))
    };
    answer(&headers, done.await)
}

/// Those of an account, for whoever has the service-role key.
pub(super) async fn list(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let done = async {
        allowed(&state, &headers)?;
        let quien = state.parts().cuentas.identidad(&id).await?.ok_or_else(not_found)?;
        Ok(Value::Array(factors(&quien)))
    };
    answer(&headers, done.await)
}

/// Takes one of an account away, for whoever has the service-role key.
pub(super) async fn delete(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    Path((id, factor)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let done = async {
        allowed(&state, &headers)?;
        state.parts().cuentas.totp_borra(&id, &factor, origen).await?;
        Ok(json!({ "id": factor }))
    };
    answer(&headers, done.await)
}
