//! The way in to the one writer: a queue bounded in readings, a reply per message.
//!
//! A message that was taken is answered after its commit, or not at all (the server stopped first,
//! and the device sends it again). What the broker keeps of sessions goes the same way, so that one
//! sync serves all that is waiting for one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::mensaje::{Cambios, Mensaje, Resolver, Resuelta, Resultado};
use super::pulso::Pulso;
use super::reloj::{Reloj, RelojIncorrecto};
use super::ultimas::Ultimas;
use super::vigentes::Cambiados;
use super::vivo::Vivo;
use super::writer::Writer;
use crate::domain::{Alerta, Clock, SensorRef, Timestamp};
use crate::realtime::{Hub, Rutas};
use crate::store::mqtt::Cambio;
use crate::store::{self, Store};

/// How the writer is set up.
#[derive(Debug, Clone, Copy)]
pub struct Ajustes {
    /// Readings that may wait.
    pub cola: usize,
    /// Readings in one commit.
    pub lote: usize,
    /// Refusals kept of a sensor.
    pub rechazos_por_sensor: i64,
}

/// Whether readings are being acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Salud {
    /// They are.
    Listo,
    /// The store does not answer; the text says why.
    SinAlmacen(String),
    /// The machine's clock cannot be right; the text says why.
    RelojIncorrecto(String),
}

/// The writer has stopped: nothing more is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is stopping")]
pub struct Cerrado;

/// Why something was not taken without waiting.
#[derive(Debug)]
pub enum NoTomado<T> {
    /// The queue is full; it is given back.
    Lleno(T),
    /// See [`Cerrado`].
    Cerrado,
}

/// Something to commit, and its place in the queue.
pub(super) struct Pendiente {
    pub(super) encargo: Encargo,
    _sitio: OwnedSemaphorePermit,
}

/// What is to be committed, and whom to answer.
pub(super) enum Encargo {
    Mensaje(Box<Mensaje>, oneshot::Sender<Resultado>),
    Cambios(Cambios, oneshot::Sender<store::Result<()>>),
}

impl Pendiente {
    pub(super) fn mensaje(&self) -> Option<&Mensaje> {
        match &self.encargo {
            Encargo::Mensaje(mensaje, _) => Some(mensaje),
            Encargo::Cambios(..) => None,
        }
    }

    pub(super) fn mensaje_mut(&mut self) -> Option<&mut Mensaje> {
        match &mut self.encargo {
            Encargo::Mensaje(mensaje, _) => Some(mensaje),
            Encargo::Cambios(..) => None,
        }
    }

    /// Nobody waits for it any more, and whoever sent it knows that it may not have been stored.
    pub(super) fn abandonado(&self) -> bool {
        match &self.encargo {
            Encargo::Mensaje(mensaje, responde) => mensaje.si_esperan && responde.is_closed(),
            Encargo::Cambios(..) => false,
        }
    }

    /// How much of a batch it fills.
    pub(super) fn peso(&self) -> usize {
        match &self.encargo {
            Encargo::Mensaje(mensaje, _) => mensaje.lecturas.len().max(1),
            Encargo::Cambios(cambios, _) => cambios.cambios.len().max(1),
        }
    }
}

/// What the writer is asked for.
pub(super) enum Trabajo {
    Guardar(Pendiente),
    Resolver(Resolver, oneshot::Sender<store::Result<Option<Resuelta>>>),
    Umbrales(Cambiados, oneshot::Sender<store::Result<()>>),
    Abrir(Box<(SensorRef, Alerta)>, oneshot::Sender<store::Result<()>>),
    Retenciones(oneshot::Sender<store::Result<()>>),
    Retira(i64, oneshot::Sender<()>),
    Reincorpora(i64, oneshot::Sender<store::Result<()>>),
}

/// The way in to the writer; cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    cola: mpsc::Sender<Trabajo>,
    sitio: Arc<Semaphore>,
    cabida: u32,
    /// Places for commands, beside those for readings.
    ordenes: Arc<Semaphore>,
    salud: watch::Receiver<Salud>,
    reloj: Arc<Reloj>,
    ultimas: Arc<Ultimas>,
    pulso: Arc<Pulso>,
}

impl Ingest {
    /// Hands a message over, waiting for room. The answer comes after the commit; it fails when the
    /// server stops before.
    ///
    /// # Errors
    /// [`Cerrado`].
    pub async fn submit(&self, mensaje: Mensaje) -> Result<oneshot::Receiver<Resultado>, Cerrado> {
        let sitio = self.espera_sitio(peso_mensaje(&mensaje)).await?;
        self.encola(sitio, |responde| Encargo::Mensaje(Box::new(mensaje), responde))
    }

