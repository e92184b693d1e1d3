//! What handlers take from a request, each refusal a [`Problem`].

use std::convert::Infallible;
use std::fmt;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer};

use super::listener::Peer;
use super::middleware::REQUEST_ID;
pub(super) use super::paging::Pagina;
use super::problem::Problem;
use super::{State, lector};
use crate::domain::{Rol, Timestamp};
use crate::identity::Usuario;
use crate::store::auditoria::{Autor, Origen};
use crate::store::sensores::Alcance;

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        use axum::extract::rejection::JsonRejection;
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts.clone(), body);
        let Ok(bytes) = Bytes::from_request(request, state).await else { return Err(too_large()) };
        no_array(&bytes)?;
        let request = Request::from_parts(parts, Body::from(bytes.clone()));
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(JsonRejection::JsonDataError(e)) => Err(wrong_shape(&e)),
            // A number where there is one of a few words to say is bad syntax to serde, and JSON all the same.
            Err(JsonRejection::JsonSyntaxError(e))
                if serde_json::from_slice::<de::IgnoredAny>(&bytes).is_ok() =>
            {
                Err(wrong_shape(&e))
            }
            Err(JsonRejection::MissingJsonContentType(_)) => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Envíe JSON con Content-Type: application/json.",
                "Send JSON with Content-Type: application/json.",
            )),
            Err(e) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_large()),
            Err(e) => {
                let en = e.body_text();
                Err(Problem::new(StatusCode::BAD_REQUEST, "malformed_json", "El cuerpo no es JSON.", en))
            }
        }
    }
}

/// A JSON body that may be left out, or be null, as front ends send it: whatever its `Content-Type` says.
pub(super) fn optional<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, Problem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    no_array(body)?;
    let read = serde_json::from_slice::<Option<T>>(body);
    read.map(Option::unwrap_or_default).map_err(|e| Problem::field("", NOT_THIS.0, e.to_string()))
}

/// Members by position are what serde takes as well, and nobody means.
fn no_array(body: &[u8]) -> Result<(), Problem> {
    if body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[') {
        return Err(Problem::field("", NOT_THIS.0, NOT_THIS.1));
    }
    Ok(())
}

const NOT_THIS: (&str, &str) = ("No tiene la forma esperada.", "Not of the expected form.");

/// JSON, but not what was expected: says of which field.
fn wrong_shape(e: &dyn std::error::Error) -> Problem {
    let mut causes = std::iter::successors(e.source(), |e| e.source());
    let found = causes.find_map(|e| e.downcast_ref::<serde_path_to_error::Error<serde_json::Error>>());
    let Some(found) = found else { return Problem::field("", NOT_THIS.0, NOT_THIS.1) };
    let path = match found.path().to_string() {
        root if root == "." => String::new(),
        path => path,
    };
    let said = found.inner().to_string();
    let Some(missing) = said.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) else {
        return Problem::field(&path, NOT_THIS.0, said);
    };
    let campo = if path.is_empty() { missing.to_owned() } else { format!("{path}.{missing}") };
    Problem::field(&campo, "Falta.", "Missing.")
}

/// The answer to a body that is too large.
pub(super) fn too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        "El cuerpo de la petición es demasiado grande.",
        "The request body is too large.",
    )
}

/// A NUL, which stands in no text that is stored: one of the databases takes it for a mistake, the other finds nothing.
fn has_nul(escaped: &str) -> bool {
    escaped.contains("%00")
}

/// Query parameters.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if parts.uri.query().is_some_and(has_nul) {
            let (es, en) =
                ("Parámetros incorrectos: llevan un carácter nulo.", "A parameter has a NUL character.");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_query", es, en));
        }
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(e) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "bad_query",
                format!("Parámetros incorrectos: {}", e.body_text()),
                e.body_text(),
            )),
        }
    }
}

/// Part of the path; what cannot be one is a thing that does not exist.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if has_nul(parts.uri.path()) {
            return Err(Problem::not_found());
        }
        match <axum::extract::Path<T> as FromRequestParts<S>>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(Problem::not_found()),
        }
    }
}

/// The person who is signed in, by `Authorization: Bearer`, and how the audit names them.
pub(super) struct Sesion(pub(super) Usuario, pub(super) Autor);

impl FromRequestParts<State> for Sesion {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        if let Some(clave) = lector::key(&parts.headers) {
            return Err(lector::refuse(state, clave).await);
        }
        let token = bearer(&parts.headers).ok_or_else(Problem::unauthorized)?;
        let (usuario, _) = state.parts().cuentas.usuario(token).await?;
        let autor = Autor {
            user_id: usuario.user_id.clone(),
            id_empresa: usuario.id_empresa,
            origen: origen(parts, state),
            momento: state.parts().clock.now(),
        };
        Ok(Self(usuario, autor))
    }
}

/// From where a request comes.
pub(super) struct Desde(pub(super) Origen);

impl FromRequestParts<State> for Desde {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Infallible> {
        Ok(Self(origen(parts, state)))
    }
}

