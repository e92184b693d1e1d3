//! The ways in over TCP and TLS. A permit is taken before a connection is accepted, so a flood waits
//! in the kernel's backlog and not in memory; what a proxy says, the TLS handshake and the CONNECT
//! have one deadline together, and happen outside the accept loop.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::broker::{Broker, Compartido};
use super::handshake::{self, Origen};
use super::proxy;
use super::throttle::limita;
use crate::limits::{ByAddress, Place};
use crate::tls::Acceptor;

/// After an accept that failed for want of a file descriptor.
const RESPIRO: Duration = Duration::from_millis(100);

/// How many may be inside, over all listeners.
pub(super) struct Puerta {
    plazas: Arc<Semaphore>,
    por_direccion: ByAddress,
}

impl Puerta {
    pub(super) fn new(max: usize, max_por_direccion: usize) -> Self {
        Self { plazas: Arc::new(Semaphore::new(max)), por_direccion: ByAddress::new(max_por_direccion) }
    }

    /// A place for one more from `ip`, until what is answered is dropped.
    fn entra(&self, ip: IpAddr) -> Option<Place> {
        self.por_direccion.enter(ip)
    }
}

/// What a connection speaks.
enum Via {
    /// MQTT in clear; `local` when the listener is bound to loopback.
    Plana {
        local: bool,
    },
    Tls(Acceptor),
}

impl Broker {
    /// Serves MQTT in clear on `plain`, and over TLS on `tls`, until the server stops. One loop for
    /// both: the place that waits for the next connection is neither's.
    ///
    /// # Errors
    /// When a listener's own address cannot be read.
    pub async fn serve(
        self,
        plain: Option<TcpListener>,
        tls: Option<(TcpListener, Acceptor)>,
    ) -> std::io::Result<()> {
        let local = match &plain {
            Some(plain) => plain.local_addr()?.ip().is_loopback(),
            None => false,
        };
        let (tls, acceptor) = tls.unzip();
        loop {
            let Ok(permiso) = self.0.puerta.plazas.clone().acquire_owned().await else { return Ok(()) };
            let (aceptada, por_tls) = tokio::select! {
                () = self.0.apaga.cancelled() => return Ok(()),
                aceptada = acepta(plain.as_ref()) => (aceptada, None),
                aceptada = acepta(tls.as_ref()) => (aceptada, acceptor.clone()),
            };
            let (stream, peer) = match aceptada {
                Ok(aceptada) => aceptada,
                Err(e) => {
                    tracing::warn!(error = %e, "a connection could not be accepted");
                    tokio::time::sleep(RESPIRO).await;
                    continue;
                }
            };
            // An acknowledgement is a few bytes that somebody waits for.
            let _ = stream.set_nodelay(true);
            let (broker, via) = (self.clone(), por_tls.map_or(Via::Plana { local }, Via::Tls));
            self.0.conexiones.spawn(async move {
                recibe(broker, stream, peer, via).await;
                drop(permiso);
            });
        }
    }
}

impl Broker {
    /// Serves one client of another way in (a WebSocket) to its end, if there is a place for it.
    pub async fn serve_stream<S>(self, stream: S, ip: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let b = self.0.clone();
        let servida = async {
            let Ok(_permiso) = b.puerta.plazas.clone().try_acquire_owned() else {
                limita("max_connections");
                return niega(ip, "there are too many connections");
            };
            let Some(_plaza) = b.puerta.entra(ip) else {
                limita("max_connections_per_address");
                return niega(ip, "too many connections from its address");
            };
            counter!("alertrace_mqtt_connections_total").increment(1);
            let hasta = Instant::now() + b.parts.settings.connect_deadline;
            let origen =
                Origen { ip, via: "websocket", local: false, plano: false, certificado: None, hasta };
            handshake::sirve(self, stream, origen).await;
        };
        b.conexiones.track_future(servida).await;
    }
}

/// The next connection of a listener; never, without one.
async fn acepta(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// One connection, from the accept to its end.
async fn recibe(broker: Broker, mut stream: TcpStream, peer: SocketAddr, via: Via) {
    let b = broker.0.clone();
    let hasta = Instant::now() + b.parts.settings.connect_deadline;
    // Nothing that is read before the CONNECT needs finishing when the server stops.
    let antes = async {
        let ip = cliente(&b, &mut stream, peer).await?;
        // A full address is refused before the handshake, which is what costs.
        let plaza = b.puerta.entra(ip).ok_or_else(|| {
            limita("max_connections_per_address");
            "too many connections from its address"
        })?;
        Ok::<_, String>((ip, plaza))
    };
    let (ip, plaza) = match en_plazo(&b, hasta, antes).await {
        Ok(entrada) => entrada,
        Err(motivo) => return niega(peer.ip(), &motivo),
    };
    counter!("alertrace_mqtt_connections_total").increment(1);
    match via {
        Via::Plana { local } => {
            let origen = Origen { ip, via: "tcp", local, plano: true, certificado: None, hasta };
            handshake::sirve(broker, stream, origen).await;
        }
        Via::Tls(acceptor) => {
            let saludo = async { acceptor.accept(stream).await.map_err(|e| format!("TLS: {e}")) };
            match en_plazo(&b, hasta, saludo).await {
                Ok((stream, certificado)) => {
                    let origen = Origen { ip, via: "tls", local: false, plano: false, certificado, hasta };
                    handshake::sirve(broker, stream, origen).await;
                }
                Err(motivo) => niega(ip, &motivo),
            }
        }
    }
    drop(plaza);
}

/// What `que` comes to, unless the deadline or the server's end is first.
async fn en_plazo<T>(
    b: &Compartido,
    hasta: Instant,
    que: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::select! {
        () = b.apaga.cancelled() => Err("the server stops".into()),
        hecho = timeout_at(hasta, que) => {
            hecho.unwrap_or_else(|_| {
                limita("connect_deadline_s");
                Err("it did not say who it is in time".into())
            })
        }
    }
}

/// The client's address: that of the connection, or what the proxy in front says.
async fn cliente(b: &Compartido, stream: &mut TcpStream, peer: SocketAddr) -> Result<IpAddr, String> {
    let ip = peer.ip().to_canonical();
    let Some(proxies) = &b.parts.settings.proxy_from else { return Ok(ip) };
    if !proxies.iter().any(|red| red.contains(&ip)) {
        return Err("it is not one of mqtt.proxy_from".into());
    }
    let dicha = proxy::lee(stream).await.map_err(|e| format!("mqtt.proxy_protocol: {e}"))?;
    Ok(dicha.unwrap_or(ip))
}

fn niega(ip: IpAddr, motivo: &str) {
    counter!("alertrace_mqtt_connections_refused_total").increment(1);
    tracing::info!(%ip, motivo, "a connection was refused");
}
