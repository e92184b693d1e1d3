//! The small sections: `[ingest]`, `[store]`, `[log]`, `[shutdown]`.
//!
//! Each struct has the section's keys as fields, with the units in the names.

use secrecy::{ExposeSecret as _, SecretString};
use tracing_subscriber::EnvFilter;
use url::Url;

use super::reader::Reader;

/// `[ingest]`
#[derive(Debug, Clone)]
pub struct Ingest {
    /// Readings waiting to be committed.
    pub queue: usize,
    /// Readings in one commit at most.
    pub max_batch: usize,
    /// Seconds that a timestamp may be ahead of the server's clock.
    pub clock_skew_s: u64,
    /// Days that refused messages are kept.
    pub rejected_days: u32,
    /// Refused messages kept for one sensor.
    pub rejected_per_sensor: u32,
}

impl Ingest {
    pub(super) fn read(r: &mut Reader) -> Self {
        Self {
            queue: r.integer("ingest.queue", 1..=10_000_000),
            max_batch: r.integer("ingest.max_batch", 1..=1_000_000),
            clock_skew_s: r.integer("ingest.clock_skew_s", 0..=86_400),
            rejected_days: r.integer("ingest.rejected_days", 1..=36_500),
            rejected_per_sensor: r.integer("ingest.rejected_per_sensor", 1..=1_000_000),
        }
    }
}

/// `[store]`
#[derive(Debug, Clone)]
pub struct Store {
    /// Days that raw readings are kept.
    pub retention_days: u32,
    /// Days that hourly aggregates are kept.
    pub hourly_retention_days: u32,
    /// Days that the audit is kept.
    pub audit_days: u32,
    /// Bytes that the database may use (`max_gb`); 0 = as many as there are.
    pub max_bytes: u64,
    /// Connections that read at the same time.
    pub readers: u32,
    /// Milliseconds that a SQLite connection waits for a lock.
    pub busy_timeout_ms: u64,
}

impl Store {
    pub(super) fn read(r: &mut Reader) -> Self {
        Self {
            retention_days: r.integer("store.retention_days", 1..=36_500),
            hourly_retention_days: r.integer("store.hourly_retention_days", 1..=36_500),
            audit_days: r.integer("store.audit_days", 1..=36_500),
            max_bytes: gigabytes(r.decimal("store.max_gb", 0.0..=1_000_000.0)),
            readers: r.integer("store.readers", 1..=64),
            busy_timeout_ms: r.integer("store.busy_timeout_ms", 1..=600_000),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1e15")]
fn gigabytes(gb: f64) -> u64 {
    (gb * 1e9) as u64
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// Directives of [`EnvFilter`], checked: `info`, or `info,alertrace::mqtt=debug`.
    pub level: String,
    /// Where errors are reported, if they are.
    pub sentry_dsn: Option<SecretString>,
    /// The collector that spans go to, if they do: `http://127.0.0.1:4318`.
    pub otlp_endpoint: Option<String>,
    /// Name of the deployment.
    pub environment: String,
}

impl Log {
    pub(super) fn read(r: &mut Reader) -> Self {
        let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = r.choice("log.format", &formats).unwrap_or(LogFormat::Auto);
        let level = r.text("log.level");
        if !Self::level_ok(&level) {
            r.invalid(
                "log.level",
                "trace, debug, info, warn, error or off; or directives, as in \"info,alertrace::mqtt=debug\"",
            );
        }
        let sentry_dsn = r.secret("log.sentry_dsn");
        if sentry_dsn.as_ref().is_some_and(|dsn| !is_http(dsn.expose_secret())) {
            r.invalid("log.sentry_dsn", "a DSN of Sentry: https://KEY@HOST/PROJECT");
        }
        let endpoint = r.text("log.otlp_endpoint").trim().to_owned();
        if !endpoint.is_empty() && !is_http(&endpoint) {
            r.invalid("log.otlp_endpoint", "the address of a collector, as in \"http://127.0.0.1:4318\"");
        }
        let otlp_endpoint = Some(endpoint).filter(|e| !e.is_empty());
        Self { format, level, sentry_dsn, otlp_endpoint, environment: r.text("environment") }
    }

    /// Whether all of `level` is understood.
    #[must_use]
    pub fn level_ok(level: &str) -> bool {
        level.split(',').all(|directive| directive_ok(directive.trim()))
    }
}

fn is_http(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
}

/// `EnvFilter` takes a word that is no level for the name of a module, so `LOG_LEVEL=warnning` would log nothing, silently.
fn directive_ok(directive: &str) -> bool {
    const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];
    let names_module = directive.contains(['=', '[']);
    (names_module || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(directive)))
        && EnvFilter::try_new(directive).is_ok()
}

/// `[shutdown]`
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// Seconds to finish what was received.
    pub deadline_s: u64,
}

impl Shutdown {
    pub(super) fn read(r: &mut Reader) -> Self {
        Self { deadline_s: r.integer("shutdown.deadline_s", 1..=3600) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_told_from_mistakes() {
        for good in ["info", "INFO", "off", "alertrace::mqtt=debug", "alertrace[session]=trace"] {
            assert!(directive_ok(good), "{good}");
        }
        for bad in ["", "warnning", "alertrace", "alertrace=loud"] {
            assert!(!directive_ok(bad), "{bad}");
        }
    }
}
