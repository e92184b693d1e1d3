//! Accounts of our own as an identity provider has them, whether or not a person belongs to them: what the dialect
//! of Supabase asks for.

use serde_json::{Map, Value};

use super::codigos::anota;
use super::sesiones::sigue;
use super::{Cuentas, Error, Fichas, Perfil, Registro, Segundo, normaliza, venidos_por};
use crate::domain::Timestamp;
use crate::identity::provider::{Interno, Provider};
use crate::identity::tokens::Aal;
use crate::identity::{Revocado, password};
use crate::store::auditoria::{Autor, Hecho, Origen};
use crate::store::codigos::{self, Para};
use crate::store::identidades::{self, Identidad};
use crate::store::{refrescos, sesiones, trabajadores};

/// How the audit names whoever has the service-role key.
const SERVICIO: &str = "service_role";
/// Longest metadata of an account, in bytes.
const MAX_DATOS: usize = 16 * 1024;

/// An account to make.
pub struct NuevaIdentidad<'a> {
    /// Signs in.
    pub email: &'a str,
    /// At least ten characters.
    pub clave: &'a str,
    /// What a front end keeps beside it.
    pub datos: Map<String, Value>,
    /// What only the installation may keep beside it.
    pub datos_app: Map<String, Value>,
    /// Its e-mail needs no confirmation.
    pub confirmada: bool,
}

/// What is to change; absent stays.
pub struct Cambio {
    /// The password.
    pub clave: Option<String>,
    /// Members that are set; those that are null go.
    pub datos: Option<Map<String, Value>>,
    /// As above.
    pub datos_app: Option<Map<String, Value>>,
    /// The e-mail is confirmed.
    pub confirma: bool,
}

/// Which sign-ins of an account end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cuales {
    /// The one that asks.
    Esta,
    /// Every other.
    Otras,
    /// Every one.
    Todas,
}

impl Cuentas {
    /// Who may register.
    #[must_use]
    pub fn registro(&self) -> Registro {
        self.0.ajustes.registro
    }

    fn interno(&self) -> Result<&Interno, Error> {
        match &self.0.provider {
            Provider::Interno(p) => Ok(p),
            Provider::Supabase(_) => Err(Error::Interno("the accounts are Supabase's".to_owned())),
        }
    }

