//! What waits for one session: bounded in number and in bytes; the oldest makes room.
//!
//! While nobody is connected, what the store keeps is a number here and no more.

use std::collections::{HashSet, VecDeque};

use metrics::counter;

use super::publicacion::Qos;
use super::session::Entrega;

/// How much may wait for one session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cabida {
    pub(super) mensajes: usize,
    pub(super) bytes: usize,
}

/// Something that waits.
pub(super) enum Cosa {
    Entrega(Entrega),
    /// It is in the store.
    Guardada {
        seq: i64,
        peso: usize,
    },
}

impl Cosa {
    fn peso(&self) -> usize {
        match self {
            Self::Entrega(e) => e.publicacion.peso(),
            Self::Guardada { peso, .. } => *peso,
        }
    }

    fn seq(&self) -> Option<i64> {
        match self {
            Self::Entrega(e) => e.seq,
            Self::Guardada { seq, .. } => Some(*seq),
        }
    }
}

/// See the module.
pub(super) struct Buzon {
    cola: VecDeque<Cosa>,
    bytes: usize,
    max: Cabida,
    /// Read from the store before whoever published them put them here.
    adelantadas: HashSet<i64>,
}

impl Buzon {
    pub(super) fn new(max: Cabida) -> Self {
        Self { cola: VecDeque::new(), bytes: 0, max, adelantadas: HashSet::new() }
    }

    /// Puts a message in. What nobody will miss goes first: a QoS 0 message while nobody is connected
    /// or there is no room; else the oldest. All of it is counted. Answers the places in the store of
    /// what had to go.
    pub(super) fn pon(&mut self, entrega: Entrega, conectada: bool) -> Vec<i64> {
        if let Some(seq) = entrega.seq
            && self.adelantadas.remove(&seq)
        {
            return Vec::new();
        }
        let peso = entrega.publicacion.peso();
        if entrega.qos == Qos::Cero {
            if !conectada {
                return Vec::new();
            }
            if self.cola.len() >= self.max.mensajes || self.bytes + peso > self.max.bytes {
                counter!("alertrace_mqtt_messages_dropped_total", "reason" => "slow").increment(1);
                return Vec::new();
            }
        }
        match entrega.seq {
            Some(seq) if !conectada => self.mete(Cosa::Guardada { seq, peso }),
            None if !conectada => {}
            _ => self.mete(Cosa::Entrega(entrega)),
        }
        self.recorta()
    }

    /// Notes something that is in the store.
    pub(super) fn guardada(&mut self, seq: i64, peso: usize) {
        self.mete(Cosa::Guardada { seq, peso });
    }

    fn mete(&mut self, cosa: Cosa) {
        self.bytes += cosa.peso();
        self.cola.push_back(cosa);
    }

    fn recorta(&mut self) -> Vec<i64> {
        let mut sobran = Vec::new();
        while self.cola.len() > self.max.mensajes || (self.bytes > self.max.bytes && self.cola.len() > 1) {
            let Some(vieja) = self.saca() else { break };
            sobran.extend(vieja.seq());
            counter!("alertrace_mqtt_messages_dropped_total", "reason" => "queue_full").increment(1);
        }
        sobran
    }

    fn saca(&mut self) -> Option<Cosa> {
        let cosa = self.cola.pop_front()?;
        self.bytes -= cosa.peso();
        Some(cosa)
    }

    /// The next message, if `hay_ventana` for one with QoS 1 or 2.
    pub(super) fn siguiente(&mut self, hay_ventana: bool) -> Option<Entrega> {
        match self.cola.front()? {
            Cosa::Entrega(e) if hay_ventana || e.qos == Qos::Cero => {}
            // What is in the store alone is read before anything is sent.
            _ => return None,
        }
        match self.saca()? {
            Cosa::Entrega(e) => Some(e),
            Cosa::Guardada { .. } => None,
        }
    }

    /// Leaves what the store has to the store, and forgets the rest.
    pub(super) fn vacia_a_la_base(&mut self) {
        self.adelantadas.clear();
        let cola = std::mem::take(&mut self.cola);
        self.bytes = 0;
        for cosa in cola {
            if let Some(seq) = cosa.seq() {
                self.guardada(seq, cosa.peso());
            }
        }
    }

    /// Whether something is in the store alone.
    pub(super) fn con_guardadas(&self) -> bool {
        self.cola.iter().any(|c| matches!(c, Cosa::Guardada { .. }))
    }

