//! Registration: an identity, and what belongs to it here. Both, or neither.
//!
//! With accounts of our own it is one transaction. With an identity provider that is another server it is a saga:
//! what conflicts here is looked for first; then a row of `altas` says that something begins; then the account is
//! made there, carrying the row's name; then empresa and person are made here, in the transaction that takes the
//! row away. When the last step fails the account is removed there. When the process dies in between, the row is
//! there at the next start, and [`Cuentas::reconcilia`] undoes what it tells of.
//!
//! Whoever has an identity and no person (a registration that could not be undone, somebody who signed up with
//! Supabase itself) registers with the same e-mail and password, and gets the person.

use serde_json::json;
use tracing::Instrument as _;

use super::equipo::{self, Lugar, Quien};
use super::formas::Persona;
use super::{Cuentas, Error, NuevaEmpresa, Registrado, Registro, normaliza};
use crate::domain::{Rol, Timestamp};
use crate::identity::password;
use crate::identity::provider::{Interno, Provider};
use crate::identity::supabase::{Sesion, Supabase};
use crate::store::altas::{self, Alta};
use crate::store::auditoria::{Autor, Hecho, Origen};
use crate::store::{self, Tx, empresas, identidades, trabajadores};

/// What is made here.
pub(super) enum Paso {
    /// An empresa and its administrator.
    Empresa {
        nueva: Box<NuevaEmpresa>,
        /// Only if it is the installation's first.
        solo_primera: bool,
        origen: Origen,
    },
    /// A person.
    Persona { persona: Box<Persona>, lugar: Lugar, quien: Quien },
}

impl Paso {
    /// The command line, or an administrator, makes an account for somebody else.
    fn es_de_otro(&self) -> bool {
        let consola = |o: &Origen| *o == Origen::consola();
        match self {
            Self::Empresa { origen, .. } => consola(origen),
            Self::Persona { quien: Quien::Mismo(origen), .. } => consola(origen),
            Self::Persona { quien: Quien::Otro(_), .. } => true,
        }
    }

    fn dni(&self) -> Option<&str> {
        match self {
            Self::Empresa { nueva, .. } => nueva.dni.as_deref(),
            Self::Persona { persona, .. } => persona.dni.as_deref(),
        }
    }
}

