//! The ways in over TCP and TLS. One connection at most waits here for a place, so a flood waits in the
//! kernel's backlog and not in memory; what a proxy says, the TLS handshake and the CONNECT have one
//! deadline together, and happen outside the accept loop.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use metrics::counter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::broker::{Broker, Compartido};
use super::door::Callado;
use super::handshake::{self, Origen};
use super::proxy;
use super::throttle::limita;
use crate::tls::Acceptor;

/// Why a connection is refused.
const LLENA: &str = "too many connections from its address";
/// Why one that has said nothing is ended.
pub(super) const ECHADA: &str = "it said nothing, and others needed its place";
/// After an accept that failed for want of a file descriptor.
const RESPIRO: Duration = Duration::from_millis(100);

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
            let permiso = tokio::select! {
                () = self.0.apaga.cancelled() => return Ok(()),
                permiso = self.0.puerta.plaza() => permiso,
            };
            let Some(permiso) = permiso else { return Ok(()) };
            // An acknowledgement is a few bytes that somebody waits for.
            let _ = stream.set_nodelay(true);
            let callado = self.0.puerta.callado();
            let (broker, via) = (self.clone(), por_tls.map_or(Via::Plana { local }, Via::Tls));
            self.0.conexiones.spawn(async move {
                recibe(broker, stream, peer, via, callado).await;
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
            let hasta = Instant::now() + b.parts.settings.connect_deadline;
            let Ok(Some(_permiso)) = timeout_at(hasta, b.puerta.plaza()).await else {
                return b.puerta.niega(ip, "there are too many connections");
            };
            let Some(_plaza) = b.puerta.de_direccion(ip) else {
                return b.puerta.niega(ip, LLENA);
            };
            counter!("alertrace_mqtt_connections_total", "transport" => "websocket").increment(1);
            let origen =
                Origen { ip, via: "websocket", local: false, plano: false, certificado: None, hasta };
            let callado = b.puerta.callado();
            handshake::sirve(self, stream, origen, callado).await;
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

/// One connection, from the accept to its end. Each part has room of its own, given back when it is
/// over: an idle connection is to hold little.
async fn recibe(broker: Broker, mut stream: TcpStream, peer: SocketAddr, via: Via, mut callado: Callado) {
    let b = broker.0.clone();
    let hasta = Instant::now() + b.parts.settings.connect_deadline;
    // Nothing that is read before the CONNECT needs finishing when the server stops.
    let ip = match &b.parts.settings.proxy_from {
        None => Ok(peer.ip().to_canonical()),
        Some(proxies) => {
            let plazo = (hasta, "connect_deadline_s");
            Box::pin(en_plazo(&b, plazo, &mut callado, cliente(proxies, &mut stream, peer))).await
        }
    };
    let ip = match ip {
        Ok(ip) => ip,
        Err(motivo) => return b.puerta.niega(peer.ip(), &motivo),
    };
    // A full address is refused before the handshake, which is what costs.
    let Some(_plaza) = b.puerta.de_direccion(ip) else {
        return b.puerta.niega(ip, LLENA);
    };
    let transport = if matches!(via, Via::Plana { .. }) { "tcp" } else { "tls" };
    counter!("alertrace_mqtt_connections_total", "transport" => transport).increment(1);
    match via {
        Via::Plana { local } => {
            let origen = Origen { ip, via: "tcp", local, plano: true, certificado: None, hasta };
            handshake::sirve(broker, stream, origen, callado).await;
        }
        Via::Tls(acceptor) => {
            let saludo = async { acceptor.accept(stream).await.map_err(|e| format!("TLS: {e}")) };
            let del_saludo = Instant::now() + b.parts.settings.handshake_deadline;
            let plazo = (del_saludo.min(hasta), "handshake_deadline_s");
            match Box::pin(en_plazo(&b, plazo, &mut callado, saludo)).await {
                Ok((stream, certificado)) => {
                    let origen = Origen { ip, via: "tls", local: false, plano: false, certificado, hasta };
                    Box::pin(handshake::sirve(broker, stream, origen, callado)).await;
                }
                Err(motivo) => b.puerta.niega(ip, &motivo),
            }
        }
    }
}

/// What `que` comes to, unless the deadline, which is that of a setting, or the server's end is first.
async fn en_plazo<T>(
    b: &Compartido,
    (hasta, cual): (Instant, &'static str),
    callado: &mut Callado,
    que: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::select! {
        () = b.apaga.cancelled() => Err("the server stops".into()),
        () = callado.echado() => Err(ECHADA.into()),
        hecho = timeout_at(hasta, que) => {
            hecho.unwrap_or_else(|_| {
                limita(cual);
                Err("it did not say who it is in time".into())
            })
        }
    }
}

/// The client's address: what the proxy in front says, or its own.
async fn cliente(proxies: &[IpNet], stream: &mut TcpStream, peer: SocketAddr) -> Result<IpAddr, String> {
    let ip = peer.ip().to_canonical();
    if !proxies.iter().any(|red| red.contains(&ip)) {
        return Err("it is not one of mqtt.proxy_from".into());
    }
    let dicha = proxy::lee(stream).await.map_err(|e| format!("mqtt.proxy_protocol: {e}"))?;
    Ok(dicha.unwrap_or(ip))
}
