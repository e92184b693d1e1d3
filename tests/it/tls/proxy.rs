//! The PROXY protocol, version 2, on both MQTT ports.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{alive, closed, connector, handshake, sign_in, tcp};
use crate::support::{Server, mqtt};

/// A connection that begins with the header of a client at `ip`.
async fn behind(address: &str, ip: [u8; 4]) -> TcpStream {
    let mut stream = tcp(address).await;
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(ip);
    header.extend([127, 0, 0, 1, 0xc0, 0, 0x07, 0x5b]);
    stream.write_all(&header).await.expect("sent");
    stream
}

async fn start(from: &str) -> Server {
    let from = from.to_owned();
    Server::start_with(move |mut command| {
        command
            .env("ALERTRACE__MQTT__PROXY_PROTOCOL", "true")
            .env("ALERTRACE__MQTT__PROXY_FROM", from)
            .env("ALERTRACE__MQTT__MAX_CONNECTIONS_PER_ADDRESS", "1");
        command
    })
    .await
}

#[tokio::test]
async fn the_address_that_counts_is_the_one_that_the_proxy_says() {
    let server = start("127.0.0.0/8,::1").await;
    let device = server.device("d1").await;
    let connect = |id: &str| mqtt::connect(5, id, "d1", &device.token);
    let (a, b) = ([203, 0, 113, 7], [203, 0, 113, 8]);
    let mut first = behind(&server.mqtt, a).await;
    assert_eq!(sign_in(&mut first, &connect("1")).await, Some(0));
    // Full, on the other port too; another address is not.
    closed(&mut behind(&server.mqtt, a).await).await;
    let tls = connector(&server, None);
    assert!(handshake(&tls, behind(&server.mqtts, a).await).await.is_err());
    let mut second = handshake(&tls, behind(&server.mqtts, b).await).await.expect("TLS after the header");
    assert_eq!(sign_in(&mut second, &connect("2")).await, Some(0));
    // The proxy's own health check, which is of no client: its own address.
    let mut check = tcp(&server.mqtt).await;
    check.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").await.expect("sent");
    assert_eq!(sign_in(&mut check, &connect("3")).await, Some(0));
    drop(check);

    // No header; version 1.
    assert_eq!(sign_in(&mut tcp(&server.mqtt).await, &connect("4")).await, None);
    assert!(handshake(&tls, tcp(&server.mqtts).await).await.is_err());
    let mut old = tcp(&server.mqtt).await;
    old.write_all(b"PROXY TCP4 203.0.113.9 127.0.0.1 49152 1883\r\n").await.expect("sent");
    assert_eq!(sign_in(&mut old, &connect("5")).await, None);
    assert!(alive(&mut first).await && alive(&mut second).await);
}

#[tokio::test]
async fn a_header_is_believed_from_a_proxy_only() {
    let server = start("10.99.0.1").await;
    let device = server.device("d1").await;
    let mut stream = behind(&server.mqtt, [203, 0, 113, 7]).await;
    assert_eq!(sign_in(&mut stream, &mqtt::connect(5, "1", "d1", &device.token)).await, None);
}
