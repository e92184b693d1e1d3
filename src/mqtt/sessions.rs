//! The registry of sessions, keyed by (principal, client identifier).
//!
//! Opening a session that somebody holds cuts that connection and waits for it to let go; whoever
//! came last has it. A session with an expiry lives on without a connection until then, across
//! restarts too.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use super::index::Indice;
use super::mailbox::Cabida;
use super::protocol::{Cierre, Pedido};
use super::publicacion::{self, Qos};
use super::session::{Clave, Estado, Sesion, Turno};
use super::testamento::Legado;
use super::throttle::limita;
use crate::domain::{SensorRef, Timestamp};
use crate::identity::{Directorio, Llave, Permiso, Principal, Revocado};
use crate::store::mqtt::{Cambio, Suscripcion, Testamento};
use crate::store::{self, Store, trabajadores};

/// How long the connection that is taken over has to let go.
const RELEVO: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Sessions {
    mapa: Mutex<Mapa>,
    pub(super) indice: Indice,
    siguiente: AtomicU64,
    /// The next key in the store.
    id_sesion: AtomicI64,
    max: usize,
    max_por_principal: usize,
    max_buzon: Cabida,
}

/// All sessions, and how many each principal has.
#[derive(Default)]
struct Mapa {
    por_clave: HashMap<Clave, Arc<Sesion>>,
    por_principal: HashMap<String, usize>,
}

impl Mapa {
    fn mete(&mut self, sesion: Arc<Sesion>) {
        let clave = sesion.clave.clone();
        *self.por_principal.entry(clave.principal.clone()).or_default() += 1;
        self.por_clave.insert(clave, sesion);
    }

    fn saca(&mut self, clave: &Clave) {
        if self.por_clave.remove(clave).is_none() {
            return;
        }
        if let Some(cuantas) = self.por_principal.get_mut(&clave.principal) {
            *cuantas -= 1;
            if *cuantas == 0 {
                self.por_principal.remove(&clave.principal);
            }
        }
    }
}

/// A session that was opened.
pub(super) struct Abierta {
    pub(super) sesion: Arc<Sesion>,
    pub(super) estado: OwnedMutexGuard<Estado>,
    /// This connection's number; a higher one in [`Sesion::turno`] means that it was taken over.
    pub(super) generacion: u64,
    /// The session was there before.
    pub(super) presente: bool,
    /// When it would have ended without this connection.
    pub(super) iba_a_expirar: Option<Timestamp>,
    /// The will that its owner came back in time for, and when it would have been sent.
    pub(super) cancelado: Option<(Timestamp, Legado)>,
}

/// What came from the store.
#[derive(Default)]
pub(super) struct Restauradas {
    /// What is to be forgotten.
    pub(super) olvidar: Vec<Cambio>,
    /// Wills that are to be sent now.
    pub(super) legados: Vec<(Principal, Legado)>,
}

/// A session and the lock on what is its connection's.
type Tenida = (Arc<Sesion>, OwnedMutexGuard<Estado>);

/// A session whose time has come.
pub(super) struct Vencida {
    pub(super) sesion: Arc<Sesion>,
    pub(super) estado: Estado,
}

/// A session that ended to make place for another, with the will that waited for that.
pub(super) type Reemplazada = (Vencida, Option<Legado>);

/// There is no room, or the connection that had it does not let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SinSitio;

impl Sessions {
    /// `max` in all, `max_por_principal` of one device or person.
    pub(super) fn new(max: usize, max_por_principal: usize, max_buzon: Cabida) -> Self {
        Self {
            mapa: Mutex::default(),
            indice: Indice::default(),
            siguiente: AtomicU64::new(1),
            id_sesion: AtomicI64::new(1),
            max,
            max_por_principal,
            max_buzon,
        }
    }

