//! `/auth/v1` in the dialect of Supabase Auth, for front ends that sign in with `@supabase/supabase-js`: this
//! server in the place of a Supabase project (`identity.supabase_compat`).
//!
//! An account made here is an identity without a person: it signs in, and the rest of the API answers 403
//! `perfil_incompleto` until it registers (`/api/v1/auth/register`, same e-mail and password). The routes are those
//! that Supabase documents (<https://github.com/supabase/auth>, `openapi.yaml`), so our own document leaves them out.
//! A sign-in of an account with a second factor is `aal1` until it shows it (`factors/{id}/verify`), and opens nothing but
//! what it needs for that. Not here: phones, other identity providers, magic links, anonymous accounts, changing an e-mail.

mod admin;
mod error;
mod factores;
mod publico;
mod shapes;

use axum::Router;
use axum::routing::{delete, get, post};
use secrecy::SecretString;

use super::State;

/// The keys of the dialect.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The public key that clients send; `None` = any.
    pub anon: Option<SecretString>,
    /// Who sends it administers accounts; `None` = nobody does.
    pub service_role: Option<SecretString>,
}

/// Every route of the dialect.
pub(super) fn routes() -> Router<State> {
    let v1 = Router::new()
        .route("/health", get(publico::health))
        .route("/settings", get(publico::settings))
        .route("/.well-known/jwks.json", get(super::auth::jwks))
        .route("/signup", post(publico::signup))
        .route("/token", post(publico::token))
        .route("/user", get(publico::user).put(publico::change))
        .route("/logout", post(publico::logout))
        .route("/recover", post(publico::recover))
        .route("/resend", post(publico::resend))
        .route("/verify", get(publico::follow).post(publico::verify))
        .route("/factors", post(factores::enroll))
        .route("/factors/{id}", delete(factores::unenroll))
        .route("/factors/{id}/challenge", post(factores::challenge))
        .route("/factors/{id}/verify", post(factores::verify))
        .route("/admin/users/{id}/factors", get(factores::list))
        .route("/admin/users/{id}/factors/{factor}", delete(factores::delete))
        .route("/admin/users", get(admin::list).post(admin::create))
        .route("/admin/users/{id}", get(admin::get).put(admin::update).delete(admin::delete));
    Router::new().nest("/auth/v1", v1)
}
