//! `Idempotency-Key`: a POST that is sent again is carried out once, and answered as it was.
//!
//! The key is noted before the request is carried out and its answer after, each in a commit of its own. A
//! server that dies in between leaves a key without an answer: whoever repeats it is told so (409), since
//! carrying it out again could do it twice. An answer that refuses leaves no trace, nor does a failure before
//! the commit: nothing was changed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, Request, State as Shared};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::Instrument as _;

use super::State;
use super::extract::{Sesion, too_large};
use super::problem::{Outcome, Problem};
use super::rates::too_many;
use crate::identity::Sello;
use crate::store::idempotencia::{self, Nombre};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is one of before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How long a key is remembered.
const REMEMBERED: Duration = Duration::from_secs(86_400);
/// Keys of one account that are; the oldest makes room.
const MAX_KEYS: i64 = 1_000;
/// Characters of a path that are kept, for whoever reads the table.
const MAX_PATH: usize = 200;
/// Bytes of an answer that is kept.
const MAX_ANSWER: usize = 256 << 10;
/// Where a key means nothing: sign-in has nobody yet to remember it for, and a reading is its own key.
const WITHOUT: [&str; 2] = ["/api/v1/auth/", "/api/v1/sensores/data"];

/// Requests with a key that are carried out at a time: of one account, and of all.
const AT_A_TIME: (usize, usize) = (8, 256);

/// Keys whose requests are being carried out.
#[derive(Default, Clone)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<Nombre>>>);

/// One of them, until dropped.
struct Place(UnderWay, Nombre);

