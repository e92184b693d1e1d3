//! The newest figures of every sensor, for whoever counts over many of them: in memory, because a site may have
//! a hundred thousand, and what the store has would have to be read and parsed for each question.
//!
//! Written by the writer after a commit and before it is answered; a few numbers a sensor.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::domain::{Timestamp, Valores, Variable};

/// See the module.
#[derive(Debug, Default)]
pub struct Ultimas(RwLock<HashMap<i64, Cifras>>);

/// What is counted of one sensor.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cifras {
    ts: Timestamp,
    temperatura: Option<f64>,
    humedad: Option<f64>,
}

/// What some sensors come to; a mean of nothing is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Promedios {
    /// Of the newest temperatures, °C.
    pub temperatura: Option<f64>,
    /// Of the newest humidities of the air, %.
    pub humedad: Option<f64>,
    /// The newest moment.
    pub momento: Option<Timestamp>,
}

/// A sum and what it is of.
#[derive(Default)]
struct Suma(f64, u32);

impl Suma {
    fn agrega(&mut self, valor: Option<f64>) {
        if let Some(valor) = valor {
            self.0 += valor;
            self.1 += 1;
        }
    }

    fn media(&self) -> Option<f64> {
        (self.1 > 0).then(|| self.0 / f64::from(self.1))
    }
}

impl Ultimas {
    /// Takes over what these sensors said last.
    pub(super) fn pon<'a>(&self, dichas: impl Iterator<Item = (i64, &'a (Timestamp, Valores))>) {
        let mut todas = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (id_sensor, (ts, valores)) in dichas {
            let temperatura = valores.get(&Variable::TEMPERATURA);
            let humedad = valores.get(&Variable::HUMEDAD_AIRE);
            todas.insert(id_sensor, Cifras { ts: *ts, temperatura, humedad });
        }
    }

    /// A sensor is not in use any more.
    pub(super) fn quita(&self, id_sensor: i64) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&id_sensor);
    }

    /// What these sensors come to.
    #[must_use]
    pub fn promedios(&self, sensores: &[i64]) -> Promedios {
        let (mut temperatura, mut humedad, mut momento) = (Suma::default(), Suma::default(), None);
        let todas = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for cifras in sensores.iter().filter_map(|id| todas.get(id)) {
            temperatura.agrega(cifras.temperatura);
            humedad.agrega(cifras.humedad);
            momento = momento.max(Some(cifras.ts));
        }
        Promedios { temperatura: temperatura.media(), humedad: humedad.media(), momento }
    }
}
