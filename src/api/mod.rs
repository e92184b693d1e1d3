//! REST and WebSocket: one module a resource, with its shapes, handlers and OpenAPI together.
//!
//! Everything but the sign-in asks for an access token; what a person may see is decided by their
//! [`Alcance`](crate::store::sensores::Alcance), in the query itself. Errors are [`problem`]s.

mod alertas;
mod api_keys;
mod asignaciones;
mod auditoria;
mod auth;
mod clientes;
mod comandos;
mod compat;
mod consola;
mod csv;
mod cultivos;
mod dashboard;
mod docs;
mod empresas;
mod etag;
mod excepciones;
mod extract;
mod finish;
mod historial;
mod idempotencia;
mod invitaciones;
mod lector;
mod lecturas;
mod listener;
mod live;
mod lugares;
mod middleware;
mod mqtt;
mod openapi;
mod paging;
pub mod problem;
mod rates;
mod recuperar;
mod routes;
mod salud;
mod sensores;
mod sesiones;
mod shapes;
mod sistema;
mod totp;
mod trabajadores;
mod umbrales;
mod validate;

use std::sync::Arc;
use std::time::Duration;

pub use compat::Keys as CompatKeys;
pub use mqtt::{ByteStream, Gate};
pub use rates::Limits as RateLimits;

use axum::Router;
use axum::extract::Request;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use utoipa::openapi::OpenApi;
use utoipa_axum::routes;

use crate::config::OriginPattern;
use crate::domain::Clock;
use crate::identity::cuentas::Cuentas;
use crate::identity::{Directorio, Sello};
use crate::ingest::Ingest;
use crate::ingest::decode::Limites;
use crate::mantenimiento::Disco;
use crate::realtime::{Clientes, Hub, Pedidos, Presencia};
use crate::store::Store;
use crate::tls::Acceptor;
use routes::Routes;

/// The settings of the API, as the configuration has them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Browsers that may call with credentials.
    pub allowed_origins: Vec<OriginPattern>,
    /// Bytes of one request body.
    pub body_limit: usize,
    /// Time of one request.
    pub timeout: Duration,
    /// Time for requests under way when the server stops.
    pub grace: Duration,
    /// How often requests may come.
    pub rates: RateLimits,
    /// Connections at a time from one address.
    pub connections_per_address: usize,
    /// X-Forwarded-For is believed.
    pub behind_proxy: bool,
    /// Bytes of an MQTT packet, and so of a WebSocket's frame.
    pub mqtt_packet: usize,
    /// WebSockets at a time.
    pub max_sockets: usize,
    /// Events that wait for one WebSocket.
    pub socket_queue: usize,
    /// Which moments are taken.
    pub limites: Limites,
    /// The dialect of Supabase is spoken at `/auth/v1`, with these keys.
    pub compat: Option<CompatKeys>,
}

/// What the API is built from.
pub struct Parts {
    /// What is kept.
    pub store: Store,
    /// Where readings go.
    pub ingest: Ingest,
    /// Who sees what.
    pub directorio: Arc<Directorio>,
    /// What happens.
    pub hub: Hub,
    /// What people ask of devices.
    pub pedidos: Pedidos,
    /// Who is connected by MQTT.
    pub clientes: Arc<Clientes>,
    /// Who is connected.
    pub presencia: Arc<Presencia>,
    /// The broker, for MQTT over WebSocket.
    pub mqtt: Gate,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Accounts.
    pub cuentas: Cuentas,
    /// Keeps the answers of `Idempotency-Key`.
    pub sello: Sello,
    /// Whether the broker works.
    pub broker_ready: watch::Receiver<bool>,
    /// How the disk stands.
    pub disco: watch::Receiver<Disco>,
    /// For `/metrics`.
    pub metrics: PrometheusHandle,
    /// See [`Settings`].
    pub settings: Settings,
}

/// What handlers share; cheap to clone.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    parts: Parts,
    sockets: Arc<Semaphore>,
    fanout: Arc<live::Fanout>,
    rates: rates::Rates,
    under_way: idempotencia::UnderWay,
    /// See [`finish`].
    changes: finish::Turn,
    /// Cancelled when the server stops: WebSockets close.
    stop: CancellationToken,
}

