//! The credential of `alertrace doctor`, which tries a server that runs.
//!
//! Whoever has the installation's secret makes one, for a minute; nobody else can. It is sealed under a key of its own,
//! so that no access token is one, and it is no access token. What it may do is one thing: publish below [`TOPIC`].

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::sello::{Roto, Sello};
use crate::domain::Timestamp;

/// The user name that it signs in with over MQTT; no device can have it.
pub const USUARIO: &str = "$doctor";
/// What its topics begin with.
pub const TOPIC: &str = "$doctor/";
/// How long it is good, and how long what it publishes is kept at most.
pub const DURA: Duration = Duration::from_secs(60);

/// Makes and checks these credentials.
pub struct Prueba(Sello);

impl Prueba {
    /// With the installation's secret.
    ///
    /// # Errors
    /// As [`Sello::new`].
    pub fn new(secreto: &[u8]) -> Result<Self, Roto> {
        Sello::new(secreto, "self-test").map(Self)
    }

    /// A credential that is good from `ahora` on.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn firma(&self, ahora: Timestamp) -> Result<String, Roto> {
        let caduca = ahora.plus(DURA).micros().to_string();
        Ok(URL_SAFE_NO_PAD.encode(self.0.seal(caduca.as_bytes())?))
    }

    /// Until when a credential is good; `None` when it is none, or not any more.
    #[must_use]
    pub fn entra(&self, clave: &[u8], ahora: Timestamp) -> Option<Timestamp> {
        let abierta = self.0.open(&URL_SAFE_NO_PAD.decode(clave).ok()?).ok()?;
        let caduca = Timestamp::clamped(str::from_utf8(&abierta).ok()?.parse().ok()?);
        (caduca > ahora).then_some(caduca)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_good_for_a_minute_and_with_the_same_secret_alone() {
        let ahora = Timestamp::parse("2026-11-24T12:00:00Z").unwrap();
        let prueba = Prueba::new(b"uno").unwrap();
        let clave = prueba.firma(ahora).unwrap();
        let despues = |s| ahora.plus(Duration::from_secs(s));
        assert_eq!(prueba.entra(clave.as_bytes(), despues(59)), Some(despues(60)));
        assert_eq!(prueba.entra(clave.as_bytes(), despues(60)), None);
        assert_eq!(Prueba::new(b"dos").unwrap().entra(clave.as_bytes(), ahora), None);
        let ajena = Sello::new(b"uno", "idempotency answers").unwrap().seal(b"99999999999999999").unwrap();
        for mala in ["", "a.b.c", "AAAA", &URL_SAFE_NO_PAD.encode(ajena)] {
            assert_eq!(prueba.entra(mala.as_bytes(), ahora), None, "{mala}");
        }
    }
}
