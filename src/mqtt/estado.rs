//! `sensores/{device_id}/estado`: who is there and who is not, retained.
//!
//! The state comes from the connections themselves, numbered, so that a late loss never overwrites a
//! reconnection. A stop of the server marks nobody offline: what was said before holds until the device
//! had two of its intervals to come back. A device that comes and goes again and again is told less
//! often: once it has been quiet for a while.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::broker::Compartido;
use super::publicacion::Publicacion;
use super::retained::Retained;
use crate::domain::{Conexion, SensorRef, Timestamp};
use crate::identity::Directorio;
use crate::realtime::{Evento, Que};

/// A device may change this often in so much time before it counts as flapping.
const CAMBIOS: (usize, Duration) = (4, Duration::from_secs(60));
/// A flapping device is told of once it has not changed for this long.
const CALMA: Duration = Duration::from_secs(15);

/// What is to be said, and what has been.
pub(super) struct Estados {
    por_decir: Mutex<HashMap<i64, (SensorRef, Conexion)>>,
    aviso: Notify,
    /// Devices that were connected when the server stopped, and until when that is believed.
    creidos: Mutex<Vec<(SensorRef, Timestamp)>>,
}

/// What was said of one device.
#[derive(Default)]
struct Historia {
    dicho: Option<Conexion>,
    cambios: VecDeque<Instant>,
}

impl Historia {
    /// Whether this change is one too many; it is counted either way.
    fn aletea(&mut self, ahora: Instant) -> bool {
        while self.cambios.front().is_some_and(|c| ahora.duration_since(*c) > CAMBIOS.1) {
            self.cambios.pop_front();
        }
        self.cambios.push_back(ahora);
        if self.cambios.len() > CAMBIOS.0 {
            self.cambios.pop_front();
            return true;
        }
        false
    }
}

/// Of which device, and what.
type Dicho = (SensorRef, Conexion);

/// When what is said.
#[derive(Default)]
struct Voz {
    historias: HashMap<i64, Historia>,
    /// Of those that flap: the last word, and when it is said if no other comes.
    inquietos: HashMap<i64, (SensorRef, Conexion, Instant)>,
}

impl Voz {
    /// A device changed; answers what is to be said of it now.
    fn cambia(&mut self, sensor: SensorRef, estado: Conexion, ahora: Instant) -> Option<Dicho> {
        let id = sensor.id_sensor;
        if self.historias.entry(id).or_default().aletea(ahora) {
            tracing::warn!(device_id = %sensor.device_id, "a device comes and goes again and again");
            self.inquietos.insert(id, (sensor, estado, ahora + CALMA));
            return None;
        }
        self.inquietos.remove(&id);
        self.di(sensor, estado)
    }

    /// When there is something to be said though nothing changes.
    fn plazo(&self) -> Option<Instant> {
        self.inquietos.values().map(|(.., cuando)| *cuando).min()
    }

    /// What is to be said of those that are calm again.
    fn ultimas_palabras(&mut self, ahora: Instant) -> Vec<Dicho> {
        let calmados = self.inquietos.extract_if(|_, (.., cuando)| *cuando <= ahora);
        let calmados: Vec<_> = calmados.map(|(_, (sensor, estado, _))| (sensor, estado)).collect();
        calmados.into_iter().filter_map(|(sensor, estado)| self.di(sensor, estado)).collect()
    }

    /// Nothing is said twice.
    fn di(&mut self, sensor: SensorRef, estado: Conexion) -> Option<Dicho> {
        let dicho = &mut self.historias.entry(sensor.id_sensor).or_default().dicho;
        (dicho.replace(estado) != Some(estado)).then_some((sensor, estado))
    }
}

impl Estados {
    /// With what was said before the server stopped.
    pub(super) fn new(
        retained: &Retained,
        directorio: &Directorio,
        intervalos: &HashMap<i64, i64>,
        ahora: Timestamp,
    ) -> Self {
        let online = retained.busca(|m| m.payload == Conexion::Online.as_str());
        let creido = |m: Arc<Publicacion>| {
            let device_id = m.topic.strip_prefix("sensores/")?.strip_suffix("/estado")?;
            let sensor =
                directorio.sensor(device_id).filter(|s| m.sensor.is_none_or(|id| id == s.id_sensor))?;
            let segundos = u64::try_from(intervalos.get(&sensor.id_sensor).copied()?).unwrap_or_default();
            Some((sensor, ahora.plus(Duration::from_secs(segundos * 2))))
        };
        let creidos = online.into_iter().filter_map(creido).collect();
        Self { por_decir: Mutex::default(), aviso: Notify::new(), creidos: Mutex::new(creidos) }
    }

