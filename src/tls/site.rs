//! `tls.dir` as a whole: what is made when it is missing, what is renewed, what is a mistake.
//!
//! An operator's own files are never written over. A renewal keeps the private key unless it is told
//! otherwise, so that it is the replacement of one file, and devices that pin the key stay.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;

use super::authority::{self, Authority};
use super::certificate::Certificate;
use super::error::{Error, Result};
use super::files::{self, Existing, Readable};
use super::names;
use crate::config;
use crate::domain::{Clock, Timestamp};

/// Days before its end that the server's certificate is renewed.
const RENEW_DAYS: i64 = 30;

/// See the module. Every method reads the files as they are now, and blocks on the disk.
#[derive(Clone)]
pub struct Site {
    dir: PathBuf,
    names: Vec<String>,
    clock: Arc<dyn Clock>,
}

/// Something that was done to the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// There was no authority.
    AuthorityMade,
    /// There was no certificate of the server.
    CertificateMade,
    /// The server's certificate was made anew, for this reason.
    CertificateRenewed(String),
}

impl Site {
    /// The directory of a configuration.
    #[must_use]
    pub fn new(config: &config::Tls, clock: Arc<dyn Clock>) -> Self {
        Self { dir: config.dir.clone(), names: config.names.clone(), clock }
    }

    /// What a server needs before it starts: makes what is not there, renews what is due.
    ///
    /// # Errors
    /// When files are missing that only their owner can put back, and those of the file system.
    pub fn ensure(&self) -> Result<Vec<Change>> {
        self.complete(false)
    }

