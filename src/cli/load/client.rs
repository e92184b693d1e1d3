//! The sending side: as little of MQTT as a load needs, so that the broker is measured and not the
//! client. 3.1.1 or 5.0, any QoS, a window of unacknowledged messages.

use std::fmt::Write as _;
use std::io::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::Cuenta;
use super::site::Device;
use crate::domain::{Clock as _, SystemClock};
use crate::tls::Connector;

/// Bytes that are written together.
const LOTE: usize = 16 << 10;
/// How long the last acknowledgements may take.
const PACIENCIA: Duration = Duration::from_secs(30);
/// Degrees that one reading in ten is above: ten of a hundred in a row.
pub(super) const UMBRAL: f64 = 28.95;

/// A message that was acknowledged, or, with QoS 0, sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Enviado {
    /// The timestamp it carried, in microseconds.
    pub(super) micros: i64,
    /// From the write to the acknowledgement.
    pub(super) latencia: Duration,
}

/// How a client speaks.
#[derive(Clone, Copy)]
pub(super) struct Como<'a> {
    pub(super) version: u8,
    pub(super) qos: u8,
    /// Over TLS.
    pub(super) tls: Option<&'a Connector>,
}

trait Flujo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Flujo for T {}

/// A connected client.
pub(super) struct Cliente {
    stream: Box<dyn Flujo>,
    version: u8,
    qos: u8,
    topic: String,
    /// Where its hundred values begin: not all devices are warm at once.
    fase: i64,
    entrada: BytesMut,
    payload: String,
}

/// A message that is to be acknowledged.
pub(super) struct Abierto {
    pid: u16,
    pub(super) micros: i64,
    desde: Instant,
}

/// A packet that has arrived: its type, the first bytes of its body and how long that is.
struct Paquete {
    tipo: u8,
    cuerpo: [u8; 3],
    largo: usize,
}

