//! A web origin, or a pattern of origins, that may call with credentials.
//!
//! `*` stands for one or more letters, digits or hyphens: a part of one label, or a port. It never reaches across a dot, so
//! `https://*.finca.example` is neither `https://finca.example` nor `https://a.b.finca.example`. At least the last two
//! labels are written out, so that no pattern covers a whole top-level domain.

/// An origin as in the `Origin` header, lower case, `*` allowed as described above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginPattern(String);

impl OriginPattern {
    /// Checks and normalises a pattern; `None` when it is not one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // People copy origins from the address bar, with a slash that the header never has.
        let text = text.trim().trim_end_matches('/').to_ascii_lowercase();
        let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !authority.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port_ok = port.is_none_or(|port| port == "*" || port.parse::<u16>().is_ok());
        (port_ok && host_ok(host)).then_some(Self(text))
    }

    /// Whether `origin`, the value of an `Origin` header, is this one.
    #[must_use]
    pub fn matches(&self, origin: &str) -> bool {
        matches(self.0.as_bytes(), origin.to_ascii_lowercase().as_bytes())
    }

    /// As written, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn host_ok(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let labels: Vec<&str> = host.split('.').collect();
    let label_ok = |label: &&str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte))
    };
    let fixed = labels.iter().rev().take_while(|label| !label.contains('*')).count();
    labels.iter().all(label_ok) && (fixed == labels.len() || fixed >= 2)
}

/// Matches with `*` as one or more of `[a-z0-9-]`. Patterns are a few dozen bytes: recursion a star deep is enough.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (1..=text.len())
            .take_while(|&n| text[n - 1].is_ascii_alphanumeric() || text[n - 1] == b'-')
            .any(|n| matches(rest, &text[n..])),
        Some((byte, rest)) => {
            text.split_first().is_some_and(|(first, text)| first == byte && matches(rest, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(pattern: &str, origin: &str) -> bool {
        OriginPattern::parse(pattern).unwrap().matches(origin)
    }

    #[test]
    fn what_is_not_an_origin_is_refused() {
        for text in [
            "*",
            "https://*",
            "https://*.com",
            "http://*:3000",
            "finca.example",
            "ftp://finca.example",
            "https://finca.example/path",
            "https://u@finca.example",
            "https://",
            "https://finca..example",
            "https://a:b",
            "",
            "https://finca.*.example",
            "null",
        ] {
            assert_eq!(OriginPattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn exact_origins_match_themselves_only() {
        assert!(allowed("https://Finca.example/", "https://finca.example"));
        assert!(allowed("http://[::1]:3000", "http://[::1]:3000"));
        assert!(!allowed("https://finca.example", "http://finca.example"));
        assert!(!allowed("https://finca.example", "https://finca.example:8443"));
        assert!(!allowed("https://finca.example", "https://finca.example.evil.example"));
    }

    #[test]
    fn a_star_stays_inside_one_label() {
        assert!(allowed("https://alertrace-*.vercel.app", "https://alertrace-git-main.vercel.app"));
        assert!(!allowed("https://alertrace-*.vercel.app", "https://alertrace-.vercel.app"));
        assert!(allowed("https://*.finca.example", "https://panel.finca.example"));
        assert!(!allowed("https://*.finca.example", "https://a.b.finca.example"));
        assert!(!allowed("https://*.finca.example", "https://evil.example/.finca.example"));
        assert!(!allowed("https://*.finca.example", "https://finca.example"));
        assert!(allowed("http://localhost:*", "http://localhost:5174"));
    }
}
