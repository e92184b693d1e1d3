//! A server of the test's own, and clients that say exactly what the test wants.

pub mod documented;
pub mod mqtt;
pub mod postgres;
pub mod server;

pub use mqtt::Client;
pub use server::{Device, Server};

/// Where `scripts/test` puts the clients that come from PyPI and npm.
pub fn client_dir() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/it-clients")
}
