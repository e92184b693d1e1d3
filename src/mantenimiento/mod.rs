//! What the server does when nobody asks: sums hours, forgets what is past its days, keeps to its disk.
//!
//! | file | what it does |
//! |---|---|
//! | `horas` | sums the hours that something was written to |
//! | `retencion` | forgets readings, hours, refusals and lines of the audit that are past their days |
//! | `disco` | keeps the database within its budget, and its file small |
//! | `aviso` | tells an empresa that its history goes for that |
//! | `ritmo` | how fast they go |
//!
//! Each is a task that lives as long as the server, works in small steps, and tries again when the store
//! is away. None of them is ever in the way of a reading for longer than a step.

mod aviso;
mod disco;
mod horas;
mod retencion;
mod ritmo;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::{Clock, Timestamp};
use crate::ingest::Ingest;
use crate::store::{self, Store};

const UN_DIA: Duration = Duration::from_secs(86_400);

pub use disco::Estado as Disco;

/// For how long things are kept, and in how much.
#[derive(Debug, Clone, Copy)]
pub struct Ajustes {
    /// Readings.
    pub lecturas: Duration,
    /// Hours.
    pub horas: Duration,
    /// Refusals.
    pub rechazos: Duration,
    /// The audit.
    pub auditoria: Duration,
    /// Bytes of the database; 0 = as many as there are.
    pub disco: u64,
}

/// What the tasks work with; cheap to clone.
#[derive(Clone)]
pub struct Mantenimiento {
    store: Store,
    ingest: Ingest,
    clock: Arc<dyn Clock>,
    ajustes: Ajustes,
    disco: watch::Sender<Disco>,
    parar: CancellationToken,
}

impl Mantenimiento {
    /// From its parts; works until `parar` is cancelled.
    #[must_use]
    pub fn new(
        store: Store,
        ingest: Ingest,
        clock: Arc<dyn Clock>,
        ajustes: Ajustes,
        parar: CancellationToken,
    ) -> Self {
        let (disco, _) = watch::channel(Disco { maximo: ajustes.disco, ..Disco::default() });
        Self { store, ingest, clock, ajustes, disco, parar }
    }

    /// How the disk stands, from now on.
    #[must_use]
    pub fn disco(&self) -> watch::Receiver<Disco> {
        self.disco.subscribe()
    }

    /// By what moment history is forgotten: the clock's, but no more than a day after the newest reading.
    /// What goes does not come back when a clock that was years ahead is put right.
    async fn hora_de_olvidar(&self) -> store::Result<Timestamp> {
        let mut tx = self.store.read().await?;
        let ultima = store::lecturas::newest(&mut tx).await?;
        tx.commit().await?;
        let ahora = self.clock.now();
        Ok(ultima.map_or(ahora, |ts| ahora.min(ts.plus(UN_DIA))))
    }

    /// Sums hours as they close, and the past of what was stored before there were sums.
    pub async fn sum_hours(self) {
        horas::run(self).await;
    }

    /// Forgets what is past its days.
    pub async fn forget(self) {
        retencion::run(self).await;
    }

    /// Keeps to the disk budget.
    pub async fn keep_to_disk(self) {
        disco::run(self).await;
    }
}
