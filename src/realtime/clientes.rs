//! Who is connected by MQTT, who was, and who is not let in: when a device does not show up, this says
//! why. Written by the broker, read by whoever shows it; bounded, and forgotten when the process ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::domain::{SensorRef, Timestamp};

/// Ends of connections, and failed sign-ins, that are remembered.
const RECUERDO: usize = 10_000;
/// Characters that are kept of why somebody was not let in.
const MAX_MOTIVO: usize = 200;

/// Whose a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quien {
    /// A device.
    Dispositivo(SensorRef),
    /// A person.
    Usuario {
        /// The identity provider's key.
        user_id: String,
        /// The tenant.
        id_empresa: Option<i64>,
    },
    /// A program.
    Llave {
        /// The row of its key.
        id_api_key: i64,
        /// The tenant.
        id_empresa: i64,
    },
    /// Nobody in particular (`mqtt.open`).
    Anonimo,
}

/// What a connection has carried, in both directions.
#[derive(Debug, Default)]
pub struct Cuentas {
    /// PUBLISH packets of the client.
    pub recibidos: AtomicU64,
    /// PUBLISH packets to the client.
    pub enviados: AtomicU64,
    /// Of the client's, those that were refused.
    pub rechazados: AtomicU64,
    /// Bytes of the client.
    pub bytes_recibidos: AtomicU64,
    /// Bytes to the client.
    pub bytes_enviados: AtomicU64,
}

/// Adds to a count that nobody orders anything by.
pub fn suma(cuenta: &AtomicU64, n: u64) {
    cuenta.fetch_add(n, Ordering::Relaxed);
}

/// A connection.
#[derive(Debug)]
pub struct Cliente {
    /// No other has it.
    pub numero: u64,
    /// Whose.
    pub quien: Quien,
    /// By which identifier.
    pub client_id: String,
    /// From where.
    pub ip: IpAddr,
    /// `tcp`, `tls` or `websocket`.
    pub via: &'static str,
    /// `3.1.1` or `5.0`.
    pub version: &'static str,
    /// Seconds; 0 = none.
    pub keep_alive: u16,
    /// Since when.
    pub desde: Timestamp,
    /// What it has carried.
    pub cuentas: Cuentas,
    /// Cancelled by an administrator: it ends.
    pub corte: CancellationToken,
}

/// A connection that is over.
#[derive(Debug, Clone)]
pub struct Ido {
    /// It.
    pub cliente: Arc<Cliente>,
    /// When it ended.
    pub hasta: Timestamp,
    /// Why; `None` when it took leave.
    pub motivo: Option<String>,
}

/// Sign-ins that failed under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fallo {
    /// From where, the last time.
    pub ip: IpAddr,
    /// When, the last time.
    pub momento: Timestamp,
    /// Why, the last time.
    pub motivo: String,
    /// How many times.
    pub veces: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Clientes {
    vivos: Mutex<HashMap<u64, Arc<Cliente>>>,
    idos: Mutex<HashMap<(String, String), Ido>>,
    fallos: Mutex<HashMap<String, Fallo>>,
    /// Of all connections since the start.
    pub totales: Cuentas,
}

