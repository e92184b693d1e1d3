//! One MQTT session: what it subscribes to, what waits for it, and what outlives its connection.
//!
//! A session is [`Sesion`], shared by its connection, by whoever publishes to it and by the registry;
//! and [`Estado`], which belongs to whoever holds its lock: the one connection. A session that
//! outlives its connection is in the store as well: everything that it must not miss is there before
//! anybody is told that it was taken, and while nobody is connected it is there alone.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::{Notify, watch};

use super::mailbox::{Buzon, Cabida, Cosa};
use super::protocol::{Cierre, Pedido};
use super::publicacion::{Publicacion, Qos};
use super::router::Emisor;
use super::testamento::Legado;
use super::topic;
use crate::domain::Timestamp;
use crate::identity::Principal;
use crate::store::mqtt::{Cambio, Encolada, Entregada, Suscripcion};

/// Who and by which identifier: nobody can take over, or squat on, another's session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Clave {
    pub(super) principal: String,
    pub(super) client_id: String,
}

impl Clave {
    pub(super) fn new(principal: &Principal, client_id: &str) -> Self {
        let principal = match principal {
            Principal::Dispositivo(s) => format!("d:{}", s.id_sensor),
            Principal::Usuario(u) => format!("u:{}", u.user_id),
            Principal::Llave(k) => format!("k:{}", k.id_api_key),
            Principal::Anonimo => "a:".to_owned(),
            Principal::Prueba => "p:".to_owned(),
        };
        Self { principal, client_id: client_id.to_owned() }
    }
}

/// A message on its way to this session.
#[derive(Debug, Clone)]
pub(super) struct Entrega {
    pub(super) publicacion: Arc<Publicacion>,
    /// The lower of the publisher's and the subscription's.
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) ids: Vec<u32>,
    /// Its place in the store, where it is kept.
    pub(super) seq: Option<i64>,
    /// The shared subscription that it came by: if this session ends, it is another's.
    pub(super) grupo: Option<Arc<str>>,
}

impl Entrega {
    /// A delivery that was kept.
    pub(super) fn guardada(e: Encolada) -> (Self, Entregada) {
        let qos = Qos::de(e.qos);
        let entrega = Self {
            publicacion: Arc::new(Publicacion::guardada(e.contenido, qos, e.retain)),
            qos,
            retain: e.retain,
            ids: e.identificadores,
            seq: Some(e.seq),
            grupo: e.grupo.map(Into::into),
        };
        (entrega, e.estado)
    }

    /// As it is kept for session `id_sesion`, if it is to be kept at all.
    pub(super) fn encolada(&self, id_sesion: i64) -> Option<Encolada> {
        Some(Encolada {
            id_sesion,
            seq: self.seq?,
            contenido: self.publicacion.contenido(),
            qos: self.qos.codigo(),
            retain: self.retain,
            identificadores: self.ids.clone(),
            grupo: self.grupo.as_deref().map(str::to_owned),
            estado: Entregada::No,
        })
    }
}

/// Which connection is the session's, and whether it must end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Turno {
    pub(super) generacion: u64,
    pub(super) corte: Option<Cierre>,
}

/// See the module.
pub(super) struct Sesion {
    /// For No Local.
    pub(super) id: u64,
    pub(super) clave: Clave,
    /// Its key in the store; `None` when it ends with its connection.
    pub(super) id_sesion: Option<i64>,
    /// The next place in the store.
    seq: AtomicI64,
    /// As last signed in.
    principal: RwLock<Principal>,
    suscripciones: RwLock<Vec<Pedido>>,
    buzon: Mutex<Buzon>,
    /// What the store is to learn and nobody waits for: deliveries that were completed or given up.
    /// Bounded by what the store holds for the session, or the writer is about to write.
    anotados: Mutex<Vec<Cambio>>,
    /// It hears the router, or has.
    pub(super) enlazada: AtomicBool,
    /// Something was put into the mailbox.
    pub(super) aviso: Notify,
    pub(super) turno: watch::Sender<Turno>,
    pub(super) estado: Arc<tokio::sync::Mutex<Estado>>,
    vida: Mutex<Vida>,
}

/// Whether anybody is connected, and what happens if nobody comes.
pub(super) struct Vida {
    pub(super) conectada: bool,
    /// When the session ends, while nobody is connected.
    pub(super) expira: Option<Timestamp>,
    /// A will that waits for its delay [MQTT-3.1.3-9].
    pub(super) testamento: Option<(Timestamp, Legado)>,
    /// It is no longer in the registry.
    pub(super) terminada: bool,
    /// Its owner was shut out: nothing of it is for whoever comes back.
    pub(super) revocada: bool,
    /// Of a session that is over: what it had of shared subscriptions and was given to another member.
    heredadas: HashSet<i64>,
}

