//! Letting a client in: its CONNECT, who it is, its will, its session; or why not.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::BytesMut;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::sync::CancellationToken;

use super::acl::{self, Publicar};
use super::broker::Compartido;
use super::connection::Inicio;
use super::door::Callado;
use super::first_packet::{self, Primero};
use super::handshake::Origen;
use super::listener::ECHADA;
use super::opening;
use super::protocol::{Bienvenida, Connect, Entrante, Protocol, Pubrec, Rechazo};
use super::publicacion::Publicacion;
use super::strict::{self, Defecto};
use super::testamento::Legado;
use super::throttle::limita;
use super::topic;
use crate::domain::Timestamp;
use crate::identity::dispositivo::{self, Entrada};
use crate::identity::{Permiso, Principal, llave, prueba};
use crate::realtime::clientes::{Cliente, Cuentas, Quien};
use crate::tls::Peer;

/// Bytes of a CONNECT; its client id, will and credentials are all there is in it.
const MAX_CONNECT: usize = 256 << 10;
/// Bytes of a client identifier, and of a user name: a device id has 64 at most.
const MAX_CLIENT_ID: usize = 1_024;
const MAX_USUARIO: usize = 256;

/// A connection that is not let in, and what it is told; `None`: nobody is there to be told, or somebody
/// waits for its place, and it is closed at once.
pub(super) struct Negada {
    pub(super) motivo: String,
    pub(super) respuesta: Option<BytesMut>,
}

impl Negada {
    fn callada(motivo: &str) -> Self {
        Self { motivo: motivo.to_owned(), respuesta: Some(BytesMut::new()) }
    }

    fn sin_nadie(motivo: &str) -> Self {
        Self { motivo: motivo.to_owned(), respuesta: None }
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
        Self {
            motivo: format!("malformed CONNECT: {defecto:?}"),
            respuesta: Some(BytesMut::from(&respuesta[..])),
        }
    }

    fn dicha(motivo: impl Into<String>, rechazo: Rechazo, protocol: &mut Protocol) -> Self {
        let mut respuesta = BytesMut::new();
        protocol.rechaza(rechazo, &mut respuesta);
        Self { motivo: motivo.into(), respuesta: Some(respuesta) }
    }
}

/// A will, and its delay in seconds.
type Testamento = Option<(Publicacion, u32)>;
/// A connection that is let in, and its will.
type Admitida = (Inicio, Option<Legado>);

/// Reads the CONNECT, signs the client in and opens its session.
pub(super) async fn entra<R>(
    b: &Arc<Compartido>,
    lee: &mut R,
    origen: &Origen,
    mut callado: Callado,
) -> Result<Admitida, Negada>
where
    R: AsyncRead + Unpin,
{
    let ahora = b.parts.clock.now();
    let dicho = tokio::select! {
        dicho = lee_connect(b, lee, ahora) => dicho?,
        () = callado.echado() => return Err(Negada::sin_nadie(ECHADA)),
    };
    // It has said who it is, and gives its place to nobody any more.
    drop(callado);
    // Boxed: a connection that has said nothing yet is to hold no room for what may follow.
    Box::pin(admite(b, dicho, origen, ahora)).await
}

/// Signs in whoever said this, and opens their session. Why somebody who is known is not let in is told to
/// whoever wonders.
async fn admite(
    b: &Arc<Compartido>,
    mut dicho: Dicho,
    origen: &Origen,
    ahora: Timestamp,
) -> Result<Admitida, Negada> {
    let revocaciones = b.parts.directorio.revocaciones();
    let firmado = identifica(b, &dicho.connect, origen, ahora)
        .await
        .map_err(|(motivo, rechazo)| Negada::dicha(motivo, rechazo, &mut dicho.protocol))?;
    let nombre = match &firmado.0 {
        Principal::Dispositivo(sensor) => sensor.device_id.to_string(),
        _ => nombre(&dicho.connect, origen).to_owned(),
    };
    let inicio = Box::pin(empieza(b, dicho, origen, ahora, firmado, revocaciones)).await;
    if let Err(negada) = &inicio {
        b.parts.clientes.falla(&nombre, origen.ip, ahora, &negada.motivo);
    }
    inicio
}

