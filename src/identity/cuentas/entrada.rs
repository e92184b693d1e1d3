//! Sign-in, refresh and sign-out, with accounts of our own.
//!
//! A refresh token is good once: its successor is derived from it, so that using it again within ten seconds
//! (two tabs) gives the same answer, and later ends the whole sign-in.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Cuentas, Error, Fichas, Perfil, Segundo, SesionAbierta, normaliza, venidos_por};
use crate::domain::Timestamp;
use crate::identity::provider::{Interno, Provider};
use crate::identity::tokens::Claims;
use crate::identity::{dispositivo, password};
use crate::store::auditoria::{Autor, Hecho, Origen};
use crate::store::identidades::{Identidad, Vigente};
use crate::store::{self, Tx, trabajadores};

/// A refresh token used again within this time gets the same answer.
const REPETICION: Duration = Duration::from_secs(10);

impl Cuentas {
    /// Signs in.
    ///
    /// # Errors
    /// [`Error::Credenciales`] for an unknown e-mail as for a wrong password, at the same cost.
    /// [`Error::TotpRequerido`] and [`Error::TotpIncorrecto`] for whoever knows the password and has not the second
    /// factor that the account has.
    pub async fn entrar(
        &self,
        email: &str,
        clave: &str,
        codigo: Option<&str>,
        origen: Origen,
    ) -> Result<SesionAbierta, Error> {
        let p = match &self.0.provider {
            Provider::Interno(p) => p,
            Provider::Supabase(s) => return self.entrar_alli(s, email, clave, codigo, origen).await,
        };
        let identidad = self.autentica(p, email, clave).await?;
        let perfil = self.perfil(&identidad.user_id).await?;
        if !perfil.activo {
            return Err(Error::Inactivo);
        }
        let (fichas, perfil) =
            self.emite(p, &identidad, Some(perfil), Segundo::Ahora(codigo), origen).await?;
        Ok(fichas.con(perfil.ok_or(Error::SinPerfil)?))
    }

    /// Whose e-mail and password these are.
    pub(super) async fn autentica(&self, p: &Interno, email: &str, clave: &str) -> Result<Identidad, Error> {
        let email = normaliza(email);
        self.cuenta_entrada(&email)?;
        let mut tx = self.0.store.read().await?;
        let identidad = store::identidades::by_email(&mut tx, &email).await?;
        tx.commit().await?;
        // What is too long is nobody's password, at the same cost; cut, it could become somebody's.
        let (clave, larga) = if clave.len() > password::MAX_BYTES { ("", true) } else { (clave, false) };
        let guardada = identidad.as_ref().filter(|_| !larga).map(|i| i.clave_hash.clone());
        let igual = p.claves.verifica(clave, guardada).await?;
        let identidad = identidad.filter(|_| igual).ok_or(Error::Credenciales)?;
        if !identidad.activa {
            return Err(Error::Inactivo);
        }
        if identidad.confirmada.is_none() {
            return Err(Error::SinConfirmar);
        }
        Ok(identidad)
    }

    /// Opens a sign-in of an account, as it was when its password or code was looked at.
    pub(super) async fn emite(
        &self,
        p: &Interno,
        identidad: &Identidad,
        perfil: Option<Perfil>,
        segundo: Segundo<'_>,
        origen: Origen,
    ) -> Result<(Fichas, Option<Perfil>), Error> {
        let user_id = identidad.user_id.as_str();
        let mut tx = self.0.store.write().await?;
        // Whoever changed the password meanwhile ended what was open, and this was not yet.
        let ahora = store::identidades::get(&mut tx, user_id).await?;
        if ahora.is_none_or(|i| i.clave_hash != identidad.clave_hash) {
            return Err(Error::Credenciales);
        }
        let hecho = self.abre(&mut tx, p, user_id, perfil, segundo, origen).await?;
        tx.commit().await?;
        Ok(hecho)
    }

