//! Whether the server lives, whether it acknowledges, what it counts, what it is.

use axum::extract::State as Shared;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::Problem;
use super::{State, consola};
use crate::ingest::Salud;
use crate::mantenimiento::Disco;

/// The process lives.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Health {
    status: &'static str,
    version: &'static str,
}

/// The process lives.
#[utoipa::path(get, path = "/health", tag = "server", security(()), responses((status = 200, body = Health)))]
pub(super) async fn health() -> impl IntoResponse {
    axum::Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Readings are being acknowledged.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Ready {
    status: &'static str,
    version: &'static str,
    /// What somebody should look at, though nothing has stopped; absent when there is nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

/// Something that somebody should look at.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Warning {
    /// Stable: `disk_budget` = history goes before its time; `disk_budget_spent` = and none is left that
    /// may, so the database grows.
    code: &'static str,
    /// Bytes that the database uses.
    used_bytes: u64,
    /// Bytes that it may use (`store.max_gb`).
    max_bytes: u64,
}

impl Warning {
    fn of(disco: Disco) -> Option<Self> {
        let code = match disco {
            Disco { agotado: true, .. } => "disk_budget_spent",
            Disco { apretado: true, .. } => "disk_budget",
            _ => return None,
        };
        Some(Self { code, used_bytes: disco.usado, max_bytes: disco.maximo })
    }
}

/// Readings are being acknowledged; else 503, with the reason.
#[utoipa::path(get, path = "/ready", tag = "server", security(()),
    responses((status = 200, body = Ready), (status = 503, description = "Not now; says why")))]
pub(super) async fn ready(Shared(state): Shared<State>) -> Result<impl IntoResponse, Problem> {
    let parts = state.parts();
    let not = |code, es: String, en: String| {
        Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, code, es, en)
    };
    match parts.ingest.salud() {
        Salud::Listo => {}
        Salud::SinAlmacen(why) => {
            let es = format!("La base de datos no responde: {why}");
            return Err(not("store_unavailable", es, format!("The store is away: {why}")));
        }
        Salud::RelojIncorrecto(why) => return Err(wrong_clock(&why)),
    }
    if !*parts.broker_ready.borrow() {
        return Err(not(
            "broker_stopped",
            "El broker MQTT se detuvo.".into(),
            "The MQTT broker has stopped.".into(),
        ));
    }
    if let Err(why) = parts.store.ping().await {
        let es = format!("La base de datos no responde: {why}");
        return Err(not("store_unavailable", es, format!("The store is away: {why}")));
    }
    let disco = *parts.disco.borrow();
    Ok(axum::Json(Ready {
        status: "ready",
        version: env!("CARGO_PKG_VERSION"),
        warnings: Warning::of(disco).into_iter().collect(),
    }))
}

/// The machine's clock cannot be right.
pub(super) fn wrong_clock(why: &dyn std::fmt::Display) -> Problem {
    let es = format!("El reloj del equipo es incorrecto; ajústelo. {why}");
    let en = format!("The machine's clock is wrong; set it. {why}");
    Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "clock_wrong", es, en)
}

/// What the server counts, in Prometheus's text format.
#[utoipa::path(get, path = "/metrics", tag = "server", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(Shared(state): Shared<State>) -> impl IntoResponse {
    let text = state.parts().metrics.render();
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// What this is and where to go on.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Root {
    name: &'static str,
    version: &'static str,
    docs: &'static str,
    openapi: &'static str,
    api: &'static str,
    websocket: &'static str,
    health: &'static str,
    ready: &'static str,
}

/// What this is and where to go on; for a browser, the console.
///
/// The console is answered to whoever prefers `text/html` in `Accept`, as browsers do; JSON to everybody else.
#[utoipa::path(get, path = "/", tag = "server", security(()),
    responses((status = 200, content((Root = "application/json"), (String = "text/html")),
        headers(("vary" = String, description = "`Accept`")))))]
pub(super) async fn root(headers: HeaderMap) -> Response {
    let vary = [(header::VARY, "accept")];
    if consola::wanted(&headers) {
        return (vary, consola::page()).into_response();
    }
    let root = Root {
        name: "Alertrace",
        version: env!("CARGO_PKG_VERSION"),
        docs: "/docs",
        openapi: "/openapi.json",
        api: "/api/v1",
        websocket: "/api/v1/sensores/live",
        health: "/health",
        ready: "/ready",
    };
    (vary, axum::Json(root)).into_response()
}
