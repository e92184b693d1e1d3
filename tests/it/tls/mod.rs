//! TLS on both ports, certificates of devices, and the PROXY protocol in front.

mod devices;
mod https;
mod proxy;
mod reload;

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Device, Server, mqtt};

const PATIENCE: Duration = Duration::from_secs(15);

/// A client that trusts the site's authority, and shows a certificate if it has one.
fn connector(server: &Server, own: Option<(&Path, &Path)>) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(server.ca()).expect("the authority")).expect("an authority");
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).expect("a certificate")];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).expect("a key"))
                .expect("a pair")
        }
    };
    TlsConnector::from(Arc::new(config))
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    connector: &TlsConnector,
    stream: S,
) -> std::io::Result<TlsStream<S>> {
    let name = ServerName::try_from("localhost").expect("a name");
    timeout(PATIENCE, connector.connect(name, stream)).await.expect("a handshake in time")
}

async fn tcp(address: &str) -> TcpStream {
    TcpStream::connect(address).await.expect("the server listens")
}

/// CONNECT, version 5, without a password; without a username either when it is empty.
fn connect_without_password(id: &str, user: &str) -> Vec<u8> {
    let mut body = mqtt::text("MQTT");
    body.extend([5, if user.is_empty() { 2 } else { 0b1000_0010 }, 0, 60, 0]);
    body.extend(mqtt::text(id));
    if !user.is_empty() {
        body.extend(mqtt::text(user));
    }
    mqtt::packet(0x10, &body)
}

/// Sends a CONNECT; answers CONNACK's reason code, or `None` when the server closed instead.
async fn sign_in<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, connect: &[u8]) -> Option<u8> {
    stream.write_all(connect).await.ok()?;
    let mut head = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("an answer in time").ok()?;
    if head[0] == 0x15 {
        // A TLS alert: what was sent was no TLS.
        return None;
    }
    assert_eq!(head[0], 0x20, "a CONNACK");
    let mut rest = vec![0; usize::from(head[1]) - 2];
    stream.read_exact(&mut rest).await.ok()?;
    Some(head[3])
}

/// Whether a connection that is signed in is still served.
async fn alive<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> bool {
    let mut pong = [0; 2];
    stream.write_all(&[0xc0, 0]).await.is_ok()
        && timeout(PATIENCE, stream.read_exact(&mut pong)).await.expect("an answer in time").is_ok()
        && pong == [0xd0, 0]
}

/// Waits until the server closes.
async fn closed<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut bytes = [0; 1_024];
    let end = async { while stream.read(&mut bytes).await.is_ok_and(|n| n > 0) {} };
    timeout(PATIENCE, end).await.expect("the server closes");
}

/// `mosquitto_pub` to the TLS port, QoS 1, of one temperature.
async fn mosquitto(server: &Server, device: &str, temperature: f64, args: &[&str]) -> Output {
    let (_, port) = server.mqtts.split_once(':').expect("host:port");
    let mut publish = Command::new("mosquitto_pub");
    publish.args(["-h", "localhost", "-p", port, "-V", "5", "-q", "1", "-i", device]);
    publish.args([
        "-t",
        &format!("sensores/{device}/data"),
        "-m",
        &format!("{{\"temperatura\":{temperature}}}"),
    ]);
    publish.args(args).kill_on_drop(true);
    timeout(PATIENCE, publish.output()).await.expect("in time").expect("it runs")
}

async fn temperatures(server: &Server, device: &Device) -> Vec<f64> {
    server.readings(device).await.iter().filter_map(|l| l["temperatura"].as_f64()).collect()
}

#[tokio::test]
async fn mosquitto_publishes_over_tls_and_checks_the_server() {
    let server = Server::start().await;
    let device = server.device("mosq").await;
    let ca = server.ca().to_str().expect("UTF-8").to_owned();
    let token = ["-u", "mosq", "-P", &device.token];
    for (version, temperature) in [("tlsv1.2", 21.0), ("tlsv1.3", 22.0)] {
        let args = [&token[..], &["--cafile", &ca, "--tls-version", version]].concat();
        let output = mosquitto(&server, "mosq", temperature, &args).await;
        assert!(output.status.success(), "{version}: {output:?}");
        let args = [&args[..], &["--tls-alpn", "mqtt"]].concat();
        assert!(
            mosquitto(&server, "mosq", temperature + 0.5, &args).await.status.success(),
            "{version} with ALPN"
        );
    }
    // The last -V counts: MQTT 3.1.1.
    let args = [&token[..], &["--cafile", &ca, "-V", "311"]].concat();
    assert!(mosquitto(&server, "mosq", 23.0, &args).await.status.success(), "3.1.1");
    assert_eq!(temperatures(&server, &device).await, [21.0, 21.5, 22.0, 22.5, 23.0]);

    // Without the site's authority the client refuses the server; in clear the server hears nothing.
    let args = [&token[..], &["--tls-use-os-certs"]].concat();
    assert!(!mosquitto(&server, "mosq", 30.0, &args).await.status.success());
    let mut clear = tcp(&server.mqtts).await;
    assert_eq!(sign_in(&mut clear, &mqtt::connect(5, "mosq", "mosq", &device.token)).await, None);
    // A wrong token stays wrong.
    let args = ["-u", "mosq", "-P", "wrong", "--cafile", &ca];
    assert!(!mosquitto(&server, "mosq", 30.0, &args).await.status.success());
    assert_eq!(temperatures(&server, &device).await.len(), 5);
}

#[tokio::test]
async fn what_is_open_in_clear_on_this_machine_is_not_over_tls() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__MQTT__OPEN", "true");
        command
    })
    .await;
    let anonymous = connect_without_password("x", "");
    assert_eq!(sign_in(&mut tcp(&server.mqtt).await, &anonymous).await, Some(0));
    let mut stream = handshake(&connector(&server, None), tcp(&server.mqtts).await).await.expect("TLS");
    assert!(sign_in(&mut stream, &anonymous).await.is_some_and(|code| code >= 0x80));
}
