//! Certificates of devices that are refused before their time: a list by serial number.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::files::{self, Existing, Readable};
use crate::domain::Timestamp;

/// One certificate that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// As [`Certificate::serial`](super::Certificate::serial).
    pub serial: String,
    /// Whose it is, where that was known.
    pub device_id: Option<String>,
    /// When it was revoked, RFC 3339.
    pub revoked_at: String,
}

/// All of them. The file is this list in JSON.
#[derive(Debug, Clone, Default)]
pub struct Revoked(HashMap<String, Revocation>);

impl Revoked {
    /// Reads the list; empty when there is no file.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let Some(text) = files::read(path)? else { return Ok(Self::default()) };
        let list: Vec<Revocation> = serde_json::from_str(&text).map_err(|e| Error::malformed(path, e))?;
        Ok(Self(list.into_iter().map(|r| (r.serial.clone(), r)).collect()))
    }

    /// Whether a certificate is refused.
    #[must_use]
    pub fn contains(&self, serial: &str) -> bool {
        self.0.contains_key(serial)
    }

    /// The latest first.
    #[must_use]
    pub fn list(&self) -> Vec<&Revocation> {
        let mut list: Vec<_> = self.0.values().collect();
        list.sort_by(|a, b| (&b.revoked_at, &b.serial).cmp(&(&a.revoked_at, &a.serial)));
        list
    }

    /// Those that `before` has not.
    pub(super) fn since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Revocation> {
        self.0.values().filter(|r| !before.contains(&r.serial))
    }

    /// Adds one; answers whether it is new.
    pub(super) fn add(&mut self, serial: &str, device_id: Option<&str>, now: Timestamp) -> bool {
        if self.contains(serial) {
            return false;
        }
        let revocation = Revocation {
            serial: serial.to_owned(),
            device_id: device_id.map(str::to_owned),
            revoked_at: now.to_string(),
        };
        self.0.insert(serial.to_owned(), revocation);
        true
    }

    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.list()).map_err(|e| Error::malformed(path, e))?;
        files::write(path, &(text + "\n"), Readable::Owner, Existing::Replace)
    }
}
