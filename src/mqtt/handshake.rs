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
use metrics::counter;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::acl::{self, Publicar};
use super::broker::{Broker, Compartido};
use super::connection::{Conexion, Fin, Inicio};
use super::first_packet::{self, Primero};
use super::opening::{self, Suya};
use super::protocol::{Bienvenida, Connect, Entrante, Protocol, Pubrec, Rechazo};
use super::publicacion::Publicacion;
use super::session::{Estado, Sesion};
use super::strict::{self, Defecto};
use super::topic;
use crate::domain::{Conexion as Presencia, Timestamp};
use crate::identity::dispositivo::{self, Entrada};
use crate::identity::{Principal, cuentas};
use crate::store::mqtt::Cambio;
use crate::tls::Peer;

/// How long a client may take to read why its connection ends.
const DESPEDIDA: Duration = Duration::from_secs(1);
/// Bytes of a CONNECT; its client id, will and credentials are all there is in it.
const MAX_CONNECT: usize = 256 << 10;

/// Where a connection comes from.
pub(super) struct Origen {
    pub(super) ip: IpAddr,
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
pub(super) async fn sirve<S>(broker: Broker, stream: S, origen: Origen)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let b = broker.0;
    let (mut lee, mut escribe) = tokio::io::split(stream);
    let entra = tokio::time::timeout_at(origen.hasta, entra(&b, &mut lee, &origen));
    let (inicio, testamento) = match entra.await {
        Ok(Ok(inicio)) => inicio,
        Ok(Err(Negada { motivo, respuesta })) => {
            counter!("alertrace_mqtt_connections_refused_total").increment(1);
            tracing::info!(ip = %origen.ip, motivo, "a connection was refused");
            despide(&mut lee, &mut escribe, respuesta).await;
            return;
        }
        Err(_) => {
            counter!("alertrace_mqtt_connections_refused_total").increment(1);
            tracing::info!(ip = %origen.ip, "a connection did not say who it is in time");
            return;
        }
    };
    let client_id = inicio.sesion.clave.client_id.clone();
    tracing::debug!(ip = %origen.ip, client_id, "connected");
    let numero = b.numero();
    let sensor = match &inicio.principal {
        Principal::Dispositivo(sensor) => Some(sensor.clone()),
        _ => None,
    };
    if let Some(sensor) = &sensor {
        b.presencia(sensor, numero, Presencia::Online);
    }
    let mut conexion = Conexion::new(inicio);
    let fin = AssertUnwindSafe(conexion.run(&mut lee, &mut escribe)).catch_unwind().await;
    let fin = fin.unwrap_or_else(|_| {
        tracing::error!(client_id, "a connection's task panicked");
        Fin::Cortada(super::protocol::Cierre::Interno)
    });
    match &fin {
        Fin::Violacion(v) => {
            tracing::info!(ip = %origen.ip, client_id, que = v.que, "a client broke the protocol");
        }
        fin => tracing::debug!(ip = %origen.ip, client_id, ?fin, "disconnected"),
    }
    let ultimas = AssertUnwindSafe(async { conexion.despide(&fin) }).catch_unwind().await.unwrap_or_default();
    let resto = conexion.resto();
    let testamento = testamento.filter(|_| quiere_testamento(&fin));
    let principal = conexion.principal.clone();
    // The session is free for whoever comes next; what follows concerns this connection alone.
    let (inmediato, cuenta) = deja(&b, conexion, testamento);
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
        match cuenta {
            Cuenta::Sigue(cambios) => drop(b.guarda(cambios).await),
            Cuenta::Termina(sesion, estado) => b.entierra(&sesion, *estado).await,
        }
    };
    // Nobody waits for the client to have read why.
    tokio::join!(despide(&mut lee, &mut escribe, ultimas), despues);
}

/// A will is sent unless its owner took leave without it [MQTT-3.1.2-8] [MQTT-3.14.4-3], or the
/// server stops and comes back.
fn quiere_testamento(fin: &Fin) -> bool {
    !matches!(fin, Fin::Adios { testamento: false } | Fin::Apagado)
}

/// What becomes of the session.
enum Cuenta {
    /// It waits for its owner; so the store is to know.
    Sigue(Vec<Cambio>),
    /// It is over, and nobody finds it any more.
    Termina(Arc<Sesion>, Box<Estado>),
}

