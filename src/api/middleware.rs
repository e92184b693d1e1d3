//! What stands around every route, from the outside in: request id, trace, CORS, security headers,
//! compression, problems, panics, rate limits, time and size limits.

use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use metrics::histogram;
use tower::ServiceBuilder;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::{DefaultOnResponse, TraceLayer};
use tracing::Level;

use super::{State, docs, etag, idempotencia, lector, problem, rates};
use crate::config::OriginPattern;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Puts the layers around `routes`.
pub(super) fn around(routes: Router<State>, state: &State, tls: bool) -> Router<State> {
    let settings = &state.parts().settings;
    let trace = TraceLayer::new_for_http()
        .make_span_with(|request: &Request| {
            let route = request.extensions().get::<MatchedPath>().map_or("-", MatchedPath::as_str);
            let id = request.headers().get(REQUEST_ID).and_then(|v| v.to_str().ok()).unwrap_or_default();
            // At the level of most lines: one that says what failed is to say in which request.
            tracing::info_span!("request", method = %request.method(), route, id)
        })
        .on_response(DefaultOnResponse::new().level(Level::DEBUG))
        // What failed was logged where it failed, with its cause.
        .on_failure(());
    let fixed = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    let layers = ServiceBuilder::new()
        .map_request(sane_id)
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        // A browser's WebSocket carries its token in the subprotocol list.
        .layer(SetSensitiveRequestHeadersLayer::new([
            HeaderName::from_static(lector::X_API_KEY),
            HeaderName::from_static("apikey"),
            header::AUTHORIZATION,
            header::COOKIE,
            header::SEC_WEBSOCKET_PROTOCOL,
        ]))
        .layer(trace)
        .layer(from_fn(measure))
        .layer(cors(settings.allowed_origins.clone()))
        .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(fixed(header::REFERRER_POLICY, "no-referrer"))
        .layer(fixed(header::X_FRAME_OPTIONS, "DENY"))
        .layer(fixed(HeaderName::from_static("cross-origin-opener-policy"), "same-origin"))
        .layer(option_layer(tls.then(|| fixed(header::STRICT_TRANSPORT_SECURITY, HSTS))))
        .layer(from_fn(content_policy))
        .layer(CompressionLayer::new())
        .layer(from_fn(problem::render))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state.clone(), rates::limit))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, settings.timeout))
        .layer(DefaultBodyLimit::max(settings.body_limit))
        .layer(from_fn(etag::conditional))
        .layer(from_fn_with_state(state.clone(), idempotencia::once));
    routes.layer(layers)
}

/// Exactly the configured origins, with credentials; never `*`.
fn cors(origins: Vec<OriginPattern>) -> CorsLayer {
    let allowed = move |origin: &HeaderValue, _: &_| {
        origin.to_str().is_ok_and(|origin| origins.iter().any(|pattern| pattern.matches(origin)))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::ACCEPT,
            header::ACCEPT_LANGUAGE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static(lector::X_API_KEY),
            // What @supabase/supabase-js sends.
            HeaderName::from_static("apikey"),
            HeaderName::from_static("x-client-info"),
            HeaderName::from_static("x-supabase-api-version"),
            REQUEST_ID,
        ])
        .expose_headers([
            HeaderName::from_static("x-total-count"),
            HeaderName::from_static("x-alertrace-fuente"),
            header::LINK,
            header::RETRY_AFTER,
            header::ETAG,
            idempotencia::REPLAYED,
            REQUEST_ID,
        ])
        .max_age(std::time::Duration::from_secs(3_600))
}

/// A month in which a browser that came by HTTPS comes by nothing else. Not a year, and not for names below: other
/// programs on the same machine share its name.
const HSTS: &str = "max-age=2592000";
/// An answer is data and no page.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";

/// What a browser may load for a page of ours: for the documentation what it is made of, for an answer
/// that is opened as if it were a page nothing at all.
async fn content_policy(request: Request, next: Next) -> Response {
    let docs = request.uri().path().starts_with(docs::PATH);
    let mut response = next.run(request).await;
    let policy = HeaderValue::from_static(if docs { docs::CONTENT_POLICY } else { NO_PAGE });
    response.headers_mut().entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
    response
}

/// A method as a label: a client may invent as many as it likes.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// A request's own id is kept where it can stand in a log line and an answer as it is; else it gets
/// one of ours.
fn sane_id(mut request: Request) -> Request {
    let sane = |id: &HeaderValue| {
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
        (1..=128).contains(&id.len()) && id.as_bytes().iter().all(allowed)
    };
    if request.headers().get(REQUEST_ID).is_some_and(|id| !sane(id)) {
        request.headers_mut().remove(REQUEST_ID);
    }
    request
}

/// Times requests by route template, so that no label is unbounded.
async fn measure(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("-", MatchedPath::as_str).to_owned();
    let method = method_label(request.method());
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    histogram!("alertrace_http_request_seconds", "method" => method, "route" => route, "status" => status)
        .record(start.elapsed());
    response
}

#[expect(clippy::needless_pass_by_value, reason = "the layer's signature")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let what = panic.downcast_ref::<&str>().map(ToString::to_string);
    let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    axum::response::IntoResponse::into_response(problem::Problem::internal(&format!(
        "a handler panicked: {what}"
    )))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;
    use crate::config::{Sources, load};

    async fn asked_from(origin: &'static str) -> Option<HeaderValue> {
        let env = [("ALLOWED_ORIGINS".to_owned(), "https://*.finca.example".to_owned())].into();
        let config = load(&Sources { env, ..Sources::default() }).unwrap();
        let routes: Router = Router::new()
            .route("/", axum::routing::get(|| async {}))
            .layer(cors(config.http.allowed_origins));
        let request = Request::builder().uri("/").header(header::ORIGIN, origin).body(Body::empty()).unwrap();
        let response = routes.oneshot(request).await.unwrap();
        response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
    }

    #[test]
    fn an_invented_method_makes_no_label() {
        assert_eq!(method_label(&Method::PATCH), "PATCH");
        assert_eq!(method_label(&Method::from_bytes(b"METODO1").unwrap()), "other");
    }

    #[test]
    fn a_request_id_that_could_not_be_logged_is_dropped() {
        let kept = |id: &str| {
            let request = Request::builder().header(REQUEST_ID, id).body(Body::empty()).unwrap();
            sane_id(request).headers().contains_key(REQUEST_ID)
        };
        assert!(kept("01a20c4c-2132-7571"));
        for id in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert!(!kept(id), "{id}");
        }
    }

    #[tokio::test]
    async fn only_configured_origins_may_call_and_never_all() {
        for origin in ["http://localhost:3000", "https://alertrace.vercel.app", "https://panel.finca.example"]
        {
            assert_eq!(asked_from(origin).await.unwrap(), origin);
        }
        for origin in ["https://evil.vercel.app", "https://finca.example", "null", "http://localhost:3001"] {
            assert_eq!(asked_from(origin).await, None, "{origin}");
        }
    }
}
