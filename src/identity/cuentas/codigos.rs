//! Codes that go by mail: to choose another password, and to show that an e-mail is one's own.
//!
//! A code is 32 random bytes, kept as its SHA-256, good once and for an hour (to confirm: a day). Whether an e-mail
//! has an account is told by nothing: not by the answer, and not by how long it takes, since the work is done after it.

use std::time::Duration;

use tracing::Instrument as _;

use super::{Cuentas, Error, normaliza};
use crate::domain::Timestamp;
use crate::identity::provider::Provider;
use crate::identity::supabase::Supabase;
use crate::identity::{Revocado, dispositivo, password};
use crate::store::auditoria::{Autor, Hecho, Origen};
use crate::store::codigos::{self, Para};
use crate::store::{self, Tx, identidades, refrescos, trabajadores};

/// How long a link to choose another password is good.
const RECUPERA: Duration = Duration::from_secs(3600);
/// How long a link to confirm an e-mail is good.
const CONFIRMA: Duration = Duration::from_secs(86_400);
/// Messages that Supabase may be sending for us at a time: each waits for its mail server.
pub(super) const MENSAJES: usize = 32;
/// When to ask again where there are as many.
const DESPUES: Duration = Duration::from_secs(2);
/// How far another server's clock is believed to be from ours.
const DESFASE: Duration = Duration::from_secs(60);

impl Cuentas {
    /// Sends whoever has this e-mail a link by which another password is chosen.
    ///
    /// # Errors
    /// [`Error::SinCorreo`], [`Error::Demasiadas`]; never whether there is such an account.
    pub fn olvidada(&self, email: &str) -> Result<(), Error> {
        let email = normaliza(email);
        let Provider::Supabase(s) = &self.0.provider else {
            let pagina = format!("{}/reset-password", self.0.correo.sitio());
            return self.en_fondo(email, Para::Recuperar, move |codigo| format!("{pagina}?token={codigo}"));
        };
        s.responde()?;
        let turno = self.0.mensajes.clone().try_acquire_owned().map_err(|_| Error::Demasiadas(DESPUES))?;
        // Supabase sends the message before it answers, and to accounts alone: who waits for it learns who has one. What
        // it refuses (too often, unknown, not to be written to) is told of accounts alone too.
        let cuentas = self.clone();
        tokio::spawn(async move {
            let _turno = turno;
            let Provider::Supabase(s) = &cuentas.0.provider else { return };
            if let Err(e) = s.recupera(&email).await {
                tracing::warn!(error = %e, "Supabase was asked for a message that replaces a password");
            }
        });
        Ok(())
    }

