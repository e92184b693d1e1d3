//! The OpenAPI document's frame, and Swagger UI on it.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::sync::OnceCell;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Flow, HttpAuthScheme, HttpBuilder, OAuth2, Password, Scopes, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, SecurityRequirement,
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::State;
use super::problem::{Campo, Problem, ProblemBody};

const DESCRIPTION: &str = "What a site's sensors said: readings, alerts, thresholds. Moments are RFC 3339, UTC. \
Errors are RFC 9457 problems (`application/problem+json`) with a stable `code`; their text is Spanish, or English by \
`Accept-Language`. What belongs to another empresa answers 404.";

/// Where Swagger UI is.
pub(super) const PATH: &str = "/docs";

/// What its page is made of: scripts of its own alone. Swagger UI sets styles in its elements, and has pictures in
/// its style sheet.
pub(super) const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Title, description, and how to sign in.
pub(super) fn base() -> OpenApi {
    let password = OAuth2::with_description(
        [Flow::Password(Password::new("/api/v1/auth/token", Scopes::new()))],
        "E-mail and password of an account",
    );
    let device =
        HttpBuilder::new().scheme(HttpAuthScheme::Basic).description(Some("device_id and its token"));
    let header = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
        "Authorization",
        "`Device <device_id>:<token>`",
    )));
    let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
        "X-API-Key",
        "A key of /api-keys; Authorization: Bearer takes it too",
    )));
    let components = ComponentsBuilder::new()
        .security_scheme("account", SecurityScheme::OAuth2(password))
        .security_scheme("api_key", key)
        .security_scheme("device", SecurityScheme::Http(device.build()))
        .security_scheme("device_header", header)
        .schema_from::<ProblemBody<'static>>()
        .schema_from::<Campo<'static>>();
    let licence = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Alertrace")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(DESCRIPTION))
                .license(Some(licence)),
        )
        .security(Some([SecurityRequirement::new("account", Vec::<String>::new())]))
        .components(Some(components.build()))
        .build()
}

/// `/docs` and `/openapi.json`; the assets are in the binary. The document is written when somebody first asks for it,
/// and kept as it is sent, a tenth of what it takes before.
pub(super) fn ui() -> Router<State> {
    let config = Config::from("/openapi.json").validator_url("none").persist_authorization(true);
    let swagger: Router<State> = SwaggerUi::new(PATH).config(config).into();
    let document: Arc<OnceCell<Bytes>> = Arc::default();
    let json = get(move || async move {
        let document = document.get_or_try_init(written).await?.clone();
        Ok::<_, Problem>(([(CONTENT_TYPE, "application/json")], document))
    });
    Router::new().route("/openapi.json", json).merge(swagger)
}

/// The document as JSON; putting it together takes some milliseconds.
async fn written() -> Result<Bytes, Problem> {
    let document = tokio::task::spawn_blocking(|| serde_json::to_vec(&super::openapi())).await;
    let document = document.map_err(|e| Problem::internal(&e))?;
    Ok(document.map_err(|e| Problem::internal(&e))?.into())
}
