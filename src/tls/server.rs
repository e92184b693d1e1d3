//! TLS on a connection: what rustls is told, and the handshake.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;

use super::certs::{Certs, Peer};
use super::error::{Error, Result};
use super::files;
use crate::config::ClientCerts;
use crate::domain::Clock;

/// A connection after its handshake.
pub type Stream = tokio_rustls::server::TlsStream<TcpStream>;

/// What is served with: both ports have the server's certificate, and MQTT asks for the client's.
#[derive(Debug, Clone)]
pub(super) struct Configs {
    mqtt: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

/// Which port a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Mqtt,
    Http,
}

/// Reads the files of `dir`.
pub(super) fn configs(dir: &Path, client_certs: ClientCerts, clock: &Arc<dyn Clock>) -> Result<Configs> {
    let (path, key_path) = (dir.join(files::SERVER), dir.join(files::SERVER_KEY));
    let absent = |path: &Path| Error::malformed(path, "there is no such file");
    let pem = files::read(&path)?.ok_or_else(|| absent(&path))?;
    let chain: Vec<CertificateDer<'static>> = certificates(&path, &pem)?;
    let key = files::read(&key_path)?.ok_or_else(|| absent(&key_path))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|e| Error::malformed(&key_path, format!("no private key in PEM is in it ({e})")))?;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let build = |verifier: Option<Arc<dyn ClientCertVerifier>>, alpn: &[&[u8]]| -> Result<_> {
        let time = Arc::new(Time(clock.clone()));
        let builder = ServerConfig::builder_with_details(provider.clone(), time)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Tls(e.to_string()))?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain.clone(), key.clone_key()).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => Error::Mismatch {
                key: key_path.clone(),
                certificate: path.clone(),
                advice: "put the two that belong together there, or run `alertrace cert renew`",
            },
            e => Error::malformed(&path, e),
        })?;
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Ok(Arc::new(config))
    };
    let verifier = verifier(dir, client_certs, &provider)?;
    Ok(Configs { mqtt: build(verifier, &[b"mqtt"])?, http: build(None, &[b"h2", b"http/1.1"])? })
}

/// Checks certificates of clients against `ca.pem`. An operator's certificate can do without an
/// authority of the site; then there is nothing to check them against, and none is asked for.
fn verifier(
    dir: &Path,
    client_certs: ClientCerts,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>> {
    let path = dir.join(files::CA);
    let pem = match (client_certs, files::read(&path)?) {
        (ClientCerts::Off, _) | (ClientCerts::Optional, None) => return Ok(None),
        (ClientCerts::Required, None) => {
            return Err(Error::NoAuthority {
                dir: dir.to_path_buf(),
                file: files::CA,
                advice: "mqtt.client_certs = \"required\" needs it: run `alertrace cert init`",
            });
        }
        (_, Some(pem)) => pem,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&path, &pem)? {
        roots.add(certificate).map_err(|e| Error::malformed(&path, e))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = match client_certs {
        ClientCerts::Required => builder,
        _ => builder.allow_unauthenticated(),
    };
    builder.build().map(Some).map_err(|e| Error::malformed(&path, e))
}

/// All certificates of a PEM file; at least one.
fn certificates(path: &Path, pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if all.is_empty() => Err(Error::malformed(path, "no certificate in PEM is in it")),
        Ok(all) => Ok(all),
        Err(e) => Err(Error::malformed(path, e)),
    }
}

/// The server's clock, for the dates of certificates.
struct Time(Arc<dyn Clock>);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let secs = u64::try_from(self.0.now().secs()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(secs)))
    }
}

/// Makes TLS of connections to one port, with the certificate that is in force at that moment.
/// Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    pub(super) certs: Certs,
    pub(super) port: Port,
}

impl Acceptor {
    /// The handshake; the caller bounds its time. Answers the client's certificate too, if it showed
    /// one, which is then signed by the site's authority and in date.
    ///
    /// # Errors
    /// When the client speaks no TLS, or shows a certificate that is not good; it has been told.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(Stream, Option<Peer>)> {
        let configs = self.certs.configs();
        let config = match self.port {
            Port::Mqtt => configs.mqtt,
            Port::Http => configs.http,
        };
        let stream = tokio_rustls::TlsAcceptor::from(config).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let peer = shown.map(|der| self.certs.peer(der)).transpose().map_err(io::Error::other)?;
        Ok((stream, peer))
    }
}
