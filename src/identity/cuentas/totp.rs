//! The second factor of accounts of our own: a one-time code by time, or one of ten for whoever has lost the device.
//!
//! It counts once a first code has confirmed it; from then on an access token of a sign-in that did not show it opens
//! nothing ([`Cuentas::usuario`]), and everything from before is over. A code is good once, thirty seconds early or
//! late, and few may be tried. The secret is sealed with a key that is not in the database.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::sesiones::sigue;
use super::{Cuentas, Error, Fichas, legible, venidos_por};
use crate::domain::Timestamp;
use crate::identity::provider::{Interno, Provider};
use crate::identity::{Revocado, Usuario, totp};
use crate::limits::rate::Rate;
use crate::store::auditoria::{Autor, Hecho, Origen};
use crate::store::identidades::{self, Identidad};
use crate::store::totp::{self as factores, Factor};
use crate::store::{Tx, refrescos, sesiones, trabajadores};

/// Codes that are made for whoever loses the device, and their characters: eighty random bits.
const CODIGOS: usize = 10;
const LARGO: usize = 16;
/// Codes of one account that may be tried in an hour: of a million, three are good at a time.
const POR_HORA: u32 = 20;
/// Longest name of a factor, and of who issues it.
const MAX_NOMBRE: usize = 100;

/// How often codes of one account may be tried.
pub(super) fn frecuencia() -> Option<Rate<String>> {
    Rate::new(POR_HORA, Duration::from_secs(3600), POR_HORA)
}

/// What a sign-in says of the second factor.
#[derive(Clone, Copy)]
pub enum Segundo<'a> {
    /// Its code, where there is one; who has a second factor and does not show it stays outside.
    Ahora(Option<&'a str>),
    /// Nothing yet: the sign-in is good for showing it.
    Despues,
    /// It was shown, in this transaction.
    Mostrado,
}

/// How whoever takes their second factor away shows that they may.
#[derive(Clone, Copy)]
pub enum Prueba<'a> {
    /// A code of it.
    Codigo(&'a str),
    /// The password of the account.
    Clave(&'a str),
}

/// A second factor that is being set up. No `Debug`: the secret belongs in no log.
pub struct AltaTotp {
    /// Its name.
    pub id_factor: String,
    /// The secret, to be typed (base 32).
    pub secreto: String,
    /// The same as an `otpauth:` address.
    pub url: String,
}

/// How an account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EstadoTotp {
    /// Since when a code is asked for; `None` = none is.
    pub desde: Option<Timestamp>,
    /// Codes left for whoever has lost the device.
    pub codigos: i64,
}

impl Cuentas {
    pub(super) fn con_totp(&self) -> Result<&Interno, Error> {
        match &self.0.provider {
            Provider::Interno(p) => Ok(p),
            Provider::Supabase(_) => Err(Error::TotpAlli),
        }
    }

    /// How an account stands.
    ///
    /// # Errors
    /// [`Error::TotpAlli`], those of the store.
    pub async fn totp(&self, user_id: &str) -> Result<EstadoTotp, Error> {
        self.con_totp()?;
        let mut tx = self.0.store.read().await?;
        let factor = factores::get(&mut tx, user_id).await?;
        let codigos = factores::codes_left(&mut tx, user_id).await?;
        tx.commit().await?;
        Ok(EstadoTotp { desde: factor.and_then(|f| f.confirmado).map(Timestamp::clamped), codigos })
    }

    /// Sets a second factor up, in the place of one that was not confirmed.
    ///
    /// # Errors
    /// [`Error::TotpActivo`] when the account has one, [`Error::TotpAlli`].
    pub async fn totp_empieza(
        &self,
        user_id: &str,
        nombre: &str,
        emisor: Option<&str>,
        de: Origen,
    ) -> Result<AltaTotp, Error> {
        let p = self.con_totp()?;
        let interno = |e: &dyn std::fmt::Display| Error::Interno(e.to_string());
        let secreto = totp::genera().map_err(|e| interno(&e))?;
        let sellado = p.sello.seal(&secreto).map_err(|e| interno(&e))?;
        let corto = |texto: &str| -> Result<(), Error> {
            let cabe = texto.chars().count() <= MAX_NOMBRE && !texto.contains('\0');
            if cabe { Ok(()) } else { Err(Error::DatosInvalidos("friendly_name")) }
        };
        let emisor = emisor.unwrap_or(totp::EMISOR);
        corto(nombre)?;
        corto(emisor)?;
        let id_factor = uuid::Uuid::now_v7().to_string();
        let ahora = self.0.clock.now();
        let mut tx = self.0.store.write().await?;
        let cuenta = identidades::get(&mut tx, user_id).await?.ok_or(Error::TokenInvalido)?;
        if !factores::begin(&mut tx, user_id, &id_factor, nombre, &sellado, ahora).await? {
            return Err(Error::TotpActivo);
        }
        let id_empresa = trabajadores::by_user_id(&mut tx, user_id).await?.and_then(|p| p.id_empresa);
        let autor = Autor { user_id: user_id.to_owned(), id_empresa, origen: de, momento: ahora };
        autor.anota(&mut tx, &Hecho::nuevo("preparar", "totp", user_id)).await?;
        let escrito = totp::escrito(&secreto, &cuenta.email, emisor);
        let (secreto, url) =
            escrito.ok_or_else(|| Error::Interno("a secret cannot be written".to_owned()))?;
        tx.commit().await?;
        Ok(AltaTotp { id_factor, secreto, url })
    }

