//! The names that the server's certificate has: those configured, and what the machine is called here.

use std::net::IpAddr;

use rcgen::SanType;

use super::error::Result;

/// A machine with more addresses than this is a router or runs a swarm of containers: the rest are
/// nobody's way in.
const MAX_ADDRESSES: usize = 32;

/// The machine's host name, where it can be a name of a certificate.
pub(super) fn host() -> Option<String> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().ok()?.trim_end_matches('.').to_ascii_lowercase();
    let valid = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        && name.parse::<IpAddr>().is_err();
    valid.then_some(name)
}

/// The addresses that others can reach this machine by.
pub(super) fn addresses() -> Vec<IpAddr> {
    let reachable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        // A link-local address means nothing without the interface's name.
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    };
    // Without the list the certificate has the other names; nothing else depends on it.
    let mut found: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|interface| interface.ip())
        .filter(reachable)
        .collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(MAX_ADDRESSES);
    found
}

/// All names of a certificate made now: configured ones first, each once.
pub(super) fn all(configured: &[String]) -> Vec<String> {
    let mut names = configured.to_vec();
    if let Some(host) = host() {
        // As a machine on the same network finds it (mDNS).
        let local = (!host.contains('.')).then(|| format!("{host}.local"));
        names.push(host);
        names.extend(local);
    }
    names.extend(["localhost", "127.0.0.1", "::1"].map(String::from));
    names.extend(addresses().iter().map(ToString::to_string));
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// As a certificate has it.
pub(super) fn san(name: &str) -> Result<SanType> {
    Ok(match name.parse::<IpAddr>() {
        Ok(ip) => SanType::IpAddress(ip),
        Err(_) => SanType::DnsName(name.try_into()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_named_once_and_after_what_is_configured() {
        let names = all(&["a.example".into(), "localhost".into()]);
        assert_eq!(names[..2], ["a.example", "localhost"], "in the order of the configuration");
        assert!(names.contains(&"127.0.0.1".into()) && names.contains(&"::1".into()));
        assert_eq!(names.iter().filter(|n| *n == "localhost").count(), 1);
        assert!(names.iter().all(|n| san(n).is_ok()));
    }
}
