//! Passwords: argon2id on blocking threads, behind a bounded queue.
//!
//! A hash costs 19 MiB and tens of milliseconds by design, so a flood of sign-ins could eat the
//! machine: two run at a time, a bounded number wait, the rest is turned away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

/// Hashes at a time.
const A_LA_VEZ: usize = 2;
/// Shortest password, in characters.
pub const MIN_LARGO: usize = 10;
/// Longest password, in bytes: argon2 has no limit of its own worth the name.
pub const MAX_BYTES: usize = 256;

/// The most common passwords of that length, in the order of their bytes: from the list of zxcvbn 4.4.2 (MIT,
/// <https://github.com/dropbox/zxcvbn>), with some in Spanish.
const COMUNES: &str = include_str!("comunes.txt");

/// Whether a new password is one that may be chosen.
///
/// # Errors
/// What is wrong with it.
pub fn buena(clave: &str) -> Result<(), Debil> {
    if clave.chars().count() < MIN_LARGO || clave.len() > MAX_BYTES {
        return Err(Debil::Largo);
    }
    let (clave, mut comunes) = (clave.to_lowercase(), COMUNES.lines());
    if comunes.any(|comun| comun == clave) { Err(Debil::Comun) } else { Ok(()) }
}

/// Why a password may not be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debil {
    /// Too short or too long.
    Largo,
    /// Many people have it.
    Comun,
}

/// Why a password was neither hashed nor compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too many are waiting.
    #[error("too many sign-ins at once")]
    Saturado,
    /// The hash cannot be made or read.
    #[error("argon2: {0}")]
    Argon2(String),
}

/// Hashes and compares passwords; cheap to clone.
#[derive(Debug, Clone)]
pub struct Claves {
    turno: Arc<Semaphore>,
    dentro: Arc<AtomicUsize>,
    max: usize,
}

/// Counts a caller while it runs or waits.
struct Dentro(Arc<AtomicUsize>);

impl Drop for Dentro {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Claves {
    /// At most `cola` callers wait beside those that run.
    #[must_use]
    pub fn new(cola: usize) -> Self {
        Self { turno: Arc::new(Semaphore::new(A_LA_VEZ)), dentro: Arc::default(), max: cola + A_LA_VEZ }
    }

    /// Hashes a password to a PHC string.
    ///
    /// # Errors
    /// [`Error::Saturado`].
    pub async fn hash(&self, clave: &str) -> Result<String, Error> {
        let clave = clave.to_owned();
        self.corre(move || {
            let hash = argon2()?.hash_password(clave.as_bytes()).map_err(|e| Error::Argon2(e.to_string()))?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Compares a password with a PHC string; without one, costs the same and answers `false`.
    ///
    /// # Errors
    /// [`Error::Saturado`].
    pub async fn verifica(&self, clave: &str, guardada: Option<String>) -> Result<bool, Error> {
        let clave = clave.to_owned();
        self.corre(move || {
            let argon2 = argon2()?;
            let Some(guardada) = guardada else {
                // What a comparison does: one hash. An unknown e-mail costs what a wrong password does.
                let _ = argon2.hash_password(clave.as_bytes()).map_err(|e| Error::Argon2(e.to_string()))?;
                return Ok(false);
            };
            let hash = PasswordHash::new(&guardada).map_err(|e| Error::Argon2(e.to_string()))?;
            Ok(argon2.verify_password(clave.as_bytes(), &hash).is_ok())
        })
        .await
    }

    async fn corre<T: Send + 'static>(
        &self,
        trabajo: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let dentro = Dentro(self.dentro.clone());
        if self.dentro.fetch_add(1, Ordering::AcqRel) >= self.max {
            return Err(Error::Saturado);
        }
        let turno = self.turno.clone().acquire_owned().await.map_err(|_| Error::Saturado)?;
        let hecho = tokio::task::spawn_blocking(move || {
            let _dentro = (dentro, turno);
            trabajo()
        });
        hecho.await.map_err(|e| Error::Argon2(e.to_string()))?
    }
}

/// OWASP's second choice for argon2id: 19 MiB, two passes, one lane
/// (<https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>).
fn argon2() -> Result<Argon2<'static>, Error> {
    let params = Params::new(19_456, 2, 1, None).map_err(|e| Error::Argon2(e.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_found_again_and_another_is_not() {
        let claves = Claves::new(8);
        let hash = claves.hash("correcta-123").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(claves.verifica("correcta-123", Some(hash.clone())).await.unwrap());
        assert!(!claves.verifica("correcta-124", Some(hash)).await.unwrap());
        assert!(!claves.verifica("correcta-123", None).await.unwrap());
    }

    #[test]
    fn what_everybody_chooses_nobody_may() {
        for comun in ["1234567890", "Password123", "QWERTYUIOP", "contraseña"] {
            assert_eq!(buena(comun), Err(Debil::Comun), "{comun}");
        }
        assert_eq!((buena("una clave"), buena("una clave larga")), (Err(Debil::Largo), Ok(())));
        assert!(COMUNES.lines().all(|c| c.chars().count() >= MIN_LARGO && c == c.to_lowercase()));
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let claves = Claves::new(1);
        let todas = (0..20).map(|_| claves.verifica("x", None));
        let hechas = futures_util::future::join_all(todas).await;
        let saturadas = hechas.iter().filter(|r| matches!(r, Err(Error::Saturado))).count();
        assert_eq!(saturadas, 17, "two run, one waits");
        assert!(claves.verifica("x", None).await.is_ok(), "and there is room again");
    }
}
