//! The sign-ins that are open, and how to end one.

use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;

use super::State;
use super::auth::NO_STORE;
use super::extract::{Path, Sesion, bearer};
use super::problem::Problem;
use crate::domain::Timestamp;
use crate::identity::cuentas::Abierta;

/// A sign-in that is open.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = SesionAbierta)]
pub(super) struct Body {
    id: String,
    /// When it began.
    creada: Timestamp,
    /// When it was last refreshed.
    usada: Timestamp,
    /// The client's address when it began.
    direccion: String,
    /// It is the one that asks.
    actual: bool,
}

impl From<Abierta> for Body {
    fn from(a: Abierta) -> Self {
        Self { id: a.id, creada: a.creada, usada: a.usada, direccion: a.de, actual: a.actual }
    }
}

/// The sign-ins of whoever asks, the latest first; a hundred at most.
#[utoipa::path(get, path = "/auth/sesiones", tag = "auth",
    responses((status = 200, body = Vec<Body>), (status = 501, description = "Supabase keeps them")))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    sesion: Sesion,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let access = bearer(&headers).unwrap_or_default();
    let todas = state.parts().cuentas.abiertas(&sesion.0.user_id, access).await?;
    Ok((NO_STORE, axum::Json(todas.into_iter().map(Body::from).collect::<Vec<_>>())))
}

/// End a sign-in of one's own: its tokens are good no more, and the connections that were opened by it end.
#[utoipa::path(delete, path = "/auth/sesiones/{id_sesion}", tag = "auth", params(("id_sesion" = String, Path)),
    responses((status = 204), (status = 404, description = "No such sign-in"),
        (status = 501, description = "Supabase keeps them")))]
pub(super) async fn delete(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    if !state.parts().cuentas.cierra(&id, sesion.autor()).await? {
        return Err(Problem::not_found());
    }
    Ok((StatusCode::NO_CONTENT, NO_STORE))
}
