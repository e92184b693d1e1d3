//! What the writer knows of every sensor: its newest values and its open alerts.
//!
//! Changed only after a commit; after a commit whose outcome is not known it is read again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;

use super::ultimas::Ultimas;
use super::vigentes::Vigentes;
use crate::alertas::{Abierta, Umbrales};
use crate::domain::{SensorRef, Timestamp, Valores, Variable};
use crate::store::{self, Store};

/// One sensor.
#[derive(Debug, Clone, Default)]
pub(super) struct Sensor {
    /// The newest reading's moment and the newest value of each variable.
    pub(super) ultima: Option<(Timestamp, Valores)>,
    /// Names of other variables that it has sent since the start, of those that are not in the contract.
    pub(super) otras: Arc<BTreeSet<Variable>>,
    /// At most one a variable.
    pub(super) abiertas: Vec<Abierta>,
}

impl Sensor {
    /// Whether a variable may be stored: one of the contract, or one of the first `max` names that the
    /// sensor has invented. All are in the history of each of its hours, and a column of its exports.
    pub(super) fn admite(&mut self, variable: &Variable, max: usize) -> bool {
        let vigentes = self.ultima.as_ref().map(|(_, valores)| valores);
        if variable.rango_fisico().is_some()
            || self.otras.contains(variable)
            || vigentes.is_some_and(|v| v.get(variable).is_some())
        {
            return true;
        }
        let solo_vigentes = vigentes.map_or(0, |v| v.iter().filter(|(v, _)| !self.otras.contains(v)).count());
        let cabe = self.otras.len() + solo_vigentes < max;
        if cabe {
            Arc::make_mut(&mut self.otras).insert(variable.clone());
        }
        cabe
    }

    pub(super) fn abierta(&self, tipo: &str) -> Option<&Abierta> {
        self.abiertas.iter().find(|a| a.alerta.tipo_alerta == tipo)
    }

    /// Puts `abierta` in place of the one of its variable, or takes it away once it is closed.
    pub(super) fn pon(&mut self, abierta: Abierta) {
        self.abiertas.retain(|a| a.alerta.tipo_alerta != abierta.alerta.tipo_alerta);
        if abierta.alerta.estado.abierta() {
            self.abiertas.push(abierta);
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Vivo {
    sensores: HashMap<i64, Sensor>,
    /// Of the newest values, what others count.
    pub(super) ultimas: Arc<Ultimas>,
    pub(super) umbrales: Vigentes,
    /// How long the readings of an empresa are kept, where that is its own matter.
    retenciones: HashMap<i64, Duration>,
    retirados: HashSet<i64>,
    /// Open alerts, of all of them.
    abiertas: usize,
    /// The newest moment stored: what the machine's clock is held against.
    pub(super) mas_nueva: Option<Timestamp>,
}

impl Vivo {
    pub(super) async fn load(store: &Store) -> store::Result<Self> {
        let mut tx = store.read().await?;
        let mut vivo = Self { mas_nueva: store::lecturas::newest(&mut tx).await?, ..Self::default() };
        for fila in store::lecturas::latest(&mut tx).await? {
            vivo.sensores.entry(fila.id_sensor).or_default().ultima = Some((fila.ts, fila.valores));
        }
        for (alerta, dentro) in store::alertas::all_open(&mut tx).await? {
            vivo.abiertas += 1;
            vivo.sensores.entry(alerta.id_sensor).or_default().abiertas.push(Abierta { alerta, dentro });
        }
        vivo.umbrales = Vigentes::load(&mut tx).await?;
        vivo.retenciones = retenciones(&mut tx).await?;
        tx.commit().await?;
        vivo.ultimas.pon(dichas(&vivo.sensores));
        vivo.mide();
        Ok(vivo)
    }

    /// Reads again what may have changed behind a commit of unknown outcome; who was retired since
    /// the start stays retired.
    pub(super) async fn reload(&mut self, store: &Store) -> store::Result<()> {
        let nuevo = Self::load(store).await?;
        self.ultimas.pon(dichas(&nuevo.sensores));
        let (ultimas, retirados) = (self.ultimas.clone(), std::mem::take(&mut self.retirados));
        *self = Self { ultimas, retirados, ..nuevo };
        Ok(())
    }

    pub(super) fn sensor(&self, id_sensor: i64) -> Sensor {
        self.sensores.get(&id_sensor).cloned().unwrap_or_default()
    }

    pub(super) fn umbrales(&self, sensor: &SensorRef) -> Arc<Umbrales> {
        self.umbrales.de(sensor)
    }

    pub(super) async fn recarga_retenciones(&mut self, store: &Store) -> store::Result<()> {
        let mut tx = store.read().await?;
        self.retenciones = retenciones(&mut tx).await?;
        tx.commit().await
    }

    /// How long the readings of an empresa are kept; `None` = as long as any.
    pub(super) fn retencion(&self, id_empresa: i64) -> Option<Duration> {
        self.retenciones.get(&id_empresa).copied()
    }

    pub(super) fn retira(&mut self, id_sensor: i64) {
        self.retirados.insert(id_sensor);
        let ido = self.sensores.remove(&id_sensor);
        self.abiertas -= ido.map_or(0, |s| s.abiertas.len());
        self.mide();
        self.ultimas.quita(id_sensor);
    }

    /// A sensor that was retired is in use again: what the store says of it holds.
    pub(super) async fn reincorpora(&mut self, store: &Store, id_sensor: i64) -> store::Result<()> {
        if self.retirados.contains(&id_sensor) {
            self.reload(store).await?;
            self.retirados.remove(&id_sensor);
        }
        Ok(())
    }

    pub(super) fn retirado(&self, id_sensor: i64) -> bool {
        self.retirados.contains(&id_sensor)
    }

    /// Takes over what a committed batch made of its sensors.
    pub(super) fn confirma(&mut self, sensores: HashMap<i64, Sensor>) {
        self.ultimas.pon(dichas(&sensores));
        for (id, sensor) in sensores {
            if let Some((ts, _)) = &sensor.ultima {
                self.mas_nueva = self.mas_nueva.max(Some(*ts));
            }
            self.abiertas += sensor.abiertas.len();
            let antes = self.sensores.insert(id, sensor);
            self.abiertas -= antes.map_or(0, |s| s.abiertas.len());
        }
        self.mide();
    }

    fn mide(&self) {
        gauge!("alertrace_alerts_open").set(u32::try_from(self.abiertas).unwrap_or(u32::MAX));
    }

    /// The newest moment of a sensor.
    pub(super) fn ultima(&self, id_sensor: i64) -> Option<Timestamp> {
        self.sensores.get(&id_sensor)?.ultima.as_ref().map(|(ts, _)| *ts)
    }

    /// The newest value of a variable of a sensor.
    pub(super) fn ultimo_valor(&self, id_sensor: i64, variable: &Variable) -> Option<f64> {
        self.sensores.get(&id_sensor)?.ultima.as_ref()?.1.get(variable)
    }
}

/// What each said last.
fn dichas(sensores: &HashMap<i64, Sensor>) -> impl Iterator<Item = (i64, &(Timestamp, Valores))> {
    sensores.iter().filter_map(|(id, sensor)| Some((*id, sensor.ultima.as_ref()?)))
}

async fn retenciones(tx: &mut store::Tx) -> store::Result<HashMap<i64, Duration>> {
    let todas = store::empresas::retentions(tx).await?.into_iter();
    Ok(todas.filter_map(|r| Some((r.id_empresa, store::empresas::days(r.dias)?))).collect())
}
