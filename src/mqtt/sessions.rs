//! The registry of sessions, keyed by (principal, client identifier).
//!
//! Opening a session that somebody holds cuts that connection and waits for it to let go; whoever
//! came last has it. A session with an expiry lives on without a connection until then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use super::protocol::Cierre;
use super::publicacion::Publicacion;
use super::session::{Clave, Estado, Sesion, Turno};
use crate::domain::Timestamp;
use crate::identity::{Principal, Revocado};

/// How long the connection that is taken over has to let go.
const RELEVO: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Sessions {
    mapa: Mutex<HashMap<Clave, Arc<Sesion>>>,
    siguiente: AtomicU64,
    max: usize,
    max_buzon: usize,
}

/// A session that was opened.
pub(super) struct Abierta {
    pub(super) sesion: Arc<Sesion>,
    pub(super) estado: OwnedMutexGuard<Estado>,
    /// This connection's number; a higher one in [`Sesion::turno`] means that it was taken over.
    pub(super) generacion: u64,
    /// The session was there before.
    pub(super) presente: bool,
}

/// There is no room, or the connection that had it does not let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SinSitio;

impl Sessions {
    pub(super) fn new(max: usize, max_buzon: usize) -> Self {
        Self { mapa: Mutex::default(), siguiente: AtomicU64::new(1), max, max_buzon }
    }

    /// Opens the session of `clave`; with `clean`, a new one in place of what was there
    /// [MQTT-3.1.2-4].
    pub(super) async fn abre(
        &self,
        clave: Clave,
        principal: &Principal,
        clean: bool,
    ) -> Result<Abierta, SinSitio> {
        let generacion = self.siguiente.fetch_add(1, Ordering::Relaxed);
        loop {
            let Some(sesion) = self.hallada(&clave) else {
                if let Some(abierta) = self.crea(&clave, principal, generacion)? {
                    return Ok(abierta);
                }
                continue;
            };
            sesion.turno.send_if_modified(|t| {
                let nueva = generacion > t.generacion;
                if nueva {
                    *t = Turno { generacion, corte: None };
                }
                nueva
            });
            let cerrojo = sesion.estado.clone().lock_owned();
            let estado = tokio::time::timeout(RELEVO, cerrojo).await.map_err(|_| SinSitio)?;
            if sesion.vida().terminada {
                continue;
            }
            if clean {
                self.quita(&sesion);
                continue;
            }
            {
                let mut vida = sesion.vida();
                (vida.conectada, vida.expira) = (true, None);
                // A session that is resumed in time sends no will [MQTT-3.1.3-9].
                vida.testamento = None;
            }
            sesion.set_principal(principal.clone());
            return Ok(Abierta { sesion, estado, generacion, presente: true });
        }
    }

    fn hallada(&self, clave: &Clave) -> Option<Arc<Sesion>> {
        self.mapa().get(clave).cloned()
    }

    /// A new session, unless somebody else was faster.
    fn crea(
        &self,
        clave: &Clave,
        principal: &Principal,
        generacion: u64,
    ) -> Result<Option<Abierta>, SinSitio> {
        let mut mapa = self.mapa();
        if mapa.contains_key(clave) {
            return Ok(None);
        }
        if mapa.len() >= self.max {
            return Err(SinSitio);
        }
        let id = self.siguiente.fetch_add(1, Ordering::Relaxed);
        let sesion = Arc::new(Sesion::new(id, clave.clone(), principal.clone(), self.max_buzon));
        sesion.turno.send_replace(Turno { generacion, corte: None });
        let Ok(estado) = sesion.estado.clone().try_lock_owned() else { return Ok(None) };
        mapa.insert(clave.clone(), sesion.clone());
        Ok(Some(Abierta { sesion, estado, generacion, presente: false }))
    }

    /// Ends a session: nobody finds it any more, and its link goes with its state.
    pub(super) fn quita(&self, sesion: &Arc<Sesion>) {
        let mut mapa = self.mapa();
        if mapa.get(&sesion.clave).is_some_and(|s| Arc::ptr_eq(s, sesion)) {
            mapa.remove(&sesion.clave);
        }
        sesion.vida().terminada = true;
    }

    /// Cuts the connections of somebody who may no longer be here.
    pub(super) fn revoca(&self, quien: &Revocado) {
        let principal = match quien {
            Revocado::Dispositivo(id_sensor) => format!("d:{id_sensor}"),
            Revocado::Usuario(user_id) => format!("u:{user_id}"),
        };
        for sesion in self.mapa().values().filter(|s| s.clave.principal == principal) {
            sesion.corta(Cierre::NoAutorizado);
        }
    }

    /// What time has come for: sessions that expired are ended, wills whose delay is over answered.
    pub(super) fn vencidas(&self, ahora: Timestamp) -> Vec<(Principal, Publicacion)> {
        let sesiones: Vec<_> = self.mapa().values().cloned().collect();
        let mut testamentos = Vec::new();
        for sesion in sesiones {
            // Held: somebody is connected, or is just coming.
            let Ok(mut estado) = sesion.estado.clone().try_lock_owned() else { continue };
            let mut vida = sesion.vida();
            if vida.conectada {
                continue;
            }
            let expira = vida.expira.is_some_and(|e| e <= ahora);
            // A session that ends sends its will then, delay or not [MQTT-3.1.2-10].
            if expira || vida.testamento.as_ref().is_some_and(|(cuando, _)| *cuando <= ahora) {
                testamentos.extend(vida.testamento.take().map(|(_, will)| (sesion.principal(), will)));
            }
            if expira {
                drop(vida);
                self.quita(&sesion);
                estado.emisor = None;
            }
        }
        testamentos
    }

    /// How many sessions there are.
    pub(super) fn cuantas(&self) -> usize {
        self.mapa().len()
    }

    fn mapa(&self) -> MutexGuard<'_, HashMap<Clave, Arc<Sesion>>> {
        self.mapa.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
