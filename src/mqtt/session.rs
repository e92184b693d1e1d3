//! One MQTT session: what it subscribes to, what waits for it, and what outlives its connection.
//!
//! A session is [`Sesion`], shared by its connection, by the task that hears the router for it and
//! by the registry; and [`Estado`], which belongs to whoever holds its lock: the one connection.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use metrics::counter;
use tokio::sync::{Notify, watch};

use super::acl;
use super::protocol::{Cierre, Pedido};
use super::publicacion::{Publicacion, Qos};
use super::router::{Emisor, Receptor};
use super::topic;
use crate::domain::{Clock, Timestamp};
use crate::identity::{Directorio, Principal};

/// Bytes that may wait for one session.
const MAX_BYTES: usize = 8 << 20;
/// Messages heard through one filter of a session and expected through another.
const MAX_REPETIDOS: usize = 4_096;

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
            Principal::Anonimo => "a:".to_owned(),
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
    /// As last signed in.
    principal: RwLock<Principal>,
    suscripciones: RwLock<Vec<Pedido>>,
    buzon: Mutex<Buzon>,
    /// Something was put into the mailbox.
    pub(super) aviso: Notify,
    pub(super) turno: watch::Sender<Turno>,
    pub(super) estado: Arc<tokio::sync::Mutex<Estado>>,
    vida: Mutex<Vida>,
    max_buzon: usize,
}

/// The mailbox: bounded in number and in bytes; the oldest makes room.
#[derive(Default)]
struct Buzon {
    cola: VecDeque<Entrega>,
    bytes: usize,
}

/// Whether anybody is connected, and what happens if nobody comes.
pub(super) struct Vida {
    pub(super) conectada: bool,
    /// When the session ends, while nobody is connected.
    pub(super) expira: Option<Timestamp>,
    /// A will that waits for its delay [MQTT-3.1.3-9].
    pub(super) testamento: Option<(Timestamp, Publicacion)>,
    /// It is no longer in the registry.
    pub(super) terminada: bool,
}

/// What a connection leaves to the next one.
#[derive(Default)]
pub(super) struct Estado {
    /// Sent and not completed, in the order of sending [MQTT-4.6.0-1].
    pub(super) en_vuelo: VecDeque<EnVuelo>,
    /// QoS 2 messages received, committed, and not released by the client.
    pub(super) recibidos: HashSet<u16>,
    /// The link to the router, once it subscribed to anything.
    pub(super) emisor: Option<Emisor>,
}

/// A delivery that is not completed.
pub(super) struct EnVuelo {
    pub(super) pid: u16,
    pub(super) entrega: Entrega,
    /// The client has it (PUBREC); only its release is open.
    pub(super) liberado: bool,
}

