//! Accounts, as the configuration has them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::Error;
use super::settings::days;
use crate::config::{self, Config};
use crate::domain::Clock;
use crate::identity::correo::{self, Correo, Transporte};
use crate::identity::cuentas::{self, Cuentas};
use crate::identity::supabase::{self, Supabase};
use crate::identity::tokens::Firmante;
use crate::identity::{Directorio, Provider};
use crate::store::Store;

/// Accounts, with whoever keeps the passwords; connections that end are told by `directorio`.
///
/// # Errors
/// When what signs tokens, or the client of the identity provider, cannot be made.
pub fn accounts(
    config: &Config,
    store: Store,
    clock: Arc<dyn Clock>,
    directorio: Arc<Directorio>,
    secret: &[u8],
) -> Result<Cuentas, Error> {
    let identity = &config.identity;
    let settings = account_settings(config);
    let provider = if let Some(s) = &identity.supabase {
        let ca = |path: &PathBuf| {
            let why = |e: &dyn std::fmt::Display| {
                Error::Supabase(format!("identity.supabase_ca: {}: {e}", path.display()))
            };
            std::fs::read(path).map_err(|e| why(&e))
        };
        let settings = supabase::Ajustes {
            autoridad: s.ca.as_ref().map(ca).transpose()?,
            url: s.url.clone(),
            clave: s.key.clone(),
            servicio: s.service_role_key.clone(),
            secreto: s.jwt_secret.clone(),
            emisor: s.issuer.clone(),
            plazo: Duration::from_secs(s.timeout_s),
        };
        let supabase = Supabase::new(settings).map_err(|e| Error::Supabase(e.to_string()))?;
        Provider::Supabase(Box::new(supabase))
    } else {
        let firmante = match identity.jwt_algorithm {
            config::JwtAlgorithm::Hs256 => Firmante::new(secret),
            config::JwtAlgorithm::EdDsa => Firmante::ed25519(secret)?,
        };
        Provider::interno(secret, firmante, identity.argon2_queue)?
    };
    Ok(Cuentas::with(store, clock, directorio, provider, mail(config)?, settings))
}

fn mail(config: &Config) -> Result<Correo, correo::Malo> {
    let mail = &config.mail;
    let transport = match (mail.transport, &mail.smtp_url) {
        (config::MailTransport::Smtp, Some(url)) => Correo::smtp(url.expose_secret())?,
        (config::MailTransport::Log, _) => Transporte::Registro,
        _ => Transporte::Ninguno,
    };
    Correo::new(transport, &mail.from, &mail.site_url, &mail.public_url)
}

/// What accounts take from the configuration.
#[must_use]
pub fn account_settings(config: &Config) -> cuentas::Ajustes {
    let identity = &config.identity;
    cuentas::Ajustes {
        registro: match identity.registration {
            config::Registration::First => cuentas::Registro::First,
            config::Registration::Open => cuentas::Registro::Open,
            config::Registration::Closed => cuentas::Registro::Closed,
        },
        access: Duration::from_secs(u64::from(identity.access_token_minutes) * 60),
        refresh: days(identity.refresh_token_days),
        argon2_cola: identity.argon2_queue,
        confirmar: identity.confirm_email,
        por_cuenta: identity.max_sign_ins_per_account_per_min,
    }
}
