//! What a certificate says, read back from its bytes.

use std::net::IpAddr;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::error::{Error, Result};
use crate::domain::Timestamp;

/// A certificate.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Its subject, for people.
    pub subject: String,
    /// The subject's common name: of a device, its `device_id`.
    pub common_name: Option<String>,
    /// Who issued it, for people.
    pub issuer: String,
    /// Its serial number, in upper-case hexadecimal, as openssl prints it.
    pub serial: String,
    /// The host names and addresses that it is good for.
    pub names: Vec<String>,
    /// Good from.
    pub not_before: Timestamp,
    /// Good until.
    pub not_after: Timestamp,
    /// The public key, as `SubjectPublicKeyInfo`.
    pub(super) public_key: Vec<u8>,
    der: Vec<u8>,
}

impl Certificate {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|e| format!("not a certificate ({e})"))?;
        let common_name = parsed.subject().iter_common_name().next();
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.map(|san| san.value.general_names.iter().filter_map(name).collect());
        let validity = parsed.validity();
        Ok(Self {
            subject: parsed.subject().to_string(),
            common_name: common_name.and_then(|cn| cn.as_str().ok()).map(str::to_owned),
            issuer: parsed.issuer().to_string(),
            serial: serial(parsed.raw_serial()),
            names: names.unwrap_or_default(),
            not_before: moment(validity.not_before.timestamp()),
            not_after: moment(validity.not_after.timestamp()),
            public_key: parsed.public_key().raw.to_vec(),
            der: der.to_vec(),
        })
    }

    /// The first certificate of a PEM file's text, which stands in `path`.
    pub(super) fn from_pem(path: &Path, pem: &str) -> Result<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| Error::malformed(path, format!("no certificate in PEM is in it ({e})")))?;
        Self::from_der(&der).map_err(|reason| Error::malformed(path, reason))
    }

    /// Whether `authority` signed this.
    #[must_use]
    pub fn is_issued_by(&self, authority: &Self) -> bool {
        let (Ok((_, own)), Ok((_, theirs))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&authority.der))
        else {
            return false;
        };
        own.issuer() == theirs.subject() && own.verify_signature(Some(theirs.public_key())).is_ok()
    }

    /// Whether it is good for a host name or address, spelled as [`Self::names`] are.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    /// Whole days that it is still good for; negative when it no longer is.
    #[must_use]
    pub fn days_left(&self, now: Timestamp) -> i64 {
        (self.not_after.secs() - now.secs()).div_euclid(86_400)
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let ip = <[u8; 4]>::try_from(*bytes)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            ip.ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

/// Certificates have whole seconds; one that says the year 9999 is good for ever.
fn moment(secs: i64) -> Timestamp {
    Timestamp::clamped(secs.saturating_mul(1_000_000))
}

/// A serial number's bytes as text; the sign's zero is not part of it.
fn serial(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let digits = bytes.iter().skip_while(|b| **b == 0);
    digits.fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02X}");
        text
    })
}

/// A serial number as a person wrote it (`4a:0b:…`, `4A0B…`, `0x4a0b…`), as [`Certificate::serial`] has it.
pub(super) fn normal_serial(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix("0x").unwrap_or(text);
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ' | '-')).collect();
    let digits = digits.trim_start_matches('0').to_ascii_uppercase();
    let hexadecimal =
        !digits.is_empty() && digits.len() <= 40 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let padding = if digits.len() % 2 == 1 { "0" } else { "" };
    hexadecimal.then(|| format!("{padding}{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_read_however_it_is_written() {
        assert_eq!(serial(&[0, 0x8a, 0x0b]), "8A0B");
        for text in ["8A0B", "8a:0b", "00:8a:0b", "0x8a0b", " 8a 0b "] {
            assert_eq!(normal_serial(text).as_deref(), Some("8A0B"), "{text}");
        }
        assert_eq!(normal_serial("a0b").as_deref(), Some("0A0B"));
        assert_eq!(serial(&[0x0a, 0x0b]), "0A0B");
        for bad in ["", "xyz", "0", &"1".repeat(41)] {
            assert_eq!(normal_serial(bad), None, "{bad}");
        }
    }
}
