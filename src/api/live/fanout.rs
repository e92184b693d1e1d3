//! From what happens to the sockets that want to hear of it: an event costs nothing of the others.
//!
//! Sockets stand in places: their empresa's, their worker's, or those of the sensors that they name. An event
//! visits the places of its sensor, asks [`Directorio`] of each socket there, and puts one text, shared by all,
//! into their queues. It never waits: a socket whose queue is full is taken out, and hears by the end of its
//! queue that it has missed something. A socket that comes back begins with a snapshot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::ws::Utf8Bytes;
use metrics::counter;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::filter::Filter;
use crate::identity::Directorio;
use crate::realtime::Evento;
use crate::store::sensores::Alcance;

/// Where sockets are found. Each stands in places of one kind only, so that none is visited twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// Everything of an empresa.
    Empresa(i64),
    /// What is assigned to a worker, as it is when the event comes.
    Worker(i64),
    /// A sensor that was asked for by name.
    Sensor(i64),
}

/// What a socket is to hear, and since when.
pub(super) struct Queued {
    pub(super) since: Instant,
    pub(super) text: Utf8Bytes,
}

/// A socket that listens.
struct Listener {
    scope: Alcance,
    filter: Filter,
    queue: mpsc::Sender<Queued>,
}

impl Listener {
    fn places(&self) -> Vec<Place> {
        match (self.filter.sensores(), self.scope.id_trabajador) {
            (Some(sensores), _) => sensores.iter().copied().map(Place::Sensor).collect(),
            (None, Some(worker)) => vec![Place::Worker(worker)],
            (None, None) => vec![Place::Empresa(self.scope.id_empresa)],
        }
    }
}

/// See the module.
#[derive(Default)]
pub(in crate::api) struct Fanout(Mutex<Index>);

#[derive(Default)]
struct Index {
    last: u64,
    listeners: HashMap<u64, Arc<Listener>>,
    places: HashMap<Place, HashMap<u64, Arc<Listener>>>,
}

impl Index {
    fn insert(&mut self, number: u64, listener: Listener) {
        let listener = Arc::new(listener);
        for place in listener.places() {
            self.places.entry(place).or_default().insert(number, listener.clone());
        }
        self.listeners.insert(number, listener);
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Listener>> {
        let listener = self.listeners.remove(&number)?;
        for place in listener.places() {
            if let Some(there) = self.places.get_mut(&place) {
                there.remove(&number);
                if there.is_empty() {
                    self.places.remove(&place);
                }
            }
        }
        Some(listener)
    }
}

/// A socket's place among the listeners, until dropped.
pub(super) struct Membership {
    fanout: Arc<Fanout>,
    number: u64,
}

impl Membership {
    /// From now on it wants something else. One that was taken out stays out.
    pub(super) fn narrow(&self, filter: Filter) {
        let mut index = self.fanout.lock();
        if let Some(was) = index.remove(self.number) {
            let (scope, queue) = (was.scope, was.queue.clone());
            index.insert(self.number, Listener { scope, filter, queue });
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.fanout.lock().remove(self.number);
    }
}

impl Fanout {
    /// A socket listens from now on; what it hears comes by the queue, which ends when it was too slow.
    pub(super) fn join(
        self: &Arc<Self>,
        scope: Alcance,
        filter: Filter,
        capacity: usize,
    ) -> (Membership, mpsc::Receiver<Queued>) {
        let (queue, hear) = mpsc::channel(capacity);
        let mut index = self.lock();
        index.last += 1;
        let number = index.last;
        index.insert(number, Listener { scope, filter, queue });
        (Membership { fanout: self.clone(), number }, hear)
    }