    /// Opens a sign-in in the caller's transaction.
    pub(super) async fn abre(
        &self,
        tx: &mut Tx,
        p: &Interno,
        user_id: &str,
        perfil: Option<Perfil>,
        segundo: Segundo<'_>,
        origen: Origen,
    ) -> Result<(Fichas, Option<Perfil>), Error> {
        let refresh = dispositivo::genera().map_err(|e| Error::Interno(e.to_string()))?;
        let ahora = self.0.clock.now();
        let familia = uuid::Uuid::now_v7().to_string();
        let (perfil, vigente) = self.vuelve_a_mirar(tx, user_id, perfil, ahora).await?;
        let id_empresa = perfil.as_ref().and_then(|p| p.id_empresa);
        let autor = Autor { user_id: user_id.to_owned(), id_empresa, origen, momento: ahora };
        let segundo = vigente.segundo && self.segundo(tx, p, segundo, &autor).await?;
        let expira = ahora.plus(self.0.ajustes.refresh);
        store::refrescos::expire(tx, ahora, 100).await?;
        store::sesiones::expire(tx, ahora, 100).await?;
        store::refrescos::create(tx, &refresh.hash, &familia, user_id, ahora, expira).await?;
        store::sesiones::create(tx, &familia, user_id, &autor.origen.de, segundo, ahora, expira).await?;
        autor.anota(tx, &Hecho::nuevo("entrar", "sesion", user_id)).await?;
        let de = De { user_id, familia: &familia, generacion: vigente.generacion, segundo };
        Ok((self.fichas(p, de, refresh.texto, ahora)?, perfil))
    }

    /// Exchanges a refresh token.
    ///
    /// # Errors
    /// [`Error::TokenInvalido`] when it is not good, or not any more; used twice, it ends its sign-in.
    pub async fn refrescar(&self, token: &str) -> Result<SesionAbierta, Error> {
        let p = match &self.0.provider {
            Provider::Interno(p) => p,
            Provider::Supabase(s) => return self.refrescar_alli(s, token).await,
        };
        let (fichas, _, perfil) = self.rota(p, token, true).await?;
        Ok(fichas.con(perfil.ok_or(Error::SinPerfil)?))
    }

    /// The next pair of tokens, and whose they are. `con_perfil`: only of somebody who has a person here.
    pub(super) async fn rota(
        &self,
        p: &Interno,
        token: &str,
        con_perfil: bool,
    ) -> Result<(Fichas, String, Option<Perfil>), Error> {
        let ahora = self.0.clock.now();
        let hash = dispositivo::hash(token.as_bytes());
        // What is no token is told so by a reader: there is one writer, and strangers do not hold it.
        let mut tx = self.0.store.read().await?;
        store::refrescos::get(&mut tx, &hash).await?.ok_or(Error::TokenInvalido)?;
        tx.commit().await?;
        let mut tx = self.0.store.write().await?;
        let refresco = store::refrescos::get(&mut tx, &hash).await?.ok_or(Error::TokenInvalido)?;
        if refresco.expira <= ahora {
            return Err(Error::TokenCaducado);
        }
        if let Some(usado) = refresco.usado
            && ahora.since(usado) > REPETICION
        {
            store::refrescos::end_family(&mut tx, &refresco.user_id, &refresco.familia).await?;
            self.confirma_y_corta(tx, venidos_por([refresco.familia])).await?;
            tracing::warn!(
                user_id = refresco.user_id,
                "a refresh token was used twice; its sign-in was ended"
            );
            return Err(Error::TokenInvalido);
        }
        // All that can fail comes before the token is spent: a client that hears an error tries
        // again later than a repetition may be.
        let perfil = trabajadores::by_user_id(&mut tx, &refresco.user_id).await?;
        if con_perfil && perfil.is_none() {
            return Err(Error::SinPerfil);
        }
        let (perfil, vigente) = self.vuelve_a_mirar(&mut tx, &refresco.user_id, perfil, ahora).await?;
        let segundo = store::sesiones::second(&mut tx, &refresco.familia).await?;
        if con_perfil && vigente.segundo && !segundo {
            return Err(Error::TotpRequerido);
        }
        let emitido = refresco.usado.unwrap_or(ahora);
        let (user_id, familia) = (refresco.user_id.as_str(), refresco.familia.as_str());
        let de = De { user_id, familia, generacion: vigente.generacion, segundo };
        let sesion = self.fichas(p, de, sucesor(p, token)?, emitido)?;
        if refresco.usado.is_none() {
            let nuevo = dispositivo::hash(sesion.refresh_token.as_bytes());
            let expira = ahora.plus(self.0.ajustes.refresh);
            store::refrescos::mark_used(&mut tx, &hash, ahora).await?;
            store::refrescos::create(&mut tx, &nuevo, &refresco.familia, &refresco.user_id, ahora, expira)
                .await?;
            store::sesiones::used(&mut tx, &refresco.familia, ahora, expira).await?;
        }
        tx.commit().await?;
        Ok((sesion, refresco.user_id, perfil))
    }

