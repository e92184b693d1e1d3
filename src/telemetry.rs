//! Logs and metrics: the only global state of the process, and here is where it is installed.
//!
//! Logs go to stderr, so that a command's answer on stdout can be piped. Metrics are recorded in memory and rendered by
//! whoever has the handle (`/metrics`); nothing listens here. Levels and the names of metrics belong to who emits them.

mod catalogue;
mod incidents;
mod logs;
mod traces;

use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry_sdk::trace::SdkTracerProvider;
use sentry::ClientInitGuard;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::Log;

pub use logs::{level, set_level};

/// Upper bounds, in seconds, of the histograms whose names end in `_seconds`: from a fraction of one fdatasync to a
/// client's patience.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds of those that end in `_messages`.
const MESSAGES: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0];

/// What the first call made; later ones get the same.
static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
/// What is told elsewhere, and has something to send yet when the process ends.
static ELSEWHERE: Mutex<(Option<ClientInitGuard>, Option<SdkTracerProvider>)> = Mutex::new((None, None));

/// Why logs or metrics could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `log.level` is not a directive. Configuration has checked it; a caller that builds [`Log`] itself may not have.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Nothing is logged yet.
    #[error("log.level: there is no log")]
    NoLog,
    /// `log.sentry_dsn` is no DSN.
    #[error("log.sentry_dsn (SENTRY_DSN) is not a DSN: https://KEY@HOST/PROJECT")]
    Sentry,
    /// Where traces go cannot be used.
    #[error("log.otlp_endpoint: {0}")]
    Traces(String),
    /// Something else in the process logs already.
    #[error("logs: {0}")]
    Logs(#[from] TryInitError),
    /// The recorder could not be built.
    #[error("metrics: {0}")]
    Recorder(#[from] BuildError),
    /// Something else in the process records metrics already.
    #[error("metrics: another recorder is installed")]
    Taken,
}

/// Installs the log subscriber and the metrics recorder. A second call changes nothing and gives the first one's handle,
/// so that every test may call it.
///
/// Who holds the handle calls [`PrometheusHandle::run_upkeep`] every few seconds, or histograms grow until the next render.
///
/// # Errors
/// The level does not parse, or the process already has a subscriber or a recorder that is not from here.
pub fn init(log: &Log) -> Result<PrometheusHandle, Error> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = installed.as_ref() {
        return Ok(handle.clone());
    }
    install_logs(log)?;
    let handle = install_metrics()?;
    *installed = Some(handle.clone());
    Ok(handle)
}

fn install_logs(log: &Log) -> Result<(), Error> {
    let mut layers = vec![logs::lines(log)?];
    let mut elsewhere = ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(dsn) = &log.sentry_dsn {
        let (layer, guard) = incidents::layer(log, dsn)?;
        layers.push(layer);
        elsewhere.0 = Some(guard);
    }
    if let Some(endpoint) = &log.otlp_endpoint {
        let (layer, provider) = traces::layer(endpoint)?;
        layers.push(layer);
        elsewhere.1 = Some(provider);
    }
    tracing_subscriber::registry().with(layers).try_init()?;
    Ok(())
}

/// How long the end waits for what is not sent yet, to both together.
const LAST: Duration = Duration::from_secs(2);

/// Sends what is not sent yet to Sentry and the collector, for two seconds at most. For the end of the process.
pub fn finish() {
    let mut elsewhere = ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner);
    let (done, all_done) = mpsc::channel::<()>();
    // In threads that the end of the process ends: sentry's flush waits for room in a queue that nobody may be
    // emptying, however long it is told to take.
    if let Some(guard) = elsewhere.0.take() {
        let done = done.clone();
        thread::spawn(move || {
            guard.flush(Some(LAST));
            // Dropped, it would wait for its thread, and that for an answer that may never come.
            std::mem::forget(guard);
            drop(done);
        });
    }
    if let Some(provider) = elsewhere.1.take() {
        thread::spawn(move || {
            if let Err(e) = provider.shutdown_with_timeout(LAST) {
                tracing::warn!(error = %e, "the last spans could not be sent");
            }
            drop(done);
        });
    } else {
        drop(done);
    }
    // Nothing is ever sent: it ends when both have, or when their time is over.
    let _ = all_done.recv_timeout(LAST);
}

fn install_metrics() -> Result<PrometheusHandle, Error> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix(String::from("_seconds")), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix(String::from("_messages")), &MESSAGES)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| Error::Taken)?;
    catalogue::register();
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_call_gives_the_same_metrics() {
        let log = crate::config::load(&crate::config::Sources::default()).unwrap().log;
        let log = Log { level: String::from("off"), ..log };
        let first = init(&log).unwrap();
        let second = init(&log).unwrap();
        metrics::counter!("telemetry_test_total").increment(3);
        metrics::histogram!("telemetry_test_seconds").record(0.002);
        for handle in [first, second] {
            let text = handle.render();
            assert!(text.contains("telemetry_test_total 3"), "{text}");
            assert!(text.contains(r#"telemetry_test_seconds_bucket{le="0.0025"} 1"#), "{text}");
        }
    }
}
