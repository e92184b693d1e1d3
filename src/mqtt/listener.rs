//! The way in over TCP. A permit is taken before a connection is accepted, so a flood waits in the
//! kernel's backlog and not in memory; signing in happens outside the accept loop.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::broker::Broker;
use super::handshake::{self, Origen};

/// After an accept that failed for want of a file descriptor.
const RESPIRO: Duration = Duration::from_millis(100);

/// Connections at a time from each address.
#[derive(Clone, Default)]
struct PorDireccion(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl PorDireccion {
    /// A place for one more from `ip`, unless it has `max`.
    fn entra(&self, ip: IpAddr, max: usize) -> Option<Plaza> {
        let mut mapa = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cuantas = mapa.entry(ip).or_default();
        if *cuantas >= max {
            return None;
        }
        *cuantas += 1;
        Some(Plaza { mapa: self.clone(), ip })
    }
}

/// One place of an address, given back when dropped.
struct Plaza {
    mapa: PorDireccion,
    ip: IpAddr,
}

impl Drop for Plaza {
    fn drop(&mut self) {
        let mut mapa = self.mapa.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cuantas) = mapa.get_mut(&self.ip) {
            *cuantas -= 1;
            if *cuantas == 0 {
                mapa.remove(&self.ip);
            }
        }
    }
}

impl Broker {
    /// Serves plain MQTT on `listener` until the server stops.
    ///
    /// # Errors
    /// When the listener's own address cannot be read.
    pub async fn serve_tcp(self, listener: TcpListener) -> std::io::Result<()> {
        let local = listener.local_addr()?.ip().is_loopback();
        let settings = &self.0.parts.settings;
        let plazas = Arc::new(Semaphore::new(settings.max_connections));
        let por_direccion = PorDireccion::default();
        loop {
            let Ok(permiso) = plazas.clone().acquire_owned().await else { return Ok(()) };
            let aceptada = tokio::select! {
                () = self.0.apaga.cancelled() => return Ok(()),
                aceptada = listener.accept() => aceptada,
            };
            let (stream, SocketAddrIp(ip)) = match aceptada {
                Ok((stream, peer)) => (stream, peer.into()),
                Err(e) => {
                    tracing::warn!(error = %e, "a connection could not be accepted");
                    tokio::time::sleep(RESPIRO).await;
                    continue;
                }
            };
            let Some(plaza) = por_direccion.entra(ip, settings.max_connections_per_address) else {
                counter!("alertrace_mqtt_connections_refused_total").increment(1);
                continue;
            };
            // An acknowledgement is a few bytes that somebody waits for.
            let _ = stream.set_nodelay(true);
            counter!("alertrace_mqtt_connections_total").increment(1);
            let broker = self.clone();
            self.0.conexiones.spawn(async move {
                handshake::sirve(broker, stream, Origen { ip, local, plano: true }).await;
                drop((permiso, plaza));
            });
        }
    }
}

/// The address of a peer, an IPv4 one as itself and not mapped into IPv6.
struct SocketAddrIp(IpAddr);

impl From<SocketAddr> for SocketAddrIp {
    fn from(peer: SocketAddr) -> Self {
        Self(peer.ip().to_canonical())
    }
}
