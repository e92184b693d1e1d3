//! Entity tags: a list that has not changed is not sent again (`If-None-Match`), and what somebody else has
//! changed meanwhile is not overwritten (`If-Match`).

use std::convert::Infallible;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::Body as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::problem::Problem;

/// Bytes of an answer that gets a tag: a full page of a thousand is far below.
const MAX_TAGGED: u64 = 16 << 20;

/// A tag of what people set of a thing; what devices say beside it does not change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag(String);

impl Tag {
    /// Of `value`, as it is written.
    pub(super) fn of(value: &impl Serialize) -> Self {
        Self(format!("\"{}\"", digest(&[&serde_json::to_vec(value).unwrap_or_default()])))
    }

    /// As a header of an answer.
    pub(super) fn header(&self) -> [(HeaderName, String); 1] {
        [(header::ETAG, self.0.clone())]
    }

    /// As [`Self::header`], of an answer that may be sent in several encodings.
    pub(super) fn weak(&self) -> [(HeaderName, String); 1] {
        [(header::ETAG, format!("W/{}", self.0))]
    }

    /// The answer that shows all of `value` and nothing else: its tag serves `If-None-Match` as well.
    pub(super) fn answer(value: &impl Serialize) -> Response {
        (Extension(Whole), Self::of(value).header(), axum::Json(value)).into_response()
    }
}

/// The tag of an answer is of all that it shows.
#[derive(Clone, Copy)]
pub(super) struct Whole;

fn digest(parts: &[&[u8]]) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part);
        sha.update([0]);
    }
    sha.finalize()[..12].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// The tags of a header; `None` = it is not there.
fn listed(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<String>> {
    let mut tags = Vec::new();
    let mut there = false;
    for value in headers.get_all(name) {
        there = true;
        let text = value.to_str().unwrap_or_default();
        tags.extend(text.split(',').map(|tag| tag.trim().to_owned()));
    }
    there.then_some(tags)
}

/// `If-Match`: change it only if it still is as it was.
pub(super) struct IfMatch(Option<Vec<String>>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(listed(&parts.headers, &header::IF_MATCH)))
    }
}

impl IfMatch {
    /// 412 unless `value` is what the client has seen, or it did not say.
    pub(super) fn check(&self, value: &impl Serialize) -> Result<(), Problem> {
        let Some(tags) = &self.0 else { return Ok(()) };
        let Tag(now) = Tag::of(value);
        if tags.iter().any(|tag| tag == "*" || *tag == now) {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "changed_meanwhile",
            "Alguien lo cambió mientras tanto; léalo de nuevo y repita el cambio.",
            "Somebody has changed it meanwhile; read it again and repeat your change.",
        ))
    }
}

/// Gives every JSON answer to a GET a tag, and 304 to who has it already.
pub(super) async fn conditional(request: Request, next: Next) -> Response {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let seen = listed(request.headers(), &header::IF_NONE_MATCH);
    let response = next.run(request).await;
    if !get || response.status() != StatusCode::OK {
        return response;
    }
    let known = |tag: &[u8]| seen.iter().flatten().any(|t| t == "*" || t.as_bytes() == tag);
    if response.extensions().get::<Whole>().is_some() {
        let tag = response.headers().get(header::ETAG).map(HeaderValue::as_bytes).unwrap_or_default();
        return if known(tag) { not_modified(response.into_parts().0) } else { response };
    }
    if !taggable(&response) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    // Small enough, and in memory already.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else { return Response::new(Body::empty()) };
    let header = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    let tag = format!("W/\"{}\"", digest(&[&bytes, header("x-total-count"), header("link")]));
    let unchanged = known(tag.as_bytes());
    if let Ok(tag) = HeaderValue::try_from(tag) {
        head.headers.insert(header::ETAG, tag);
    }
    let revalidate = HeaderValue::from_static("private, no-cache");
    head.headers.entry(header::CACHE_CONTROL).or_insert(revalidate);
    if unchanged { not_modified(head) } else { Response::from_parts(head, Body::from(bytes)) }
}

fn not_modified(mut head: axum::http::response::Parts) -> Response {
    head.status = StatusCode::NOT_MODIFIED;
    head.headers.remove(header::CONTENT_TYPE);
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::empty())
}

/// JSON of a known size that may be kept, and has no tag of its own.
fn taggable(response: &Response) -> bool {
    let headers = response.headers();
    let is =
        |name, what: &[u8]| headers.get(name).is_some_and(|v: &HeaderValue| v.as_bytes().starts_with(what));
    is(header::CONTENT_TYPE, b"application/json")
        && !is(header::CACHE_CONTROL, b"no-store")
        && !headers.contains_key(header::ETAG)
        && response.body().size_hint().exact().is_some_and(|n| n <= MAX_TAGGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_seen_is_changed() {
        let value = [1, 2];
        let Tag(tag) = Tag::of(&value);
        assert!(IfMatch(None).check(&value).is_ok());
        for good in ["*", tag.as_str()] {
            assert!(IfMatch(Some(vec!["\"x\"".into(), good.into()])).check(&value).is_ok(), "{good}");
        }
        for bad in ["\"x\"", "", &format!("W/{tag}")] {
            let refused = IfMatch(Some(vec![bad.into()])).check(&value).unwrap_err();
            assert_eq!(refused.status(), StatusCode::PRECONDITION_FAILED, "{bad}");
        }
    }
}
