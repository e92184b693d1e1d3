//! What the examples share: as little of MQTT as a load needs, over TCP and TLS; the API's side of
//! it; and what the system says of a process.
#![allow(dead_code, reason = "each example uses a part of it")]

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alertrace::domain::Timestamp;
use bytes::{Buf as _, Bytes, BytesMut};
use hdrhistogram::Histogram;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;
pub const SUBACK: u8 = 9;
pub const DISCONNECT: u8 = 14;

/// What a client may wait for a connection, its CONNACK included, before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A byte stream of any kind.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// How a client signs in.
#[derive(Debug, Clone)]
pub struct Login {
    /// 4 = 3.1.1, 5 = 5.0.
    pub version: u8,
    pub client_id: String,
    /// User name and password; without them, anonymous.
    pub user: Option<(String, String)>,
    /// Seconds that the session outlives its connection; 0 = it ends with it. 3.1.1 has but "kept".
    pub expiry: u32,
    pub keep_alive: u16,
}

impl Login {
    pub fn anonymous(version: u8, client_id: impl Into<String>) -> Self {
        Self { version, client_id: client_id.into(), user: None, expiry: 0, keep_alive: 0 }
    }

    pub fn packet(&self) -> Vec<u8> {
        let mut body = text("MQTT");
        let clean = if self.expiry == 0 { 2 } else { 0 };
        body.extend([self.version, clean | if self.user.is_some() { 0b1100_0000 } else { 0 }]);
        body.extend(self.keep_alive.to_be_bytes());
        if self.version == 5 {
            if self.expiry == 0 {
                body.push(0);
            } else {
                body.extend([5, 0x11]);
                body.extend(self.expiry.to_be_bytes());
            }
        }
        body.extend(text(&self.client_id));
        if let Some((user, password)) = &self.user {
            body.extend(text(user));
            body.extend(text(password));
        }
        packet(0x10, &body)
    }
}

/// A message that arrived.
pub struct Message<'a> {
    pub topic: &'a str,
    /// With QoS above 0.
    pub pid: Option<u16>,
    pub payload: &'a [u8],
}

/// A packet that arrived.
#[derive(Debug)]
pub struct Packet {
    pub first: u8,
    pub body: Bytes,
}

impl Packet {
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The packet id of an acknowledgement.
    pub fn pid(&self) -> u16 {
        self.body.get(..2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
    }

    /// The reason of a PUBACK, the code of a SUBACK with one filter.
    pub fn code(&self, version: u8) -> u8 {
        let at = if self.kind() == SUBACK && version == 5 { 3 } else { 2 };
        self.body.get(at).copied().unwrap_or(0)
    }

    pub fn message(&self, version: u8) -> Option<Message<'_>> {
        let body = &self.body[..];
        let length = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
        let topic = str::from_utf8(body.get(2..2 + length)?).ok()?;
        let mut rest = body.get(2 + length..)?;
        let mut pid = None;
        if self.first & 0b110 != 0 {
            pid = Some(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
            rest = rest.get(2..)?;
        }
        if version == 5 {
            let (properties, used) = varint(rest)?;
            rest = rest.get(used + properties..)?;
        }
        Some(Message { topic, pid, payload: rest })
    }
}

/// A connection, signed in or not.
pub struct Client {
    io: Box<dyn Io>,
    input: BytesMut,
    pub version: u8,
    /// The server had its session.
    pub present: bool,
}

impl Client {
    /// Signs in over a stream that is open.
    pub async fn sign_in(io: Box<dyn Io>, login: &Login) -> Result<Self> {
        let mut client = Self { io, input: BytesMut::new(), version: login.version, present: false };
        client.send(&login.packet()).await?;
        let answer = client.next().await?;
        match (answer.kind(), answer.body.get(1)) {
            (CONNACK, Some(0)) => {
                client.present = answer.body[0] == 1;
                Ok(client)
            }
            (kind, code) => {
                Err(Error::new(ErrorKind::PermissionDenied, format!("packet {kind}, code {code:?}")))
            }
        }
    }

