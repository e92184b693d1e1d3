//! MQTT by hand: bytes over a socket, so that a test can say what no library would.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// A packet: its first byte and its body.
pub type Packet = (u8, Vec<u8>);

pub struct Client {
    pub stream: TcpStream,
    version: u8,
}

pub fn text(t: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(t.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend(t.as_bytes());
    bytes
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (vec![first], body.len());
    loop {
        let byte = u8::try_from(rest % 128).expect("seven bits");
        rest /= 128;
        bytes.push(if rest > 0 { byte | 0x80 } else { byte });
        if rest == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

pub fn connect(version: u8, id: &str, user: &str, password: &str) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([version, 0b1100_0010, 0, 60]);
    if version == 5 {
        body.push(0);
    }
    body.extend(text(id));
    body.extend(text(user));
    body.extend(text(password));
    packet(0x10, &body)
}

impl Client {
    pub async fn open(address: &str, version: u8) -> Self {
        let stream = TcpStream::connect(address).await.expect("the broker listens");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, version }
    }

    /// Connects; answers the client and CONNACK's code.
    pub async fn connect(address: &str, version: u8, id: &str, user: &str, password: &str) -> (Self, u8) {
        let mut client = Self::open(address, version).await;
        client.send(&connect(version, id, user, password)).await;
        let (first, body) = client.read().await.expect("a CONNACK");
        assert_eq!(first, 0x20);
        (client, body[1])
    }

    /// Connects as a device that is let in.
    pub async fn device(address: &str, version: u8, device: &super::Device) -> Self {
        let (client, code) = Self::connect(address, version, &device.id, &device.id, &device.token).await;
        assert_eq!(code, 0, "{} is let in", device.id);
        client
    }

    /// As [`Self::device`], of a broker that may die meanwhile.
    pub async fn try_device(address: &str, version: u8, device: &super::Device) -> Option<Self> {
        let mut client = Self { stream: TcpStream::connect(address).await.ok()?, version };
        let hello = connect(version, &device.id, &device.id, &device.token);
        client.stream.write_all(&hello).await.ok()?;
        let (first, body) = client.read().await?;
        assert_eq!((first, body[1]), (0x20, 0), "{} is let in", device.id);
        Some(client)
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the broker reads");
    }

    pub fn publish_packet(&self, topic: &str, qos: u8, pid: u16, payload: &[u8]) -> Vec<u8> {
        let mut body = text(topic);
        if qos > 0 {
            body.extend(pid.to_be_bytes());
        }
        if self.version == 5 {
            body.push(0);
        }
        body.extend(payload);
        packet(0x30 | (qos << 1), &body)
    }

    /// Publishes with QoS 1; answers the reason code of the PUBACK (0 in 3.1.1).
    pub async fn publish(&mut self, topic: &str, pid: u16, payload: &str) -> u8 {
        let bytes = self.publish_packet(topic, 1, pid, payload.as_bytes());
        self.send(&bytes).await;
        let (first, body) = self.read().await.expect("a PUBACK");
        assert_eq!((first, &body[..2]), (0x40, &pid.to_be_bytes()[..]));
        body.get(2).copied().unwrap_or(0)
    }

    /// Subscribes to one filter with QoS 1; answers the code of the SUBACK.
    pub async fn subscribe(&mut self, filter: &str) -> u8 {
        let mut body = vec![0, 1];
        if self.version == 5 {
            body.push(0);
        }
        body.extend(text(filter));
        body.push(1);
        self.send(&packet(0x82, &body)).await;
        let (first, body) = self.read().await.expect("a SUBACK");
        assert_eq!(first, 0x90);
        *body.last().expect("a code")
    }

    /// The next packet; `None` when the broker closed.
    pub async fn read(&mut self) -> Option<Packet> {
        timeout(PATIENCE, self.read_packet()).await.expect("an answer in time")
    }

    async fn read_packet(&mut self) -> Option<Packet> {
        let first = self.stream.read_u8().await.ok()?;
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = self.stream.read_u8().await.ok()?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((first, body))
    }

    /// Whether the broker still answers this client.
    pub async fn alive(&mut self) -> bool {
        if self.stream.write_all(&[0xc0, 0]).await.is_err() {
            return false;
        }
        loop {
            match self.read().await {
                Some((0xd0, _)) => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }
}
