//! Codes that go by mail: to choose another password, and to show that an e-mail is one's own.
//!
//! A code is 32 random bytes, kept as its SHA-256, good once and for an hour (to confirm: a day). Whether an e-mail
//! has an account is told by nothing: not by the answer, and not by how long it takes, since the work is done after it.

use std::time::Duration;

use super::{Cuentas, Error, normaliza};
use crate::identity::provider::Provider;
use crate::identity::supabase::Supabase;
use crate::identity::{dispositivo, password};
use crate::store::auditoria::{Autor, Hecho, Origen};
use crate::store::codigos::{self, Para};
use crate::store::{identidades, refrescos, trabajadores};

/// How long a link to choose another password is good.
const RECUPERA: Duration = Duration::from_secs(3600);
/// How long a link to confirm an e-mail is good.
const CONFIRMA: Duration = Duration::from_secs(86_400);

impl Cuentas {
    /// Sends whoever has this e-mail a link by which another password is chosen.
    ///
    /// # Errors
    /// [`Error::SinCorreo`]; never whether there is such an account.
    pub async fn olvidada(&self, email: &str) -> Result<(), Error> {
        let email = normaliza(email);
        let Provider::Supabase(s) = &self.0.provider else {
            let pagina = format!("{}/reset-password", self.0.correo.sitio());
            return self.en_fondo(email, Para::Recuperar, move |codigo| format!("{pagina}?token={codigo}"));
        };
        match s.recupera(&email).await {
            Err(e @ (Error::ProveedorAusente(_) | Error::ProveedorRoto | Error::ProveedorAjeno)) => Err(e),
            // Too often, unknown, not to be written to: told of accounts alone, and so to nobody.
            _ => Ok(()),
        }
    }

    /// As [`Self::olvidada`], in the dialect of Supabase: the link leads by this server to `destino`.
    ///
    /// # Errors
    /// As there.
    pub fn olvidada_con(&self, email: &str, destino: Option<&str>) -> Result<(), Error> {
        let enlace = self.enlace("recovery", destino);
        self.en_fondo(normaliza(email), Para::Recuperar, enlace)
    }

    /// A link of the dialect.
    pub(super) fn enlace(
        &self,
        tipo: &'static str,
        destino: Option<&str>,
    ) -> impl FnOnce(&str) -> String + Send + use<> {
        let publico = self.0.correo.publico().to_owned();
        let destino = destino.unwrap_or_else(|| self.0.correo.sitio()).to_owned();
        move |codigo| {
            let mut consulta = url::form_urlencoded::Serializer::new(String::new());
            consulta
                .append_pair("token", codigo)
                .append_pair("type", tipo)
                .append_pair("redirect_to", &destino);
            format!("{publico}/auth/v1/verify?{}", consulta.finish())
        }
    }

    /// Makes a code for an account, if there is one, and sends it.
    pub(super) fn en_fondo(
        &self,
        email: String,
        para: Para,
        enlace: impl FnOnce(&str) -> String + Send + 'static,
    ) -> Result<(), Error> {
        self.0.correo.listo()?;
        if !self.0.correo.puede(&email) {
            return Ok(());
        }
        let cuentas = self.clone();
        tokio::spawn(async move {
            if let Err(e) = cuentas.codigo(&email, para, enlace).await {
                tracing::error!(error = %e, "a code could not be made");
            }
        });
        Ok(())
    }

    async fn codigo(
        &self,
        email: &str,
        para: Para,
        enlace: impl FnOnce(&str) -> String + Send,
    ) -> Result<(), Error> {
        let mut tx = self.0.store.read().await?;
        let identidad = identidades::by_email(&mut tx, email).await?;
        tx.commit().await?;
        let Some(identidad) = identidad.filter(|i| i.activa) else { return Ok(()) };
        if para == Para::Confirmar && identidad.confirmada.is_some() {
            return Ok(());
        }
        let token = dispositivo::genera().map_err(|e| Error::Interno(e.to_string()))?;
        let ahora = self.0.clock.now();
        let (vale, asunto, que) = match para {
            Para::Recuperar => (RECUPERA, "Alertrace: elija otra contraseña", RECUPERAR),
            Para::Confirmar => (CONFIRMA, "Alertrace: confirme su correo", CONFIRMAR),
        };
        let mut tx = self.0.store.write().await?;
        codigos::expire(&mut tx, ahora, 100).await?;
        codigos::create(&mut tx, &token.hash, &identidad.user_id, para, ahora.plus(vale)).await?;
        tx.commit().await?;
        self.0.correo.envia(email, asunto, que.replace("{enlace}", &enlace(&token.texto)));
        Ok(())
    }