impl Vida {
    /// Whether it is over for whoever comes now, the sweep having come by or not [MQTT-4.1.0-2].
    pub(super) fn acabada(&self, ahora: Timestamp) -> bool {
        self.revocada || self.expira.is_some_and(|e| e <= ahora)
    }

    /// Whether another member is to be given a delivery of this session, which is over: once. Its publisher has it
    /// in its hands, and whoever buries the session may have read it in the store.
    fn hereda(&mut self, entrega: &Entrega) -> bool {
        entrega.grupo.is_some() && entrega.seq.is_none_or(|seq| self.heredadas.insert(seq))
    }
}

/// What a connection leaves to the next one.
#[derive(Default)]
pub(super) struct Estado {
    /// Sent and not completed, in the order of sending [MQTT-4.6.0-1].
    pub(super) en_vuelo: VecDeque<EnVuelo>,
    /// QoS 2 messages received, committed, and not released by the client.
    pub(super) recibidos: HashSet<u16>,
    /// The link to the router, while somebody is connected and subscribes to anything.
    pub(super) emisor: Option<Emisor>,
    /// The process died while somebody was connected: what was sent is not known.
    pub(super) dudosa: bool,
}

impl Estado {
    /// The places in the store of what was sent.
    pub(super) fn enviadas(&self) -> Vec<i64> {
        self.en_vuelo.iter().filter_map(|v| v.entrega.seq).collect()
    }
}

/// A delivery that is not completed.
pub(super) struct EnVuelo {
    pub(super) pid: u16,
    pub(super) entrega: Entrega,
    /// The client has it (PUBREC); only its release is open.
    pub(super) liberado: bool,
}

/// The packet id of a kept delivery: given by its place, so that it is the same after a crash
/// without a write before every send [MQTT-4.4.0-1].
pub(super) fn pid(seq: i64) -> u16 {
    u16::try_from((seq - 1).rem_euclid(65_535) + 1).unwrap_or(u16::MAX)
}

impl Sesion {
    pub(super) fn new(
        id: u64,
        clave: Clave,
        id_sesion: Option<i64>,
        principal: Principal,
        max_buzon: Cabida,
    ) -> Self {
        let vida = Vida {
            conectada: true,
            expira: None,
            testamento: None,
            terminada: false,
            revocada: false,
            heredadas: HashSet::new(),
        };
        Self {
            id,
            clave,
            id_sesion,
            seq: AtomicI64::new(1),
            principal: RwLock::new(principal),
            suscripciones: RwLock::default(),
            buzon: Mutex::new(Buzon::new(max_buzon)),
            anotados: Mutex::default(),
            enlazada: AtomicBool::new(false),
            aviso: Notify::new(),
            turno: watch::Sender::default(),
            estado: Arc::default(),
            vida: Mutex::new(vida),
        }
    }