    /// Confirms the one that is being set up by a first code: everything that was open ends, and a sign-in that showed
    /// it takes its place. Answers it and the codes for whoever loses the device, which are shown this once.
    ///
    /// # Errors
    /// [`Error::SinTotp`] when there is none to confirm, [`Error::TotpIncorrecto`], [`Error::TokenInvalido`] when the
    /// sign-in that asks has ended.
    pub async fn totp_confirma(
        &self,
        quien: &Usuario,
        codigo: &str,
        de: Origen,
    ) -> Result<(Fichas, Vec<String>), Error> {
        let p = self.con_totp()?;
        let user_id = quien.user_id.as_str();
        let mut tx = self.0.store.write().await?;
        // May have ended since it was looked at: it must not open another in its place.
        if !sesiones::open(&mut tx, user_id, quien.sesion.as_deref().unwrap_or_default()).await? {
            return Err(Error::TokenInvalido);
        }
        let factor = factores::get(&mut tx, user_id).await?;
        let factor = factor.filter(|f| f.confirmado.is_none()).ok_or(Error::SinTotp)?;
        let fichas = self.muestra(&mut tx, p, user_id, &factor, codigo, None, de).await?;
        let codigos = haz_codigos(&mut tx, user_id).await?;
        self.confirma_y_corta(tx, Revocado::Usuario(user_id.to_owned())).await?;
        Ok((fichas, codigos))
    }

    /// Shows the second factor `id_factor`, confirmed by that where it was not, for a sign-in in the place of that of
    /// `access`.
    ///
    /// # Errors
    /// [`Error::SinTotp`], [`Error::TotpIncorrecto`], [`Error::TokenInvalido`] when the sign-in of `access` has ended.
    pub async fn totp_muestra(
        &self,
        user_id: &str,
        id_factor: &str,
        codigo: &str,
        access: &str,
        de: Origen,
    ) -> Result<(Fichas, Identidad), Error> {
        let p = self.con_totp()?;
        let suya = p.firmante.comprueba(access, self.0.clock.now())?;
        let mut tx = self.0.store.write().await?;
        sigue(&mut tx, &suya).await?;
        let familia = suya.session_id;
        let factor = factores::get(&mut tx, user_id).await?;
        let factor = factor.filter(|f| f.id_factor == id_factor).ok_or(Error::SinTotp)?;
        let fichas = self.muestra(&mut tx, p, user_id, &factor, codigo, Some(&familia), de).await?;
        let identidad = identidades::get(&mut tx, user_id).await?.ok_or(Error::TokenInvalido)?;
        let primera = factor.confirmado.is_none();
        let idos = if primera { Revocado::Usuario(user_id.to_owned()) } else { venidos_por([familia]) };
        self.confirma_y_corta(tx, idos).await?;
        Ok((fichas, identidad))
    }

    #[expect(clippy::too_many_arguments, reason = "a sign-in is all of it")]
    async fn muestra(
        &self,
        tx: &mut Tx,
        p: &Interno,
        user_id: &str,
        factor: &Factor,
        codigo: &str,
        familia: Option<&str>,
        de: Origen,
    ) -> Result<Fichas, Error> {
        let cuenta = identidades::get(tx, user_id).await?.ok_or(Error::TokenInvalido)?;
        // Where a password would be tried, as often.
        self.cuenta_entrada(&cuenta.email)?;
        let perfil = trabajadores::by_user_id(tx, user_id).await?;
        let id_empresa = perfil.as_ref().and_then(|p| p.id_empresa);
        let momento = self.0.clock.now();
        let autor = Autor { user_id: user_id.to_owned(), id_empresa, origen: de.clone(), momento };
        self.comprueba(tx, p, factor, codigo, &autor).await?;
        if factor.confirmado.is_none() {
            factores::confirm(tx, user_id, momento).await?;
            identidades::renew(tx, user_id).await?;
            refrescos::end_all(tx, user_id).await?;
            autor.anota(tx, &Hecho::nuevo("activar", "totp", user_id)).await?;
        } else if let Some(familia) = familia {
            refrescos::end_family(tx, user_id, familia).await?;
        }
        Ok(self.abre(tx, p, user_id, perfil, Segundo::Mostrado, de).await?.0)
    }

