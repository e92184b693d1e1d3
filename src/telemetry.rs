//! Logs and metrics: the only global state of the process, and here is where it is installed.
//!
//! Logs go to stderr, so that a command's answer on stdout can be piped. Metrics are recorded in memory and rendered by
//! whoever has the handle (`/metrics`); nothing listens here. Levels and the names of metrics belong to who emits them.

mod catalogue;

use std::io::{IsTerminal as _, stderr};
use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat};

/// Upper bounds, in seconds, of the histograms whose names end in `_seconds`: from a fraction of one fdatasync to a
/// client's patience.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds of those that end in `_messages`.
const MESSAGES: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0];

/// What the first call made; later ones get the same.
static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Changes the level of what [`install_logs`] made.
type Change = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send>;
static CHANGE: Mutex<Option<Change>> = Mutex::new(None);

/// Why logs or metrics could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `log.level` is not a directive. Configuration has checked it; a caller that builds [`Log`] itself may not have.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Something else in the process logs already.
    #[error("logs: {0}")]
    Logs(#[from] TryInitError),
    /// The recorder could not be built.
    #[error("metrics: {0}")]
    Recorder(#[from] BuildError),
    /// Something else in the process records metrics already.
    #[error("metrics: another recorder is installed")]
    Taken,
    /// The level cannot be changed.
    #[error("log.level: {0}")]
    Change(#[from] reload::Error),
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
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&log.level)?).with_writer(stderr);
    let change: Change = match log.format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_span_list(false).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            Box::new(move |filter| handle.reload(filter))
        }
        LogFormat::Text => {
            // Left alone on a terminal, where the default also heeds NO_COLOR.
            let builder = if stderr().is_terminal() { builder } else { builder.with_ansi(false) };
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            Box::new(move |filter| handle.reload(filter))
        }
    };
    *CHANGE.lock().unwrap_or_else(PoisonError::into_inner) = Some(change);
    Ok(())
}

/// Logs by another `log.level` from now on.
///
/// # Errors
/// The level does not parse; the one of before stays.
pub fn set_level(level: &str) -> Result<(), Error> {
    let filter = filter(level)?;
    match CHANGE.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        Some(change) => Ok(change(filter)?),
        None => Ok(()),
    }
}

/// The configured directives over `rumqttd=warn`: at info the router logs each link. Who asks for less than warnings, or
/// names rumqttd, gets what they ask for.
fn filter(level: &str) -> Result<EnvFilter, Error> {
    let configured = EnvFilter::try_new(level)?;
    if configured.max_level_hint().is_some_and(|most| most < LevelFilter::WARN) {
        return Ok(configured);
    }
    Ok(EnvFilter::try_new(format!("rumqttd=warn,{level}"))?)
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
        let log = Log { format: LogFormat::Json, level: String::from("off") };
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

    #[test]
    fn rumqttd_is_quiet_unless_asked() {
        assert_eq!(filter("info").unwrap().to_string(), "rumqttd=warn,info");
        assert_eq!(filter("info,rumqttd=debug").unwrap().to_string(), "rumqttd=debug,info");
        assert_eq!(filter("off").unwrap().to_string(), "off");
        assert!(filter("alertrace=loud").is_err());
    }
}