    /// As [`Self::submit`], without waiting.
    ///
    /// # Errors
    /// [`NoTomado`], with the message when there is no room.
    pub fn try_submit(
        &self,
        mensaje: Mensaje,
    ) -> Result<oneshot::Receiver<Resultado>, NoTomado<Box<Mensaje>>> {
        match self.sitio_ya(peso_mensaje(&mensaje)) {
            Some(Ok(sitio)) => self
                .encola(sitio, |responde| Encargo::Mensaje(Box::new(mensaje), responde))
                .map_err(|Cerrado| NoTomado::Cerrado),
            Some(Err(Cerrado)) => Err(NoTomado::Cerrado),
            None => Err(NoTomado::Lleno(Box::new(mensaje))),
        }
    }

    /// Has changes of what the broker keeps committed, waiting for room. The answer comes after the
    /// commit: an error when the database refuses them.
    ///
    /// # Errors
    /// [`Cerrado`].
    pub async fn guardar(
        &self,
        cambios: impl Into<Cambios>,
    ) -> Result<oneshot::Receiver<store::Result<()>>, Cerrado> {
        let cambios = cambios.into();
        let sitio = self.espera_sitio(peso_cambios(&cambios.cambios)).await?;
        self.encola(sitio, |responde| Encargo::Cambios(cambios, responde))
    }

    /// As [`Self::guardar`], without waiting.
    ///
    /// # Errors
    /// [`NoTomado`], with the changes when there is no room.
    pub fn try_guardar(
        &self,
        cambios: impl Into<Cambios>,
    ) -> Result<oneshot::Receiver<store::Result<()>>, NoTomado<Cambios>> {
        let cambios = cambios.into();
        match self.sitio_ya(peso_cambios(&cambios.cambios)) {
            Some(Ok(sitio)) => self
                .encola(sitio, |responde| Encargo::Cambios(cambios, responde))
                .map_err(|Cerrado| NoTomado::Cerrado),
            Some(Err(Cerrado)) => Err(NoTomado::Cerrado),
            None => Err(NoTomado::Lleno(cambios)),
        }
    }