    /// Puts what was read from the store in its place.
    pub(super) fn carga(&mut self, seq: i64, entrega: Entrega) {
        match self.cola.iter_mut().find(|c| c.seq() == Some(seq)) {
            Some(sitio @ Cosa::Guardada { .. }) => {
                self.bytes = self.bytes - sitio.peso() + entrega.publicacion.peso();
                *sitio = Cosa::Entrega(entrega);
            }
            Some(Cosa::Entrega(_)) => {}
            None => {
                // Committed, and its publisher has not come here yet.
                self.adelantadas.insert(seq);
                self.mete(Cosa::Entrega(entrega));
            }
        }
    }

    /// Takes something out that is in flight.
    pub(super) fn quita(&mut self, seq: i64) {
        match self.cola.iter().position(|c| c.seq() == Some(seq)) {
            Some(i) => {
                if let Some(cosa) = self.cola.remove(i) {
                    self.bytes -= cosa.peso();
                }
            }
            None => {
                self.adelantadas.insert(seq);
            }
        }
    }

    /// Drops what the store turned out not to have.
    pub(super) fn sin_guardadas(&mut self) {
        self.cola.retain(|c| matches!(c, Cosa::Entrega(_)));
        self.bytes = self.cola.iter().map(Cosa::peso).sum();
    }

    /// Gives back the room of what no longer waits.
    pub(super) fn encoge(&mut self) {
        self.cola.shrink_to_fit();
        self.adelantadas.shrink_to_fit();
    }

    /// How many wait, and their bytes.
    #[cfg(test)]
    pub(super) fn ocupa(&self) -> (usize, usize) {
        (self.cola.len(), self.bytes)
    }

    /// All that waits.
    pub(super) fn todas(&self) -> impl Iterator<Item = &Cosa> {
        self.cola.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mqtt::publicacion::Publicacion;

    fn entrega(n: i64, qos: Qos) -> Entrega {
        Entrega {
            publicacion: Arc::new(Publicacion::del_servidor(format!("a/{n}"), "x", qos, false)),
            qos,
            retain: false,
            ids: Vec::new(),
            seq: (qos > Qos::Cero).then_some(n),
            grupo: None,
        }
    }

    fn de(mensajes: usize) -> Buzon {
        Buzon::new(Cabida { mensajes, bytes: 8 << 20 })
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_too() {
        let uno = entrega(1, Qos::Uno).publicacion.peso();
        let mut buzon = Buzon::new(Cabida { mensajes: 10, bytes: 2 * uno });
        for n in 1..=2 {
            assert!(buzon.pon(entrega(n, Qos::Uno), true).is_empty());
        }
        assert_eq!(buzon.pon(entrega(3, Qos::Uno), true), [1]);
        assert_eq!(topics(&mut buzon), ["a/2", "a/3"]);
    }

    fn topics(buzon: &mut Buzon) -> Vec<String> {
        std::iter::from_fn(|| buzon.siguiente(true)).map(|e| e.publicacion.topic.clone()).collect()
    }

    #[test]
    fn the_room_of_a_long_queue_is_given_back_when_it_is_short_again() {
        let mut buzon = de(1_000);
        for n in 0..1_000 {
            buzon.pon(entrega(n, Qos::Uno), true);
        }
        for _ in 0..998 {
            assert!(buzon.siguiente(true).is_some());
        }
        buzon.encoge();
        assert!(buzon.cola.capacity() < 10, "{}", buzon.cola.capacity());
        assert_eq!(buzon.ocupa().0, 2);
    }

    #[test]
    fn the_oldest_makes_room_and_its_place_is_told() {
        let mut buzon = de(3);
        for n in 1..=3 {
            assert!(buzon.pon(entrega(n, Qos::Uno), true).is_empty());
        }
        assert!(buzon.pon(entrega(9, Qos::Cero), true).is_empty(), "QoS 0 pushes nothing out");
        assert_eq!(buzon.pon(entrega(4, Qos::Uno), true), [1]);
        assert_eq!(topics(&mut buzon), ["a/2", "a/3", "a/4"]);
        assert_eq!(buzon.bytes, 0);
    }

    #[test]
    fn what_the_store_keeps_comes_back_in_order_and_once() {
        let mut buzon = de(10);
        buzon.pon(entrega(1, Qos::Uno), true);
        buzon.pon(entrega(8, Qos::Cero), true);
        buzon.vacia_a_la_base();
        buzon.pon(entrega(2, Qos::Uno), false);
        buzon.pon(entrega(8, Qos::Cero), false);
        assert!(buzon.siguiente(true).is_none(), "nothing is sent before it is read");
        // 3 was committed, and read before its publisher told.
        for n in 1..=3 {
            buzon.carga(n, entrega(n, Qos::Uno));
        }
        buzon.sin_guardadas();
        assert!(buzon.pon(entrega(3, Qos::Uno), true).is_empty());
        assert_eq!(topics(&mut buzon), ["a/1", "a/2", "a/3"]);
        assert_eq!(buzon.bytes, 0);
    }
}