    /// Passes on what happens, for as long as something can.
    pub(in crate::api) async fn run(&self, mut hub: Receiver<Arc<Evento>>, directorio: &Directorio) {
        loop {
            match hub.recv().await {
                Ok(evento) => self.deliver(&evento, directorio),
                Err(RecvError::Lagged(_)) => self.missed(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn deliver(&self, evento: &Evento, directorio: &Directorio) {
        let sensor = &evento.sensor;
        let workers = directorio.asignados(sensor.id_sensor).into_iter().map(Place::Worker);
        let places = [Place::Empresa(sensor.id_empresa), Place::Sensor(sensor.id_sensor)];
        let (mut text, mut out, since) = (None, Vec::new(), Instant::now());
        let mut index = self.lock();
        for (number, listener) in
            places.into_iter().chain(workers).filter_map(|place| index.places.get(&place)).flatten()
        {
            let may = directorio.alcanza(listener.scope, sensor.id_sensor, sensor.id_empresa);
            if !may || !listener.filter.wants(evento) {
                continue;
            }
            // serde_json writes UTF-8.
            let text = text.get_or_insert_with(|| Utf8Bytes::try_from(evento.json()).unwrap_or_default());
            match listener.queue.try_send(Queued { since, text: text.clone() }) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    counter!("alertrace_websocket_resyncs_total").increment(1);
                    out.push(*number);
                }
                Err(TrySendError::Closed(_)) => out.push(*number),
            }
        }
        for number in out {
            index.remove(number);
        }
    }

    /// Events were lost before they came here: nobody knows whose.
    fn missed(&self) {
        let mut index = self.lock();
        counter!("alertrace_websocket_resyncs_total").increment(index.listeners.len() as u64);
        index.listeners.clear();
        index.places.clear();
    }

    // A panic while the lock is held could at worst leave a listener in one of its places.
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Conexion, DeviceId, SensorRef, Timestamp, Valores};
    use crate::realtime::Que;

    fn sensor(id_sensor: i64, id_empresa: i64) -> SensorRef {
        let device_id = DeviceId::new(&format!("s{id_sensor}")).unwrap();
        SensorRef { id_sensor, id_empresa, device_id }
    }

    fn lectura(id_sensor: i64, id_empresa: i64) -> Evento {
        let que = Que::Lectura { ts: Timestamp::MIN, valores: Valores::new() };
        Evento::new(sensor(id_sensor, id_empresa), que)
    }

    fn all(id_empresa: i64) -> Alcance {
        Alcance { id_empresa, id_trabajador: None }
    }

    fn worker(id_empresa: i64, id: i64) -> Alcance {
        Alcance { id_empresa, id_trabajador: Some(id) }
    }

    fn only(sensores: &str) -> Filter {
        Filter::from_query(Some(sensores), None).unwrap()
    }

    fn heard(queue: &mut mpsc::Receiver<Queued>) -> Vec<Utf8Bytes> {
        std::iter::from_fn(|| queue.try_recv().ok()).map(|queued| queued.text).collect()
    }

    #[test]
    fn everybody_hears_what_they_may_and_want_and_all_share_one_text() {
        let (fanout, directorio) = (Arc::new(Fanout::default()), Directorio::default());
        directorio.asigna(5, 1);
        let mut sockets: Vec<_> = [
            (all(1), Filter::default(), 1),
            (all(1), only("1,2"), 1),
            (worker(1, 5), Filter::default(), 1),
            (worker(1, 5), only("1"), 1),
            (all(1), only("2"), 0),
            (all(2), Filter::default(), 0),
            // Naming it does not show it.
            (all(2), only("1"), 0),
            (worker(1, 6), Filter::default(), 0),
            (worker(1, 6), only("1"), 0),
            (all(1), Filter::from_query(None, Some("alerta")).unwrap(), 0),
        ]
        .into_iter()
        .map(|(scope, filter, count)| (fanout.join(scope, filter, 4), count))
        .collect();
        fanout.deliver(&lectura(1, 1), &directorio);
        let mut texts = Vec::new();
        for (n, ((_, queue), count)) in sockets.iter_mut().enumerate() {
            let heard = heard(queue);
            assert_eq!(heard.len(), *count, "socket {n}");
            texts.extend(heard);
        }
        assert!(texts.iter().all(|t| t.as_ptr() == texts[0].as_ptr()), "one text, no copies");
    }

    #[test]
    fn an_assignment_holds_for_sockets_that_are_open() {
        let (fanout, directorio) = (Arc::new(Fanout::default()), Directorio::default());
        for filter in [Filter::default(), only("1")] {
            let (_membership, mut queue) = fanout.join(worker(1, 5), filter, 4);
            for (assigned, count) in [(false, 0), (true, 1), (false, 0)] {
                if assigned {
                    directorio.asigna(5, 1);
                } else {
                    directorio.desasigna(5, 1);
                }
                fanout.deliver(&lectura(1, 1), &directorio);
                assert_eq!(heard(&mut queue).len(), count);
            }
        }
    }

    #[test]
    fn a_socket_that_is_too_slow_is_taken_out_and_the_others_hear_on() {
        let (fanout, directorio) = (Arc::new(Fanout::default()), Directorio::default());
        let (slow, mut slow_queue) = fanout.join(all(1), Filter::default(), 2);
        let (_quick, mut quick_queue) = fanout.join(all(1), Filter::default(), 8);
        for _ in 0..4 {
            fanout.deliver(&lectura(1, 1), &directorio);
        }
        slow.narrow(only("1"));
        fanout.deliver(&lectura(1, 1), &directorio);
        assert_eq!(heard(&mut quick_queue).len(), 5);
        assert_eq!(heard(&mut slow_queue).len(), 2);
        assert!(slow_queue.is_closed(), "and it is told so");
        fanout.missed();
        assert!(quick_queue.is_closed());
        assert!(fanout.lock().places.is_empty());
    }

    #[test]
    fn what_is_wanted_may_change_and_a_socket_that_goes_leaves_nothing() {
        let (fanout, directorio) = (Arc::new(Fanout::default()), Directorio::default());
        let (membership, mut queue) = fanout.join(all(1), only("1,2"), 8);
        membership.narrow(only("2,3"));
        for id in 1..=3 {
            fanout.deliver(&lectura(id, 1), &directorio);
        }
        assert_eq!(heard(&mut queue).len(), 2);
        membership.narrow(Filter::default());
        fanout.deliver(&Evento::new(sensor(9, 1), Que::Estado(Conexion::Online)), &directorio);
        assert_eq!(heard(&mut queue).len(), 1);
        drop(membership);
        let index = fanout.lock();
        assert!(index.listeners.is_empty() && index.places.is_empty());
    }
}
