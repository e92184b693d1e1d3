//! `[mqtt]`: the broker's listeners and the bounds that keep one client from harming the others.
//!
//! `open` gives up who-is-who, so it is refused anywhere but on loopback.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::reader::Reader;

/// What is asked of a client of the TLS listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCerts {
    /// No certificate is asked for.
    Off,
    /// A certificate may be shown; one that is shown has to be good.
    Optional,
    /// Nobody comes in without one.
    Required,
}

/// `[mqtt]`
#[derive(Debug, Clone)]
pub struct Mqtt {
    /// Plain listener; `None` = off.
    pub listen: Option<SocketAddr>,
    /// TLS listener; `None` = off.
    pub tls_listen: Option<SocketAddr>,
    /// Certificates of clients, on the TLS listener.
    pub client_certs: ClientCerts,
    /// Who may send a PROXY protocol header, which every connection then has to begin with; `None` = no header is read.
    pub proxy_from: Option<Vec<IpNet>>,
    /// Anonymous clients and any topic, on loopback only.
    pub open: bool,
    /// Filters that anonymous clients are refused.
    pub open_refused: Vec<String>,
    /// Devices that never had a token may connect without one.
    pub legacy: bool,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once from one IP address.
    pub max_connections_per_address: usize,
    /// Seconds until the CONNECT has to be there.
    pub connect_deadline_s: u64,
    /// Seconds that a TLS handshake may take, of those.
    pub handshake_deadline_s: u64,
    /// Sign-ins of one name from one address that may fail before the next ones wait.
    pub sign_in_failures: u32,
    /// Seconds that they wait at most.
    pub sign_in_wait_s: u64,
    /// Largest packet, in bytes.
    pub max_packet_bytes: u32,
    /// Unacknowledged messages a session may have in flight; at least 1.
    pub receive_maximum: u16,
    /// Longest session expiry, in seconds.
    pub max_session_expiry_s: u32,
    /// Sessions of one device or person, connected or not.
    pub max_sessions_per_client: usize,
    /// Messages kept for one session that is away.
    pub max_queued_messages: usize,
    /// Bytes of the messages that wait for one session.
    pub max_queued_bytes: usize,
    /// Longest keep-alive, in seconds; 0 = the client's own.
    pub max_keep_alive_s: u16,
    /// PUBLISH packets a second of one client; 0 = no limit.
    pub max_messages_per_s: u64,
    /// Bytes a second of one client; 0 = no limit.
    pub max_bytes_per_s: u64,
    /// Seconds that a client is slowed down before it is ended.
    pub rate_patience_s: u64,
    /// Seconds between two rounds of `$SYS`.
    pub sys_interval_s: u64,
    /// Levels in a topic or filter.
    pub max_topic_levels: usize,
    /// Bytes in a topic or filter.
    pub max_topic_bytes: usize,
    /// Subscriptions of one session.
    pub max_subscriptions: usize,
    /// Distinct filters in the whole broker.
    pub max_filters: usize,
    /// Retained messages.
    pub max_retained: usize,
}

/// The longest packet that MQTT's length field can announce, header included. [MQTT-2.2.3]
const LARGEST_PACKET: i64 = 268_435_460;

impl Mqtt {
    pub(super) fn read(r: &mut Reader) -> Self {
        let mqtt = Self {
            listen: r.address("mqtt.listen"),
            tls_listen: r.address("mqtt.tls_listen"),
            client_certs: client_certs(r),
            proxy_from: proxy_from(r),
            open: r.boolean("mqtt.open"),
            open_refused: r.list("mqtt.open_refused"),
            legacy: r.boolean("mqtt.legacy"),
            max_connections: r.integer("mqtt.max_connections", 1..=10_000_000),
            max_connections_per_address: r.integer("mqtt.max_connections_per_address", 1..=10_000_000),
            connect_deadline_s: r.integer("mqtt.connect_deadline_s", 1..=300),
            handshake_deadline_s: r.integer("mqtt.handshake_deadline_s", 1..=300),
            sign_in_failures: r.integer("mqtt.sign_in_failures", 1..=1_000_000),
            sign_in_wait_s: r.integer("mqtt.sign_in_wait_s", 1..=3_600),
            max_packet_bytes: r.integer("mqtt.max_packet_bytes", 1024..=LARGEST_PACKET),
            receive_maximum: r.integer("mqtt.receive_maximum", 1..=i64::from(u16::MAX)),
            max_session_expiry_s: r.integer("mqtt.max_session_expiry_s", 0..=i64::from(u32::MAX)),
            max_sessions_per_client: r.integer("mqtt.max_sessions_per_client", 1..=100_000),
            max_queued_messages: r.integer("mqtt.max_queued_messages", 1..=10_000_000),
            max_queued_bytes: r.integer("mqtt.max_queued_bytes", 65_536..=1_000_000_000_000),
            max_keep_alive_s: r.integer("mqtt.max_keep_alive_s", 0..=i64::from(u16::MAX)),
            // `sensores/{device_id}/data` and the others have three levels; a device_id has up to some dozen bytes.
            max_messages_per_s: r.integer("mqtt.max_messages_per_s", 0..=10_000_000),
            max_bytes_per_s: r.integer("mqtt.max_bytes_per_s", 0..=10_000_000_000),
            rate_patience_s: r.integer("mqtt.rate_patience_s", 1..=86_400),
            sys_interval_s: r.integer("mqtt.sys_interval_s", 1..=86_400),
            max_topic_levels: r.integer("mqtt.max_topic_levels", 3..=1000),
            max_topic_bytes: r.integer("mqtt.max_topic_bytes", 64..=i64::from(u16::MAX)),
            max_subscriptions: r.integer("mqtt.max_subscriptions", 1..=1_000_000),
            max_filters: r.integer("mqtt.max_filters", 1..=10_000_000),
            max_retained: r.integer("mqtt.max_retained", 1..=100_000_000),
        };
        if mqtt.open && mqtt.proxy_from.is_some() {
            r.refuse(
                "mqtt.open",
                "true lets anybody in who comes from this machine, and behind a proxy (mqtt.proxy_protocol) everybody does",
            );
        }
        if mqtt.open && mqtt.listen.is_some_and(|listen| !listen.ip().is_loopback()) {
            r.refuse(
                "mqtt.open",
                "true lets anybody in, so it is only allowed with mqtt.listen on loopback (127.0.0.1 or ::1)",
            );
        }
        mqtt
    }
}

fn client_certs(r: &mut Reader) -> ClientCerts {
    let choices =
        [("optional", ClientCerts::Optional), ("required", ClientCerts::Required), ("off", ClientCerts::Off)];
    r.choice("mqtt.client_certs", &choices).unwrap_or(ClientCerts::Required)
}

fn proxy_from(r: &mut Reader) -> Option<Vec<IpNet>> {
    let mut networks = Vec::new();
    for text in r.list("mqtt.proxy_from") {
        match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network),
            Err(_) => r.refuse(
                "mqtt.proxy_from",
                &format!("{text:?} is neither an IP address nor a network such as 10.0.0.0/8"),
            ),
        }
    }
    r.boolean("mqtt.proxy_protocol").then_some(networks)
}