/// Opens the session of whoever signed in.
async fn empieza(
    b: &Arc<Compartido>,
    dicho: Dicho,
    origen: &Origen,
    ahora: Timestamp,
    (principal, caduca): (Principal, Option<Timestamp>),
    revocaciones: u64,
) -> Result<Admitida, Negada> {
    let s = &b.parts.settings;
    let Dicho { mut connect, mut protocol, entrada } = dicho;
    let testamento = examina_testamento(b, &principal, connect.testamento.take())
        .map_err(|rechazo| Negada::dicha("a will that may not be sent", rechazo, &mut protocol))?;
    // [MQTT-3.1.3-7] [MQTT-3.1.3-8] of 3.1.1: without an identifier there is nothing to keep.
    if connect.client_id.is_empty() && !connect.cinco && !connect.clean {
        let motivo = "no client identifier for a session that is kept";
        return Err(Negada::dicha(motivo, Rechazo::IdentificadorInvalido, &mut protocol));
    }
    // [MQTT-3.1.3-5] asks for 23 bytes; a key of the store takes no more than some 2,700.
    if connect.client_id.len() > MAX_CLIENT_ID {
        let motivo = "a client identifier of more than 1,024 bytes";
        return Err(Negada::dicha(motivo, Rechazo::IdentificadorInvalido, &mut protocol));
    }
    let asignado = connect.client_id.is_empty().then(|| uuid::Uuid::now_v7().simple().to_string());
    let client_id = asignado.clone().unwrap_or_else(|| std::mem::take(&mut connect.client_id));
    // Of the self-test nothing stays.
    let max_expiry = if principal == Principal::Prueba { 0 } else { s.max_session_expiry };
    let expiry = connect.expiry.min(max_expiry);
    // Soon enough that the client is still told.
    let plazo = s.connect_deadline * 3 / 4;
    let abre = opening::abre(b, &principal, &client_id, connect.clean, expiry, testamento, ahora);
    let Ok(Some(mut suya)) = tokio::time::timeout(plazo, abre).await else {
        return Err(Negada::dicha("no session can be had now", Rechazo::NoDisponible, &mut protocol));
    };
    // Whoever was shut out between the sign-in and now was not there yet to be cut off.
    if b.parts.directorio.revocaciones() != revocaciones {
        let negada = match firma(b, &connect, origen).await {
            Ok((quien, _)) if quien == principal => None,
            Ok(_) => Some((String::from("what it may do was changed just now"), Rechazo::NoDisponible, true)),
            Err((motivo, rechazo)) => Some((motivo, rechazo, rechazo != Rechazo::NoDisponible)),
        };
        if let Some((motivo, rechazo, known)) = negada {
            // Who is not who they were has no session either; whether they are, the store may not say now.
            let quien_sea = matches!(principal, Principal::Usuario(_) | Principal::Llave(_));
            suya.sesion().vida().revocada |= quien_sea && known;
            return Err(Negada::dicha(motivo, rechazo, &mut protocol));
        }
    }
    let keep_alive = keep_alive(&connect, s.max_keep_alive);
    let bienvenida = Bienvenida {
        sesion_presente: suya.presente,
        client_id_asignado: asignado,
        expiry: (connect.cinco && expiry != connect.expiry).then_some(expiry),
        keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
    };
    let mut salida = BytesMut::new();
    if !protocol.connack(&bienvenida, &mut salida) {
        // [MQTT-3.2.0-1]: nobody is served without one.
        return Err(Negada::callada("it does not take a packet as large as CONNACK"));
    }
    let cliente = Arc::new(Cliente {
        numero: b.numero(),
        quien: quien(&principal),
        client_id,
        ip: origen.ip,
        via: origen.via,
        version: if connect.cinco { "5.0" } else { "3.1.1" },
        keep_alive,
        desde: ahora,
        cuentas: Cuentas::default(),
        corte: CancellationToken::new(),
    });
    let (b, legado) = (b.clone(), suya.legado.take());
    let inicio =
        Inicio { b, suya, principal, cliente, protocol, entrada, salida, keep_alive, caduca, expiry };
    Ok((inicio, legado))
}

/// What a client says first.
struct Dicho {
    connect: Connect,
    protocol: Protocol,
    /// Bytes that came after it.
    entrada: BytesMut,
}