fn cerrojo<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it is held cannot leave half a change: each change is one map operation.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clientes {
    /// A client was let in.
    pub fn llega(&self, cliente: Arc<Cliente>) {
        if let Quien::Dispositivo(sensor) = &cliente.quien {
            cerrojo(&self.fallos).remove(sensor.device_id.as_str());
        }
        cerrojo(&self.idos).remove(&clave(&cliente));
        cerrojo(&self.vivos).insert(cliente.numero, cliente);
    }

    /// Its connection is over.
    pub fn se_va(&self, cliente: &Arc<Cliente>, hasta: Timestamp, motivo: Option<String>) {
        cerrojo(&self.vivos).remove(&cliente.numero);
        let mut idos = cerrojo(&self.idos);
        olvida_uno(&mut idos, |i| i.hasta);
        idos.insert(clave(cliente), Ido { cliente: cliente.clone(), hasta, motivo });
    }

    /// Somebody who called himself `usuario` was not let in.
    pub fn falla(&self, usuario: &str, ip: IpAddr, momento: Timestamp, motivo: &str) {
        let mut fallos = cerrojo(&self.fallos);
        let usuario: String = usuario.chars().take(64).collect();
        // It may quote what the client said.
        let motivo: String = motivo.chars().take(MAX_MOTIVO).collect();
        if !fallos.contains_key(&usuario) {
            olvida_uno(&mut fallos, |f| f.momento);
        }
        let nuevo = Fallo { ip, momento, motivo: String::new(), veces: 0 };
        let fallo = fallos.entry(usuario).or_insert(nuevo);
        (fallo.ip, fallo.momento, fallo.veces) = (ip, momento, fallo.veces + 1);
        fallo.motivo = motivo;
    }

    /// All that are connected.
    #[must_use]
    pub fn vivos(&self) -> Vec<Arc<Cliente>> {
        let mut vivos: Vec<_> = cerrojo(&self.vivos).values().cloned().collect();
        vivos.sort_by_key(|c| c.numero);
        vivos
    }

    /// The connection with this number.
    #[must_use]
    pub fn vivo(&self, numero: u64) -> Option<Arc<Cliente>> {
        cerrojo(&self.vivos).get(&numero).cloned()
    }

    /// How many are connected.
    #[must_use]
    pub fn cuantos(&self) -> usize {
        cerrojo(&self.vivos).len()
    }

    /// The last end of each that is not connected now.
    #[must_use]
    pub fn idos(&self) -> Vec<Ido> {
        let mut idos: Vec<_> = cerrojo(&self.idos).values().cloned().collect();
        idos.sort_by_key(|i| std::cmp::Reverse(i.hasta));
        idos
    }

    /// Failed sign-ins by the name that was given.
    #[must_use]
    pub fn fallos(&self) -> Vec<(String, Fallo)> {
        let mut fallos: Vec<_> = cerrojo(&self.fallos).iter().map(|(u, f)| (u.clone(), f.clone())).collect();
        fallos.sort_by_key(|(_, f)| std::cmp::Reverse(f.momento));
        fallos
    }
}

fn clave(cliente: &Cliente) -> (String, String) {
    let quien = match &cliente.quien {
        Quien::Dispositivo(s) => format!("d:{}", s.id_sensor),
        Quien::Usuario { user_id, .. } => format!("u:{user_id}"),
        Quien::Llave { id_api_key, .. } => format!("k:{id_api_key}"),
        Quien::Anonimo => "a:".to_owned(),
    };
    (quien, cliente.client_id.clone())
}

/// Makes room for one more.
fn olvida_uno<K: Clone + Eq + std::hash::Hash, V>(
    mapa: &mut HashMap<K, V>,
    cuando: impl Fn(&V) -> Timestamp,
) {
    if mapa.len() >= RECUERDO
        && let Some(viejo) = mapa.iter().min_by_key(|(_, v)| cuando(v)).map(|(k, _)| k.clone())
    {
        mapa.remove(&viejo);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_and_bounded() {
        let clientes = Clientes::default();
        let ip = IpAddr::from([10, 0, 0, 1]);
        for n in 0..RECUERDO + 10 {
            let momento = Timestamp::MIN.plus(std::time::Duration::from_secs(n as u64));
            clientes.falla(&format!("s{n}"), ip, momento, "wrong token");
            clientes.falla(&format!("s{n}"), ip, momento, "unknown");
        }
        let fallos = clientes.fallos();
        assert_eq!(fallos.len(), RECUERDO);
        assert_eq!((fallos[0].0.as_str(), fallos[0].1.veces), ("s10009", 2));
        assert_eq!(fallos[0].1.motivo, "unknown");
        assert!(!fallos.iter().any(|(u, _)| u == "s0"), "the oldest made room");
    }

    #[test]
    fn of_what_a_client_says_of_itself_little_is_kept() {
        let clientes = Clientes::default();
        let (ip, long) = (IpAddr::from([10, 0, 0, 1]), "ñ".repeat(60_000));
        for _ in 0..2 {
            clientes.falla(&long, ip, Timestamp::MIN, &long);
        }
        let fallos = clientes.fallos();
        assert_eq!(fallos.len(), 1);
        assert_eq!((fallos[0].0.chars().count(), fallos[0].1.motivo.chars().count()), (64, MAX_MOTIVO));
        assert_eq!(fallos[0].1.veces, 2);
    }
}
