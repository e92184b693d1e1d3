//! How people come into an empresa: by an invitation, or made by its administrator.
//!
//! A code is a hundred random bits, written so that a person can read it aloud; only its hash is kept, and
//! it lets in one person. Who comes in and the code that lets them is one transaction.

use std::time::Duration;

use serde_json::json;

use super::alta::Paso;
use super::formas::Persona;
use super::{Cuentas, Error, NuevoTrabajador, Perfil, Registrado, Registro, legible};
use crate::domain::{Rol, Timestamp};
use crate::identity::Usuario;
use crate::store::auditoria::{Autor, Hecho, Origen};
use crate::store::invitaciones::{self, Invitacion, Nueva};
use crate::store::{Tx, trabajadores};

/// How long an invitation is good.
const VALE: Duration = Duration::from_secs(7 * 86_400);
/// Invitations of one empresa that are good at a time.
const ABIERTAS: i64 = 500;
/// Characters of a code: a hundred random bits.
const LARGO: usize = 20;

/// An invitation that was just made. No `Debug`: the code belongs in no log.
pub struct Invitada {
    /// Shown this once.
    pub codigo: String,
    /// What is kept of it.
    pub invitacion: Invitacion,
}

/// Where an account that is made belongs.
pub(super) enum Lugar {
    /// Nowhere yet.
    Ninguno,
    /// With this empresa.
    Empresa(i64),
    /// Where this code leads, and as what it says.
    Codigo(String),
}

/// Who makes an account.
pub(super) enum Quien {
    /// Whoever it is for, from there.
    Mismo(Origen),
    /// Somebody else.
    Otro(Autor),
}

impl Cuentas {
    /// Invites somebody to `id_empresa` as `rol`.
    ///
    /// # Errors
    /// [`Error::DemasiadasInvitaciones`], those of the store.
    pub async fn invitar(&self, id_empresa: i64, rol: Rol, por: &Autor) -> Result<Invitada, Error> {
        let codigo = legible::genera(LARGO).map_err(|e| Error::Interno(e.to_string()))?;
        let ahora = self.0.clock.now();
        let codigo_hash = legible::hash(&codigo);
        let expira = ahora.plus(VALE);
        let mut tx = self.0.store.write().await?;
        if invitaciones::open(&mut tx, id_empresa, ahora).await? >= ABIERTAS {
            return Err(Error::DemasiadasInvitaciones);
        }
        let nueva = Nueva { id_empresa, codigo_hash: &codigo_hash, rol, creada_por: &por.user_id, expira };
        let id = invitaciones::create(&mut tx, &nueva, ahora).await?;
        let invitacion = invitaciones::get(&mut tx, id_empresa, id).await?;
        let alta = json!({ "rol": rol, "fecha_expiracion": expira });
        por.anota(&mut tx, &Hecho::creado("invitacion", id, &alta)).await?;
        tx.commit().await?;
        let invitacion = invitacion.ok_or_else(|| Error::Interno("an invitation is gone".to_owned()))?;
        let por = &por.user_id;
        tracing::info!(id_empresa, id_invitacion = id, rol = rol.as_str(), por, "somebody is invited");
        Ok(Invitada { codigo, invitacion })
    }

    /// Makes an account: with a code it joins the empresa that issued it, without one it belongs to none and
    /// sees nothing until it joins.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind, and the code is as good as before.
    pub async fn registrar_trabajador(
        &self,
        nuevo: NuevoTrabajador,
        de: Origen,
    ) -> Result<Registrado, Error> {
        let lugar = match (self.0.ajustes.registro, nuevo.codigo_invitacion.clone()) {
            (Registro::Closed, _) => return Err(Error::RegistroCerrado),
            (_, Some(codigo)) => Lugar::Codigo(codigo),
            (Registro::First, None) => return Err(Error::InvitacionNecesaria),
            (Registro::Open, None) => Lugar::Ninguno,
        };
        self.crea(&nuevo, Rol::Worker, lugar, Quien::Mismo(de)).await
    }

    /// Makes an account of `id_empresa`, for its administrator.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub async fn crear_trabajador(
        &self,
        id_empresa: i64,
        nuevo: &NuevoTrabajador,
        rol: Rol,
        por: &Autor,
    ) -> Result<Registrado, Error> {
        self.crea(nuevo, rol, Lugar::Empresa(id_empresa), Quien::Otro(por.clone())).await
    }

    /// An account without an empresa joins the one that issued the code.
    ///
    /// # Errors
    /// [`Error::YaEnEmpresa`] when it belongs to one, [`Error::InvitacionInvalida`].
    pub async fn unirse(&self, usuario: &Usuario, codigo: &str, de: Origen) -> Result<Perfil, Error> {
        if usuario.id_empresa.is_some() || usuario.rol == Rol::Operador {
            return Err(Error::YaEnEmpresa);
        }
        // What is no code is told so by a reader: strangers do not hold the writer.
        let mut tx = self.0.store.read().await?;
        vigente(&mut tx, codigo, self.0.clock.now()).await?;
        tx.commit().await?;
        let ahora = self.0.clock.now();
        let mut tx = self.0.store.write().await?;
        let invitacion = vigente(&mut tx, codigo, ahora).await?;
        let Invitacion { id_invitacion, id_empresa, rol, .. } = invitacion;
        if !trabajadores::join(&mut tx, usuario.id_trabajador, id_empresa, rol).await? {
            return Err(Error::YaEnEmpresa);
        }
        gasta(&mut tx, id_invitacion, &usuario.user_id, ahora).await?;
        let perfil = trabajadores::by_user_id(&mut tx, &usuario.user_id).await?.ok_or(Error::SinPerfil)?;
        // Told in the empresa: its administrators are to know who came in.
        let autor = Autor {
            user_id: usuario.user_id.clone(),
            id_empresa: Some(id_empresa),
            origen: de,
            momento: ahora,
        };
        let como = json!({ "email": perfil.email, "rol": rol, "id_invitacion": id_invitacion });
        let hecho = Hecho::creado("trabajador", usuario.id_trabajador, &como).como("unirse");
        autor.anota(&mut tx, &hecho).await?;
        tx.commit().await?;
        tracing::info!(user_id = usuario.user_id, id_empresa, "somebody joined an empresa");
        Ok(perfil)
    }

    async fn crea(
        &self,
        nuevo: &NuevoTrabajador,
        rol: Rol,
        lugar: Lugar,
        quien: Quien,
    ) -> Result<Registrado, Error> {
        let persona = Persona {
            nombre: nuevo.nombre.clone(),
            apellido: nuevo.apellido.clone(),
            dni: nuevo.dni.clone(),
            telefono: nuevo.telefono.clone(),
            rol,
        };
        let paso = Paso::Persona { persona: Box::new(persona), lugar, quien };
        self.registra(&nuevo.email, nuevo.password.clone(), paso).await
    }
}

/// The invitation of a code that lets somebody in.
pub(super) async fn vigente(tx: &mut Tx, codigo: &str, ahora: Timestamp) -> Result<Invitacion, Error> {
    let invitacion = invitaciones::by_code(tx, &legible::hash(codigo)).await?;
    invitacion.filter(|i| i.vigente(ahora)).ok_or(Error::InvitacionInvalida)
}

pub(super) async fn gasta(
    tx: &mut Tx,
    id_invitacion: i64,
    user_id: &str,
    ahora: Timestamp,
) -> Result<(), Error> {
    let suya = invitaciones::mark_used(tx, id_invitacion, user_id, ahora).await?;
    if suya { Ok(()) } else { Err(Error::InvitacionInvalida) }
}
