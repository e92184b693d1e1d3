//! `[tls]`: where the certificates are, and the names in the server's.

use std::net::IpAddr;
use std::path::PathBuf;

use super::reader::Reader;

/// `[tls]`
#[derive(Debug, Clone)]
pub struct Tls {
    /// Directory of `ca.pem`, `server.pem` and `server.key`.
    pub dir: PathBuf,
    /// Host names in lower case and IP addresses in their usual spelling that clients reach the server by, besides
    /// the machine's own.
    pub names: Vec<String>,
}

impl Tls {
    pub(super) fn read(r: &mut Reader) -> Self {
        let dir = r.path("tls.dir");
        let mut names: Vec<String> = Vec::new();
        for text in r.list("tls.names") {
            match name(&text) {
                Some(name) if names.contains(&name) => {}
                Some(name) => names.push(name),
                None => r.refuse(
                    "tls.names",
                    &format!(
                        "{text:?} is neither an IP address nor a host name, such as alertrace.finca.example or \
                         *.finca.example (without https:// and without a port)"
                    ),
                ),
            }
        }
        Self { dir, names }
    }
}

/// A name as certificates have it.
fn name(text: &str) -> Option<String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical().to_string());
    }
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A number at the end is an address that is written wrongly (RFC 1123, section 2.1).
    let number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    let host = name.strip_prefix("*.").unwrap_or(&name);
    let good =
        name.len() <= 253 && host.split('.').all(label) && !host.rsplit('.').next().is_some_and(number);
    good.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hosts_and_addresses_and_nothing_else() {
        for (text, expected) in [
            ("Alertrace.Finca.Example.", "alertrace.finca.example"),
            ("*.finca.example", "*.finca.example"),
            ("raspberrypi", "raspberrypi"),
            ("192.168.1.7", "192.168.1.7"),
            ("2001:DB8::0:1", "2001:db8::1"),
        ] {
            assert_eq!(name(text).as_deref(), Some(expected));
        }
        for bad in [
            "",
            "*",
            "https://a.example",
            "a.example:8883",
            "a b",
            "-a",
            "a..b",
            "ñandú.example",
            "10.0.0",
            "10.0.0.0/8",
        ] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
    }
}
