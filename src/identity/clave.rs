//! A key that tokens are checked with, pinned to the one algorithm that it is for.
//!
//! What a token's header says of its algorithm chooses nothing: it is compared with the key's. So `none`, a
//! public key taken for a shared secret, and a stronger-sounding relative of the right algorithm are all one
//! case: another algorithm than the key's.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::de::DeserializeOwned;

use super::tokens::Error;
use crate::domain::Timestamp;

/// To whom a token is; the word that Supabase uses for a signed-in user.
pub(super) const AUD: &str = "authenticated";
/// Seconds that two clocks may differ.
pub(super) const HOLGURA: i64 = 30;
/// The smallest RSA modulus that is taken, in bytes (RFC 7518, section 3.3).
const MIN_RSA: usize = 256;

/// See the module.
pub struct Clave {
    clave: DecodingKey,
    reglas: Validation,
}

impl Clave {
    /// A shared secret, for HS256.
    #[must_use]
    pub fn compartida(secreto: &[u8], iss: &str) -> Self {
        Self::con(Algorithm::HS256, DecodingKey::from_secret(secreto), iss)
    }

    /// A published key: RS256, ES256 or EdDSA, by what kind of key it is. `None` = not one that tokens are
    /// checked with: a shared secret that somebody published, an encryption key, an RSA key that is too short.
    #[must_use]
    pub fn publicada(jwk: &Jwk, iss: &str) -> Option<Self> {
        if jwk.common.public_key_use.as_ref().is_some_and(|u| *u != PublicKeyUse::Signature) {
            return None;
        }
        let (algoritmo, suyo) = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if modulus(&rsa.n) >= MIN_RSA => {
                (Algorithm::RS256, KeyAlgorithm::RS256)
            }
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(ed) if ed.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return None,
        };
        if jwk.common.key_algorithm.is_some_and(|a| a != suyo) {
            return None;
        }
        Some(Self::con(algoritmo, DecodingKey::from_jwk(jwk).ok()?, iss))
    }

    fn con(algoritmo: Algorithm, clave: DecodingKey, iss: &str) -> Self {
        let mut reglas = Validation::new(algoritmo);
        reglas.set_issuer(&[iss]);
        reglas.set_audience(&[AUD]);
        reglas.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Checked by `vigente`, against our clock.
        reglas.validate_exp = false;
        reglas.validate_nbf = false;
        Self { clave, reglas }
    }

    /// What a token of this key says, by whom and to whom it should be; its times are not looked at.
    ///
    /// # Errors
    /// [`Error::Invalido`].
    pub fn lee<T: DeserializeOwned>(&self, token: &str) -> Result<T, Error> {
        let leido =
            jsonwebtoken::decode::<T>(token, &self.clave, &self.reglas).map_err(|_| Error::Invalido)?;
        // What a header calls critical must be understood (RFC 7515, section 4.1.11), and nothing is.
        if leido.header.crit.is_some() { Err(Error::Invalido) } else { Ok(leido.claims) }
    }
}

/// Bytes of a modulus as it is published.
fn modulus(base64: &str) -> usize {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(base64)
        .map_or(0, |n| n.iter().skip_while(|b| **b == 0).count())
}

/// Whether a token is of now.
///
/// # Errors
/// [`Error`].
pub(super) fn vigente(iat: Option<i64>, nbf: Option<i64>, exp: i64, ahora: Timestamp) -> Result<(), Error> {
    // The claims are whatever was signed: no sum that could overflow on their side.
    let (desde, hasta) = (ahora.secs() + HOLGURA, ahora.secs() - HOLGURA);
    if [iat, nbf].into_iter().flatten().any(|t| t > desde) {
        return Err(Error::Invalido);
    }
    if exp <= hasta { Err(Error::Caducado) } else { Ok(()) }
}