impl Cuentas {
    /// Makes an account with an empresa of its own, if registration allows it.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub async fn registrar_empresa(&self, nueva: NuevaEmpresa, de: Origen) -> Result<Registrado, Error> {
        if self.0.ajustes.registro == Registro::Closed {
            return Err(Error::RegistroCerrado);
        }
        self.empresa(nueva, self.0.ajustes.registro == Registro::First, de).await
    }

    /// As [`Self::registrar_empresa`], whatever registration allows: for the command line.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create_admin(&self, nueva: NuevaEmpresa) -> Result<Registrado, Error> {
        self.empresa(nueva, false, Origen::consola()).await
    }

    async fn empresa(
        &self,
        nueva: NuevaEmpresa,
        solo_primera: bool,
        origen: Origen,
    ) -> Result<Registrado, Error> {
        let (email, clave) = (nueva.email.clone(), nueva.password.clone());
        self.registra(&email, clave, Paso::Empresa { nueva: Box::new(nueva), solo_primera, origen }).await
    }

    /// Makes the account that runs the installation: for the command line alone.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub async fn create_operador(
        &self,
        email: &str,
        password: &str,
        nombre: &str,
        apellido: &str,
    ) -> Result<Registrado, Error> {
        let (nombre, apellido) = (nombre.to_owned(), apellido.to_owned());
        let persona = Persona { nombre, apellido, dni: None, telefono: None, rol: Rol::Operador };
        let quien = Quien::Mismo(Origen::consola());
        let paso = Paso::Persona { persona: Box::new(persona), lugar: Lugar::Ninguno, quien };
        self.registra(email, password.to_owned(), paso).await
    }
    /// Makes an account and what belongs to it.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub(super) async fn registra(&self, email: &str, clave: String, paso: Paso) -> Result<Registrado, Error> {
        let email = normaliza(email);
        password::buena(&clave)?;
        // Before anything costly, and before anything is made elsewhere; decided again where it counts.
        let mut tx = self.0.store.read().await?;
        self.libre(&mut tx, &email, &paso).await?;
        tx.commit().await?;
        match &self.0.provider {
            Provider::Interno(p) => self.registra_aqui(p, &email, &clave, &paso).await,
            Provider::Supabase(_) => {
                let cuentas = self.clone();
                // To its end, whoever hangs up meanwhile.
                let saga = async move {
                    let Provider::Supabase(s) = &cuentas.0.provider else {
                        return Err(Error::Interno("the provider changed".to_owned()));
                    };
                    cuentas.registra_alli(s, &email, &clave, &paso).await
                };
                let hecha = tokio::spawn(saga.in_current_span()).await;
                hecha.unwrap_or_else(|e| Err(Error::Interno(e.to_string())))
            }
        }
    }

    /// Whether nothing that is here stands in the way.
    async fn libre(&self, tx: &mut Tx, email: &str, paso: &Paso) -> Result<(), Error> {
        match paso {
            Paso::Empresa { nueva, solo_primera, .. } => {
                if *solo_primera && empresas::any(tx).await? {
                    return Err(Error::RegistroCerrado);
                }
                if empresas::by_ruc(tx, &nueva.ruc).await?.is_some() {
                    return Err(Error::EnUso("ruc"));
                }
            }
            Paso::Persona { lugar: Lugar::Codigo(codigo), .. } => {
                equipo::vigente(tx, codigo, self.0.clock.now()).await?;
            }
            Paso::Persona { .. } => {}
        }
        let ocupado = trabajadores::taken(tx, email, paso.dni()).await?;
        ocupado.map_or(Ok(()), |campo| Err(Error::EnUso(campo)))
    }

    /// One transaction.
    async fn registra_aqui(
        &self,
        p: &Interno,
        email: &str,
        clave: &str,
        paso: &Paso,
    ) -> Result<Registrado, Error> {
        let mut tx = self.0.store.read().await?;
        let huerfana = identidades::by_email(&mut tx, email).await?;
        tx.commit().await?;
        if huerfana.is_some() {
            // A password is tried: as often as at a sign-in.
            self.cuenta_entrada(email)?;
        }
        let (user_id, hash) = match huerfana {
            // Nobody belongs to it, or `libre` had found them.
            Some(i) if p.claves.verifica(clave, Some(i.clave_hash.clone())).await? => (i.user_id, None),
            Some(_) => return Err(Error::EnUso("email")),
            None => (uuid::Uuid::now_v7().to_string(), Some(p.claves.hash(clave).await?)),
        };
        let ahora = self.0.clock.now();
        // Whoever makes an account for another knows them; whoever makes their own shows that the e-mail is theirs.
        let confirmada = !self.0.ajustes.confirmar || paso.es_de_otro();
        let nueva = hash.is_some();
        let mut tx = self.0.store.write().await?;
        if let Some(hash) = hash {
            identidades::create(&mut tx, &user_id, email, &hash, confirmada, ahora).await?;
        }
        let hecho = self.aqui(&mut tx, user_id, email, paso, ahora).await?;
        tx.commit().await?;
        if nueva && !confirmada {
            self.pide_confirmacion(email)?;
        }
        Ok(hecho)
    }

    /// The saga.
    async fn registra_alli(
        &self,
        s: &Supabase,
        email: &str,
        clave: &str,
        paso: &Paso,
    ) -> Result<Registrado, Error> {
        let id_alta = uuid::Uuid::now_v7().to_string();
        let mut tx = self.0.store.write().await?;
        altas::begin(&mut tx, &id_alta, email, self.0.clock.now()).await?;
        tx.commit().await?;
        let mut adopta = None;
        let (user_id, nueva) = match s.crea(email, clave, &id_alta).await {
            Ok(hecha) => (hecha.user_id, true),
            Err(Error::EnUso(_)) => {
                // Until the person is there: an account that is being removed is nobody's to take.
                adopta = Some(self.0.adopciones.read().await);
                match self.entra_alli(s, email, clave).await {
                    // It is theirs, and `libre` found nobody who belongs to it.
                    Ok(sesion) => (sesion.user_id().to_owned(), false),
                    Err(e) => {
                        self.termina(&id_alta).await?;
                        return Err(if matches!(e, Error::Credenciales) { Error::EnUso("email") } else { e });
                    }
                }
            }
            Err(e) => {
                // It may have been made all the same, when nobody heard the answer.
                let dudosa = matches!(e, Error::ProveedorAusente(_) | Error::ProveedorRoto);
                if dudosa {
                    self.marca(&id_alta, None).await?;
                } else {
                    self.termina(&id_alta).await?;
                }
                return Err(e);
            }
        };
        let hecho = async {
            let ahora = self.0.clock.now();
            let mut tx = self.0.store.write().await?;
            let hecho = self.aqui(&mut tx, user_id.clone(), email, paso, ahora).await?;
            altas::end(&mut tx, &id_alta).await?;
            tx.commit().await?;
            Ok(hecho)
        }
        .await;
        drop(adopta);
        if let Err(e) = &hecho {
            tracing::warn!(error = %e, "a registration failed after its account was made");
            if nueva {
                self.marca(&id_alta, Some(&user_id)).await?;
                let alta = Alta { id_alta, user_id: Some(user_id), creada: 0, deshacer: true };
                if let Err(e) = self.deshaz(s, &alta).await {
                    tracing::warn!(error = %e, "the account cannot be removed now; it is tried again");
                }
            } else {
                self.termina(&id_alta).await?;
            }
        }
        hecho
    }

    /// A password is tried: as often as at a sign-in.
    async fn entra_alli(&self, s: &Supabase, email: &str, clave: &str) -> Result<Sesion, Error> {
        self.cuenta_entrada(email)?;
        s.entra(email, clave).await
    }

    /// Empresa and person of an identity, in the caller's transaction.
    async fn aqui(
        &self,
        tx: &mut Tx,
        user_id: String,
        email: &str,
        paso: &Paso,
        ahora: Timestamp,
    ) -> Result<Registrado, Error> {
        match paso {
            Paso::Empresa { nueva, solo_primera, origen } => {
                if *solo_primera && empresas::any(tx).await? {
                    return Err(Error::RegistroCerrado);
                }
                let empresa = empresas::Nueva {
                    ruc: &nueva.ruc,
                    razon_social: &nueva.razon_social,
                    email: nueva.empresa_email.as_deref(),
                    telefono: nueva.telefono.as_deref(),
                };
                let id_empresa = empresas::create(tx, empresa, ahora).await?;
                let persona = trabajadores::Nuevo {
                    user_id: &user_id,
                    id_empresa: Some(id_empresa),
                    nombre: &nueva.nombre,
                    apellido: &nueva.apellido,
                    dni: nueva.dni.as_deref(),
                    email,
                    telefono: nueva.telefono.as_deref(),
                    rol: Rol::AdminEmpresa,
                };
                let id_trabajador = trabajadores::create(tx, &persona, ahora).await?;
                let id = Some(id_empresa);
                let autor = Autor { user_id, id_empresa: id, origen: origen.clone(), momento: ahora };
                let alta = json!({ "ruc": nueva.ruc, "razon_social": nueva.razon_social, "email": email });
                autor.anota(tx, &Hecho::creado("empresa", id_empresa, &alta)).await?;
                let user_id = autor.user_id;
                tracing::info!(user_id, id_empresa, "an empresa is registered");
                Ok(Registrado { user_id, id_trabajador, email: email.to_owned(), rol: Rol::AdminEmpresa })
            }
            Paso::Persona { persona, lugar, quien } => {
                let (id_empresa, rol, invitacion) = match lugar {
                    Lugar::Ninguno => (None, persona.rol, None),
                    Lugar::Empresa(id_empresa) => (Some(*id_empresa), persona.rol, None),
                    Lugar::Codigo(codigo) => {
                        let i = equipo::vigente(tx, codigo, ahora).await?;
                        (Some(i.id_empresa), i.rol, Some(i.id_invitacion))
                    }
                };
                let nueva = trabajadores::Nuevo {
                    user_id: &user_id,
                    id_empresa,
                    nombre: &persona.nombre,
                    apellido: &persona.apellido,
                    dni: persona.dni.as_deref(),
                    email,
                    telefono: persona.telefono.as_deref(),
                    rol,
                };
                let id_trabajador = trabajadores::create(tx, &nueva, ahora).await?;
                if let Some(id_invitacion) = invitacion {
                    equipo::gasta(tx, id_invitacion, &user_id, ahora).await?;
                }
                let autor = match quien {
                    Quien::Mismo(origen) => {
                        Autor { user_id: user_id.clone(), id_empresa, origen: origen.clone(), momento: ahora }
                    }
                    Quien::Otro(autor) => autor.clone(),
                };
                let alta = json!({ "email": email, "rol": rol, "id_invitacion": invitacion });
                autor.anota(tx, &Hecho::creado("trabajador", id_trabajador, &alta)).await?;
                Ok(Registrado { user_id, id_trabajador, email: email.to_owned(), rol })
            }
        }
    }

    pub(super) async fn termina(&self, id_alta: &str) -> store::Result<()> {
        let mut tx = self.0.store.write().await?;
        altas::end(&mut tx, id_alta).await?;
        tx.commit().await
    }

    async fn marca(&self, id_alta: &str, user_id: Option<&str>) -> store::Result<()> {
        let mut tx = self.0.store.write().await?;
        altas::undo(&mut tx, id_alta, user_id).await?;
        tx.commit().await
    }
}
