//! The same accounts where a Supabase project keeps the passwords: it says who somebody is, this database says
//! what they are here.

use super::{Cuentas, Error, Perfil, SesionAbierta, normaliza};
use crate::identity::supabase::{Sesion, Supabase};
use crate::store::auditoria::{Autor, Hecho, Origen};
use crate::store::trabajadores;

impl Cuentas {
    pub(super) async fn entrar_alli(
        &self,
        s: &Supabase,
        email: &str,
        clave: &str,
        origen: Origen,
    ) -> Result<SesionAbierta, Error> {
        let email = normaliza(email);
        self.cuenta_entrada(&email)?;
        let sesion = s.entra(&email, clave).await?;
        let perfil = self.de_sesion(&sesion).await?;
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
        let mut tx = self.0.store.write().await?;
        trabajadores::seen(&mut tx, perfil.id_trabajador, self.0.clock.now()).await?;
        tx.commit().await?;
        Ok(abierta(sesion, perfil))
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
