//! One try to commit a batch: settle its moments, judge it, write it, commit.

use std::collections::{HashMap, HashSet};

use super::Writer;
use crate::domain::Timestamp;
use crate::ingest::batcher::{Encargo, Pendiente};
use crate::ingest::duda::Duda;
use crate::ingest::lote::{AlertaTocada, Clave, Hecho, Lote};
use crate::ingest::reenvios::{Reenvios, Ya};
use crate::ingest::vivo::Vivo;
use crate::realtime::rutas::{Preparada, Salida};
use crate::realtime::{Evento, Que};
use crate::store;
use crate::store::lecturas::Fila;
use crate::store::mqtt::Cambio;

impl Writer {
    /// Reads again what a commit of unknown outcome may have changed, before anything builds on it.
    pub(super) async fn despeja(&mut self) -> store::Result<()> {
        if self.dudoso {
            self.vivo.reload(&self.store).await?;
            self.reloj.guardada(self.vivo.mas_nueva);
            self.dudoso = false;
        }
        Ok(())
    }

    /// One try: settle the moments, see what is stored already, evaluate, write, commit. None of that when the
    /// last try, of which there is `duda`, turns out to be stored.
    pub(super) async fn intenta(
        &mut self,
        parte: &mut Vec<Pendiente>,
        duda: &mut Option<Duda>,
    ) -> store::Result<Hecho> {
        let mut tx = self.store.write_first().await?;
        // Not before: the commit of unknown outcome may have been on its way until the turn was ours.
        self.despeja().await?;
        if let Some(dudosa) = duda {
            let consta = dudosa.testigo.consta(&mut tx).await?;
            if let Some(dudosa) = duda.take().filter(|_| consta) {
                tracing::info!("a commit of unknown outcome was one");
                return Ok(dudosa.hecho);
            }
            parte.retain(|p| !p.abandonado());
        }
        let existentes = self.fija_momentos(&mut tx, parte).await?;
        let mut lote = Lote::new(existentes);
        let (mut cambios, mut por_decir): (Vec<&Cambio>, Vec<Preparada>) = (Vec::new(), Vec::new());
        for pendiente in parte.iter() {
            match &pendiente.encargo {
                Encargo::Mensaje(mensaje, _) => {
                    if lote.agrega(&self.vivo, mensaje).aceptadas > 0 {
                        cambios.extend(&mensaje.al_aceptar);
                        let payload = mensaje.por_decir.clone();
                        por_decir.extend(payload.and_then(|p| self.rutas.lectura(&mensaje.sensor, p)));
                    }
                }
                Encargo::Cambios(suyos, _) => cambios.extend(&suyos.cambios),
            }
        }
        let mut paginas = lote.paginas() + cambios.len();
        store::mqtt::apply(&mut tx, cambios).await?;
        let filas = lote.filas();
        store::lecturas::write(&mut tx, &filas).await?;
        // Held to after the commit: nobody takes a mark between it and our remembering it.
        let mut marcas = self.store.marcas().lock().await;
        let por_marcar = marcas.faltan(filas.iter().map(|f| (f.id_sensor, f.ts.hora())));
        store::horas::mark(&mut tx, &por_marcar).await?;
        store::lecturas::write_latest(&mut tx, &lote.ultimas()).await?;
        anota_alertas(&mut tx, &mut lote.tocadas).await?;
        self.anota_rechazos(&mut tx, &lote.rechazos).await?;
        let mut hecho = lote.hecho();
        por_decir.extend(hecho.eventos.iter().filter_map(|e| self.por_decir(e)));
        let cambios;
        (cambios, hecho.salidas) = reune(por_decir);
        store::mqtt::apply(&mut tx, &cambios).await?;
        paginas += cambios.len();
        if let Err(e) = tx.commit().await {
            if matches!(e, store::Error::Undecided(_)) {
                *duda = Duda::new(hecho, filas);
            }
            return Err(e);
        }
        marcas.recuerda(por_marcar);
        drop(marcas);
        self.store.wrote(paginas as u64);
        Ok(hecho)
    }

