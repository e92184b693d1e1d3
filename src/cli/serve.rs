//! `alertrace serve`.

use std::sync::{Arc, OnceLock};

use anyhow::Context as _;

use crate::config::{self, Config, Sources};
use crate::domain::SystemClock;
use crate::tls::Certs;
use crate::{app, lifecycle, telemetry};

/// Runs the server until it is asked to stop. `sources` is where `config` came from.
pub(super) async fn run(config: &Config, sources: Sources) -> anyhow::Result<()> {
    let metrics = telemetry::init(&config.log)?;
    let stop = lifecycle::asked_to_stop().context("signals cannot be heard")?;
    tokio::pin!(stop);
    // Heard from the beginning: who asks while it starts must not end it.
    let certs = Arc::new(OnceLock::new());
    let served = certs.clone();
    let reloading =
        lifecycle::on_hangup(move || reload(served.get(), &sources)).context("signals cannot be heard")?;
    let running = tokio::select! {
        started = app::start(config, Arc::new(SystemClock), metrics) => started?,
        () = &mut stop => return Ok(()),
    };
    if let Some(made) = &running.certs {
        certs.get_or_init(|| made.clone());
    }
    tokio::select! {
        ended = running.run(stop) => ended.context("the server ended"),
        () = reloading => Ok(()),
    }
}

/// Reads certificates and the log level again; what is wrong is said, and changes nothing.
fn reload(certs: Option<&Certs>, sources: &Sources) {
    if let Some(certs) = certs {
        certs.reload();
    }
    match config::load(sources) {
        Ok(config) => match telemetry::set_level(&config.log.level) {
            Ok(()) => tracing::info!(level = config.log.level, "the log level was read again"),
            Err(e) => tracing::error!(error = %e, "the log level stays as it was"),
        },
        Err(e) => tracing::error!(error = %e, "the configuration is wrong; the log level stays as it was"),
    }
}
