//! Certificates of devices: signed, bundled, listed, revoked.
//!
//! A copy of each is kept in `devices/`, so that they can be listed, and revoked by the device's name.
//! Private keys of devices are kept nowhere.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::authority;
use super::certificate::{Certificate, normal_serial};
use super::error::{Error, Result};
use super::files::{self, Existing, Readable};
use super::revoked::{Revocation, Revoked};
use super::site::Site;
use crate::domain::DeviceId;

/// Days that a device's certificate is good for: two years, between two visits of a technician.
pub const DEFAULT_DAYS: u64 = 730;

/// What a device needs to sign in with a certificate.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// What the certificate says.
    pub certificate: Certificate,
    /// The certificate's file.
    pub certificate_path: PathBuf,
    /// The private key's file.
    pub key_path: PathBuf,
    /// The authority's certificate, to check the server with.
    pub ca_path: PathBuf,
}

impl Site {
    /// Signs a request (PEM or DER). Its key is all that is taken from it: the name is `device_id`,
    /// the purpose to sign in. Answers the certificate, and its text in PEM.
    ///
    /// # Errors
    /// [`Error::Request`] for one that cannot be read or is not signed by its own key; as
    /// [`Site::renew`].
    pub fn sign(&self, request: &[u8], device_id: &DeviceId, days: u64) -> Result<(Certificate, String)> {
        let der = if request.trim_ascii_start().starts_with(b"-----") {
            CertificateSigningRequestDer::from_pem_slice(request)
                .map_err(|e| Error::Request(format!("no certificate request in PEM ({e})")))?
        } else {
            CertificateSigningRequestDer::from(request)
        };
        let (_, parsed) = X509CertificationRequest::from_der(&der)
            .map_err(|e| Error::Request(format!("not a certificate request ({e})")))?;
        // Whoever asks has the private key, and not only somebody's public one.
        parsed
            .verify_signature()
            .map_err(|e| Error::Request(format!("its signature is not that of its own key ({e})")))?;
        let key = rcgen::SubjectPublicKeyInfo::from_der(parsed.certification_request_info.subject_pki.raw)
            .map_err(|e| {
                Error::Request(format!("a key of a kind that is not supported ({e}); use ECDSA P-256"))
            })?;
        self.issue(&key, device_id, days)
    }

    /// Makes a device's key and certificate, and puts them with the authority's into `out`.
    ///
    /// # Errors
    /// When a file is there already; as [`Site::renew`].
    pub fn bundle(&self, device_id: &DeviceId, days: u64, out: &Path) -> Result<Bundle> {
        let path = |name: String| out.join(name);
        let (certificate_path, key_path) =
            (path(format!("{device_id}.pem")), path(format!("{device_id}.key")));
        let ca_path = path(files::CA.into());
        for path in [&certificate_path, &key_path] {
            if path.exists() {
                return Err(Error::malformed(path, "is there already, and is not written over"));
            }
        }
        let key = authority::new_key()?;
        let (certificate, pem) = self.issue(&key, device_id, days)?;
        let ca = files::read(&self.path(files::CA))?.unwrap_or_default();
        files::private_dir(out)?;
        files::write(&key_path, &key.serialize_pem(), Readable::Owner, Existing::Keep)?;
        files::write(&certificate_path, &pem, Readable::Owner, Existing::Keep)?;
        // Bundles of several devices may share a directory.
        if files::read(&ca_path)?.is_none_or(|there| there != ca) {
            files::write(&ca_path, &ca, Readable::Owner, Existing::Keep)?;
        }
        Ok(Bundle { certificate, certificate_path, key_path, ca_path })
    }

    fn issue(
        &self,
        key: &impl rcgen::PublicKeyData,
        device_id: &DeviceId,
        days: u64,
    ) -> Result<(Certificate, String)> {
        let pem = self.authority()?.device(key, device_id, days, self.now())?;
        let devices = self.path(files::DEVICES);
        files::private_dir(&devices)?;
        let certificate = Certificate::from_pem(&devices, &pem)?;
        let copy = devices.join(format!("{device_id}.{}.pem", certificate.serial));
        files::write(&copy, &pem, Readable::Anybody, Existing::Keep)?;
        Ok((certificate, pem))
    }

    /// The certificates of devices that were issued here, by name and then by age. A file that is no
    /// certificate is left out.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn devices(&self) -> Result<Vec<Certificate>> {
        let dir = self.path(files::DEVICES);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("read", &dir)(e)),
        };
        let mut found = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|e| e == "pem")
                && let Ok(Some(pem)) = files::read(&path)
                && let Ok(certificate) = Certificate::from_pem(&path, &pem)
            {
                found.push(certificate);
            }
        }
        found.sort_by(|a, b| {
            (&a.common_name, a.not_before, &a.serial).cmp(&(&b.common_name, b.not_before, &b.serial))
        });
        Ok(found)
    }

    /// The certificates that are refused.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn revoked(&self) -> Result<Revoked> {
        Revoked::load(&self.path(files::REVOKED))
    }

    /// Refuses every certificate that was issued to a device so far; answers those that were not
    /// refused before.
    ///
    /// # Errors
    /// [`Error::Request`] when none was issued here; those of the file system.
    pub fn revoke_device(&self, device_id: &DeviceId) -> Result<Vec<Revocation>> {
        let issued = self.devices()?;
        let own = |c: &&Certificate| c.common_name.as_deref() == Some(device_id.as_str());
        let serials: Vec<_> = issued.iter().filter(own).map(|c| c.serial.as_str()).collect();
        if serials.is_empty() {
            let reason = format!("no certificate of {device_id} was issued here; name it by --serial");
            return Err(Error::Request(reason));
        }
        self.revoke(&serials, Some(device_id.as_str()))
    }

    /// Refuses one certificate, whoever's it is; as [`Self::revoke_device`].
    ///
    /// # Errors
    /// [`Error::Request`] when `serial` is no serial number; those of the file system.
    pub fn revoke_serial(&self, serial: &str) -> Result<Vec<Revocation>> {
        let serial = normal_serial(serial)
            .ok_or_else(|| Error::Request(format!("{serial:?} is not a serial number in hexadecimal")))?;
        let issued = self.devices()?;
        let whose = issued.iter().find(|c| c.serial == serial).and_then(|c| c.common_name.as_deref());
        self.revoke(&[serial.as_str()], whose)
    }

    fn revoke(&self, serials: &[&str], device_id: Option<&str>) -> Result<Vec<Revocation>> {
        let before = self.revoked()?;
        let mut after = before.clone();
        for serial in serials {
            after.add(serial, device_id, self.now());
        }
        let new: Vec<_> = after.since(&before).cloned().collect();
        if !new.is_empty() {
            files::private_dir(self.dir())?;
            after.save(&self.path(files::REVOKED))?;
        }
        Ok(new)
    }
}
