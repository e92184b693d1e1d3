//! What whoever has the service-role key may do with accounts.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use super::error::Error;
use super::publico::{answer, credentials, known, read, same_email};
use super::shapes::{Account, user};
use crate::api::State;
use crate::api::extract::{Desde, bearer};
use crate::identity::cuentas::{Cambio, NuevaIdentidad};

/// Accounts of one page at most.
const PER_PAGE: i64 = 1000;

pub(super) fn allowed(state: &State, headers: &HeaderMap) -> Result<(), Error> {
    known(state, headers)?;
    let key = state.parts().settings.compat.as_ref().and_then(|k| k.service_role.as_ref());
    let sent = bearer(headers).unwrap_or_default().as_bytes();
    if key.is_some_and(|key| bool::from(sent.ct_eq(key.expose_secret().as_bytes()))) {
        return Ok(());
    }
    Err(Error::new(StatusCode::FORBIDDEN, "not_admin", "User not allowed"))
}

pub(super) fn not_found() -> Error {
    Error::new(StatusCode::NOT_FOUND, "user_not_found", "User not found")
}

/// Both clients send `page=&per_page=` for the first page.
#[derive(Deserialize)]
pub(super) struct Page {
    page: Option<String>,
    per_page: Option<String>,
}

fn number(text: Option<String>) -> Option<i64> {
    text.and_then(|t| t.parse().ok())
}

/// Accounts, the latest first.
pub(super) async fn list(
    Shared(state): Shared<State>,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Response {
    let done = async {
        allowed(&state, &headers)?;
        let per_page = number(page.per_page).unwrap_or(50).clamp(1, PER_PAGE);
        let skip = number(page.page).unwrap_or(1).max(1).saturating_sub(1).saturating_mul(per_page);
        let (found, total) = state.parts().cuentas.identidades(per_page, skip).await?;
        let users: Vec<Value> = found.iter().map(user).collect();
        Ok::<_, Error>((users, total))
    };
    match done.await {
        Ok((users, total)) => {
            let body = Json(json!({ "users": users, "aud": "authenticated" }));
            ([("x-total-count", total.to_string())], body).into_response()
        }
        Err(e) => e.respond(&headers),
    }
}

pub(super) async fn create(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = async {
        allowed(&state, &headers)?;
        let account: Account = read(&body)?;
        let (email, clave) = credentials(&account)?;
        let nueva = NuevaIdentidad {
            email,
            clave,
            datos: account.user_metadata.clone().or_else(|| account.data.clone()).unwrap_or_default(),
            datos_app: account.app_metadata.clone().unwrap_or_default(),
            confirmada: account.email_confirm,
        };
        let taken = |e| match e {
            crate::identity::cuentas::Error::EnUso(_) => Error::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "email_exists",
                "A user with this email address has already been registered",
            ),
            e => e.into(),
        };
        Ok(user(&state.parts().cuentas.identidad_crea(nueva, origen).await.map_err(taken)?))
    };
    answer(&headers, done.await)
}

pub(super) async fn get(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let done = async {
        allowed(&state, &headers)?;
        Ok(user(&state.parts().cuentas.identidad(&id).await?.ok_or_else(not_found)?))
    };
    answer(&headers, done.await)
}

pub(super) async fn update(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = async {
        allowed(&state, &headers)?;
        let cuentas = &state.parts().cuentas;
        let quien = cuentas.identidad(&id).await?.ok_or_else(not_found)?;
        let account: Account = read(&body)?;
        same_email(&account, &quien)?;
        let cambio = Cambio {
            clave: account.password,
            datos: account.user_metadata.or(account.data),
            datos_app: account.app_metadata,
            confirma: account.email_confirm,
        };
        Ok(user(&cuentas.identidad_cambia(&id, cambio, None, origen).await?))
    };
    answer(&headers, done.await)
}

pub(super) async fn delete(
    Shared(state): Shared<State>,
    Desde(origen): Desde,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let done = async {
        allowed(&state, &headers)?;
        let cuentas = &state.parts().cuentas;
        let quien = cuentas.identidad(&id).await?.ok_or_else(not_found)?;
        if !cuentas.identidad_borra(&quien, origen).await? {
            let msg =
                "A person belongs to this account: deactivate them with DELETE /api/v1/trabajadores/{id}";
            return Err(Error::new(StatusCode::CONFLICT, "conflict", msg));
        }
        Ok(user(&quien))
    };
    answer(&headers, done.await)
}
