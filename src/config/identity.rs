//! `[identity]`: who may register, and how long what they are given is good for.
//!
//! A signing secret that is not configured is not defaulted: see [`secrets`](super::secrets).

use secrecy::{ExposeSecret, SecretString};

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

/// `[identity]`
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who may register over HTTP.
    pub registration: Registration,
    /// Supabase project that signs people in. Always `None` in this version.
    pub supabase_url: Option<String>,
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
        let identity = Self {
            registration: r.choice("identity.registration", &choices).unwrap_or(Registration::Closed),
            supabase_url: Some(r.text("identity.supabase_url")).filter(|url| !url.is_empty()),
            jwt_secret: r.secret("identity.jwt_secret"),
            access_token_minutes: r.integer("identity.access_token_minutes", 1..=43_200),
            refresh_token_days: r.integer("identity.refresh_token_days", 1..=365),
            argon2_queue: r.integer("identity.argon2_queue", 1..=10_000),
        };
        if identity.supabase_url.is_some() {
            r.refuse(
                "identity.supabase_url",
                "signing in through Supabase does not exist yet; leave it empty to use the built-in identity",
            );
        }
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
