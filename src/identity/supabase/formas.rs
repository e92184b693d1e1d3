//! What Supabase answers: as much of it as is read.

use serde::Deserialize;
use serde_json::Value;

use crate::identity::tokens::Aal;

/// An account that was made there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hecha {
    /// Its key.
    pub user_id: String,
    /// Whether it may sign in, or has to confirm its e-mail first.
    pub confirmada: bool,
}

/// A sign-in there. No `Debug`: it is made of tokens.
#[derive(Deserialize)]
pub struct Sesion {
    /// Shown at every request.
    pub access_token: String,
    /// Exchanged for the next pair.
    pub refresh_token: String,
    /// Seconds that the access token is good.
    pub expires_in: u64,
    pub(super) user: Cuenta,
}

impl Sesion {
    /// Whose.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user.id
    }

    /// The second factor that the account has, by time where it has several.
    #[must_use]
    pub fn factor(&self) -> Option<&str> {
        self.user.factor()
    }
}

#[derive(Deserialize)]
pub(super) struct Cuenta {
    pub(super) id: String,
    #[serde(default)]
    pub(super) email_confirmed_at: Option<String>,
    #[serde(default)]
    pub(super) updated_at: Option<String>,
    #[serde(default)]
    pub(super) identities: Option<Vec<Value>>,
    #[serde(default)]
    pub(super) factors: Option<Vec<Factor>>,
    #[serde(default)]
    pub(super) app_metadata: Value,
    #[serde(default)]
    pub(super) user_metadata: Value,
}

#[derive(Deserialize)]
pub(super) struct Factor {
    id: String,
    #[serde(default)]
    factor_type: String,
    #[serde(default)]
    status: String,
}

impl Cuenta {
    pub(super) fn factor(&self) -> Option<&str> {
        let verificados = || self.factors.iter().flatten().filter(|f| f.status == "verified");
        let por_tiempo = verificados().find(|f| f.factor_type == "totp");
        por_tiempo.or_else(|| verificados().next()).map(|f| f.id.as_str())
    }
}

/// `POST /factors/{id}/challenge`.
#[derive(Deserialize)]
pub(super) struct Reto {
    pub(super) id: String,
}

/// `POST /signup` answers with a session where e-mails need not be confirmed, else with the account.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Registrada {
    Sesion { user: Cuenta },
    Cuenta(Cuenta),
}

#[derive(Deserialize)]
pub(super) struct Pagina {
    pub(super) users: Vec<Cuenta>,
}

/// What a token of Supabase says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// `user_id`.
    pub sub: String,
    /// When it expires, in seconds since the epoch.
    pub exp: i64,
    /// When it was issued.
    pub iat: Option<i64>,
    /// Whether its sign-in showed a second factor.
    #[serde(default)]
    pub aal: Aal,
    pub(super) nbf: Option<i64>,
}
