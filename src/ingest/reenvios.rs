//! Which stored reading a redelivery without a timestamp repeats.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Timestamp, Valores};
use crate::store::lecturas::{self, Orden};
use crate::store::{self, Tx};

/// A redelivery (DUP) without a timestamp counts as a reading stored within this time.
const REENVIO: Duration = Duration::from_secs(120);
/// Readings looked at; a device that sends faster than this a second gives timestamps.
const FILAS: i64 = 1_000;

/// Where a reading is that is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ya {
    /// Earlier in the same batch.
    EnLote(Timestamp),
    /// In the store.
    Guardada(Timestamp),
}

/// What the sensors of one batch sent in the last minutes. However many of its messages a sensor sends again, the store
/// is asked once for it, and nothing of what it answers is parsed: the same values are the same text.
#[derive(Debug, Default)]
pub(super) struct Reenvios(HashMap<i64, Recientes>);

#[derive(Debug, Default)]
struct Recientes {
    en_lote: HashMap<Arc<str>, Timestamp>,
    guardadas: Option<HashMap<String, Timestamp>>,
}

impl Reenvios {
    /// A reading of the batch was given this moment.
    pub(super) fn recuerda(&mut self, id_sensor: i64, valores: &Valores, ts: Timestamp) {
        self.0.entry(id_sensor).or_default().en_lote.entry(valores.json()).or_insert(ts);
    }

    /// Where the reading is that this one repeats, if it was made in the last two minutes.
    pub(super) async fn busca(
        &mut self,
        tx: &mut Tx,
        id_sensor: i64,
        valores: &Valores,
        recibido: Timestamp,
    ) -> store::Result<Option<Ya>> {
        let Recientes { en_lote, guardadas } = self.0.entry(id_sensor).or_default();
        let texto = valores.json();
        if let Some(ts) = en_lote.get(&texto) {
            return Ok(Some(Ya::EnLote(*ts)));
        }
        let desde = recibido.minus(REENVIO);
        let guardadas = match guardadas {
            Some(guardadas) => guardadas,
            nada => nada.insert(recent(tx, id_sensor, desde).await?),
        };
        let ya = guardadas.get(&*texto).filter(|ts| **ts >= desde);
        Ok(ya.map(|ts| Ya::Guardada(*ts)))
    }
}

/// The newest moment of each text that a sensor has stored since `desde`.
async fn recent(tx: &mut Tx, id_sensor: i64, desde: Timestamp) -> store::Result<HashMap<String, Timestamp>> {
    let tira = lecturas::tira(tx, id_sensor, desde, Timestamp::MAX, Orden::Descendente, FILAS).await?;
    let mut guardadas = HashMap::new();
    for (ts, texto) in tira.iter() {
        guardadas.entry(texto.to_owned()).or_insert(ts);
    }
    Ok(guardadas)
}