    /// Takes over the sessions that the store has, and the wills. Somebody who is no longer known has none any
    /// more.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn restaura(
        &self,
        store: &Store,
        directorio: &Directorio,
        abierto: bool,
        ahora: Timestamp,
    ) -> store::Result<Restauradas> {
        let mut tx = store.read().await?;
        let mut suscripciones: HashMap<i64, Vec<Pedido>> = HashMap::new();
        for s in store::mqtt::subscriptions(&mut tx).await? {
            suscripciones.entry(s.id_sesion).or_default().push(pedido(s));
        }
        let mut pendientes: HashMap<i64, Vec<(i64, usize)>> = HashMap::new();
        for p in store::mqtt::pending(&mut tx).await? {
            let bytes = publicacion::peso(usize::try_from(p.bytes).unwrap_or_default());
            pendientes.entry(p.id_sesion).or_default().push((p.seq, bytes));
        }
        let mut recibidos: HashMap<i64, HashSet<u16>> = HashMap::new();
        for (id_sesion, pid) in store::mqtt::taken(&mut tx).await? {
            recibidos.entry(id_sesion).or_default().insert(pid);
        }
        let (mut restauradas, sensores) = (Restauradas::default(), directorio.por_id());
        for s in store::mqtt::sessions(&mut tx).await? {
            self.id_sesion.fetch_max(s.id_sesion + 1, Ordering::Relaxed);
            let queda = Duration::from_secs(u64::try_from(s.expiry).unwrap_or_default());
            let expira = s.expira.map_or_else(|| ahora.plus(queda), Timestamp::clamped);
            let Some(principal) = quien(&mut tx, &sensores, &s.principal, abierto, ahora).await? else {
                restauradas.olvidar.push(Cambio::Termina(s.id_sesion));
                continue;
            };
            let clave = Clave { principal: s.principal, client_id: s.client_id };
            let id = self.siguiente.fetch_add(1, Ordering::Relaxed);
            let sesion = Sesion::new(id, clave, Some(s.id_sesion), principal, self.max_buzon);
            let suyas = suscripciones.remove(&s.id_sesion).unwrap_or_default();
            sesion.restaura(&pendientes.remove(&s.id_sesion).unwrap_or_default(), suyas);
            sesion.espera(&mut sesion.vida(), expira);
            if let Ok(mut estado) = sesion.estado.try_lock() {
                estado.recibidos = recibidos.remove(&s.id_sesion).unwrap_or_default();
                estado.dudosa = s.expira.is_none();
            }
            let sesion = Arc::new(sesion);
            for filtro in sesion.filtros() {
                self.indice.pon(&sesion, &filtro);
            }
            self.mapa().mete(sesion);
        }
        let mut testamentos = store::mqtt::wills(&mut tx).await?.into_iter().peekable();
        while let Some(t) = testamentos.next() {
            // Of a connection that was taken over: it was about to be sent.
            let del_mismo = |s: &Testamento| {
                s.dueno.principal == t.dueno.principal && s.dueno.client_id == t.dueno.client_id
            };
            let relevado = testamentos.peek().is_some_and(del_mismo);
            // What is said of this connection is not said of a new one.
            let siguiente = u64::try_from(t.dueno.conexion).unwrap_or_default() + 1;
            self.siguiente.fetch_max(siguiente, Ordering::Relaxed);
            let (cuando, legado) = (t.cuando, Legado::guardado(t));
            let Some(principal) = quien(&mut tx, &sensores, &legado.de.principal, abierto, ahora).await?
            else {
                restauradas.olvidar.push(legado.olvida());
                continue;
            };
            let cuando = cuando.unwrap_or_else(|| legado.cuando(ahora));
            let clave =
                Clave { principal: legado.de.principal.clone(), client_id: legado.de.client_id.clone() };
            // A session that ended with its connection sends it at once [MQTT-3.1.2-10].
            match self.hallada(&clave).filter(|_| cuando > ahora && !relevado) {
                Some(sesion) => sesion.vida().testamento = Some((cuando, legado)),
                None => restauradas.legados.push((principal, legado)),
            }
        }
        tx.commit().await?;
        Ok(restauradas)
    }

    /// Opens the session of `clave`; with `clean`, a new one in place of what was there
    /// [MQTT-3.1.2-4], which joins `reemplazadas`. `queda`: a new one outlives its connection.
    pub(super) async fn abre(
        &self,
        clave: Clave,
        principal: &Principal,
        clean: bool,
        queda: bool,
        ahora: Timestamp,
        reemplazadas: &mut Vec<Reemplazada>,
    ) -> Result<Abierta, SinSitio> {
        let generacion = self.siguiente.fetch_add(1, Ordering::Relaxed);
        loop {
            let Some(sesion) = self.hallada(&clave) else {
                if let Some((sesion, estado)) = self.crea(&clave, principal, generacion, queda)? {
                    let (presente, iba_a_expirar, cancelado) = (false, None, None);
                    return Ok(Abierta { sesion, estado, generacion, presente, iba_a_expirar, cancelado });
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
            let mut estado = tokio::time::timeout(RELEVO, cerrojo).await.map_err(|_| SinSitio)?;
            if sesion.vida().terminada {
                continue;
            }
            if clean || sesion.vida().acabada(ahora) {
                let will = sesion.vida().testamento.take().map(|(_, will)| will);
                self.quita(&sesion);
                let estado = std::mem::take(&mut *estado);
                reemplazadas.push((Vencida { sesion, estado }, will));
                continue;
            }
            let (iba_a_expirar, cancelado) = {
                let mut vida = sesion.vida();
                vida.conectada = true;
                // A session that is resumed in time sends no will [MQTT-3.1.3-9].
                (vida.expira.take(), vida.testamento.take())
            };
            sesion.set_principal(principal.clone());
            let presente = true;
            return Ok(Abierta { sesion, estado, generacion, presente, iba_a_expirar, cancelado });
        }
    }

    /// The limit that keeps `sesion` from a shared subscription that it is not in yet. Each has a copy of its
    /// own of every message, as a session has: so there are as many of one principal as it may have sessions, and
    /// in all no more than `max` that are distinct.
    pub(super) fn sin_sitio_para(&self, sesion: &Sesion, filtro: &str, max: usize) -> Option<&'static str> {
        let clave = &sesion.clave.principal;
        let (todos, suyos) = self.indice.otros_grupos(filtro, |s| s.clave.principal == *clave);
        // The anonymous of an open broker are many and have one name.
        let demasiados = sesion.principal() != Principal::Anonimo && suyos >= self.max_por_principal;
        if demasiados { Some("max_sessions_per_client") } else { (todos >= max).then_some("max_filters") }
    }

    fn hallada(&self, clave: &Clave) -> Option<Arc<Sesion>> {
        self.mapa().por_clave.get(clave).cloned()
    }

    /// A new session, unless somebody else was faster.
    fn crea(
        &self,
        clave: &Clave,
        principal: &Principal,
        generacion: u64,
        queda: bool,
    ) -> Result<Option<Tenida>, SinSitio> {
        let mut mapa = self.mapa();
        if mapa.por_clave.contains_key(clave) {
            return Ok(None);
        }
        // The anonymous of an open broker are many and have one name.
        let suyas = mapa.por_principal.get(&clave.principal).copied().unwrap_or_default();
        let demasiadas = *principal != Principal::Anonimo && suyas >= self.max_por_principal;
        if demasiadas || mapa.por_clave.len() >= self.max {
            limita(if demasiadas { "max_sessions_per_client" } else { "sessions" });
            return Err(SinSitio);
        }
        let id = self.siguiente.fetch_add(1, Ordering::Relaxed);
        let id_sesion = queda.then(|| self.id_sesion.fetch_add(1, Ordering::Relaxed));
        let sesion = Arc::new(Sesion::new(id, clave.clone(), id_sesion, principal.clone(), self.max_buzon));
        sesion.turno.send_replace(Turno { generacion, corte: None });
        let Ok(estado) = sesion.estado.clone().try_lock_owned() else { return Ok(None) };
        mapa.mete(sesion.clone());
        Ok(Some((sesion, estado)))
    }

    /// Ends a session: nobody finds it any more, and nothing more comes to it.
    pub(super) fn quita(&self, sesion: &Arc<Sesion>) {
        {
            let mut mapa = self.mapa();
            if mapa.por_clave.get(&sesion.clave).is_some_and(|s| Arc::ptr_eq(s, sesion)) {
                mapa.saca(&sesion.clave);
            }
        }
        for filtro in sesion.filtros() {
            self.indice.quita(sesion, &filtro);
        }
        let mut vida = sesion.vida();
        (vida.terminada, vida.conectada) = (true, false);
    }

    /// Cuts the connections of somebody who may no longer be here. The session of a person or a program ends
    /// with it; that of a device, which gets another credential, waits.
    pub(super) fn revoca(&self, quien: &Revocado) {
        let principales: HashSet<String> = match quien {
            Revocado::Dispositivo(id_sensor) => [format!("d:{id_sensor}")].into(),
            Revocado::Dispositivos(ids) => ids.iter().map(|id| format!("d:{id}")).collect(),
            Revocado::Usuario(user_id) => [format!("u:{user_id}")].into(),
            Revocado::Llave(id_api_key) => [format!("k:{id_api_key}")].into(),
            Revocado::Sesiones(sesiones) => return self.corta_a_los_de(sesiones),
        };
        let termina = matches!(quien, Revocado::Usuario(_) | Revocado::Llave(_));
        for sesion in self.mapa().por_clave.values().filter(|s| principales.contains(&s.clave.principal)) {
            let mut vida = sesion.vida();
            // Whatever its connection is about to do with it: whoever lets go of it looks.
            vida.revocada |= termina;
            if vida.conectada {
                sesion.corta(Cierre::NoAutorizado);
            }
        }
    }

    /// Cuts the connections of people who came by one of these sign-ins. Their session waits: whoever comes by another
    /// is the same person.
    fn corta_a_los_de(&self, sesiones: &HashSet<String>) {
        for sesion in self.todas().iter().filter(|s| s.clave.principal.starts_with("u:")) {
            let Principal::Usuario(persona) = sesion.principal() else { continue };
            let suya = persona.sesion.is_some_and(|s| sesiones.contains(&*s));
            if suya && sesion.vida().conectada {
                sesion.corta(Cierre::NoAutorizado);
            }
        }
    }

    /// Cuts every connection, when it is not known whose had to be: whoever may be here comes back. What waited
    /// for people and programs is forgotten, for the same reason.
    pub(super) fn revoca_todas(&self) {
        for sesion in self.mapa().por_clave.values() {
            let mut vida = sesion.vida();
            vida.revocada |= matches!(sesion.principal(), Principal::Usuario(_) | Principal::Llave(_));
            sesion.corta(Cierre::NoAutorizado);
        }
    }

    /// What time has come for: sessions that expired, which are out of the registry now, and wills
    /// whose delay is over.
    pub(super) fn vencidas(&self, ahora: Timestamp) -> (Vec<Vencida>, Vec<(Principal, Legado)>) {
        let (mut vencidas, mut testamentos) = (Vec::new(), Vec::new());
        for sesion in self.todas() {
            // Held: somebody is connected, or is just coming.
            let Ok(mut estado) = sesion.estado.clone().try_lock_owned() else { continue };
            let mut vida = sesion.vida();
            if vida.conectada {
                continue;
            }
            let expira = vida.acabada(ahora);
            // A session that ends sends its will then, delay or not [MQTT-3.1.2-10].
            if expira || vida.testamento.as_ref().is_some_and(|(cuando, _)| *cuando <= ahora) {
                testamentos.extend(vida.testamento.take().map(|(_, will)| (sesion.principal(), will)));
            }
            drop(vida);
            if expira {
                self.quita(&sesion);
                vencidas.push(Vencida { estado: std::mem::take(&mut estado), sesion });
            }
        }
        (vencidas, testamentos)
    }

    /// What the store is to learn of sessions without a connection.
    pub(super) fn toma_anotados(&self) -> Vec<Cambio> {
        let sin_nadie = |s: &Arc<Sesion>| !s.vida().conectada;
        self.todas().iter().filter(|s| sin_nadie(s)).flat_map(|s| s.toma_anotados()).collect()
    }

    /// All sessions, now.
    pub(super) fn todas(&self) -> Vec<Arc<Sesion>> {
        self.mapa().por_clave.values().cloned().collect()
    }

    /// The sessions of a device.
    pub(super) fn de_dispositivo(&self, id_sensor: i64) -> Vec<Arc<Sesion>> {
        let principal = format!("d:{id_sensor}");
        self.mapa().por_clave.values().filter(|s| s.clave.principal == principal).cloned().collect()
    }

    /// How many sessions there are.
    pub(super) fn cuantas(&self) -> usize {
        self.mapa().por_clave.len()
    }

    fn mapa(&self) -> MutexGuard<'_, Mapa> {
        self.mapa.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pedido(s: Suscripcion) -> Pedido {
    Pedido {
        filtro: s.filtro,
        qos: Qos::de(s.qos),
        no_local: s.no_local,
        rap: s.rap,
        retain: u8::try_from(s.retain_handling).unwrap_or_default(),
        id: s.identificador,
    }
}

/// Whose session it is, as things stand; `None` when there is nobody like that.
async fn quien(
    tx: &mut store::Tx,
    sensores: &HashMap<i64, SensorRef>,
    principal: &str,
    abierto: bool,
    ahora: Timestamp,
) -> store::Result<Option<Principal>> {
    Ok(match principal.split_once(':') {
        Some(("d", id)) => {
            id.parse().ok().and_then(|id| sensores.get(&id)).cloned().map(Principal::Dispositivo)
        }
        Some(("u", user_id)) => {
            let persona = trabajadores::by_user_id(tx, user_id).await?.filter(|t| t.activo);
            persona.map(|t| {
                Principal::Usuario(crate::identity::Usuario {
                    user_id: t.user_id,
                    id_trabajador: t.id_trabajador,
                    id_empresa: t.id_empresa,
                    rol: t.rol,
                    sesion: None,
                })
            })
        }
        Some(("k", id)) => {
            let Ok(id) = id.parse() else { return Ok(None) };
            let llave = store::api_keys::by_id(tx, id).await?.filter(|k| k.vigente(ahora)).map(Llave::from);
            llave.filter(|k| k.puede(Permiso::MqttSubscribe)).map(Principal::Llave)
        }
        Some(("a", _)) if abierto => Some(Principal::Anonimo),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Rol;
    use crate::identity::Usuario;

    const CABIDA: Cabida = Cabida { mensajes: 10, bytes: 1 << 20 };

    #[tokio::test]
    async fn a_session_whose_owner_is_shut_out_while_it_opens_or_closes_is_nobodys_afterwards() {
        let sessions = Sessions::new(10, 10, CABIDA);
        let user_id = String::from("u1");
        let persona = Usuario {
            user_id: user_id.clone(),
            id_trabajador: 1,
            id_empresa: Some(1),
            rol: Rol::Supervisor,
            sesion: None,
        };
        let persona = Principal::Usuario(persona);
        let ahora = Timestamp::MIN.plus(Duration::from_hours(1));
        let luego = ahora.plus(Duration::from_secs(600));
        let abre = async || {
            let clave = Clave::new(&persona, "p");
            sessions.abre(clave, &persona, false, true, ahora, &mut Vec::new()).await
        };
        for revoca in [false, true] {
            let Ok(abierta) = abre().await else { panic!("there is room") };
            // Its connection is not served yet, or not any more: nobody hears the cut.
            if revoca {
                sessions.revoca(&Revocado::Usuario(user_id.clone()));
            }
            let hasta = abierta.sesion.espera(&mut abierta.sesion.vida(), luego);
            assert_eq!(hasta, if revoca { Timestamp::MIN } else { luego });
            drop(abierta);
            let Ok(otra) = abre().await else { panic!("there is room") };
            assert_eq!(otra.presente, !revoca);
            otra.sesion.espera(&mut otra.sesion.vida(), luego);
        }
    }

    #[test]
    fn a_session_waits_no_longer_than_its_key_is_good() {
        let expira = Timestamp::MIN.plus(Duration::from_secs(60));
        let llave = Llave { id_api_key: 1, id_empresa: 1, permisos: Vec::new(), expira: Some(expira) };
        let llave = Principal::Llave(llave);
        let sesion = Sesion::new(1, Clave::new(&llave, "p"), None, llave, CABIDA);
        let hasta = sesion.espera(&mut sesion.vida(), Timestamp::MIN.plus(Duration::from_secs(600)));
        assert_eq!(hasta, expira);
    }
}