    /// Connects in clear from `from` and signs in.
    pub async fn plain(to: SocketAddr, from: Ipv4Addr, login: &Login) -> Result<Self> {
        patiently(async { Self::sign_in(Box::new(dial(to, from).await?), login).await }).await
    }

    /// Connects over TLS from `from` and signs in.
    pub async fn tls(to: SocketAddr, by: &TlsConnector, from: Ipv4Addr, login: &Login) -> Result<Self> {
        let name = ServerName::try_from("localhost").map_err(Error::other)?;
        patiently(async {
            let stream = by.connect(name, dial(to, from).await?).await?;
            Self::sign_in(Box::new(stream), login).await
        })
        .await
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.io.write_all(bytes).await?;
        // TLS may have kept some.
        self.io.flush().await
    }

    /// The next packet. May be dropped half-way.
    pub async fn next(&mut self) -> Result<Packet> {
        loop {
            if let Some(packet) = take(&mut self.input) {
                return Ok(packet);
            }
            if self.io.read_buf(&mut self.input).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub fn publish(&self, topic: &str, pid: Option<u16>, retain: bool, dup: bool, payload: &[u8]) -> Vec<u8> {
        publish(self.version, topic, pid, retain, dup, payload)
    }

    /// SUBSCRIBE, to be acknowledged with packet id 1.
    pub fn subscribe(&self, filter: &str, qos: u8) -> Vec<u8> {
        subscribe(self.version, 1, filter, qos)
    }

    /// Subscribes and waits until that is granted.
    pub async fn subscribed(&mut self, filter: &str, qos: u8) -> Result<()> {
        let bytes = self.subscribe(filter, qos);
        self.send(&bytes).await?;
        loop {
            let packet = self.next().await?;
            match (packet.kind(), packet.code(self.version)) {
                (SUBACK, 0..=2) => return Ok(()),
                (SUBACK, code) => return Err(Error::other(format!("SUBACK with {code:#x}"))),
                _ => {}
            }
        }
    }

    /// Whether the server still answers.
    pub async fn alive(&mut self) -> bool {
        let pong = async {
            self.send(&[0xc0, 0]).await?;
            while self.next().await?.first != 0xd0 {}
            Ok(())
        };
        patiently(pong).await.is_ok()
    }
}

async fn patiently<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, what).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// A TCP connection from an address of our own choice.
pub async fn dial(to: SocketAddr, from: Ipv4Addr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One of the loopback network's addresses: each has ports of its own, and limits of its own.
pub fn source(n: usize) -> Ipv4Addr {
    let [.., a, b, c] = (n + 1).to_be_bytes();
    Ipv4Addr::new(127, a.wrapping_add(1), b, c)
}

/// What trusts the authority in `ca`, and nobody else.
pub fn connector(ca: &Path) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// PUBLISH; with a packet id, of QoS 1.
pub fn publish(
    version: u8,
    topic: &str,
    pid: Option<u16>,
    retain: bool,
    dup: bool,
    payload: &[u8],
) -> Vec<u8> {
    let mut body = text(topic);
    body.extend(pid.map(u16::to_be_bytes).iter().flatten());
    if version == 5 {
        body.push(0);
    }
    body.extend(payload);
    packet(0x30 | u8::from(retain) | (u8::from(pid.is_some()) << 1) | (u8::from(dup) << 3), &body)
}

/// SUBSCRIBE to one filter.
pub fn subscribe(version: u8, pid: u16, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = pid.to_be_bytes().to_vec();
    if version == 5 {
        body.push(0);
    }
    body.extend(text(filter));
    body.push(qos);
    packet(0x82, &body)
}

/// UNSUBSCRIBE from one filter.
pub fn unsubscribe(version: u8, pid: u16, filter: &str) -> Vec<u8> {
    let mut body = pid.to_be_bytes().to_vec();
    if version == 5 {
        body.push(0);
    }
    body.extend(text(filter));
    packet(0xa2, &body)
}

pub fn puback(pid: u16) -> [u8; 4] {
    let [a, b] = pid.to_be_bytes();
    [0x40, 2, a, b]
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        let byte = u8::try_from(length % 128).unwrap_or_default();
        length /= 128;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

fn text(t: &str) -> Vec<u8> {
    let mut out = u16::try_from(t.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    out.extend(t.as_bytes());
    out
}

/// A Variable Byte Integer, and how many bytes it took.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

/// The first packet of what has arrived, if it is all there.
fn take(input: &mut BytesMut) -> Option<Packet> {
    let (length, used) = varint(input.get(1..)?)?;
    if input.len() < 1 + used + length {
        return None;
    }
    let first = input[0];
    input.advance(1 + used);
    Some(Packet { first, body: input.split_to(length).freeze() })
}

/// Latencies, and what is said of them.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 600_000_000, 3)?))
    }

    pub fn note(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Milliseconds at a quantile.
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    pub fn ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1_000.0
    }
}

/// Resident memory of a process, in bytes; 0 when it is gone. What the kernel holds for its sockets is
/// not in it.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1_024
}

/// Processor time that a process has used, in hundredths of a second.
pub fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which may have anything in it.
    let fields = stat.rsplit_once(')').map(|(_, f)| f).unwrap_or_default();
    fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
}

#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Numbers that look random, the same again for the same seed: a run can be repeated.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// From 0 to below 1 (`SplitMix64`).
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A time until something that happens at random, `mean` on average.
    pub fn wait(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }
}

