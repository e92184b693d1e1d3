//! In which language a problem is told.

use axum::http::{HeaderMap, header};

/// Whether English stands before Spanish, by quality and then by order (RFC 9110 section 12.5.4).
pub(super) fn prefers_english(headers: &HeaderMap) -> bool {
    let text = headers.get(header::ACCEPT_LANGUAGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut best: Option<(f32, bool)> = None;
    for part in text.split(',') {
        let (tag, params) = part.split_once(';').unwrap_or((part, ""));
        let english = match tag.trim().get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("en") => true,
            Some("es") => false,
            _ => continue,
        };
        let quality = params.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse).unwrap_or(0.0);
        if quality > 0.0 && best.is_none_or(|(q, _)| quality > q) {
            best = Some((quality, english));
        }
    }
    best.is_some_and(|(_, english)| english)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn language(text: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_static(text));
        prefers_english(&headers)
    }

    #[test]
    fn spanish_unless_english_is_preferred() {
        for text in ["", "*", "fr", "es,en", "en;q=0.5,es-PE;q=0.9", "en;q=0"] {
            assert!(!language(text), "{text}");
        }
        for text in ["en", "en-US,es;q=0.9", "fr, en;q=0.1"] {
            assert!(language(text), "{text}");
        }
        assert!(!prefers_english(&HeaderMap::new()));
    }
}