    /// As [`Self::ensure`], and makes an authority where an operator's certificate does without.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub fn init(&self) -> Result<Vec<Change>> {
        self.complete(true)
    }

    fn complete(&self, always_an_authority: bool) -> Result<Vec<Change>> {
        let has = |name: &str| self.path(name).is_file();
        let incomplete =
            |present, absent, advice| Error::Incomplete { dir: self.dir.clone(), present, absent, advice };
        let mut changes = Vec::new();
        let has_server = match (has(files::SERVER), has(files::SERVER_KEY)) {
            (true, false) => {
                let advice = "put its private key there, or move server.pem away to have a certificate made";
                return Err(incomplete(files::SERVER, files::SERVER_KEY, advice));
            }
            (false, true) => {
                let advice = "put its certificate there, or move server.key away to have both made";
                return Err(incomplete(files::SERVER_KEY, files::SERVER, advice));
            }
            (both, _) => both,
        };
        match (has(files::CA), has(files::CA_KEY)) {
            (false, true) => {
                let advice = "put the authority's certificate back, or move ca.key away to have a new authority made \
                              (every device then needs the new ca.pem)";
                return Err(incomplete(files::CA_KEY, files::CA, advice));
            }
            (true, false) if !has_server => {
                let advice = "without it no certificate can be made: put it back, or put a server.pem and a server.key \
                              there, or move ca.pem away to have a new authority made (every device then needs it)";
                return Err(incomplete(files::CA, files::CA_KEY, advice));
            }
            (false, false) if !has_server || always_an_authority => {
                self.make_authority()?;
                changes.push(Change::AuthorityMade);
            }
            _ => {}
        }
        if !has_server {
            self.make_server()?;
            changes.push(Change::CertificateMade);
        } else if let Some(why) = self.renew_if_due()? {
            changes.push(Change::CertificateRenewed(why));
        }
        Ok(changes)
    }

    fn make_authority(&self) -> Result<()> {
        files::private_dir(&self.dir)?;
        let (certificate, key) = authority::make(self.now())?;
        // The key first: with the certificate alone nothing could be signed, and that would look like
        // an authority that is kept elsewhere.
        files::write(&self.path(files::CA_KEY), &key, Readable::Owner, Existing::Keep)?;
        files::write(&self.path(files::CA), &certificate, Readable::Anybody, Existing::Keep)
    }

    fn make_server(&self) -> Result<()> {
        let key = authority::new_key()?;
        let certificate = self.authority()?.server(&key, &names::all(&self.names), self.now())?;
        files::write(&self.path(files::SERVER_KEY), &key.serialize_pem(), Readable::Owner, Existing::Keep)?;
        files::write(&self.path(files::SERVER), &certificate, Readable::Anybody, Existing::Keep)
    }

    /// Renews the server's certificate when its end is near or a configured name is missing, and it
    /// is ours to renew; answers why it did. What is due and not ours is said in a warning.
    ///
    /// # Errors
    /// When a file cannot be read, or the new one not written.
    pub fn renew_if_due(&self) -> Result<Option<String>> {
        let (server, now) = (self.server()?, self.now());
        let (days, missing) = (server.days_left(now), self.missing(&server));
        let why = match missing.as_slice() {
            [] if days > RENEW_DAYS => return Ok(None),
            [] => format!("it expires on {}", server.not_after),
            missing => format!("tls.names has {} and it does not", missing.join(", ")),
        };
        let path = self.path(files::SERVER);
        if !self.path(files::CA_KEY).is_file() || !server.is_issued_by(&self.authority()?.certificate) {
            tracing::warn!(
                path = %path.display(), why,
                "the server's certificate should be replaced, and was not issued by this site's authority: replace it where it came from"
            );
            return Ok(None);
        }
        let authority = self.authority()?.certificate;
        if missing.is_empty() && authority.days_left(now) <= days {
            tracing::warn!(
                expires = %authority.not_after,
                "the site's authority is about to expire, and the server's certificate with it: move ca.pem, ca.key, server.pem and \
                 server.key away, restart, and give every device the new ca.pem"
            );
            return Ok(None);
        }
        self.renew(false)?;
        Ok(Some(why))
    }

    /// Makes the server's certificate anew: with the configured names and those that the machine has
    /// now, and with another private key if `new_key`.
    ///
    /// # Errors
    /// [`Error::NotOurs`] for an operator's own certificate; when the authority's key is not here;
    /// those of the file system.
    pub fn renew(&self, new_key: bool) -> Result<Certificate> {
        let authority = self.authority()?;
        let (path, key_path) = (self.path(files::SERVER), self.path(files::SERVER_KEY));
        if let Some(pem) = files::read(&path)?
            && !Certificate::from_pem(&path, &pem)?.is_issued_by(&authority.certificate)
        {
            return Err(Error::NotOurs(path));
        }
        let key = match files::read(&key_path)? {
            Some(pem) if !new_key => KeyPair::from_pem(&pem).map_err(|e| Error::malformed(&key_path, e))?,
            _ => {
                let key = authority::new_key()?;
                files::write(&key_path, &key.serialize_pem(), Readable::Owner, Existing::Replace)?;
                key
            }
        };
        let certificate = authority.server(&key, &names::all(&self.names), self.now())?;
        files::write(&path, &certificate, Readable::Anybody, Existing::Replace)?;
        Certificate::from_pem(&path, &certificate)
    }

    /// The server's certificate.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn server(&self) -> Result<Certificate> {
        let path = self.path(files::SERVER);
        let pem = files::read(&path)?;
        let missing = || Error::malformed(&path, "there is no such file; run `alertrace cert init`");
        Certificate::from_pem(&path, &pem.ok_or_else(missing)?)
    }

    /// The authority's certificate; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn authority_certificate(&self) -> Result<Option<Certificate>> {
        let path = self.path(files::CA);
        files::read(&path)?.map(|pem| Certificate::from_pem(&path, &pem)).transpose()
    }

    /// Whether the authority's key is here, so that devices can be signed.
    #[must_use]
    pub fn can_sign(&self) -> bool {
        self.path(files::CA_KEY).is_file()
    }

    /// Configured names that a certificate does not have.
    #[must_use]
    pub fn missing(&self, server: &Certificate) -> Vec<String> {
        self.names.iter().filter(|name| !server.has_name(name)).cloned().collect()
    }

    /// Addresses of this machine that a certificate does not have: they change, so that nothing is
    /// renewed for them alone.
    #[must_use]
    pub fn missing_addresses(server: &Certificate) -> Vec<String> {
        let addresses = names::addresses().into_iter().map(|ip| ip.to_string());
        addresses.filter(|ip| !server.has_name(ip)).collect()
    }

    /// The authority, able to sign.
    pub(super) fn authority(&self) -> Result<Authority> {
        let (path, key_path) = (self.path(files::CA), self.path(files::CA_KEY));
        let absent = |file, advice| Error::NoAuthority { dir: self.dir.clone(), file, advice };
        let pem = files::read(&path)?
            .ok_or_else(|| absent(files::CA, "run `alertrace cert init` to have one made"))?;
        let key = files::read(&key_path)?
            .ok_or_else(|| absent(files::CA_KEY, "do this where the authority's private key is kept"))?;
        Authority::load(&path, &pem, &key_path, &key)
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