    /// What subscribers are to be told of an event: of alerts. Readings are told by whoever took them in.
    pub(super) fn por_decir(&self, evento: &Evento) -> Option<Preparada> {
        matches!(evento.que, Que::Alerta(..)).then(|| self.rutas.alerta(evento)).flatten()
    }

    /// Gives every reading its moment, for good: what a device left out is the moment of arrival,
    /// unique per sensor to the microsecond; or, for a redelivery, that of the reading that is
    /// stored already. Answers what is stored under the keys of the batch.
    async fn fija_momentos(&self, tx: &mut store::Tx, parte: &mut [Pendiente]) -> store::Result<Vec<Fila>> {
        // Only a key that is not newer than the sensor's newest can be stored already.
        let mut ultimas: HashMap<i64, Option<Timestamp>> = HashMap::new();
        let mut ultima = |vivo: &Vivo, id| *ultimas.entry(id).or_insert_with(|| vivo.ultima(id));
        let (mut dadas, mut por_mirar): (HashSet<Clave>, Vec<Clave>) = (HashSet::new(), Vec::new());
        for mensaje in parte.iter().filter_map(Pendiente::mensaje) {
            let id = mensaje.sensor.id_sensor;
            for ts in mensaje.lecturas.iter().filter_map(|l| l.ts) {
                if dadas.insert((id, ts)) && ultima(&self.vivo, id).is_some_and(|u| ts <= u) {
                    por_mirar.push((id, ts));
                }
            }
        }
        let mut existentes = store::lecturas::existing(tx, &por_mirar).await?;
        let mut reenvios = Reenvios::default();
        let hay_dup = parte.iter().filter_map(Pendiente::mensaje).any(|m| m.dup);
        for mensaje in parte.iter_mut().filter_map(Pendiente::mensaje_mut) {
            let id = mensaje.sensor.id_sensor;
            for lectura in mensaje.lecturas.iter_mut().filter(|l| l.ts.is_none()) {
                if mensaje.dup {
                    match reenvios.busca(tx, id, &lectura.valores, mensaje.recibido).await? {
                        Some(Ya::EnLote(ts)) => {
                            lectura.ts = Some(ts);
                            continue;
                        }
                        Some(Ya::Guardada(ts)) => {
                            lectura.ts = Some(ts);
                            existentes.push(Fila { id_sensor: id, ts, valores: lectura.valores.clone() });
                            continue;
                        }
                        None => {}
                    }
                }
                let mut ts = mensaje.recibido;
                loop {
                    while dadas.contains(&(id, ts)) {
                        ts = ts.next();
                    }
                    if ultima(&self.vivo, id).is_none_or(|u| ts > u)
                        || store::lecturas::existing(tx, &[(id, ts)]).await?.is_empty()
                    {
                        break;
                    }
                    ts = ts.next();
                }
                dadas.insert((id, ts));
                lectura.ts = Some(ts);
                if hay_dup {
                    reenvios.recuerda(id, &lectura.valores, ts);
                }
            }
        }
        Ok(existentes)
    }
}

/// Writes what a batch made of alerts; those that are new get their keys.
async fn anota_alertas(tx: &mut store::Tx, tocadas: &mut [AlertaTocada]) -> store::Result<()> {
    let de = |nueva| {
        let suyas = tocadas.iter().filter(move |t| t.nueva == nueva);
        suyas.map(|t| (&t.abierta.alerta, t.abierta.dentro)).collect::<Vec<_>>()
    };
    // Those that close first: another of the same sensor and variable may have opened since.
    store::alertas::update_all(tx, &de(false)).await?;
    let claves = store::alertas::create_all(tx, &de(true)).await?;
    for (tocada, clave) in tocadas.iter_mut().filter(|t| t.nueva).zip(claves) {
        tocada.abierta.alerta.id_alerta = clave;
    }
    Ok(())
}

/// What is to be committed of messages, and the messages.
pub(super) fn reune(preparadas: impl IntoIterator<Item = Preparada>) -> (Vec<Cambio>, Vec<Salida>) {
    let (cambios, salidas): (Vec<_>, Vec<_>) = preparadas.into_iter().unzip();
    (cambios.into_iter().flatten().collect(), salidas)
}
