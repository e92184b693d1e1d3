//! Paging by cursor: an opaque text that says where a page ended, so that the next one begins there
//! whatever was written meanwhile.

use axum::http::{HeaderValue, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::problem::Problem;
use crate::domain::Timestamp;

/// The cursor of a page that ended with `ultima`.
pub(super) fn cursor(ultima: Timestamp) -> String {
    URL_SAFE_NO_PAD.encode(ultima.micros().to_be_bytes())
}

/// What [`cursor`] wrote, absent or readable.
pub(super) fn parse(texto: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(texto) = texto else { return Ok(None) };
    let leido = URL_SAFE_NO_PAD.decode(texto).ok().and_then(|b| <[u8; 8]>::try_from(b).ok());
    let leido = leido.and_then(|b| Timestamp::from_micros(i64::from_be_bytes(b)));
    let malo = || {
        Problem::field(
            "cursor",
            "No es un cursor de esta lista: use el de Link, rel=\"next\".",
            "Not a cursor of this list: use the one of Link, rel=\"next\".",
        )
    };
    leido.map(Some).ok_or_else(malo)
}

/// `Link` to the page after this one: the same request with another cursor.
pub(super) fn next(uri: &Uri, cursor: &str) -> Option<HeaderValue> {
    let query = uri.query().unwrap_or_default();
    let mut partes: Vec<&str> =
        query.split('&').filter(|p| !p.is_empty() && !p.starts_with("cursor=")).collect();
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
        for malo in ["", "x", "AAAA", "//////////8", "_________-8", "7"] {
            assert!(parse(Some(malo)).is_err(), "{malo}");
        }
    }

    #[test]
    fn the_next_page_is_the_same_request_with_another_cursor() {
        let uri: Uri = "/api/v1/sensores/7/lecturas?limit=2&cursor=AAA&variable=ph".parse().unwrap();
        let enlace = next(&uri, "BBB").unwrap();
        assert_eq!(enlace, "</api/v1/sensores/7/lecturas?limit=2&variable=ph&cursor=BBB>; rel=\"next\"");
    }
}