    pub(super) fn principal(&self) -> Principal {
        self.principal.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_principal(&self, principal: Principal) {
        *self.principal.write().unwrap_or_else(PoisonError::into_inner) = principal;
    }

    pub(super) fn vida(&self) -> MutexGuard<'_, Vida> {
        self.vida.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody is connected any more. It waits until `expira`: no longer than its owner's key is good, and not at
    /// all when its owner was shut out meanwhile. Answers until when.
    pub(super) fn espera(&self, vida: &mut Vida, expira: Timestamp) -> Timestamp {
        let expira = match self.principal() {
            Principal::Llave(llave) => llave.expira.map_or(expira, |suya| suya.min(expira)),
            Principal::Dispositivo(_) | Principal::Usuario(_) | Principal::Anonimo | Principal::Prueba => {
                expira
            }
        };
        let expira = if vida.revocada { Timestamp::MIN } else { expira };
        (vida.conectada, vida.expira) = (false, Some(expira));
        expira
    }

    /// Whether it may hear of a message by the router as well.
    pub(super) fn enlazada(&self) -> bool {
        self.enlazada.load(Ordering::Acquire)
    }

    fn buzon(&self) -> MutexGuard<'_, Buzon> {
        self.buzon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back the room of what no longer waits.
    pub(super) fn encoge(&self) {
        self.buzon().encoge();
    }

    fn anotados(&self) -> MutexGuard<'_, Vec<Cambio>> {
        self.anotados.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection that has the session now, whichever it is.
    pub(super) fn corta(&self, cierre: Cierre) {
        self.turno.send_modify(|t| t.corte = Some(cierre));
    }

    /// Adds a subscription or replaces the one with its filter [MQTT-3.8.4-3]; answers whether it is
    /// new. `None` when there is no room for another.
    pub(super) fn suscribe(&self, pedido: Pedido, max: usize) -> Option<bool> {
        let mut todas = self.suscripciones.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(vieja) = todas.iter_mut().find(|s| s.filtro == pedido.filtro) {
            *vieja = pedido;
            return Some(false);
        }
        if todas.len() >= max {
            return None;
        }
        todas.push(pedido);
        Some(true)
    }

    /// Takes a subscription away; answers whether there was one.
    pub(super) fn desuscribe(&self, filtro: &str) -> bool {
        let mut todas = self.suscripciones.write().unwrap_or_else(PoisonError::into_inner);
        let antes = todas.len();
        todas.retain(|s| s.filtro != filtro);
        todas.len() < antes
    }

    /// What it subscribes to.
    pub(super) fn filtros(&self) -> Vec<String> {
        let todas = self.suscripciones.read().unwrap_or_else(PoisonError::into_inner);
        todas.iter().map(|s| s.filtro.clone()).collect()
    }

    /// The subscription with this filter.
    pub(super) fn suscripcion(&self, filtro: &str) -> Option<Pedido> {
        let todas = self.suscripciones.read().unwrap_or_else(PoisonError::into_inner);
        todas.iter().find(|s| s.filtro == filtro).cloned()
    }

    /// What a message comes to for this session by those of its filters that are `vale` (`None` when it is not for
    /// it), and how many of its subscriptions that go by the router match.
    pub(super) fn para_mi(
        &self,
        publicacion: &Arc<Publicacion>,
        vale: impl Fn(&str) -> bool,
    ) -> (Option<Entrega>, usize) {
        let todas = self.suscripciones.read().unwrap_or_else(PoisonError::into_inner);
        let (mut entrega, mut coinciden): (Option<Entrega>, usize) = (None, 0);
        for s in todas.iter().filter(|s| topic::coincide(&s.filtro, &publicacion.topic)) {
            coinciden += usize::from(topic::con_hueco(&s.filtro));
            // [MQTT-3.8.3-3]
            if s.no_local && publicacion.publicador == self.id || !vale(&s.filtro) {
                continue;
            }
            let e = entrega.get_or_insert_with(|| Entrega {
                publicacion: publicacion.clone(),
                qos: Qos::Cero,
                retain: false,
                ids: Vec::new(),
                seq: None,
                grupo: None,
            });
            // [MQTT-3.3.4-2]: the highest of the matching subscriptions, once.
            e.qos = e.qos.max(s.qos.min(publicacion.qos));
            e.retain |= s.rap && publicacion.retain;
            e.ids.extend(s.id);
        }
        (entrega, coinciden)
    }

    /// Gives a delivery its place in the store, if it is to be kept.
    pub(super) fn numera(&self, mut entrega: Entrega) -> Entrega {
        if self.id_sesion.is_some() && entrega.qos > Qos::Cero {
            entrega.seq = Some(self.seq.fetch_add(1, Ordering::Relaxed));
        }
        entrega
    }

    /// The change that keeps `entrega`, which has its place.
    pub(super) fn encola(&self, entrega: &Entrega) -> Option<Cambio> {
        Some(Cambio::Encola(Box::new(entrega.encolada(self.id_sesion?)?)))
    }

    /// The change that keeps a subscription.
    pub(super) fn guarda(&self, pedido: &Pedido) -> Option<Cambio> {
        Some(Cambio::Suscribe(Suscripcion {
            id_sesion: self.id_sesion?,
            filtro: pedido.filtro.clone(),
            qos: pedido.qos.codigo(),
            no_local: pedido.no_local,
            rap: pedido.rap,
            retain_handling: i64::from(pedido.retain),
            identificador: pedido.id,
        }))
    }

    /// Puts a message into the mailbox, once it is in the store if it is to be kept. Gives it back when the
    /// session is over and it came by a shared subscription: it is another member's.
    #[must_use]
    pub(super) fn deja(&self, entrega: Entrega) -> Option<Entrega> {
        let sobran = {
            // Held: a connection that came in between would not read what is left in the store for it, and
            // what comes behind its end nobody would take out again.
            let mut vida = self.vida();
            if vida.terminada {
                return Some(entrega).filter(|e| vida.hereda(e));
            }
            self.buzon().pon(entrega, vida.conectada)
        };
        for seq in sobran {
            self.hecha(Some(seq));
        }
        self.aviso.notify_one();
        None
    }

    /// The next message, if `hay_ventana` for one with QoS 1 or 2.
    pub(super) fn siguiente(&self, hay_ventana: bool) -> Option<Entrega> {
        self.buzon().siguiente(hay_ventana)
    }

    /// How many messages wait, and their bytes.
    #[cfg(test)]
    pub(super) fn esperan(&self) -> (usize, usize) {
        self.buzon().ocupa()
    }

    /// Nobody is connected any more: what the store has leaves the memory, the rest is forgotten
    /// ([MQTT-4.1.0-1] keeps QoS 1 and 2).
    pub(super) fn duerme(&self) {
        self.buzon().vacia_a_la_base();
    }

    /// Whether something waits that is in the store alone.
    pub(super) fn por_cargar(&self) -> bool {
        self.buzon().con_guardadas()
    }

    /// Takes what the store has for this session. What may have been sent before, and is not in
    /// flight already, is in flight from now on; `max` of it when that is not known.
    pub(super) fn carga(&self, filas: Vec<Encolada>, estado: &mut Estado, max: usize) {
        let en_vuelo: HashSet<i64> = estado.en_vuelo.iter().filter_map(|v| v.entrega.seq).collect();
        let mut dudosas = if std::mem::take(&mut estado.dudosa) { max } else { 0 };
        let mut buzon = self.buzon();
        for fila in filas {
            let (entrega, hasta) = Entrega::guardada(fila);
            let Some(seq) = entrega.seq.filter(|s| !en_vuelo.contains(s)) else { continue };
            let enviada = hasta != Entregada::No || dudosas > 0;
            dudosas = dudosas.saturating_sub(1);
            if enviada {
                buzon.quita(seq);
                let liberado = hasta == Entregada::Recibida;
                estado.en_vuelo.push_back(EnVuelo { pid: pid(seq), entrega, liberado });
            } else {
                buzon.carga(seq, entrega);
            }
        }
        buzon.sin_guardadas();
    }

    /// A session that comes from the store: what waits for it there.
    pub(super) fn restaura(&self, pendientes: &[(i64, usize)], suscripciones: Vec<Pedido>) {
        let mut buzon = self.buzon();
        for (seq, peso) in pendientes {
            self.seq.fetch_max(seq + 1, Ordering::Relaxed);
            buzon.guardada(*seq, *peso);
        }
        *self.suscripciones.write().unwrap_or_else(PoisonError::into_inner) = suscripciones;
    }

    /// A delivery is completed, or given up: it need not be kept any more.
    pub(super) fn hecha(&self, seq: Option<i64>) {
        if let Some((id_sesion, seq)) = self.id_sesion.zip(seq) {
            self.anota(Cambio::Completa { id_sesion, seq });
        }
    }

    /// A change that nobody waits for.
    pub(super) fn anota(&self, cambio: Cambio) {
        self.anotados().push(cambio);
    }

    /// The changes that nobody waits for, to be committed now.
    pub(super) fn toma_anotados(&self) -> Vec<Cambio> {
        std::mem::take(&mut *self.anotados())
    }

    /// Takes back what [`Self::toma_anotados`] gave: there was no room for it.
    pub(super) fn devuelve_anotados(&self, mut cambios: Vec<Cambio>) {
        let mut anotados = self.anotados();
        cambios.append(&mut anotados);
        *anotados = cambios;
    }

    /// What waits and came by a shared subscription: another's, once this session is over.
    pub(super) fn huerfanas(&self, estado: &Estado) -> Vec<Entrega> {
        // A QoS 2 message that was sent is nobody else's any more [MQTT-4.8.2-5].
        let enviadas = estado.en_vuelo.iter().map(|v| &v.entrega).filter(|e| e.qos < Qos::Dos).cloned();
        let mut todas: Vec<Entrega> = enviadas.collect();
        todas.extend(self.buzon().todas().filter_map(|c| match c {
            Cosa::Entrega(e) => Some(e.clone()),
            Cosa::Guardada { .. } => None,
        }));
        let mut vida = self.vida();
        todas.retain(|e| vida.hereda(e));
        todas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_ids_follow_the_place_and_are_never_zero() {
        assert_eq!((pid(1), pid(65_535), pid(65_536), pid(131_071)), (1, 65_535, 1, 1));
    }

    #[test]
    fn a_shared_delivery_of_a_session_that_is_over_is_given_away_once() {
        let cabida = Cabida { mensajes: 10, bytes: 1 << 20 };
        let publicacion = Arc::new(Publicacion::del_servidor("a".into(), "x", Qos::Uno, false));
        let grupo = Some("$share/g/a".into());
        let entrega =
            Entrega { publicacion, qos: Qos::Uno, retain: false, ids: Vec::new(), seq: Some(1), grupo };
        // It is read in the store, and in the hands of its publisher.
        for primero_la_base in [true, false] {
            let clave = Clave::new(&Principal::Anonimo, "m");
            let sesion = Sesion::new(1, clave, Some(1), Principal::Anonimo, cabida);
            sesion.vida().terminada = true;
            let mut estado = Estado::default();
            let mut dadas = 0;
            for base in [primero_la_base, !primero_la_base] {
                if base {
                    sesion.carga(entrega.encolada(1).into_iter().collect(), &mut estado, 0);
                    dadas += sesion.huerfanas(&estado).len();
                } else {
                    dadas += usize::from(sesion.deja(entrega.clone()).is_some());
                }
            }
            assert_eq!(dadas, 1);
        }
    }
}
