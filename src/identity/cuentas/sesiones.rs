//! The sign-ins that are open, for whoever wants to see them and end one.

use super::{Cuentas, Error, venidos_por};
use crate::domain::Timestamp;
use crate::identity::provider::{Interno, Provider};
use crate::identity::tokens::Claims;
use crate::store::auditoria::{Autor, Hecho};
use crate::store::{Tx, identidades, refrescos, sesiones};

/// A sign-in that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abierta {
    /// Its name.
    pub id: String,
    /// When it began.
    pub creada: Timestamp,
    /// When it was last refreshed.
    pub usada: Timestamp,
    /// The client's address when it began.
    pub de: String,
    /// It is the one that asks.
    pub actual: bool,
}

impl Cuentas {
    fn de_aqui(&self) -> Result<&Interno, Error> {
        match &self.0.provider {
            Provider::Interno(p) => Ok(p),
            Provider::Supabase(_) => Err(Error::SesionesAlli),
        }
    }

    /// Those of an account; `access` is the token that it is asked with.
    ///
    /// # Errors
    /// [`Error::SesionesAlli`] where Supabase keeps them, which it shows nobody.
    pub async fn abiertas(&self, user_id: &str, access: &str) -> Result<Vec<Abierta>, Error> {
        let p = self.de_aqui()?;
        let ahora = self.0.clock.now();
        let suya = p.firmante.comprueba(access, ahora)?.session_id;
        let mut tx = self.0.store.read().await?;
        let todas = sesiones::list(&mut tx, user_id, ahora).await?;
        tx.commit().await?;
        let una = |s: sesiones::Sesion| Abierta {
            actual: suya == s.familia,
            id: s.familia,
            creada: Timestamp::clamped(s.creada),
            usada: Timestamp::clamped(s.usada),
            de: s.de,
        };
        Ok(todas.into_iter().map(una).collect())
    }

    /// Ends one of an account, with its access tokens and its connections; `false` when it has none of this name.
    ///
    /// # Errors
    /// As [`Self::abiertas`].
    pub async fn cierra(&self, id: &str, quien: &Autor) -> Result<bool, Error> {
        self.de_aqui()?;
        let mut tx = self.0.store.write().await?;
        if !refrescos::end_family(&mut tx, &quien.user_id, id).await? {
            return Ok(false);
        }
        quien.anota(&mut tx, &Hecho::borrado("sesion", id, &serde_json::json!({}))).await?;
        self.confirma_y_corta(tx, venidos_por([id.to_owned()])).await?;
        Ok(true)
    }
}

/// Whether the sign-in of a token goes on, as the transaction sees it that changes something by it: it may have ended
/// since the token was looked at, as by another password of its victim's.
pub(super) async fn sigue(tx: &mut Tx, de: &Claims) -> Result<(), Error> {
    let vigente = identidades::active(tx, &de.sub).await?;
    let de_ahora = vigente.is_some_and(|v| v.generacion == de.generacion);
    let abierta = de_ahora && sesiones::open(tx, &de.sub, &de.session_id).await?;
    if abierta { Ok(()) } else { Err(Error::TokenInvalido) }
}