    /// Chooses another password with the code of a message; every sign-in of the account ends. Answers whose.
    ///
    /// # Errors
    /// [`Error::CodigoInvalido`], [`Error::ClaveDebil`], [`Error::ClaveComun`].
    pub async fn restablece(&self, codigo: &str, nueva: &str, de: Origen) -> Result<String, Error> {
        password::buena(nueva)?;
        let p = match &self.0.provider {
            Provider::Interno(p) => p,
            Provider::Supabase(s) => return restablece_alli(s, codigo, nueva).await,
        };
        let hash_codigo = dispositivo::hash(codigo.as_bytes());
        // What is no code is told so before the costly hash, by a reader: strangers do not hold the writer.
        let mut tx = self.0.store.read().await?;
        if !codigos::good(&mut tx, &hash_codigo, Para::Recuperar, self.0.clock.now()).await? {
            return Err(Error::CodigoInvalido);
        }
        tx.commit().await?;
        let clave = p.claves.hash(nueva).await?;
        let ahora = self.0.clock.now();
        let mut tx = self.0.store.write().await?;
        let suyo = codigos::take(&mut tx, &hash_codigo, Para::Recuperar, ahora).await?;
        let user_id = suyo.ok_or(Error::CodigoInvalido)?;
        identidades::set_password(&mut tx, &user_id, &clave).await?;
        // Whoever reads the mail has the address.
        identidades::confirm(&mut tx, &user_id, ahora).await?;
        refrescos::end_all(&mut tx, &user_id).await?;
        let perfil = trabajadores::by_user_id(&mut tx, &user_id).await?;
        let id_empresa = perfil.and_then(|p| p.id_empresa);
        let autor = Autor { user_id, id_empresa, origen: de, momento: ahora };
        autor.anota(&mut tx, &Hecho::nuevo("restablecer", "acceso", &autor.user_id)).await?;
        tx.commit().await?;
        Ok(autor.user_id)
    }

    /// Confirms an e-mail with the code of a message.
    ///
    /// # Errors
    /// [`Error::CodigoInvalido`].
    pub async fn confirma(&self, codigo: &str) -> Result<(), Error> {
        let ahora = self.0.clock.now();
        let mut tx = self.0.store.write().await?;
        let suyo =
            codigos::take(&mut tx, &dispositivo::hash(codigo.as_bytes()), Para::Confirmar, ahora).await?;
        identidades::confirm(&mut tx, &suyo.ok_or(Error::CodigoInvalido)?, ahora).await?;
        Ok(tx.commit().await?)
    }

    /// Sends the link that confirms a new account's e-mail.
    pub(super) fn pide_confirmacion(&self, email: &str) -> Result<(), Error> {
        let pagina = format!("{}/api/v1/auth/confirm", self.0.correo.publico());
        self.en_fondo(email.to_owned(), Para::Confirmar, move |codigo| format!("{pagina}?token={codigo}"))
    }

    /// Whether a new account has to confirm its e-mail.
    #[must_use]
    pub fn pide_confirmar(&self) -> bool {
        self.0.ajustes.confirmar
    }

    /// The front end's address.
    #[must_use]
    pub fn sitio(&self) -> String {
        self.0.correo.sitio().to_owned()
    }
}

const RECUPERAR: &str = "Alguien, quizá usted, pidió elegir otra contraseña en Alertrace. El enlace vale una hora y una vez:\n\n{enlace}\n\n\
     Si no fue usted, no haga nada.\n\n--\nSomebody, maybe you, asked to choose another password. The link above is good for an hour, once. \
     If it was not you, do nothing.\n";
const CONFIRMAR: &str = "Confirme que este correo es suyo para entrar en Alertrace. El enlace vale un día:\n\n{enlace}\n\n\
     --\nConfirm that this e-mail is yours by the link above, which is good for a day.\n";

/// A code of Supabase's message: an access token (the link's fragment), or the `token_hash` of a template of one's own.
async fn restablece_alli(s: &Supabase, codigo: &str, nueva: &str) -> Result<String, Error> {
    let jwt = codigo.matches('.').count() == 2;
    let token = if jwt { codigo.to_owned() } else { s.verifica(codigo).await?.access_token };
    let invalido = |e| if matches!(e, Error::TokenInvalido) { Error::CodigoInvalido } else { e };
    let user_id = s.usuario(&token).await.map_err(invalido)?;
    s.cambia_clave(&token, nueva).await?;
    s.sal(&token, true).await?;
    Ok(user_id)
}
