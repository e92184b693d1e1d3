//! The sending side: as little of MQTT as a load needs, so that the broker is measured and not the
//! client. 3.1.1 or 5.0, any QoS, a window of unacknowledged messages.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

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
        let mut cliente = Self { stream, version, qos, topic, fase: device.id_sensor, entrada };
        loop {
            if let Some((0x20, cuerpo)) = cliente.paquete()? {
                return match cuerpo.get(1) {
                    Some(0) => Ok(cliente),
                    code => Err(Error::new(ErrorKind::PermissionDenied, format!("CONNACK {code:?}"))),
                };
            }
            if cliente.stream.read_buf(&mut cliente.entrada).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Sends one message every `cada` (zero = whenever the window has room) from `primero` until
    /// `end`, then waits for what is open.
    pub(super) async fn run(
        mut self,
        primero: Instant,
        cada: Duration,
        end: Instant,
        window: usize,
        avance: &UnboundedSender<u64>,
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
        avance: &UnboundedSender<u64>,
        cuenta: &mut Cuenta,
    ) -> Result<()> {
        let mut abiertos: HashMap<u16, (i64, Instant)> = HashMap::with_capacity(window);
        let (mut siguiente, mut pid, mut ultimo) = (primero, 0_u16, 0_i64);
        let mut salida = BytesMut::with_capacity(16 << 10);
        loop {
            let (mut ahora, mut confirmados) = (Instant::now(), 0);
            while ahora < end && salida.len() < LOTE && abiertos.len() < window && ahora >= siguiente {
                pid = if pid == u16::MAX { 1 } else { pid + 1 };
                let micros = SystemClock.now().micros().max(ultimo + 1);
                ultimo = micros;
                self.publish(&mut salida, pid, micros);
                if self.qos == 0 {
                    cuenta.confirmados.push(Enviado { micros, latencia: Duration::ZERO });
                    confirmados += 1;
                } else {
                    abiertos.insert(pid, (micros, ahora));
                }
                cuenta.enviados += 1;
                siguiente = if cada.is_zero() { ahora } else { siguiente + cada };
                ahora = Instant::now();
            }
            if !salida.is_empty() {
                self.stream.write_all(&salida).await?;
                self.stream.flush().await?;
                salida.clear();
                let _ = avance.send(std::mem::take(&mut confirmados));
            }
            if ahora >= end && (abiertos.is_empty() || ahora >= end + PACIENCIA) {
                return if abiertos.is_empty() { Ok(()) } else { Err(ErrorKind::TimedOut.into()) };
            }
            let plazo = match () {
                () if ahora >= end => end + PACIENCIA,
                () if abiertos.len() < window => siguiente.min(end),
                () => end,
            };
            tokio::select! {
                leido = self.stream.read_buf(&mut self.entrada) => {
                    if leido? == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                () = tokio::time::sleep_until(plazo) => continue,
            }
            let recibido = Instant::now();
            while let Some((tipo, cuerpo)) = self.paquete()? {
                if !matches!((self.qos, tipo), (1, 0x40) | (2, 0x50 | 0x70)) || cuerpo.len() < 2 {
                    return Err(Error::new(ErrorKind::InvalidData, format!("packet {tipo:#x}")));
                }
                if cuerpo.len() > 2 && cuerpo[2] >= 0x80 {
                    return Err(Error::other(format!("packet {tipo:#x} with reason {:#x}", cuerpo[2])));
                }
                let pid = u16::from_be_bytes([cuerpo[0], cuerpo[1]]);
                if tipo == 0x50 {
                    // It has it; the window has room again when that is completed.
                    salida.extend_from_slice(&[0x62, 2, cuerpo[0], cuerpo[1]]);
                }
                let confirmado = if tipo == 0x70 {
                    abiertos.remove(&pid);
                    None
                } else if tipo == 0x50 {
                    abiertos.get(&pid).copied()
                } else {
                    abiertos.remove(&pid)
                };
                if let Some((micros, desde)) = confirmado {
                    cuenta.confirmados.push(Enviado { micros, latencia: recibido - desde });
                    confirmados += 1;
                }
            }
            let _ = avance.send(confirmados);
        }
    }

    /// Appends a reading of five variables, as a site's sensor sends it.
    fn publish(&self, salida: &mut BytesMut, pid: u16, micros: i64) {
        let timestamp = crate::domain::Timestamp::clamped(micros);
        #[expect(clippy::cast_precision_loss, reason = "below a hundred")]
        let decimas = (self.fase.wrapping_add(pid.into()).rem_euclid(100)) as f64 / 10.0;
        let payload = format!(
            "{{\"temperatura\":{:.1},\"humedad_aire\":{:.1},\"humedad_suelo\":55.2,\"ph_suelo\":6.8,\
             \"radiacion_solar\":412,\"timestamp\":\"{timestamp}\"}}",
            20.0 + decimas,
            60.0 + decimas
        );
        let extra = usize::from(self.version == 5);
        let id = if self.qos == 0 { 0 } else { 2 };
        encabeza(salida, 0x30 | self.qos << 1, 2 + self.topic.len() + id + extra + payload.len());
        texto(salida, &self.topic);
        if self.qos > 0 {
            salida.put_u16(pid);
        }
        if self.version == 5 {
            salida.put_u8(0);
        }
        salida.extend_from_slice(payload.as_bytes());
    }

    /// The next whole packet that has arrived: first byte (without flags) and body.
    fn paquete(&mut self) -> Result<Option<(u8, BytesMut)>> {
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
        if self.entrada.len() < usados + largo {
            return Ok(None);
        }
        let tipo = self.entrada[0] & 0xf0;
        self.entrada.advance(usados);
        Ok(Some((tipo, self.entrada.split_to(largo))))
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
