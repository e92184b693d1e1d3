//! The WebSocket of contract section 3: the way in, and what both sides say.
//!
//! Who may open one is settled here, before the upgrade where the token came with the request, in
//! the first message where it did not. The life of an open one is [`session`]'s.

mod fanout;
mod filter;
mod session;

use axum::extract::State as Shared;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;

pub(super) use self::fanout::Fanout;
use self::filter::Filter;
use super::State;
use super::extract::Query;
use super::problem::Problem;
use crate::domain::{Rol, Timestamp};
use crate::identity::{Revocado, Usuario};
use crate::store::sensores::Alcance;

/// The subprotocol by which a browser, which cannot set headers, sends a token: `bearer, <token>`.
const SUBPROTOCOL: &str = "bearer";
/// Bytes of one message of a client: it only ever signs in and subscribes.
const MAX_MESSAGE: usize = 64 * 1024;

/// What to hear; absent = everything that you may see.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Narrow {
    /// Only these sensors, separated by commas (`1,2`).
    #[param(pattern = "^[0-9]{1,18}(,[0-9]{1,18})*$")]
    sensores: Option<String>,
    /// Only these events, separated by commas: `lectura`, `alerta`, `estado`.
    #[param(pattern = "^(lectura|alerta|estado)(,(lectura|alerta|estado))*$")]
    eventos: Option<String>,
}

/// A person who was let in.
struct Oyente {
    usuario: Usuario,
    alcance: Alcance,
    token: String,
    caduca: Timestamp,
    /// Heard from before the token was checked, so that nothing falls between.
    revocados: Receiver<Revocado>,
}

impl Oyente {
    /// Lets in whoever `token` belongs to.
    async fn entra(state: &State, token: String) -> Result<Self, Problem> {
        let parts = state.parts();
        let revocados = parts.directorio.revocados();
        let (usuario, caduca) = parts.cuentas.usuario(&token).await?;
        let alcance = usuario.alcance().ok_or_else(|| match usuario.rol {
            Rol::Operador => Problem::forbidden(),
            _ => Problem::no_empresa(),
        })?;
        Ok(Self { usuario, alcance, token, caduca, revocados })
    }
}

/// What sensors say, as they say it (WebSocket).
///
/// The token comes in `Authorization`, as the subprotocol list `bearer, <token>`, or as the first
/// message `{"type":"auth","token":…}` within five seconds. The server sends `snapshot`, then
/// `sensor_update`, `alerta` and `estado`; `resync` and a snapshot when the client was too slow. It
/// closes with 4401 when the token ends, 1001 when the server stops.
#[utoipa::path(get, path = "/sensores/live", tag = "live", params(Narrow),
    responses((status = 101, description = "A WebSocket from now on"), (status = 400, description = "Bad query"), (status = 401, description = "Bad token"),
        (status = 403, description = "No empresa"), (status = 422, description = "Bad filter"),
        (status = 426, description = "Not a WebSocket"), (status = 503, description = "Too many are open")))]
pub(super) async fn live(
    Shared(state): Shared<State>,
    Query(narrow): Query<Narrow>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let filter = Filter::from_query(narrow.sensores.as_deref(), narrow.eventos.as_deref())?;
    let upgrade = upgrade.map_err(|_| not_a_websocket())?;
    let permit = state.0.sockets.clone().try_acquire_owned().map_err(|_| too_many())?;
    let oyente = match token(&headers, &upgrade) {
        Some(token) => Some(Oyente::entra(&state, token).await?),
        None => None,
    };
    let upgrade = upgrade.protocols([SUBPROTOCOL]).max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    Ok(upgrade.on_upgrade(async move |socket| {
        session::run(&state, socket, oyente, filter).await;
        drop(permit);
    }))
}

/// The token that came with the request.
fn token(headers: &HeaderMap, upgrade: &WebSocketUpgrade) -> Option<String> {
    let header = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    if let Some((scheme, token)) = header.and_then(|v| v.split_once(' ')) {
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    let offered = upgrade.requested_protocols().filter_map(|p| p.to_str().ok()).collect::<Vec<_>>();
    let [SUBPROTOCOL, token] = offered[..] else { return None };
    Some(token.to_owned())
}

pub(super) fn not_a_websocket() -> Problem {
    Problem::new(
        StatusCode::UPGRADE_REQUIRED,
        "websocket_required",
        "Esta ruta es un WebSocket.",
        "This route is a WebSocket.",
    )
}

fn too_many() -> Problem {
    Problem::unavailable(
        "too_many_sockets",
        "Hay demasiados WebSockets abiertos; reintente en unos segundos.",
        "Too many WebSockets are open; try again in a few seconds.",
    )
}
