//! Places for connections, and who gives his up: when there is none left, the one that has been inside
//! longest without having said who it is goes. Whoever says it at once gets in, however many do not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use super::throttle::limita;
use crate::limits::{ByAddress, Place};

/// Lines a second that the log gets of connections that were refused.
const LINEAS: u32 = 10;

/// See the module.
pub(super) struct Puerta {
    plazas: Arc<Semaphore>,
    por_direccion: ByAddress,
    callados: Arc<Mutex<Callados>>,
    dichas: Mutex<Dichas>,
}

/// Connections that have not signed in, by their order.
#[derive(Default)]
struct Callados {
    siguiente: u64,
    todos: BTreeMap<u64, oneshot::Sender<()>>,
}

/// Lines of this second, and those that were left out since the last one.
struct Dichas {
    desde: Instant,
    lineas: u32,
    omitidas: u64,
}

/// One that has not signed in; dropped when it has.
pub(super) struct Callado {
    todos: Arc<Mutex<Callados>>,
    numero: u64,
    fuera: oneshot::Receiver<()>,
}

impl Puerta {
    pub(super) fn new(max: usize, max_por_direccion: usize) -> Self {
        Self {
            plazas: Arc::new(Semaphore::new(max)),
            por_direccion: ByAddress::new(max_por_direccion),
            callados: Arc::default(),
            dichas: Mutex::new(Dichas { desde: Instant::now(), lineas: 0, omitidas: 0 }),
        }
    }

    /// A place for one more, as soon as there is one.
    pub(super) async fn plaza(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permiso) = self.plazas.clone().try_acquire_owned() {
            return Some(permiso);
        }
        limita("max_connections");
        // Dropped, it tells its connection.
        drop(lee(&self.callados).todos.pop_first());
        self.plazas.clone().acquire_owned().await.ok()
    }

    /// A place among those of `ip`, until what is answered is dropped.
    pub(super) fn de_direccion(&self, ip: IpAddr) -> Option<Place> {
        let plaza = self.por_direccion.enter(ip);
        if plaza.is_none() {
            limita("max_connections_per_address");
        }
        plaza
    }

    /// One more has come in and has said nothing yet. To be asked for before the next one waits for a place.
    pub(super) fn callado(&self) -> Callado {
        let (dentro, fuera) = oneshot::channel();
        let mut callados = lee(&self.callados);
        let numero = callados.siguiente;
        callados.siguiente += 1;
        callados.todos.insert(numero, dentro);
        Callado { todos: self.callados.clone(), numero, fuera }
    }

    /// Says that a connection was refused, and why; not more often than somebody would read.
    pub(super) fn niega(&self, ip: IpAddr, motivo: &str) {
        counter!("alertrace_mqtt_connections_refused_total").increment(1);
        if let Some(omitidas) = self.dice() {
            tracing::info!(%ip, motivo, omitidas, "a connection was refused");
        }
    }

    /// Whether a line may be logged now, and how many were left out before it.
    fn dice(&self) -> Option<u64> {
        let mut dichas = self.dichas.lock().unwrap_or_else(PoisonError::into_inner);
        if dichas.desde.elapsed().as_secs() >= 1 {
            (dichas.desde, dichas.lineas) = (Instant::now(), 0);
        }
        dichas.lineas += 1;
        if dichas.lineas > LINEAS {
            dichas.omitidas += 1;
            return None;
        }
        Some(std::mem::take(&mut dichas.omitidas))
    }
}

fn lee(callados: &Mutex<Callados>) -> MutexGuard<'_, Callados> {
    callados.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Callado {
    /// Ready when somebody else needs the place.
    pub(super) async fn echado(&mut self) {
        let _ = (&mut self.fuera).await;
    }
}

impl Drop for Callado {
    fn drop(&mut self) {
        lee(&self.todos).todos.remove(&self.numero);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_oldest_silent_one_makes_room_and_who_has_signed_in_does_not() {
        let puerta = Arc::new(Puerta::new(3, 10));
        let mut plazas = Vec::new();
        for _ in 0..3 {
            plazas.push(puerta.plaza().await.unwrap());
        }
        let (firmado, mut primero, mut segundo) = (puerta.callado(), puerta.callado(), puerta.callado());
        drop(firmado);
        let otra = puerta.clone();
        let nueva = tokio::spawn(async move { otra.plaza().await.is_some() });
        primero.echado().await;
        assert!(tokio::time::timeout(Duration::from_millis(20), segundo.echado()).await.is_err());
        assert!(!nueva.is_finished());
        plazas.pop();
        assert!(nueva.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_refusals_is_told_in_a_few_lines_that_say_how_many_there_were() {
        let puerta = Puerta::new(1, 1);
        let dichas = (0..1_000).filter(|_| puerta.dice().is_some()).count();
        assert_eq!(dichas, 10);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(puerta.dice(), Some(990));
        assert_eq!(puerta.dice(), Some(0));
    }
}
