//! What Supabase Auth takes and answers (`openapi.yaml`: `UserSchema`, `AccessTokenResponseSchema`).

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::domain::Timestamp;
use crate::identity::cuentas::{Fichas, Identidad};

/// The role and audience of whoever is signed in.
const AUTHENTICATED: &str = "authenticated";

/// An account.
pub(super) fn user(i: &Identidad) -> Value {
    let when = |micros: i64| json!(Timestamp::clamped(micros));
    let confirmed = i.confirmada.map(when);
    let metadata = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let mut app = metadata(&i.datos_app);
    app.insert("provider".to_owned(), "email".into());
    app.insert("providers".to_owned(), json!(["email"]));
    let created = when(i.creada);
    json!({
        "id": i.user_id, "aud": AUTHENTICATED, "role": AUTHENTICATED, "email": i.email, "phone": "",
        "email_confirmed_at": confirmed, "confirmed_at": confirmed,
        "app_metadata": app, "user_metadata": metadata(&i.datos),
        "identities": [{
            "id": i.user_id, "identity_id": i.user_id, "user_id": i.user_id, "provider": "email",
            "identity_data": { "sub": i.user_id, "email": i.email }, "created_at": created, "updated_at": created,
            "last_sign_in_at": created
        }],
        "factors": factors(i), "created_at": created, "updated_at": created, "is_anonymous": false
    })
}

/// An account that is none, in the place of one whose e-mail somebody has: without identities, as its like there.
pub(super) fn faux(email: &str, datos: &Map<String, Value>, ahora: Timestamp) -> Value {
    let id = uuid::Uuid::now_v7();
    json!({
        "id": id, "aud": AUTHENTICATED, "role": AUTHENTICATED, "email": email.trim().to_lowercase(), "phone": "",
        "email_confirmed_at": null, "confirmed_at": null,
        "app_metadata": { "provider": "email", "providers": ["email"] }, "user_metadata": datos, "identities": [],
        "factors": [], "created_at": ahora, "updated_at": ahora, "is_anonymous": false
    })
}

/// The second factor of an account, confirmed or not; at most one.
pub(super) fn factors(i: &Identidad) -> Vec<Value> {
    let Some(id) = &i.id_factor else { return Vec::new() };
    let when = |micros: Option<i64>| micros.map(|m| json!(Timestamp::clamped(m)));
    let status = if i.factor_confirmado.is_some() { "verified" } else { "unverified" };
    vec![json!({
        "id": id, "friendly_name": i.factor, "factor_type": "totp", "status": status,
        "created_at": when(i.factor_creado), "updated_at": when(i.factor_confirmado.or(i.factor_creado))
    })]
}

/// A sign-in.
pub(super) fn session(fichas: &Fichas, i: &Identidad) -> Value {
    json!({
        "access_token": fichas.access_token, "token_type": "bearer", "expires_in": fichas.expires_in,
        "expires_at": fichas.expira, "refresh_token": fichas.refresh_token, "user": user(i)
    })
}

/// `POST /signup`, `POST /token?grant_type=password`, `POST /admin/users`, `PUT /user` and `/admin/users/{id}`: what is
/// not there stays as it is.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Account {
    pub(super) email: Option<String>,
    pub(super) password: Option<String>,
    pub(super) phone: Option<String>,
    /// What a front end keeps beside the account.
    pub(super) data: Option<Map<String, Value>>,
    /// As `data`, for administrators.
    pub(super) user_metadata: Option<Map<String, Value>>,
    pub(super) app_metadata: Option<Map<String, Value>>,
    pub(super) email_confirm: bool,
}

/// `POST /resend`.
#[derive(Deserialize)]
pub(super) struct Resend {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) email: String,
}

/// `POST /token?grant_type=refresh_token`.
#[derive(Deserialize)]
pub(super) struct Refresh {
    pub(super) refresh_token: String,
}

/// `POST /factors`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Enroll {
    pub(super) friendly_name: Option<String>,
    pub(super) factor_type: String,
    pub(super) issuer: Option<String>,
}

/// `POST /factors/{id}/verify`.
#[derive(Deserialize)]
pub(super) struct VerifyFactor {
    pub(super) challenge_id: String,
    pub(super) code: String,
}

/// `POST /verify`, and the link of a message.
#[derive(Deserialize)]
pub(super) struct Verify {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(alias = "token_hash")]
    pub(super) token: String,
    pub(super) redirect_to: Option<String>,
}
