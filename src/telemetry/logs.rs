//! The log: how lines look, and how much is logged, which may change while the server runs.

use std::io::{IsTerminal as _, stderr};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::Error;
use crate::config::{Log, LogFormat};

/// The log that was installed.
static LEVELS: OnceLock<Levels> = OnceLock::new();

struct Levels {
    handle: reload::Handle<EnvFilter, Registry>,
    /// In force now, as it was written.
    level: Mutex<String>,
}

/// A layer of the subscriber.
pub(super) type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// The lines of the log, as much of them as `log.level` says.
pub(super) fn lines(log: &Log) -> Result<Boxed, Error> {
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let terminal = stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let lines: Boxed = if json {
        fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(stderr).boxed()
    } else if terminal {
        // Left alone on a terminal, where the default also heeds NO_COLOR.
        fmt::layer().with_writer(stderr).boxed()
    } else {
        fmt::layer().with_ansi(false).with_writer(stderr).boxed()
    };
    let _ = LEVELS.set(Levels { handle, level: Mutex::new(log.level.clone()) });
    Ok(lines.with_filter(filter).boxed())
}

/// What is logged now (`log.level`); `None` before anything is.
#[must_use]
pub fn level() -> Option<String> {
    LEVELS.get().map(|levels| levels.level.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Logs by other directives from now on, until the next start or the next call.
///
/// # Errors
/// [`Error::Level`] when they do not parse, and [`Error::NoLog`] before [`init`](super::init); nothing has changed
/// then.
pub fn set_level(directives: &str) -> Result<(), Error> {
    let levels = LEVELS.get().ok_or(Error::NoLog)?;
    let filter = filter(directives)?;
    let mut level = levels.level.lock().unwrap_or_else(PoisonError::into_inner);
    levels.handle.reload(filter).map_err(|_| Error::NoLog)?;
    directives.clone_into(&mut level);
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rumqttd_is_quiet_unless_asked() {
        assert_eq!(filter("info").unwrap().to_string(), "rumqttd=warn,info");
        assert_eq!(filter("info,rumqttd=debug").unwrap().to_string(), "rumqttd=debug,info");
        assert_eq!(filter("off").unwrap().to_string(), "off");
        assert!(filter("alertrace=loud").is_err());
    }
}
