//! The same accounts where a Supabase project keeps the passwords: it says who somebody is, this database says
//! what they are here.
//!
//! Second factors are the project's as well. Its tokens say whether one was shown (`aal`), and not whether the account
//! has one; that its answers say, and it is asked for when it is not known ([`Supabase::tiene_segundo`]).

use super::{Cuentas, Error, Perfil, SesionAbierta, normaliza};
use crate::identity::provider::Provider;
use crate::identity::supabase::{Saber, Sesion, Supabase};
use crate::identity::tokens::Aal;
use crate::store::auditoria::{Autor, Hecho, Origen};
use crate::store::trabajadores;

impl Cuentas {
    pub(super) async fn entrar_alli(
        &self,
        s: &Supabase,
        email: &str,
        clave: &str,
        codigo: Option<&str>,
        origen: Origen,
    ) -> Result<SesionAbierta, Error> {
        let email = normaliza(email);
        self.cuenta_entrada(&email)?;
        let sesion = s.entra(&email, clave).await?;
        let perfil = self.de_sesion(&sesion).await?;
        let sesion = match (sesion.factor(), codigo) {
            (None, _) => sesion,
            (Some(factor), Some(codigo)) => {
                if let Some(frecuencia) = &self.0.por_factor {
                    frecuencia.check(perfil.user_id.clone()).map_err(Error::Demasiadas)?;
                }
                s.muestra(&sesion.access_token, factor, codigo).await?
            }
            (Some(_), None) => {
                // Nobody has its tokens; what stays of it there expires.
                if let Err(e) = s.sal(&sesion.access_token, false).await {
                    tracing::debug!(error = %e, "a sign-in without its second factor stays open in Supabase");
                }
                return Err(Error::TotpRequerido);
            }
        };
        let ahora = self.0.clock.now();
        let mut tx = self.0.store.write().await?;
        trabajadores::seen(&mut tx, perfil.id_trabajador, ahora).await?;
        let (user_id, id_empresa) = (perfil.user_id.clone(), perfil.id_empresa);
        let autor = Autor { user_id, id_empresa, origen, momento: ahora };
        autor.anota(&mut tx, &Hecho::nuevo("entrar", "sesion", &perfil.user_id)).await?;
        tx.commit().await?;
        Ok(abierta(sesion, perfil))
    }

    pub(super) async fn refrescar_alli(&self, s: &Supabase, token: &str) -> Result<SesionAbierta, Error> {
        let sesion = s.refresca(token).await?;
        let perfil = self.de_sesion(&sesion).await?;
        if sesion.factor().is_some() {
            let dice = s.comprueba(&sesion.access_token, self.0.clock.now()).await?;
            if dice.aal == Aal::Uno {
                return Err(Error::TotpRequerido);
            }
        }
        // The token is spent there: nothing that can wait keeps its successor from whoever holds it.
        if let Err(e) = self.vista(perfil.id_trabajador).await {
            tracing::warn!(error = %e, "when a person was last here is not written down");
        }
        Ok(abierta(sesion, perfil))
    }

    async fn vista(&self, id_trabajador: i64) -> crate::store::Result<()> {
        let mut tx = self.0.store.write().await?;
        trabajadores::seen(&mut tx, id_trabajador, self.0.clock.now()).await?;
        tx.commit().await
    }

    /// Ends a sign-in there, or all of the account. Access tokens that it issued go on until they expire.
    pub(super) async fn salir_alli(
        &self,
        s: &Supabase,
        todas: bool,
        access: &str,
        quien: &Autor,
    ) -> Result<(), Error> {
        s.sal(access, todas).await?;
        let mut tx = self.0.store.write().await?;
        quien.anota(&mut tx, &Hecho::nuevo("salir", "sesion", &quien.user_id)).await?;
        Ok(tx.commit().await?)
    }

    /// Whether a token that showed no second factor is of an account that has one.
    pub(super) async fn pide_segundo_alli(
        &self,
        s: &Supabase,
        user_id: &str,
        access: &str,
    ) -> Result<bool, Error> {
        match s.segundo_sabido(user_id) {
            Saber::Si(tiene) => Ok(tiene),
            Saber::Viejo(tiene) => {
                let (cuentas, user_id, access) = (self.clone(), user_id.to_owned(), access.to_owned());
                tokio::spawn(async move {
                    let Provider::Supabase(s) = &cuentas.0.provider else { return };
                    if let Err(e) = s.tiene_segundo(&user_id, &access).await {
                        tracing::debug!(error = %e, "whether an account has a second factor is not known anew");
                    }
                });
                Ok(tiene)
            }
            Saber::No => s.averigua_segundo(user_id, access).await,
        }
    }

    /// The person of a sign-in, who may be here.
    async fn de_sesion(&self, sesion: &Sesion) -> Result<Perfil, Error> {
        let perfil = self.perfil(sesion.user_id()).await?;
        if perfil.activo { Ok(perfil) } else { Err(Error::Inactivo) }
    }
}

fn abierta(sesion: Sesion, perfil: Perfil) -> SesionAbierta {
    let Sesion { access_token, refresh_token, expires_in, .. } = sesion;
    SesionAbierta { access_token, refresh_token, expires_in, perfil }
}