/// Lets go of the session: it ends, or waits for its owner until it expires. Answers the will that
/// is to be sent at once.
fn deja(
    b: &Compartido,
    mut conexion: Conexion,
    testamento: Option<(Publicacion, u32)>,
) -> (Option<Publicacion>, Cuenta) {
    let ahora = b.parts.clock.now();
    let segundos = |s: u32| Duration::from_secs(u64::from(s));
    conexion.estado.emisor = None;
    if conexion.expiry == 0 {
        b.sessions.quita(&conexion.sesion);
        let will = testamento.map(|(will, _)| will);
        let estado = std::mem::take(&mut *conexion.estado);
        return (will, Cuenta::Termina(conexion.sesion, Box::new(estado)));
    }
    let expira = ahora.plus(segundos(conexion.expiry));
    let mut vida = conexion.sesion.vida();
    vida.conectada = false;
    vida.expira = Some(expira);
    let inmediato = match testamento {
        Some((will, 0)) => Some(will),
        Some((will, espera)) => {
            vida.testamento = Some((ahora.plus(segundos(espera)), will));
            None
        }
        None => None,
    };
    drop(vida);
    conexion.sesion.duerme();
    b.en_curso.suelta(&conexion.sesion, &conexion.estado);
    let enviadas = conexion.estado.en_vuelo.iter().filter_map(|v| v.entrega.seq).collect();
    let cierra = |id_sesion| Cambio::Cierra { id_sesion, conexion: conexion.numero(), expira, enviadas };
    (inmediato, Cuenta::Sigue(conexion.sesion.id_sesion.map(cierra).into_iter().collect()))
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
        let mut basura = [0; 4096];
        while lee.read(&mut basura).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Neither an error nor a time-out changes anything: the connection is over.
    let _ = tokio::time::timeout(DESPEDIDA, adios).await;
}

/// A connection that is not let in, and what it is told.
struct Negada {
    motivo: String,
    respuesta: BytesMut,
}

impl Negada {
    fn callada(motivo: &str) -> Self {
        Self { motivo: motivo.to_owned(), respuesta: BytesMut::new() }
    }

    /// A CONNECT that is none. 3.1.1 is told nothing but that its level is not spoken.
    fn ilegible(connect: &[u8], defecto: Defecto) -> Self {
        let cinco = |codigo| vec![0x20, 3, 0, codigo, 0];
        let respuesta = match defecto {
            Defecto::Malformado if strict::parece_cinco(connect) => cinco(0x81),
            Defecto::Protocolo if strict::parece_cinco(connect) => cinco(0x82),
            // [3.1.1 MQTT-3.1.2-2], in the form that any version reads.
            Defecto::Version(nivel) if nivel > 0 => vec![0x20, 2, 0, 1],
            _ => Vec::new(),
        };
        Self { motivo: format!("malformed CONNECT: {defecto:?}"), respuesta: BytesMut::from(&respuesta[..]) }
    }

    fn dicha(motivo: impl Into<String>, rechazo: Rechazo, protocol: &mut Protocol) -> Self {
        let mut respuesta = BytesMut::new();
        protocol.rechaza(rechazo, &mut respuesta);
        Self { motivo: motivo.into(), respuesta }
    }
}

type Testamento = Option<(Publicacion, u32)>;