    /// Sends once more the link that confirms an e-mail, in the dialect of Supabase.
    ///
    /// # Errors
    /// [`Error::SinCorreo`]; never whether there is such an account, or whether it is confirmed.
    pub fn reenvia(&self, email: &str, destino: Option<&str>) -> Result<(), Error> {
        self.en_fondo(normaliza(email), Para::Confirmar, self.enlace("signup", destino))
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

    /// Chooses another password with the code of a message; every sign-in of the account ends, with its access tokens
    /// and its connections.
    ///
    /// # Errors
    /// [`Error::CodigoInvalido`], [`Error::ClaveDebil`], [`Error::ClaveComun`].
    pub async fn restablece(&self, codigo: &str, nueva: &str, de: Origen) -> Result<(), Error> {
        password::buena(nueva)?;
        let p = match &self.0.provider {
            Provider::Interno(p) => p,
            Provider::Supabase(_) => {
                let (cuentas, codigo, nueva) = (self.clone(), codigo.to_owned(), nueva.to_owned());
                // To its end, whoever hangs up meanwhile: a password that is another ends what the old one opened.
                let hecho = async move {
                    let Provider::Supabase(s) = &cuentas.0.provider else {
                        return Err(Error::Interno("the provider changed".to_owned()));
                    };
                    cuentas.restablece_alli(s, &codigo, &nueva, de).await
                };
                let hecho = tokio::spawn(hecho.in_current_span()).await;
                return hecho.unwrap_or_else(|e| Err(Error::Interno(e.to_string())));
            }
        };
        // Before the costly hash.
        let hash_codigo = self.es_codigo(codigo, Para::Recuperar).await?;
        let clave = p.claves.hash(nueva).await?;
        let ahora = self.0.clock.now();
        let mut tx = self.0.store.write().await?;
        let suyo = codigos::take(&mut tx, &hash_codigo, Para::Recuperar, ahora).await?;
        let user_id = suyo.ok_or(Error::CodigoInvalido)?;
        identidades::set_password(&mut tx, &user_id, &clave).await?;
        // Whoever reads the mail has the address.
        identidades::confirm(&mut tx, &user_id, ahora).await?;
        refrescos::end_all(&mut tx, &user_id).await?;
        anota(&mut tx, &user_id, ahora, de, &Hecho::nuevo("restablecer", "acceso", &user_id)).await?;
        self.confirma_y_corta(tx, Revocado::Usuario(user_id)).await
    }

    /// A code of Supabase's message: an access token (the link's fragment), or the `token_hash` of a template of one's
    /// own.
    async fn restablece_alli(
        &self,
        s: &Supabase,
        codigo: &str,
        nueva: &str,
        de: Origen,
    ) -> Result<(), Error> {
        let jwt = codigo.matches('.').count() == 2;
        let token = if jwt { codigo.to_owned() } else { s.verifica(codigo).await?.access_token };
        let invalido = |e| if matches!(e, Error::TokenInvalido) { Error::CodigoInvalido } else { e };
        let user_id = s.usuario(&token).await.map_err(invalido)?;
        let cambiada = match s.cambia_clave(&token, nueva).await {
            // It may be that of a try which came to no end here: what was open before it ends now. The sign-in of the link
            // goes on there, for who has yet to choose another.
            Err(Error::MismaClave) => {
                self.renueva_alli(user_id, None, de).await?;
                return Err(Error::MismaClave);
            }
            cambiada => cambiada?,
        };
        self.renueva_alli(user_id, cambiada, de).await?;
        match s.sal(&token, true).await {
            Err(Error::ProveedorAusente(_)) => s.sal(&token, true).await,
            hecho => hecho,
        }
    }

    /// Ends here what an account had open when its password was `cambiada`.
    async fn renueva_alli(
        &self,
        user_id: String,
        cambiada: Option<Timestamp>,
        de: Origen,
    ) -> Result<(), Error> {
        let ahora = self.0.clock.now();
        // By the clock that tokens tell the time of, if that can be.
        let cerca = ahora.minus(DESFASE)..=ahora.plus(DESFASE);
        let desde = cambiada.filter(|c| cerca.contains(c)).unwrap_or(ahora);
        let mut tx = self.0.store.write().await?;
        if let Some(perfil) = trabajadores::by_user_id(&mut tx, &user_id).await? {
            trabajadores::renew(&mut tx, perfil.id_trabajador, desde).await?;
        }
        anota(&mut tx, &user_id, ahora, de, &Hecho::nuevo("restablecer", "acceso", &user_id)).await?;
        self.confirma_y_corta(tx, Revocado::Usuario(user_id)).await
    }

    /// The hash of a code that is good. What is none is told so by a reader: strangers do not hold the writer.
    pub(super) async fn es_codigo(&self, codigo: &str, para: Para) -> Result<[u8; 32], Error> {
        let hash = dispositivo::hash(codigo.as_bytes());
        let mut tx = self.0.store.read().await?;
        let bueno = codigos::good(&mut tx, &hash, para, self.0.clock.now()).await?;
        tx.commit().await?;
        if bueno { Ok(hash) } else { Err(Error::CodigoInvalido) }
    }

    /// Confirms an e-mail with the code of a message.
    ///
    /// # Errors
    /// [`Error::CodigoInvalido`].
    pub async fn confirma(&self, codigo: &str, de: Origen) -> Result<(), Error> {
        let hash = self.es_codigo(codigo, Para::Confirmar).await?;
        let ahora = self.0.clock.now();
        let mut tx = self.0.store.write().await?;
        let suyo = codigos::take(&mut tx, &hash, Para::Confirmar, ahora).await?;
        let user_id = suyo.ok_or(Error::CodigoInvalido)?;
        identidades::confirm(&mut tx, &user_id, ahora).await?;
        anota(&mut tx, &user_id, ahora, de, &Hecho::nuevo("confirmar", "correo", &user_id)).await?;
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

/// Writes down what somebody did with their own account, whether or not a person belongs to it.
pub(super) async fn anota(
    tx: &mut Tx,
    user_id: &str,
    momento: Timestamp,
    origen: Origen,
    hecho: &Hecho,
) -> store::Result<()> {
    let id_empresa = trabajadores::by_user_id(tx, user_id).await?.and_then(|p| p.id_empresa);
    Autor { user_id: user_id.to_owned(), id_empresa, origen, momento }.anota(tx, hecho).await
}
