//! The connecting side, for the commands that are clients.

use std::io::{self, Error, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::authority;
use super::files;
use super::site::Site;
use crate::domain::DeviceId;

/// Connects to servers whose certificate one authority has signed. Cheap to clone.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl Connector {
    /// `ca`: the authority's certificate, PEM.
    ///
    /// # Errors
    /// When it cannot be read or is no certificate.
    pub fn new(ca: &Path) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(ca).map_err(Error::other)?)
            .map_err(|e| Error::new(ErrorKind::InvalidData, e))?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// For the server that is served with the certificate of `site`, by whatever name it is reached, and for no other.
    /// Asked for a certificate, it shows one that is made for the occasion, where the authority's key is at hand.
    ///
    /// # Errors
    /// When the server's certificate cannot be read.
    pub fn pinned(site: &Site) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let only = Only {
            certificate: CertificateDer::from_pem_file(site.path(files::SERVER)).map_err(Error::other)?,
            algorithms: provider.signature_verification_algorithms,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(only));
        let config = match shown(site) {
            Some((certificate, key)) => {
                builder.with_client_auth_cert(vec![certificate], key).map_err(Error::other)?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// The handshake with `host`, whose certificate must have that name.
    ///
    /// # Errors
    /// When the server is another, or does not answer.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name =
            ServerName::try_from(host.to_owned()).map_err(|e| Error::new(ErrorKind::InvalidInput, e))?;
        self.0.connect(name, stream).await
    }
}

/// A certificate of this site for the program itself, good for a day, and its key; both are nowhere else.
fn shown(site: &Site) -> Option<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
    let (name, key) = (DeviceId::new("doctor").ok()?, authority::new_key().ok()?);
    let certificate = site.authority().ok()?.device(&key, &name, 1, site.now()).ok()?;
    Some((
        CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?,
        PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).ok()?,
    ))
}

/// Believes one certificate, whose key the handshake then proves.
#[derive(Debug)]
struct Only {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