    /// Whose access token this is, and whether its sign-in showed the second factor that the account has: when not, it
    /// is good for showing it, and for what the account is.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn identidad_de(&self, token: &str) -> Result<(Identidad, bool), Error> {
        let p = self.interno()?;
        let de = p.firmante.comprueba(token, self.0.clock.now())?;
        let mut tx = self.0.store.read().await?;
        let identidad = identidades::get(&mut tx, &de.sub).await?.ok_or(Error::TokenInvalido)?;
        let perfil = trabajadores::by_user_id(&mut tx, &de.sub).await?;
        let vigente = identidades::active(&mut tx, &de.sub).await?;
        let abierta = sesiones::open(&mut tx, &de.sub, &de.session_id).await?;
        tx.commit().await?;
        en_vigor(&identidad, perfil.as_ref())?;
        let vigente = vigente.filter(|v| abierta && v.generacion == de.generacion);
        let vigente = vigente.ok_or(Error::TokenInvalido)?;
        Ok((identidad, de.aal == Aal::Dos || !vigente.segundo))
    }

    /// An account.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn identidad(&self, user_id: &str) -> Result<Option<Identidad>, Error> {
        let mut tx = self.0.store.read().await?;
        let identidad = identidades::get(&mut tx, user_id).await?;
        tx.commit().await?;
        Ok(identidad)
    }

    /// Accounts, the latest first, and how many there are.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn identidades(&self, limite: i64, salta: i64) -> Result<(Vec<Identidad>, i64), Error> {
        let mut tx = self.0.store.read().await?;
        let hechas = identidades::list(&mut tx, limite, salta).await?;
        tx.commit().await?;
        Ok(hechas)
    }

    /// Somebody makes themselves an account, where anybody may register; `destino` is where the link that confirms
    /// it leads.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn identidad_registra(
        &self,
        nueva: NuevaIdentidad<'_>,
        destino: Option<&str>,
        de: Origen,
    ) -> Result<Identidad, Error> {
        if self.registro() != Registro::Open {
            return Err(Error::RegistroCerrado);
        }
        if !nueva.confirmada {
            self.0.correo.listo()?;
        }
        let hecha = self.crea_identidad(nueva, None, de).await?;
        if hecha.confirmada.is_none() {
            self.en_fondo(hecha.email.clone(), Para::Confirmar, self.enlace("signup", destino))?;
        }
        Ok(hecha)
    }

    /// Makes an account, whatever registration allows, for whoever has the service-role key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn identidad_crea(&self, nueva: NuevaIdentidad<'_>, de: Origen) -> Result<Identidad, Error> {
        self.crea_identidad(nueva, Some(SERVICIO), de).await
    }

    /// `por`: who makes it, when it is not its owner.
    async fn crea_identidad(
        &self,
        nueva: NuevaIdentidad<'_>,
        por: Option<&str>,
        de: Origen,
    ) -> Result<Identidad, Error> {
        let p = self.interno()?;
        let email = normaliza(nueva.email);
        password::buena(nueva.clave)?;
        let (datos, datos_app) = (texto(&nueva.datos)?, texto(&nueva.datos_app)?);
        // First, so that an address that somebody has costs what another costs.
        let hash = p.claves.hash(nueva.clave).await?;
        let mut tx = self.0.store.read().await?;
        let ocupada = identidades::by_email(&mut tx, &email).await?.is_some()
            || trabajadores::taken(&mut tx, &email, None).await?.is_some();
        tx.commit().await?;
        if ocupada {
            return Err(Error::EnUso("email"));
        }
        let ahora = self.0.clock.now();
        let user_id = uuid::Uuid::now_v7().to_string();
        let mut tx = self.0.store.write().await?;
        identidades::create(&mut tx, &user_id, &email, &hash, nueva.confirmada, ahora).await?;
        identidades::set_data(&mut tx, &user_id, &datos, &datos_app).await?;
        let hecha = identidades::get(&mut tx, &user_id).await?;
        let alta = Hecho::creado("identidad", &user_id, &serde_json::json!({ "email": email }));
        autor(por.unwrap_or(&user_id), None, de, ahora).anota(&mut tx, &alta).await?;
        tx.commit().await?;
        hecha.ok_or_else(|| Error::Interno("an account is gone".to_owned()))
    }

    /// Signs in, with a person or without.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn identidad_entra(
        &self,
        email: &str,
        clave: &str,
        de: Origen,
    ) -> Result<(Fichas, Identidad), Error> {
        let p = self.interno()?;
        let identidad = self.autentica(p, email, clave).await?;
        self.abre_identidad(p, identidad, de).await
    }

    async fn abre_identidad(
        &self,
        p: &Interno,
        identidad: Identidad,
        de: Origen,
    ) -> Result<(Fichas, Identidad), Error> {
        let mut tx = self.0.store.read().await?;
        let perfil = trabajadores::by_user_id(&mut tx, &identidad.user_id).await?;
        tx.commit().await?;
        en_vigor(&identidad, perfil.as_ref())?;
        let (fichas, _) = self.emite(p, &identidad, perfil, Segundo::Despues, de).await?;
        Ok((fichas, identidad))
    }

    /// Exchanges a refresh token, with a person or without.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn identidad_refresca(&self, token: &str) -> Result<(Fichas, Identidad), Error> {
        let (fichas, user_id, _) = self.rota(self.interno()?, token, false).await?;
        Ok((fichas, self.identidad(&user_id).await?.ok_or(Error::TokenInvalido)?))
    }

    /// Signs in with the code of a message, which confirms the e-mail.
    ///
    /// # Errors
    /// [`Error::CodigoInvalido`].
    pub async fn identidad_verifica(
        &self,
        codigo: &str,
        para: Para,
        de: Origen,
    ) -> Result<(Fichas, Identidad), Error> {
        let p = self.interno()?;
        let hash = self.es_codigo(codigo, para).await?;
        let ahora = self.0.clock.now();
        let mut tx = self.0.store.write().await?;
        let suyo = codigos::take(&mut tx, &hash, para, ahora).await?.ok_or(Error::CodigoInvalido)?;
        identidades::confirm(&mut tx, &suyo, ahora).await?;
        let identidad = identidades::get(&mut tx, &suyo).await?.ok_or(Error::CodigoInvalido)?;
        anota(&mut tx, &suyo, ahora, de.clone(), &Hecho::nuevo("confirmar", "correo", &suyo)).await?;
        tx.commit().await?;
        self.abre_identidad(p, identidad, de).await
    }

    /// Changes an account, for the owner of `token` or, without one, for whoever has the service-role key. Another
    /// password ends its sign-ins, with their access tokens and connections, but the one of `token`.
    ///
    /// # Errors
    /// [`Error::TokenInvalido`] when the sign-in of `token` has ended, others of [`Error`].
    pub async fn identidad_cambia(
        &self,
        user_id: &str,
        cambio: Cambio,
        token: Option<&str>,
        de: Origen,
    ) -> Result<Identidad, Error> {
        let p = self.interno()?;
        let hash = match &cambio.clave {
            Some(clave) => {
                password::buena(clave)?;
                Some(p.claves.hash(clave).await?)
            }
            None => None,
        };
        let ahora = self.0.clock.now();
        let suya = token.map(|t| p.firmante.comprueba(t, ahora)).transpose()?;
        let mut tx = self.0.store.write().await?;
        // A hash takes its time.
        if let Some(suya) = &suya {
            sigue(&mut tx, suya).await?;
        }
        let antes = identidades::get(&mut tx, user_id).await?.ok_or(Error::TokenInvalido)?;
        let id_empresa = trabajadores::by_user_id(&mut tx, user_id).await?.and_then(|p| p.id_empresa);
        let autor = autor(token.map_or(SERVICIO, |_| user_id), id_empresa, de, ahora);
        let mut fuera = None;
        if let Some(hash) = hash {
            identidades::set_password(&mut tx, user_id, &hash).await?;
            let menos = suya.as_ref().map(|s| s.session_id.as_str());
            let idas = refrescos::end_others(&mut tx, user_id, menos).await?;
            fuera = Some(match suya {
                Some(_) => venidos_por(idas),
                None => Revocado::Usuario(user_id.to_owned()),
            });
            autor.anota(&mut tx, &Hecho::nuevo("cambiar", "acceso", user_id)).await?;
        }
        if cambio.confirma && antes.confirmada.is_none() {
            identidades::confirm(&mut tx, user_id, ahora).await?;
            autor.anota(&mut tx, &Hecho::nuevo("confirmar", "correo", user_id)).await?;
        }
        let datos = junta(&antes.datos, cambio.datos)?;
        let datos_app = junta(&antes.datos_app, cambio.datos_app)?;
        identidades::set_data(&mut tx, user_id, &datos, &datos_app).await?;
        let despues = identidades::get(&mut tx, user_id).await?.ok_or(Error::TokenInvalido)?;
        match fuera {
            Some(fuera) => self.confirma_y_corta(tx, fuera).await?,
            None => tx.commit().await?,
        }
        Ok(despues)
    }

    /// Ends sign-ins of the account of `token`, with their access tokens and connections.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn identidad_sale(
        &self,
        user_id: &str,
        token: &str,
        cuales: Cuales,
        de: Origen,
    ) -> Result<(), Error> {
        let ahora = self.0.clock.now();
        let suya = self.interno()?.firmante.comprueba(token, ahora)?.session_id;
        let mut tx = self.0.store.write().await?;
        let idas = match cuales {
            Cuales::Todas => refrescos::end_all(&mut tx, user_id).await?,
            Cuales::Otras => refrescos::end_others(&mut tx, user_id, Some(&suya)).await?,
            Cuales::Esta => {
                refrescos::end_family(&mut tx, user_id, &suya).await?;
                vec![suya]
            }
        };
        anota(&mut tx, user_id, ahora, de, &Hecho::nuevo("salir", "sesion", user_id)).await?;
        self.confirma_y_corta(tx, venidos_por(idas)).await
    }

    /// Removes an account; `false` when a person belongs to it, who is deactivated and not removed.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn identidad_borra(&self, quien: &Identidad, de: Origen) -> Result<bool, Error> {
        let user_id = quien.user_id.as_str();
        let mut tx = self.0.store.write().await?;
        if trabajadores::by_user_id(&mut tx, user_id).await?.is_some() {
            return Ok(false);
        }
        identidades::delete(&mut tx, user_id).await?;
        let hecho = Hecho::borrado("identidad", user_id, &serde_json::json!({ "email": quien.email }));
        autor(SERVICIO, None, de, self.0.clock.now()).anota(&mut tx, &hecho).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// Neither the account nor its person is deactivated.
fn en_vigor(identidad: &Identidad, perfil: Option<&Perfil>) -> Result<(), Error> {
    if identidad.activa && perfil.is_none_or(|p| p.activo) { Ok(()) } else { Err(Error::Inactivo) }
}

fn autor(user_id: &str, id_empresa: Option<i64>, origen: Origen, momento: Timestamp) -> Autor {
    Autor { user_id: user_id.to_owned(), id_empresa, origen, momento }
}

fn texto(datos: &Map<String, Value>) -> Result<String, Error> {
    let texto = serde_json::to_string(datos).map_err(|e| Error::Interno(e.to_string()))?;
    // PostgreSQL cannot store the character.
    if texto.len() > MAX_DATOS || texto.contains("\\u0000") {
        return Err(Error::DatosInvalidos("data"));
    }
    Ok(texto)
}

/// What was there with what is set; null takes away.
fn junta(antes: &str, cambio: Option<Map<String, Value>>) -> Result<String, Error> {
    let mut datos: Map<String, Value> = serde_json::from_str(antes).unwrap_or_default();
    for (campo, valor) in cambio.unwrap_or_default() {
        if valor.is_null() {
            datos.remove(&campo);
        } else {
            datos.insert(campo, valor);
        }
    }
    texto(&datos)
}