impl Cliente {
    /// Connects and waits for the CONNACK.
    pub(super) async fn connect(broker: &str, como: Como<'_>, device: &Device) -> Result<Self> {
        let Como { version, qos, tls } = como;
        let tcp = TcpStream::connect(broker).await?;
        tcp.set_nodelay(true)?;
        let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
        let mut stream: Box<dyn Flujo> = match tls {
            Some(tls) => Box::new(tls.connect(host, tcp).await?),
            None => Box::new(tcp),
        };
        let mut cuerpo = BytesMut::new();
        texto(&mut cuerpo, "MQTT");
        let credenciales = device.token.is_some();
        cuerpo.put_u8(version);
        cuerpo.put_u8(if credenciales { 0b1100_0010 } else { 0b10 });
        cuerpo.put_u16(60);
        if version == 5 {
            cuerpo.put_u8(0);
        }
        texto(&mut cuerpo, &device.nombre);
        if let Some(token) = &device.token {
            texto(&mut cuerpo, &device.nombre);
            texto(&mut cuerpo, token);
        }
        let mut packet = BytesMut::new();
        encabeza(&mut packet, 0x10, cuerpo.len());
        packet.extend_from_slice(&cuerpo);
        stream.write_all(&packet).await?;
        let topic = device.topic.clone();
        let entrada = BytesMut::with_capacity(16 << 10);
        let fase = device.id_sensor;
        let mut cliente = Self { stream, version, qos, topic, fase, entrada, payload: String::new() };
        loop {
            if let Some(Paquete { tipo: 0x20, cuerpo, largo }) = cliente.paquete()? {
                return match cuerpo[1] {
                    0 if largo > 1 => Ok(cliente),
                    code => Err(Error::new(ErrorKind::PermissionDenied, format!("CONNACK {code:#x}"))),
                };
            }
            if cliente.stream.read_buf(&mut cliente.entrada).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Sends one message every `cada` (zero = whenever the window has room) from `primero` until
    /// `end`, then waits for what is open; adds to `avance` what is acknowledged (with QoS 0: sent).
    pub(super) async fn run(
        mut self,
        primero: Instant,
        cada: Duration,
        end: Instant,
        window: usize,
        avance: &AtomicU64,
    ) -> Cuenta {
        let mut cuenta = Cuenta::default();
        if let Err(e) = self.send(primero, cada, end, window, avance, &mut cuenta).await {
            cuenta.error = Some(e.to_string());
        }
        cuenta
    }

    async fn send(
        &mut self,
        primero: Instant,
        cada: Duration,
        end: Instant,
        window: usize,
        avance: &AtomicU64,
        cuenta: &mut Cuenta,
    ) -> Result<()> {
        let (mut siguiente, mut pid, mut ultimo) = (primero, 0_u16, 0_i64);
        let mut salida = BytesMut::with_capacity(LOTE + 1024);
        let alarma = sleep_until(end);
        tokio::pin!(alarma);
        loop {
            let mut ahora = Instant::now();
            while ahora < end && salida.len() < LOTE && cuenta.abiertos.len() < window && ahora >= siguiente {
                pid = if pid == u16::MAX { 1 } else { pid + 1 };
                let micros = SystemClock.now().micros().max(ultimo + 1);
                ultimo = micros;
                self.publish(&mut salida, pid, micros);
                if self.qos == 0 {
                    cuenta.confirmados.push(Enviado { micros, latencia: Duration::ZERO });
                    avance.fetch_add(1, Ordering::Relaxed);
                } else {
                    cuenta.abiertos.push_back(Abierto { pid, micros, desde: ahora });
                }
                cuenta.enviados += 1;
                siguiente = if cada.is_zero() { ahora } else { siguiente + cada };
                ahora = Instant::now();
            }
            if !salida.is_empty() {
                self.stream.write_all(&salida).await?;
                self.stream.flush().await?;
                salida.clear();
            }
            if ahora >= end && (cuenta.abiertos.is_empty() || ahora >= end + PACIENCIA) {
                return if cuenta.abiertos.is_empty() { Ok(()) } else { Err(ErrorKind::TimedOut.into()) };
            }
            let plazo = match () {
                () if ahora >= end => end + PACIENCIA,
                () if cuenta.abiertos.len() < window => siguiente.min(end),
                () => end,
            };
            if alarma.deadline() != plazo {
                alarma.as_mut().reset(plazo);
            }
            tokio::select! {
                leido = self.stream.read_buf(&mut self.entrada) => {
                    if leido? == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                () = &mut alarma => continue,
            }
            let recibido = Instant::now();
            while let Some(Paquete { tipo, cuerpo, largo }) = self.paquete()? {
                if !matches!((self.qos, tipo), (1, 0x40) | (2, 0x50 | 0x70)) || largo < 2 {
                    return Err(Error::new(ErrorKind::InvalidData, format!("packet {tipo:#x}")));
                }
                if largo > 2 && cuerpo[2] >= 0x80 {
                    return Err(Error::other(format!("packet {tipo:#x} with reason {:#x}", cuerpo[2])));
                }
                let pid = u16::from_be_bytes([cuerpo[0], cuerpo[1]]);
                let Some(cual) = cuenta.abiertos.iter().position(|a| a.pid == pid) else {
                    return Err(Error::new(ErrorKind::InvalidData, format!("{pid} was not open")));
                };
                // PUBCOMP says no more than that the window has room again.
                if tipo != 0x70 {
                    let latencia = recibido - cuenta.abiertos[cual].desde;
                    cuenta.confirmados.push(Enviado { micros: cuenta.abiertos[cual].micros, latencia });
                    avance.fetch_add(1, Ordering::Relaxed);
                }
                if tipo == 0x50 {
                    salida.extend_from_slice(&[0x62, 2, cuerpo[0], cuerpo[1]]);
                } else {
                    cuenta.abiertos.remove(cual);
                }
            }
        }
    }

    /// Appends a reading of five variables, as a site's sensor sends it.
    fn publish(&mut self, salida: &mut BytesMut, pid: u16, micros: i64) {
        let timestamp = crate::domain::Timestamp::clamped(micros);
        let decimas = self.fase.wrapping_add(pid.into()).rem_euclid(100);
        let (grados, decima) = (decimas / 10, decimas % 10);
        self.payload.clear();
        let _ = write!(
            self.payload,
            "{{\"temperatura\":{}.{decima},\"humedad_aire\":{}.{decima},\"humedad_suelo\":55.2,\"ph_suelo\":6.8,\
             \"radiacion_solar\":412,\"timestamp\":\"{timestamp}\"}}",
            20 + grados,
            60 + grados
        );
        let extra = usize::from(self.version == 5);
        let id = if self.qos == 0 { 0 } else { 2 };
        encabeza(salida, 0x30 | self.qos << 1, 2 + self.topic.len() + id + extra + self.payload.len());
        texto(salida, &self.topic);
        if self.qos > 0 {
            salida.put_u16(pid);
        }
        if self.version == 5 {
            salida.put_u8(0);
        }
        salida.extend_from_slice(self.payload.as_bytes());
    }

    /// The next whole packet that has arrived.
    fn paquete(&mut self) -> Result<Option<Paquete>> {
        let (mut largo, mut usados) = (0_usize, 1);
        loop {
            let Some(b) = self.entrada.get(usados) else { return Ok(None) };
            largo |= usize::from(b & 0x7f) << (7 * (usados - 1));
            usados += 1;
            if b & 0x80 == 0 {
                break;
            }
            if usados > 4 {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        let Some(bytes) = self.entrada.get(usados..usados + largo) else { return Ok(None) };
        let mut cuerpo = [0; 3];
        for (hay, byte) in cuerpo.iter_mut().zip(bytes) {
            *hay = *byte;
        }
        let tipo = self.entrada[0] & 0xf0;
        self.entrada.advance(usados + largo);
        Ok(Some(Paquete { tipo, cuerpo, largo }))
    }
}

fn texto(b: &mut BytesMut, t: &str) {
    b.put_u16(u16::try_from(t.len()).unwrap_or(u16::MAX));
    b.extend_from_slice(t.as_bytes());
}

fn encabeza(b: &mut BytesMut, tipo: u8, mut largo: usize) {
    b.put_u8(tipo);
    loop {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits")]
        let byte = (largo & 0x7f) as u8;
        largo >>= 7;
        b.put_u8(if largo > 0 { byte | 0x80 } else { byte });
        if largo == 0 {
            return;
        }
    }
}