fn origen(parts: &Parts, state: &State) -> Origen {
    let behind_proxy = state.parts().settings.behind_proxy;
    let peer = parts.extensions.get::<Peer>().map(|p| p.client(&parts.headers, behind_proxy));
    let peticion = parts.headers.get(REQUEST_ID).and_then(|v| v.to_str().ok()).map(str::to_owned);
    Origen { de: peer.map_or_else(|| "?".to_owned(), |ip| ip.to_string()), peticion }
}

impl OptionalFromRequestParts<State> for Sesion {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Option<Self>, Problem> {
        if bearer(&parts.headers).is_none() {
            return Ok(None);
        }
        <Self as FromRequestParts<State>>::from_request_parts(parts, state).await.map(Some)
    }
}

/// The token of `Authorization: Bearer`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Sesion {
    /// What this person may see. An account without an empresa sees nothing yet; the operador never
    /// sees an empresa's data.
    pub(super) fn alcance(&self) -> Result<Alcance, Problem> {
        self.0.alcance().ok_or_else(|| match self.0.rol {
            Rol::Operador => Problem::forbidden(),
            _ => Problem::no_empresa(),
        })
    }

    /// How the audit names this person: `sesion.autor().anota(&mut tx, &Hecho::creado(…))` in the
    /// transaction of every change.
    pub(super) const fn autor(&self) -> &Autor {
        &self.1
    }

    /// The empresa, for its administrator.
    pub(super) fn admin(&self) -> Result<i64, Problem> {
        self.con(&[Rol::AdminEmpresa])
    }

    /// The empresa, for its administrator or a supervisor.
    pub(super) fn supervisor(&self) -> Result<i64, Problem> {
        self.con(&[Rol::AdminEmpresa, Rol::Supervisor])
    }

    fn con(&self, roles: &[Rol]) -> Result<i64, Problem> {
        let alcance = self.alcance()?;
        if roles.contains(&self.0.rol) { Ok(alcance.id_empresa) } else { Err(Problem::forbidden()) }
    }
}

/// A moment in a query, absent or readable.
pub(super) fn momento(campo: &str, texto: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(texto) = texto else { return Ok(None) };
    // A `+` of a zone arrives as a space where it was not escaped.
    let leido = Timestamp::parse_bound(texto).or_else(|| Timestamp::parse_bound(&texto.replace(' ', "+")));
    let malo = || Problem::field(campo, "No es una fecha RFC 3339.", "Not an RFC 3339 date.");
    leido.map(Some).ok_or_else(malo)
}

/// For PATCH: absent is `None`, `null` is `Some(None)`.
pub(super) fn presente<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(d).map(Some)
}

/// For PATCH of what cannot be without a value: absent is `None`, `null` is refused.
pub(super) fn dado<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// An integer of a body. To JSON Schema, and to programs whose numbers are all of one kind, `300.0` is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entero(pub(super) i64);

impl<'de> Deserialize<'de> for Entero {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Entero;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an integer")
            }

            fn visit_i64<E>(self, n: i64) -> Result<Entero, E> {
                Ok(Entero(n))
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Entero, E> {
                i64::try_from(n).map(Entero).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(n), &self))
            }

            fn visit_f64<E: de::Error>(self, n: f64) -> Result<Entero, E> {
                /// From here on a float has no fraction, and is not exact either.
                const EXACT: f64 = 9_007_199_254_740_992.0;
                if n.fract() != 0.0 || n.abs() > EXACT {
                    return Err(E::invalid_value(de::Unexpected::Float(n), &self));
                }
                #[expect(clippy::cast_possible_truncation, reason = "a whole number that fits")]
                Ok(Entero(n as i64))
            }
        }
        d.deserialize_any(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_an_integer_however_it_is_written() {
        for (texto, n) in [
            ("300", 300),
            ("300.0", 300),
            ("3e2", 300),
            ("-0.0", 0),
            ("9007199254740993", 9_007_199_254_740_993),
        ] {
            assert_eq!(serde_json::from_str::<Entero>(texto).unwrap(), Entero(n), "{texto}");
        }
        for malo in ["300.5", "1e300", "18446744073709551615", "\"300\"", "null", "true"] {
            assert!(serde_json::from_str::<Entero>(malo).is_err(), "{malo}");
        }
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its form matters")]
    struct Outer {
        n: i64,
        inner: Option<Inner>,
        rol: Option<Rol>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its form matters")]
    struct Inner {
        text: String,
    }

    async fn fields(body: &'static str) -> Vec<String> {
        let request = Request::builder().header(header::CONTENT_TYPE, "application/json");
        let request = request.body(axum::body::Body::from(body)).unwrap();
        let refused = <Json<Outer> as FromRequest<()>>::from_request(request, &()).await.err().unwrap();
        refused.fields().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn a_body_of_another_form_names_the_field() {
        for (body, field) in [
            ("{}", "n"),
            (r#"{"n":"1"}"#, "n"),
            (r#"{"n":1,"inner":{}}"#, "inner.text"),
            (r#"{"n":1,"rol":7}"#, "rol"),
            (r#"{"n":1,"rol":"jefe"}"#, "rol"),
            (r#"{"n":1,"inner":{"text":7}}"#, "inner.text"),
            ("7", ""),
            ("[1, null]", ""),
        ] {
            assert_eq!(fields(body).await, [field], "{body}");
        }
    }
}
