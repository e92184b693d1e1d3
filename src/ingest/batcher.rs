//! The way in to the one writer: a queue bounded in readings, a reply per message.
//!
//! A message that was taken is answered after its commit, or not at all (the server stopped first,
//! and the device sends it again).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::mensaje::{Mensaje, Resolver, Resuelta, Resultado};
use super::vivo::Vivo;
use super::writer::Writer;
use crate::domain::Clock;
use crate::realtime::Hub;
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
    /// How long refusals are kept.
    pub rechazos_dias: Duration,
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

/// Why [`Ingest::try_submit`] did not take a message.
#[derive(Debug)]
pub enum NoTomado {
    /// The queue is full; the message is given back.
    Lleno(Box<Mensaje>),
    /// See [`Cerrado`].
    Cerrado,
}

/// A message, whom to answer, and its place in the queue.
pub(super) struct Pendiente {
    pub(super) mensaje: Box<Mensaje>,
    pub(super) responde: oneshot::Sender<Resultado>,
    _sitio: OwnedSemaphorePermit,
}

/// What the writer is asked for.
pub(super) enum Trabajo {
    Mensaje(Pendiente),
    Resolver(Resolver, oneshot::Sender<store::Result<Option<Resuelta>>>),
    Umbrales(i64, oneshot::Sender<store::Result<()>>),
    Retira(i64, oneshot::Sender<()>),
    Reincorpora(i64, oneshot::Sender<store::Result<()>>),
}

/// The way in to the writer; cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    cola: mpsc::Sender<Trabajo>,
    sitio: Arc<Semaphore>,
    cabida: u32,
    salud: watch::Receiver<Salud>,
}

impl Ingest {
    /// Hands a message over, waiting for room. The answer comes after the commit; it fails when the
    /// server stops before.
    ///
    /// # Errors
    /// [`Cerrado`].
    pub async fn submit(&self, mensaje: Mensaje) -> Result<oneshot::Receiver<Resultado>, Cerrado> {
        let sitio = self.sitio.clone().acquire_many_owned(self.peso(&mensaje)).await.map_err(|_| Cerrado)?;
        self.encola(mensaje, sitio).map_err(|_| Cerrado)
    }

    /// As [`Self::submit`], without waiting.
    ///
    /// # Errors
    /// [`NoTomado`], with the message when there is no room.
    pub fn try_submit(&self, mensaje: Mensaje) -> Result<oneshot::Receiver<Resultado>, NoTomado> {
        match self.sitio.clone().try_acquire_many_owned(self.peso(&mensaje)) {
            Ok(sitio) => self.encola(mensaje, sitio).map_err(|_| NoTomado::Cerrado),
            Err(tokio::sync::TryAcquireError::NoPermits) => Err(NoTomado::Lleno(Box::new(mensaje))),
            Err(tokio::sync::TryAcquireError::Closed) => Err(NoTomado::Cerrado),
        }
    }

    fn peso(&self, mensaje: &Mensaje) -> u32 {
        u32::try_from(mensaje.lecturas.len() + mensaje.rechazos.len())
            .unwrap_or(u32::MAX)
            .clamp(1, self.cabida)
    }

    fn encola(
        &self,
        mensaje: Mensaje,
        sitio: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Resultado>, Cerrado> {
        let (responde, respuesta) = oneshot::channel();
        // The channel has a place for every permit and for every command: it is never full here.
        let pendiente = Pendiente { mensaje: Box::new(mensaje), responde, _sitio: sitio };
        self.cola.try_send(Trabajo::Mensaje(pendiente)).map_err(|_| Cerrado)?;
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

    /// The umbrales of an empresa were changed: what is evaluated from now on is held against them.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn recargar_umbrales(&self, id_empresa: i64) -> store::Result<()> {
        self.pide(|responde| Trabajo::Umbrales(id_empresa, responde))
            .await
            .unwrap_or_else(|| Err(store::Error::stopping()))
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

    async fn pide<T>(&self, trabajo: impl FnOnce(oneshot::Sender<T>) -> Trabajo) -> Option<T> {
        let (responde, respuesta) = oneshot::channel();
        self.cola.send(trabajo(responde)).await.ok()?;
        respuesta.await.ok()
    }

    /// Whether readings are being acknowledged, now.
    #[must_use]
    pub fn salud(&self) -> Salud {
        self.salud.borrow().clone()
    }

    /// Starts the writer: the handle, and the work itself, which the caller runs to its end. It ends
    /// once `drena` is cancelled and everything taken before is committed and answered.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn start(
        store: Store,
        hub: Hub,
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
        let writer = Writer::new(store, hub, clock, ajustes, vivo, dice);
        Ok((Self { cola, sitio, cabida, salud }, writer.run(llegadas, drena)))
    }
}