impl Sesion {
    pub(super) fn new(id: u64, clave: Clave, principal: Principal, max_buzon: usize) -> Self {
        let vida = Vida { conectada: true, expira: None, testamento: None, terminada: false };
        Self {
            id,
            clave,
            principal: RwLock::new(principal),
            suscripciones: RwLock::default(),
            buzon: Mutex::default(),
            aviso: Notify::new(),
            turno: watch::Sender::default(),
            estado: Arc::default(),
            vida: Mutex::new(vida),
            max_buzon,
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

    /// What a message comes to for this session; `None` when it is not for it.
    fn para_mi(&self, publicacion: &Arc<Publicacion>) -> (Option<Entrega>, usize) {
        let todas = self.suscripciones.read().unwrap_or_else(PoisonError::into_inner);
        let (mut entrega, mut coinciden): (Option<Entrega>, usize) = (None, 0);
        for s in todas.iter().filter(|s| topic::coincide(&s.filtro, &publicacion.topic)) {
            coinciden += 1;
            // [MQTT-3.8.3-3]
            if s.no_local && publicacion.publicador == self.id {
                continue;
            }
            let e = entrega.get_or_insert_with(|| Entrega {
                publicacion: publicacion.clone(),
                qos: Qos::Cero,
                retain: false,
                ids: Vec::new(),
            });
            // [MQTT-3.3.4-2]: the highest of the matching subscriptions, once.
            e.qos = e.qos.max(s.qos.min(publicacion.qos));
            e.retain |= s.rap && publicacion.retain;
            e.ids.extend(s.id);
        }
        (entrega, coinciden)
    }

    /// Puts a message into the mailbox. What nobody will miss goes first: a QoS 0 message while
    /// nobody is connected or the mailbox is full; else the oldest. All of it is counted.
    pub(super) fn deja(&self, entrega: Entrega) {
        let conectada = self.vida().conectada;
        if entrega.qos == Qos::Cero && !conectada {
            return;
        }
        {
            let mut buzon = self.buzon.lock().unwrap_or_else(PoisonError::into_inner);
            let peso = entrega.publicacion.peso();
            if entrega.qos == Qos::Cero
                && (buzon.cola.len() >= self.max_buzon || buzon.bytes + peso > MAX_BYTES)
            {
                counter!("alertrace_mqtt_messages_dropped_total", "reason" => "slow").increment(1);
                return;
            }
            buzon.bytes += peso;
            buzon.cola.push_back(entrega);
            while buzon.cola.len() > self.max_buzon || (buzon.bytes > MAX_BYTES && buzon.cola.len() > 1) {
                let Some(vieja) = buzon.cola.pop_front() else { break };
                buzon.bytes -= vieja.publicacion.peso();
                counter!("alertrace_mqtt_messages_dropped_total", "reason" => "queue_full").increment(1);
            }
        }
        self.aviso.notify_one();
    }

    /// The next message, if `hay_ventana` for one with QoS 1 or 2.
    pub(super) fn siguiente(&self, hay_ventana: bool) -> Option<Entrega> {
        let mut buzon = self.buzon.lock().unwrap_or_else(PoisonError::into_inner);
        if !hay_ventana && buzon.cola.front()?.qos > Qos::Cero {
            return None;
        }
        let entrega = buzon.cola.pop_front()?;
        buzon.bytes -= entrega.publicacion.peso();
        Some(entrega)
    }

    /// QoS 0 messages are not kept for somebody who is not there [MQTT-4.1.0-1 keeps QoS 1 and 2].
    pub(super) fn sin_qos_cero(&self) {
        let mut buzon = self.buzon.lock().unwrap_or_else(PoisonError::into_inner);
        buzon.cola.retain(|e| e.qos > Qos::Cero);
        buzon.bytes = buzon.cola.iter().map(|e| e.publicacion.peso()).sum();
    }
}

/// Hears the router for a session, for as long as the link lives.
pub(super) async fn escucha(
    sesion: Arc<Sesion>,
    mut receptor: Receptor,
    directorio: Arc<Directorio>,
    clock: Arc<dyn Clock>,
) {
    // Number of a message → how many more times it will come, once for each filter that it matches.
    let mut repetidos: HashMap<u64, usize> = HashMap::new();
    while let Some((numero, publicacion)) = receptor.next().await {
        if let Some(quedan) = repetidos.get_mut(&numero) {
            *quedan -= 1;
            if *quedan == 0 {
                repetidos.remove(&numero);
            }
            continue;
        }
        let (entrega, coinciden) = sesion.para_mi(&publicacion);
        if coinciden > 1 {
            if repetidos.len() >= MAX_REPETIDOS {
                // Entries of a filter that was taken away meanwhile are never used up.
                let viejo = numero.saturating_sub(MAX_REPETIDOS as u64);
                repetidos.retain(|n, _| *n > viejo);
            }
            repetidos.insert(numero, coinciden - 1);
        }
        let Some(entrega) = entrega else { continue };
        if publicacion.vencida(clock.now())
            || !acl::entrega(&sesion.principal(), &publicacion.topic, publicacion.sensor, &directorio)
        {
            continue;
        }
        sesion.deja(entrega);
    }
}