    fn di(&self, sensor: &SensorRef, estado: Conexion) {
        cerrojo(&self.por_decir).insert(sensor.id_sensor, (sensor.clone(), estado));
        self.aviso.notify_one();
    }
}

fn cerrojo<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it is held cannot leave half a change: each change is one map operation.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Compartido {
    /// Notes that a connection of a device came or went; what changes by that is told in its turn.
    pub(super) fn presencia(&self, sensor: &SensorRef, conexion: u64, estado: Conexion) {
        let presencia = &self.parts.presencia;
        let cambia = match estado {
            Conexion::Online => presencia.llega(sensor.id_sensor, conexion),
            _ => presencia.se_va(sensor.id_sensor, conexion),
        };
        if cambia {
            tracing::info!(device_id = %sensor.device_id, estado = estado.as_str(), "a device's connection changed");
            self.estados.di(sensor, estado);
        }
    }

    /// States of devices, told on `estado` and to whoever listens.
    pub(super) async fn anuncia_estados(&self) {
        let mut voz = Voz::default();
        loop {
            let plazo = voz.plazo();
            tokio::select! {
                () = self.estados.aviso.notified() => {}
                () = async {
                    match plazo {
                        Some(plazo) => tokio::time::sleep_until(plazo).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
            let ahora = Instant::now();
            let por_decir = std::mem::take(&mut *cerrojo(&self.estados.por_decir));
            for (sensor, estado) in por_decir.into_values() {
                if let Some(dicho) = voz.cambia(sensor, estado, ahora) {
                    self.anuncia_estado(dicho).await;
                }
            }
            for dicho in voz.ultimas_palabras(ahora) {
                self.anuncia_estado(dicho).await;
            }
        }
    }

    async fn anuncia_estado(&self, (sensor, estado): Dicho) {
        self.difunde(Publicacion::de_sensor(&sensor, "estado", estado.as_str())).await;
        self.parts.hub.send(Evento::new(sensor, Que::Estado(estado)));
    }

    /// Devices that were connected when the server stopped and have not come back in time are gone.
    pub(super) fn deja_de_creer(&self, ahora: Timestamp) {
        cerrojo(&self.estados.creidos).retain(|(sensor, hasta)| {
            let vive = self.parts.presencia.conexion(sensor.id_sensor) != Conexion::Desconocida;
            if !vive && *hasta <= ahora {
                self.parts.presencia.falta(sensor.id_sensor);
                self.estados.di(sensor, Conexion::Offline);
            }
            !vive && *hasta > ahora
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn four_changes_a_minute_are_told_and_more_are_flapping() {
        let mut historia = Historia::default();
        for _ in 0..CAMBIOS.0 {
            assert!(!historia.aletea(Instant::now()));
        }
        assert!(historia.aletea(Instant::now()));
        assert_eq!(historia.cambios.len(), CAMBIOS.0, "bounded, however long it flaps");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(!historia.aletea(Instant::now()), "a quiet minute makes it good");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_word_of_a_device_that_flaps_is_said_once_it_is_calm_and_only_if_it_is_another() {
        use crate::domain::DeviceId;
        let sensor = SensorRef { id_sensor: 1, id_empresa: 1, device_id: DeviceId::new("s1").unwrap() };
        let cambia = |voz: &mut Voz, estado| voz.cambia(sensor.clone(), estado, Instant::now()).map(|d| d.1);
        for (ultima, dicha) in [(Conexion::Online, vec![Conexion::Online]), (Conexion::Offline, vec![])] {
            let mut voz = Voz::default();
            for estado in [Conexion::Online, Conexion::Offline].repeat(2) {
                assert_eq!(cambia(&mut voz, estado), Some(estado));
            }
            for estado in [Conexion::Online, Conexion::Offline, ultima] {
                tokio::time::advance(Duration::from_secs(1)).await;
                assert_eq!(cambia(&mut voz, estado), None);
            }
            // From its last change on.
            assert_eq!(voz.plazo(), Some(Instant::now() + CALMA));
            tokio::time::advance(Duration::from_secs(14)).await;
            assert!(voz.ultimas_palabras(Instant::now()).is_empty());
            tokio::time::advance(Duration::from_secs(1)).await;
            let dichas: Vec<_> = voz.ultimas_palabras(Instant::now()).into_iter().map(|d| d.1).collect();
            assert_eq!((dichas, voz.plazo()), (dicha, None));
        }
    }
}
