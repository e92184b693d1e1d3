//! How often requests may come: by address, by token, and more strictly where people sign in.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use metrics::counter;

use super::extract::bearer;
use super::listener::Peer;
use super::problem::Problem;
use super::{State, lector};
use crate::limits::rate::Rate;

/// Requests of a while; 0 = no limit.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A second, from one address.
    pub per_address: u32,
    /// A second, with one token.
    pub per_token: u32,
    /// A minute, from one address, that sign in, register or refresh.
    pub sign_ins: u32,
}

/// Paths that probes ask, and that cost nothing.
const FREE: [&str; 3] = ["/health", "/ready", "/metrics"];
/// Where a request proves who somebody is, at the cost of a password's hash.
const SIGN_IN: [&str; 2] = ["/api/v1/auth/", "/auth/v1/"];

/// Where the link of a message leads: its code is tried.
const LINKS: [&str; 2] = ["/api/v1/auth/confirm", "/auth/v1/verify"];

/// Whether a path is one of those; whoever administers accounts shows a key.
fn signs_in(path: &str) -> bool {
    SIGN_IN.iter().any(|p| path.starts_with(p)) && !path.starts_with("/auth/v1/admin/")
}

/// What has been asked lately.
pub(super) struct Rates {
    by_address: Option<Rate<IpAddr>>,
    by_token: Option<Rate<u64>>,
    sign_ins: Option<Rate<IpAddr>>,
    /// Tokens are known by a hash that nobody outside can aim at.
    hasher: RandomState,
}

impl Rates {
    pub(super) fn new(limits: Limits) -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        const MINUTE: Duration = Duration::from_secs(60);
        // A page that opens asks for much at once.
        let burst = |n: u32| n.saturating_mul(3);
        Self {
            by_address: Rate::new(limits.per_address, SECOND, burst(limits.per_address)),
            by_token: Rate::new(limits.per_token, SECOND, burst(limits.per_token)),
            sign_ins: Rate::new(limits.sign_ins, MINUTE, limits.sign_ins),
            hasher: RandomState::new(),
        }
    }

    fn check(&self, request: &Request, ip: Option<IpAddr>) -> Result<(), (&'static str, Duration)> {
        let path = request.uri().path();
        if FREE.contains(&path) {
            return Ok(());
        }
        if let Some(ip) = ip.map(network) {
            named("address", self.by_address.as_ref().map(|r| r.check(ip)))?;
            let proves = match *request.method() {
                Method::POST => signs_in(path) && !path.ends_with("/logout"),
                Method::GET | Method::HEAD => LINKS.contains(&path.trim_end_matches('/')),
                _ => false,
            };
            if proves {
                named("sign_in", self.sign_ins.as_ref().map(|r| r.check(ip)))?;
            }
        }
        // As it is read by whoever signs it in: another way to write it is no other token.
        let own = lector::key(request.headers()).or_else(|| bearer(request.headers())).map(str::as_bytes);
        let device = || request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        if let Some(token) = own.or_else(device) {
            let token = self.hasher.hash_one(token);
            named("token", self.by_token.as_ref().map(|r| r.check(token)))?;
        }
        Ok(())
    }
}

fn named(limit: &'static str, checked: Option<Result<(), Duration>>) -> Result<(), (&'static str, Duration)> {
    checked.unwrap_or(Ok(())).map_err(|wait| (limit, wait))
}

/// One customer of a provider has a /64 of IPv6: its addresses are one.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// Answers 429 to one request too many.
pub(super) async fn limit(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let behind_proxy = state.parts().settings.behind_proxy;
    let peer = request.extensions().get::<Peer>().map(|p| p.client(request.headers(), behind_proxy));
    match state.0.rates.check(&request, peer) {
        Ok(()) => next.run(request).await,
        Err((limit, wait)) => {
            counter!("alertrace_http_limited_total", "limit" => limit).increment(1);
            too_many(wait).into_response()
        }
    }
}

pub(super) fn too_many(wait: Duration) -> Problem {
    let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many_requests",
        "Demasiadas peticiones; espere los segundos que dice Retry-After.",
        "Too many requests; wait for as many seconds as Retry-After says.",
    )
    .with_retry_after(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_counted_however_it_is_written() {
        let rates = Rates::new(Limits { per_address: 0, per_token: 1, sign_ins: 0 });
        let ask = |name: &str, value: &str| {
            let request = Request::builder().uri("/api/v1/sensores").header(name, value);
            rates.check(&request.body(axum::body::Body::empty()).unwrap(), None)
        };
        for value in ["Bearer abc", "bearer abc", "Bearer   abc"] {
            assert_eq!(ask("authorization", value), Ok(()));
        }
        assert!(ask("authorization", "BEARER  abc ").is_err());
        assert_eq!(ask("authorization", "Bearer other"), Ok(()));
        for (name, value) in
            [("x-api-key", "atk_1"), ("authorization", "Bearer atk_1"), ("x-api-key", " atk_1")]
        {
            assert_eq!(ask(name, value), Ok(()));
        }
        assert!(ask("x-api-key", "atk_1").is_err());
    }

    #[test]
    fn codes_of_messages_are_tried_as_often_as_passwords() {
        let rates = Rates::new(Limits { per_address: 0, per_token: 0, sign_ins: 1 });
        let ask = |method: Method, uri: &str| {
            let request = Request::builder().method(method).uri(uri).body(axum::body::Body::empty()).unwrap();
            rates.check(&request, Some("192.0.2.1".parse().unwrap())).map_err(|(limit, _)| limit)
        };
        let follow = |uri: &str| ask(Method::GET, uri);
        assert_eq!(follow("/api/v1/auth/me?token=x"), Ok(()));
        assert_eq!(follow("/api/v1/auth/confirm?token=x"), Ok(()));
        assert_eq!(follow("/auth/v1/verify?token=x"), Err("sign_in"));
        // A handler of GET answers it, with all its work.
        assert_eq!(ask(Method::HEAD, "/auth/v1/verify?token=x"), Err("sign_in"));
        assert_eq!(follow("/api/v1/auth/me"), Ok(()));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
