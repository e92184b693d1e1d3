//! The site's authority: how certificates are made and signed. No files here.
//!
//! Everything is ECDSA P-256, which the smallest device can check. Certificates carry key
//! identifiers and critical usages, as strict verifiers (Python 3.13, Go) ask for.

use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use time::OffsetDateTime;

use super::certificate::Certificate;
use super::error::{Error, Result};
use super::names;
use crate::domain::{BUILD_DATE, DeviceId, Timestamp};

const DAY: Duration = Duration::from_secs(86_400);
/// Good for, in days from now.
const CA_DAYS: u64 = 3_652;
/// With the day before it is made, what clients of today accept at most (Apple: 398 days).
const SERVER_DAYS: u64 = 396;
/// Certificates begin before they are made: a device's clock may be behind.
const BEFORE: Duration = DAY;

/// The authority, able to sign.
pub(super) struct Authority {
    pub(super) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A new private key.
pub(super) fn new_key() -> Result<KeyPair> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)
}

/// Makes an authority; answers its certificate and its private key, in PEM.
pub(super) fn make(now: Timestamp) -> Result<(String, String)> {
    let key = new_key()?;
    let mut params = params(now, CA_DAYS, None)?;
    // A name of its own, so that a client that trusts two sites never confuses them.
    let mut unique = [0; 4];
    getrandom::fill(&mut unique).map_err(Error::Random)?;
    let host = names::host().unwrap_or_default();
    let host: String = host.chars().take(32).collect();
    let name = format!("Alertrace CA {host} {:08x}", u32::from_be_bytes(unique));
    params.distinguished_name.push(DnType::OrganizationName, "Alertrace");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

impl Authority {
    /// From the texts of `ca.pem` and `ca.key`.
    pub(super) fn load(path: &Path, pem: &str, key_path: &Path, key: &str) -> Result<Self> {
        let certificate = Certificate::from_pem(path, pem)?;
        let key = KeyPair::from_pem(key).map_err(|e| Error::malformed(key_path, e))?;
        if key.subject_public_key_info() != certificate.public_key {
            return Err(Error::Mismatch {
                key: key_path.to_path_buf(),
                certificate: path.to_path_buf(),
                advice: "put back the one that belongs to it; without it nothing can be signed",
            });
        }
        let issuer = Issuer::from_ca_cert_pem(pem, key).map_err(|e| Error::malformed(path, e))?;
        Ok(Self { certificate, issuer })
    }

    /// A certificate for the server; in PEM.
    pub(super) fn server(
        &self,
        key: &impl PublicKeyData,
        names: &[String],
        now: Timestamp,
    ) -> Result<String> {
        let mut params = params(now, SERVER_DAYS, Some(&self.certificate))?;
        let name: String = names.first().map_or("alertrace", String::as_str).chars().take(64).collect();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = names.iter().map(|name| names::san(name)).collect::<Result<_>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }

    /// A certificate for a device, good for `days` days; in PEM.
    pub(super) fn device(
        &self,
        key: &impl PublicKeyData,
        device_id: &DeviceId,
        days: u64,
        now: Timestamp,
    ) -> Result<String> {
        let mut params = params(now, days, Some(&self.certificate))?;
        params.distinguished_name.push(DnType::CommonName, device_id.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

/// What all certificates have; `days` count from now. None outlives the authority that signs it.
fn params(now: Timestamp, days: u64, authority: Option<&Certificate>) -> Result<CertificateParams> {
    // A clock that is before this program's making is wrong (a Pi after a power cut); what it made
    // would long be over once the clock is right.
    let now = now.max(BUILD_DATE);
    let mut not_after = now.plus(Duration::from_secs(days.saturating_mul(DAY.as_secs())));
    if let Some(authority) = authority {
        if authority.not_after <= now {
            return Err(Error::AuthorityExpires(authority.not_after.to_string()));
        }
        not_after = not_after.min(authority.not_after);
    }
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(Error::Random)?;
    // Positive, and of one length (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = date(now.minus(BEFORE))?;
    params.not_after = date(not_after)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn date(moment: Timestamp) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(moment.secs()).map_err(|e| Error::Tls(e.to_string()))
}
