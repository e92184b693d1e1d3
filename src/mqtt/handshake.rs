//! From a byte stream to a signed-in session, and from its end to a clean registry.
//!
//! A panic while a connection is served ends that connection alone: its will, its place in the
//! registry and its link are dealt with all the same.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::admission::{self, Negada};
use super::broker::{Broker, Compartido};
use super::connection::{Conexion, Fin};
use super::door::Callado;
use super::protocol::Cierre;
use super::session::{Estado, Sesion};
use super::testamento::Legado;
use super::throttle::limita;
use crate::domain::Conexion as Presencia;
use crate::identity::Principal;
use crate::store::mqtt::Cambio;
use crate::tls::Peer;

/// How long a client may take to read why its connection ends.
const DESPEDIDA: Duration = Duration::from_secs(1);

/// Where a connection comes from.
pub(super) struct Origen {
    pub(super) ip: IpAddr,
    /// `tcp`, `tls` or `websocket`.
    pub(super) via: &'static str,
    /// A plain listener that is bound to loopback: `mqtt.open` and `mqtt.legacy` hold here only.
    pub(super) local: bool,
    /// A plain listener.
    pub(super) plano: bool,
    /// The client's, which the handshake has checked.
    pub(super) certificado: Option<Peer>,
    /// When it has to have sent its CONNECT.
    pub(super) hasta: Instant,
}

/// Serves one connection to its end.
pub(super) async fn sirve<S>(broker: Broker, stream: S, origen: Origen, callado: Callado)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let b = broker.0;
    let (mut lee, mut escribe) = tokio::io::split(stream);
    // Boxed, this and what follows: none of it is to hold room for the other.
    let Some((conexion, testamento)) = Box::pin(entra(&b, &mut lee, &mut escribe, &origen, callado)).await
    else {
        return;
    };
    let client_id = conexion.sesion.clave.client_id.as_str();
    let span = tracing::debug_span!("client", ip = %origen.ip, transport = origen.via, client_id);
    Box::pin(atiende(&b, lee, escribe, &origen, conexion, testamento)).instrument(span).await;
}

/// Lets a client in, or tells it why not.
async fn entra<R, W>(
    b: &Arc<Compartido>,
    lee: &mut R,
    escribe: &mut W,
    origen: &Origen,
    callado: Callado,
) -> Option<(Box<Conexion>, Option<Box<Legado>>)>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let entrada = tokio::time::timeout_at(origen.hasta, admission::entra(b, lee, origen, callado)).await;
    match entrada {
        Ok(Ok((inicio, testamento))) => Some((Box::new(Conexion::new(inicio)), testamento.map(Box::new))),
        Ok(Err(Negada { motivo, respuesta })) => {
            b.puerta.niega(origen.ip, &motivo);
            if let Some(respuesta) = respuesta {
                Box::pin(despide(lee, escribe, respuesta)).await;
            }
            None
        }
        Err(_) => {
            limita("connect_deadline_s");
            b.puerta.niega(origen.ip, "it did not say who it is in time");
            None
        }
    }
}

/// A client that is connected, in the metrics, for as long as this is there.
struct Contada(metrics::Gauge);