    /// What a sign-in of an account with a second factor is: `true` = it showed it.
    pub(super) async fn segundo(
        &self,
        tx: &mut Tx,
        p: &Interno,
        segundo: Segundo<'_>,
        autor: &Autor,
    ) -> Result<bool, Error> {
        let codigo = match segundo {
            Segundo::Mostrado => return Ok(true),
            Segundo::Despues => return Ok(false),
            Segundo::Ahora(codigo) => codigo.ok_or(Error::TotpRequerido)?,
        };
        let factor = factores::get(tx, &autor.user_id).await?.ok_or(Error::TotpRequerido)?;
        self.comprueba(tx, p, &factor, codigo, autor).await?;
        Ok(true)
    }

    /// Spends a code: of now, or one of those for whoever has lost the device.
    async fn comprueba(
        &self,
        tx: &mut Tx,
        p: &Interno,
        factor: &Factor,
        codigo: &str,
        autor: &Autor,
    ) -> Result<(), Error> {
        let user_id = autor.user_id.as_str();
        if let Some(frecuencia) = &self.0.por_factor {
            frecuencia.check(user_id.to_owned()).map_err(Error::Demasiadas)?;
        }
        let paso = match p.sello.open(&factor.secreto) {
            Ok(secreto) => totp::paso(&secreto, codigo, autor.momento),
            Err(e) => {
                tracing::error!(user_id, error = %e, "the secret of a second factor was sealed with another identity.jwt_secret");
                None
            }
        };
        if let Some(paso) = paso {
            let nuevo = factores::spend(tx, user_id, paso).await?;
            return if nuevo { Ok(()) } else { Err(Error::TotpIncorrecto) };
        }
        if !factores::spend_code(tx, user_id, &legible::hash(codigo)).await? {
            return Err(Error::TotpIncorrecto);
        }
        let quedan = factores::codes_left(tx, user_id).await?;
        tracing::info!(user_id, quedan, "a recovery code was used in the place of a second factor");
        let hecho =
            Hecho::borrado("codigo_de_recuperacion", user_id, &json!({ "quedan": quedan })).como("usar");
        Ok(autor.anota(tx, &hecho).await?)
    }

    /// Other codes for whoever loses the device, in the place of those that there were; asks for a code.
    ///
    /// # Errors
    /// [`Error::SinTotp`], [`Error::TotpIncorrecto`].
    pub async fn totp_codigos(&self, codigo: &str, autor: &Autor) -> Result<Vec<String>, Error> {
        let p = self.con_totp()?;
        let mut tx = self.0.store.write().await?;
        self.prueba(&mut tx, p, Prueba::Codigo(codigo), autor).await?;
        let codigos = haz_codigos(&mut tx, &autor.user_id).await?;
        autor.anota(&mut tx, &Hecho::nuevo("renovar", "codigo_de_recuperacion", &autor.user_id)).await?;
        tx.commit().await?;
        Ok(codigos)
    }

    /// Takes one's own second factor away.
    ///
    /// # Errors
    /// [`Error::SinTotp`], [`Error::TotpIncorrecto`], [`Error::Credenciales`].
    pub async fn totp_quita(&self, prueba: Prueba<'_>, autor: &Autor) -> Result<(), Error> {
        let p = self.con_totp()?;
        if let Prueba::Clave(clave) = prueba {
            // Costly, and not to be waited for by other writers.
            let cuenta = self.identidad(&autor.user_id).await?.ok_or(Error::TokenInvalido)?;
            self.autentica(p, &cuenta.email, clave).await?;
        }
        let mut tx = self.0.store.write().await?;
        self.prueba(&mut tx, p, prueba, autor).await?;
        quita(&mut tx, &autor.user_id, autor).await?;
        Ok(tx.commit().await?)
    }

    /// Whether the account has a second factor, and a code is one of it.
    async fn prueba(&self, tx: &mut Tx, p: &Interno, prueba: Prueba<'_>, autor: &Autor) -> Result<(), Error> {
        let factor = factores::get(tx, &autor.user_id).await?;
        let factor = factor.filter(|f| f.confirmado.is_some()).ok_or(Error::SinTotp)?;
        if let Prueba::Codigo(codigo) = prueba {
            let cuenta = identidades::get(tx, &autor.user_id).await?.ok_or(Error::TokenInvalido)?;
            self.cuenta_entrada(&cuenta.email)?;
            self.comprueba(tx, p, &factor, codigo, autor).await?;
        }
        Ok(())
    }