impl State {
    /// From its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let sockets = Arc::new(Semaphore::new(parts.settings.max_sockets));
        let rates = rates::Rates::new(parts.settings.rates);
        let (changes, stop) = (finish::Turn::default(), CancellationToken::new());
        let (fanout, under_way) = (Arc::default(), idempotencia::UnderWay::default());
        Self(Arc::new(Inner { parts, sockets, fanout, rates, under_way, changes, stop }))
    }

    /// Passes events on to WebSockets, from now on until `stop`.
    pub fn fan_out(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let (inner, events) = (self.0.clone(), self.0.parts.hub.listen());
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = inner.fanout.run(events, &inner.parts.directorio) => {}
            }
        }
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }
}

/// Every route of the OpenAPI document, with it when it is to be read (`documented`).
fn all(documented: bool) -> Routes {
    let v1 = Routes::new(OpenApi::default(), documented)
        .routes(routes!(auth::register))
        .routes(routes!(auth::login))
        .routes(routes!(auth::token))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(auth::me))
        .routes(routes!(auth::verify_token))
        .routes(routes!(recuperar::forgot))
        .routes(routes!(recuperar::reset))
        .routes(routes!(recuperar::confirm))
        .routes(routes!(sesiones::list))
        .routes(routes!(sesiones::delete))
        .routes(routes!(totp::state, totp::begin))
        .routes(routes!(totp::confirm))
        .routes(routes!(totp::codes))
        .routes(routes!(totp::remove))
        .routes(routes!(invitaciones::join))
        .routes(routes!(invitaciones::list, invitaciones::create))
        .routes(routes!(invitaciones::delete))
        .routes(routes!(trabajadores::list, trabajadores::create))
        .routes(routes!(trabajadores::get, trabajadores::update, trabajadores::delete))
        .routes(routes!(totp::remove_of))
        .routes(routes!(asignaciones::list, asignaciones::create))
        .routes(routes!(asignaciones::of_trabajador))
        .routes(routes!(asignaciones::of_sensor))
        .routes(routes!(asignaciones::delete))
        .routes(routes!(sensores::list, sensores::create))
        .routes(routes!(sensores::with_readings))
        .routes(routes!(sensores::get, sensores::patch, sensores::baja::delete))
        .routes(routes!(sensores::credentials))
        .routes(routes!(lugares::relocate))
        .routes(routes!(lugares::delete))
        .routes(routes!(comandos::list, comandos::create))
        .routes(routes!(comandos::config, comandos::set_config))
        .routes(routes!(clientes::list))
        .routes(routes!(clientes::disconnect))
        .routes(routes!(lecturas::ingest))
        .routes(routes!(historial::list))
        .routes(routes!(historial::estadisticas::statistics))
        .routes(routes!(lecturas::rejections))
        .routes(routes!(alertas::list))
        .routes(routes!(alertas::count))
        .routes(routes!(alertas::get, alertas::patch))
        .routes(routes!(alertas::resolve))
        .routes(routes!(alertas::resolve_by_post))
        .routes(routes!(alertas::viewed))
        .routes(routes!(alertas::viewed_by_post))
        .routes(routes!(alertas::read))
        .routes(routes!(alertas::read_by_post))
        .routes(routes!(api_keys::list, api_keys::create))
        .routes(routes!(api_keys::delete))
        .routes(routes!(empresas::get, empresas::patch))
        .routes(routes!(umbrales::get, umbrales::put))
        .routes(routes!(excepciones::of_sensor))
        .routes(routes!(excepciones::put_of_sensor, excepciones::delete_of_sensor))
        .routes(routes!(cultivos::list, cultivos::create))
        .routes(routes!(cultivos::get, cultivos::patch, cultivos::put, cultivos::delete))
        .routes(routes!(excepciones::of_cultivo, excepciones::put_all_of_cultivo))
        .routes(routes!(excepciones::put_of_cultivo, excepciones::delete_of_cultivo))
        .routes(routes!(dashboard::get))
        .routes(routes!(auditoria::list))
        .routes(routes!(sistema::get, sistema::put))
        .routes(routes!(dashboard::kpis))
        .routes(routes!(dashboard::people))
        .routes(routes!(dashboard::sensor_data))
        .routes(routes!(live::live));
    Routes::new(docs::base(), documented)
        .nest("/api/v1", v1)
        .routes(routes!(salud::health))
        .routes(routes!(salud::ready))
        .routes(routes!(salud::metrics))
        .routes(routes!(salud::root))
        .routes(routes!(auth::jwks))
}

