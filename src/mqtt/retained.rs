//! Retained messages. Kept in memory; what may be retained is bounded in number and in bytes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::publicacion::Publicacion;
use super::topic;
use crate::domain::Timestamp;

/// Bytes of retained messages, all together.
const MAX_BYTES: usize = 256 << 20;

/// See the module.
pub(super) struct Retained {
    max: usize,
    mapa: RwLock<(HashMap<String, Arc<Publicacion>>, usize)>,
}

impl Retained {
    pub(super) fn new(max: usize) -> Self {
        Self { max, mapa: RwLock::default() }
    }

    /// Keeps a message in place of the last one of its topic; an empty one clears it
    /// [MQTT-3.3.1-6]. `false` when there is no room for another.
    pub(super) fn pon(&self, mensaje: &Arc<Publicacion>) -> bool {
        let mut guarda = self.mapa.write().unwrap_or_else(PoisonError::into_inner);
        let (mapa, bytes) = &mut *guarda;
        let viejo = mapa.get(&mensaje.topic).map_or(0, |v| v.peso());
        if mensaje.payload.is_empty() {
            mapa.remove(&mensaje.topic);
            *bytes -= viejo;
            return true;
        }
        if (viejo == 0 && mapa.len() >= self.max) || *bytes - viejo + mensaje.peso() > MAX_BYTES {
            return false;
        }
        *bytes = *bytes - viejo + mensaje.peso();
        mapa.insert(mensaje.topic.clone(), mensaje.clone());
        true
    }

    /// What a new subscription to `filtro` is sent, by topic.
    pub(super) fn para(&self, filtro: &str, ahora: Timestamp) -> Vec<Arc<Publicacion>> {
        let guarda = self.mapa.read().unwrap_or_else(PoisonError::into_inner);
        let todos = guarda.0.values();
        let mut hallados: Vec<_> =
            todos.filter(|m| !m.vencida(ahora) && topic::coincide(filtro, &m.topic)).cloned().collect();
        hallados.sort_by(|a, b| a.topic.cmp(&b.topic));
        hallados
    }

    /// Forgets what has expired [MQTT-3.3.2-5].
    pub(super) fn limpia(&self, ahora: Timestamp) {
        let mut guarda = self.mapa.write().unwrap_or_else(PoisonError::into_inner);
        let (mapa, bytes) = &mut *guarda;
        mapa.retain(|_, m| {
            let queda = !m.vencida(ahora);
            if !queda {
                *bytes -= m.peso();
            }
            queda
        });
    }
}
