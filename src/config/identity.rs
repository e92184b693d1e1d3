//! `[identity]`: who keeps the passwords, who may register, and how long what they are given is good for.
//!
//! A signing secret that is not configured is not defaulted: see [`secrets`](super::secrets).

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::reader::Reader;
use super::secrets::MIN_SECRET_BYTES;

/// Who may register over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// The first empresa; from then on by invitation.
    First,
    /// Anybody.
    Open,
    /// Nobody.
    Closed,
}

/// How our access tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// With the secret itself.
    Hs256,
    /// Ed25519, with a key made from the secret: others can check them.
    EdDsa,
}

/// A Supabase project that signs people in.
#[derive(Debug, Clone)]
pub struct Supabase {
    /// Its address.
    pub url: Url,
    /// The public (anon) key.
    pub key: SecretString,
    /// The service-role key.
    pub service_role_key: Option<SecretString>,
    /// The shared secret of its tokens, where they are signed with one.
    pub jwt_secret: Option<SecretString>,
    /// Who issues its tokens; empty = the address and `/auth/v1`.
    pub issuer: String,
    /// Seconds that one request to it may take.
    pub timeout_s: u64,
    /// An authority that its certificate may be signed by, beside those of the system: a PEM file.
    pub ca: Option<PathBuf>,
}

/// The keys of the dialect.
#[derive(Debug, Clone)]
pub struct Compat {
    /// What clients have to send; `None` = anything.
    pub key: Option<SecretString>,
    /// Who sends it administers accounts; `None` = nobody does.
    pub service_role_key: Option<SecretString>,
}

/// `[identity]`
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who may register over HTTP.
    pub registration: Registration,
    /// The Supabase project that signs people in; `None` = the built-in accounts.
    pub supabase: Option<Supabase>,
    /// The built-in accounts speak the dialect of Supabase at `/auth/v1`.
    pub supabase_compat: Option<Compat>,
    /// Somebody who registers confirms their e-mail before they sign in.
    pub confirm_email: bool,
    /// Sign-ins a minute with one e-mail; 0 = no limit.
    pub max_sign_ins_per_account_per_min: u32,
    /// How our access tokens are signed.
    pub jwt_algorithm: JwtAlgorithm,
    /// Secret that access tokens are signed with, at least [`MIN_SECRET_BYTES`]; `None` = the one generated in `data_dir`.
    pub jwt_secret: Option<SecretString>,
    /// Minutes that an access token is good for.
    pub access_token_minutes: u32,
    /// Days that a refresh token is good for.
    pub refresh_token_days: u32,
    /// Password checks that may wait their turn.
    pub argon2_queue: usize,
}

impl Identity {
    pub(super) fn read(r: &mut Reader) -> Self {
        let choices =
            [("first", Registration::First), ("open", Registration::Open), ("closed", Registration::Closed)];
        let algorithms = [("HS256", JwtAlgorithm::Hs256), ("EdDSA", JwtAlgorithm::EdDsa)];
        let (supabase, supabase_compat) = supabase(r);
        let identity = Self {
            registration: r.choice("identity.registration", &choices).unwrap_or(Registration::Closed),
            supabase,
            supabase_compat,
            confirm_email: r.boolean("identity.confirm_email"),
            max_sign_ins_per_account_per_min: r
                .integer("identity.max_sign_ins_per_account_per_min", 0..=1_000_000),
            jwt_algorithm: r.choice("identity.jwt_algorithm", &algorithms).unwrap_or(JwtAlgorithm::Hs256),
            jwt_secret: r.secret("identity.jwt_secret"),
            access_token_minutes: r.integer("identity.access_token_minutes", 1..=43_200),
            refresh_token_days: r.integer("identity.refresh_token_days", 1..=365),
            argon2_queue: r.integer("identity.argon2_queue", 1..=10_000),
        };
        if identity.jwt_secret.as_ref().is_some_and(|secret| secret.expose_secret().len() < MIN_SECRET_BYTES)
        {
            r.invalid(
                "identity.jwt_secret",
                &format!(
                    "at least {MIN_SECRET_BYTES} bytes (openssl rand -hex 32), or empty to have one generated"
                ),
            );
        }
        identity
    }
}

const NO_PROJECT: &str = "it belongs to a project, and identity.supabase_url (SUPABASE_URL) names none";

/// The project, where one is named; or the keys of the dialect, where this server is to stand in for one.
fn supabase(r: &mut Reader) -> (Option<Supabase>, Option<Compat>) {
    let compat = r.boolean("identity.supabase_compat");
    let url = r.text("identity.supabase_url");
    let key = r.secret("identity.supabase_key");
    let service_role_key = r.secret("identity.supabase_service_role_key");
    let jwt_secret = r.secret("identity.supabase_jwt_secret");
    let issuer = r.text("identity.supabase_issuer");
    let timeout_s = r.integer("identity.supabase_timeout_s", 1..=60);
    let ca = Some(r.text("identity.supabase_ca")).filter(|path| !path.is_empty()).map(PathBuf::from);
    if url.is_empty() {
        if compat {
            return (None, Some(Compat { key, service_role_key }));
        }
        for (name, value) in [
            ("identity.supabase_key", &key),
            ("identity.supabase_service_role_key", &service_role_key),
            ("identity.supabase_jwt_secret", &jwt_secret),
        ] {
            if value.is_some() {
                r.refuse(name, NO_PROJECT);
            }
        }
        if ca.is_some() {
            r.refuse("identity.supabase_ca", NO_PROJECT);
        }
        return (None, None);
    }
    if compat {
        r.refuse(
            "identity.supabase_compat",
            "the accounts are Supabase's: identity.supabase_url names a project",
        );
    }
    let Some(url) = Url::parse(&url).ok().filter(encrypted) else {
        r.invalid("identity.supabase_url", "an https:// address (http:// only of this machine), or empty");
        return (None, None);
    };
    let Some(key) = key else {
        r.invalid("identity.supabase_key", "the project's anon or publishable key (SUPABASE_KEY)");
        return (None, None);
    };
    (Some(Supabase { url, key, service_role_key, jwt_secret, issuer, timeout_s, ca }), None)
}

/// Passwords go there: only encrypted, or not over a network.
fn encrypted(url: &Url) -> bool {
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => return false,
    };
    url.scheme() == "https" || url.scheme() == "http" && here
}