    /// Takes away the second factor of an account, in the dialect of Supabase: the one of `id_factor`.
    ///
    /// # Errors
    /// [`Error::SinTotp`].
    pub async fn totp_borra(&self, user_id: &str, id_factor: &str, de: Origen) -> Result<(), Error> {
        self.con_totp()?;
        let mut tx = self.0.store.write().await?;
        let factor = factores::get(&mut tx, user_id).await?;
        let factor = factor.filter(|f| f.id_factor == id_factor).ok_or(Error::SinTotp)?;
        let id_empresa = trabajadores::by_user_id(&mut tx, user_id).await?.and_then(|p| p.id_empresa);
        let momento = self.0.clock.now();
        let autor = Autor { user_id: user_id.to_owned(), id_empresa, origen: de, momento };
        if factor.confirmado.is_some() {
            quita(&mut tx, user_id, &autor).await?;
        } else {
            factores::remove(&mut tx, user_id).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Takes away that of a person of `id_empresa`, for its administrator.
    ///
    /// # Errors
    /// [`Error::SinTotp`] when there is no such person, or none of theirs.
    pub async fn totp_quita_a(
        &self,
        id_empresa: i64,
        id_trabajador: i64,
        autor: &Autor,
    ) -> Result<(), Error> {
        self.con_totp()?;
        let mut tx = self.0.store.write().await?;
        let persona = trabajadores::get(&mut tx, id_empresa, id_trabajador).await?.ok_or(Error::SinTotp)?;
        quita(&mut tx, &persona.user_id, autor).await?;
        Ok(tx.commit().await?)
    }

    /// Takes away that of whoever signs in with `email`: for the command line alone.
    ///
    /// # Errors
    /// [`Error::SinTotp`].
    pub async fn totp_quita_en_consola(&self, email: &str) -> Result<(), Error> {
        self.con_totp()?;
        let mut tx = self.0.store.write().await?;
        let cuenta = identidades::by_email(&mut tx, &super::normaliza(email)).await?.ok_or(Error::SinTotp)?;
        let id_empresa = trabajadores::by_user_id(&mut tx, &cuenta.user_id).await?.and_then(|p| p.id_empresa);
        let (momento, origen) = (self.0.clock.now(), Origen::consola());
        let autor = Autor { user_id: "consola".to_owned(), id_empresa, origen, momento };
        quita(&mut tx, &cuenta.user_id, &autor).await?;
        Ok(tx.commit().await?)
    }

    /// A challenge of the dialect: nothing that has to be kept, since a code is good once by itself.
    ///
    /// # Errors
    /// [`Error::SinTotp`].
    pub async fn totp_reta(&self, user_id: &str, id_factor: &str) -> Result<(String, i64), Error> {
        let p = self.con_totp()?;
        let mut tx = self.0.store.read().await?;
        let factor = factores::get(&mut tx, user_id).await?;
        tx.commit().await?;
        factor.filter(|f| f.id_factor == id_factor).ok_or(Error::SinTotp)?;
        let expira = self.0.clock.now().plus(RETO).secs();
        let sellado = p.sello.seal(format!("{expira} {id_factor}").as_bytes());
        let sellado = sellado.map_err(|e| Error::Interno(e.to_string()))?;
        Ok((URL_SAFE_NO_PAD.encode(sellado), expira))
    }

    /// Whether a challenge is one of this factor, and not over.
    #[must_use]
    pub fn totp_vale_reto(&self, id_factor: &str, reto: &str) -> bool {
        let dice = || {
            let abierto = self.con_totp().ok()?.sello.open(&URL_SAFE_NO_PAD.decode(reto).ok()?).ok()?;
            let texto = String::from_utf8(abierto).ok()?;
            let (expira, de) = texto.split_once(' ')?;
            Some((expira.parse::<i64>().ok()?, de.to_owned()))
        };
        dice().is_some_and(|(expira, de)| de == id_factor && self.0.clock.now().secs() < expira)
    }
}

/// How long a challenge is good.
const RETO: Duration = Duration::from_secs(300);

/// Takes a second factor away that there is, and says so.
async fn quita(tx: &mut Tx, user_id: &str, autor: &Autor) -> Result<(), Error> {
    if !factores::remove(tx, user_id).await? {
        return Err(Error::SinTotp);
    }
    tracing::info!(user_id, por = autor.user_id, "a second factor was taken away");
    Ok(autor.anota(tx, &Hecho::borrado("totp", user_id, &json!({}))).await?)
}

async fn haz_codigos(tx: &mut Tx, user_id: &str) -> Result<Vec<String>, Error> {
    let codigos: Result<Vec<String>, _> = (0..CODIGOS).map(|_| legible::genera(LARGO)).collect();
    let codigos = codigos.map_err(|e| Error::Interno(e.to_string()))?;
    let hashes: Vec<[u8; 32]> = codigos.iter().map(|c| legible::hash(c)).collect();
    factores::set_codes(tx, user_id, &hashes).await?;
    Ok(codigos)
}
