//! Certificates: the site's own authority, the server's certificate, those of devices, and TLS itself.
//!
//! A site has no public name and nobody who renews certificates, so the server is its own authority
//! (`ca.pem`, `ca.key`): it makes its certificate at the first start, renews it in time, and signs
//! devices. What an operator puts into the directory is used and never changed. Files are replaced
//! by one rename; what is served follows them without a restart ([`Certs::watch`]). No other module
//! names rustls, rcgen or x509-parser.

mod authority;
mod certificate;
mod certs;
mod client;
mod devices;
mod error;
mod files;
mod names;
mod revoked;
mod server;
mod site;
#[cfg(test)]
mod tests;

pub use certificate::Certificate;
pub use certs::{Certs, Peer};
pub use client::Connector;
pub use devices::{Bundle, DEFAULT_DAYS};
pub use error::{Error, Result};
pub use revoked::{Revocation, Revoked};
pub use server::{Acceptor, Stream};
pub use site::{Change, Site};

/// Makes aws-lc what rustls takes where nobody says: ring is linked as well, and with two to choose
/// from it would panic.
pub fn install_provider() {
    // An error means that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