/// Reads the CONNECT to its end.
async fn lee_connect<R>(b: &Compartido, lee: &mut R, ahora: Timestamp) -> Result<Dicho, Negada>
where
    R: AsyncRead + Unpin,
{
    let s = &b.parts.settings;
    let mut entrada = BytesMut::with_capacity(512);
    let largo = loop {
        match first_packet::mira(&entrada, MAX_CONNECT.min(s.max_packet as usize)) {
            Primero::Connect(largo) => break largo,
            Primero::Grande => {
                limita("max_packet_bytes");
                return Err(Negada::callada("a CONNECT that is too large"));
            }
            Primero::Ajeno => return Err(Negada::callada("the first packet is not a CONNECT")),
            Primero::Incompleto => {}
        }
        let leido = tokio::select! {
            leido = lee.read_buf(&mut entrada) => leido,
            () = b.apaga.cancelled() => return Err(Negada::callada("the server stops")),
        };
        if leido.map_or(true, |n| n == 0) {
            return Err(Negada::sin_nadie("closed before its CONNECT"));
        }
    };
    let mut primero = entrada.split_to(largo);
    let leido = strict::examina_connect(&primero).map_err(|defecto| Negada::ilegible(&primero, defecto))?;
    let sin_alias = first_packet::sin_alias_cero(&mut primero);
    let clave_sola = first_packet::saca_clave(&mut primero, &leido);
    let mut protocol = Protocol::new(s.max_packet, s.receive_maximum, !sin_alias);
    let mut salida = BytesMut::new();
    let recibido = protocol.recv(&primero, |_| false, |_| Pubrec::Ajeno, ahora, &mut salida);
    let mut connect = match (recibido.paquete, recibido.violacion) {
        (Some(Entrante::Connect(connect)), None) => *connect,
        (_, violacion) => {
            let que = violacion.map(|v| v.que).unwrap_or_default();
            return Err(Negada { motivo: format!("malformed CONNECT: {que}"), respuesta: Some(salida) });
        }
    };
    connect.clave = connect.clave.or(clave_sola);
    if connect.metodo {
        // [MQTT-4.12.0-1]
        return Err(Negada::dicha("enhanced authentication", Rechazo::MetodoInvalido, &mut protocol));
    }
    Ok(Dicho { connect, protocol, entrada })
}

/// Signs the client in, unless it has failed too often from its address.
async fn identifica(
    b: &Compartido,
    connect: &Connect,
    origen: &Origen,
    ahora: Timestamp,
) -> Result<(Principal, Option<Timestamp>), (String, Rechazo)> {
    if connect.usuario.as_deref().unwrap_or_default().len() > MAX_USUARIO {
        // Nobody is called that, and nothing is kept of it.
        return Err(("a user name of more than 256 bytes".to_owned(), Rechazo::ClaveIncorrecta));
    }
    let (nombre, intento) = (nombre(connect, origen), intento(connect, origen));
    if let Some(espera) = b.intentos.espera(origen.ip, &intento) {
        limita("sign_in");
        let motivo = format!("{nombre:?} failed too often; it may try again in {} s", espera.as_secs() + 1);
        return Err((motivo, Rechazo::Demasiadas));
    }
    let firmado = firma(b, connect, origen).await;
    match &firmado {
        Ok(_) => b.intentos.acierta(origen.ip, &intento),
        Err((motivo, rechazo)) => {
            if *rechazo != Rechazo::NoDisponible {
                b.intentos.falla(origen.ip, &intento);
            }
            b.parts.clientes.falla(nombre, origen.ip, ahora, motivo);
        }
    }
    firmado
}

/// The certificate that a client signs in with: it has one, and no password.
fn firma_con<'a>(connect: &Connect, origen: &'a Origen) -> Option<&'a Peer> {
    origen.certificado.as_ref().filter(|_| connect.clave.as_deref().unwrap_or_default().is_empty())
}

/// By which name people know who fails to sign in.
fn nombre<'a>(connect: &'a Connect, origen: &'a Origen) -> &'a str {
    let certificado = firma_con(connect, origen).and_then(|c| c.common_name.as_deref());
    certificado.or(connect.usuario.as_deref()).unwrap_or_default()
}

