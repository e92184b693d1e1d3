//! Devices: how a token is made, kept and checked.
//!
//! A token is 32 random bytes, shown once, stored as its SHA-256: with 256 bits of entropy a slow
//! hash would protect nothing, and would let a flood of sign-ins eat the machine. A certificate that
//! the site's authority signed stands in for a token, as long as the device has one in force.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::domain::SensorRef;
use crate::store::{self, Store};

/// A token that was just made: its text, for the person, and its hash, for the store. No `Debug`: the
/// text belongs in no log.
pub struct Token {
    /// Shown this once.
    pub texto: String,
    /// What is stored.
    pub hash: [u8; 32],
}

/// Makes a token.
///
/// # Errors
/// When the machine has no randomness.
pub fn genera() -> Result<Token, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    let texto = URL_SAFE_NO_PAD.encode(bytes);
    let hash = hash(texto.as_bytes());
    Ok(Token { texto, hash })
}

/// What the store keeps of a token.
#[must_use]
pub fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The answer to a sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entrada {
    /// It is who it says.
    Aceptado(SensorRef),
    /// It has never had a token, and none was given: let in only by `mqtt.legacy`.
    SinCredencial(SensorRef),
    /// Unknown, retired, or the wrong token; the caller never learns which.
    Rechazado,
}

/// Checks a device's name and token. An unknown device costs what a wrong token costs: one query
/// and one comparison.
///
/// # Errors
/// Those of the store.
pub async fn entra(store: &Store, device_id: &str, token: &[u8]) -> store::Result<Entrada> {
    let mut tx = store.read().await?;
    let credencial = store::sensores::credential(&mut tx, device_id).await?;
    tx.commit().await?;
    let dado = hash(token);
    let guardado = credencial.as_ref().and_then(|c| c.hash).unwrap_or_default();
    let igual = bool::from(dado.ct_eq(&guardado));
    Ok(match credencial {
        Some(c) if c.activo && c.hash.is_some() && igual => Entrada::Aceptado(c.quien),
        Some(c) if c.activo && c.hash.is_none() && !c.emitida && token.is_empty() => {
            Entrada::SinCredencial(c.quien)
        }
        _ => Entrada::Rechazado,
    })
}

/// Whether a device may sign in with a certificate of its name, which the caller has checked. It may
/// not once it is retired, or its credential was taken away: that ends its certificates too.
///
/// # Errors
/// Those of the store.
pub async fn entra_con_certificado(store: &Store, device_id: &str) -> store::Result<Option<SensorRef>> {
    let mut tx = store.read().await?;
    let credencial = store::sensores::credential(&mut tx, device_id).await?;
    tx.commit().await?;
    Ok(credencial.filter(|c| c.activo && (c.hash.is_some() || !c.emitida)).map(|c| c.quien))
}
