//! What the database will never take: recorded first, then answered as refused.

use std::collections::BTreeSet;

use metrics::counter;

use super::Writer;
use crate::domain::{Lectura, Motivo, Rechazo, Timestamp};
use crate::ingest::batcher::{Encargo, Pendiente};
use crate::ingest::mensaje::{Mensaje, Resultado};
use crate::store;

impl Writer {
    /// Records what the database will not take, for whoever looks for it.
    pub(super) async fn registra(&self, parte: &[Pendiente]) -> store::Result<()> {
        let mut tx = self.store.write_first().await?;
        let mensajes = parte.iter().filter_map(Pendiente::mensaje);
        let rechazos: Vec<_> = mensajes
            .flat_map(|m| no_admitidas(m).into_iter().map(|r| (m.sensor.id_sensor, m.recibido, r)))
            .collect();
        match self.anota_rechazos(&mut tx, &rechazos).await {
            // The sensor is gone, and its refusals with it.
            Err(store::Error::Refused(_)) => return Ok(()),
            hecho => hecho?,
        }
        tx.commit().await
    }

    pub(super) async fn anota_rechazos(
        &self,
        tx: &mut store::Tx,
        rechazos: &[(i64, Timestamp, Rechazo)],
    ) -> store::Result<()> {
        store::rechazos::record(tx, rechazos).await?;
        let sensores: BTreeSet<i64> = rechazos.iter().map(|(id_sensor, ..)| *id_sensor).collect();
        // More than came: where fewer are kept than before, the others go little by little.
        let como_mucho = i64::try_from(rechazos.len() * 2).unwrap_or(i64::MAX);
        store::rechazos::trim(tx, &sensores, self.ajustes.rechazos_por_sensor, como_mucho).await
    }
}

/// What becomes of a message that the database will never take.
fn no_admitidas(mensaje: &Mensaje) -> Vec<Rechazo> {
    let de = |l: &Lectura| Rechazo::new(Motivo::Almacen, None, l.ts, &l.valores.to_json());
    mensaje.rechazos.iter().cloned().chain(mensaje.lecturas.iter().map(de)).collect()
}

/// What the database will never take, once that is recorded: answered as refused.
pub(super) fn rechaza(parte: Vec<Pendiente>, e: store::Error) {
    let mut e = Some(e);
    for pendiente in parte {
        match pendiente.encargo {
            Encargo::Mensaje(mensaje, responde) => {
                tracing::warn!(device_id = %mensaje.sensor.device_id, error = ?e, "a message was refused by the database");
                let rechazos = no_admitidas(&mensaje);
                counter!("alertrace_readings_total", "result" => "refused").increment(rechazos.len() as u64);
                counter!("alertrace_ingest_messages_total", "result" => "refused").increment(1);
                let _ = responde.send(Resultado { rechazos, ..Resultado::default() });
            }
            Encargo::Cambios(_, responde) => {
                tracing::error!(error = ?e, "what the broker keeps was refused by the database");
                let _ = responde.send(e.take().map_or(Ok(()), Err));
            }
        }
    }
}