/// The OpenAPI document (3.1) of this version.
#[must_use]
pub fn openapi() -> OpenApi {
    let (_, mut document) = all(true).into_parts();
    openapi::complete(&mut document);
    document
}

/// All routes, with everything that stands around them; `tls` = they are served over TLS by this process.
pub fn router(state: State, tls: bool) -> Router {
    let (routes, _) = all(false).into_parts();
    let routes = routes
        // The older path of the front end.
        .route("/sensores/live", axum::routing::get(live::live))
        .route("/mqtt", axum::routing::get(mqtt::upgrade))
        .merge(docs::ui())
        .merge(consola::assets())
        .fallback(|| async { problem::Problem::not_found() });
    let routes =
        if state.parts().settings.compat.is_some() { routes.merge(compat::routes()) } else { routes };
    let routes = middleware::around(routes, &state, tls).with_state(state);
    // A layer inside a Router runs after routing: what changes the path stands in front of it.
    Router::new().fallback_service(ServiceBuilder::new().map_request(trim_slash).service(routes))
}

/// A trailing slash is accepted everywhere. `/docs/` alone keeps it: Swagger UI's page is there,
/// `/docs` leads to it, and its assets are named relative to it.
fn trim_slash(mut request: Request) -> Request {
    let uri = request.uri();
    let path = uri.path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() || trimmed.len() == path.len() || trimmed == docs::PATH {
        return request;
    }
    let path_and_query = match uri.query() {
        Some(query) => format!("{trimmed}?{query}"),
        None => trimmed.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    // What was a URI's path is one without its last slashes; if not, the request stays as it came.
    if let Ok(path_and_query) = path_and_query.parse() {
        parts.path_and_query = Some(path_and_query);
        if let Ok(uri) = axum::http::Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// Serves, over TLS where there is an acceptor, until `shutdown` is cancelled: then nothing new is
/// accepted, requests under way finish (as far as [`Settings::grace`] lets them), WebSockets close
/// (1001), and the last of them has gone when this returns.
pub async fn serve(listener: TcpListener, tls: Option<Acceptor>, state: State, shutdown: CancellationToken) {
    let inner = state.0.clone();
    let stop = inner.stop.clone();
    let stopping = async move {
        shutdown.cancelled().await;
        stop.cancel();
    };
    let settings = &inner.parts.settings;
    let per_address = (!settings.behind_proxy).then_some(settings.connections_per_address);
    let limits = listener::Limits { grace: settings.grace, per_address };
    let routes = router(state, tls.is_some());
    listener::run(listener, tls, routes, limits, stopping).await;
    // An upgraded connection is no request any more: nobody else waits for it. Each holds a permit.
    let all = u32::try_from(inner.parts.settings.max_sockets).unwrap_or(u32::MAX);
    let _ = inner.sockets.acquire_many(all).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trimmed(uri: &str) -> String {
        let request = Request::builder().uri(uri).body(axum::body::Body::empty()).unwrap();
        trim_slash(request).uri().to_string()
    }

    #[test]
    fn a_trailing_slash_is_taken_off_except_from_the_documentation() {
        assert_eq!(trimmed("/api/v1/sensores/"), "/api/v1/sensores");
        assert_eq!(trimmed("/api/v1/sensores/?limit=1"), "/api/v1/sensores?limit=1");
        for same in ["/", "/docs/", "/docs/index.css", "/api/v1/sensores?u=a/"] {
            assert_eq!(trimmed(same), same);
        }
    }
}
