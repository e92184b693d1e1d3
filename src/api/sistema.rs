//! The installation itself, for the operador: how much it logs.

use axum::extract::State as Shared;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::State;
use super::extract::{Json, Sesion};
use super::problem::Problem;
use crate::config::Log;
use crate::domain::Rol;
use crate::store::auditoria::Hecho;
use crate::telemetry;

/// What is logged.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = NivelDeLog, example = json!({ "nivel": "info,alertrace::mqtt=debug" }))]
pub(super) struct Body {
    /// `trace`, `debug`, `info`, `warn`, `error` or `off`; or directives by module, as in
    /// `info,alertrace::mqtt=debug`.
    #[schema(min_length = 1, max_length = 1000, pattern = r"^(trace|debug|info|warn|error|off)$|[=\[]")]
    nivel: String,
}

fn operador(sesion: &Sesion) -> Result<(), Problem> {
    if sesion.0.rol == Rol::Operador { Ok(()) } else { Err(Problem::forbidden()) }
}

/// What is logged now.
#[utoipa::path(get, path = "/sistema/log", tag = "server",
    responses((status = 200, body = Body), (status = 403, description = "Not the operador")))]
pub(super) async fn get(sesion: Sesion) -> Result<impl IntoResponse, Problem> {
    operador(&sesion)?;
    Ok(axum::Json(Body { nivel: telemetry::level().unwrap_or_default() }))
}

/// Log more or less from now on, until the next start (`log.level`).
#[utoipa::path(put, path = "/sistema/log", tag = "server", request_body = Body,
    responses((status = 200, body = Body), (status = 400, description = "Not JSON"),
        (status = 403, description = "Not the operador"), (status = 422, description = "No such level")))]
pub(super) async fn put(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Json(asked): Json<Body>,
) -> Result<impl IntoResponse, Problem> {
    operador(&sesion)?;
    let antes = Body { nivel: telemetry::level().unwrap_or_default() };
    let ahora = Body { nivel: asked.nivel.trim().to_owned() };
    let known = ahora.nivel.len() <= 1_000 && Log::level_ok(&ahora.nivel);
    if !known || telemetry::set_level(&ahora.nivel).is_err() {
        return Err(Problem::field(
            "nivel",
            "Es trace, debug, info, warn, error u off; o directivas, como en \"info,alertrace::mqtt=debug\".",
            "It is trace, debug, info, warn, error or off; or directives, as in \"info,alertrace::mqtt=debug\".",
        ));
    }
    tracing::warn!(nivel = ahora.nivel, por = sesion.0.user_id, "the log level is another from now on");
    // More is logged when something is wrong, and that may be the database: it is told if it can be.
    let told = async {
        let mut tx = state.parts().store.write().await?;
        sesion.autor().anota(&mut tx, &Hecho::cambiado("log", "nivel", &antes, &ahora)).await?;
        tx.commit().await
    };
    if let Err(e) = told.await {
        tracing::warn!(error = %e, "the audit does not tell of the new log level");
    }
    Ok(axum::Json(ahora))
}
