//! Paging of every list: `limit`, `skip`, and by cursor: an opaque text that says where a page ended, so that
//! the next one begins there whatever was written meanwhile.

use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::problem::{Problem, Texto};
use crate::domain::Timestamp;
use crate::store::Hoja;

/// Which part of a list.
#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Pagina {
    /// At most this many (1 … 1,000; default 100).
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
    /// Leave out this many first (0 … 10,000).
    #[param(minimum = 0, maximum = 10000, default = 0)]
    skip: Option<i64>,
    /// Where the page before ended, from its `Link: rel="next"`: however far, at the cost of the first page.
    #[param(pattern = "^[A-Za-z0-9_-]{10}[AEIMQUYcgkosw048]$")]
    cursor: Option<String>,
}

impl Pagina {
    /// (limit, skip), checked.
    pub(super) fn checked(&self) -> Result<(i64, i64), Problem> {
        let (limit, skip) = (self.limit.unwrap_or(100), self.skip.unwrap_or(0));
        let mut campos = Vec::new();
        if !(1..=1_000).contains(&limit) {
            campos.push(("limit".to_owned(), Texto::new("De 1 a 1000.", "From 1 to 1000.")));
        }
        if !(0..=10_000).contains(&skip) {
            let texto = Texto::new(
                "De 0 a 10000; más allá, use el cursor de Link, rel=\"next\".",
                "From 0 to 10000; beyond that use the cursor of Link, rel=\"next\".",
            );
            campos.push(("skip".to_owned(), texto));
        }
        if campos.is_empty() { Ok((limit, skip)) } else { Err(Problem::invalid(campos)) }
    }

    /// What the store is asked for.
    pub(super) fn hoja(&self) -> Result<Hoja, Problem> {
        let (limit, skip) = self.checked()?;
        let despues = self.cursor.as_deref().map(|texto| key(texto).ok_or_else(malo)).transpose()?;
        Ok(Hoja { despues, skip, limit })
    }
}

/// The answer to a list: an array, `X-Total-Count`, and `Link` to the next page where there is one.
/// `filas` is one row more than was asked for when there is; `clave` is what the list is ordered by.
pub(super) fn list<T, B: Serialize>(
    uri: &Uri,
    hoja: Hoja,
    (mut filas, total): (Vec<T>, i64),
    clave: impl Fn(&T) -> i64,
    body: impl FnMut(T) -> B,
) -> Response {
    let limit = usize::try_from(hoja.limit).unwrap_or(usize::MAX);
    let hay_mas = filas.len() > limit;
    filas.truncate(limit);
    let enlace = filas.last().filter(|_| hay_mas).and_then(|ultima| next(uri, &key_cursor(clave(ultima))));
    let body: Vec<B> = filas.into_iter().map(body).collect();
    let mut response = ([("x-total-count", total.to_string())], axum::Json(body)).into_response();
    if let Some(enlace) = enlace {
        response.headers_mut().insert(header::LINK, enlace);
    }
    response
}

/// The cursor of a page that ended with the row of this key.
fn key_cursor(key: i64) -> String {
    URL_SAFE_NO_PAD.encode(key.to_be_bytes())
}

fn key(texto: &str) -> Option<i64> {
    let bytes = URL_SAFE_NO_PAD.decode(texto).ok()?;
    Some(i64::from_be_bytes(<[u8; 8]>::try_from(bytes).ok()?))
}

/// The cursor of a page that ended with `ultima`.
pub(super) fn cursor(ultima: Timestamp) -> String {
    key_cursor(ultima.micros())
}

/// What [`cursor`] wrote, absent or readable. One of a moment that no reading can have stands for the first or the
/// last that one can: past it is nothing, or everything.
pub(super) fn parse(texto: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(texto) = texto else { return Ok(None) };
    key(texto).map(Timestamp::clamped).map(Some).ok_or_else(malo)
}

fn malo() -> Problem {
    Problem::field(
        "cursor",
        "No es un cursor de esta lista: use el de Link, rel=\"next\".",
        "Not a cursor of this list: use the one of Link, rel=\"next\".",
    )
}

/// `Link` to the page after this one: the same request with another cursor, which stands for what was skipped.
pub(super) fn next(uri: &Uri, cursor: &str) -> Option<HeaderValue> {
    let query = uri.query().unwrap_or_default();
    let kept = |p: &&str| !p.is_empty() && !p.starts_with("cursor=") && !p.starts_with("skip=");
    let mut partes: Vec<&str> = query.split('&').filter(kept).collect();
    let suyo = format!("cursor={cursor}");
    partes.push(&suyo);
    let enlace = format!("<{}?{}>; rel=\"next\"", uri.path(), partes.join("&"));
    HeaderValue::try_from(enlace).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is() {
        let ts = Timestamp::clamped(1_795_478_400_123_456);
        assert_eq!(parse(Some(&cursor(ts))).unwrap(), Some(ts));
        assert_eq!(parse(None).unwrap(), None);
        for malo in ["", "x", "AAAA", "//////////8", "_________-9", "7"] {
            assert!(parse(Some(malo)).is_err(), "{malo}");
        }
    }

    #[test]
    fn the_next_page_is_the_same_request_with_another_cursor() {
        let uri: Uri = "/api/v1/sensores/7/lecturas?limit=2&cursor=AAA&skip=4&variable=ph".parse().unwrap();
        let enlace = next(&uri, "BBB").unwrap();
        assert_eq!(enlace, "</api/v1/sensores/7/lecturas?limit=2&variable=ph&cursor=BBB>; rel=\"next\"");
    }
}