/// Reads the CONNECT, signs the client in and opens its session.
async fn entra<R>(b: &Arc<Compartido>, lee: &mut R, origen: &Origen) -> Result<(Inicio, Testamento), Negada>
where
    R: AsyncRead + Unpin,
{
    let s = &b.parts.settings;
    let mut entrada = BytesMut::with_capacity(2_048);
    let largo = loop {
        match first_packet::mira(&entrada, MAX_CONNECT.min(s.max_packet as usize)) {
            Primero::Connect(largo) => break largo,
            Primero::Ajeno => return Err(Negada::callada("the first packet is not a CONNECT")),
            Primero::Incompleto => {}
        }
        let leido = tokio::select! {
            leido = lee.read_buf(&mut entrada) => leido,
            () = b.apaga.cancelled() => return Err(Negada::callada("the server stops")),
        };
        if leido.map_or(true, |n| n == 0) {
            return Err(Negada::callada("closed before its CONNECT"));
        }
    };
    let mut primero = entrada.split_to(largo);
    let leido = strict::examina_connect(&primero).map_err(|defecto| Negada::ilegible(&primero, defecto))?;
    let sin_alias = first_packet::sin_alias_cero(&mut primero);
    let clave_sola = first_packet::saca_clave(&mut primero, &leido);
    let mut protocol = Protocol::new(s.max_packet, s.receive_maximum, !sin_alias);
    let mut salida = BytesMut::new();
    let ahora = b.parts.clock.now();
    let recibido = protocol.recv(&primero, |_| false, |_| Pubrec::Ajeno, ahora, &mut salida);
    let mut connect = match (recibido.paquete, recibido.violacion) {
        (Some(Entrante::Connect(connect)), None) => *connect,
        (_, violacion) => {
            let que = violacion.map(|v| v.que).unwrap_or_default();
            return Err(Negada { motivo: format!("malformed CONNECT: {que}"), respuesta: salida });
        }
    };
    connect.clave = connect.clave.or(clave_sola);
    if connect.metodo {
        // [MQTT-4.12.0-1]
        return Err(Negada::dicha("enhanced authentication", Rechazo::MetodoInvalido, &mut protocol));
    }
    let (principal, caduca) = match firma(b, &connect, origen).await {
        Ok(firmado) => firmado,
        Err((motivo, rechazo)) => return Err(Negada::dicha(motivo, rechazo, &mut protocol)),
    };
    let testamento = match examina_testamento(b, &principal, connect.testamento) {
        Ok(testamento) => testamento,
        Err(rechazo) => return Err(Negada::dicha("a will that may not be sent", rechazo, &mut protocol)),
    };
    // [MQTT-3.1.3-7] [MQTT-3.1.3-8] of 3.1.1: without an identifier there is nothing to keep.
    if connect.client_id.is_empty() && !connect.cinco && !connect.clean {
        let motivo = "no client identifier for a session that is kept";
        return Err(Negada::dicha(motivo, Rechazo::IdentificadorInvalido, &mut protocol));
    }
    let asignado = connect.client_id.is_empty().then(|| uuid::Uuid::now_v7().simple().to_string());
    let client_id = asignado.clone().unwrap_or(connect.client_id);
    let expiry = connect.expiry.min(s.max_session_expiry);
    // Soon enough that the client is still told.
    let plazo = s.connect_deadline * 3 / 4;
    let abre = opening::abre(b, &principal, &client_id, connect.clean, expiry, ahora);
    let Ok(Some(Suya { sesion, estado, generacion, presente })) = tokio::time::timeout(plazo, abre).await
    else {
        return Err(Negada::dicha("no session can be had now", Rechazo::NoDisponible, &mut protocol));
    };
    let keep_alive = match (s.max_keep_alive, connect.keep_alive) {
        (0, suyo) => suyo,
        (max, 0) if connect.cinco => max,
        (max, suyo) if connect.cinco => suyo.min(max),
        // 3.1.1 has no way to say it.
        (_, suyo) => suyo,
    };
    let bienvenida = Bienvenida {
        sesion_presente: presente,
        client_id_asignado: asignado,
        expiry: (connect.cinco && expiry != connect.expiry).then_some(expiry),
        keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
    };
    if !protocol.connack(&bienvenida, &mut salida) {
        // [MQTT-3.2.0-1]: nobody is served without one.
        vuelve_a_cerrar(b, &sesion, expiry);
        return Err(Negada::callada("it does not take a packet as large as CONNACK"));
    }
    let b = b.clone();
    let inicio = Inicio {
        b,
        sesion,
        estado,
        generacion,
        principal,
        protocol,
        entrada,
        salida,
        keep_alive,
        caduca,
        expiry,
    };
    Ok((inicio, testamento))
}

/// A session that was opened and is not served after all: it waits, or ends with the next sweep.
fn vuelve_a_cerrar(b: &Compartido, sesion: &Sesion, expiry: u32) {
    let mut vida = sesion.vida();
    vida.conectada = false;
    vida.expira = Some(b.parts.clock.now().plus(Duration::from_secs(u64::from(expiry))));
    drop(vida);
    sesion.duerme();
}