    /// The person as they are in the transaction that opens something for them, and what tokens of their account
    /// have to be: what was read before may have been changed since. Whoever deactivates them waits for this
    /// transaction and then ends what it opened, or was first and is seen here.
    async fn vuelve_a_mirar(
        &self,
        tx: &mut store::Tx,
        user_id: &str,
        perfil: Option<Perfil>,
        ahora: Timestamp,
    ) -> Result<(Option<Perfil>, Vigente), Error> {
        let perfil = match perfil {
            Some(perfil) => {
                // First of all, for the lock on the row.
                trabajadores::seen(tx, perfil.id_trabajador, ahora).await?;
                Some(trabajadores::by_user_id(tx, user_id).await?.ok_or(Error::SinPerfil)?)
            }
            None => None,
        };
        let activo = perfil.as_ref().is_none_or(|p| p.activo);
        let vigente = store::identidades::active(tx, user_id).await?.filter(|_| activo);
        Ok((perfil, vigente.ok_or(Error::Inactivo)?))
    }

    /// Ends the sign-in of a refresh token, or all of the account's, with their access tokens and connections; `access`
    /// is the token that it is asked with.
    ///
    /// # Errors
    /// Those of the store and the provider.
    pub async fn salir(&self, refresh: Option<&str>, access: &str, quien: &Autor) -> Result<(), Error> {
        let user_id = quien.user_id.as_str();
        if let Provider::Supabase(s) = &self.0.provider {
            return self.salir_alli(s, refresh.is_none(), access, quien).await;
        }
        let mut tx = self.0.store.write().await?;
        let mut idas = Vec::new();
        match refresh {
            None => idas = store::refrescos::end_all(&mut tx, user_id).await?,
            Some(token) => {
                let refresco = store::refrescos::get(&mut tx, &dispositivo::hash(token.as_bytes())).await?;
                if let Some(refresco) = refresco.filter(|r| r.user_id == user_id) {
                    store::refrescos::end_family(&mut tx, user_id, &refresco.familia).await?;
                    idas.push(refresco.familia);
                }
            }
        }
        quien.anota(&mut tx, &Hecho::nuevo("salir", "sesion", user_id)).await?;
        self.confirma_y_corta(tx, venidos_por(idas)).await
    }

    fn fichas(
        &self,
        p: &Interno,
        de: De<'_>,
        refresh_token: String,
        emitido: Timestamp,
    ) -> Result<Fichas, Error> {
        let expires_in = self.0.ajustes.access.as_secs();
        let segundos = i64::try_from(expires_in).unwrap_or(i64::MAX);
        // Derived, so that the same refresh gives the same access token.
        let jti = URL_SAFE_NO_PAD.encode(&dispositivo::hash(refresh_token.as_bytes())[..12]);
        let claims = Claims::new(de.user_id, de.familia, emitido, segundos, &jti);
        let claims = claims.de(de.generacion).con_segundo(de.segundo);
        let expira = claims.exp;
        Ok(Fichas { access_token: p.firmante.firma(&claims)?, refresh_token, expires_in, expira })
    }
}

/// What tokens are of.
#[derive(Clone, Copy)]
struct De<'a> {
    user_id: &'a str,
    /// The sign-in.
    familia: &'a str,
    generacion: i64,
    segundo: bool,
}

/// The token that follows `token`: nobody can compute it without the secret, and we always get the same.
fn sucesor(p: &Interno, token: &str) -> Result<String, Error> {
    let mac = Hmac::<Sha256>::new_from_slice(&p.sucesor).map_err(|e| Error::Interno(e.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(mac.chain_update(token).finalize().into_bytes()))
}
