//! The directory in memory: which device is whose, and which worker sees which sensor.
//!
//! Every delivery to a subscriber and every event on a WebSocket asks it, so it must not ask the
//! database. One process owns the database, so the API keeps it true: it changes the directory
//! after the commit that it speaks of, and says who is to be cut off.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::broadcast;

use super::Principal;
use crate::domain::{DeviceId, SensorRef};
use crate::store::sensores::Alcance;
use crate::store::{self, Store, Tx};

/// See the module.
#[derive(Debug)]
pub struct Directorio {
    datos: RwLock<Datos>,
    revocados: broadcast::Sender<Revocado>,
    cuantas: AtomicU64,
}

#[derive(Debug, Default)]
struct Datos {
    por_device: HashMap<DeviceId, SensorRef>,
    /// By sensor, the trabajadores to whom it is assigned.
    asignaciones: HashMap<i64, HashSet<i64>>,
}

impl Datos {
    async fn load(tx: &mut Tx) -> store::Result<Self> {
        let sensores = store::sensores::all_active(tx).await?;
        let asignaciones = store::asignaciones::all_active(tx).await?;
        let por_device = sensores.into_iter().map(|s| (s.device_id.clone(), s)).collect();
        let mut datos = Self { por_device, asignaciones: HashMap::new() };
        for (id_trabajador, id_sensor) in asignaciones {
            datos.asigna(id_trabajador, id_sensor);
        }
        Ok(datos)
    }

    fn asigna(&mut self, id_trabajador: i64, id_sensor: i64) {
        self.asignaciones.entry(id_sensor).or_default().insert(id_trabajador);
    }

    fn desasigna(&mut self, id_trabajador: i64, id_sensor: i64) {
        if let Some(suyos) = self.asignaciones.get_mut(&id_sensor) {
            suyos.remove(&id_trabajador);
            if suyos.is_empty() {
                self.asignaciones.remove(&id_sensor);
            }
        }
    }
}

/// Whose connections must end now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocado {
    /// A device whose credential was replaced or revoked.
    Dispositivo(i64),
    /// Devices that were retired together.
    Dispositivos(Arc<HashSet<i64>>),
    /// A person, by `user_id`.
    Usuario(String),
    /// Whoever came by one of these sign-ins.
    Sesiones(Arc<HashSet<String>>),
    /// A program, by the row of its key.
    Llave(i64),
}

/// Of an installation that has nothing yet.
impl Default for Directorio {
    fn default() -> Self {
        Self::new(Datos::default())
    }
}

impl Directorio {
    fn new(datos: Datos) -> Self {
        Self { datos: RwLock::new(datos), revocados: broadcast::channel(1024).0, cuantas: AtomicU64::new(0) }
    }

