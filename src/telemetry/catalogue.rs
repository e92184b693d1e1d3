//! Every metric that there is, in one place to look them up: its help, and the series that a scrape finds before the
//! first event, so that `rate()` and alert rules have a zero to start from.
//!
//! Labels come from fixed sets: what a client may invent (a device, an address, a path) is never one.

use metrics::{Label, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// What its number is.
enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}
use Kind::{Counter, Gauge, Histogram};

/// A metric; with the values of its one label that are known before anything happens.
struct Metric(Kind, &'static str, &'static str, Series);

/// Which series are there from the start.
enum Series {
    /// The one without labels.
    One,
    /// One for each value of this label.
    Each(&'static str, &'static [&'static str]),
    /// None: each comes with its first event.
    Later,
}
use Series::{Each, Later, One};

const TRANSPORTS: Series = Each("transport", &["tcp", "tls", "websocket"]);

/// The limits of `[mqtt]`, by the names of their settings.
const LIMITS: Series = Each(
    "limit",
    &[
        "connect_deadline_s",
        "handshake_deadline_s",
        "max_connections",
        "max_connections_per_address",
        "max_filters",
        "max_packet_bytes",
        "max_retained",
        "max_sessions_per_client",
        "max_subscriptions",
        "rate",
        "receive_maximum",
        "sessions",
        "sign_in",
        "topic",
    ],
);

const ALL: [Metric; 40] = [
    Metric(
        Gauge,
        "alertrace_build_info",
        "1; the label `version` says of which Alertrace",
        Each("version", &[env!("CARGO_PKG_VERSION")]),
    ),
    Metric(
        Gauge,
        "alertrace_ready",
        "Whether readings are being acknowledged (1) or not (0); /ready says why",
        One,
    ),
    // ingest
    Metric(
        Counter,
        "alertrace_ingest_messages_total",
        "Messages of readings that were dealt with, by what became of them",
        Each("result", &["stored", "partial", "duplicate", "refused"]),
    ),
    Metric(
        Counter,
        "alertrace_readings_total",
        "Readings, by what became of them",
        Each("result", &["stored", "duplicate", "refused"]),
    ),
    Metric(Gauge, "alertrace_ingest_queue", "Messages that wait for the writer after it took a batch", One),
    Metric(
        Gauge,
        "alertrace_ingest_queue_readings",
        "Readings taken and not committed yet; at most ingest.queue",
        One,
    ),
    Metric(
        Gauge,
        "alertrace_ingest_queue_limit_readings",
        "ingest.queue: with so many waiting, devices are held up",
        One,
    ),
    Metric(Histogram, "alertrace_commit_seconds", "One transaction of the writer, synced", One),
    Metric(Histogram, "alertrace_commit_messages", "Messages in one transaction of the writer", One),
    Metric(
        Counter,
        "alertrace_store_errors_total",
        "Failures of the database: of the writer, which tries again, and of requests, answered 503",
        Each("of", &["writer", "request"]),
    ),
    // alerts
    Metric(
        Counter,
        "alertrace_alerts_total",
        "Transitions of alerts",
        Each("action", &["created", "raised", "resolved"]),
    ),
    Metric(Gauge, "alertrace_alerts_open", "Alerts that are open", One),
    // MQTT
    Metric(
        Counter,
        "alertrace_mqtt_connections_total",
        "Connections that were accepted, signed in or not",
        TRANSPORTS,
    ),
    Metric(
        Gauge,
        "alertrace_mqtt_connections",
        "Clients that are signed in, by transport and version of MQTT",
        Later,
    ),
    Metric(Gauge, "alertrace_mqtt_sockets", "Connections of the MQTT listeners, signed in or not", One),
    Metric(
        Counter,
        "alertrace_mqtt_connections_refused_total",
        "Connections that were not let in; the log and GET /api/v1/mqtt/clientes say why",
        One,
    ),
    Metric(Gauge, "alertrace_mqtt_sessions", "Sessions, connected or kept", One),
    Metric(Gauge, "alertrace_mqtt_retained_messages", "Retained messages", One),
    Metric(Counter, "alertrace_mqtt_publish_received_total", "PUBLISH packets of clients", One),
    Metric(Counter, "alertrace_mqtt_publish_sent_total", "PUBLISH packets to clients", One),
    Metric(
        Counter,
        "alertrace_mqtt_publish_refused_total",
        "PUBLISH packets to a topic that their client may not publish to",
        Each("reason", &["not_authorized"]),
    ),
    Metric(
        Counter,
        "alertrace_mqtt_subscribe_refused_total",
        "Filters that their client may not subscribe to",
        One,
    ),
    Metric(
        Counter,
        "alertrace_mqtt_messages_dropped_total",
        "Messages that a subscriber did not get",
        Each("reason", &["slow", "queue_full", "too_large", "lag"]),
    ),
    Metric(Counter, "alertrace_mqtt_limited_total", "Times that a limit of [mqtt] was applied", LIMITS),
    Metric(
        Histogram,
        "alertrace_mqtt_ack_seconds",
        "From a message of a client to its acknowledgement, after the commit; of every 16th of a connection",
        One,
    ),
    // HTTP and WebSocket
    Metric(
        Histogram,
        "alertrace_http_request_seconds",
        "Requests by method, template of the route, and status",
        Later,
    ),
    Metric(
        Counter,
        "alertrace_http_limited_total",
        "Requests that were answered 429",
        Each("limit", &["address", "token", "sign_in"]),
    ),
    Metric(
        Counter,
        "alertrace_http_connections_refused_total",
        "Connections beyond http.max_connections_per_address",
        One,
    ),
    Metric(Gauge, "alertrace_websockets", "WebSockets of people that are open", One),
    Metric(
        Counter,
        "alertrace_websocket_resyncs_total",
        "Times that a WebSocket was too slow and got a new snapshot",
        One,
    ),
    Metric(
        Histogram,
        "alertrace_websocket_lag_seconds",
        "From an event to its being handed to the system, of the oldest of those that are written together",
        One,
    ),
    // disk and the past
    Metric(
        Gauge,
        "alertrace_disk_free_bytes",
        "Free space where the SQLite database is; with PostgreSQL, where data_dir is",
        One,
    ),
    Metric(Gauge, "alertrace_disk_used_bytes", "What the SQLite database uses; 0 on PostgreSQL", One),
    Metric(Gauge, "alertrace_disk_file_bytes", "The SQLite database's file; 0 on PostgreSQL", One),
    Metric(Counter, "alertrace_hours_summed_total", "Hours of sensors that were summed", One),
    Metric(Histogram, "alertrace_hours_write_seconds", "The transaction of a step of sums", One),
    Metric(
        Counter,
        "alertrace_purged_readings_total",
        "Readings that went, past their days or for the disk budget",
        One,
    ),
    Metric(Counter, "alertrace_purged_hours_total", "Sums of hours that went", One),
    Metric(Histogram, "alertrace_purge_seconds", "The transaction of a step of removal", One),
    // others
    Metric(Counter, "alertrace_mail_total", "Mails", Each("result", &["sent", "failed", "dropped"])),
];

/// Those that belong to what may not be configured.
const OTHERS: [Metric; 2] = [
    Metric(
        Counter,
        "alertrace_identity_requests_total",
        "Requests to the identity provider (Supabase)",
        Each("result", &["answered", "failed", "not_sent"]),
    ),
    Metric(
        Gauge,
        "alertrace_tls_certificate_not_after_seconds",
        "When the server's certificate expires, seconds since 1970",
        Later,
    ),
];

/// Names them all to the recorder, and sets to zero what can be.
pub(super) fn register() {
    for Metric(kind, name, help, series) in ALL.into_iter().chain(OTHERS) {
        let name: &'static str = name;
        match kind {
            Counter => describe_counter!(name, help),
            Gauge => describe_gauge!(name, help),
            Histogram => describe_histogram!(name, help),
        }
        match series {
            Later => {}
            One => start(&kind, name, Vec::new()),
            Each(label, values) => {
                for value in values {
                    start(&kind, name, vec![Label::from_static_parts(label, value)]);
                }
            }
        }
    }
    gauge!("alertrace_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

fn start(kind: &Kind, name: &'static str, labels: Vec<Label>) {
    match kind {
        Counter => counter!(name, labels).increment(0),
        Gauge => gauge!(name, labels).set(0.0),
        Histogram => drop(histogram!(name, labels)),
    }
}
