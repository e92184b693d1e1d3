//! What can be wrong with certificates, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Shorthand of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Some of the files that belong together are there, and some are not.
    #[error("{} has {present} but no {absent}: {advice}", dir.display())]
    Incomplete {
        /// `tls.dir`.
        dir: PathBuf,
        /// A file that is there.
        present: &'static str,
        /// The file that is not.
        absent: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A file does not hold what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate and a key that do not belong together.
    #[error("{} is not the key of {}: {advice}", key.display(), certificate.display())]
    Mismatch {
        /// The private key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// A certificate of the operator's own, which the site's authority did not issue.
    #[error(
        "{} was not issued by this site's authority: replace it where it came from, or move it and server.key away and \
         run `alertrace cert init`",
        .0.display()
    )]
    NotOurs(PathBuf),
    /// There is no authority to check or sign devices with.
    #[error("{} has no {file}: {advice}", dir.display())]
    NoAuthority {
        /// `tls.dir`.
        dir: PathBuf,
        /// `ca.pem` or `ca.key`.
        file: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A certificate that would be refused from its first day.
    #[error(
        "the site's authority expires on {0}: move ca.pem, ca.key, server.pem and server.key away, run `alertrace cert init`, \
         and give every device the new ca.pem"
    )]
    AuthorityExpires(String),
    /// A request that cannot be signed.
    #[error("the request cannot be signed: {0}")]
    Request(String),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system: {0}")]
    Random(getrandom::Error),
    /// A certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// rustls refuses the configuration.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl Error {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }

    pub(super) fn malformed(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Malformed { path: path.to_path_buf(), reason: reason.to_string() }
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; certificates are kept in tls.dir: set it to a directory that this user can write, or turn TLS off with \
             mqtt.tls_listen = \"\" and http.tls = false"
        }
        _ => "",
    }
}