    /// Readings that were taken and are not committed yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        (self.cabida as usize).saturating_sub(self.sitio.available_permits())
    }

    async fn espera_sitio(&self, peso: usize) -> Result<OwnedSemaphorePermit, Cerrado> {
        self.sitio.clone().acquire_many_owned(self.recorta(peso)).await.map_err(|_| Cerrado)
    }

    /// A place without waiting; `None` = there is none now.
    fn sitio_ya(&self, peso: usize) -> Option<Result<OwnedSemaphorePermit, Cerrado>> {
        match self.sitio.clone().try_acquire_many_owned(self.recorta(peso)) {
            Ok(sitio) => Some(Ok(sitio)),
            Err(TryAcquireError::NoPermits) => None,
            Err(TryAcquireError::Closed) => Some(Err(Cerrado)),
        }
    }

    /// What is larger than the whole queue waits for the whole queue.
    fn recorta(&self, peso: usize) -> u32 {
        u32::try_from(peso).unwrap_or(u32::MAX).clamp(1, self.cabida)
    }

    fn encola<T>(
        &self,
        sitio: OwnedSemaphorePermit,
        encargo: impl FnOnce(oneshot::Sender<T>) -> Encargo,
    ) -> Result<oneshot::Receiver<T>, Cerrado> {
        let (responde, respuesta) = oneshot::channel();
        // The channel has a place for every permit and for every command: it is never full here.
        let pendiente = Pendiente { encargo: encargo(responde), _sitio: sitio };
        self.cola.try_send(Trabajo::Guardar(pendiente)).map_err(|_| Cerrado)?;
        Ok(respuesta)
    }

    /// Closes an alert, in turn with the readings. `None` = there is no such alert. The caller has
    /// checked that the person may.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn resolver(&self, pedido: Resolver) -> store::Result<Option<Resuelta>> {
        self.pide(|responde| Trabajo::Resolver(pedido, responde))
            .await
            .unwrap_or_else(|| Err(store::Error::stopping()))
    }

    /// Umbrales were changed: what is evaluated from now on is held against the new ones.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn recargar_umbrales(&self, que: Cambiados) -> store::Result<()> {
        self.pide(|responde| Trabajo::Umbrales(que, responde))
            .await
            .unwrap_or_else(|| Err(store::Error::stopping()))
    }

    /// Opens an alert that no reading caused, unless one of its kind is open for the sensor.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn abrir_alerta(&self, sensor: SensorRef, alerta: Alerta) -> store::Result<()> {
        self.pide(|responde| Trabajo::Abrir(Box::new((sensor, alerta)), responde))
            .await
            .unwrap_or_else(|| Err(store::Error::stopping()))
    }

    /// How long empresas keep their readings was changed: older ones are refused from now on.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn recargar_retenciones(&self) -> store::Result<()> {
        self.pide(Trabajo::Retenciones).await.unwrap_or_else(|| Err(store::Error::stopping()))
    }

    /// A sensor was retired or removed: once this returns, nothing of it is stored any more.
    pub async fn olvidar_sensor(&self, id_sensor: i64) {
        self.pide(|responde| Trabajo::Retira(id_sensor, responde)).await;
    }

    /// A retired sensor is in use again.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn reincorporar_sensor(&self, id_sensor: i64) -> store::Result<()> {
        self.pide(|responde| Trabajo::Reincorpora(id_sensor, responde))
            .await
            .unwrap_or_else(|| Err(store::Error::stopping()))
    }

    async fn pide<T: Send + 'static>(
        &self,
        trabajo: impl FnOnce(oneshot::Sender<T>) -> Trabajo,
    ) -> Option<T> {
        let sitio = self.ordenes.clone().acquire_owned().await.ok()?;
        let (responde, respuesta) = oneshot::channel();
        self.cola.send(trabajo(responde)).await.ok()?;
        // The place is taken for as long as the command is, whether or not somebody still waits for it: the queue
        // has room for so many and no more.
        let hecho = async move {
            let respuesta = respuesta.await.ok();
            drop(sitio);
            respuesta
        };
        tokio::spawn(hecho).await.ok()?
    }

    /// Returns once the writer has turned, for the watchdog: at once while it works or waits for work, in its next
    /// try while the store is away, never when it hangs.
    pub async fn late(&self) {
        self.pulso.espera().await;
    }

    /// The newest figures of every sensor.
    #[must_use]
    pub fn ultimas(&self) -> &Ultimas {
        &self.ultimas
    }

    /// Whether readings are being acknowledged, now.
    #[must_use]
    pub fn salud(&self) -> Salud {
        match self.reloj.hora() {
            Ok(_) => self.salud.borrow().clone(),
            Err(e) => Salud::RelojIncorrecto(e.to_string()),
        }
    }

    /// The time by which a message is to be judged and stamped. While the machine's clock cannot be
    /// right nothing is decoded: a good moment would be refused by it, a missing one made up.
    ///
    /// # Errors
    /// [`RelojIncorrecto`].
    pub fn hora(&self) -> Result<Timestamp, RelojIncorrecto> {
        self.reloj.hora()
    }

    /// As [`Self::hora`], however long that takes.
    pub async fn espera_hora(&self) -> Timestamp {
        loop {
            if let Ok(ahora) = self.reloj.hora() {
                return ahora;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Starts the writer: the handle, and the work itself, which the caller runs to its end. Those who are to
    /// hear of what it commits do so by `hub` and `rutas`. It ends once `drena` is cancelled and everything taken before is committed and answered.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn start(
        store: Store,
        (hub, rutas): (Hub, Rutas),
        clock: Arc<dyn Clock>,
        ajustes: Ajustes,
        drena: CancellationToken,
    ) -> store::Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        /// Commands that may wait beside the readings.
        const ORDENES: usize = 1_024;
        let vivo = Vivo::load(&store).await?;
        let (cola, llegadas) = mpsc::channel(ajustes.cola + ORDENES);
        let (dice, salud) = watch::channel(Salud::Listo);
        let cabida = u32::try_from(ajustes.cola).unwrap_or(u32::MAX).max(1);
        let sitio = Arc::new(Semaphore::new(cabida as usize));
        let reloj = Arc::new(Reloj::new(clock, vivo.mas_nueva));
        let ultimas = vivo.ultimas.clone();
        let pulso = Arc::<Pulso>::default();
        let writer = Writer::new(store, (hub, rutas), reloj.clone(), ajustes, vivo, (dice, pulso.clone()));
        let ordenes = Arc::new(Semaphore::new(ORDENES));
        Ok((Self { cola, sitio, cabida, ordenes, salud, reloj, ultimas, pulso }, writer.run(llegadas, drena)))
    }
}

fn peso_mensaje(mensaje: &Mensaje) -> usize {
    let por_decir = mensaje.por_decir.as_ref().map_or(0, |payload| payload.len() >> 10);
    mensaje.lecturas.len() + mensaje.rechazos.len() + peso_cambios(&mensaje.al_aceptar) + por_decir
}

/// Changes are few bytes each but for the messages that they carry.
fn peso_cambios(cambios: &[Cambio]) -> usize {
    let kib = |c: &Cambio| match c {
        Cambio::Encola(e) => e.contenido.payload.len() >> 10,
        Cambio::Retiene(r) => r.contenido.payload.len() >> 10,
        _ => 0,
    };
    cambios.len() + cambios.iter().map(kib).sum::<usize>()
}
