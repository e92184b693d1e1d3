//! Keeps what is stored unreadable to whoever has only the database: AES-256-GCM under a key that comes from
//! the installation's secret, which is not in it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use sha2::{Digest as _, Sha256};

/// See the module.
pub struct Sello(RandomizedNonceKey);

impl Sello {
    /// With the installation's secret, for one purpose.
    ///
    /// # Errors
    /// When the library does not take the key, which it does.
    pub fn new(secreto: &[u8], para: &str) -> Result<Self, Roto> {
        let clave = Sha256::new().chain_update(para).chain_update([0]).chain_update(secreto).finalize();
        RandomizedNonceKey::new(&AES_256_GCM, &clave).map(Self).map_err(|_| Roto)
    }

    /// `texto`, readable by [`Self::open`] alone.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn seal(&self, texto: &[u8]) -> Result<Vec<u8>, Roto> {
        let mut cuerpo = texto.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::empty(), &mut cuerpo).map_err(|_| Roto)?;
        Ok([nonce.as_ref().as_slice(), &cuerpo].concat())
    }

    /// What [`Self::seal`] sealed.
    ///
    /// # Errors
    /// When it did not, or another secret did.
    pub fn open(&self, sellado: &[u8]) -> Result<Vec<u8>, Roto> {
        let (nonce, cuerpo) = sellado.split_at_checked(NONCE_LEN).ok_or(Roto)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Roto)?;
        let mut cuerpo = cuerpo.to_vec();
        Ok(self.0.open_in_place(nonce, Aad::empty(), &mut cuerpo).map_err(|_| Roto)?.to_vec())
    }
}

/// It cannot be sealed, or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what is sealed cannot be opened with this secret")]
pub struct Roto;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_with_the_same_secret_and_purpose_alone() {
        let sello = Sello::new(b"uno", "respuestas").unwrap();
        let sellado = sello.seal(b"el token").unwrap();
        assert_ne!(sellado, sello.seal(b"el token").unwrap(), "never the same twice");
        assert_eq!(sello.open(&sellado).unwrap(), b"el token");
        for otro in [Sello::new(b"dos", "respuestas").unwrap(), Sello::new(b"uno", "otra cosa").unwrap()] {
            assert_eq!(otro.open(&sellado), Err(Roto));
        }
        assert_eq!(sello.open(&sellado[..5]), Err(Roto));
    }
}
