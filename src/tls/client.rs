//! The connecting side, for the commands that are clients.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connects to servers whose certificate one authority has signed. Cheap to clone.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl Connector {
    /// `ca`: the authority's certificate, PEM.
    ///
    /// # Errors
    /// When it cannot be read or is no certificate.
    pub fn new(ca: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(ca).map_err(Error::other)?)
            .map_err(|e| Error::new(ErrorKind::InvalidData, e))?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// The handshake with `host`, whose certificate must have that name.
    ///
    /// # Errors
    /// When the server is another, or does not answer.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
        let name =
            ServerName::try_from(host.to_owned()).map_err(|e| Error::new(ErrorKind::InvalidInput, e))?;
        self.0.connect(name, stream).await
    }
}