/// Under which name failures are counted. `jwt`, `key` and `$doctor` are everybody's name: who holds a stale token does
/// not make all others behind the same address wait, and what is guessed there has 256 bits. Who signs in with a
/// certificate often says no name at all: it is counted by that, apart from all names, which have no NUL.
fn intento<'a>(connect: &'a Connect, origen: &'a Origen) -> Cow<'a, str> {
    if let Some(certificado) = firma_con(connect, origen) {
        return format!("\0{}", certificado.serial).into();
    }
    match (connect.usuario.as_deref().unwrap_or_default(), connect.clave.as_deref()) {
        (usuario @ ("jwt" | "key" | prueba::USUARIO), Some(clave)) => {
            format!("{usuario}:{}", URL_SAFE_NO_PAD.encode(&Sha256::digest(clave)[..12])).into()
        }
        (usuario, _) => usuario.into(),
    }
}

/// Seconds of keep-alive: the client's own, or the server's where that is shorter.
fn keep_alive(connect: &Connect, max: u16) -> u16 {
    match (max, connect.keep_alive) {
        (0, suyo) => suyo,
        (max, 0) if connect.cinco => max,
        (max, suyo) if connect.cinco => suyo.min(max),
        // 3.1.1 has no way to say it.
        (_, suyo) => suyo,
    }
}

fn quien(principal: &Principal) -> Quien {
    match principal {
        Principal::Dispositivo(sensor) => Quien::Dispositivo(sensor.clone()),
        Principal::Usuario(u) => Quien::Usuario { user_id: u.user_id.clone(), id_empresa: u.id_empresa },
        Principal::Llave(k) => Quien::Llave { id_api_key: k.id_api_key, id_empresa: k.id_empresa },
        Principal::Anonimo | Principal::Prueba => Quien::Anonimo,
    }
}

/// Who the client is (contract section 1, sign-in), and until when.
async fn firma(
    b: &Compartido,
    connect: &Connect,
    origen: &Origen,
) -> Result<(Principal, Option<Timestamp>), (String, Rechazo)> {
    let no_disponible = |e: &dyn std::fmt::Display| (format!("cannot check: {e}"), Rechazo::NoDisponible);
    let clave = connect.clave.as_deref().unwrap_or_default();
    if let Some(certificado) = origen.certificado.as_ref().filter(|c| c.is_revoked()) {
        let motivo = format!("certificate {} is revoked", certificado.serial);
        return Err((motivo, Rechazo::ClaveIncorrecta));
    }
    if let Some(certificado) = firma_con(connect, origen) {
        return por_certificado(b, connect, certificado).await;
    }
    match connect.usuario.as_deref() {
        None if b.parts.settings.open && origen.local => Ok((Principal::Anonimo, None)),
        None => Err(("no user name".into(), Rechazo::NoAutorizado)),
        Some("jwt") => {
            let token = str::from_utf8(clave).unwrap_or_default();
            match b.parts.cuentas.usuario(token).await {
                Ok((usuario, caduca)) => Ok((Principal::Usuario(usuario), Some(caduca))),
                Err(e) if e.es_pasajero() => Err(no_disponible(&e)),
                Err(e) => Err((format!("access token: {e}"), Rechazo::ClaveIncorrecta)),
            }
        }
        Some("key") => match llave::entra(&b.parts.store, clave, b.parts.clock.now()).await {
            Ok(Some(llave)) if llave.puede(Permiso::MqttSubscribe) => {
                let caduca = llave.expira;
                Ok((Principal::Llave(llave), caduca))
            }
            Ok(Some(_)) => Err(("API key: not for mqtt:subscribe".into(), Rechazo::NoAutorizado)),
            Ok(None) => Err(("API key: unknown, revoked or expired".into(), Rechazo::ClaveIncorrecta)),
            Err(e) => Err(no_disponible(&e)),
        },
        Some(prueba::USUARIO) => match b.parts.prueba.entra(clave, b.parts.clock.now()) {
            Some(caduca) => Ok((Principal::Prueba, Some(caduca))),
            None => Err((
                "self-test: not made with this server's secret, or too old".into(),
                Rechazo::ClaveIncorrecta,
            )),
        },
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
    if !topic::nombre_valido(&will.topic) {
        return Err(Rechazo::TestamentoInvalido);
    }
    if topic::excede(&will.topic, s) {
        limita("topic");
        return Err(Rechazo::TestamentoInvalido);
    }
    match acl::publica(principal, &will.topic) {
        Publicar::Negado | Publicar::Probar => Err(Rechazo::NoAutorizado),
        Publicar::Ingerir(_) | Publicar::Rutear => Ok(Some((will, espera))),
    }
}
