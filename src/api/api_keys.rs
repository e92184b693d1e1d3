//! API keys: how programs sign in, over HTTP (`X-API-Key`, or `Authorization: Bearer`) and over MQTT
//! (username `key`).

use axum::extract::{OriginalUri, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::auth::NO_STORE;
use super::extract::{Json, Pagina, Path, Query, Sesion, momento};
use super::finish::to_its_end;
use super::problem::Problem;
use super::validate::Check;
use super::{State, paging};
use crate::domain::Timestamp;
use crate::identity::{Permiso, Revocado, llave};
use crate::store::api_keys::{self, ApiKey};
use crate::store::auditoria::Hecho;

/// Keys of one empresa that are good at a time.
const ABIERTAS: i64 = 100;
/// Characters that people see of a key.
const VISIBLES: usize = 10;

/// A key, without what it is.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ApiKey)]
pub(super) struct Body {
    id_api_key: i64,
    nombre: String,
    /// How it begins.
    #[schema(example = "atk_8sJ2kW")]
    prefijo: String,
    scopes: Vec<Permiso>,
    /// Whether it lets anybody in.
    activa: bool,
    /// The `user_id` of who made it.
    creada_por: String,
    fecha_creacion: Timestamp,
    fecha_expiracion: Option<Timestamp>,
    fecha_revocacion: Option<Timestamp>,
}

impl Body {
    fn new(k: ApiKey, ahora: Timestamp) -> Self {
        Self {
            activa: k.vigente(ahora),
            id_api_key: k.id_api_key,
            nombre: k.nombre,
            prefijo: k.prefijo,
            scopes: Permiso::lee(&k.permisos),
            creada_por: k.creada_por,
            fecha_creacion: Timestamp::clamped(k.creada),
            fecha_expiracion: k.expira.map(Timestamp::clamped),
            fecha_revocacion: k.revocada.map(Timestamp::clamped),
        }
    }
}

/// The keys of the empresa, the newest first, those that are revoked too.
#[utoipa::path(get, path = "/api-keys", tag = "api-keys", params(Pagina),
    responses((status = 200, body = Vec<Body>, headers(("x-total-count" = i64, description = "How many in all"))),
        (status = 400, description = "Bad query"),
        (status = 403, description = "Not an administrator"), (status = 422, description = "Parameters out of range")))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Query(pagina): Query<Pagina>,
    OriginalUri(uri): OriginalUri,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    let hoja = pagina.hoja()?;
    let mut tx = state.parts().store.read().await?;
    let found = api_keys::list(&mut tx, id_empresa, &hoja).await?;
    tx.commit().await?;
    let ahora = state.parts().clock.now();
    Ok(paging::list(&uri, hoja, found, |k| k.id_api_key, |k| Body::new(k, ahora)))
}

/// A key to make.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = ApiKeyNueva, example = json!({ "nombre": "Grafana", "scopes": ["lecturas:read", "mqtt:subscribe"] }))]
pub(super) struct Create {
    /// What it is for.
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    nombre: String,
    /// What it may do, at least one thing: `lecturas:read`, `alertas:read` (HTTP), `mqtt:subscribe`.
    #[schema(min_items = 1)]
    scopes: Vec<Permiso>,
    /// When it stops being good (RFC 3339); absent = when it is revoked.
    #[schema(format = DateTime)]
    expira: Option<String>,
}

/// A key that was made.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ApiKeyCreada)]
pub(super) struct Created {
    message: &'static str,
    /// Shown this once.
    #[schema(example = "atk_8sJ2kWq0b1cZ7vTn3yXh5mRd9aLf4gKp6eUo2iBs8wE")]
    api_key: String,
    #[serde(flatten)]
    body: Body,
}

/// Make a key; it is shown this once. A program sends it as `X-API-Key`, or as `Authorization: Bearer`, or
/// signs in to the broker with the username `key`. It sees all sensors of the empresa.
#[utoipa::path(post, path = "/api-keys", tag = "api-keys", request_body = Create,
    responses((status = 201, body = Created),
        (status = 403, description = "Not an administrator"), (status = 409, description = "Too many are good")))]
pub(super) async fn create(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Json(c): Json<Create>,
) -> Result<impl IntoResponse, Problem> {
    let id_empresa = sesion.admin()?;
    let parts = state.parts();
    let ahora = parts.clock.now();
    let expira = momento("expira", c.expira.as_deref())?;
    let mut check = Check::default();
    check.text("nombre", &c.nombre);
    check.that(!c.scopes.is_empty(), "scopes", "Al menos uno.", "At least one.");
    check.that(expira.is_none_or(|e| e > ahora), "expira", "En el futuro.", "In the future.");
    check.done()?;
    let made = llave::genera().map_err(|e| Problem::internal(&e))?;
    let mut key = ApiKey {
        id_api_key: 0,
        id_empresa,
        nombre: c.nombre,
        prefijo: made.texto.chars().take(VISIBLES).collect(),
        permisos: Permiso::escribe(&c.scopes),
        creada_por: sesion.0.user_id.clone(),
        creada: ahora.micros(),
        expira: expira.map(Timestamp::micros),
        revocada: None,
    };
    let mut tx = parts.store.write().await?;
    if api_keys::open(&mut tx, id_empresa, ahora).await? >= ABIERTAS {
        return Err(too_many());
    }
    key.id_api_key = api_keys::create(&mut tx, &key, &made.hash).await?;
    let alta = Body::new(key.clone(), ahora);
    sesion.autor().anota(&mut tx, &Hecho::creado("api_key", key.id_api_key, &alta)).await?;
    tx.commit().await?;
    tracing::info!(id_empresa, id_api_key = key.id_api_key, por = key.creada_por, "an API key was made");
    let body = Created {
        message: "Clave creada. Guárdela: no se vuelve a mostrar.",
        api_key: made.texto,
        body: alta,
    };
    Ok((StatusCode::CREATED, NO_STORE, axum::Json(body)))
}

fn too_many() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "too_many_api_keys",
        "La empresa ya tiene 100 claves activas; revoque alguna.",
        "The empresa has 100 active keys already; revoke one.",
    )
}

/// Revoke a key for good: it is refused from now on, and its connections end.
#[utoipa::path(delete, path = "/api-keys/{id_api_key}", tag = "api-keys", params(("id_api_key" = i64, Path)),
    responses((status = 204), (status = 403, description = "Not an administrator"),
        (status = 404, description = "No such key")))]
pub(super) async fn delete(
    Shared(state): Shared<State>,
    sesion: Sesion,
    Path(id): Path<i64>,
) -> Result<StatusCode, Problem> {
    let id_empresa = sesion.admin()?;
    let work = {
        let state = state.clone();
        async move {
            let parts = state.parts();
            let mut tx = parts.store.write().await?;
            if !api_keys::revoke(&mut tx, id_empresa, id, parts.clock.now()).await? {
                return Err(Problem::not_found());
            }
            sesion.autor().anota(&mut tx, &Hecho::nuevo("revocar", "api_key", id)).await?;
            Ok(parts.directorio.confirma_y_revoca(tx, Revocado::Llave(id)).await?)
        }
    };
    to_its_end(&state, work).await?;
    Ok(StatusCode::NO_CONTENT)
}
