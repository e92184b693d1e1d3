//! Sensors for which a person has asked something of the device: a command, another configuration.
//! What was asked is in the store; here is only whose turn it is to be looked at.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// See the module; cheap to clone. Bounded by the number of sensors.
#[derive(Debug, Clone, Default)]
pub struct Pedidos(Arc<(Mutex<HashSet<i64>>, Notify)>);

impl Pedidos {
    /// There is something for a sensor.
    pub fn marca(&self, id_sensor: i64) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id_sensor);
        self.0.1.notify_one();
    }

    /// Waits until there is something; answers for whom.
    pub async fn toma(&self) -> HashSet<i64> {
        loop {
            let tomados = std::mem::take(&mut *self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
            if !tomados.is_empty() {
                return tomados;
            }
            self.0.1.notified().await;
        }
    }
}