impl Contada {
    fn new(via: &'static str, cinco: bool) -> Self {
        let version = if cinco { "5.0" } else { "3.1.1" };
        let gauge = metrics::gauge!("alertrace_mqtt_connections", "transport" => via, "version" => version);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Contada {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Serves a client that was let in, and deals with what it leaves behind.
async fn atiende<R, W>(
    b: &Arc<Compartido>,
    mut lee: R,
    mut escribe: W,
    origen: &Origen,
    mut conexion: Box<Conexion>,
    testamento: Option<Box<Legado>>,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let client_id = conexion.sesion.clave.client_id.clone();
    tracing::debug!(ip = %origen.ip, client_id, "connected");
    let cliente = conexion.cliente.clone();
    let numero = cliente.numero;
    b.parts.clientes.llega(cliente.clone());
    let _contada = Contada::new(origen.via, conexion.protocol.cinco());
    let sensor = match &conexion.principal {
        Principal::Dispositivo(sensor) => Some(sensor.clone()),
        _ => None,
    };
    if let Some(sensor) = &sensor {
        b.presencia(sensor, numero, Presencia::Online);
    }
    let fin = AssertUnwindSafe(conexion.run(&mut lee, &mut escribe)).catch_unwind().await;
    let fin = fin.unwrap_or_else(|_| {
        tracing::error!(client_id, "a connection's task panicked");
        Fin::Cortada(Cierre::Interno)
    });
    match &fin {
        Fin::Violacion(v) => {
            tracing::info!(ip = %origen.ip, client_id, que = v.que, "a client broke the protocol");
        }
        fin => tracing::debug!(ip = %origen.ip, client_id, ?fin, "disconnected"),
    }
    // What a person or a program that is shut out could see is not what waits for whoever comes back.
    if matches!(fin, Fin::Cortada(Cierre::NoAutorizado)) && sensor.is_none() {
        conexion.expiry = 0;
    }
    let motivo = (!matches!(fin, Fin::Adios { testamento: false })).then(|| fin.to_string());
    b.parts.clientes.se_va(&cliente, b.parts.clock.now(), motivo);
    let ultimas = AssertUnwindSafe(async { conexion.despide(&fin) }).catch_unwind().await.unwrap_or_default();
    let resto = conexion.resto();
    let (testamento, mut cambios) = abre_testamento(&fin, testamento.map(|legado| *legado));
    let principal = conexion.principal.clone();
    // The session is free for whoever comes next; what follows concerns this connection alone.
    let (inmediato, cuenta) = deja(b, conexion, testamento, &mut cambios);
    let despues = async {
        resto.termina().await;
        if let Some(will) = inmediato {
            b.testamento(&principal, will).await;
        }
        if let Some(sensor) = &sensor
            && !matches!(fin, Fin::Apagado)
        {
            b.presencia(sensor, numero, Presencia::Offline);
        }
        b.guarda(cambios).await;
        if let Some((sesion, estado)) = cuenta {
            b.entierra(&sesion, *estado).await;
        }
    };
    // A stream that panicked does so again, and what follows is not its.
    let adios = AssertUnwindSafe(despide(&mut lee, &mut escribe, ultimas)).catch_unwind();
    // Nobody waits for the client to have read why. Boxed: no room for the end while it lasts.
    let _ = Box::pin(async { tokio::join!(adios, despues) }).await;
}

/// A will is sent unless its owner took leave without it [MQTT-3.1.2-8] [MQTT-3.14.4-3]: then it is forgotten. When
/// the server stops, it stays for the next start. Answers it, and what the store is to learn.
fn abre_testamento(fin: &Fin, testamento: Option<Legado>) -> (Option<Legado>, Vec<Cambio>) {
    match fin {
        Fin::Adios { testamento: false } => (None, testamento.iter().map(Legado::olvida).collect()),
        Fin::Apagado => (None, Vec::new()),
        _ => (testamento, Vec::new()),
    }
}

/// A session that is over, and nobody finds any more.
type Terminada = Option<(Arc<Sesion>, Box<Estado>)>;

/// Lets go of the session: it ends, or waits for its owner until it expires, which the store is to learn. Answers
/// the will that is to be sent at once.
fn deja(
    b: &Compartido,
    mut conexion: Box<Conexion>,
    testamento: Option<Legado>,
    cambios: &mut Vec<Cambio>,
) -> (Option<Legado>, Terminada) {
    let ahora = b.parts.clock.now();
    let segundos = |s: u32| Duration::from_secs(u64::from(s));
    conexion.estado.emisor = None;
    if conexion.expiry == 0 {
        b.sessions.quita(&conexion.sesion);
        let estado = std::mem::take(&mut *conexion.estado);
        return (testamento, Some((conexion.sesion, Box::new(estado))));
    }
    let mut vida = conexion.sesion.vida();
    let expira = conexion.sesion.espera(&mut vida, ahora.plus(segundos(conexion.expiry)));
    let mut inmediato = testamento;
    if let Some(legado) = inmediato.take_if(|legado| legado.espera > 0) {
        let cuando = legado.cuando(ahora);
        cambios.push(legado.aplaza(cuando));
        vida.testamento = Some((cuando, legado));
    }
    drop(vida);
    conexion.sesion.duerme();
    b.en_curso.suelta(&conexion.sesion, &conexion.estado);
    let enviadas = conexion.estado.enviadas();
    let cierra = |id_sesion| Cambio::Cierra { id_sesion, conexion: conexion.numero(), expira, enviadas };
    cambios.extend(conexion.sesion.id_sesion.map(cierra));
    (inmediato, None)
}

/// Writes the last bytes, closes our side and reads on for a moment: a client that is met by a reset
/// does not see the reason.
async fn despide<R, W>(lee: &mut R, escribe: &mut W, bytes: BytesMut)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let adios = async {
        escribe.write_all(&bytes).await?;
        escribe.shutdown().await?;
        let mut basura = [0; 1024];
        while lee.read(&mut basura).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Neither an error nor a time-out changes anything: the connection is over.
    let _ = tokio::time::timeout(DESPEDIDA, adios).await;
}