/// The site by its API.
pub struct Site {
    http: reqwest::Client,
    api: String,
    /// Signs a person in, over MQTT too.
    pub token: String,
}

/// A registered device.
#[derive(Debug, Clone)]
pub struct Device {
    pub key: i64,
    pub id: String,
    pub token: String,
}

impl Site {
    pub async fn sign_in(api: &str, email: &str, password: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::new();
        let login = json!({ "email": email, "password": password });
        let answer = http.post(format!("{api}/api/v1/auth/login")).json(&login).send().await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        let token = answer["access_token"].as_str().unwrap_or_default().to_owned();
        Ok(Self { http, api: api.to_owned(), token })
    }

    pub async fn device(&self, id: &str) -> anyhow::Result<Device> {
        let device = json!({ "device_id": id, "nombre": id, "tipo": "carga" });
        let request = self.http.post(format!("{}/api/v1/sensores", self.api)).bearer_auth(&self.token);
        let answer: Value = request.json(&device).send().await?.error_for_status()?.json().await?;
        let token = answer["credenciales"]["token"].as_str().unwrap_or_default().to_owned();
        let key = answer["sensor"]["id_sensor"].as_i64().unwrap_or_default();
        Ok(Device { key, id: id.to_owned(), token })
    }

    /// The moments of a device's stored readings, and how many there are of each.
    pub async fn readings(&self, device: &Device) -> anyhow::Result<HashMap<i64, usize>> {
        let mut moments = HashMap::new();
        let mut from = Timestamp::clamped(0);
        loop {
            let url = format!(
                "{}/api/v1/sensores/{}/lecturas?orden=asc&limit=1000&desde={from}",
                self.api, device.key
            );
            let answer = self.http.get(url).bearer_auth(&self.token).send().await?;
            let page: Vec<Value> = answer.error_for_status()?.json().await?;
            for reading in &page {
                let moment = reading["timestamp"].as_str().and_then(Timestamp::parse);
                let Some(moment) = moment else { anyhow::bail!("a reading without a moment: {reading}") };
                *moments.entry(moment.micros()).or_default() += 1;
                from = moment.next();
            }
            if page.len() < 1_000 {
                return Ok(moments);
            }
        }
    }
}