impl UnderWay {
    /// A place, for they go on when whoever asked has hung up.
    fn enter(&self, nombre: &Nombre) -> Result<Place, Problem> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.contains(nombre) {
            return Err(in_progress());
        }
        let own = all.iter().filter(|n| n.principal == nombre.principal).count();
        if own >= AT_A_TIME.0 || all.len() >= AT_A_TIME.1 {
            return Err(too_many(Duration::ZERO));
        }
        all.insert(nombre.clone());
        Ok(Place(self.clone(), nombre.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// What is kept of an answer.
#[derive(Serialize, Deserialize)]
struct Answer {
    headers: Vec<(String, String)>,
    body: String,
}

/// Carries a POST with a key out once.
pub(super) async fn once(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let keyed = request.method() == Method::POST
        && request.headers().contains_key(KEY)
        && path.starts_with("/api/v1/")
        && !WITHOUT.iter().any(|p| path.starts_with(p));
    if !keyed {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    // Who cannot sign in is told so by the route.
    let Ok(sesion) = <Sesion as FromRequestParts<State>>::from_request_parts(&mut parts, &state).await else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let path = parts.uri.path();
    let key = parts.headers.get(KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if !(1..=255).contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) {
        return bad_key().into_response();
    }
    let nombre = Nombre {
        principal: sesion.0.user_id,
        ruta: path.chars().take(MAX_PATH).collect(),
        clave: named(key, parts.uri.path_and_query().map_or("", PathAndQuery::as_str)),
    };
    let Ok(body) = to_bytes(body, state.parts().settings.body_limit).await else {
        return too_large().into_response();
    };
    let place = match state.0.under_way.enter(&nombre) {
        Ok(place) => place,
        Err(problem) => return problem.into_response(),
    };
    let request = Request::from_parts(parts, Body::from(body.clone()));
    // To its end, whatever becomes of the connection: who asks again is to hear what came of it.
    let work = async move {
        let _place = place;
        carried_out(&state, &nombre, body, request, next).await.unwrap_or_else(Problem::into_response)
    };
    let done = tokio::spawn(work.in_current_span()).await;
    done.unwrap_or_else(|e| Problem::internal(&e).into_response())
}

/// What a key is remembered by: with the whole of the route that it was sent to, however long.
fn named(key: &[u8], route: &str) -> [u8; 32] {
    // No key holds a line feed.
    Sha256::new().chain_update(key).chain_update(b"\n").chain_update(route).finalize().into()
}

async fn carried_out(
    state: &State,
    nombre: &Nombre,
    body: Bytes,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let parts = state.parts();
    let huella: [u8; 32] = Sha256::digest(&body).into();
    let ahora = parts.clock.now();
    let mut tx = parts.store.write().await?;
    let antes = ahora.minus(REMEMBERED);
    // Those that are over go first; one of an account's newest makes room only for a key that is new.
    idempotencia::make_room(&mut tx, &nombre.principal, MAX_KEYS, antes).await?;
    if let Some(known) = idempotencia::get(&mut tx, nombre).await? {
        tx.commit().await?;
        return if known.huella != huella {
            Err(another_body())
        } else if let (Some(estado), Some(respuesta)) = (known.estado, known.respuesta) {
            again(&parts.sello, estado, &respuesta)
        } else {
            Err(unknown_outcome())
        };
    }
    idempotencia::make_room(&mut tx, &nombre.principal, MAX_KEYS - 1, antes).await?;
    idempotencia::begin(&mut tx, nombre, &huella, ahora).await?;
    tx.commit().await?;
    let response = next.run(request).await;
    if !response.status().is_success() {
        // After a failure of ours it is not known what was done, unless it says so; after a refusal it is: nothing.
        let untouched =
            response.extensions().get::<Problem>().is_some_and(|p| p.outcome() == Outcome::Untouched);
        if untouched || !response.status().is_server_error() {
            forgotten(state, nombre).await;
        }
        return Ok(response);
    }
    remembered(state, nombre, response).await
}

/// Lets a key be used again. The store that failed the request may still be away: it is tried for a while, and
/// the key is in progress meanwhile.
async fn forgotten(state: &State, nombre: &Nombre) {
    const TRIES: [Duration; 9] = [
        Duration::ZERO,
        Duration::from_millis(100),
        Duration::from_millis(300),
        Duration::from_secs(1),
        Duration::from_secs(1),
        Duration::from_secs(2),
        Duration::from_secs(5),
        Duration::from_secs(10),
        Duration::from_secs(30),
    ];
    for pause in TRIES {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = state.0.stop.cancelled() => return,
        }
        let done = async {
            let mut tx = state.parts().store.write().await?;
            idempotencia::forget(&mut tx, nombre).await?;
            tx.commit().await
        };
        match done.await {
            Ok(()) => return,
            Err(e) => tracing::warn!(error = %e, "an Idempotency-Key cannot be released yet"),
        }
    }
}

/// Keeps the answer, and gives it.
async fn remembered(state: &State, nombre: &Nombre, response: Response) -> Result<Response, Problem> {
    let parts = state.parts();
    let (head, body) = response.into_parts();
    let body = to_bytes(body, MAX_ANSWER).await.map_err(|e| Problem::internal(&e))?;
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    let answer = Answer {
        headers: head.headers.iter().filter_map(text).collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let json = serde_json::to_vec(&answer).map_err(|e| Problem::internal(&e))?;
    let sealed = parts.sello.seal(&json).map_err(|e| Problem::internal(&e))?;
    // The change is made: that its answer cannot be kept is no reason not to give it.
    let kept = async {
        let mut tx = parts.store.write().await?;
        idempotencia::answered(&mut tx, nombre, head.status.as_u16(), &sealed).await?;
        tx.commit().await
    };
    if let Err(e) = kept.await {
        tracing::warn!(error = %e, "an answer could not be kept for its Idempotency-Key");
    }
    Ok(Response::from_parts(head, Body::from(body)))
}

/// The answer of before.
fn again(sello: &Sello, estado: i64, sealed: &[u8]) -> Result<Response, Problem> {
    // Sealed under a secret that has been replaced since.
    let Ok(json) = sello.open(sealed) else { return Err(unknown_outcome()) };
    let answer: Answer = serde_json::from_slice(&json).map_err(|e| Problem::internal(&e))?;
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = u16::try_from(estado)
        .ok()
        .and_then(|s| StatusCode::from_u16(s).ok())
        .ok_or_else(|| Problem::internal(&"a status that is none"))?;
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
            && name != header::CONTENT_LENGTH
        {
            response.headers_mut().append(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

fn bad_key() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "bad_idempotency_key",
        "Idempotency-Key: de 1 a 255 caracteres ASCII visibles.",
        "Idempotency-Key: 1 to 255 visible ASCII characters.",
    )
}

fn in_progress() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "idempotency_in_progress",
        "Una petición con esta Idempotency-Key se está atendiendo; reintente en un momento.",
        "A request with this Idempotency-Key is being carried out; try again in a moment.",
    )
    .with_retry_after(1)
}

fn another_body() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency_key_reused",
        "Esta Idempotency-Key ya se usó con otro contenido.",
        "This Idempotency-Key has been used with another body.",
    )
}

fn unknown_outcome() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "idempotency_outcome_unknown",
        "No se sabe si la petición anterior con esta Idempotency-Key se completó; compruébelo y use otra clave.",
        "Whether the request before with this Idempotency-Key was carried out is not known; look, and use another key.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nombre(principal: &str, clave: &[u8]) -> Nombre {
        Nombre { principal: principal.to_owned(), ruta: "/x".to_owned(), clave: named(clave, "/x") }
    }

    #[test]
    fn so_many_are_carried_out_at_a_time_and_no_more() {
        let under_way = UnderWay::default();
        let mut places: Vec<Place> = (b'0'..=b'9')
            .take(AT_A_TIME.0)
            .map(|n| under_way.enter(&nombre("ana", &[b'a', n])).unwrap())
            .collect();
        let refused = |n: &Nombre| under_way.enter(n).err().unwrap().into_response().status();
        assert_eq!(refused(&nombre("ana", b"a0")), StatusCode::CONFLICT);
        assert_eq!(refused(&nombre("ana", b"b")), StatusCode::TOO_MANY_REQUESTS);
        assert!(under_way.enter(&nombre("luz", b"b")).is_ok());
        places.pop();
        assert!(under_way.enter(&nombre("ana", b"b")).is_ok());
    }

    #[test]
    fn a_key_is_another_on_another_route() {
        assert_ne!(named(b"k", "/a?x=1"), named(b"k", "/a?x=2"));
        assert_eq!(named(b"k", "/a"), named(b"k", "/a"));
    }
}
