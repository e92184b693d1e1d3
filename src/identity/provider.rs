//! Who keeps the passwords: this server, or a Supabase project.
//!
//! [`Cuentas`](super::cuentas::Cuentas) is the one behaviour on top of both: who registers, signs in, refreshes
//! and leaves, with the same answers, the same errors and the same audit. What differs is here: where a password
//! is compared, who signs tokens, and who keeps refresh tokens. The people themselves, their empresa and their
//! role are always rows of this database (`trabajadores`), joined by `user_id`.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::password::Claves;
use super::supabase::Supabase;
use super::tokens::{self, Aal, Firmante};
use super::{Roto, Sello};
use crate::domain::Timestamp;

/// See the module.
pub enum Provider {
    /// Accounts in this database.
    Interno(Box<Interno>),
    /// A Supabase project.
    Supabase(Box<Supabase>),
}

/// Accounts in this database: argon2id, tokens of ours.
pub struct Interno {
    pub(super) firmante: Firmante,
    pub(super) claves: Claves,
    /// What the successor of a refresh token is derived with.
    pub(super) sucesor: [u8; 32],
    /// Keeps the secrets of second factors.
    pub(super) sello: Sello,
}

/// What an access token says that is true.
pub(super) struct Comprobado {
    pub(super) user_id: String,
    /// Until when it is good.
    pub(super) caduca: Timestamp,
    /// The generation of the account that it is of; of Supabase's accounts there is one.
    pub(super) generacion: i64,
    /// When it was issued.
    pub(super) emitido: Timestamp,
    /// Whether its sign-in showed a second factor.
    pub(super) segundo: bool,
    /// The sign-in that it is of, where it is kept here.
    pub(super) sesion: Option<Arc<str>>,
}

impl Provider {
    /// Accounts in this database, with the installation's secret; at most `cola` passwords wait to be compared.
    ///
    /// # Errors
    /// When the library does not take a key, which it does.
    pub fn interno(secreto: &[u8], firmante: Firmante, cola: usize) -> Result<Self, Roto> {
        // A key of its own for each purpose.
        let sucesor =
            Sha256::new().chain_update(b"refresh successor").chain_update(secreto).finalize().into();
        let sello = Sello::new(secreto, "totp")?;
        Ok(Self::Interno(Box::new(Interno { firmante, claves: Claves::new(cola), sucesor, sello })))
    }

    /// Whose an access token is, and until when it is good.
    ///
    /// # Errors
    /// [`tokens::Error`].
    pub(super) async fn comprueba(&self, token: &str, ahora: Timestamp) -> Result<Comprobado, tokens::Error> {
        let (user_id, iat, exp, generacion, aal, sesion) = match self {
            Self::Interno(p) => {
                let c = p.firmante.comprueba(token, ahora)?;
                (c.sub, c.iat, c.exp, c.generacion, c.aal, Some(c.session_id.into()))
            }
            Self::Supabase(s) => {
                let c = s.comprueba(token, ahora).await?;
                (c.sub, c.iat.unwrap_or_default(), c.exp, 0, c.aal, None)
            }
        };
        let segundo = aal == Aal::Dos;
        let [emitido, caduca] = [iat, exp].map(|s| Timestamp::clamped(s.saturating_mul(1_000_000)));
        Ok(Comprobado { user_id, caduca, generacion, emitido, segundo, sesion })
    }
}
