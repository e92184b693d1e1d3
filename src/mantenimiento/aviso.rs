//! Tells an empresa that its history goes before its time: one alert, which closes itself once a day has
//! passed without that.
//!
//! Whether its people know is asked of the store, so that a restart makes no difference. They do while an
//! alert is open, and for a day after somebody closed it; after that, if history still goes, they are told
//! again.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::timeout;

use super::{Mantenimiento, UN_DIA};
use crate::alertas;
use crate::domain::{Alerta, EstadoAlerta, Timestamp};
use crate::ingest::Resolver;
use crate::store;
use crate::store::auditoria::Autor;
use crate::store::sensores::Alcance;

/// How long the writer may take to open or close an alert: it may be waiting for the room that is being made.
const DECIRLO: Duration = Duration::from_secs(2);
/// When it is asked again whether an empresa's people know; when it is tried again to tell them.
const REPASO: Duration = Duration::from_secs(600);
const REINTENTO: Duration = Duration::from_secs(60);

/// Who gave, and who has been told.
#[derive(Debug, Default)]
pub(super) struct Avisos {
    /// When each empresa last gave.
    dieron: HashMap<i64, Timestamp>,
    /// Until when it is not asked again whether its people know.
    hasta: HashMap<i64, Timestamp>,
}

/// What an empresa is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aviso {
    /// Which empresa.
    pub(super) id_empresa: i64,
    /// Whose alert it is to be: of its sensors in use, the one with the oldest history.
    pub(super) id_sensor: Option<i64>,
    /// Bytes in use.
    pub(super) usado: u64,
}

impl Avisos {
    /// Goes on with the alerts that are open: a day from now they close, unless history goes again.
    pub(super) async fn load(m: &Mantenimiento) -> store::Result<Self> {
        let ahora = m.clock.now();
        let dieron = open(m).await?.into_iter().map(|a| (a.id_empresa, ahora)).collect();
        Ok(Self { dieron, hasta: HashMap::new() })
    }

    /// History of an empresa goes; its people are told unless they know. Not at the price of making room:
    /// when it cannot be said now, it is tried again later.
    pub(super) async fn gave(&mut self, m: &Mantenimiento, aviso: Aviso) {
        let ahora = m.clock.now();
        self.dieron.insert(aviso.id_empresa, ahora);
        if self.hasta.get(&aviso.id_empresa).is_some_and(|hasta| ahora < *hasta) {
            return;
        }
        let espera = match timeout(DECIRLO, tell(m, aviso, ahora)).await {
            Ok(Ok(())) => REPASO,
            Ok(Err(e)) => {
                tracing::warn!(error = %e, "an empresa cannot be told that its history goes");
                REINTENTO
            }
            Err(_) => {
                tracing::warn!("an empresa cannot be told now that its history goes");
                REINTENTO
            }
        };
        self.hasta.insert(aviso.id_empresa, ahora.plus(espera));
    }

    /// Closes the alerts of those whose history has been left alone for a day.
    pub(super) async fn close(&mut self, m: &Mantenimiento) -> store::Result<()> {
        let ahora = m.clock.now();
        let pasados: Vec<i64> = self
            .dieron
            .iter()
            .filter(|(_, cuando)| ahora.since(**cuando) >= UN_DIA)
            .map(|(id, _)| *id)
            .collect();
        if pasados.is_empty() {
            return Ok(());
        }
        for Alerta { id_alerta, id_empresa, .. } in open(m).await? {
            if !pasados.contains(&id_empresa) {
                continue;
            }
            let pedido = Resolver {
                id_alerta,
                estado: EstadoAlerta::Resuelta,
                por: Autor::servidor(id_empresa, ahora),
                notas: None,
            };
            match timeout(DECIRLO, m.ingest.resolver(pedido)).await {
                Ok(resuelta) => drop(resuelta?),
                // The writer is held up; the next round finds them again.
                Err(_) => return Ok(()),
            }
        }
        for id_empresa in pasados {
            self.dieron.remove(&id_empresa);
            self.hasta.remove(&id_empresa);
        }
        Ok(())
    }
}

async fn open(m: &Mantenimiento) -> store::Result<Vec<Alerta>> {
    let mut tx = m.store.read().await?;
    let abiertas = store::alertas::open_of_kind(&mut tx, alertas::ALMACENAMIENTO).await?;
    tx.commit().await?;
    Ok(abiertas)
}

async fn tell(m: &Mantenimiento, aviso: Aviso, ahora: Timestamp) -> store::Result<()> {
    let Aviso { id_empresa, id_sensor, usado } = aviso;
    let mut tx = m.store.read().await?;
    let ultima = store::alertas::newest_of_kind(&mut tx, id_empresa, alertas::ALMACENAMIENTO).await?;
    let alcance = Alcance { id_empresa, id_trabajador: None };
    let sensor = match id_sensor {
        Some(id) => store::sensores::get(&mut tx, alcance, id).await?,
        None => None,
    };
    tx.commit().await?;
    if ultima.is_some_and(|a| known(&a, ahora)) {
        return Ok(());
    }
    let Some(sensor) = sensor else {
        // An alert is a sensor's.
        tracing::warn!(id_empresa, "the history of an empresa without a sensor in use goes before its time");
        return Ok(());
    };
    let alerta = alertas::almacenamiento(&sensor.quien, usado, m.ajustes.disco, ahora);
    m.ingest.abrir_alerta(sensor.quien, alerta).await
}

/// Whether it still tells people what they have to know.
fn known(alerta: &Alerta, ahora: Timestamp) -> bool {
    alerta.estado.abierta() || ahora.since(alerta.fecha_resolucion.unwrap_or(alerta.fecha_creacion)) < UN_DIA
}