/// Who the client is (contract section 1, sign-in), and until when.
async fn firma(
    b: &Compartido,
    connect: &Connect,
    origen: &Origen,
) -> Result<(Principal, Option<Timestamp>), (String, Rechazo)> {
    let no_disponible = |e: &dyn std::fmt::Display| (format!("cannot check: {e}"), Rechazo::NoDisponible);
    let clave = connect.clave.as_deref().unwrap_or_default();
    if let Some(certificado) = &origen.certificado {
        if certificado.is_revoked() {
            let motivo = format!("certificate {} is revoked", certificado.serial);
            return Err((motivo, Rechazo::ClaveIncorrecta));
        }
        if clave.is_empty() {
            return por_certificado(b, connect, certificado).await;
        }
    }
    match connect.usuario.as_deref() {
        None if b.parts.settings.open && origen.local => Ok((Principal::Anonimo, None)),
        None => Err(("no user name".into(), Rechazo::NoAutorizado)),
        Some("jwt") => {
            let token = str::from_utf8(clave).unwrap_or_default();
            match b.parts.cuentas.usuario(token).await {
                Ok((usuario, caduca)) => Ok((Principal::Usuario(usuario), Some(caduca))),
                Err(cuentas::Error::Store(e)) => Err(no_disponible(&e)),
                Err(e) => Err((format!("access token: {e}"), Rechazo::ClaveIncorrecta)),
            }
        }
        Some(device_id) => match dispositivo::entra(&b.parts.store, device_id, clave).await {
            Ok(Entrada::Aceptado(sensor)) => Ok((Principal::Dispositivo(sensor), None)),
            Ok(Entrada::SinCredencial(sensor)) if b.parts.settings.legacy && origen.plano => {
                tracing::warn!(%device_id, ip = %origen.ip, "a device without a credential was let in (mqtt.legacy); give it one");
                Ok((Principal::Dispositivo(sensor), None))
            }
            Ok(_) => Err((format!("device {device_id:?}: unknown or wrong token"), Rechazo::ClaveIncorrecta)),
            Err(e) => Err(no_disponible(&e)),
        },
    }
}

/// The device that the certificate names, for as long as the certificate is good.
async fn por_certificado(
    b: &Compartido,
    connect: &Connect,
    certificado: &Peer,
) -> Result<(Principal, Option<Timestamp>), (String, Rechazo)> {
    let Peer { common_name, serial, not_after, .. } = certificado;
    let nombre = common_name.as_deref().unwrap_or_default();
    if connect.usuario.as_deref().is_some_and(|usuario| usuario != nombre) {
        let motivo = format!("certificate {serial} is of {nombre:?}, and the username is another");
        return Err((motivo, Rechazo::ClaveIncorrecta));
    }
    // A resumed TLS session is not checked for this again.
    if *not_after <= b.parts.clock.now() {
        return Err((format!("certificate {serial} expired on {not_after}"), Rechazo::ClaveIncorrecta));
    }
    match dispositivo::entra_con_certificado(&b.parts.store, nombre).await {
        Ok(Some(sensor)) => Ok((Principal::Dispositivo(sensor), Some(*not_after))),
        Ok(None) => {
            let motivo =
                format!("certificate {serial}: {nombre:?} is no device whose credential is in force");
            Err((motivo, Rechazo::ClaveIncorrecta))
        }
        Err(e) => Err((format!("cannot check: {e}"), Rechazo::NoDisponible)),
    }
}

/// Whether a will may be sent when the time comes; a device's own on `estado` is taken and forgotten.
fn examina_testamento(
    b: &Compartido,
    principal: &Principal,
    testamento: Testamento,
) -> Result<Testamento, Rechazo> {
    let Some((will, espera)) = testamento else { return Ok(None) };
    let s = &b.parts.settings;
    if acl::testamento_superfluo(principal, &will.topic) {
        return Ok(None);
    }
    if !topic::nombre_valido(&will.topic)
        || will.topic.len() > s.max_topic_bytes
        || will.topic.split('/').count() > s.max_topic_levels
    {
        return Err(Rechazo::TestamentoInvalido);
    }
    match acl::publica(principal, &will.topic) {
        Publicar::Negado => Err(Rechazo::NoAutorizado),
        Publicar::Ingerir(_) | Publicar::Rutear => Ok(Some((will, espera))),
    }
}
