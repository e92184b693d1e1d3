//! The server's certificate changes while it serves; handshakes that never end.

use std::process::Command;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{alive, closed, connector, handshake, sign_in, tcp};
use crate::support::{Server, mqtt};

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
}

/// Waits until the server shows a certificate that is not `old`.
async fn another(server: &Server, old: &CertificateDer<'static>) -> CertificateDer<'static> {
    for _ in 0..100 {
        let stream = handshake(&connector(server, None), tcp(&server.mqtts).await).await.expect("TLS");
        if shown(&stream) != *old {
            return shown(&stream);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the certificate stays the same");
}

#[tokio::test]
async fn a_new_certificate_is_served_and_no_connection_is_dropped() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__HTTP__TLS", "true");
        command
    })
    .await;
    let device = server.device("d1").await;
    let connect = mqtt::connect(5, "d1", "d1", &device.token);
    let of_http =
        async || shown(&handshake(&connector(&server, None), tcp(&server.http).await).await.expect("TLS"));
    let mut browser = handshake(&connector(&server, None), tcp(&server.http).await).await.expect("TLS");
    let mut open = handshake(&connector(&server, None), tcp(&server.mqtts).await).await.expect("TLS");
    assert_eq!(sign_in(&mut open, &connect).await, Some(0));
    let first = shown(&open);

    server.run(&["cert", "renew"]);
    let second = another(&server, &first).await;
    // The other port shows it too, and goes on with whom it has.
    assert!(shown(&browser) == first && of_http().await == second);
    browser.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    browser.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.run(&["cert", "renew", "--new-key"]);
    let third = another(&server, &second).await;

    // A broken file changes nothing for anybody, and what follows it counts; SIGHUP looks at once.
    let path = server.dir().join("certs/server.pem");
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("written");
    let pid = std::fs::read_to_string(server.data_dir().join("alertrace.lock")).expect("the lock file");
    assert!(Command::new("kill").args(["-HUP", pid.trim()]).status().expect("kill runs").success());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let stream = handshake(&connector(&server, None), tcp(&server.mqtts).await).await.expect("TLS");
    assert_eq!(shown(&stream), third);
    std::fs::remove_file(&path).expect("removed");
    server.run(&["cert", "renew"]);
    another(&server, &third).await;
    assert!(alive(&mut open).await, "the first connection is still served");
}

#[tokio::test]
async fn a_handshake_that_stalls_is_cut_at_the_deadline_while_others_connect() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__MQTT__CONNECT_DEADLINE_S", "3");
        command.env("ALERTRACE__MQTT__HANDSHAKE_DEADLINE_S", "2");
        command
    })
    .await;
    let device = server.device("d1").await;
    let start = Instant::now();
    let silent = tcp(&server.mqtts).await;
    let mut half = tcp(&server.mqtts).await;
    // The head of a record of 512 bytes, and the beginning of a ClientHello.
    half.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.expect("the server reads");
    // TLS is there, and no CONNECT comes.
    let mute = handshake(&connector(&server, None), tcp(&server.mqtts).await).await.expect("TLS");

    let mut other = handshake(&connector(&server, None), tcp(&server.mqtts).await).await.expect("TLS");
    assert_eq!(sign_in(&mut other, &mqtt::connect(5, "d1", "d1", &device.token)).await, Some(0));
    assert!(start.elapsed() < Duration::from_secs(2), "nobody waited for those that stall");

    let (mut silent, mut mute) = (silent, mute);
    tokio::join!(closed(&mut silent), closed(&mut half), closed(&mut mute));
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1_500) && took < Duration::from_secs(7), "{took:?}");
    assert!(alive(&mut other).await);
    let metrics =
        server.request(reqwest::Method::GET, "/metrics", "", None).await.text().await.expect("text");
    for (limit, times) in [("handshake_deadline_s", 2), ("connect_deadline_s", 1)] {
        let line = format!("alertrace_mqtt_limited_total{{limit=\"{limit}\"}} {times}\n");
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn a_handshake_that_stalls_does_not_hold_up_the_end() {
    let mut server = Server::start_with(|mut command| {
        command.env("ALERTRACE__HTTP__TLS", "true").env("ALERTRACE__MQTT__CONNECT_DEADLINE_S", "60");
        command
    })
    .await;
    let _stalled = (tcp(&server.mqtts).await, tcp(&server.mqtt).await, tcp(&server.http).await);
    let _mute = handshake(&connector(&server, None), tcp(&server.mqtts).await).await.expect("TLS");
    let (code, took) = server.terminate().await;
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}
