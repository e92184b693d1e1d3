//! As little of MQTT 5 as a self-test needs: a client that signs in, publishes at QoS 1, and hears why not.

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::tls::Connector;

/// What a proxy sends that speaks for itself (PROXY protocol 2, LOCAL).
const LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
/// Bytes of a packet; what is answered here has a few.
const MAX: usize = 64 << 10;
const CONNACK: u8 = 0x20;
const PUBACK: u8 = 0x40;
const DISCONNECT: u8 = 0xe0;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How the listener is reached.
#[derive(Default)]
pub(super) struct Way {
    /// Over TLS.
    pub(super) tls: Option<Connector>,
    /// It expects the header of a proxy.
    pub(super) proxied: bool,
}

/// A client that is signed in.
pub(super) struct Device {
    stream: Box<dyn Stream>,
    input: BytesMut,
    pid: u16,
}

impl Device {
    /// Signs in as `user`.
    pub(super) async fn connect(
        mut tcp: TcpStream,
        way: &Way,
        client_id: &str,
        (user, password): (&str, &str),
    ) -> anyhow::Result<Self> {
        tcp.set_nodelay(true)?;
        if way.proxied {
            tcp.write_all(&LOCAL).await?;
        }
        let stream: Box<dyn Stream> = match &way.tls {
            // Its certificate is known, whatever it is called.
            Some(tls) => Box::new(tls.connect("localhost", tcp).await.context("TLS")?),
            None => Box::new(tcp),
        };
        let mut device = Self { stream, input: BytesMut::new(), pid: 0 };
        let mut body = BytesMut::new();
        text(&mut body, "MQTT");
        // Version 5, a clean start with name and password, a minute of keep-alive, no properties.
        body.put_slice(&[5, 0b1100_0010, 0, 60, 0]);
        for t in [client_id, user, password] {
            text(&mut body, t);
        }
        device.send(0x10, &body).await?;
        let (kind, body) = device.packet().await?;
        ensure!(kind == CONNACK && body.len() > 1, "not an MQTT broker: {kind:#x}");
        match body[1] {
            0 => Ok(device),
            0x86 => bail!("the server does not know this credential"),
            code => bail!("the server does not let it in: CONNACK {code:#x}"),
        }
    }

    /// Publishes; returns once that is acknowledged.
    pub(super) async fn publish(&mut self, topic: &str, payload: &[u8]) -> anyhow::Result<()> {
        self.pid += 1;
        let mut body = BytesMut::new();
        text(&mut body, topic);
        body.put_u16(self.pid);
        body.put_u8(0);
        body.put_slice(payload);
        self.send(0x32, &body).await?;
        loop {
            let (kind, body) = self.packet().await?;
            match kind & 0xf0 {
                PUBACK => {
                    let reason = body.get(2).copied().unwrap_or_default();
                    ensure!(reason < 0x80, "the server refuses it: PUBACK {reason:#x} {}", why(&body));
                    return Ok(());
                }
                DISCONNECT => bail!("the server ends the connection: {:#x}", body.first().unwrap_or(&0)),
                _ => {}
            }
        }
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) -> anyhow::Result<()> {
        self.send(DISCONNECT, &[]).await?;
        Ok(self.stream.shutdown().await?)
    }

    async fn send(&mut self, kind: u8, body: &[u8]) -> anyhow::Result<()> {
        let mut packet = BytesMut::with_capacity(body.len() + 5);
        packet.put_u8(kind);
        let mut left = body.len();
        loop {
            let byte = u8::try_from(left & 0x7f).unwrap_or_default();
            left >>= 7;
            packet.put_u8(if left > 0 { byte | 0x80 } else { byte });
            if left == 0 {
                break;
            }
        }
        packet.put_slice(body);
        Ok(self.stream.write_all(&packet).await?)
    }

    /// The next packet: its first byte, and its body.
    async fn packet(&mut self) -> anyhow::Result<(u8, Bytes)> {
        loop {
            if let Some((header, length)) = length(&self.input)
                && self.input.len() >= header + length
            {
                let kind = self.input[0];
                self.input.advance(header);
                return Ok((kind, self.input.split_to(length).freeze()));
            }
            ensure!(self.input.len() < MAX, "a packet that is too large");
            let n = self.stream.read_buf(&mut self.input).await.context("MQTT")?;
            ensure!(n > 0, "the server closed the connection");
        }
    }
}

/// How long the header of a packet is, and its body.
fn length(input: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (n, byte) in input.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((n + 2, length));
        }
    }
    None
}

/// The reason string of a PUBACK, which is the only property that we send with it.
fn why(puback: &[u8]) -> String {
    let said = puback.get(4..).filter(|p| p.first() == Some(&0x1f)).and_then(|p| p.get(3..));
    String::from_utf8_lossy(said.unwrap_or_default()).into_owned()
}

fn text(body: &mut BytesMut, text: &str) {
    body.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    body.put_slice(text.as_bytes());
}
