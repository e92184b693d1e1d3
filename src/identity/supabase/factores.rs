//! Who has a second factor in Supabase, as its last answer said.
//!
//! Its tokens do not say it, and every request has one: so it is remembered for a while, and the old answer holds
//! while it is asked again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use super::formas::{Cuenta, Reto, Sesion};
use super::{Como, Supabase};
use crate::identity::cuentas::Error;

/// How long an answer is good without being asked for again.
const VALE: Duration = Duration::from_secs(300);
/// Accounts that are remembered at most.
const MAX: usize = 20_000;

/// What is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saber {
    /// This, of late.
    Si(bool),
    /// This, some time ago: whoever hears it first asks again.
    Viejo(bool),
    /// Nothing.
    No,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Factores {
    dichos: Mutex<HashMap<String, (bool, Instant)>>,
    /// Accounts that are being asked for.
    preguntas: Mutex<HashMap<String, Weak<Turno>>>,
}

/// Who asks for an account of which nothing is known.
type Turno = tokio::sync::Mutex<()>;

impl Factores {
    pub(super) fn sabe(&self, user_id: &str) -> Saber {
        let ahora = Instant::now();
        let mut dichos = self.dichos.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((tiene, desde)) = dichos.get_mut(user_id) else { return Saber::No };
        if ahora.duration_since(*desde) < VALE {
            return Saber::Si(*tiene);
        }
        // One asks; the others go by what was said.
        *desde = ahora;
        Saber::Viejo(*tiene)
    }

    pub(super) fn anota(&self, user_id: &str, tiene: bool) {
        let mut dichos = self.dichos.lock().unwrap_or_else(PoisonError::into_inner);
        if dichos.len() >= MAX && !dichos.contains_key(user_id) {
            dichos.clear();
        }
        dichos.insert(user_id.to_owned(), (tiene, Instant::now()));
    }

    /// It has to be asked again before anything is opened.
    pub(super) fn olvida(&self, user_id: &str) {
        self.dichos.lock().unwrap_or_else(PoisonError::into_inner).remove(user_id);
    }

    fn turno(&self, user_id: &str) -> Arc<Turno> {
        let mut preguntas = self.preguntas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turno) = preguntas.get(user_id).and_then(Weak::upgrade) {
            return turno;
        }
        preguntas.retain(|_, turno| turno.strong_count() > 0);
        let turno = Arc::default();
        preguntas.insert(user_id.to_owned(), Arc::downgrade(&turno));
        turno
    }
}

impl Supabase {
    /// Shows a second factor of whose token this is, for a sign-in in the place of the token's.
    ///
    /// # Errors
    /// [`Error::TotpIncorrecto`], others of [`Error`].
    pub async fn muestra(&self, token: &str, factor: &str, codigo: &str) -> Result<Sesion, Error> {
        let como = Como::Usuario(token);
        let ruta = format!("/factors/{factor}/challenge");
        let reto: Reto = self.pide(Method::POST, &ruta, como, Some(json!({}))).await?;
        let body = json!({ "challenge_id": reto.id, "code": codigo });
        let sesion = self.pide(Method::POST, &format!("/factors/{factor}/verify"), como, Some(body)).await?;
        Ok(self.aprende(sesion))
    }

    pub(super) fn aprende(&self, sesion: Sesion) -> Sesion {
        self.factores.anota(sesion.user_id(), sesion.factor().is_some());
        sesion
    }

    /// Whether an account has a second factor, as far as is known here.
    pub fn segundo_sabido(&self, user_id: &str) -> Saber {
        self.factores.sabe(user_id)
    }

    /// As [`Self::tiene_segundo`], where nothing is known: of those who come at once one asks, and the others hear it.
    ///
    /// # Errors
    /// As there.
    pub async fn averigua_segundo(&self, user_id: &str, token: &str) -> Result<bool, Error> {
        let turno = self.factores.turno(user_id);
        let _suyo = turno.lock().await;
        match self.factores.sabe(user_id) {
            Saber::Si(tiene) | Saber::Viejo(tiene) => Ok(tiene),
            Saber::No => self.tiene_segundo(user_id, token).await,
        }
    }

    /// Whether the account of a token has a second factor, asked there.
    ///
    /// # Errors
    /// [`Error::TokenInvalido`] when the token's sign-in has ended there, others of [`Error`].
    pub async fn tiene_segundo(&self, user_id: &str, token: &str) -> Result<bool, Error> {
        let cuenta = self.pide::<Cuenta>(Method::GET, "/user", Como::Usuario(token), None).await;
        match cuenta {
            Ok(cuenta) => {
                let tiene = cuenta.factor().is_some();
                self.factores.anota(user_id, tiene);
                Ok(tiene)
            }
            Err(e) => {
                if matches!(e, Error::TokenInvalido | Error::Inactivo) {
                    self.factores.olvida(user_id);
                }
                Err(e)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_holds_while_one_asks_again() {
        let factores = Factores::default();
        assert_eq!(factores.sabe("u"), Saber::No);
        factores.anota("u", true);
        assert_eq!(factores.sabe("u"), Saber::Si(true));
        tokio::time::advance(VALE).await;
        assert_eq!(factores.sabe("u"), Saber::Viejo(true));
        assert_eq!(factores.sabe("u"), Saber::Si(true));
        factores.anota("u", false);
        assert_eq!(factores.sabe("u"), Saber::Si(false));
        factores.olvida("u");
        assert_eq!(factores.sabe("u"), Saber::No);
        for n in 0..2 * MAX {
            factores.anota(&n.to_string(), false);
        }
        assert!(factores.dichos.lock().unwrap().len() <= MAX);
    }
}
