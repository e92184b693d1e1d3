//! Whoever reads data: a person with an access token, or a program with an API key.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};

use super::State;
use super::extract::{Sesion, bearer};
use super::problem::Problem;
use crate::identity::{Llave, Permiso, llave};
use crate::store::sensores::Alcance;

/// The header of a key. `Authorization: Bearer` takes one too: what a client library offers.
pub(super) const X_API_KEY: &str = "x-api-key";

/// See the module. What it may see is asked with the permission that a program needs for it, so that no
/// handler can forget one.
pub(super) enum Lector {
    Persona(Sesion),
    Programa(Llave),
}

impl FromRequestParts<State> for Lector {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        match key(&parts.headers) {
            Some(clave) => Ok(Self::Programa(known(state, clave).await?)),
            None => Ok(Self::Persona(
                <Sesion as FromRequestParts<State>>::from_request_parts(parts, state).await?,
            )),
        }
    }
}

impl Lector {
    /// The sensors that may be seen; a program needs `permiso` for it.
    pub(super) fn alcance(&self, permiso: Permiso) -> Result<Alcance, Problem> {
        match self {
            Self::Persona(sesion) => sesion.alcance(),
            Self::Programa(llave) if llave.puede(permiso) => Ok(llave.alcance()),
            Self::Programa(_) => Err(insufficient(Some(permiso))),
        }
    }
}

/// The API key of a request.
pub(super) fn key(headers: &HeaderMap) -> Option<&str> {
    let own = headers.get(X_API_KEY).and_then(|v| v.to_str().ok()).map(str::trim);
    own.or_else(|| bearer(headers).filter(|token| token.starts_with(llave::PREFIJO)))
}

/// Whose key this is.
async fn known(state: &State, clave: &str) -> Result<Llave, Problem> {
    let parts = state.parts();
    llave::entra(&parts.store, clave.as_bytes(), parts.clock.now()).await?.ok_or_else(|| {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "invalid_api_key",
            "La clave no existe, fue revocada o caducó.",
            "The key does not exist, was revoked or has expired.",
        )
    })
}

/// A route for people alone was asked with a key: 401 if it is nobody's, else 403.
pub(super) async fn refuse(state: &State, clave: &str) -> Problem {
    match known(state, clave).await {
        Ok(_) => insufficient(None),
        Err(problem) => problem,
    }
}

fn insufficient(permiso: Option<Permiso>) -> Problem {
    let (es, en) = match permiso {
        Some(p) => (
            format!("La clave no tiene el permiso {}.", p.as_str()),
            format!("The key does not have the scope {}.", p.as_str()),
        ),
        None => (
            "Esta operación es para personas: inicie sesión.".to_owned(),
            "This is for people: sign in.".to_owned(),
        ),
    };
    Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", es, en)
}