    /// Reads the directory from the store.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn load(store: &Store) -> store::Result<Self> {
        let mut tx = store.read().await?;
        let datos = Datos::load(&mut tx).await?;
        tx.commit().await?;
        Ok(Self::new(datos))
    }

    /// Reads it again: a commit of which nobody knows whether it was one may have changed it. Sensors that it
    /// retired are cut off.
    ///
    /// # Errors
    /// Those of the store; the directory stays as it was.
    pub async fn relee(&self, store: &Store) -> store::Result<()> {
        // As a writer: the commit may have been on its way until the turn was ours.
        let mut tx = store.write().await?;
        let datos = Datos::load(&mut tx).await?;
        drop(tx);
        let antes = std::mem::replace(&mut *self.write(), datos);
        let datos = self.read();
        let ido = |s: &&SensorRef| !datos.por_device.contains_key(&s.device_id);
        let idos: HashSet<i64> = antes.por_device.values().filter(ido).map(|s| s.id_sensor).collect();
        drop(datos);
        if !idos.is_empty() {
            self.revoca(Revocado::Dispositivos(Arc::new(idos)));
        }
        Ok(())
    }

    /// The sensor in use that goes by `device_id`.
    #[must_use]
    pub fn sensor(&self, device_id: &str) -> Option<SensorRef> {
        self.read().por_device.get(device_id).cloned()
    }

    /// Whether the sensor in use that goes by `device_id` is this one.
    #[must_use]
    pub fn es(&self, device_id: &str, id_sensor: i64) -> bool {
        self.read().por_device.get(device_id).is_some_and(|s| s.id_sensor == id_sensor)
    }

    /// The sensor in use with this key.
    #[must_use]
    pub fn sensor_por_id(&self, id_sensor: i64) -> Option<SensorRef> {
        self.read().por_device.values().find(|s| s.id_sensor == id_sensor).cloned()
    }

    /// All sensors in use, by key.
    #[must_use]
    pub fn por_id(&self) -> HashMap<i64, SensorRef> {
        self.read().por_device.values().map(|s| (s.id_sensor, s.clone())).collect()
    }

    /// Whether `quien` may see what `sensor` says: itself, or its people.
    #[must_use]
    pub fn puede_ver(&self, quien: &Principal, sensor: &SensorRef) -> bool {
        match quien {
            Principal::Dispositivo(propio) => propio.id_sensor == sensor.id_sensor,
            Principal::Usuario(_) | Principal::Llave(_) => {
                quien.alcance().is_some_and(|a| self.alcanza(a, sensor.id_sensor, sensor.id_empresa))
            }
            Principal::Anonimo | Principal::Prueba => false,
        }
    }

    /// Whether a scope covers a sensor of `id_empresa`.
    #[must_use]
    pub fn alcanza(&self, alcance: Alcance, id_sensor: i64, id_empresa: i64) -> bool {
        alcance.id_empresa == id_empresa
            && alcance.id_trabajador.is_none_or(|t| {
                self.read().asignaciones.get(&id_sensor).is_some_and(|suyos| suyos.contains(&t))
            })
    }

    /// The sensors in use of a scope.
    #[must_use]
    pub fn en_uso(&self, alcance: Alcance) -> Vec<i64> {
        let datos = self.read();
        let suyo = |s: &&SensorRef| {
            s.id_empresa == alcance.id_empresa
                && alcance
                    .id_trabajador
                    .is_none_or(|t| datos.asignaciones.get(&s.id_sensor).is_some_and(|a| a.contains(&t)))
        };
        datos.por_device.values().filter(suyo).map(|s| s.id_sensor).collect()
    }

    /// The trabajadores to whom a sensor is assigned.
    #[must_use]
    pub fn asignados(&self, id_sensor: i64) -> Vec<i64> {
        self.read().asignaciones.get(&id_sensor).into_iter().flatten().copied().collect()
    }

    /// A sensor was registered or is in use again.
    pub fn alta(&self, sensor: SensorRef) {
        self.write().por_device.insert(sensor.device_id.clone(), sensor);
    }

    /// A sensor was retired: nobody hears it any more, and its connection ends.
    pub fn baja(&self, sensor: &SensorRef) {
        self.write().por_device.remove(&sensor.device_id);
        self.revoca(Revocado::Dispositivo(sensor.id_sensor));
    }

    /// As [`Self::baja`], for many at once.
    pub fn bajas(&self, sensores: &[SensorRef]) {
        let mut datos = self.write();
        for sensor in sensores {
            datos.por_device.remove(&sensor.device_id);
        }
        drop(datos);
        let ids = sensores.iter().map(|s| s.id_sensor).collect();
        self.revoca(Revocado::Dispositivos(Arc::new(ids)));
    }

    /// Commits what ends somebody's connections, and ends them. Where nobody knows whether it was committed, too: whoever
    /// may be here after all comes back.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn confirma_y_revoca(&self, tx: Tx, quien: Revocado) -> store::Result<()> {
        let hecho = tx.commit().await;
        if matches!(hecho, Ok(()) | Err(store::Error::Undecided(_))) {
            self.revoca(quien);
        }
        hecho
    }

    /// A worker sees a sensor from now on.
    pub fn asigna(&self, id_trabajador: i64, id_sensor: i64) {
        self.write().asigna(id_trabajador, id_sensor);
    }

    /// A worker does not see a sensor any more.
    pub fn desasigna(&self, id_trabajador: i64, id_sensor: i64) {
        self.write().desasigna(id_trabajador, id_sensor);
    }

    /// How often somebody's connections had to end: whoever signs in looks before and after, since what they
    /// were let in by may have ended in between.
    #[must_use]
    pub fn revocaciones(&self) -> u64 {
        self.cuantas.load(Ordering::SeqCst)
    }

    /// Ends the connections of `quien`.
    pub fn revoca(&self, quien: Revocado) {
        self.cuantas.fetch_add(1, Ordering::SeqCst);
        // No receiver = no broker running (a command-line tool): nothing to end.
        let _ = self.revocados.send(quien);
    }

    /// Hears whose connections must end.
    #[must_use]
    pub fn revocados(&self) -> broadcast::Receiver<Revocado> {
        self.revocados.subscribe()
    }

    // A panic while the lock is held cannot leave half a change: each change is one map operation.
    fn read(&self) -> RwLockReadGuard<'_, Datos> {
        self.datos.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Datos> {
        self.datos.write().unwrap_or_else(PoisonError::into_inner)
    }
}
