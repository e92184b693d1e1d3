//! `[http]`: the port of REST, WebSocket and the documentation, and who may call it from a browser.
//!
//! The origins that the front end is served from are built in; configuration only adds to them.

use std::net::{Ipv4Addr, SocketAddr};

use super::origin::OriginPattern;
use super::reader::Reader;

/// The origins of the existing front end. Exact: anybody can register a name under vercel.app.
pub(super) const BUILT_IN_ORIGINS: [&str; 3] =
    ["http://localhost:3000", "http://localhost:5173", "https://alertrace.vercel.app"];

/// `[http]`
#[derive(Debug, Clone)]
pub struct Http {
    /// Address and port.
    pub listen: SocketAddr,
    /// Whether the port speaks HTTPS and WSS itself, with the certificate of `[tls]`.
    pub tls: bool,
    /// Whether a proxy in front speaks TLS and sets X-Forwarded-For, to be believed.
    pub behind_proxy: bool,
    /// Origins that may call with credentials: the three built in, then the configured ones, each once.
    pub allowed_origins: Vec<OriginPattern>,
    /// Largest request body, in bytes.
    pub body_limit_bytes: usize,
    /// Seconds until an unanswered request is given up.
    pub timeout_s: u64,
    /// Connections at once from one address, unless a proxy is in front.
    pub max_connections_per_address: usize,
    /// Requests a second from one address; 0 = no limit.
    pub max_requests_per_address_per_s: u32,
    /// Requests a second with one token; 0 = no limit.
    pub max_requests_per_token_per_s: u32,
    /// Sign-ins and registrations a minute from one address; 0 = no limit.
    pub max_sign_ins_per_address_per_min: u32,
    /// WebSockets open at once.
    pub max_sockets: usize,
    /// Events waiting for one WebSocket.
    pub socket_queue: usize,
}

impl Http {
    pub(super) fn read(r: &mut Reader) -> Self {
        Self {
            listen: listen(r),
            tls: r.boolean("http.tls"),
            behind_proxy: r.boolean("http.behind_proxy"),
            allowed_origins: origins(r),
            body_limit_bytes: r.integer("http.body_limit_bytes", 1024..=1_073_741_824),
            timeout_s: r.integer("http.timeout_s", 1..=3600),
            max_connections_per_address: r.integer("http.max_connections_per_address", 1..=1_000_000),
            max_requests_per_address_per_s: r.integer("http.max_requests_per_address_per_s", 0..=1_000_000),
            max_requests_per_token_per_s: r.integer("http.max_requests_per_token_per_s", 0..=1_000_000),
            max_sign_ins_per_address_per_min: r
                .integer("http.max_sign_ins_per_address_per_min", 0..=1_000_000),
            max_sockets: r.integer("http.max_sockets", 1..=1_000_000),
            socket_queue: r.integer("http.socket_queue", 1..=65_536),
        }
    }

    /// Whether a browser page of `origin` (the header's value) may call with credentials.
    #[must_use]
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.allowed_origins.iter().any(|pattern| pattern.matches(origin))
    }
}

fn listen(r: &mut Reader) -> SocketAddr {
    let before = r.problem_count();
    r.address("http.listen").unwrap_or_else(|| {
        if r.problem_count() == before {
            r.invalid(
                "http.listen",
                "an IP address and port, such as 127.0.0.1:8000; HTTP cannot be turned off",
            );
        }
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    })
}

fn origins(r: &mut Reader) -> Vec<OriginPattern> {
    let configured = r.list("http.allowed_origins");
    let mut patterns: Vec<OriginPattern> = Vec::new();
    for text in BUILT_IN_ORIGINS.iter().copied().chain(configured.iter().map(String::as_str)) {
        match OriginPattern::parse(text) {
            Some(pattern) if patterns.contains(&pattern) => {}
            Some(pattern) => patterns.push(pattern),
            None => r.refuse(
                "http.allowed_origins",
                &format!(
                    "{text:?} is not an origin; allowed: http:// or https://, a host and perhaps a port, without a path; \
                     `*` may stand for a part of one label (https://*.finca.example), never alone, because the answers \
                     carry credentials"
                ),
            ),
        }
    }
    patterns
}
