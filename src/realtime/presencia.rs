//! Which devices are connected right now.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use crate::domain::Conexion;

/// Written by the broker, read by whoever shows a sensor. Every connection has a number of its own,
/// so that the late loss of an old one never overwrites a new one.
#[derive(Debug, Default)]
pub struct Presencia(RwLock<HashMap<i64, HashSet<u64>>>);

impl Presencia {
    /// The state of a sensor's connection.
    #[must_use]
    pub fn conexion(&self, id_sensor: i64) -> Conexion {
        let mapa = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match mapa.get(&id_sensor) {
            None => Conexion::Desconocida,
            Some(vivas) if vivas.is_empty() => Conexion::Offline,
            Some(_) => Conexion::Online,
        }
    }

    /// Connection number `conexion` of a sensor came; answers whether it is the first one alive.
    pub fn llega(&self, id_sensor: i64, conexion: u64) -> bool {
        let mut mapa = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let vivas = mapa.entry(id_sensor).or_default();
        let primera = vivas.is_empty();
        vivas.insert(conexion) && primera
    }

    /// A sensor that was connected before the server started has not come back.
    pub fn falta(&self, id_sensor: i64) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(id_sensor).or_default();
    }

    /// Connection number `conexion` of a sensor went; answers whether it was the last one alive.
    pub fn se_va(&self, id_sensor: i64, conexion: u64) -> bool {
        let mut mapa = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let vivas = mapa.entry(id_sensor).or_default();
        vivas.remove(&conexion) && vivas.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_loss_does_not_overwrite_a_reconnection() {
        let presencia = Presencia::default();
        assert!(presencia.llega(7, 1));
        assert!(!presencia.llega(7, 2));
        assert!(!presencia.se_va(7, 1));
        assert_eq!(presencia.conexion(7), Conexion::Online);
        assert!(!presencia.se_va(7, 1));
        assert!(presencia.se_va(7, 2));
        assert_eq!(presencia.conexion(7), Conexion::Offline);
        assert_eq!(presencia.conexion(8), Conexion::Desconocida);
    }
}
