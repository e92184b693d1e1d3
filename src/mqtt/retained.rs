//! Retained messages: in memory to be found, in the store to survive. What may be retained is bounded
//! in number and in bytes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::publicacion::{Publicacion, Qos};
use super::topic;
use crate::domain::Timestamp;
use crate::store::mqtt::{Cambio, Retenido};

/// Bytes of retained messages, all together.
const MAX_BYTES: usize = 256 << 20;

/// See the module.
pub(super) struct Retained {
    max: usize,
    /// The broker's own (`$SYS/…`): few, and in nobody's way.
    propios: RwLock<HashMap<String, Arc<Publicacion>>>,
    mapa: RwLock<(HashMap<String, Arc<Publicacion>>, usize)>,
}

impl Retained {
    pub(super) fn new(max: usize) -> Self {
        Self { max, propios: RwLock::default(), mapa: RwLock::default() }
    }

    /// Takes over what the store has.
    pub(super) fn restaura(&self, retenidos: Vec<Retenido>) {
        for r in retenidos {
            self.pon(&Arc::new(Publicacion::guardada(r.contenido, Qos::de(r.qos), true)));
        }
    }

    /// Whether there is room for a message in place of the last one of its topic.
    pub(super) fn cabe(&self, mensaje: &Publicacion) -> bool {
        let guarda = self.mapa.read().unwrap_or_else(PoisonError::into_inner);
        let (mapa, bytes) = &*guarda;
        let viejo = mapa.get(&mensaje.topic).map_or(0, |v| v.peso());
        mensaje.payload.is_empty()
            || ((viejo > 0 || mapa.len() < self.max) && *bytes - viejo + mensaje.peso() <= MAX_BYTES)
    }

    /// The change that keeps a message, or forgets its topic.
    pub(super) fn cambio(mensaje: &Publicacion) -> Cambio {
        if mensaje.payload.is_empty() {
            return Cambio::Olvida(mensaje.topic.clone());
        }
        Cambio::Retiene(Box::new(Retenido { contenido: mensaje.contenido(), qos: mensaje.qos.codigo() }))
    }

    /// Keeps a message in place of the last one of its topic; an empty one clears it
    /// [MQTT-3.3.1-6].
    pub(super) fn pon(&self, mensaje: &Arc<Publicacion>) {
        let mut guarda = self.mapa.write().unwrap_or_else(PoisonError::into_inner);
        let (mapa, bytes) = &mut *guarda;
        *bytes -= mapa.remove(&mensaje.topic).map_or(0, |v| v.peso());
        if !mensaje.payload.is_empty() {
            *bytes += mensaje.peso();
            mapa.insert(mensaje.topic.clone(), mensaje.clone());
        }
    }

    /// Keeps a message of the broker's own, in memory alone.
    pub(super) fn pon_propio(&self, mensaje: &Arc<Publicacion>) {
        let mut propios = self.propios.write().unwrap_or_else(PoisonError::into_inner);
        propios.insert(mensaje.topic.clone(), mensaje.clone());
    }

    /// What is retained on a topic.
    pub(super) fn de(&self, topic: &str) -> Option<Arc<Publicacion>> {
        self.mapa.read().unwrap_or_else(PoisonError::into_inner).0.get(topic).cloned()
    }

    /// What a new subscription to `filtro` is sent, by topic.
    pub(super) fn para(&self, filtro: &str, ahora: Timestamp) -> Vec<Arc<Publicacion>> {
        if filtro.starts_with('$') {
            // [MQTT-4.7.2-1]: no other filter matches these.
            let propios = self.propios.read().unwrap_or_else(PoisonError::into_inner);
            return propios.values().filter(|m| topic::coincide(filtro, &m.topic)).cloned().collect();
        }
        let guarda = self.mapa.read().unwrap_or_else(PoisonError::into_inner);
        if !filtro.contains(['+', '#']) {
            return guarda.0.get(filtro).filter(|m| !m.vencida(ahora)).cloned().into_iter().collect();
        }
        let todos = guarda.0.values();
        let mut hallados: Vec<_> =
            todos.filter(|m| !m.vencida(ahora) && topic::coincide(filtro, &m.topic)).cloned().collect();
        hallados.sort_by(|a, b| a.topic.cmp(&b.topic));
        hallados
    }

    /// Forgets what has expired [MQTT-3.3.2-5]; answers the changes that forget it for good.
    pub(super) fn limpia(&self, ahora: Timestamp) -> Vec<Cambio> {
        let mut guarda = self.mapa.write().unwrap_or_else(PoisonError::into_inner);
        let (mapa, bytes) = &mut *guarda;
        let mut cambios = Vec::new();
        mapa.retain(|topic, m| {
            let queda = !m.vencida(ahora);
            if !queda {
                *bytes -= m.peso();
                cambios.push(Cambio::Olvida(topic.clone()));
            }
            queda
        });
        cambios
    }

    /// How many there are.
    pub(super) fn cuantos(&self) -> usize {
        self.mapa.read().unwrap_or_else(PoisonError::into_inner).0.len()
    }

    /// The topics of retained messages that `quiere`, with their payload.
    pub(super) fn busca(&self, quiere: impl Fn(&Publicacion) -> bool) -> Vec<Arc<Publicacion>> {
        let guarda = self.mapa.read().unwrap_or_else(PoisonError::into_inner);
        guarda.0.values().filter(|m| quiere(m)).cloned().collect()
    }
}
