//! The name by which a device is known on the wire.

use std::fmt;
use std::sync::Arc;

/// A device's name: unique in the installation, a single MQTT topic level, at most 64 characters
/// of `A–Z a–z 0–9 . _ -`, not beginning with a dot. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(Arc<str>);

/// Why a text is not a [`DeviceId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device_id is 1 to 64 characters of A-Z a-z 0-9 . _ - and does not begin with a dot")]
pub struct DeviceIdInvalido;

impl DeviceId {
    /// # Errors
    /// [`DeviceIdInvalido`] when `text` is not a device id.
    pub fn new(text: &str) -> Result<Self, DeviceIdInvalido> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let valid = (1..=64).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(allowed);
        if valid { Ok(Self(Arc::from(text))) } else { Err(DeviceIdInvalido) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for DeviceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_levels_are_no_names() {
        for bad in ["", "a/b", "+", "#", "$SYS", "a b", ".a", "ñ", "a\0", &"x".repeat(65)] {
            assert_eq!(DeviceId::new(bad), Err(DeviceIdInvalido), "{bad:?}");
        }
        assert!(DeviceId::new("ESP32-A1.b_c").is_ok());
    }
}
